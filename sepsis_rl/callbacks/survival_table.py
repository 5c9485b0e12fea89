"""The table that a run ends with: what policies are worth in the environment."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table

Figures = Mapping[str, Mapping[str, float]]
"""By policy the metrics by name, as in `metrics.json`."""


def survival_table(figures: Figures, learned: int, *, patients: int, strategy: str) -> Table:
    """Shows policies side by side.

    Args:
        figures: By policy; `difference` may be missing.
        learned: How many of the first ones were trained; they are set off.
        patients: Number of simulated patients.
        strategy: What an inadmissible action did.

    Returns:
        A row for each policy.
    """
    table = framed_table(
        f"90-day survival on ICU-Sepsis, {patients:,} simulated patients\n"
        f"inadmissible actions: {strategy}",
        "In parentheses 95 % intervals; the difference is paired, on the same "
        f"patients. A step is 4 hours.\n{NOT_FOR_CLINICAL_USE}",
    )
    table.add_column("policy", no_wrap=True)
    for column in ("exact %", "rollout %", "minus clinician", "steps"):
        table.add_column(column, justify="right", no_wrap=True)
    for index, (name, values) in enumerate(figures.items()):
        table.add_row(
            name,
            f"{100 * values['survival_exact']:.2f}",
            _interval(values, "survival_rate", ""),
            _interval(values, "difference", "+") if "difference" in values else "",
            f"{values['length_exact']:.2f}",
            style="bold" if index < learned else "",
            end_section=index == learned - 1,
        )
    return table


def _interval(values: Mapping[str, float], name: str, sign: str) -> str:
    estimate, low, high = (
        f"{100 * values[name + part]:{sign}.1f}" for part in ("", "_low", "_high")
    )
    if low == high:
        return estimate
    return f"{estimate} ({low}, {high})" if sign else f"{estimate} ({low}–{high})"

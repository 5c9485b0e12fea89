"""Off-policy estimates as a table on the screen and as JSON."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from sepsis_rl.display import framed_table
from sepsis_rl.metrics import Interval
from sepsis_rl.ope.estimates import LOW_ESS, OffPolicyScores

_WIDE = 3.0  # points


def off_policy_table(
    scores: OffPolicyScores,
    emphasized: int = 0,
    described: str = "episodes, not trained on nor chosen by",
) -> Table:
    """Estimates of policies from recorded episodes alone.

    Args:
        scores: With the estimators `fqe`, `fqe_zero` and `wis`.
        emphasized: How many of the first policies are set apart.
        described: What the episodes are.

    Returns:
        A table with a caption that says how to read it.
    """
    unfit = [
        policy.name
        for policy, ess in zip(scores.policies, scores.effective_sample_size, strict=True)
        if ess < LOW_ESS
    ]
    warning = (
        f"\nEffective sample below {LOW_ESS}: these records cannot judge {', '.join(unfit)}; too "
        "few episodes go as the policy would."
        if unfit
        else ""
    )
    table = framed_table(
        f"From recorded data alone: {scores.episodes:,} {described}",
        "FQE %: fitted Q evaluation, a decision never recorded being worth its state's "
        "mean; as 0: the same, worth nothing. unseen %: share of such decisions. WIS %: weighted "
        "importance sampling; ESS: its effective sample, in episodes. In parentheses 95 % "
        f"intervals; the difference is paired. {softening(scores)}{warning}",
    )
    table.add_column("policy")
    for column in ("FQE %", "as 0", "minus recorded", "unseen", "WIS %", "ESS"):
        table.add_column(column, justify="right", no_wrap=True)
    fqe, zero, wis = (scores.interval(name) for name in ("fqe", "fqe_zero", "wis"))
    difference = scores.minus_recorded("fqe")
    recorded = scores.recorded_interval()
    for index, policy in enumerate(scores.policies):
        table.add_row(
            policy.name,
            percent(fqe, index),
            f"{100 * float(zero.estimate[index]):.0f}",
            percent(difference, index, "+"),
            f"{100 * scores.unseen_rate[index]:.1f}",
            percent(wis, index),
            f"{scores.effective_sample_size[index]:.0f}",
            style="bold" if index < emphasized else "",
            end_section=index == emphasized - 1,
        )
    table.add_section()
    table.add_row("recorded", percent(recorded, 0), "", "", "", "", f"{scores.episodes}")
    return table


def softening(scores: OffPolicyScores) -> str:
    """Under which options importance weights were made."""
    clip = "no clip" if scores.clip is None else f"clip {scores.clip:g}"
    return f"Deterministic policies softened by {max(scores.epsilon.tolist()):g}; {clip}."


def percent(interval: Interval, index: int, sign: str = "") -> str:
    """An estimate in percent with its interval, in whole points where it is wide."""
    estimate, low, high = (100 * float(part[index]) for part in interval)
    if math.isnan(estimate):
        return "–"
    if math.isnan(low):
        return f"{estimate:{sign}.1f}"
    digits = 0 if high - low > _WIDE else 1
    between = ", " if sign else "–"
    return f"{estimate:{sign}.1f} ({low:{sign}.{digits}f}{between}{high:{sign}.{digits}f})"


def as_json(scores: OffPolicyScores) -> dict[str, Any]:
    """All figures by policy, with the options they depend on; NaN becomes null."""
    metrics = scores.metrics()
    metrics["epsilon"] = metrics["ess"].new_tensor(scores.epsilon)
    for part, values in zip(("", "_low", "_high"), scores.minus_recorded("fqe"), strict=True):
        metrics[f"fqe_minus_recorded{part}"] = values
    columns = {name: values.tolist() for name, values in metrics.items()}
    estimate, low, high = (float(part[0]) for part in scores.recorded_interval())
    return {
        "episodes": scores.episodes,
        "clip": scores.clip,
        "resamples": len(scores.recorded_replicates),
        "recorded": {"estimate": estimate, "low": _or_none(low), "high": _or_none(high)},
        "policies": {
            policy.name: {name: _or_none(values[index]) for name, values in columns.items()}
            for index, policy in enumerate(scores.policies)
        },
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value

"""Off-policy estimates as a table on the screen and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from rich.table import Table

from sepsis_rl.display import framed_table
from sepsis_rl.metrics import Interval
from sepsis_rl.ope.estimates import LOW_ESS, OffPolicyScores

_WIDE: Final = 3.0  # points
_LINE: Final = 80  # characters

# Headings; docs/metrics.md has a line for each.
FITTED_Q: Final = "fitted Q %"
UNSEEN_AS_ZERO: Final = "fitted Q, never\nrecorded as 0 %"
SUPPORTED: Final = "supported\nvalue %"
MINUS_RECORDED: Final = "minus\nrecorded"
SAMPLING: Final = "importance\nsampling %"
DOUBLY_ROBUST: Final = "doubly\nrobust %"
USABLE: Final = "usable\nepisodes"


def off_policy_table(
    scores: OffPolicyScores,
    emphasized: int = 0,
    described: str = "not trained on nor chosen by",
    names: Sequence[str] = (),
) -> Table:
    """Estimates of policies from recorded episodes alone, and what was recorded.

    Args:
        scores: With the estimators `fqe`, `fqe_zero`, `wis` and `wdr`.
        emphasized: How many of the first policies are set apart.
        described: What the episodes are.
        names: What the policies are called; by their own names by default.
    """
    noun = "episode" if scores.episodes == 1 else "episodes"
    value = UNSEEN_AS_ZERO if scores.supported is None else SUPPORTED
    table = estimate_table(
        f"From recorded data alone: {scores.episodes:,} {noun}, {described}",
        scores,
        (value, FITTED_Q, MINUS_RECORDED, USABLE),
        names={"policy": names or [policy.name for policy in scores.policies]},
        emphasized=emphasized,
    )
    table.add_section()
    (recorded,) = percents(scores.recorded_interval())
    table.add_row("recorded", "", recorded, "", f"{scores.episodes}")
    return table


def estimate_table(
    title: str,
    scores: OffPolicyScores,
    headings: Sequence[str],
    *,
    names: Mapping[str, Sequence[str]],
    order: Sequence[int] | None = None,
    emphasized: int = 0,
    note: str = "",
    beside: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Estimates with a row for each policy, and a caption of a line or two.

    Args:
        title: What stands above it.
        scores: With the estimators `fqe`, `fqe_zero`, `wis` and `wdr`.
        headings: Which columns of estimates are shown.
        names: What the policies are called, by the heading of the column.
        order: Which policies are shown, from top to bottom; all by default.
        emphasized: How many of the first rows are set apart.
        note: What the caption begins with.
        beside: What else is said of the policies, by the heading of the column.
    """
    estimates = _estimates(scores)
    figures = {**{heading: estimates[heading] for heading in headings}, **(beside or {})}
    table = framed_table(title, f"{note}{_circumstances(scores)}")
    for heading in names:
        # Members differ at the end of their names, which is not to be cut off.
        table.add_column(heading, justify="right" if heading == "step" else "left", overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    for row, index in enumerate(range(len(scores.policies)) if order is None else order):
        table.add_row(
            *(texts[index] for texts in (*names.values(), *figures.values())),
            style="bold" if row < emphasized else "",
            end_section=row == emphasized - 1,
        )
    return table


def _estimates(scores: OffPolicyScores) -> dict[str, list[str]]:
    """Texts, one for each policy, by heading."""
    return {
        FITTED_Q: percents(scores.interval("fqe")),
        UNSEEN_AS_ZERO: [f"{100 * value:.0f}" for value in scores.estimates["fqe_zero"]],
        MINUS_RECORDED: percents(scores.minus_recorded("fqe"), "+"),
        SAMPLING: percents(scores.interval("wis")),
        DOUBLY_ROBUST: percents(scores.interval("wdr")),
        USABLE: [f"{ess:.0f}" for ess in scores.effective_sample_size],
        **_by_all_records(scores),
    }


def _by_all_records(scores: OffPolicyScores) -> dict[str, list[str]]:
    if scores.supported is None:
        return {}
    return {SUPPORTED: [f"{100 * value:.2f}" for value in scores.supported.value.tolist()]}


def _circumstances(scores: OffPolicyScores) -> str:
    """How to read the columns, and which policies the records cannot judge."""
    intervals = "95 % intervals in parentheses; " if len(scores.recorded_replicates) else ""
    ess = scores.effective_sample_size
    unfit = [
        policy.name for policy, size in zip(scores.policies, ess, strict=True) if size < LOW_ESS
    ]
    warning = f"\nFewer than {LOW_ESS} usable episodes: these records cannot judge "
    named = ", ".join(unfit)
    if len(warning) + len(named) > _LINE:
        named = "it" if len(ess) == 1 else f"{len(unfit)} of {len(ess)} policies"
    return f"{intervals}docs/metrics.md explains the columns.{f'{warning}{named}.' * bool(unfit)}"


def percents(interval: Interval, sign: str = "") -> list[str]:
    """Estimates in percent with their intervals, in whole points where those are wide."""
    texts = []
    for estimate, low, high in (100 * torch.stack(interval, dim=1)).tolist():
        digits, between = 0 if high - low > _WIDE else 1, ", " if sign else "–"
        ends = f" ({low:{sign}.{digits}f}{between}{high:{sign}.{digits}f})"
        text = f"{estimate:{sign}.1f}{'' if math.isnan(low) else ends}"
        texts.append("–" if math.isnan(estimate) else text)
    return texts


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

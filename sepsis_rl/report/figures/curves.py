"""What the runs were worth while they were trained, exactly and by records."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sepsis_rl.figures import (
    COLORS,
    MARKERS,
    WIDTH,
    label_axes,
    label_steps,
    legend_below,
    new_figure,
    reference_lines,
)
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.own_runs import name_of
from sepsis_rl.runs.history import Member, read_curve

_EXACT: Final = "exact"
_NAMED: Final = 12  # lines in the legend


def curves(members: Sequence[Member], references: Mapping[str, float]) -> Exhibit | None:
    """Exact survival and the supported value of every member at each evaluation.

    Args:
        members: Of all runs.
        references: Exact survival by `random`, `clinician` and `optimum`; empty without a truth.

    Returns:
        None where no run has either.
    """
    parts = [part for member in members for part in _curves_of(member)]
    if not parts:
        return None
    rows = pd.concat(parts, ignore_index=True)
    panels = list(rows["figure"].unique())
    said = "Exact survival is solved from the simulator's tables. " * (_EXACT in panels)
    if panels != [_EXACT]:
        said += (
            "The value by records is the supported value: what training and held-out episodes say "
            "of a policy, less a price for seldom recorded decisions. Checkpoints are kept by it; "
            "it is too high by a point or so."
        )
    lines = rows["line"].nunique()
    more = f" The first {_NAMED} of {lines} are named." if lines > _NAMED else ""
    return Exhibit(
        name="curves",
        title="How did they get there?",
        text="A line for each run and setting is the mean over its seeds, with thin lines for "
        f"several. {said.strip()}{more}",
        figure=draw_curves(rows, references),
        rows=rows.drop(columns="line").to_dict("records"),
    )


def _curves_of(member: Member) -> list[pd.DataFrame]:
    run = str(Path(*member.run.parts[-2:]))
    named = f"T {member.temperature:g}" if member.temperature not in (None, 1.0) else ""
    line = ", ".join(filter(None, [f"{run}: {member.setting}", named]))
    own = {"line": line, "run": run, "member": member.name, **member.identity}
    found = {}
    if member.has_truth:
        found[_EXACT] = (member.steps, member.metrics["survival_exact"])
    by_records = read_curve(member, "ope/supported_value")
    if len(by_records.steps):
        # Patients of a hospital's own are no match for the simulator's.
        records = "by records" if member.has_truth else f"by records of {name_of(member.data)}"
        found[records] = (by_records.steps, by_records.values)
    return [
        pd.DataFrame({**own, "figure": kind, "step": steps, "value": values})
        for kind, (steps, values) in found.items()
    ]


def draw_curves(rows: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Draws a panel for exact survival, and panels for the value by records.

    Args:
        rows: `line`, `seed`, `figure`, `step` and `value`, a probability.
        references: Exact survival by `random`, `clinician` and `optimum`; empty without a truth.
    """
    panels = sorted(rows["figure"].unique(), key=lambda kind: kind != _EXACT)
    lines = list(rows["line"].unique())
    shades: Sequence[Any] = COLORS[1:]
    if len(lines) > len(shades):
        shades = [tuple(shade) for shade in colormaps["turbo"](np.linspace(0.05, 0.95, len(lines)))]
    figure = new_figure(min(WIDTH, 3.4 * len(panels) + 0.8), 3.4 + 0.1 * min(len(lines), _NAMED))
    axes_of = dict(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True))
    for kind, axes in axes_of.items():
        own = rows[rows["figure"] == kind]
        for number, (line, shade) in enumerate(zip(lines, shades, strict=False)):
            style = {"color": shade, "marker": MARKERS[number % len(MARKERS)]}
            _draw_line(axes, own[own["line"] == line], style, line if number < _NAMED else None)
        title = "survival" if kind == _EXACT else "value"
        label_axes(axes, "", f"{title}, %", textwrap.fill(kind, 24))
        label_steps(axes)
        if kind == _EXACT:
            reference_lines(axes, references, 100 * own["value"])
    legend_below(figure)
    return figure


def _draw_line(axes: Axes, rows: pd.DataFrame, style: Mapping[str, Any], label: str | None) -> None:
    """Draws the mean over members, and each of several as a thin line."""
    if rows.empty:
        return
    members = 100 * rows.pivot(index="step", columns="member", values="value")
    if len(members.columns) > 1:
        axes.plot(members.index, members, color=style["color"], linewidth=0.6, alpha=0.5)
    mean = members.mean(axis=1)
    every = max(1, len(mean) // 6)
    axes.plot(mean.index, mean, **style, linewidth=1.6, markersize=5, markevery=every, label=label)

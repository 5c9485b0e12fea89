"""Whether Q is a lower bound: the network's value of the start against its policy's true one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from sepsis_rl.figures import COLORS, MARKERS, label_axes, label_steps, legend_below, new_figure
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.evidence import Evidence, StartValues, rows_by_step


def lower_bound(evidence: Evidence) -> Exhibit | None:
    """The network's value of the start at each evaluation, and the exact one, by alpha."""
    experiment, values = evidence.experiment, evidence.start_values
    groups = list(experiment.by_alpha.values())
    if not groups:
        return None
    columns = min(4, len(groups))
    lines = -(-len(groups) // columns)
    figure = new_figure(2.9 * columns + 0.6, 2.5 * lines + 0.8)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(groups) :]:
        axes.remove()
    for place, (axes, members) in enumerate(zip(panels.flat, groups, strict=False)):
        for member, marker in zip(members, itertools.cycle(MARKERS), strict=False):
            axes.plot(
                member.steps,
                values[member].estimate,
                color=COLORS[4],
                marker=marker,
                markersize=3.5,
                linewidth=1,
                label=f"the network says, seed {member.seed}",
            )
        for member in members:
            exact = values[member].exact
            style = {"color": COLORS[0], "linestyle": "--", "label": "exact, all seeds"}
            axes.plot(member.steps, exact, linewidth=1.2, **style)
        own = [values[member] for member in members]
        label_axes(axes, title=f"{members[0].setting}: below at {_below(own)}")
        if place % columns == 0:
            axes.set_ylabel("value of the start,\nγ-discounted survival", fontsize=9)
        # Survival lies in [0, 1]: linear there, logarithmic beyond where Q explodes.
        if max(np.abs(found.estimate).max() for found in own) > 10:
            axes.set_yscale("symlog", linthresh=1)
        label_steps(axes)
    legend_below(figure)
    said = ", ".join(
        f"{algorithm} at {_below([values[member] for member in experiment.of(algorithm)])}"
        for algorithm in ("CQL", "DQN")
        if experiment.of(algorithm)
    )
    return Exhibit(
        name="8-lower-bound",
        title="Is Q a lower bound of the true value?",
        text="Points are what the network says its policy is worth from the start, at the γ it was "
        "trained with; the dashed lines are what those policies are worth exactly at the same γ. A "
        f"lower bound stays below them. Of the evaluations it does so for {said}. Each panel has "
        "an axis of its own, logarithmic above 1 where the values pass 10.",
        figure=figure,
        rows=[
            row
            for member, found in values.items()
            for row in rows_by_step(
                member,
                member.steps,
                {
                    "value_estimate": found.estimate,
                    "exact_value": found.exact,
                    "survival_exact": member.metrics["survival_exact"],
                },
                gamma=found.gamma,
            )
        ],
    )


def _below(values: Sequence[StartValues]) -> str:
    below = np.concatenate([found.is_below for found in values])
    return f"{below.sum()} of {len(below)}"

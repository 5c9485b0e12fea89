"""What happens during training: loss, survival, and whether Q bounds the value from below."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sepsis_rl.figures import (
    COLORS,
    MARKERS,
    label_axes,
    label_steps,
    legend_below,
    new_figure,
    reference_lines,
    setting_style,
    setting_styles,
)
from sepsis_rl.mdp import FloatArray, IntArray
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.experiment import ESSAY_ORDER, Experiment
from sepsis_rl.runs.history import Curve, Member

_LOSS_IS: Final = {
    "CQL": "TD error² + α × conservative term",
    "BC": "cross-entropy, nats",
    "DQN": "TD error²",
}
_RATE: Final = ("survival_rate", "survival_rate_low", "survival_rate_high", "survival_exact")


def training_loss(experiment: Experiment) -> Exhibit | None:
    """The training loss of CQL, BC and DQN."""
    found = {member: experiment.loss(member) for member in experiment.members}
    found = {member: curve for member, curve in found.items() if len(curve.steps)}
    algorithms = [name for name in _LOSS_IS if name in {member.algorithm for member in found}]
    if not found:
        return None
    figure = new_figure(3.9 * len(algorithms) + 0.4, 3.9)
    panels = figure.subplots(1, len(algorithms), squeeze=False)[0]
    rows, means = [], {}
    for axes, algorithm in zip(panels, algorithms, strict=True):
        members = [member for member in found if member.algorithm == algorithm]
        styles = setting_styles(member.setting for member in members)
        for setting, style in styles.items():
            curves = [found[member] for member in members if member.setting == setting]
            means[setting] = _draw_band(axes, curves, style, setting)
        for member in members:
            curve = found[member]
            columns = {**member.identity, "step": curve.steps, "loss": curve.values}
            rows += pd.DataFrame(columns).to_dict("records")
        label_axes(axes, "", _LOSS_IS[algorithm], algorithm)
        shown = np.concatenate([means[setting] for setting in styles])
        if len(shown) and shown.max() > 10 * shown.min():
            axes.set_yscale("log")
            axes.set_title(f"{algorithm} (log scale)", fontsize=10)
        label_steps(axes)
    legend_below(figure)
    text = (
        "Loss of single batches as they were logged, nothing smoothed: the line is the mean over "
        "seeds, the band reaches from the smallest to the largest. Each panel has a loss and an "
        "axis of its own, and a larger α adds more of the conservative term, so heights do not "
        "compare; shapes do."
    )
    if "DQN" in means:
        loss = means["DQN"]
        text += f" DQN's mean loss ends at {loss[-1]:.3g}; its smallest was {loss.min():.3g}."
    return Exhibit("1-training-loss", "Is training stable?", text, rows, figure)


def _draw_band(axes: Axes, curves: list[Curve], style: Mapping[str, Any], label: str) -> FloatArray:
    """Draws mean and range over seeds at the steps that all have, and returns the mean."""
    steps: IntArray = functools.reduce(np.intersect1d, [curve.steps for curve in curves])
    values = np.stack([curve.values[np.isin(curve.steps, steps)] for curve in curves])
    mean: FloatArray = values.mean(axis=0)
    low, high = values.min(axis=0), values.max(axis=0)
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.25, linewidth=0)
    # Solid, because dashes of a noisy line are noise.
    axes.plot(
        steps,
        mean,
        **{**style, "linestyle": "-"},
        linewidth=0.9,
        markersize=6.5,
        markeredgecolor="white",
        markevery=max(1, len(steps) // 6),
        label=label,
    )
    return mean


def survival_in_training(experiment: Experiment) -> Exhibit:
    """Survival at each evaluation, by algorithm and seed."""
    groups = [experiment.compared[name] for name in ESSAY_ORDER if name in experiment.compared]
    seeds = sorted({member.seed for members in groups for member in members})
    figure = new_figure(2.7 * len(seeds) + 1.4, 2.1 * len(groups) + 1.0)
    panels = figure.subplots(len(groups), len(seeds), sharex=True, sharey=True, squeeze=False)
    rows = []
    for line, members in zip(panels, groups, strict=True):
        for axes, seed in zip(line, seeds, strict=True):
            reference_lines(axes, experiment.reference_survival)
            label_axes(axes, title=f"{members[0].setting}, seed {seed}")
            label_steps(axes)
            for member in members:
                if member.seed == seed:
                    _draw_survival(axes, member)
                    rates = {name: member.metrics[name] for name in _RATE}
                    columns = {**member.identity, "step": member.steps, **rates}
                    rows += pd.DataFrame(columns).to_dict("records")
        line[0].set_ylabel("survival, %", fontsize=9)
    for axes in panels[:-1].ravel():
        axes.set_xlabel("")
    legend_below(figure)
    rate, low, high, exact = (np.array([row[name] for row in rows]) for name in _RATE)
    inside = (low <= exact) & (exact <= high)
    return Exhibit(
        name="2-survival-in-training",
        title="Does survival improve during training?",
        text="Rows are algorithms, columns are seeds, and all panels share their axes. Hollow "
        "points are shares of simulated patients who survive, with the 95 % interval as a band; "
        f"the line is the same policy's exact survival. The two differ by up to "
        f"{100 * np.abs(rate - exact).max():.1f} points, and the band holds the exact value at "
        f"{inside.sum()} of {len(rows)} evaluations. Every evaluation of a run meets the same "
        "patients, so neighbors err alike.",
        figure=figure,
        rows=rows,
    )


def _draw_survival(axes: Axes, member: Member) -> None:
    rate, low, high, exact = (100 * member.metrics[name] for name in _RATE)
    style = {**setting_style(member.setting), "linestyle": ""}
    color = style["color"]
    axes.fill_between(member.steps, low, high, color=color, alpha=0.25, linewidth=0)
    label = "rollouts, 95 % band"
    axes.plot(member.steps, rate, **style, markersize=3.5, markerfacecolor="white", label=label)
    axes.plot(member.steps, exact, color=color, linewidth=1.8, label="exact")


def lower_bound(experiment: Experiment) -> Exhibit | None:
    """The network's value of the start at each evaluation, and the exact one, by alpha."""
    groups = list(experiment.by_alpha.values())
    if not groups:
        return None
    columns = min(4, len(groups))
    lines = -(-len(groups) // columns)
    figure = new_figure(2.9 * columns + 0.6, 2.5 * lines + 0.8)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(groups) :]:
        axes.remove()
    rows = []
    for place, (axes, members) in enumerate(zip(panels.flat, groups, strict=False)):
        for member, marker in zip(members, itertools.cycle(MARKERS), strict=False):
            own = {
                **member.identity,
                "gamma": float(member.settings["gamma"]),
                "step": member.steps,
                "value_estimate": member.metrics["value_estimate"],
                "exact_value": experiment.start_values(member),
                "survival_exact": member.metrics["survival_exact"],
            }
            rows += pd.DataFrame(own).to_dict("records")
            label = f"the network says, seed {member.seed}"
            style: dict[str, Any] = {"color": COLORS[4], "marker": marker, "markersize": 3.5}
            axes.plot(member.steps, own["value_estimate"], **style, linewidth=1, label=label)
            style = {"color": COLORS[0], "linestyle": "--", "label": "exact, all seeds"}
            axes.plot(member.steps, own["exact_value"], **style, linewidth=1.2, zorder=2.1)
        label_axes(axes, title=f"{members[0].setting}: below at {_below(experiment, members)}")
        if place % columns == 0:
            axes.set_ylabel("value of the start,\nγ-discounted survival", fontsize=9)
        # Survival lies in [0, 1]: linear there, logarithmic beyond where Q explodes.
        if max(np.abs(member.metrics["value_estimate"]).max() for member in members) > 10:
            axes.set_yscale("symlog", linthresh=1)
        label_steps(axes)
    legend_below(figure)
    said = ", ".join(
        f"{algorithm} at {_below(experiment, experiment.of(algorithm))}"
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
        rows=rows,
    )


def _below(experiment: Experiment, members: Sequence[Member]) -> str:
    below = np.concatenate([experiment.is_below(member) for member in members])
    return f"{below.sum()} of {len(below)}"

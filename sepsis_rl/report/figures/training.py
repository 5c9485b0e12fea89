"""The essay's figures 1 and 2: loss and survival during training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from sepsis_rl.figures import (
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
from sepsis_rl.report.evidence import Evidence, rows_by_step
from sepsis_rl.report.experiment import ESSAY_ORDER
from sepsis_rl.runs.history import Curve, Member

_LOSS_IS: Final = {
    "CQL": "TD error² + α × conservative term",
    "BC": "cross-entropy, nats",
    "DQN": "TD error²",
}
_RATE: Final = ("survival_rate", "survival_rate_low", "survival_rate_high", "survival_exact")


def training_loss(evidence: Evidence) -> Exhibit | None:
    """The training loss of CQL, BC and DQN."""
    panels: dict[str, dict[str, dict[Member, Curve]]] = {}
    for algorithm in _LOSS_IS:
        for member in evidence.experiment.of(algorithm):
            if member in evidence.losses:
                settings = panels.setdefault(algorithm, {})
                settings.setdefault(member.setting, {})[member] = evidence.losses[member]
    if not panels:
        return None
    figure = new_figure(3.9 * len(panels) + 0.4, 3.9)
    rows, means = [], {}
    for axes, (algorithm, settings) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        styles = setting_styles(settings)
        for setting, curves in settings.items():
            means[setting] = _draw_band(axes, list(curves.values()), styles[setting], setting)
            for member, curve in curves.items():
                rows += rows_by_step(member, curve.steps, {"loss": curve.values})
        label_axes(axes, "", _LOSS_IS[algorithm], algorithm)
        shown = np.concatenate([means[setting] for setting in settings])
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


def survival_in_training(evidence: Evidence) -> Exhibit | None:
    """Survival at each evaluation, by algorithm and seed."""
    experiment = evidence.experiment
    groups = [experiment.compared[name] for name in ESSAY_ORDER if name in experiment.compared]
    if not groups:
        return None
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
                    rows += rows_by_step(
                        member, member.steps, {name: member.metrics[name] for name in _RATE}
                    )
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

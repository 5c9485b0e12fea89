"""What happens during training: loss, survival, and whether Q bounds the value from below."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from sepsis_rl.figures import (
    COLORS,
    MARKERS,
    WIDTH,
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
from sepsis_rl.runs.history import Curve, Member, setting_name

_LOSS_IS: Final = {
    "CQL": "TD error² +\nα × conservative term",
    "BC": "cross-entropy, nats",
    "DQN": "TD error²",
}
_RATE: Final = ("survival_rate", "survival_rate_low", "survival_rate_high", "survival_exact")
_SEEDS_SHOWN: Final = 3  # side by side


def training_loss(experiment: Experiment) -> Exhibit | None:
    """The training loss of CQL, BC and DQN."""
    found = {member: experiment.loss(member) for member in experiment.members}
    found = {member: curve for member, curve in found.items() if len(curve.steps)}
    algorithms = [name for name in _LOSS_IS if name in {member.algorithm for member in found}]
    if not found:
        return None
    figure = new_figure(min(WIDTH, 2.5 * len(algorithms) + 1.0), 3.3)
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
            axes.yaxis.set_minor_formatter(NullFormatter())
            if shown.max() < 1000 * shown.min():  # powers of ten would be too few
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
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
    parts = [
        pd.DataFrame(
            {
                **member.identity,
                "step": member.steps,
                **{name: member.metrics[name] for name in _RATE},
            }
        )
        for members in groups
        for member in sorted(members, key=lambda member: member.seed)
    ]
    rows = pd.concat(parts, ignore_index=True)
    rate, low, high, exact = (rows[name] for name in _RATE)
    inside = (low <= exact) & (exact <= high)
    more = f", of which the first {_SEEDS_SHOWN} are drawn" * (max(map(len, groups)) > _SEEDS_SHOWN)
    return Exhibit(
        name="2-survival-in-training",
        title="Does survival improve during training?",
        text=f"Rows are algorithms, columns are their seeds{more}, and all panels share their "
        "axes. Hollow points are shares of simulated patients who survive, with the 95 % interval "
        "as a band; the line is the same policy's exact survival. The two differ by up to "
        f"{100 * np.abs(rate - exact).max():.1f} points, and the band holds the exact value at "
        f"{inside.sum()} of {len(rows)} evaluations. Every evaluation of a run meets the same "
        "patients, so neighbors err alike.",
        figure=draw_survival(rows, experiment.reference_survival),
        rows=rows.to_dict("records"),
    )


def draw_survival(rows: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Draws survival in training: a row of panels for each algorithm, a panel for each seed.

    Args:
        rows: Those of the exhibit.
        references: Exact survival by `random`, `clinician` and `optimum`.
    """
    groups = {
        setting_name(*key): dict(list(own.groupby("seed", sort=False))[:_SEEDS_SHOWN])
        for key, own in rows.groupby(["algorithm", "alpha"], sort=False, dropna=False)
    }
    columns = max(map(len, groups.values()))
    figure = new_figure(min(WIDTH, 2.3 * columns + 1.4), 1.8 * len(groups) + 1.0)
    panels = figure.subplots(len(groups), columns, sharex=True, sharey=True, squeeze=False)
    for line, (setting, seeds) in zip(panels, groups.items(), strict=True):
        for axes, (seed, own) in zip(line, seeds.items(), strict=False):
            label_axes(axes, title=f"{setting}, seed {seed}")
            label_steps(axes)
            _draw_survival(axes, setting, own)
            reference_lines(axes, references, 100 * rows[list(_RATE)])
        for axes in line[len(seeds) :]:
            axes.remove()
        line[0].set_ylabel("survival, %", fontsize=9)
    for axes in panels[:-1].ravel():
        axes.set_xlabel("")
    legend_below(figure)
    return figure


def _draw_survival(axes: Axes, setting: str, rows: pd.DataFrame) -> None:
    rate, low, high, exact = (100 * rows[name] for name in _RATE)
    style = {**setting_style(setting), "linestyle": ""}
    color = style["color"]
    axes.fill_between(rows["step"], low, high, color=color, alpha=0.25, linewidth=0)
    label = "rollouts, 95 % band"
    axes.plot(rows["step"], rate, **style, markersize=3.5, markerfacecolor="white", label=label)
    axes.plot(rows["step"], exact, color=color, linewidth=1.8, label="exact")


def lower_bound(experiment: Experiment) -> Exhibit | None:
    """The network's value of the start at each evaluation, and the exact one, by alpha."""
    parts = [
        pd.DataFrame(
            {
                **member.identity,
                "gamma": float(member.settings["gamma"]),
                "step": member.steps,
                "value_estimate": member.metrics["value_estimate"],
                "exact_value": experiment.start_values(member),
                "survival_exact": member.metrics["survival_exact"],
            }
        )
        for members in experiment.by_alpha.values()
        for member in members
    ]
    if not parts:
        return None
    rows = pd.concat(parts, ignore_index=True)
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
        figure=draw_lower_bound(rows),
        rows=rows.to_dict("records"),
    )


def draw_lower_bound(rows: pd.DataFrame) -> Figure:
    """Draws what networks say of the start beside what is true, a panel for each alpha.

    Args:
        rows: Those of the exhibit.
    """
    groups = dict(list(rows.groupby(["algorithm", "alpha"], sort=False)))
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = new_figure(2.4 * columns + 0.4, 2.2 * lines + 0.8)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(groups) :]:
        axes.remove()
    for place, (axes, (key, own)) in enumerate(zip(panels.flat, groups.items(), strict=False)):
        seeds = own.groupby("seed", sort=False)
        for (seed, curve), marker in zip(seeds, itertools.cycle(MARKERS), strict=False):
            said: dict[str, Any] = {"color": COLORS[4], "marker": marker, "markersize": 3.5}
            said |= {"label": f"the network says, seed {seed}", "linewidth": 1}
            axes.plot(curve["step"], curve["value_estimate"], **said)
            true = {"color": COLORS[0], "linestyle": "--", "label": "exact, all seeds"}
            axes.plot(curve["step"], curve["exact_value"], **true, linewidth=1.2, zorder=2.1)
        below = (own["value_estimate"] <= own["exact_value"]).sum()
        label_axes(axes, title=f"{setting_name(*key)}: below at {below} of {len(own)}")
        if place % columns == 0:
            axes.set_ylabel("value of the start,\nγ-discounted survival", fontsize=9)
        # Survival lies in [0, 1]: linear there, logarithmic beyond where Q explodes.
        if own["value_estimate"].abs().max() > 10:
            axes.set_yscale("symlog", linthresh=1)
        label_steps(axes)
    legend_below(figure)
    return figure


def _below(experiment: Experiment, members: Sequence[Member]) -> str:
    below = np.concatenate([experiment.is_below(member) for member in members])
    return f"{below.sum()} of {len(below)}"

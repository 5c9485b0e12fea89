"""What happens over training, and what changes with episodes, learning rate and network."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import FloatArray, IntArray, TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.report.experiment import Experiment, Member
from sepsis_rl.report.style import (
    COLORS,
    MARKERS,
    Exhibit,
    legend_below,
    look,
    looks,
    new_figure,
    reference_lines,
    tidy,
)

_LOSS_IS: Final = {
    "CQL": "TD error² + α × conservative term",
    "BC": "cross-entropy, nats",
    "DQN": "TD error²",
}


def read_curve(member: Member, tag: str) -> tuple[IntArray, FloatArray]:
    """A scalar that a member logged to TensorBoard.

    Args:
        member: Whose; a run of one member logs in its own folder, a sweep in a folder a member.
        tag: Such as `train/loss`.

    Returns:
        Optimizer steps, int64 (points,), and values, float64 (points,); empty where there are none.
    """
    folder = member.run
    if member.name:
        members = folder / "members"
        # A member alone has settings there, but its curves would be the same as the run's.
        if not members.is_dir() or len(list(members.iterdir())) > 1:
            folder = members / member.name
    if not folder.is_dir():
        return np.empty(0, dtype=np.int64), np.empty(0)
    events = _events(folder)
    # Reads only what has been added since; hides what a resumed run logged a second time.
    events.Reload()
    points = events.Scalars(tag) if tag in events.Tags()["scalars"] else []
    return (
        np.array([point.step for point in points], dtype=np.int64),
        np.array([point.value for point in points], dtype=np.float64),
    )


@functools.lru_cache(maxsize=128)
def _events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0})


def training_loss(experiment: Experiment) -> Exhibit | None:
    """The essay's figure 1: the training loss of CQL, BC and DQN.

    Args:
        experiment: Its grid, and the folders of its runs.
    """
    panels: dict[str, dict[str, list[tuple[Member, IntArray, FloatArray]]]] = {}
    for algorithm in _LOSS_IS:
        for member in experiment.of(algorithm):
            steps, losses = read_curve(member, "train/loss")
            if len(steps):
                groups = panels.setdefault(algorithm, {})
                groups.setdefault(member.setting, []).append((member, steps, losses))
    if not panels:
        return None
    figure = new_figure(3.9 * len(panels) + 0.4, 3.9)
    rows, means = [], {}
    for axes, (algorithm, groups) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        styles = looks(groups)
        for setting, curves in groups.items():
            steps, table = _aligned([(own, losses) for _, own, losses in curves])
            means[setting] = _draw_band(axes, steps, table, styles[setting], setting)
            rows += [
                {**member.identity, "step": step, "loss": loss}
                for member, own, losses in curves
                for step, loss in zip(own.tolist(), losses.tolist(), strict=True)
            ]
        tidy(axes, "", _LOSS_IS[algorithm], algorithm)
        shown = np.concatenate([means[setting] for setting in groups])
        if len(shown) and shown.max() > 10 * shown.min():
            axes.set_yscale("log")
            axes.set_title(f"{algorithm} (log scale)", fontsize=10)
        _name_steps(axes)
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
    return Exhibit("1-training-loss", "Is training stable?", text, figure, rows)


def survival_in_training(experiment: Experiment, baselines: Mapping[str, float]) -> Exhibit | None:
    """The essay's figure 2: survival at each evaluation, by algorithm and seed.

    Args:
        experiment: Its grid.
        baselines: Exact survival of random, clinician and optimum.
    """
    found = [experiment.nearest(0.5), experiment.of("BC"), experiment.of("DQN")]
    groups = [members for members in found if members]
    if not groups:
        return None
    seeds = sorted({member.seed for members in groups for member in members})
    figure = new_figure(2.7 * len(seeds) + 1.4, 2.1 * len(groups) + 1.0)
    panels = figure.subplots(len(groups), len(seeds), sharex=True, sharey=True, squeeze=False)
    rows = []
    for row, members in zip(panels, groups, strict=True):
        style = look(members[0].setting)
        for axes, seed in zip(row, seeds, strict=True):
            reference_lines(axes, baselines)
            tidy(axes, "", "", f"{members[0].setting}, seed {seed}")
            for member in members:
                if member.seed == seed:
                    rows += _draw_survival(axes, member, style)
            _name_steps(axes)
        row[0].set_ylabel("survival, %", fontsize=9)
    for axes in panels[:-1].ravel():
        axes.set_xlabel("")
    legend_below(figure)
    rates = np.array([row["survival_rate"] for row in rows])
    exact = np.array([row["survival_exact"] for row in rows])
    inside = sum(
        row["survival_rate_low"] <= row["survival_exact"] <= row["survival_rate_high"]
        for row in rows
    )
    return Exhibit(
        name="2-survival-in-training",
        title="Does survival improve during training?",
        text="Rows are algorithms, columns are seeds, and all panels share their axes. Hollow "
        "points are shares of simulated patients who survive, with the 95 % interval as a band; "
        f"the line is the same policy's exact survival. The two differ by up to "
        f"{100 * np.abs(rates - exact).max():.1f} points, and the band holds the exact value at "
        f"{inside} of {len(rows)} evaluations. Every evaluation of a run meets the same patients, "
        "so neighbors err alike.",
        figure=figure,
        rows=rows,
    )


def _draw_survival(axes: Axes, member: Member, style: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = ("survival_rate", "survival_rate_low", "survival_rate_high", "survival_exact")
    columns = {name: member.metrics[name] for name in names}
    rate, low, high, exact = (100 * column for column in columns.values())
    axes.fill_between(member.steps, low, high, color=style["color"], alpha=0.25, linewidth=0)
    axes.plot(
        member.steps,
        rate,
        linestyle="",
        marker=style["marker"],
        markersize=3.5,
        color=style["color"],
        markerfacecolor="white",
        label="rollouts, 95 % band",
    )
    axes.plot(member.steps, exact, color=style["color"], linewidth=1.8, label="exact")
    return [
        {
            **member.identity,
            "step": int(step),
            **{name: float(column[at]) for name, column in columns.items()},
        }
        for at, step in enumerate(member.steps)
    ]


def lower_bound(experiment: Experiment) -> Exhibit | None:
    """Whether Q is a lower bound: the network's value of the start against the policy's true one.

    Args:
        experiment: Its grid.
    """
    groups: dict[str, list[Member]] = {}
    for member in experiment.of("DQN") + experiment.of("CQL"):
        groups.setdefault(member.setting, []).append(member)
    if not groups:
        return None
    columns = min(4, len(groups))
    lines = -(-len(groups) // columns)
    figure = new_figure(2.9 * columns + 0.6, 2.5 * lines + 0.8)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(groups) :]:
        axes.remove()
    rows: list[dict[str, Any]] = []
    for place, (setting, members) in enumerate(groups.items()):
        axes = panels.flat[place]
        found = [_bound_rows(experiment.mdp, member) for member in members]
        own = [row for part in found for row in part]
        rows += own
        for member, part, marker in zip(members, found, itertools.cycle(MARKERS), strict=False):
            axes.plot(
                member.steps,
                [row["value_estimate"] for row in part],
                color=COLORS[4],
                marker=marker,
                markersize=3.5,
                linewidth=1,
                label=f"the network says, seed {member.seed}",
            )
        for member, part in zip(members, found, strict=True):
            axes.plot(
                member.steps,
                [row["exact_value"] for row in part],
                color=COLORS[0],
                linestyle="--",
                linewidth=1.2,
                label="exact, all seeds",
            )
        tidy(axes, "", "", f"{setting}: below at {_below(own)}")
        if place % columns == 0:
            axes.set_ylabel("value of the start,\nγ-discounted survival", fontsize=9)
        # Survival lies in [0, 1]: linear there, logarithmic beyond where Q explodes.
        if max(abs(row["value_estimate"]) for row in own) > 10:
            axes.set_yscale("symlog", linthresh=1)
        _name_steps(axes)
    legend_below(figure)
    counted = {
        algorithm: [row for row in rows if row["algorithm"] == algorithm]
        for algorithm in ("CQL", "DQN")
    }
    said = ", ".join(f"{name} at {_below(own)}" for name, own in counted.items() if own)
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


def _bound_rows(mdp: TabularMDP, member: Member) -> list[dict[str, Any]]:
    gamma = float(member.settings["gamma"])
    return [
        {
            **member.identity,
            "gamma": gamma,
            "step": int(step),
            "value_estimate": float(member.metrics["value_estimate"][at]),
            # Like Q of a state and an action, it leaves the first step's reward undiscounted.
            "exact_value": evaluate(true_dynamics(mdp), table, gamma=gamma).value,
            "survival_exact": float(member.metrics["survival_exact"][at]),
        }
        for at, (step, table) in enumerate(zip(member.steps, member.tables(), strict=True))
    ]


def _below(rows: Sequence[Mapping[str, Any]]) -> str:
    below = sum(row["value_estimate"] <= row["exact_value"] for row in rows)
    return f"{below} of {len(rows)}"


def _aligned(curves: Sequence[tuple[IntArray, FloatArray]]) -> tuple[IntArray, FloatArray]:
    """Curves at the steps that all have: (points,) and (curves, points)."""
    steps = functools.reduce(np.intersect1d, [own for own, _ in curves])
    return steps, np.stack([values[np.isin(own, steps)] for own, values in curves])


def _draw_band(
    axes: Axes, steps: IntArray, table: FloatArray, style: Mapping[str, Any], label: str
) -> FloatArray:
    """Draws mean and range over seeds, (seeds, points), and returns the mean."""
    mean: FloatArray = table.mean(axis=0)
    low, high = table.min(axis=0), table.max(axis=0)
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.25, linewidth=0)
    every = max(1, len(steps) // 6)
    # Solid, because dashes of a noisy line are noise.
    axes.plot(
        steps,
        mean,
        **{**style, "linestyle": "-"},
        linewidth=0.9,
        markersize=6.5,
        markeredgecolor="white",
        markevery=every,
        label=label,
    )
    return mean


def _name_steps(axes: Axes) -> None:
    axes.set_xlabel("optimizer steps", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))

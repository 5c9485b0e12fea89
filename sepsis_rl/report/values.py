"""The essay's figure 7: what Q says of actions that clinicians seldom take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from sepsis_rl.mdp import BoolArray, FloatArray, IntArray
from sepsis_rl.report.experiment import Experiment, Member
from sepsis_rl.report.style import Exhibit, look, new_figure, tidy

STATE: Final = 559
"""The state that the essay shows."""


def q_values(experiment: Experiment) -> Exhibit | None:
    """Q of all actions, in one state and over all states, beside what the data have.

    Args:
        experiment: Its grid.
    """
    groups = {
        setting: members for setting, members in experiment.compared.items() if setting != "BC"
    }
    if not groups:
        return None
    counts = experiment.data.pair_counts
    alive = ~experiment.mdp.terminal
    figure = new_figure(11, 2.6 * len(groups) + 0.7)
    panels = figure.subplots(len(groups), 2, sharex=True, squeeze=False)
    rows: list[dict[str, Any]] = []
    said = []
    actions = np.arange(counts.shape[1])
    for (left, right), (setting, members) in zip(panels, groups.items(), strict=True):
        q = np.stack([member.scores() for member in members])
        style = look(setting)
        own, over_states = q[:, STATE], q[:, alive].mean(axis=1)
        deviation = q[:, alive].std(axis=1).mean(axis=0)
        _shade(left, counts[STATE])
        _shade(right, counts[alive].sum(axis=0))
        _draw(left, own, np.stack([own.min(axis=0), own.max(axis=0)]), style)
        mean = over_states.mean(axis=0)
        _draw(right, over_states, np.stack([mean - deviation, mean + deviation]), style)
        tidy(left, "", "Q", f"{setting}, state {STATE}")
        tidy(right, "", "", f"{setting}, mean over {alive.sum()} states")
        rows += _rows(setting, members, q, counts, alive)
        said.append(_summary(setting, q, counts, alive))
    for axes in panels[-1]:
        axes.set_xticks(actions[::5])
        axes.set_xlabel("action = 5 × IV-fluid level + vasopressor level", fontsize=9)
    return Exhibit(
        name="7-q-values",
        title="What does Q say of actions that are seldom taken?",
        text="Left one state, points are means over seeds and whiskers their range; right the "
        "mean over all states, whiskers the standard deviation between states. Gray columns, on a "
        "scale of their own, are how often the training data have the action there. Axes differ "
        f"between rows. {' '.join(said)}",
        figure=figure,
        rows=rows,
    )


def _shade(axes: Axes, counts: IntArray) -> None:
    twin = axes.twinx()
    twin.bar(np.arange(len(counts)), counts, color="0.85", width=0.9)
    twin.set_ylabel("rows of data", fontsize=8, color="0.4")
    twin.tick_params(labelsize=8, colors="0.4")
    # The columns stay behind the points.
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)


def _draw(axes: Axes, q: FloatArray, span: FloatArray, style: dict[str, Any]) -> None:
    mean = q.mean(axis=0)
    axes.errorbar(
        np.arange(len(mean)),
        mean,
        yerr=np.abs(span - mean),
        color=style["color"],
        marker=style["marker"],
        linestyle="",
        capsize=2,
        markersize=5,
    )


def _rows(
    setting: str, members: Sequence[Member], q: FloatArray, counts: IntArray, alive: BoolArray
) -> list[dict[str, Any]]:
    return [
        {
            "setting": setting,
            "seed": member.seed,
            "action": action,
            f"q_of_state_{STATE}": float(table[STATE, action]),
            f"count_in_state_{STATE}": int(counts[STATE, action]),
            "q_mean_over_states": float(table[alive, action].mean()),
            "q_sd_over_states": float(table[alive, action].std()),
            "count": int(counts[alive, action].sum()),
        }
        for member, table in zip(members, q, strict=True)
        for action in range(counts.shape[1])
    ]


def _summary(setting: str, q: FloatArray, counts: IntArray, alive: BoolArray) -> str:
    seen = (counts > 0) & alive[:, None]
    unseen = (counts == 0) & alive[:, None]
    spread = q[:, alive].std(axis=2).mean()
    return (
        f"{setting}: mean Q of recorded pairs {q[:, seen].mean():.3g}, of pairs never recorded "
        f"{q[:, unseen].mean():.3g}, standard deviation over a state's actions {spread:.3g}."
    )

"""The essay's figure 7: what Q says of actions that clinicians seldom take."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from sepsis_rl.figures import label_axes, new_figure, setting_style
from sepsis_rl.mdp import FloatArray, IntArray
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.evidence import Evidence

STATE: Final = 559
"""The state that the essay shows."""


def q_values(evidence: Evidence) -> Exhibit | None:
    """Q of all actions, in one state and over all states, beside what the data have."""
    experiment = evidence.experiment
    groups = [own for algorithm, own in experiment.compared.items() if algorithm != "BC"]
    if not groups:
        return None
    alive = ~experiment.mdp.terminal
    counts = experiment.data.pair_counts
    in_state, in_all = counts[STATE], counts[alive].sum(axis=0)
    actions = np.arange(len(in_all))
    figure = new_figure(11, 2.6 * len(groups) + 0.7)
    panels = figure.subplots(len(groups), 2, sharex=True, squeeze=False)
    rows: list[dict[str, Any]] = []
    said = []
    for (left, right), members in zip(panels, groups, strict=True):
        setting = members[0].setting
        q = np.stack([experiment.scores(member) for member in members])
        own, mean, deviation = q[:, STATE], q[:, alive].mean(axis=1), q[:, alive].std(axis=1)
        _draw(left, setting, in_state, own.mean(axis=0), own.min(axis=0), own.max(axis=0))
        middle, reach = mean.mean(axis=0), deviation.mean(axis=0)
        _draw(right, setting, in_all, middle, middle - reach, middle + reach)
        label_axes(left, "", "Q", f"{setting}, state {STATE}")
        label_axes(right, "", "", f"{setting}, mean over {alive.sum()} states")
        rows += [
            {
                "setting": setting,
                "seed": member.seed,
                "action": action,
                f"q_of_state_{STATE}": own[number, action],
                f"count_in_state_{STATE}": in_state[action],
                "q_mean_over_states": mean[number, action],
                "q_sd_over_states": deviation[number, action],
                "count": in_all[action],
            }
            for number, member in enumerate(members)
            for action in actions.tolist()
        ]
        seen, unseen = (q[:, pairs & alive[:, None]].mean() for pairs in (counts > 0, counts == 0))
        spread = q[:, alive].std(axis=2).mean()
        said.append(
            f"{setting}: mean Q of recorded pairs {seen:.3g}, of pairs never recorded "
            f"{unseen:.3g}, standard deviation over a state's actions {spread:.3g}."
        )
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


def _draw(
    axes: Axes, setting: str, counts: IntArray, mean: FloatArray, low: FloatArray, high: FloatArray
) -> None:
    """Draws Q with whiskers over columns of how often the data have each action."""
    twin = axes.twinx()
    twin.bar(np.arange(len(counts)), counts, color="0.85", width=0.9)
    twin.set_ylabel("rows of data", fontsize=8, color="0.4")
    twin.tick_params(labelsize=8, colors="0.4")
    # The columns stay behind the points.
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    style = {**setting_style(setting), "linestyle": ""}
    reach = np.stack([mean - low, high - mean])
    axes.errorbar(np.arange(len(mean)), mean, yerr=reach, **style, capsize=2, markersize=5)

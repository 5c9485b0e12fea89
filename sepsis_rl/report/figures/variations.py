"""What changes with the number of episodes, the learning rate or the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from sepsis_rl.baselines import tabular_policy
from sepsis_rl.figures import (
    COLORS,
    label_axes,
    legend_below,
    new_figure,
    reference_lines,
    setting_styles,
)
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.experiment import Experiment, exact_value
from sepsis_rl.runs.history import Member

_TABULAR: Final = "tabular, no network"
_VARIED: Final = {
    "data.episodes": ("9-episodes", "Would more data help?", "episodes to train on"),
    "learning_rate": ("10-learning-rate", "Does the learning rate matter?", "learning rate"),
    "network": (
        "11-network",
        "Does the size of the network matter?",
        "widths of embedding and hidden layers",
    ),
}


def variations(experiment: Experiment) -> list[Exhibit]:
    """Exact survival against the one thing that runs vary.

    The grid is among them where it was evaluated after as many steps.
    """
    return [_variation(experiment, key, own) for key, own in experiment.variations.items()]


def _variation(experiment: Experiment, key: str, varied: Sequence[Member]) -> Exhibit:
    name, title, axis = _VARIED[key]
    lines = _points(experiment, key, varied)
    styles = setting_styles(lines)
    if key == "data.episodes":
        lines[_TABULAR] = _tabular_points(experiment, varied)
        styles[_TABULAR] = {"color": COLORS[1], "marker": "D", "linestyle": "-."}
    places = sorted({row[key] for own in lines.values() for row in own})
    # Networks are no numbers: they stand side by side.
    at = {place: number if key == "network" else place for number, place in enumerate(places)}
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    reference_lines(axes, experiment.reference_survival)
    said = []
    for line, own in lines.items():
        points = pd.DataFrame({"at": row[key], "survival": 100 * row["survival"]} for row in own)
        x = points["at"].map(at)
        axes.plot(
            x, points["survival"], **{**styles[line], "linestyle": ""}, markersize=4, alpha=0.6
        )
        means = points.groupby("at")["survival"].mean()
        hollow: dict[str, Any] = {"markersize": 7, "markerfacecolor": "none", "label": line}
        axes.plot([at[place] for place in means.index], means, **styles[line], **hollow)
        shown = ", ".join(f"{mean:.1f} % at {_caption(place)}" for place, mean in means.items())
        said.append(f"{line}: {shown}")
    label_axes(axes, axis, "exact survival, %")
    if key == "network":
        axes.set_xlim(-0.5, len(places) - 0.5)
    else:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(list(at.values()), [_caption(place) for place in places])
    legend_below(figure)
    text = (
        "Small points are seeds, large hollow ones their mean. All else is as in the grid, whose "
        "own runs are among them if they were evaluated after as many steps. Means: "
        f"{'; '.join(said)}."
    )
    if key == "data.episodes":
        text += (
            " The tabular policy is planned on what the same episodes say, without a network: "
            "a mark for what they can teach. Its limit is the optimum."
        )
    rows = [row for own in lines.values() for row in own]
    if key == "network":
        rows = [{**row, key: _caption(row[key])} for row in rows]
    return Exhibit(name, title, text, rows, figure)


def _points(
    experiment: Experiment, key: str, varied: Sequence[Member]
) -> dict[str, list[dict[str, Any]]]:
    """Survival of the varied members and their like in the grid, by setting and steps."""
    last = {(member.setting, member.seed, int(member.steps[-1])) for member in varied}
    lines: dict[str, list[dict[str, Any]]] = {}
    for member in [*varied, *experiment.members]:
        steps = member.steps[-1:] if member in varied else member.steps
        for step in steps.tolist():
            if (member.setting, member.seed, step) in last:
                row = {key: _place(member, key), **member.identity, "step": step}
                row["survival"] = member.survival_at(step)
                lines.setdefault(f"{member.setting}, {step:,} steps", []).append(row)
    return lines


def _tabular_points(experiment: Experiment, varied: Sequence[Member]) -> list[dict[str, Any]]:
    """What planning on the records of each data set reaches."""
    mdp = experiment.mdp
    sets = {data.content_hash: data.train for data in [experiment.data, *(m.data for m in varied)]}
    rows = []
    for train in sets.values():
        policy = tabular_policy(train.counts(mdp.n_states, mdp.n_actions), mdp)
        row = {"data.episodes": train.n_episodes, "algorithm": "tabular", "alpha": None}
        survival = exact_value(mdp, policy).survival
        rows.append({**row, "seed": None, "step": None, "survival": survival})
    return rows


def _place(member: Member, key: str) -> Any:
    if key == "data.episodes":
        return member.data.train.n_episodes
    if key == "network":
        return (int(member.settings["embedding_dim"]), *member.settings["hidden_dims"])
    return float(member.settings[key])


def _caption(place: Any) -> str:
    if isinstance(place, tuple):
        return "–".join(map(str, place))
    return f"{place:,}" if isinstance(place, int) else f"{place:g}"

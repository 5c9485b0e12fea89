"""What changes with the number of episodes, the learning rate or the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

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
from sepsis_rl.runs.history import Member, setting_name

_TABULAR: Final = "tabular, no network"
VARIED: Final = {
    "data.episodes": ("9-episodes", "Would more data help?", "episodes to train on"),
    "learning_rate": ("10-learning-rate", "Does the learning rate matter?", "learning rate"),
    "network": (
        "11-network",
        "Does the size of the network matter?",
        "widths of embedding and hidden layers",
    ),
}
"""By what is varied: name and title of its exhibit, and what its axis is called."""


def variations(experiment: Experiment) -> list[Exhibit]:
    """Exact survival against the one thing that runs vary.

    The grid is among them where it was evaluated after as many steps.
    """
    return [_variation(experiment, key, own) for key, own in experiment.variations.items()]


def _variation(experiment: Experiment, key: str, varied: Sequence[Member]) -> Exhibit:
    name, title, _ = VARIED[key]
    rows = pd.DataFrame(_points(experiment, key, varied))
    text = (
        "Small points are seeds, large hollow ones their mean. All else is as in the grid, whose "
        "own runs are among them if they were evaluated after as many steps."
    )
    if key == "data.episodes":
        rows = pd.concat([rows, pd.DataFrame(_tabular_points(experiment, varied))])
        text += (
            " The tabular policy is planned on what the same episodes say, without a network: "
            "a mark for what they can teach. Its limit is the optimum."
        )
    said = []
    for line, own in _lines(rows):
        means = 100 * own.groupby(key)["survival"].mean()
        shown = ", ".join(f"{mean:.1f} % at {_caption(place)}" for place, mean in means.items())
        said.append(f"{line}: {shown}")
    if key == "network":
        rows = rows.assign(network=rows["network"].map(_caption))
    figure = draw_variation(rows, key, experiment.reference_survival)
    text += f" Means: {'; '.join(said)}."
    return Exhibit(name, title, text, rows.to_dict("records"), figure)


def draw_variation(rows: pd.DataFrame, key: str, references: Mapping[str, float]) -> Figure:
    """Draws exact survival against the one thing that runs vary.

    Args:
        rows: Those of the exhibit.
        key: Which thing, of `VARIED`.
        references: Exact survival by `random`, `clinician` and `optimum`.
    """
    lines = _lines(rows)
    styles = setting_styles(line for line, _ in lines if line != _TABULAR)
    styles[_TABULAR] = {"color": COLORS[1], "marker": "D", "linestyle": "-."}
    # Networks are no numbers: they stand side by side, by their widths.
    widths = key == "network"
    places = sorted(rows[key].unique(), key=_widths_in if widths else None)
    at = {place: number if widths else place for number, place in enumerate(places)}
    figure = new_figure(6.4, 3.9)
    axes = figure.subplots()
    for line, own in lines:
        seeds = {**styles[line], "linestyle": ""}
        axes.plot(own[key].map(at), 100 * own["survival"], **seeds, markersize=4, alpha=0.6)
        means = 100 * own.groupby(key, sort=False)["survival"].mean()
        means.index = means.index.map(at)
        means = means.sort_index()
        hollow: dict[str, Any] = {"markersize": 7, "markerfacecolor": "none", "label": line}
        axes.plot(means.index, means, **styles[line], **hollow)
    label_axes(axes, VARIED[key][2], "exact survival, %")
    if widths:
        axes.set_xlim(-0.5, len(places) - 0.5)
    else:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(list(at.values()), [_caption(place) for place in places])
    reference_lines(axes, references, 100 * rows["survival"])
    legend_below(figure)
    return figure


def _lines(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each line of the picture, under its name."""
    grouped = rows.groupby(["algorithm", "alpha", "step"], sort=False, dropna=False)
    return [
        (_TABULAR if name == "tabular" else f"{setting_name(name, alpha)}, {step:,.0f} steps", own)
        for (name, alpha, step), own in grouped
    ]


def _points(experiment: Experiment, key: str, varied: Sequence[Member]) -> list[dict[str, Any]]:
    """Survival of the varied members and their like in the grid, by place, setting and seed."""
    last = {(member.setting, member.seed, int(member.steps[-1])) for member in varied}
    rows = []
    for member in [*varied, *experiment.members]:
        steps = member.steps[-1:] if member in varied else member.steps
        for step in steps.tolist():
            if (member.setting, member.seed, step) in last:
                row = {key: _place(member, key), **member.identity, "step": step}
                rows.append(row | {"survival": member.survival_at(step)})
    return sorted(rows, key=lambda row: row[key])


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


def _widths_in(caption: str) -> list[int]:
    return [int(width) for width in caption.split("–")]


def _caption(place: Any) -> str:
    if isinstance(place, tuple):
        return "–".join(map(str, place))
    if isinstance(place, str):
        return place
    return f"{place:,.0f}" if place >= 1 else f"{place:g}"

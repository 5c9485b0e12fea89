"""What changes with the number of episodes, the learning rate or the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import tabular_policy
from sepsis_rl.report.experiment import Experiment, Member
from sepsis_rl.report.style import (
    COLORS,
    Exhibit,
    legend_below,
    looks,
    new_figure,
    reference_lines,
    tidy,
)

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


def variations(experiment: Experiment, baselines: Mapping[str, float]) -> list[Exhibit]:
    """Exact survival against the one thing that runs vary.

    Args:
        experiment: Its variations, and its grid where that was evaluated after as many steps.
        baselines: Exact survival of random, clinician and optimum.
    """
    return [
        _variation(experiment, key, members, baselines)
        for key, members in experiment.variations.items()
    ]


def _variation(
    experiment: Experiment, key: str, varied: Sequence[Member], baselines: Mapping[str, float]
) -> Exhibit:
    name, title, axis = _VARIED[key]
    lines = _points(experiment, key, varied)
    if key == "data.episodes":
        lines[_TABULAR] = _tabular_points(experiment, varied)
    rows = [row for own in lines.values() for row in own]
    places = sorted({row[key] for row in rows})
    # Networks are no numbers: they stand side by side.
    at = {place: number if key == "network" else place for number, place in enumerate(places)}
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    reference_lines(axes, baselines)
    said = []
    styles = looks(lines) | {_TABULAR: {"color": COLORS[1], "marker": "D", "linestyle": "-."}}
    for line in lines:
        style = styles[line]
        by_place: dict[Any, list[float]] = {}
        for row in sorted(lines[line], key=lambda row: row[key]):
            by_place.setdefault(row[key], []).append(100 * row["survival"])
            axes.plot(at[row[key]], 100 * row["survival"], **style, markersize=4, alpha=0.6)
        means = [float(np.mean(values)) for values in by_place.values()]
        x = [at[place] for place in by_place]
        axes.plot(x, means, **style, markersize=7, markerfacecolor="none", label=line)
        shown = ", ".join(
            f"{m:.1f} % at {_caption(p)}" for p, m in zip(by_place, means, strict=True)
        )
        said.append(f"{line}: {shown}")
    tidy(axes, axis, "exact survival, %")
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
            " The tabular policy is planned on the counts of the same episodes, without a network: "
            "a mark for what they can teach. Its limit is the optimum."
        )
    return Exhibit(
        name,
        title,
        text,
        figure,
        [{**row, key: _caption(row[key])} for row in rows] if key == "network" else rows,
    )


def _points(
    experiment: Experiment, key: str, varied: Sequence[Member]
) -> dict[str, list[dict[str, Any]]]:
    """Survival of the varied members and their like in the grid, by setting and steps."""
    alike = {(member.setting, member.seed, int(member.steps[-1])) for member in varied}
    found = [(member, len(member.steps) - 1) for member in varied] + [
        (member, number)
        for member in experiment.members
        for number, step in enumerate(member.steps.tolist())
        if (member.setting, member.seed, step) in alike
    ]
    lines: dict[str, list[dict[str, Any]]] = {}
    for member, number in found:
        step = int(member.steps[number])
        survival = float(member.metrics["survival_exact"][number])
        row = {key: _place(member, key), **member.identity, "step": step, "survival": survival}
        lines.setdefault(f"{member.setting}, {step:,} steps", []).append(row)
    return lines


def _tabular_points(experiment: Experiment, varied: Sequence[Member]) -> list[dict[str, Any]]:
    """What planning on the counts of each data set reaches."""
    mdp = experiment.mdp
    sets = {data.content_hash: data.train for data in [experiment.data, *(m.data for m in varied)]}
    return [
        {
            "data.episodes": train.n_episodes,
            **{"algorithm": "tabular", "alpha": None, "seed": None, "step": None},
            "survival": evaluate(
                true_dynamics(mdp),
                tabular_policy(
                    train.counts(*mdp.admissible.shape), admissible=mdp.admissible
                ).probabilities,
            ).survival,
        }
        for train in sets.values()
    ]


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

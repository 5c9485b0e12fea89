"""The essay's figures 3 to 5: what alpha and the algorithm make of survival, reported and exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from sepsis_rl.report.experiment import Experiment, Member
from sepsis_rl.report.protocol import REPORTED, SEEDS, Protocol, share_in_order
from sepsis_rl.report.style import (
    COLORS,
    Exhibit,
    legend_below,
    look,
    new_figure,
    reference_lines,
    tidy,
)

WAYS = {"last": "last", "protocol": "best on 100 patients", "exact": "best by exact survival"}
"""Three ways to choose a checkpoint, as they are spoken of."""


def alpha_sensitivity(
    experiment: Experiment, protocol: Protocol, baselines: Mapping[str, float]
) -> Exhibit | None:
    """Survival against alpha, exact and as the essay would report it.

    Args:
        experiment: Its grid.
        protocol: Carried out on it.
        baselines: Exact survival of random, clinician and optimum.
    """
    grid = _by_alpha(experiment)
    if len(grid) < 2:
        return None
    figure = new_figure(10, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    rows = []
    for axes, kind in zip(panels, ("exact", "reported"), strict=True):
        means = []
        for place, (alpha, members) in enumerate(grid.items()):
            values = [_value(protocol, member, kind) for member in members]
            means.append(float(np.mean(values)))
            axes.plot(
                place + _spread(len(values)),
                100 * np.array(values),
                "o",
                color=COLORS[4],
                markersize=5,
                alpha=0.75,
                label="a seed" if place == 0 else None,
            )
            rows += [
                {"alpha": alpha, "seed": member.seed, "figure": kind, "survival": value}
                for member, value in zip(members, values, strict=True)
            ]
        axes.plot(range(len(grid)), 100 * np.array(means), color=COLORS[4], label="mean")
        axes.set_xticks(range(len(grid)), [f"{alpha:g}" for alpha in grid])
        reference_lines(axes, baselines)
    tidy(panels[0], "α (0 is DQN)", "survival, %", "exact, last checkpoint")
    tidy(panels[1], "α (0 is DQN)", "", "as the essay reports it: best of 20 × 100 patients")
    legend_below(figure)
    return Exhibit(
        name="3-alpha",
        title="Does α matter?",
        text="Each point is a seed, the line joins the means. Left, exact survival of the last "
        "checkpoint; right, what the essay's protocol reports for the same runs: the best of 20 "
        "evaluations on 100 patients. The same axis for both: what is higher on the right is luck "
        "that was chosen.",
        figure=figure,
        rows=rows,
    )


def algorithm_comparison(
    experiment: Experiment, protocol: Protocol, baselines: Mapping[str, float]
) -> Exhibit | None:
    """The algorithms under the essay's protocol, exactly, and what chance makes of the protocol.

    Args:
        experiment: Its grid.
        protocol: Carried out on it.
        baselines: Exact survival of random, clinician and optimum.
    """
    groups = {
        "CQL": experiment.nearest(0.5),
        "BC": experiment.of("BC"),
        "DQN": experiment.of("DQN"),
    }
    groups = {name: members for name, members in groups.items() if members}
    if not groups:
        return None
    figure = new_figure(12, 4.4)
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 0.9))
    rows = []
    names = [*groups, "random"]
    for axes, kind in ((left, "reported"), (middle, "exact")):
        for place, members in enumerate(groups.values()):
            values = np.array([_value(protocol, member, kind) for member in members])
            style = look(members[0].setting)
            _point(axes, place, values, style["color"], style["marker"])
            rows += [
                {"algorithm": members[0].setting, "seed": m.seed, "figure": kind, "survival": v}
                for m, v in zip(members, values.tolist(), strict=True)
            ]
        axes.set_xticks(range(len(names)), [_caption(name, groups) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
    first_try, reports = protocol.random[:, 0, 0], protocol.random.mean(axis=0)
    _point(left, len(groups), first_try, "0.45", "D")
    _point(middle, len(groups), np.array([baselines["random"]]), "0.45", "D")
    for place, name in enumerate(names):
        left.plot(
            place + 0.3,
            100 * REPORTED[name],
            "_",
            color=COLORS[5],
            markersize=14,
            markeredgewidth=2,
            label="in the essay" if place == 0 else None,
        )
    reference_lines(middle, baselines)
    chance = reports.ravel()
    right.hist(
        100 * chance,
        bins=np.arange(72.5, 92, 1 / 3),
        weights=np.full(len(chance), 100 / len(chance)),
        orientation="horizontal",
        color="0.6",
    )
    right.axhline(100 * REPORTED["CQL"], color=COLORS[5], linewidth=2, label="the essay's CQL")
    tidy(left, "", "survival, %", "as the essay reports it")
    tidy(middle, "", "", "exact, last checkpoint")
    tidy(right, "share of simulated reports, %", "", "a policy that acts at random, reported")
    left.legend(fontsize=8, loc="lower left")
    middle.legend(fontsize=8, loc="upper right")
    right.legend(fontsize=8, loc="lower right")
    rows += [
        {"algorithm": "random", "seed": seed, "figure": "reported", "survival": value}
        for seed, value in zip(SEEDS, first_try.tolist(), strict=True)
    ]
    order = share_in_order(list(reports))
    reach = float((chance >= REPORTED["CQL"]).mean())
    others = float(protocol.random_on_others.mean())
    return Exhibit(
        name="4-algorithms",
        title="Which algorithm is best?",
        text="Left, the essay's protocol: for each of three seeds the best of 20 evaluations on "
        "100 patients; points are seeds, bars mean and standard deviation as in the essay. Middle, "
        "the truth. Right, what the protocol reports of a policy that treats uniformly at random "
        f"and survives {100 * baselines['random']:.1f} % exactly: {100 * chance.mean():.1f} % on "
        f"average, the essay's 86 % or more in {100 * reach:.0f} % of the tries "
        f"({100 * others:.1f} % on average had each evaluation met other patients). Were all four "
        f"equally good, the essay's order would come out in {100 * order:.1f} % of the tries.",
        figure=figure,
        rows=rows,
    )


def heat_map(experiment: Experiment, protocol: Protocol) -> Exhibit | None:
    """Survival by alpha and seed, exact and as the essay would report it.

    Args:
        experiment: Its grid.
        protocol: Carried out on it.
    """
    grid = _by_alpha(experiment)
    seeds = sorted({member.seed for members in grid.values() for member in members})
    if len(grid) < 2:
        return None
    figure = new_figure(8.2, 0.5 * len(grid) + 1.8)
    panels = figure.subplots(1, 2, sharey=True)
    tables = {}
    for kind in ("exact", "reported"):
        table = np.full((len(grid), len(seeds)), np.nan)
        for row, members in enumerate(grid.values()):
            for member in members:
                table[row, seeds.index(member.seed)] = _value(protocol, member, kind)
        tables[kind] = table
    low, high = (
        100 * edge([np.nanmin(t) if edge is min else np.nanmax(t) for t in tables.values()])
        for edge in (min, max)
    )
    for axes, (kind, table) in zip(panels, tables.items(), strict=True):
        image = axes.imshow(100 * table, vmin=low, vmax=high, cmap="cividis", aspect="auto")
        for (row, column), value in np.ndenumerate(100 * table):
            if np.isfinite(value):
                dark = value < (low + high) / 2
                axes.text(
                    column,
                    row,
                    f"{value:.1f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if dark else "black",
                )
        axes.set_xticks(range(len(seeds)), [str(seed) for seed in seeds])
        axes.set_yticks(range(len(grid)), [f"{alpha:g}" for alpha in grid])
        spread = _mean_spread(table)
        title = "exact, last checkpoint" if kind == "exact" else "as the essay reports it"
        tidy(axes, "seed", "", f"{title}\nmean SD over seeds {100 * spread:.1f} points")
        axes.grid(visible=False)
    panels[0].set_ylabel("α (0 is DQN)", fontsize=9)
    figure.colorbar(image, ax=panels, label="survival, %")
    rows = [
        {
            "alpha": member.alpha,
            "seed": member.seed,
            "exact": _value(protocol, member, "exact"),
            "reported": _value(protocol, member, "reported"),
        }
        for members in grid.values()
        for member in members
    ]
    return Exhibit(
        name="5-heat-map",
        title="How much do seeds differ?",
        text="Rows are α, columns are seeds; both panels share one scale. Differences between "
        "seeds on the left are differences between policies. Those on the right are mostly "
        "differences between three groups of 100 patients.",
        figure=figure,
        rows=rows,
    )


def checkpoint_choice(experiment: Experiment, protocol: Protocol) -> Exhibit:
    """Which checkpoint three ways to choose would take, for each member.

    Args:
        experiment: Its grid.
        protocol: Carried out on it.
    """
    rows, shown = [], []
    for member in experiment.members:
        choice = protocol.choices[member]
        rows.append(
            {
                "setting": member.setting,
                "seed": member.seed,
                **{f"{way}_step": int(member.steps[getattr(choice, way)]) for way in WAYS},
                **{f"{way}_survival": choice.survival[way] for way in WAYS},
                "reported": choice.reported,
            }
        )
    for setting in experiment.settings:
        own = [row for row in rows if row["setting"] == setting]
        mean = {name: float(np.mean([row[name] for row in own])) for name in _AVERAGED}
        luck = mean["reported"] - mean["protocol_survival"]
        shown.append(
            {
                "setting": setting,
                "seeds": str(len(own)),
                **{
                    f"{spoken}, exact %": f"{100 * mean[f'{way}_survival']:.2f}"
                    for way, spoken in WAYS.items()
                },
                "reported %": f"{100 * mean['reported']:.2f}",
                "reported minus exact": f"{100 * luck:+.2f}",
            }
        )
    return Exhibit(
        name="4b-checkpoints",
        title="Which checkpoint?",
        text="Means over seeds of exact survival for three ways to choose a checkpoint, and what "
        "the essay's protocol reports for its choice. The last column is how much of the report is "
        "luck. The third way needs the truth: it is the ceiling of any choice.",
        figure=None,
        rows=rows,
        shown=shown,
    )


_AVERAGED = (*(f"{way}_survival" for way in WAYS), "reported")


def _by_alpha(experiment: Experiment) -> dict[float, list[Member]]:
    grid: dict[float, list[Member]] = {}
    for member in experiment.of("DQN") + experiment.of("CQL"):
        grid.setdefault(member.alpha, []).append(member)
    return grid


def _value(protocol: Protocol, member: Member, kind: str) -> float:
    choice = protocol.choices[member]
    return choice.reported if kind == "reported" else member.survival


def _spread(count: int) -> np.ndarray:
    """Places side by side, so that equal points do not hide each other."""
    return np.linspace(-0.12, 0.12, count) if count > 1 else np.zeros(1)


def _point(axes: Axes, place: int, values: np.ndarray, color: str, marker: str) -> None:
    percent = 100 * values
    axes.plot(
        place + _spread(len(values)), percent, marker, color=color, alpha=0.7, linestyle="", ms=5
    )
    deviation = float(percent.std()) if len(values) > 1 else 0.0
    axes.errorbar(
        place - 0.25, percent.mean(), yerr=deviation, color=color, marker=marker, capsize=4, ms=7
    )
    axes.annotate(
        f"{percent.mean():.1f}",
        (place - 0.25, percent.mean() + deviation),
        textcoords="offset points",
        xytext=(0, 5),
        ha="center",
        fontsize=9,
    )


def _caption(name: str, groups: Mapping[str, Sequence[Member]]) -> str:
    return groups[name][0].setting if name in groups else name


def _mean_spread(table: np.ndarray) -> float:
    """Mean over the rows that have two values or more of their standard deviation."""
    rows = [row[np.isfinite(row)] for row in table]
    return float(np.mean([row.std(ddof=1) for row in rows if len(row) > 1] or [0.0]))

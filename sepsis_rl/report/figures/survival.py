"""The essay's figures 3 to 5: what alpha and the algorithm make of survival, reported and exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from sepsis_rl.figures import (
    COLORS,
    heat_map,
    label_axes,
    legend_below,
    new_figure,
    reference_lines,
    setting_style,
    side_by_side,
)
from sepsis_rl.mdp import FloatArray
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.experiment import ESSAY_ORDER, Experiment
from sepsis_rl.report.protocol import REPORTED, SEEDS, Protocol, share_in_order

WAYS: Final = {
    "last": "last",
    "protocol": "best on 100 patients",
    "exact": "best by exact survival",
}
"""What the ways to choose a checkpoint are called."""


def alpha_sensitivity(experiment: Experiment, protocol: Protocol) -> Exhibit | None:
    """Survival against alpha, a point for each seed."""
    grid = experiment.by_alpha
    if len(grid) < 2:
        return None
    figure = new_figure(10, 4.2)
    panels = dict(zip(("exact", "reported"), figure.subplots(1, 2, sharey=True), strict=True))
    rows = []
    for kind, axes in panels.items():
        means = []
        for place, (alpha, members) in enumerate(grid.items()):
            values = [protocol.survival(member, kind) for member in members]
            means.append(100 * float(np.mean(values)))
            axes.plot(
                place + side_by_side(len(values)),
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
        axes.plot(range(len(grid)), means, color=COLORS[4], label="mean")
        axes.set_xticks(range(len(grid)), [f"{alpha:g}" for alpha in grid])
        reference_lines(axes, experiment.reference_survival)
    label_axes(panels["exact"], "α (0 is DQN)", "survival, %", "exact, last checkpoint")
    title = "as the essay reports it: best of 20 × 100 patients"
    label_axes(panels["reported"], "α (0 is DQN)", "", title)
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


def seed_differences(experiment: Experiment, protocol: Protocol) -> Exhibit | None:
    """Survival by alpha and seed, as heat maps."""
    grid = experiment.by_alpha
    if len(grid) < 2:
        return None
    rows = [
        {
            "alpha": alpha,
            "seed": member.seed,
            "exact": protocol.survival(member, "exact"),
            "reported": protocol.survival(member, "reported"),
        }
        for alpha, members in grid.items()
        for member in members
    ]
    alphas, seeds = list(grid), sorted({row["seed"] for row in rows})
    survival = {kind: np.full((len(alphas), len(seeds)), np.nan) for kind in ("exact", "reported")}
    for row in rows:
        for kind, cells in survival.items():
            cells[alphas.index(row["alpha"]), seeds.index(row["seed"])] = 100 * row[kind]
    both = np.stack(list(survival.values()))
    figure = new_figure(8.2, 0.5 * len(alphas) + 1.8)
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("exact, last checkpoint", "as the essay reports it")
    for axes, title, cells in zip(panels, titles, both, strict=True):
        image = heat_map(
            axes,
            cells,
            limits=(np.nanmin(both), np.nanmax(both)),
            rows=[f"{alpha:g}" for alpha in alphas],
            columns=[str(seed) for seed in seeds],
            aspect="auto",
        )
        label_axes(axes, "seed", "", f"{title}\nmean SD over seeds {_mean_sd(cells):.1f} points")
        axes.grid(visible=False)
    panels[0].set_ylabel("α (0 is DQN)", fontsize=9)
    figure.colorbar(image, ax=panels, label="survival, %")
    return Exhibit(
        name="5-heat-map",
        title="How much do seeds differ?",
        text="Rows are α, columns are seeds; both panels share one scale. Differences between "
        "seeds on the left are differences between policies. Those on the right are mostly "
        "differences between three groups of 100 patients.",
        figure=figure,
        rows=rows,
    )


def _mean_sd(cells: FloatArray) -> float:
    """Mean of the rows' standard deviations, of those with two values or more."""
    rows = [row[np.isfinite(row)] for row in cells]
    return float(np.mean([row.std(ddof=1) for row in rows if len(row) > 1] or [0.0]))


def algorithm_comparison(experiment: Experiment, protocol: Protocol) -> Exhibit | None:
    """The algorithms under the essay's protocol, exactly, and the protocol of a random policy."""
    groups = [experiment.compared[name] for name in ESSAY_ORDER if name in experiment.compared]
    if not groups:
        return None
    survival = experiment.reference_survival
    first_try, reports = protocol.random[:, 0, 0], protocol.random.mean(axis=0)
    figure = new_figure(12, 4.4)
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 0.9))
    rows: list[dict[str, Any]] = []
    for axes, kind, random in (
        (left, "reported", first_try),
        (middle, "exact", np.array([survival["random"]])),
    ):
        points = {}
        for members in groups:
            setting = members[0].setting
            points[setting] = [protocol.survival(member, kind) for member in members]
            rows += [
                {"algorithm": setting, "seed": member.seed, "figure": kind, "survival": value}
                for member, value in zip(members, points[setting], strict=True)
            ]
        _draw_seeds(axes, {**points, "random": random})
    rows += [
        {"algorithm": "random", "seed": seed, "figure": "reported", "survival": value}
        for seed, value in zip(SEEDS, first_try.tolist(), strict=True)
    ]
    names = [*(members[0].algorithm for members in groups), "random"]
    essay = [100 * REPORTED[name] for name in names]
    left.plot(
        np.arange(len(names)) + 0.3, essay, "_", color=COLORS[5], ms=14, mew=2, label="in the essay"
    )
    reference_lines(middle, survival)
    _draw_chance(right, reports.ravel())
    label_axes(left, "", "survival, %", "as the essay reports it")
    label_axes(middle, "", "", "exact, last checkpoint")
    for axes, place in ((left, "lower left"), (middle, "upper right"), (right, "lower right")):
        axes.legend(fontsize=8, loc=place)
    reach = float((reports >= REPORTED["CQL"]).mean())
    return Exhibit(
        name="4-algorithms",
        title="Which algorithm is best?",
        text="Left, the essay's protocol: for each of three seeds the best of 20 evaluations on "
        "100 patients; points are seeds, bars mean and standard deviation as in the essay. Middle, "
        "the truth. Right, what the protocol reports of a policy that treats uniformly at random "
        f"and survives {100 * survival['random']:.1f} % exactly: {100 * reports.mean():.1f} % on "
        f"average, the essay's 86 % or more in {100 * reach:.0f} % of the tries "
        f"({100 * protocol.random_on_others.mean():.1f} % on average had each evaluation met other "
        "patients). Were all four equally good, the essay's order would come out in "
        f"{100 * share_in_order(list(reports)):.1f} % of the tries.",
        figure=figure,
        rows=rows,
    )


def _draw_seeds(axes: Axes, survival: Mapping[str, Sequence[float] | FloatArray]) -> None:
    """Draws the seeds of each setting as points, beside them mean and standard deviation."""
    for place, (setting, values) in enumerate(survival.items()):
        percent = 100 * np.asarray(values)
        style = {**setting_style(setting), "linestyle": ""}
        axes.plot(place + side_by_side(len(percent)), percent, **style, alpha=0.7, markersize=5)
        mean, deviation = float(percent.mean()), float(percent.std())
        axes.errorbar(place - 0.25, mean, yerr=deviation, **style, capsize=4, markersize=7)
        axes.annotate(
            f"{mean:.1f}",
            (place - 0.25, mean + deviation),
            textcoords="offset points",
            xytext=(0, 5),
            ha="center",
            fontsize=9,
        )
    axes.set_xticks(range(len(survival)), list(survival))
    axes.set_xlim(-0.6, len(survival) - 0.4)


def _draw_chance(axes: Axes, reports: FloatArray) -> None:
    axes.hist(
        100 * reports,
        bins=np.arange(72.5, 92, 1 / 3).tolist(),
        weights=np.full(len(reports), 100 / len(reports)),
        orientation="horizontal",
        color="0.6",
    )
    axes.axhline(100 * REPORTED["CQL"], color=COLORS[5], linewidth=2, label="the essay's CQL")
    title = "a policy that acts at random, reported"
    label_axes(axes, "share of simulated reports, %", "", title)


def checkpoint_choice(experiment: Experiment, protocol: Protocol) -> Exhibit:
    """Which checkpoint three ways to choose would take, for each member."""
    rows = []
    for member in experiment.members:
        choice = protocol.choices[member]
        rows.append(
            {
                "setting": member.setting,
                "seed": member.seed,
                **{f"{way}_step": int(member.steps[choice.evaluations[way]]) for way in WAYS},
                **{f"{way}_survival": choice.survival[way] for way in WAYS},
                "reported": choice.reported,
            }
        )
    return Exhibit(
        name="4b-checkpoints",
        title="Which checkpoint?",
        text="Means over seeds of exact survival for three ways to choose a checkpoint, and what "
        "the essay's protocol reports for its choice. The last column is how much of the report is "
        "luck. The third way needs the truth: it is the ceiling of any choice.",
        rows=rows,
        shown=checkpoints_shown(rows),
    )


def checkpoints_shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Means over the seeds of each setting, as they stand on a page."""
    shown = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == setting]
        reported = np.mean([row["reported"] for row in own])
        exact = {way: np.mean([row[f"{way}_survival"] for row in own]) for way in WAYS}
        shown.append(
            {
                "setting": setting,
                "seeds": str(len(own)),
                **{f"{WAYS[way]}, exact %": f"{100 * exact[way]:.2f}" for way in WAYS},
                "reported %": f"{100 * reported:.2f}",
                "reported minus exact": f"{100 * (reported - exact['protocol']):+.2f}",
            }
        )
    return shown

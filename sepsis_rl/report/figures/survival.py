"""The essay's figures 3 to 5: what alpha and the algorithm make of survival, reported and exact."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
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


def _by_alpha(experiment: Experiment, protocol: Protocol) -> pd.DataFrame:
    """Survival of the grid's members that have Q values, `exact` and as the essay `reported` it."""
    return pd.DataFrame(
        [
            {
                "alpha": member.alpha,
                "seed": member.seed,
                "exact": member.survival,
                "reported": protocol.on_record(member),
            }
            for members in experiment.by_alpha.values()
            for member in members
        ]
    )


def alpha_sensitivity(experiment: Experiment, protocol: Protocol) -> Exhibit | None:
    """Survival against alpha, a point for each seed."""
    alphas = list(experiment.by_alpha)
    if len(alphas) < 2:
        return None
    survival = _by_alpha(experiment, protocol)
    figure = new_figure(10, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("exact", "reported"), strict=True):
        for place, (_, own) in enumerate(survival.groupby("alpha")):
            axes.plot(
                place + side_by_side(len(own)),
                100 * own[kind],
                "o",
                color=COLORS[4],
                markersize=5,
                alpha=0.75,
                label="a seed" if place == 0 else None,
            )
        means = 100 * survival.groupby("alpha")[kind].mean()
        axes.plot(range(len(alphas)), means, color=COLORS[4], label="mean")
        axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        reference_lines(axes, experiment.reference_survival)
    label_axes(panels[0], "α (0 is DQN)", "survival, %", "exact, last checkpoint")
    title = "as the essay reports it: best of 20 × 100 patients"
    label_axes(panels[1], "α (0 is DQN)", "", title)
    legend_below(figure)
    return Exhibit(
        name="3-alpha",
        title="Does α matter?",
        text="Each point is a seed, the line joins the means. Left, exact survival of the last "
        "checkpoint; right, what the essay's protocol reports for the same runs: the best of 20 "
        "evaluations on 100 patients. The same axis for both: what is higher on the right is luck "
        "that was chosen.",
        figure=figure,
        rows=survival.melt(["alpha", "seed"], var_name="figure", value_name="survival").to_dict(
            "records"
        ),
    )


def seed_differences(experiment: Experiment, protocol: Protocol) -> Exhibit | None:
    """Survival by alpha and seed, as heat maps."""
    if len(experiment.by_alpha) < 2:
        return None
    survival = _by_alpha(experiment, protocol)
    both = survival[["exact", "reported"]]
    figure = new_figure(8.2, 0.5 * len(experiment.by_alpha) + 1.8)
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("exact, last checkpoint", "as the essay reports it")
    for axes, title, kind in zip(panels, titles, both, strict=True):
        cells = 100 * survival.pivot(index="alpha", columns="seed", values=kind)
        image = heat_map(
            axes,
            cells.to_numpy(),
            limits=(100 * both.min(axis=None), 100 * both.max(axis=None)),
            rows=[f"{alpha:g}" for alpha in cells.index],
            columns=list(map(str, cells.columns)),
            aspect="auto",
        )
        spread = np.nan_to_num(cells.std(axis=1).mean())  # of alphas with two seeds or more
        label_axes(axes, "seed", "", f"{title}\nmean SD over seeds {spread:.1f} points")
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
        rows=survival.to_dict("records"),
    )


def algorithm_comparison(experiment: Experiment, protocol: Protocol) -> Exhibit:
    """The algorithms under the essay's protocol, exactly, and the protocol of a random policy."""
    groups = [experiment.compared[name] for name in ESSAY_ORDER if name in experiment.compared]
    survival = experiment.reference_survival
    first_try, reports = protocol.random[:, 0, 0], protocol.random.mean(axis=0)
    figure = new_figure(12, 4.4)
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 0.9))
    rows: list[dict[str, Any]] = []
    for axes, kind in ((left, "reported"), (middle, "exact")):
        for member in itertools.chain(*groups):
            value = protocol.on_record(member) if kind == "reported" else member.survival
            row = {"algorithm": member.setting, "seed": member.seed, "figure": kind}
            rows.append({**row, "survival": value})
        points = pd.DataFrame(rows[-sum(map(len, groups)) :]).groupby("algorithm", sort=False)
        random = first_try if kind == "reported" else np.array([survival["random"]])
        _draw_seeds(axes, {**dict(iter(points["survival"])), "random": random})
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
        exact, choices = member.metrics["survival_exact"], protocol.choices(member)
        rows.append(
            {
                "setting": member.setting,
                "seed": member.seed,
                **{f"{way}_step": int(member.steps[choices[way]]) for way in WAYS},
                **{f"{way}_survival": float(exact[choices[way]]) for way in WAYS},
                "reported": protocol.on_record(member),
            }
        )
    return Exhibit(
        name="4b-checkpoints",
        title="Which checkpoint?",
        text="Means over seeds of exact survival for three ways to choose a checkpoint, and what "
        "the essay's protocol reports for its choice. The last column is how much of the report is "
        "luck. The third way needs the truth: it is the ceiling of any choice.",
        rows=rows,
    )


def checkpoints_shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Means over the seeds of each setting, as they stand on a page."""
    shown = []
    for setting, own in pd.DataFrame(rows).groupby("setting", sort=False):
        mean = 100 * own.mean(numeric_only=True)
        shown.append(
            {
                "setting": setting,
                "seeds": str(len(own)),
                **{
                    f"{name}, exact %": f"{mean[f'{way}_survival']:.2f}"
                    for way, name in WAYS.items()
                },
                "reported %": f"{mean['reported']:.2f}",
                "reported minus exact": f"{mean['reported'] - mean['protocol_survival']:+.2f}",
            }
        )
    return shown

"""The essay's figures 3 to 5: what alpha and the algorithm make of survival, reported and exact."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sepsis_rl.figures import (
    COLORS,
    WIDTH,
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
from sepsis_rl.report.protocol import PATIENTS, REPORTED, Protocol, share_in_order

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
    if len(experiment.by_alpha) < 2:
        return None
    rows = _by_alpha(experiment, protocol).melt(
        ["alpha", "seed"], var_name="figure", value_name="survival"
    )
    return Exhibit(
        name="3-alpha",
        title="Does α matter?",
        text="Each point is a seed, the line joins the means. Left, exact survival of the last "
        "checkpoint; right, what the essay's protocol reports for the same runs: the "
        f"{protocol.best_of} on {PATIENTS} patients. Each has an axis of its own, and the "
        "gray band on the right is all of the left: what is higher there is luck that was chosen.",
        figure=draw_alpha(rows, experiment.reference_survival),
        rows=rows.to_dict("records"),
    )


def draw_alpha(rows: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Draws survival against alpha, exact and as reported.

    Args:
        rows: Those of the exhibit.
        references: Exact survival by `random`, `clinician` and `optimum`.
    """
    figure = new_figure(WIDTH, 3.6)
    panels = figure.subplots(1, 2)
    exact = 100 * rows[rows["figure"] == "exact"]["survival"]
    titles = {"exact": "exact, last checkpoint", "reported": "as the essay reports it"}
    for axes, (kind, title) in zip(panels, titles.items(), strict=True):
        own = rows[rows["figure"] == kind]
        alphas = own.groupby("alpha")["survival"]
        for place, (_, values) in enumerate(alphas):
            axes.plot(
                place + side_by_side(len(values)),
                100 * values,
                "o",
                color=COLORS[4],
                markersize=5,
                alpha=0.75,
                label="a seed" if place == 0 else None,
            )
        axes.plot(range(len(alphas)), 100 * alphas.mean(), color=COLORS[4], label="mean")
        axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas.groups])
        label_axes(axes, "α (0 is DQN)", "survival, %", title)
        shown = 100 * own["survival"]
        reference_lines(axes, references, shown if kind == "exact" else [*shown, *exact])
    panels[1].axhspan(exact.min(), exact.max(), color="0.85", zorder=0, label="all of the left")
    legend_below(figure)
    return figure


def seed_differences(experiment: Experiment, protocol: Protocol) -> Exhibit | None:
    """Survival by alpha and seed, as heat maps."""
    rows = _by_alpha(experiment, protocol)
    groups = rows["seed"].nunique() if len(rows) else 0
    if len(experiment.by_alpha) < 2 or groups < 2:
        return None
    return Exhibit(
        name="5-heat-map",
        title="How much do seeds differ?",
        text="Rows are α, columns are seeds; each panel has a scale of its own. Differences "
        "between seeds on the left are differences between policies. Those on the right are mostly "
        f"differences between {groups} groups of {PATIENTS} patients.",
        figure=draw_seeds(rows),
        rows=rows.to_dict("records"),
    )


def draw_seeds(rows: pd.DataFrame) -> Figure:
    """Draws survival by alpha and seed, exact and as reported.

    Args:
        rows: Those of the exhibit.
    """
    figure = new_figure(WIDTH, 0.36 * rows["alpha"].nunique() + 1.4)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"exact": "exact, last checkpoint", "reported": "as the essay reports it"}
    for axes, (kind, title) in zip(panels, titles.items(), strict=True):
        cells = 100 * rows.pivot(index="alpha", columns="seed", values=kind)
        image = heat_map(
            axes,
            cells.to_numpy(),
            limits=(cells.min(axis=None), cells.max(axis=None)),
            rows=[f"{alpha:g}" for alpha in cells.index],
            columns=list(map(str, cells.columns)),
            aspect="auto",
        )
        spread = cells.std(axis=1).mean()  # of alphas with two seeds or more
        if not np.isnan(spread):
            title += f"\nmean SD over seeds {spread:.1f} points"
        label_axes(axes, "seed", "α (0 is DQN)" if kind == "exact" else "", title)
        axes.grid(visible=False)
        bar = figure.colorbar(image, ax=axes)
        bar.set_label("survival, %", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    return figure


def algorithm_comparison(experiment: Experiment, protocol: Protocol) -> Exhibit:
    """The algorithms under the essay's protocol, exactly, and the protocol of a random policy."""
    groups = [experiment.compared[name] for name in ESSAY_ORDER if name in experiment.compared]
    survival = experiment.reference_survival
    first_try, reports = protocol.random[:, 0, 0], protocol.random.mean(axis=0)
    figure = new_figure(WIDTH, 3.9)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 0.75, 1.1))
    middle.sharey(left)
    rows: list[dict[str, Any]] = []
    for axes, kind in ((left, "reported"), (right, "exact")):
        for member in itertools.chain(*groups):
            value = protocol.on_record(member) if kind == "reported" else member.survival
            row = {"algorithm": member.setting, "seed": member.seed, "figure": kind}
            rows.append({**row, "survival": value})
        points = pd.DataFrame(rows[-sum(map(len, groups)) :]).groupby("algorithm", sort=False)
        random = {"random": first_try} if kind == "reported" else {}
        _draw_seeds(axes, {**dict(iter(points["survival"])), **random})
    exact = [100 * row["survival"] for row in rows if row["figure"] == "exact"]
    rows += [
        {"algorithm": "random", "seed": seed, "figure": "reported", "survival": value}
        for seed, value in zip(protocol.seeds, first_try.tolist(), strict=True)
    ]
    names = [*(members[0].algorithm for members in groups), "random"]
    essay = [100 * REPORTED[name] for name in names]
    left.plot(
        np.arange(len(names)) + 0.3, essay, "_", color=COLORS[5], ms=12, mew=2, label="in the essay"
    )
    _draw_chance(middle, reports)
    reported = [100 * row["survival"] for row in rows if row["figure"] == "reported"]
    ends = [*reported, *essay, 100 * reports.min(), 100 * reports.max()]
    left.set_ylim(min(ends) - 1, max(ends) + 0.1 * (max(ends) - min(ends)))
    label_axes(left, "", "survival, %", "as the essay reports it")
    label_axes(right, "", "", "exact, last checkpoint")
    reference_lines(right, survival, [*exact, max(exact) + 0.1 * np.ptp(exact)])
    legend_below(figure)
    reach = float((reports >= REPORTED["CQL"]).mean())
    closest = {m[0].setting for m in groups if m[0].algorithm == "CQL"} - {"CQL α=0.5"}
    plural = "s" * (len(protocol.seeds) > 1)
    named = f"with seed{plural} {', '.join(map(str, protocol.seeds))}"
    other = f" (the essay's CQL has α 0.5, not {closest.pop()[6:]})" if closest else ""
    return Exhibit(
        name="4-algorithms",
        title="Which algorithm is best?",
        text=f"Left, the essay's protocol: for each seed{other} the {protocol.best_of} "
        f"on {PATIENTS} patients; points are seeds, beside them mean and standard "
        "deviation as in the essay. Middle, on the same axis, what the protocol reports of a "
        f"policy that treats uniformly at random, {named} and "
        f"the best of {protocol.evaluations}: it survives {100 * survival['random']:.1f} % "
        f"exactly, and is reported at {100 * reports.mean():.1f} % on average, at the essay's 86 % "
        f"or more in {100 * reach:.0f} % of the tries "
        f"({100 * protocol.random_on_others.mean():.1f} % on average had each evaluation met other "
        "patients). Right, on an axis of its own, the truth. Were all four equally good, the "
        f"essay's order would come out in {100 * share_in_order(list(reports)):.1f} % of the "
        "tries.",
        figure=figure,
        rows=rows,
    )


def _draw_seeds(axes: Axes, survival: Mapping[str, Sequence[float] | FloatArray]) -> None:
    """Draws the seeds of each setting as points, beside them mean and standard deviation."""
    for place, (setting, values) in enumerate(survival.items()):
        percent = 100 * np.asarray(values)
        style = {**setting_style(setting), "linestyle": ""}
        axes.plot(place + side_by_side(len(percent)), percent, **style, alpha=0.7, markersize=5)
        mean = float(percent.mean())
        if len(percent) > 1:
            deviation = float(percent.std())
            axes.errorbar(place - 0.28, mean, yerr=deviation, **style, capsize=3, markersize=5)
        axes.annotate(
            f"{mean:.1f}",
            (place, percent.max()),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
            fontsize=8,
        )
    names = [setting.replace(" ", "\n") for setting in survival]
    axes.set_xticks(range(len(survival)), names)
    axes.set_xlim(-0.6, len(survival) - 0.4)


def _draw_chance(axes: Axes, reports: FloatArray) -> None:
    """Draws how often a random policy is reported at each percent."""
    axes.hist(
        100 * reports.ravel(),
        bins=np.arange(100 * reports.min() - 0.5, 100 * reports.max() + 1, 1).tolist(),
        weights=np.full(reports.size, 100 / reports.size),
        orientation="horizontal",
        color="0.6",
    )
    axes.axhline(100 * REPORTED["CQL"], color=COLORS[5], linewidth=2, label="the essay's CQL")
    label_axes(axes, "share of reports, %", "", "a random policy,\nso reported")
    axes.tick_params(labelleft=False)


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

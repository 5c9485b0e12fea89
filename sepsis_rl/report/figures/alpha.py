"""The essay's figures 3 and 5: what alpha makes of survival, exact and as the essay reports it."""

from __future__ import annotations

import numpy as np

from sepsis_rl.figures import (
    COLORS,
    heat_map,
    label_axes,
    legend_below,
    new_figure,
    reference_lines,
    side_by_side,
)
from sepsis_rl.mdp import FloatArray
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.evidence import Evidence


def alpha_sensitivity(evidence: Evidence) -> Exhibit | None:
    """Survival against alpha, a point for each seed."""
    grid = evidence.experiment.by_alpha
    if len(grid) < 2:
        return None
    figure = new_figure(10, 4.2)
    panels = dict(zip(("exact", "reported"), figure.subplots(1, 2, sharey=True), strict=True))
    rows = []
    for kind, axes in panels.items():
        means = []
        for place, (alpha, members) in enumerate(grid.items()):
            values = [evidence.protocol.survival(member, kind) for member in members]
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
        reference_lines(axes, evidence.experiment.reference_survival)
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


def seed_differences(evidence: Evidence) -> Exhibit | None:
    """Survival by alpha and seed, as heat maps."""
    grid = evidence.experiment.by_alpha
    if len(grid) < 2:
        return None
    rows = [
        {
            "alpha": alpha,
            "seed": member.seed,
            "exact": evidence.protocol.survival(member, "exact"),
            "reported": evidence.protocol.survival(member, "reported"),
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

"""The scorecard's picture: estimates against the truth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sepsis_rl.figures import COLORS, MARKERS, label_axes, legend_below, new_figure
from sepsis_rl.ope import Estimator
from sepsis_rl.ope.criteria import ESTIMATOR_LABELS
from sepsis_rl.scorecard.accuracy import Row
from sepsis_rl.scorecard.judging import EPSILON

_DRAWN: Final[tuple[Estimator, ...]] = ("fqe", "fqe_zero", "wis", "is", "dr", "wdr")
_LOWEST, _HIGHEST = 40.0, 100.0


def draw(figures: Sequence[Row], data_sets: int) -> Figure:
    """Draws estimates against the truth.

    Args:
        figures: Of all policies, by size and estimator.
        data_sets: How many stand behind each.

    Returns:
        A panel for each of the main estimators (columns) and sizes (rows): every policy's mean
        estimate with the middle 95 % of the data sets, and the line on which they should lie. What
        is beyond the axis is a hollow triangle at its edge.
    """
    sizes = list(dict.fromkeys(row["episodes"] for row in figures))
    styles = dict(
        zip(
            dict.fromkeys(row["kind"] for row in figures),
            zip(itertools.cycle(COLORS), itertools.cycle(MARKERS), strict=False),
            strict=False,
        )
    )
    figure = new_figure(2.2 * len(_DRAWN) + 0.6, 2.3 * len(sizes) + 1.9)
    panels = figure.subplots(len(sizes), len(_DRAWN), sharex=True, sharey=True, squeeze=False)
    truths = [100 * row["exact_softened"] for row in figures]
    ends = (min(truths) - 1, max(truths) + 1)
    for (line, column), axes in np.ndenumerate(panels):
        size, estimator = sizes[line], _DRAWN[column]
        label_axes(
            axes,
            "exact survival, %" if line == len(sizes) - 1 else "",
            f"{size:,} episodes\nestimated survival, %" if column == 0 else "",
            ESTIMATOR_LABELS[estimator] if line == 0 else "",
        )
        axes.plot(ends, ends, color="0.35", linewidth=1, zorder=1, label="estimate = truth")
        for row in figures:
            if (row["episodes"], row["estimator"]) == (size, estimator):
                _draw_policy(axes, row, *styles[row["kind"]])
        axes.set(xlim=ends, ylim=(_LOWEST, _HIGHEST))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend_below(figure)
    figure.suptitle(
        "Survival estimated from recorded episodes alone, against the truth\n"
        "The simulator is exactly Markov and nothing is hidden: the best case. Not for clinical "
        f"use.\nMean and middle 95 % of the estimates on {data_sets} data sets; deterministic "
        f"policies softened by {EPSILON:g}, no clip",
        fontsize=11,
    )
    return figure


def _draw_policy(axes: Axes, row: Row, color: str, marker: str) -> None:
    exact, estimate = 100 * row["exact_softened"], 100 * row["estimate"]
    span = (100 * row["estimate_low"], 100 * row["estimate_high"])
    axes.plot([exact, exact], span, color=color, alpha=0.6, linewidth=1.2, zorder=2)
    style: dict[str, Any] = {"marker": marker, "markersize": 9 if marker == "*" else 5.5}
    style |= {"markeredgecolor": "white", "markeredgewidth": 0.5, "label": row["kind"]}
    edge = min(max(estimate, _LOWEST), _HIGHEST)
    if estimate != edge:
        style |= {"marker": "^" if estimate > edge else "v", "markersize": 6}
        style |= {"markeredgecolor": color, "markeredgewidth": 1.1, "markerfacecolor": "white"}
        style["label"] = "mean beyond the axis"
    axes.plot(exact, edge, color=color, linestyle="", clip_on=False, zorder=3, **style)

"""The scorecard's picture: estimates against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sepsis_rl.figures import COLORS, MARKERS, new_figure
from sepsis_rl.ope import Estimator
from sepsis_rl.ope.criteria import ESTIMATOR_LABELS
from sepsis_rl.scorecard.accuracy import PolicyFigures
from sepsis_rl.scorecard.judging import EPSILON

_DRAWN: Final[tuple[Estimator, ...]] = ("fqe", "fqe_zero", "wis", "is", "dr", "wdr")

_LOWEST, _HIGHEST = 40.0, 100.0


def draw(figures: Sequence[PolicyFigures], data_sets: int) -> Figure:
    """Draws estimates against the truth.

    Args:
        figures: Of all policies, by size and estimator.
        data_sets: How many stand behind each.

    Returns:
        A panel for each of the main estimators (columns) and sizes (rows): every policy's mean
        estimate with the middle 95 % of the data sets, and the line on which they should lie. What
        is beyond the axis is a hollow triangle at its edge.
    """
    sizes = list(dict.fromkeys(row.episodes for row in figures))
    kinds = list(dict.fromkeys(row.kind for row in figures))
    styles = {
        kind: (COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)])
        for number, kind in enumerate(kinds)
    }
    figure = new_figure(2.2 * len(_DRAWN) + 0.6, 2.3 * len(sizes) + 1.9)
    panels = figure.subplots(len(sizes), len(_DRAWN), sharex=True, sharey=True, squeeze=False)
    truths = [100 * row.exact_softened for row in figures]
    ends = (min(truths) - 1, max(truths) + 1)
    for (row, column), axes in np.ndenumerate(panels):
        size, estimator = sizes[row], _DRAWN[column]
        shown = [f for f in figures if f.episodes == size and f.estimator == estimator]
        _draw_panel(axes, shown, styles, ends)
        if row == 0:
            axes.set_title(ESTIMATOR_LABELS[estimator], fontsize=11)
        if row == len(sizes) - 1:
            axes.set_xlabel("exact survival, %", fontsize=9)
        if column == 0:
            axes.set_ylabel(f"{size:,} episodes\nestimated survival, %", fontsize=9)
    figure.legend(
        handles=[
            *(
                _mark(color, marker, 0.0, 0.0, label=kind)
                for kind, (color, marker) in styles.items()
            ),
            Line2D([], [], color=_LINE, linewidth=1, label="estimate = truth"),
            _mark(_LINE, "^", 0.0, 0.0, hollow=True, label="mean beyond the axis"),
        ],
        loc="outside lower center",
        ncols=min(len(styles) + 2, 9),
        fontsize=9,
        frameon=False,
        handletextpad=0.3,
        columnspacing=1.4,
    )
    figure.suptitle(
        "Survival estimated from recorded episodes alone, against the truth\n"
        "The simulator is exactly Markov and nothing is hidden: the best case. Not for clinical "
        f"use.\nMean and middle 95 % of the estimates on {data_sets} data sets; deterministic "
        f"policies softened by {EPSILON:g}, no clip",
        fontsize=11,
    )
    return figure


_LINE = "0.35"


def _mark(
    color: str, marker: str, x: float, y: float, *, hollow: bool = False, label: str | None = None
) -> Line2D:
    return Line2D(
        [x],
        [y],
        linestyle="",
        color=color,
        marker=marker,
        markersize=6 if hollow else 9 if marker == "*" else 5.5,
        markerfacecolor="white" if hollow else color,
        markeredgecolor=color if hollow else "white",
        markeredgewidth=1.1 if hollow else 0.5,
        clip_on=False,
        label=label,
        zorder=3,
    )


def _draw_panel(
    axes: Axes,
    shown: Sequence[PolicyFigures],
    styles: dict[str, tuple[str, str]],
    ends: tuple[float, float],
) -> None:
    axes.set_xlim(*ends)
    axes.set_ylim(_LOWEST, _HIGHEST)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.plot(ends, ends, color=_LINE, linewidth=1, zorder=1)
    for row in shown:
        color, marker = styles[row.kind]
        exact, estimate = 100 * row.exact_softened, 100 * row.estimate
        span = (100 * row.estimate_low, 100 * row.estimate_high)
        axes.plot([exact, exact], span, color=color, alpha=0.6, linewidth=1.2, zorder=2)
        edge = min(max(estimate, _LOWEST), _HIGHEST)
        beyond = estimate != edge
        arrow = "^" if estimate > edge else "v"
        axes.add_line(_mark(color, arrow if beyond else marker, exact, edge, hollow=beyond))

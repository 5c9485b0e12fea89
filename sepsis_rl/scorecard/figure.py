"""The scorecard's picture: estimates against the truth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sepsis_rl.figures import COLORS, MARKERS, WIDTH, label_axes, legend_below, new_figure
from sepsis_rl.ope import Estimator
from sepsis_rl.ope.criteria import ESTIMATOR_LABELS

_DRAWN: Final[tuple[Estimator, ...]] = ("fqe", "fqe_zero", "wis", "is", "dr", "wdr")
_LOWEST, _HIGHEST = 40.0, 100.0
_OPTIMUM: Final = "optimal"
Ends = tuple[float, float]


def draw(figures: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws estimates against the truth.

    Args:
        figures: Rows of `summarize_policies`, by size and estimator.

    Returns:
        A panel for each of the main estimators (rows) and sizes (columns): every policy's mean
        estimate with the middle 95 % of the data sets, and the line on which they should lie. What
        is beyond an axis is a hollow triangle at its edge: an optimum far from all others too.
    """
    sizes = list(dict.fromkeys(row["episodes"] for row in figures))
    styles = dict(
        zip(
            dict.fromkeys(row["kind"] for row in figures),
            zip(itertools.cycle(COLORS), itertools.cycle(MARKERS), strict=False),
            strict=False,
        )
    )
    figure = new_figure(min(WIDTH, 2.2 * len(sizes) + 1.0), 1.15 * len(_DRAWN) + 1.3)
    panels = figure.subplots(len(_DRAWN), len(sizes), sharex=True, sharey="row", squeeze=False)
    x = _truths(figures)
    for (line, column), axes in np.ndenumerate(panels):
        size, estimator = sizes[column], _DRAWN[line]
        y = _estimates([row for row in figures if row["estimator"] == estimator])
        label_axes(
            axes,
            "exact survival, %" if line == len(_DRAWN) - 1 else "",
            f"{ESTIMATOR_LABELS[estimator]}, %" if column == 0 else "",
            f"{size:,} episodes" if line == 0 else "",
        )
        axes.plot(x, x, color="0.35", linewidth=1, zorder=1, label="estimate = truth")
        for row in figures:
            if (row["episodes"], row["estimator"]) == (size, estimator):
                color, marker = styles[row["kind"]]
                _draw_policy(axes, row, color, marker, x, y)
        axes.set(xlim=x, ylim=y)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    legend_below(figure)
    figure.suptitle("The best case: a simulator that hides nothing. Not for clinical use.", size=9)
    return figure


def _truths(figures: Sequence[Mapping[str, Any]]) -> Ends:
    """The ends of the x-axis, which leave out an optimum that would squeeze all others."""
    optimum = [100 * row["exact_softened"] for row in figures if row["kind"] == _OPTIMUM]
    others = [100 * row["exact_softened"] for row in figures if row["kind"] != _OPTIMUM]
    low, high = min(others), max(others)
    if optimum and max(optimum) - high < high - low:
        high = max(high, *optimum)
    room = max(0.08 * (high - low), 0.1)
    return low - room, high + room


def _estimates(figures: Sequence[Mapping[str, Any]]) -> Ends:
    """The ends of an estimator's y-axis: its policies and their intervals, as far as they help."""
    ends = [100 * row[f"estimate{end}"] for row in figures for end in ("_low", "_high")]
    low, high = np.clip([min(ends), max(ends)], _LOWEST, _HIGHEST)
    room = max(0.05 * (high - low), 0.5)
    return float(low - room), float(high + room)


def _draw_policy(
    axes: Axes, row: Mapping[str, Any], color: str, marker: str, x: Ends, y: Ends
) -> None:
    exact, estimate = 100 * row["exact_softened"], 100 * row["estimate"]
    span = (100 * row["estimate_low"], 100 * row["estimate_high"])
    style: dict[str, Any] = {"marker": marker, "markersize": 9 if marker == "*" else 5.5}
    style |= {"markeredgecolor": "white", "markeredgewidth": 0.5, "label": row["kind"]}
    at = min(exact, x[1]), float(np.clip(estimate, *y))
    if at != (exact, estimate):
        pointing = "^" if estimate > y[1] else "v" if estimate < y[0] else ">"
        style |= {"marker": pointing, "markersize": 6}
        style |= {"markeredgecolor": color, "markeredgewidth": 1.1, "markerfacecolor": "white"}
        beyond = exact > x[1]
        style["label"] = f"{row['kind']}, at {exact:.1f} %" if beyond else "mean beyond the axis"
    axes.plot([at[0]] * 2, span, color=color, alpha=0.6, linewidth=1.2, zorder=2)
    axes.plot(*at, color=color, linestyle="", clip_on=False, zorder=3, **style)

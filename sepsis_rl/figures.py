"""Drawing that callbacks, the report and the scorecard share: styles, axes, heat maps, files."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter
from numpy.typing import ArrayLike

from sepsis_rl.mdp import FloatArray

# Okabe & Ito (2008), "Color universal design", without its yellow. Markers and line styles tell
# kinds apart in gray.
COLORS: Final = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
MARKERS: Final = ("o", "s", "D", "p", "P", "X", "*", "h", "<", ">")
_STYLES: Final[Mapping[str, dict[str, Any]]] = {
    "BC": {"color": COLORS[3], "marker": "s", "linestyle": "--"},
    "DQN": {"color": COLORS[5], "marker": "X", "linestyle": ":"},
    "CQL": {"color": COLORS[4], "marker": "o", "linestyle": "-"},
    "clinician": {"color": COLORS[0], "marker": "o", "linestyle": "--"},
    "optimum": {"color": COLORS[6], "marker": "*", "linestyle": "-."},
    "most recorded": {"color": COLORS[0], "marker": "o", "linestyle": "--"},
    "tabular": {"color": COLORS[1], "marker": "v", "linestyle": (0, (5, 1))},
    "random": {"color": "0.45", "marker": "D", "linestyle": ":"},
}

WIDTH: Final = 7.6
"""Inches of a page's widest pictures: on paper their letters keep their size."""


def new_figure(width: float, height: float, dpi: int = 130) -> Figure:
    """A figure whose parts keep out of each other's way.

    Args:
        width: Inches.
        height: Inches.
        dpi: Pixels per inch.
    """
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def label_axes(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Names the axes and draws a faint grid behind everything.

    Numbers at the axes have thousands separators.
    """
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        if type(axis.get_major_formatter()) is ScalarFormatter:  # nobody has chosen another
            axis.set_major_formatter(_Separated())


class _Separated(ScalarFormatter):
    """Writes numbers of a linear axis with thousands separators, and none as a difference."""

    def __init__(self) -> None:
        super().__init__(useOffset=False)
        self.set_powerlimits((-5, 7))

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The text of a tick."""
        text = super().__call__(x, pos)
        return re.sub(r"(?<![\d.])\d{4,}", lambda found: f"{int(found[0]):,}", text)


def setting_style(setting: str) -> dict[str, Any]:
    """Color, marker and line style of a setting such as `BC` or `CQL α=0.5`, or of a reference."""
    return dict(_STYLES[setting.split()[0].rstrip(",")])


def setting_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Styles of lines whose names begin with a setting.

    Several alphas of CQL have shades and markers in their order.
    """
    styles = {name: setting_style(name) for name in names}
    graded = [name for name in styles if name.startswith("CQL")]
    if len(graded) > 1:
        shades = colormaps["cividis"](np.linspace(0, 0.85, len(graded)))
        for name, shade, marker in zip(graded, shades, itertools.cycle(MARKERS), strict=False):
            styles[name] |= {"color": tuple(shade), "marker": marker}
    return styles


def reference_lines(axes: Axes, survival: Mapping[str, float], shown: ArrayLike) -> None:
    """Draws horizontal lines at the references' exact survival, and sets the ends of the y-axis.

    An optimum that would squeeze all else to less than half of the axis is an arrow at its top.

    Args:
        axes: Its y-axis is survival in percent.
        survival: By `random`, `clinician` and `optimum`, probabilities.
        shown: What else the axis is to show, in percent; NaN is not looked at.
    """
    lines = {name: 100 * value for name, value in survival.items()}
    others = [value for name, value in lines.items() if name != "optimum"]
    values = np.append(np.ravel(np.asarray(shown, dtype=float)), others)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(0.06 * (high - low), 0.1)
    top = high + room
    if lines.get("optimum", high) - high > high - low:
        top = high + 3.5 * room  # for the arrow's text
        axes.annotate(
            f"↑ optimum {lines.pop('optimum'):.1f} %",
            (0.98, 0.98),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=8,
            color=_STYLES["optimum"]["color"],
        )
    elif "optimum" in lines:
        top = max(top, lines["optimum"] + room)
    axes.set_ylim(low - room, top)
    for name, value in lines.items():
        style = _STYLES[name]
        axes.axhline(
            value,
            color=style["color"],
            linestyle=style["linestyle"],
            linewidth=1.1,
            label=f"{name} {value:.1f} %",
            zorder=1,
        )


def legend_below(figure: Figure) -> None:
    """Draws one legend for all panels, without repetitions."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=max(1, min(5, int(figure.get_figwidth() / 2))),  # inches an entry may need
        fontsize=8,
        frameon=False,
    )


def label_steps(axes: Axes) -> None:
    """Names an x-axis of optimizer steps."""
    axes.set_xlabel("optimizer steps", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def side_by_side(count: int) -> FloatArray:
    """Shifts along the x-axis, (count,), so that equal points do not hide each other."""
    return np.linspace(-0.12, 0.12, count) if count > 1 else np.zeros(1)


def heat_map(
    axes: Axes,
    values: FloatArray,
    *,
    limits: tuple[float, float] | None = None,
    written_from: float = -np.inf,
    digits: int = 1,
    letters: float = 8,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    **options: Any,
) -> AxesImage:
    """Draws a matrix as colored cells with their numbers.

    Args:
        axes: Where.
        values: (rows, columns); a cell of NaN stays empty.
        limits: Values of the darkest and the brightest color. None: 0 and the largest value.
        written_from: Smaller values get a color but no number.
        digits: Decimal places of the numbers.
        letters: Their size in points.
        rows: Names of the rows. None: counted from 0.
        columns: Names of the columns, likewise.
        options: Passed on to matplotlib's `imshow`.

    Returns:
        The image, for a color bar.
    """
    low, high = limits or (0.0, float(np.nanmax(values)))
    image = axes.imshow(values, vmin=low, vmax=high, cmap="cividis", **options)
    for (row, column), value in np.ndenumerate(values):
        if value >= written_from:
            color = "white" if value < (low + high) / 2 else "black"
            number = f"{value:.{digits}f}"
            axes.text(column, row, number, ha="center", va="center", fontsize=letters, color=color)
    axes.set_yticks(range(values.shape[0]), rows)
    axes.set_xticks(range(values.shape[1]), columns)
    return image


def picture(figure: Figure, name: str) -> dict[str, bytes]:
    """Files of a figure, the same bytes each time.

    Args:
        figure: What is drawn.
        name: Stem of the files; with it an SVG's inner names are made.

    Returns:
        By file name, a PNG and an SVG.
    """
    files = {}
    for form, metadata in (("png", None), ("svg", {"Date": None})):
        content = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(content, format=form, metadata=metadata)
        files[f"{name}.{form}"] = content.getvalue()
    return files

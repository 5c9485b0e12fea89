"""How the report's pictures look: colors, markers, reference lines, and how they are written."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color universal design", without its yellow. Markers and line styles tell
# kinds apart in gray.
COLORS: Final = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
MARKERS: Final = ("o", "s", "D", "p", "P", "X", "*", "h", "<", ">")
DPI: Final = 130

_REFERENCES: Final = {
    "random": {"color": "0.45", "linestyle": ":"},
    "clinician": {"color": "#000000", "linestyle": "--"},
    "optimum": {"color": "#CC79A7", "linestyle": "-."},
}


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A part of the report: what it is called and says, its picture and its numbers.

    Attributes:
        name: Stem of its files, such as `1-training-loss`.
        title: A line.
        text: What it shows and how to read it.
        figure: The picture; None for a table alone.
        rows: The numbers behind it, in full precision; all rows have the same columns.
        shown: Rows as they stand on the page, as text; empty where the picture is enough.
    """

    name: str
    title: str
    text: str
    figure: Figure | None
    rows: Sequence[Mapping[str, Any]]
    shown: Sequence[Mapping[str, str]] = ()


def look(setting: str) -> dict[str, Any]:
    """Color, marker and line style of a setting such as `BC`, `DQN` or `CQL α=0.5`."""
    if setting == "BC":
        return {"color": COLORS[3], "marker": "s", "linestyle": "--"}
    if setting == "DQN":
        return {"color": COLORS[5], "marker": "X", "linestyle": ":"}
    return {"color": COLORS[4], "marker": "o", "linestyle": "-"}


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Styles of lines whose names begin with a setting.

    Several alphas of CQL have shades and markers in their order.
    """
    styles = {name: look(name.partition(",")[0]) for name in names}
    graded = [name for name in styles if name.startswith("CQL")]
    shades = colormaps["cividis"](np.linspace(0, 0.85, len(graded)))
    if len(graded) > 1:
        for name, shade, marker in zip(graded, shades, itertools.cycle(MARKERS), strict=False):
            styles[name] |= {"color": tuple(shade), "marker": marker}
    return styles


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches whose parts keep out of each other's way."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def tidy(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Names the axes and draws a faint grid behind everything."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def reference_lines(axes: Axes, survival: Mapping[str, float]) -> None:
    """Horizontal lines at the exact survival of `random`, `clinician` and `optimum`, in percent.

    Args:
        axes: Its y-axis is survival in percent.
        survival: By those names, probabilities.
    """
    for name, style in _REFERENCES.items():
        if name in survival:
            axes.axhline(
                100 * survival[name],
                linewidth=1.1,
                label=f"{name} {100 * survival[name]:.1f} %",
                zorder=1,
                **style,  # type: ignore[arg-type]
            )


def legend_below(figure: Figure) -> None:
    """One legend for all panels, without repetitions."""
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


def picture(figure: Figure, salt: str) -> Callable[[str], bytes]:
    """Writes a figure in a format (`png` or `svg`), the same bytes each time.

    Args:
        figure: What to write.
        salt: Seed of the names inside an SVG.
    """

    def render(form: str) -> bytes:
        content = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": salt}):
            figure.savefig(content, format=form, metadata={"Date": None} if form == "svg" else None)
        return content.getvalue()

    return render

"""Members of several runs over training, in one picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepsis_rl.figures import (
    COLORS,
    MARKERS,
    label_axes,
    label_steps,
    legend_below,
    new_figure,
    reference_lines,
)
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.comparison import Comparison

_REFERENCES = {
    **{name: name for name in ("clinician", "most recorded", "tabular")},
    "optimal": "optimum",
}
"""What the lines of policies that need no training are called."""
_LINE_COLORS = COLORS[2:6]  # the others are those of the references
_LINE_STYLES = ("-", "--", ":")  # of the second and third round of colors
_LABEL_WIDTH = 60


def curves(comparison: Comparison) -> Exhibit | None:
    """Survival, or the value by records, at each evaluation; seeds of a setting look alike."""
    drawn = [entrant for entrant in comparison.entrants if len(entrant.steps)]
    if not drawn:
        return None
    figures, metric = comparison.curves_of
    settings = list(dict.fromkeys(entrant.setting for entrant in drawn))
    figure = new_figure(8.4, 4.4 + 0.1 * len(settings))
    axes = figure.subplots()
    rows: list[dict[str, Any]] = []
    for entrant in drawn:
        place = settings.index(entrant.setting)
        axes.plot(
            entrant.steps,
            100 * entrant.curve,
            color=_LINE_COLORS[place % len(_LINE_COLORS)],
            linestyle=_LINE_STYLES[place // len(_LINE_COLORS) % len(_LINE_STYLES)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            linewidth=1.1,
            label=_label(entrant.setting),
        )
        own = {"policy": entrant.policy.name, "run": entrant.run, "member": entrant.member}
        points = zip(entrant.steps.tolist(), entrant.curve.tolist(), strict=True)
        rows += [{**own, "step": step, metric: value} for step, value in points]
    baselines = zip(comparison.baselines, figures[len(comparison.entrants) :], strict=True)
    references = {_REFERENCES[p.name]: value for p, value in baselines if p.name in _REFERENCES}
    reference_lines(axes, references, [100 * row[metric] for row in rows])
    exact = metric == "survival_exact"
    label_axes(axes, y="exact survival, %" if exact else "value by records, %")
    label_steps(axes)
    legend_below(figure)
    what = (
        "Exact survival of the policies that were evaluated in training, solved from the "
        "simulator's tables. The horizontal lines are the clinician, a plan on the same records "
        "without a network (tabular) and the best there is."
        if exact
        else "No environment simulates these patients, so this is what training and held-out "
        "episodes make the policies worth that were evaluated in training, less a price for rare "
        "decisions (ope/supported_value). The horizontal line is the action recorded most. Such "
        "values flatter, most where training chose by them."
    )
    several = "" if len(settings) == len(drawn) else " Lines that look alike differ in their seed."
    lost = any(np.isnan(entrant.curve).any() for entrant in drawn)
    gaps = " A gap is where a network had diverged." if lost else ""
    return Exhibit("2-curves", "Over training", f"{what}{several}{gaps}", rows, figure)


def _label(text: str) -> str:
    """A text that matplotlib takes neither for a formula nor for a line to hide."""
    shortened = text if len(text) <= _LABEL_WIDTH else f"…{text[1 - _LABEL_WIDTH :]}"
    return shortened.replace("$", r"\$").replace("_", " _", int(text[0] == "_"))

"""What the temperature of the conservative term decides, beside alpha."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from sepsis_rl.figures import heat_map, new_figure
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.experiment import Experiment

NAME: Final = "14-temperature"


def temperature(experiment: Experiment) -> Exhibit | None:
    """Exact survival by alpha and temperature, where runs vary the temperature."""
    varied = experiment.variations.get("temperature", [])
    if not varied:
        return None
    step = min(int(member.steps[-1]) for member in varied)
    rows: list[dict[str, Any]] = []
    for member in [*experiment.of("DQN"), *experiment.of("CQL"), *varied]:
        if step in member.steps:
            own = member.settings.get("temperature") if member.alpha > 0 else None
            survival = member.survival_at(step)
            rows.append({**member.identity, "temperature": own, "step": step, "survival": survival})
    table = survival_table(pd.DataFrame(rows))
    clinician = experiment.reference_survival["clinician"]
    figure = new_figure(1.8 + 0.8 * len(table.columns), 1.6 + 0.5 * len(table))
    axes = figure.subplots()
    color_bar(draw_survival(axes, table, clinician), clinician)
    best = table.stack().idxmax()
    text = (
        f"Exact survival of the last policy after {step:,} steps, the mean over seeds. Without its "
        "term, at α = 0, the temperature changes nothing. The line on the color bar is the "
        f"clinicians' survival, {100 * clinician:.1f} %. The best cell is {table.loc[best]:.1f} % "
        f"at α = {best[0]:g} and T = {best[1]:g}; being the best of {table.size} makes it look "
        "better than it is."
    )
    title = "Does the temperature of the conservative term matter?"
    return Exhibit(NAME, title, text, rows, figure)


def survival_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean survival in percent: alphas, the largest first, by temperatures.

    Args:
        rows: `alpha`, `temperature` and `survival`; the temperature is not read at alpha 0.
    """
    with_term = rows[rows["alpha"] > 0].astype({"temperature": float})
    table = with_term.pivot_table(index="alpha", columns="temperature", values="survival")
    without = rows.loc[rows["alpha"] == 0, "survival"]
    if len(without):
        table.loc[0.0] = without.mean()
    return 100 * table.sort_index(ascending=False)


def draw_survival(
    axes: Axes,
    table: pd.DataFrame,
    clinician: float,
    limits: tuple[float, float] | None = None,
) -> AxesImage:
    """Draws the table, colored from the least of it or the clinicians' survival up.

    Args:
        axes: Where.
        table: As of `survival_table`.
        clinician: Survival of the clinicians.
        limits: Percentages of the darkest and the brightest color. None: the table's own.
    """
    low = min(float(table.min(axis=None)), 100 * clinician)
    image = heat_map(
        axes,
        table.to_numpy(),
        limits=limits or (low, float(table.max(axis=None))),
        rows=[f"{alpha:g}" for alpha in table.index],
        columns=[f"{temperature:g}" for temperature in table.columns],
        aspect="auto",
    )
    axes.set_xlabel("T, temperature of the conservative term", fontsize=9)
    axes.set_ylabel("α, its weight", fontsize=9)
    axes.tick_params(labelsize=8)
    return image


def color_bar(image: AxesImage, clinician: float) -> None:
    """Says what the colors are, and where the clinicians stand among them."""
    figure = image.axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=figure.axes)
    bar.ax.axhline(100 * clinician, color="white", linewidth=1.4)
    bar.set_label("exact 90-day survival, %", fontsize=9)
    bar.ax.tick_params(labelsize=8)

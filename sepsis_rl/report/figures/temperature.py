"""What alpha and the temperature of the conservative term make of survival: heat maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from sepsis_rl.figures import heat_map, label_axes, new_figure
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.experiment import Experiment
from sepsis_rl.runs.history import Member

_VARIED: Final = ("alpha", "temperature", "seed", "share")
_NAMED: Final = ("batch_size", "actions")
"""Settings that every panel's name says."""
_COLUMNS: Final = 2


def temperature_maps(experiment: Experiment) -> Exhibit | None:
    """Exact survival by alpha and temperature, a panel for runs that are otherwise alike."""
    if not experiment.sweeps:
        return None
    rows = [
        {
            "panel": panel,
            **member.identity,
            "temperature": member.temperature,
            "step": int(member.steps[-1]),
            "survival": member.survival,
        }
        for panel, members in zip(_names(experiment.sweeps), experiment.sweeps, strict=True)
        for member in members
    ]
    frame = pd.DataFrame(rows)
    clinician = experiment.reference_survival["clinician"]
    said = [f"{panel}: {_best(own)}." for panel, own in frame.groupby("panel", sort=False)]
    return Exhibit(
        name="3b-temperature",
        title="Does the temperature of the conservative term matter?",
        text="Exact survival of the last policy in percent, means over seeds. The conservative "
        "term is α (T logsumexp(Q / T) − Q of the recorded action); T is in units of the return, "
        "and 1 in the essay. Without the term, at α 0, T changes nothing. The line on the "
        "color bar is the clinicians' survival; the colors of all panels are the same. "
        f"{' '.join(said)} The best of many cells looks better than it is.",
        figure=draw_temperature_maps(frame, clinician),
        rows=rows,
    )


def _names(sweeps: list[list[Member]]) -> list[str]:
    """What the panels are called, by settings of their runs."""
    settings = [_settings(members[0]) for members in sweeps]
    names = [_name(own) for own in settings]
    if len(set(names)) == len(names):
        return names
    # Called alike, they differ in something else.
    keys = dict.fromkeys(key for own in settings for key in own if key not in _NAMED)
    differ = [key for key in keys if len({str(own.get(key)) for own in settings}) > 1]
    return [
        ", ".join([name, *(f"{key} {own.get(key)}" for key in differ)])
        for name, own in zip(names, settings, strict=True)
    ]


def _settings(member: Member) -> dict[str, Any]:
    """All that members of a panel share."""
    own = {key: value for key, value in member.settings.items() if key not in _VARIED}
    return {**own, "data seed": member.data.train.provenance.seed, "steps": int(member.steps[-1])}


def _name(settings: Mapping[str, Any]) -> str:
    size, actions = (settings[key] for key in _NAMED)
    return f"{'all records' if size == 'all' else f'batches of {size} rows'}, {actions} actions"


def survival_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean survival in percent over seeds.

    Args:
        rows: `alpha`, `temperature` and `survival`, a row for each member. What the temperature
            says at alpha 0 is not read: such a member stands for all temperatures.

    Returns:
        By alpha, from the smallest on, and temperature; NaN where there is no member.
    """
    return 100 * _cells(rows, "mean")


def _cells(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    with_term = rows[rows["alpha"] > 0].astype({"temperature": float})
    cells = with_term.groupby(["alpha", "temperature"])["survival"].agg(what).unstack()
    without = rows[rows["alpha"] == 0]
    if len(without):
        # A sweep of temperatures has each of its members once for each of them.
        cells.loc[0.0] = without.groupby("seed")["survival"].mean().agg(what)
    return cells.sort_index()


def _best(rows: pd.DataFrame) -> str:
    """The cell of the highest survival, and that at the essay's temperature."""
    table = survival_table(rows)
    alpha, temperature = table.stack().idxmax()
    best = table.loc[alpha, temperature]
    said = f"the highest is {best:.1f} % at α {alpha:g} and T {temperature:g}"
    if 1.0 in table.columns and temperature != 1:
        said += f", at T 1 it is {table[1.0].max():.1f} % at α {table[1.0].idxmax():g}"
    return said


def draw_temperature_maps(rows: pd.DataFrame, clinician: float) -> Figure:
    """Draws a heat map for each panel, all in the same colors.

    Args:
        rows: `panel`, `alpha`, `temperature`, `seed`, `step` and `survival`, a row for each member.
        clinician: The clinicians' exact survival, a probability, marked on the color bar.
    """
    panels = dict(iter(rows.groupby("panel", sort=False)))
    tables = {panel: survival_table(own) for panel, own in panels.items()}
    ends = [100 * clinician]
    ends += [
        end for table in tables.values() for end in (table.min(axis=None), table.max(axis=None))
    ]
    columns = min(_COLUMNS, len(tables))
    lines = -(-len(tables) // columns)
    n_alphas, n_temperatures = np.max([table.shape for table in tables.values()], axis=0)
    width = columns * max(2.9, 0.55 * n_temperatures + 0.6)
    figure = new_figure(width + 1.1, lines * (0.45 * n_alphas + 1.2))
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(tables) :]:
        axes.remove()
    for axes, (panel, table) in zip(grid.flat, tables.items(), strict=False):
        image = heat_map(
            axes,
            table.to_numpy(),
            limits=(min(ends), max(ends)),
            rows=[f"{alpha:g}" for alpha in table.index],
            columns=[f"{temperature:g}" for temperature in table.columns],
            aspect="auto",
            origin="lower",
        )
        title = f"{panel}\n{panels[panel]['step'].max():,} steps, {_seeds(panels[panel])}"
        label_axes(axes, "temperature T of the conservative term", "α (0 is DQN)", title)
        axes.grid(visible=False)
    _add_color_bar(figure, image, clinician)
    return figure


def _seeds(rows: pd.DataFrame) -> str:
    """How many seeds its cells have."""
    counts = _cells(rows, "count").stack()
    fewest, most = int(counts.min()), int(counts.max())
    many = str(most) if fewest == most else f"{fewest} to {most}"
    return f"{many} seed{'s' * (most > 1)}"


def _add_color_bar(figure: Figure, image: AxesImage, clinician: float) -> None:
    bar = figure.colorbar(image, ax=figure.axes)
    axes: Axes = bar.ax
    for color, width in (("white", 3.5), ("black", 1.2)):  # to be seen on any color
        axes.axhline(100 * clinician, color=color, linewidth=width)
    said = f"exact survival, %\n(line: clinicians, {100 * clinician:.1f})"
    bar.set_label(said, fontsize=9)
    axes.tick_params(labelsize=8)

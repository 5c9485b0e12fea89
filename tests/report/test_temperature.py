"""The heat maps of alpha and temperature, and the place of such runs beside the other figures."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reading import numbers

from sepsis_rl.report.experiment import read_experiment
from sepsis_rl.report.figures.temperature import temperature_maps
from sepsis_rl.report.likeness import temperature_sweeps


@pytest.fixture
def cell(member, tmp_path):
    """Makes members of a run by alpha, temperature, last survival and seed."""

    def make(alpha, temperature, survival, seed=1, run="run", **given):
        own = member(
            "CQL" if alpha else "DQN",
            alpha,
            seed,
            temperature=temperature,
            survival=(0.1, 0.1, survival),
            **given,
        )
        return dataclasses.replace(own, run=tmp_path / run)

    return make


@pytest.fixture
def swept(of):
    """An experiment with the sweeps that some members make."""
    return lambda *members: dataclasses.replace(
        of(*members), sweeps=temperature_sweeps(list(members))
    )


def test_a_cell_is_the_mean_over_the_seeds_of_several_runs(cell, swept, drawn):
    experiment = swept(
        cell(0.5, 1.0, 0.60),
        cell(0.5, 0.01, 0.64),
        cell(0.02, 1.0, 0.75),
        cell(0.02, 0.01, 0.80),
        cell(0.5, 0.01, 0.68, seed=2, run="other"),
        # Without the term a temperature says nothing: this run stands for all of them.
        cell(0.0, 0.3, 0.70, seed=1, run="third"),
        cell(0.0, 0.3, 0.73, seed=2, run="third"),
        cell(0.0, 0.3, 0.73, seed=3, run="third"),
    )
    exhibit = temperature_maps(experiment)
    assert drawn(exhibit)
    axes, bar = exhibit.figure.axes
    shown = [[72, 72], [80, 75], [66, 60]]
    np.testing.assert_allclose(axes.images[0].get_array(), shown)
    assert axes.images[0].origin == "lower"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.02", "0.5"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "1"]
    assert [text.get_text() for text in axes.texts] == [f"{x:.1f}" for row in shown for x in row]
    assert axes.get_title() == "batches of 256 rows, all actions\n30 steps, 1 to 3 seeds"
    clinician = 100 * experiment.reference_survival["clinician"]
    for line in bar.lines:
        np.testing.assert_allclose(line.get_ydata(), clinician)
    assert f"clinicians, {clinician:.1f}" in bar.get_ylabel()
    assert axes.images[0].get_clim() == (60, 80)
    said = exhibit.text[exhibit.text.index("the highest") :]
    assert numbers(said) == [80.0, 0.02, 0.01, 1, 75.0, 0.02]
    frame = pd.DataFrame(exhibit.rows)
    assert len(frame) == 8
    assert frame.loc[frame["alpha"] == 0, "temperature"].isna().all()
    assert set(frame["step"]) == {30}


def test_a_panel_for_each_way_of_training_in_the_same_colors(cell, swept, drawn):
    settings = [(0.0, 1.0), (0.5, 1.0), (0.5, 0.1), (0.1, 1.0)]  # a cell is not there
    ways = [{}, {"batch_size": "all", "actions": "admissible"}]
    levels = [0.5, 0.9]
    exhibit = temperature_maps(
        swept(
            *(
                cell(*setting, level, **way)
                for way, level in zip(ways, levels, strict=True)
                for setting in settings
            )
        )
    )
    assert drawn(exhibit)
    rows, whole, _ = exhibit.figure.axes
    assert rows.get_title().startswith("batches of 256 rows, all actions\n")
    assert whole.get_title().startswith("all records, admissible actions\n")
    for axes in (rows, whole):
        assert axes.images[0].get_clim() == (50, 90)
        assert np.isnan(axes.images[0].get_array().filled(np.nan)).tolist() == [
            [False, False],
            [True, False],
            [False, False],
        ]
        assert len(axes.texts) == 5


def test_panels_that_would_be_called_alike_say_what_differs(cell, swept):
    settings = [(0.0, 1.0), (0.5, 1.0), (0.5, 0.1)]
    exhibit = temperature_maps(
        swept(*(cell(*setting, 0.7, gamma=gamma) for gamma in (0.9, 1.0) for setting in settings))
    )
    titles = [axes.get_title().splitlines()[0] for axes in exhibit.figure.axes[:2]]
    assert titles == [f"batches of 256 rows, all actions, gamma {gamma}" for gamma in (0.9, 1.0)]


@pytest.mark.parametrize(
    "settings",
    [
        [(0.5, 1.0), (0.1, 1.0)],  # one temperature
        [(0.5, 1.0), (0.5, 0.1)],  # one alpha
        [(0.5, 1.0), (0.02, 0.01)],
        [(0.5, 1.0), (0.02, 1.0), (0.02, 0.01)],  # a row and a cell
        [(0.0, 1.0), (0.0, 0.1), (0.5, 1.0)],  # without the term there is no temperature
    ],
)
def test_what_makes_no_heat_map(cell, swept, settings):
    assert temperature_maps(swept(*(cell(*setting, 0.7) for setting in settings))) is None


@pytest.fixture
def fitted(runs, lightning):
    """Fits a sweep of alphas and temperatures, and says where."""

    def fit(name, *options, alphas="[0.0,0.1,0.5]"):
        sweep = [f"--model.alpha={alphas}", "--model.temperature=[0.01,1.0]", "--model.seed=[42,7]"]
        name = f"--trainer.logger.init_args.name={name}"
        assert lightning("fit", "essay/sweep", name, *sweep, *options).code == 0
        return f"runs/{name.rpartition('=')[2]}/version_0"

    return fit


def test_the_other_figures_keep_to_the_essays_temperature(fitted, drawn):
    """Of a run that spans temperatures the report's other figures show temperature 1 alone."""
    experiment = read_experiment([fitted("rows")])
    assert experiment.problems == []
    assert [(m.setting, m.seed, m.temperature) for m in experiment.members] == [
        (setting, seed, temperature)
        for setting, temperature in (("DQN", None), ("CQL α=0.1", 1.0), ("CQL α=0.5", 1.0))
        for seed in (7, 42)
    ]
    (sweep,) = experiment.sweeps
    assert len(sweep) == 10  # alpha 0 once for each seed
    exhibit = temperature_maps(experiment)
    assert drawn(exhibit)
    frame = pd.DataFrame(exhibit.rows)
    image = exhibit.figure.axes[0].images[0].get_array()
    for row, (alpha, temperature) in [(1, (0.1, 0.01)), (2, (0.5, 1.0))]:
        own = frame.query(f"alpha == {alpha} and temperature == {temperature}")
        expected = [m.survival for m in sweep if (m.alpha, m.temperature) == (alpha, temperature)]
        assert sorted(own["survival"]) == sorted(expected)
        assert image[row][int(temperature == 1)] == pytest.approx(100 * np.mean(expected))


@pytest.mark.slow
def test_runs_beside_the_grid(fitted):
    """Shares join, and another way of training has a panel, one sentence, and no other figure."""
    alone = fitted("alone", "--model.temperature=1.0", alphas="[0.0]")
    rows = fitted("rows", alphas="[0.1,0.5]")
    whole = fitted("whole", "--data.batch_size=all", "--model.gamma=1.0")
    experiment = read_experiment([alone, rows, whole])
    assert [len(sweep) for sweep in experiment.sweeps] == [10, 10]
    assert {m.run.parent.name for m in experiment.members} == {"alone", "rows"}
    assert {m.settings["batch_size"] for m in experiment.members} == {256}
    (problem,) = experiment.problems
    assert problem == (
        "runs/whole/version_0, 10 members, is in the heat map of temperatures alone: it differs "
        "from runs/alone/version_0 in gamma, batch_size"
    )


@pytest.mark.slow
def test_it_stands_on_the_page_after_the_figure_of_alpha(fitted, lightning):
    run = fitted("rows", alphas="[0.1,0.5]")
    assert lightning.main("report", run, "--output", "made", "--tries", "1").code == 0
    page = Path("made/report.md").read_text()
    alpha, temperature, algorithms = (
        page.index(f"![{title}]")
        for title in (
            "Does α matter?",
            "Does the temperature of the conservative term matter?",
            "Which algorithm is best?",
        )
    )
    assert alpha < temperature < algorithms
    assert Path("made/3b-temperature.csv").exists()
    said = "The conservative term has temperature 1, in all figures but that of temperatures."
    assert said in page


@pytest.mark.slow
def test_another_temperature_than_the_essays_is_said(runs, lightning):
    name = "--trainer.logger.init_args.name=small"
    assert lightning("fit", "essay/cql", name, "--model.temperature=0.01").code == 0
    run = "runs/small/version_0"
    assert lightning.main("report", run, "--output", "made", "--tries", "1").code == 0
    page = Path("made/report.md").read_text()
    assert "The conservative term has temperature 0.01, where the essay's has 1." in page

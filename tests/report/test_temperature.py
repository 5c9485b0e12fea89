"""The heat map of alpha and temperature."""

import numpy as np

from sepsis_rl.report.experiment import Experiment, _sort
from sepsis_rl.report.figures.temperature import temperature


def test_a_cell_is_the_mean_over_seeds(of, member, drawn):
    grid = [
        member("DQN", alpha=0.0, survival=(0.1, 0.1, 0.70)),
        member("DQN", alpha=0.0, seed=2, survival=(0.1, 0.1, 0.72)),
        member(alpha=0.5, temperature=1.0, survival=(0.1, 0.1, 0.60)),
        member(alpha=0.02, temperature=1.0, survival=(0.1, 0.1, 0.75)),
        member("BC", survival=(0.9, 0.9, 0.9)),
    ]
    varied = [
        member(alpha=0.5, temperature=0.01, survival=(0.1, 0.1, 0.64)),
        member(alpha=0.5, temperature=0.01, seed=2, survival=(0.1, 0.1, 0.68)),
        member(alpha=0.02, temperature=0.01, survival=(0.1, 0.1, 0.80)),
    ]
    experiment = of(*grid, temperature=varied)
    exhibit = temperature(experiment)
    assert drawn(exhibit)
    axes, bar = exhibit.figure.axes
    # The largest alpha is on top; without the term every temperature is the same.
    shown = [[66, 60], [80, 75], [71, 71]]
    np.testing.assert_allclose(axes.images[0].get_array(), shown)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.5", "0.02", "0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "1"]
    assert [text.get_text() for text in axes.texts] == [f"{x:.1f}" for row in shown for x in row]
    clinician = 100 * experiment.reference_survival["clinician"]
    np.testing.assert_allclose(bar.lines[0].get_ydata(), clinician)
    assert "80.0 % at α = 0.02 and T = 0.01; being the best of 6" in exhibit.text
    assert len(exhibit.rows) == 7


def test_without_temperatures_there_is_none(of, member):
    assert temperature(of(member(), learning_rate=[member(learning_rate=1.0)])) is None


def test_the_grid_is_that_of_the_essays_temperature(mdp, episodes, member, tmp_path):
    swept = [
        member("DQN" if alpha == 0 else "CQL", alpha=alpha, temperature=own)
        for alpha in (0.0, 0.5)
        for own in (0.003, 1.0, 0.1)
    ]
    experiment = Experiment(mdp, episodes[60])
    _sort(swept, experiment)
    assert [own.alpha for own in experiment.members] == [0, 0.5]
    assert experiment.members[1].settings["temperature"] == 1
    varied = experiment.variations["temperature"]
    assert [own.settings["temperature"] for own in varied] == [0.003, 0.1]
    assert not experiment.problems  # alpha 0 is there three times, and the same each time

"""Survival against the one thing that runs vary."""

import numpy as np
from reading import numbers

from sepsis_rl.baselines import tabular_policy
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.report.figures.variations import variations


def test_variations_take_the_grid_at_their_own_step(of, member, line, drawn):
    grid = [
        member(survival=(0.70, 0.71, 0.72)),
        member(seed=2, survival=(0.74, 0.75, 0.76)),
        member(seed=3, survival=(0.1, 0.1, 0.1)),  # no variation has this seed
        member(alpha=2.0, survival=(0.1, 0.1, 0.1)),  # nor this alpha
        member("BC", survival=(0.1, 0.1, 0.1)),
    ]
    rates = [
        member(learning_rate=1e-3, steps=(10, 20), survival=(0.2, 0.80), estimate=(0, 0)),
        member(seed=2, learning_rate=1e-3, steps=(10, 20), survival=(0.2, 0.82), estimate=(0, 0)),
        member(learning_rate=1e-4, steps=(10, 20), survival=(0.2, 0.60), estimate=(0, 0)),
    ]
    experiment = of(*grid, learning_rate=rates)
    (exhibit,) = variations(experiment)
    assert drawn(exhibit)
    found = {(row["learning_rate"], row["seed"]): row["survival"] for row in exhibit.rows}
    assert found == {
        (3e-4, 1): 0.71,
        (3e-4, 2): 0.75,
        (1e-3, 1): 0.80,
        (1e-3, 2): 0.82,
        (1e-4, 1): 0.60,
    }
    assert {row["step"] for row in exhibit.rows} == {20}
    (axes,) = exhibit.figure.axes
    means = [[1e-4, 3e-4, 1e-3], [60, 73, 81]]
    np.testing.assert_allclose(line(axes, "CQL α=0.5, 20 steps"), means)
    assert numbers(exhibit.text)[-6:] == [60, 1e-4, 73, 3e-4, 81, 1e-3]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.texts] == []
    for survival in experiment.reference_survival.values():
        assert any(
            own.get_linestyle() != "-" and np.allclose(own.get_ydata(), 100 * survival)
            for own in axes.lines
        )


def test_a_grid_without_that_step_stays_out(of, member):
    varied = [member(learning_rate=1e-3, steps=(15,), survival=(0.8,), estimate=(0,))]
    (exhibit,) = variations(of(member(), learning_rate=varied))
    assert [row["learning_rate"] for row in exhibit.rows] == [1e-3]


def test_more_episodes_beside_planning_on_the_same_records(of, mdp, episodes, member, line, drawn):
    varied = [member(data=20), member(data=150), member(data=150, seed=2)]
    (exhibit,) = variations(of(member(), **{"data.episodes": varied}))
    assert drawn(exhibit)
    tabular = [row for row in exhibit.rows if row["algorithm"] == "tabular"]
    assert sorted(row["data.episodes"] for row in tabular) == [20, 60, 150]
    for row in tabular:
        counts = episodes[row["data.episodes"]].train.counts(mdp.n_states, mdp.n_actions)
        policy = tabular_policy(counts, mdp)
        assert row["survival"] == evaluate(true_dynamics(mdp), policy.probabilities).survival
    networks = [row for row in exhibit.rows if row["algorithm"] == "CQL"]
    assert sorted((row["data.episodes"], row["seed"]) for row in networks) == [
        (20, 1),
        (60, 1),
        (150, 1),
        (150, 2),
    ]
    (axes,) = exhibit.figure.axes
    x, y = line(axes, "tabular, no network")
    assert x.tolist() == [20, 60, 150]
    by_size = {row["data.episodes"]: 100 * row["survival"] for row in tabular}
    np.testing.assert_allclose(y, [by_size[size] for size in (20, 60, 150)])


def test_networks_side_by_side(of, member, line, drawn):
    varied = [
        member(embedding_dim=4, hidden_dims=(4, 4), survival=(0.1, 0.1, 0.7)),
        member(hidden_dims=(16, 16), survival=(0.1, 0.1, 0.9)),
    ]
    exhibit, other = variations(
        of(member(), network=varied, learning_rate=[member(learning_rate=1.0)])
    )
    assert (exhibit.name, other.name) == ("11-network", "10-learning-rate")
    assert drawn(exhibit)
    found = {row["network"]: row["survival"] for row in exhibit.rows}
    assert found == {"4–4–4": 0.7, "8–16": 0.8, "8–16–16": 0.9}
    (axes,) = exhibit.figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4–4–4", "8–16", "8–16–16"]
    np.testing.assert_allclose(line(axes, "CQL α=0.5, 30 steps"), [[0, 1, 2], [70, 80, 90]])

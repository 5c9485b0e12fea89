"""Curves over training, against numbers computed another way."""

import numpy as np
import pytest
from reading import numbers
from torch.utils.tensorboard import SummaryWriter

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.report.figures.training import lower_bound, survival_in_training, training_loss


def log(member, points):
    writer = SummaryWriter(str(member.run / "members" / member.name))
    for step, value in points:
        writer.add_scalar("train/loss", value, step)
    writer.close()


def test_training_loss(of, member, line, drawn):
    losses = {
        ("BC", 0.5, 1): [3.0, 2.0],
        ("DQN", 0.0, 1): [0.5, 400.0],
        ("CQL", 0.5, 1): [1.0, 0.5],
        ("CQL", 0.5, 2): [2.0, 0.1],
        ("CQL", 2.0, 1): [4.0, 3.0],
    }
    members = [member(*key) for key in losses]
    assert training_loss(of(*members)) is None  # no curve was logged
    for own, values in zip(members, losses.values(), strict=True):
        log(own, zip((100, 200), values, strict=True))
    exhibit = training_loss(of(*members))
    assert drawn(exhibit)
    cql, bc, dqn = exhibit.figure.axes
    assert [axes.get_yscale() for axes in (cql, bc, dqn)] == ["log", "linear", "log"]
    np.testing.assert_allclose(line(cql, "CQL α=0.5"), [[100, 200], [1.5, 0.3]], rtol=1e-6)
    band = cql.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [0.1, 2.0], rtol=1e-6)
    np.testing.assert_allclose(line(dqn, "DQN")[1], [0.5, 400])
    assert numbers(exhibit.text) == [400, 0.5]
    assert len(exhibit.rows) == 10
    for row in exhibit.rows:
        alpha = 0.5 if row["algorithm"] == "BC" else row["alpha"]
        expected = losses[row["algorithm"], alpha, row["seed"]]
        assert row["loss"] == pytest.approx(expected[row["step"] // 100 - 1])


def test_seeds_are_averaged_where_all_have_points(of, member, line):
    one, two = member("BC", seed=1), member("BC", seed=2)
    log(one, [(100, 1.0), (200, 2.0), (300, 3.0)])
    log(two, [(200, 4.0), (300, 7.0), (400, 9.0)])
    exhibit = training_loss(of(one, two))
    np.testing.assert_allclose(line(exhibit.figure.axes[0], "BC"), [[200, 300], [3, 5]])
    assert len(exhibit.rows) == 6
    assert numbers(exhibit.text) == []


def test_survival_in_training(of, member, line, drawn):
    members = [
        member("BC", seed=2),
        member("DQN", 0.0),
        member(alpha=0.4, survival=(0.6, 0.65, 0.9)),
        member(alpha=2.0),
    ]
    members[0].metrics["survival_rate"][1] = 0.45
    members[0].metrics["survival_rate_high"][1] = 0.50  # the exact 0.75 lies outside
    exhibit = survival_in_training(of(*members))
    assert drawn(exhibit)
    # The width of the band, the largest difference, and how often the band holds the truth.
    assert numbers(exhibit.text) == [95, 30.0, 8, 9]
    assert {(row["algorithm"], row["alpha"]) for row in exhibit.rows if row["seed"] == 1} == {
        ("DQN", 0.0),
        ("CQL", 0.4),  # the one nearest to 0.5
    }
    axes = {own.get_title(): own for own in exhibit.figure.axes}
    assert set(axes) == {"BC, seed 2", "DQN, seed 1", "CQL α=0.4, seed 1"}  # none is empty
    own = axes["CQL α=0.4, seed 1"]
    np.testing.assert_allclose(line(own, "exact"), [[10, 20, 30], [60, 65, 90]])
    np.testing.assert_allclose(line(own, "rollouts, 95 % band")[1], [61, 66, 91])
    band = own.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(58), pytest.approx(94))
    assert line(own, "random 78.0 %")[1] == pytest.approx(78.0, abs=0.05)
    (row,) = [r for r in exhibit.rows if (r["algorithm"], r["step"]) == ("CQL", 30)]
    assert row["survival_exact"] == 0.9
    assert row["survival_rate_low"] == pytest.approx(0.88)


def test_of_many_seeds_three_are_drawn_and_all_are_written(of, member):
    exhibit = survival_in_training(of(*(member(seed=seed) for seed in range(5)), member("BC")))
    assert [axes.get_title() for axes in exhibit.figure.axes] == [
        *(f"CQL α=0.5, seed {seed}" for seed in range(3)),
        "BC, seed 1",  # and no panel for seeds that it does not have
    ]
    assert len({row["seed"] for row in exhibit.rows}) == 5
    assert "seeds, of which the first 3 are drawn" in exhibit.text


def test_exact_values_are_those_of_a_discounted_linear_system(of, mdp, member):
    own = member()
    exhibit = lower_bound(of(own))
    every = mdp.rows.toarray()
    states = np.arange(mdp.n_states)
    for number, row in enumerate(exhibit.rows):
        moves = every[mdp.row_index[states, own.actions[number]]]
        moves[mdp.terminal] = 0
        values = np.linalg.solve(np.eye(mdp.n_states) - 0.9 * moves, moves @ mdp.rewards)
        assert row["exact_value"] == pytest.approx(mdp.start @ values, abs=1e-12)
        assert row["gamma"] == 0.9
        assert row["step"] == own.steps[number]
        assert row["survival_exact"] == own.metrics["survival_exact"][number]


def test_the_estimate_is_q_of_the_policy_at_the_start(mdp, experiment, only):
    (own,) = experiment.of("DQN")
    last = lower_bound(only("DQN")).rows[-1]
    assert last["step"] == own.steps[-1]
    chosen = own.scores[np.arange(mdp.n_states), own.actions[-1]]
    assert last["value_estimate"] == pytest.approx((mdp.start * chosen).sum(), abs=1e-6)
    assert last["gamma"] == own.settings["gamma"] < 1
    exact = evaluate(true_dynamics(mdp), own.policy.probabilities, gamma=last["gamma"]).value
    assert last["exact_value"] == exact < last["survival_exact"]


def test_how_often_the_estimate_lies_below(of, member, line, drawn):
    members = [
        member("DQN", 0.0, estimate=(0.1, 2.0, 3000.0)),
        member(alpha=0.5, estimate=(0.1, 0.1, 2.0)),
        member(alpha=0.5, seed=2, estimate=(0.1, 2.0, 2.0)),
        member(alpha=5.0, estimate=(0.1, 0.1, 0.1)),
        member("BC"),
    ]
    exhibit = lower_bound(of(*members))
    assert drawn(exhibit)
    assert numbers(exhibit.text)[:4] == [6, 9, 1, 3]  # CQL at 6 of 9, DQN at 1 of 3
    axes = {own.get_title(): own for own in exhibit.figure.axes}
    assert list(axes) == [
        "DQN: below at 1 of 3",
        "CQL α=0.5: below at 3 of 6",
        "CQL α=5: below at 3 of 3",
    ]
    assert [own.get_yscale() for own in axes.values()] == ["symlog", "linear", "linear"]
    assert len(exhibit.rows) == 12
    estimates = line(axes["CQL α=0.5: below at 3 of 6"], "the network says, seed 2")
    np.testing.assert_allclose(estimates, [[10, 20, 30], [0.1, 2, 2]])

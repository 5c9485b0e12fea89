"""Curves over training and over what runs vary, against numbers computed another way."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from sepsis_rl.data import collect
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, tabular_policy
from sepsis_rl.report.curves import (
    lower_bound,
    read_curve,
    survival_in_training,
    training_loss,
)
from sepsis_rl.report.experiment import Experiment, Member, read_experiment
from sepsis_rl.report.variations import variations
from sepsis_rl.runs.checkpoints import load_algorithm

BASELINES = {"random": 0.78, "clinician": 0.782, "optimum": 0.875}
RUNS = ("cql", "bc", "dqn", "sweep")


@pytest.fixture(scope="module")
def folders(finished_runs):
    return {name: finished_runs / "runs" / name / "version_0" for name in RUNS}


@pytest.fixture(scope="module")
def sweep(folders):
    """CQL of two alphas and two seeds."""
    return read_experiment([folders["sweep"]])


@pytest.fixture(scope="module")
def episodes(mdp):
    """Data sets as a member has them, by number of episodes."""

    def gather(count):
        train = collect(mdp, clinician_policy(mdp), episodes=count, seed=3)
        return SimpleNamespace(train=train, content_hash=train.content_hash, n_actions=25)

    return {count: gather(count) for count in (60, 20, 150)}


@pytest.fixture
def member(mdp, episodes, tmp_path):
    """Makes members that were evaluated three times."""

    def make(algorithm="CQL", alpha=0.5, seed=1, *, data=60, steps=(10, 20, 30), **given):
        settings = {
            "alpha": math.nan if algorithm == "BC" else alpha,
            "seed": seed,
            "gamma": 0.9,
            "learning_rate": 3e-4,
            "embedding_dim": 8,
            "hidden_dims": (16,),
        }
        generator = np.random.default_rng(seed)
        survival = given.pop("survival", (0.70, 0.75, 0.80))
        metrics = {
            "survival_exact": np.array(survival),
            "survival_rate": np.array(survival) + 0.01,
            "survival_rate_low": np.array(survival) - 0.02,
            "survival_rate_high": np.array(survival) + 0.04,
        }
        if algorithm != "BC":
            metrics["value_estimate"] = np.array(given.pop("estimate", (0.1, 0.2, 5.0)))
        return Member(
            algorithm=algorithm,
            settings={**settings, **given},
            data=episodes[data],
            run=tmp_path,
            index=0,
            name=f"{algorithm}{alpha},seed={seed}",
            steps=np.array(steps),
            metrics=metrics,
            actions=generator.integers(mdp.n_actions, size=(len(steps), mdp.n_states)),
        )

    return make


def log(folder, points, **options):
    writer = SummaryWriter(str(folder), **options)
    for step, value in points:
        writer.add_scalar("train/loss", value, step)
    writer.close()


def drawn(exhibit):
    """The picture can be laid out, and the rows make a table."""
    assert all(list(row) == list(exhibit.rows[0]) for row in exhibit.rows)
    exhibit.figure.draw_without_rendering()
    return True


def line(axes, label):
    (found,) = [own for own in axes.lines if own.get_label() == label]
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


# -- curves ----------------------------------------------------------------------------------------


def test_curves_agree_with_what_the_checkpoint_remembers(folders, sweep):
    single = read_experiment([folders["cql"]]).members
    assert len(sweep.members) == 4
    for member in [*single, *sweep.members]:
        steps, values = read_curve(member, "val/survival_exact")
        assert (steps.dtype, values.dtype) == (np.int64, np.float64)
        assert steps.tolist() == member.steps.tolist()
        np.testing.assert_allclose(values, member.metrics["survival_exact"], rtol=1e-6)
        assert read_curve(member, "train/loss")[0].tolist() == [2, 4, 6, 8, 10]
    ends = {float(read_curve(member, "train/loss")[1][-1]) for member in sweep.members}
    assert len(ends) == 4


def test_no_curve(folders, tmp_path, member):
    (bc,) = read_experiment([folders["bc"]]).members
    for own, tag in ((bc, "val/value_estimate"), (member(), "train/loss")):
        steps, values = read_curve(own, tag)
        assert steps.shape == values.shape == (0,)


def test_a_sweep_of_one_logs_in_its_run(lightning):
    assert lightning("fit", "bc", "--model.seed=[7]", "--trainer.max_steps=4").code == 0
    (only,) = read_experiment(["runs/bc/version_0"]).members
    assert only.name == "seed=7"
    assert read_curve(only, "train/loss")[0].tolist() == [2, 4]


def test_a_lost_member_is_not_replaced_by_the_run(member):
    first, second = member(seed=1), member(seed=2)
    log(first.run, [(1, 9.0)])  # the median of the members
    assert len(read_curve(first, "train/loss")[0]) == 0
    log(first.run / "members" / second.name, [(1, 2.0)])
    log(first.run / "members" / "another", [(1, 3.0)])
    assert len(read_curve(first, "train/loss")[0]) == 0
    assert read_curve(second, "train/loss")[1].tolist() == [2.0]


def test_what_a_resumed_run_logs_again_hides_the_first_copy(member):
    own = member()
    folder = own.run / "members" / own.name
    log(own.run / "members" / "another", [(1, 0.0)])
    log(folder, [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)], filename_suffix=".0")
    assert read_curve(own, "train/loss")[1].tolist() == [1.0, 2.0, 3.0, 4.0]
    log(folder, [(3, 30.0), (5, 50.0)], filename_suffix=".1", purge_step=3)
    steps, values = read_curve(own, "train/loss")
    assert steps.tolist() == [1, 2, 3, 5]
    assert values.tolist() == [1.0, 2.0, 30.0, 50.0]


@pytest.mark.slow
def test_all_points_of_a_long_curve(member):
    own = member()
    log(own.run / "members" / own.name, [(step, float(step)) for step in range(11_000)])
    log(own.run / "members" / "another", [(1, 0.0)])
    assert len(read_curve(own, "train/loss")[0]) == 11_000  # TensorBoard itself keeps 10,000


def test_training_loss(mdp, episodes, member):
    losses = {
        ("BC", 0.5, 1): [3.0, 2.0],
        ("DQN", 0.0, 1): [0.5, 400.0],
        ("CQL", 0.5, 1): [1.0, 0.5],
        ("CQL", 0.5, 2): [2.0, 0.1],
        ("CQL", 2.0, 1): [4.0, 3.0],
    }
    members = [member(*key) for key in losses]
    for own, values in zip(members, losses.values(), strict=True):
        log(own.run / "members" / own.name, zip((100, 200), values, strict=True))
    exhibit = training_loss(Experiment(mdp, episodes[60], members=members))
    assert exhibit.name == "1-training-loss"
    assert drawn(exhibit)
    cql, bc, dqn = exhibit.figure.axes
    assert [axes.get_yscale() for axes in (cql, bc, dqn)] == ["log", "linear", "log"]
    np.testing.assert_allclose(line(cql, "CQL α=0.5"), [[100, 200], [1.5, 0.3]], rtol=1e-6)
    band = cql.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [0.1, 2.0], rtol=1e-6)
    np.testing.assert_allclose(line(dqn, "DQN")[1], [0.5, 400])
    assert "ends at 400; its smallest was 0.5" in exhibit.text
    assert len(exhibit.rows) == 10
    for row in exhibit.rows:
        alpha = 0.5 if row["algorithm"] == "BC" else row["alpha"]
        expected = losses[row["algorithm"], alpha, row["seed"]]
        assert row["loss"] == pytest.approx(expected[row["step"] // 100 - 1])


def test_seeds_are_averaged_where_all_have_points(mdp, episodes, member):
    one, two = member("BC", seed=1), member("BC", seed=2)
    log(one.run / "members" / one.name, [(100, 1.0), (200, 2.0), (300, 3.0)])
    log(two.run / "members" / two.name, [(200, 4.0), (300, 7.0), (400, 9.0)])
    exhibit = training_loss(Experiment(mdp, episodes[60], members=[one, two]))
    np.testing.assert_allclose(line(exhibit.figure.axes[0], "BC"), [[200, 300], [3, 5]])
    assert len(exhibit.rows) == 6
    assert "DQN" not in exhibit.text


def test_nothing_to_draw(mdp, episodes, member):
    empty = Experiment(mdp, episodes[60])
    assert training_loss(empty) is None
    assert survival_in_training(empty, BASELINES) is None
    assert lower_bound(empty) is None
    assert variations(empty, {}) == []
    cloned = Experiment(mdp, episodes[60], members=[member("BC")])
    assert training_loss(cloned) is None  # no curve was logged
    assert lower_bound(cloned) is None


# -- evaluations -----------------------------------------------------------------------------------


def test_survival_in_training(mdp, episodes, member):
    members = [
        member("BC", seed=2),
        member("DQN", 0.0),
        member(alpha=0.4, survival=(0.6, 0.65, 0.9)),
        member(alpha=2.0),
    ]
    members[0].metrics["survival_rate"][1] = 0.45
    members[0].metrics["survival_rate_high"][1] = 0.50  # the exact 0.75 lies outside
    exhibit = survival_in_training(Experiment(mdp, episodes[60], members=members), BASELINES)
    assert exhibit.name == "2-survival-in-training"
    assert drawn(exhibit)
    assert "up to 30.0 points" in exhibit.text
    assert "8 of 9" in exhibit.text
    assert {(row["algorithm"], row["alpha"]) for row in exhibit.rows if row["seed"] == 1} == {
        ("DQN", 0.0),
        ("CQL", 0.4),  # the one nearest to 0.5
    }
    axes = {own.get_title(): own for own in exhibit.figure.axes}
    assert len(axes) == 6
    own = axes["CQL α=0.4, seed 1"]
    np.testing.assert_allclose(line(own, "exact"), [[10, 20, 30], [60, 65, 90]])
    np.testing.assert_allclose(line(own, "rollouts, 95 % band")[1], [61, 66, 91])
    band = own.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(58), pytest.approx(94))
    assert line(own, "random 78.0 %")[1] == pytest.approx(78)
    assert not any(own.get_label() == "exact" for own in axes["CQL α=0.4, seed 2"].lines)
    (row,) = [r for r in exhibit.rows if (r["algorithm"], r["step"]) == ("CQL", 30)]
    assert row["survival_exact"] == 0.9
    assert row["survival_rate_low"] == pytest.approx(0.88)


def test_exact_values_are_those_of_a_discounted_linear_system(mdp, episodes, member):
    own = member()
    exhibit = lower_bound(Experiment(mdp, episodes[60], members=[own]))
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


def test_the_estimate_is_q_of_the_policy_at_the_start(mdp, folders):
    (own,) = read_experiment([folders["dqn"]]).members
    last = lower_bound(Experiment(mdp, own.data, members=[own])).rows[-1]
    assert last["step"] == own.steps[-1]
    scores = own.scores()
    chosen = (mdp.start * scores[np.arange(mdp.n_states), own.actions[-1]]).sum()
    assert last["value_estimate"] == pytest.approx(chosen, abs=1e-6)
    algorithm = load_algorithm(own.run / "checkpoints" / "last.ckpt")
    gamma = float(algorithm.hparams["gamma"])
    assert last["gamma"] == gamma < 1
    assert last["exact_value"] == evaluate(true_dynamics(mdp), own.tables()[-1], gamma=gamma).value
    assert last["exact_value"] < last["survival_exact"]


def test_how_often_the_estimate_lies_below(mdp, episodes, member):
    members = [
        member("DQN", 0.0, estimate=(0.1, 2.0, 3000.0)),
        member(alpha=0.5, estimate=(0.1, 0.1, 2.0)),
        member(alpha=0.5, seed=2, estimate=(0.1, 2.0, 2.0)),
        member(alpha=5.0, estimate=(0.1, 0.1, 0.1)),
        member("BC"),
    ]
    exhibit = lower_bound(Experiment(mdp, episodes[60], members=members))
    assert exhibit.name == "8-lower-bound"
    assert drawn(exhibit)
    assert "CQL at 6 of 9, DQN at 1 of 3" in exhibit.text
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


# -- variations ------------------------------------------------------------------------------------


def test_variations_take_the_grid_at_their_own_step(mdp, episodes, member):
    grid = [
        member(survival=(0.70, 0.71, 0.72)),
        member(seed=2, survival=(0.74, 0.75, 0.76)),
        member(seed=3, survival=(0.1, 0.1, 0.1)),  # no variation has this seed
        member(alpha=2.0, survival=(0.1, 0.1, 0.1)),  # nor this alpha
        member("BC", survival=(0.1, 0.1, 0.1)),
    ]
    rates = [
        member(learning_rate=1e-3, steps=(10, 20), survival=(0.2, 0.80)),
        member(seed=2, learning_rate=1e-3, steps=(10, 20), survival=(0.2, 0.82)),
        member(learning_rate=1e-4, steps=(10, 20), survival=(0.2, 0.60)),
    ]
    experiment = Experiment(mdp, episodes[60], members=grid, variations={"learning_rate": rates})
    (exhibit,) = variations(experiment, BASELINES)
    assert exhibit.name == "10-learning-rate"
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
    np.testing.assert_allclose(
        line(axes, "CQL α=0.5, 20 steps"), [[1e-4, 3e-4, 1e-3], [60, 73, 81]]
    )
    assert "60.0 % at 0.0001, 73.0 % at 0.0003, 81.0 % at 0.001" in exhibit.text
    assert axes.get_xscale() == "log"
    for survival in BASELINES.values():
        assert any(
            own.get_linestyle() != "-" and np.allclose(own.get_ydata(), 100 * survival)
            for own in axes.lines
        )


def test_a_grid_without_that_step_stays_out(mdp, episodes, member):
    varied = [member(learning_rate=1e-3, steps=(15,), survival=(0.8,))]
    experiment = Experiment(
        mdp, episodes[60], members=[member()], variations={"learning_rate": varied}
    )
    (exhibit,) = variations(experiment, BASELINES)
    assert [row["learning_rate"] for row in exhibit.rows] == [1e-3]


def test_more_episodes_beside_planning_on_their_counts(mdp, episodes, member):
    varied = [member(data=20), member(data=150), member(data=150, seed=2)]
    experiment = Experiment(
        mdp, episodes[60], members=[member()], variations={"data.episodes": varied}
    )
    (exhibit,) = variations(experiment, BASELINES)
    assert exhibit.name == "9-episodes"
    assert drawn(exhibit)
    tabular = [row for row in exhibit.rows if row["algorithm"] == "tabular"]
    assert sorted(row["data.episodes"] for row in tabular) == [20, 60, 150]
    for row in tabular:
        counts = episodes[row["data.episodes"]].train.counts(mdp.n_states, mdp.n_actions)
        policy = tabular_policy(mdp, counts)
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


def test_networks_side_by_side(mdp, episodes, member):
    varied = [
        member(embedding_dim=4, hidden_dims=(4, 4), survival=(0.1, 0.1, 0.7)),
        member(hidden_dims=(16, 16), survival=(0.1, 0.1, 0.9)),
    ]
    variation = {"network": varied, "learning_rate": [member(learning_rate=1.0)]}
    experiment = Experiment(mdp, episodes[60], members=[member()], variations=variation)
    exhibit, other = variations(experiment, BASELINES)
    assert (exhibit.name, other.name) == ("11-network", "10-learning-rate")
    assert drawn(exhibit)
    found = {row["network"]: row["survival"] for row in exhibit.rows}
    assert found == {"4–4–4": 0.7, "8–16": 0.8, "8–16–16": 0.9}
    (axes,) = exhibit.figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4–4–4", "8–16", "8–16–16"]
    np.testing.assert_allclose(line(axes, "CQL α=0.5, 30 steps"), [[0, 1, 2], [70, 80, 90]])


def test_any_runs_together(folders):
    """Real runs: none is needed by another."""
    for names in (("bc",), ("dqn",), RUNS):
        experiment = read_experiment([folders[name] for name in names])
        assert drawn(training_loss(experiment))
        assert drawn(survival_in_training(experiment, BASELINES))
        bound = lower_bound(experiment)
        assert (bound is None) == (names == ("bc",))

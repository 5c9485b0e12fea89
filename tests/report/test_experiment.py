"""Finished runs put together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sepsis_rl.errors import InputError
from sepsis_rl.report.experiment import read_experiment
from sepsis_rl.report.statistics import by_data_set
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.finished import read_run

GRID = [f"runs/{name}/version_0" for name in ("sweep", "cql", "dqn", "bc")]
NEW = "--trainer.logger.init_args.name=new"


def told(experiment):
    """The one problem of an experiment."""
    assert len(experiment.problems) == 1
    return experiment.problems[0]


@pytest.fixture
def new(runs, lightning):
    """Fits something else beside the finished runs, and puts it together with them."""

    def fit(config, *options):
        assert lightning("fit", config, NEW, *options).code == 0
        return read_experiment([*GRID, "runs/new/version_0"])

    return fit


def test_members_of_several_runs_stand_in_order(runs):
    experiment = read_experiment(GRID)
    assert experiment.problems == []
    assert [(member.setting, member.seed) for member in experiment.members] == [
        ("BC", 42),
        ("DQN", 42),
        ("CQL α=0.1", 7),
        ("CQL α=0.1", 42),
        ("CQL α=0.5", 42),
        ("CQL α=1", 7),
        ("CQL α=1", 42),
    ]
    assert experiment.everywhere == experiment.members
    assert [member.seed for member in experiment.of("CQL", 1.0)] == [7, 42]
    assert len(experiment.of("CQL")) == 5
    assert [member.alpha for member in experiment.compared["CQL"]] == [0.5]
    assert experiment.data.content_hash == read_run(GRID[1]).data.content_hash
    assert all(member.data is experiment.data for member in experiment.members)


def test_scores_are_those_of_the_last_checkpoint(experiment):
    for member in experiment.members:
        module = load_algorithm(member.run / "checkpoints" / "last.ckpt")
        expected = module.q_network.table()[member.index].double().numpy()
        assert np.array_equal(member.scores, expected)


@pytest.mark.slow
def test_shares_join(runs, lightning):
    members = ("--model.alpha=[0.1,1.0]", "--model.seed=[42,7]")
    for share in ("1/2", "2/2"):
        assert lightning("fit", "essay/sweep", NEW, f"--model.share={share}", *members).code == 0
    joined = read_experiment(["runs/new/version_0", "runs/new/version_1"])
    whole = read_experiment(GRID[:1])
    assert joined.problems == []
    assert [m.name for m in joined.members] == [m.name for m in whole.members]
    for ours, theirs in zip(joined.members, whole.members, strict=True):
        assert np.array_equal(ours.actions, theirs.actions)
        assert np.allclose(ours.scores, theirs.scores, rtol=1e-5, atol=1e-6)


def test_alpha_0_is_dqn_and_counts_once(new):
    experiment = new("essay/sweep", "--model.alpha=[0.0,2.0]", "--model.seed=42")
    assert [m.seed for m in experiment.of("DQN")] == [42]
    assert [m.run.parent.name for m in experiment.of("DQN")] == ["dqn"]
    assert len(experiment.of("CQL", 2.0)) == 1
    said = "new/version_0 alpha=0 is left out of the essay's chapter: runs/dqn/version_0 holds the"
    assert said in told(experiment)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (["--data.seed=5"], "elsewhere"),
        (["--data.seed=5", "--trainer.max_steps=8"], "elsewhere"),
        # One thing varied, also with fewer steps.
        (["--data.episodes=70", "--trainer.max_steps=4"], "data.episodes"),
        (["--trainer.max_steps=4"], "in its 4 steps"),
        (["--data.batch_size=all"], "in batch_size"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["--model.hidden_dims=[4,4]", "--trainer.max_steps=4"], "network"),
                (["--model.learning_rate=0.01", "--trainer.max_steps=4"], "learning_rate"),
                (["--model.gamma=0.5"], "it differs from runs/sweep/version_0 in gamma"),
                (["--data.seed=5", "--trainer.max_steps=9"], "in data.seed, its 9 steps"),
                (
                    ["--data.episodes=70", "--model.learning_rate=0.01"],
                    "in learning_rate, data.episodes",
                ),
                (["--data.policy=random"], "in its data"),
            )
        ),
    ],
)
def test_the_place_of_a_run_beside_the_grid(new, options, place):
    experiment = new("essay/cql", *options)
    assert len(experiment.members) == 7
    assert experiment.everywhere == experiment.members + experiment.elsewhere
    if place == "elsewhere":
        (other,) = experiment.elsewhere
        assert (other.setting, other.data.train.provenance.seed) == ("CQL α=0.5", 5)
        # Data sets are compared after the steps that all have.
        steps = other.steps[-1]
        assert experiment.common_step == steps
        assert [len(own) for own in by_data_set(experiment, ["CQL α=0.5"]).values()] == [7, 1]
        at = {10: -1, 8: 1}[int(steps)]
        for member in experiment.members:
            assert member.survival_at(steps) == member.metrics["survival_exact"][at]
    else:
        assert experiment.elsewhere == []
    if place in ("data.episodes", "learning_rate", "network"):
        assert [(name, len(own)) for name, own in experiment.variations.items()] == [(place, 1)]
    else:
        assert experiment.variations == {}
    if " " in place:
        assert told(experiment).startswith("runs/new/version_0 is left out of the essay's chapter:")
        assert told(experiment).endswith(place)
    else:
        assert experiment.problems == []


def test_a_run_of_another_temperature_is_in_the_heat_map_alone(new):
    experiment = new("essay/cql", "--model.temperature=0.01")
    assert experiment.problems == []
    assert len(experiment.members) == 7
    (sweep,) = experiment.sweeps  # DQN and CQL
    assert sorted((m.alpha, m.temperature or 0) for m in sweep if m.alpha in (0, 0.5)) == [
        (0, 0),
        (0.5, 0.01),
        (0.5, 1),
    ]
    grid = read_experiment(GRID[1:2])
    without = read_experiment([GRID[1], "runs/new/version_0"])  # of one alpha there is none
    assert without.sweeps == grid.sweeps == []
    assert told(without).endswith("it differs from runs/cql/version_0 in temperature")


def lose_the_metrics(run):
    (run / "metrics.json").unlink()


def go_on_from_elsewhere(run):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["fit"]["step"] = 8
    (run / "metrics.json").write_text(json.dumps(metrics))


def tear(run):
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])


def forget_the_policies(run):
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["callbacks"]["PolicyEvaluation"]["policies"]
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "is no run"),
        (lose_the_metrics, "unfinished; `lightning fit --config runs/cql/version_0/"),
        (go_on_from_elsewhere, "unfinished, at step 10"),
        (tear, "cannot be read"),
        (forget_the_policies, "older version"),
    ],
)
def test_a_run_that_cannot_be_used_is_named(runs, spoil, said):
    spoil(runs / "cql" / "version_0")
    experiment = read_experiment(GRID)
    assert len(experiment.members) == 6
    assert told(experiment).startswith("runs/cql/version_0 is left out:")
    assert said in told(experiment)


def test_a_policy_that_samples_is_left_out(new):
    assert "samples" in told(new("essay/bc", "--model.sampled=true"))


def test_a_run_given_twice_counts_once(runs):
    experiment = read_experiment([GRID[1], f"{GRID[1]}/", Path(GRID[1]).resolve()])
    assert (len(experiment.members), experiment.problems) == (1, [])


def test_without_any_run_all_reasons_are_told(runs):
    shutil.rmtree(runs / "bc")
    lose_the_metrics(runs / "cql" / "version_0")
    reasons = "runs/cql/version_0 .*unfinished.*\n.*runs/bc/version_0 .*is no run"
    with pytest.raises(InputError, match=reasons):
        read_experiment([GRID[1], GRID[3]])

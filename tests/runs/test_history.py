"""What finished runs remember of their training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.finished import read_run
from sepsis_rl.runs.history import read_curve, read_members


def members_of(folder):
    members, diverged = read_members(read_run(folder))
    assert diverged == []
    return members


@pytest.fixture(scope="module")
def folders(finished_runs):
    return {name: finished_runs / "runs" / name / "version_0" for name in ("cql", "bc", "sweep")}


@pytest.fixture
def member(folders, tmp_path):
    """Makes members of a run without curves."""
    (found, *_) = members_of(folders["sweep"])
    return lambda seed=1: replace(found, run=tmp_path, name=f"seed={seed}")


def log(folder, points, **options):
    writer = SummaryWriter(str(folder), **options)
    for step, value in points:
        writer.add_scalar("train/loss", value, step)
    writer.close()


def test_a_member_is_what_its_checkpoints_hold(folders):
    metrics = json.loads((folders["sweep"] / "metrics.json").read_text())
    for member in members_of(folders["sweep"]):
        assert member.steps.tolist() == [4, 8, 10]
        for step, policy in zip((4, 8, 10), member.policies(), strict=True):
            module = load_algorithm(member.run / "checkpoints" / f"step={step}.ckpt")
            assert module.members.names[member.index] == member.name
            expected = module.policies()[member.index].probabilities
            assert np.array_equal(policy.probabilities, expected)
        assert np.array_equal(member.policy.probabilities, policy.probabilities)
        for row, entry in enumerate(metrics["fit"]["evaluations"]):
            for name, value in entry["members"][member.index].items():
                assert member.metrics[name][row] == value
        assert member.survival == member.survival_at(10) == member.metrics["survival_exact"][-1]


def test_a_member_that_diverged_is_named(runs):
    path = runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["PolicyEvaluation"]["history"][1]["members"][2]["survival_exact"] = (
        float("nan")
    )
    for actions in checkpoint["callbacks"]["PolicyEvaluation"]["policies"].values():
        actions[2] = -1  # what stands there is not looked at
    torch.save(checkpoint, path)
    members, diverged = read_members(read_run(runs / "sweep" / "version_0"))
    assert [member.index for member in members] == [0, 1, 3]
    assert diverged == [f"runs/sweep/version_0 {checkpoint['sepsis_rl']['names'][2]}"]


def test_curves_agree_with_what_the_checkpoint_remembers(folders):
    sweep = members_of(folders["sweep"])
    assert len(sweep) == 4
    for member in [*members_of(folders["cql"]), *sweep]:
        steps, values = read_curve(member, "val/survival_exact")
        assert (steps.dtype, values.dtype) == (np.int64, np.float64)
        assert steps.tolist() == member.steps.tolist()
        np.testing.assert_allclose(values, member.metrics["survival_exact"], rtol=1e-6)
        assert read_curve(member, "train/loss").steps.tolist() == [2, 4, 6, 8, 10]
    assert len({float(read_curve(member, "train/loss").values[-1]) for member in sweep}) == 4


def test_no_curve(folders, member):
    (bc,) = members_of(folders["bc"])
    for own, tag in ((bc, "val/value_estimate"), (member(), "train/loss")):
        steps, values = read_curve(own, tag)
        assert steps.shape == values.shape == (0,)


def test_a_sweep_of_one_logs_in_its_run(lightning):
    assert lightning("fit", "bc", "--model.seed=[7]", "--trainer.max_steps=4").code == 0
    (only,) = members_of(Path("runs/bc/version_0"))
    assert only.name == "seed=7"
    assert read_curve(only, "train/loss").steps.tolist() == [2, 4]


def test_a_lost_member_is_not_replaced_by_the_run(member):
    first, second = member(seed=1), member(seed=2)
    log(first.run, [(1, 9.0)])  # the median of the members
    assert len(read_curve(first, "train/loss").steps) == 0
    log(first.run / "members" / second.name, [(1, 2.0)])
    log(first.run / "members" / "another", [(1, 3.0)])
    assert len(read_curve(first, "train/loss").steps) == 0
    assert read_curve(second, "train/loss").values.tolist() == [2.0]


def test_what_a_resumed_run_logs_again_hides_the_first_copy(member):
    own = member()
    folder = own.run / "members" / own.name
    log(own.run / "members" / "another", [(1, 0.0)])
    log(folder, [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)], filename_suffix=".0")
    assert read_curve(own, "train/loss").values.tolist() == [1.0, 2.0, 3.0, 4.0]
    log(folder, [(3, 30.0), (5, 50.0)], filename_suffix=".1", purge_step=3)
    steps, values = read_curve(own, "train/loss")
    assert steps.tolist() == [1, 2, 3, 5]
    assert values.tolist() == [1.0, 2.0, 30.0, 50.0]


def test_a_curve_that_goes_on_under_another_name(member):
    """Earlier versions showed exact survival under its key."""
    own = member()
    log(own.run / "members" / "another", [(1, 0.0)])
    folder = own.run / "members" / own.name
    for number, tag in enumerate(("val/survival_exact", "Survival/exact")):
        writer = SummaryWriter(str(folder), filename_suffix=f".{number}")
        writer.add_scalar(tag, 0.5 + number / 4, number)
        writer.close()
        steps, values = read_curve(own, "val/survival_exact")
        assert steps.tolist() == list(range(number + 1))
    assert values.tolist() == [0.5, 0.75]


@pytest.mark.slow
def test_all_points_of_a_long_curve(member):
    own = member()
    log(own.run / "members" / own.name, [(step, float(step)) for step in range(11_000)])
    log(own.run / "members" / "another", [(1, 0.0)])
    # TensorBoard itself keeps 10,000.
    assert len(read_curve(own, "train/loss").steps) == 11_000

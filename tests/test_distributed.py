"""Two processes compute what one does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sepsis_rl
from sepsis_rl.checkpoints import read_checkpoint

CONFIGS = Path(__file__).parents[1] / "configs"
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is a core for one only")


@pytest.fixture
def processes(lightning, tmp_path):
    """The command in processes of its own: with `ddp`, it starts itself once more."""

    def processes(command, config, *options):
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(sepsis_rl.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "160",
        }
        words = [command, f"--config={CONFIGS / config}.yaml", *lightning.small, *options]
        return subprocess.run(
            [sys.executable, "-m", "sepsis_rl", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return processes


def last(run):
    return read_checkpoint(Path(run) / "checkpoints" / "last.ckpt")


def story(run):
    return json.loads((Path(run) / "metrics.json").read_text())["fit"]


def curves(run):
    shown = EventAccumulator(str(run))
    shown.Reload()
    tags = shown.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in tags}


def assert_close(ours, theirs, tolerance, where=""):
    """Nested figures."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key in theirs:
            assert_close(ours[key], theirs[key], tolerance, f"{where}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for pair in zip(ours, theirs, strict=True):
            assert_close(*pair, tolerance, where)
    else:
        assert ours == pytest.approx(theirs, abs=tolerance), where


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("cql", []),
        # Two members, and patients and held-out rows that two processes cannot share evenly.
        (
            "sweep",
            [
                "--model.alpha=[0.1,1.0]",
                "--model.seed=3",
                "--evaluation.patients=201",
                "--data.held_out_episodes=51",
            ],
        ),
    ],
    ids=["cql", "sweep"],
)
def test_two_processes_make_the_run_of_one(lightning, processes, config, options):
    options = [*options, "--trainer.max_steps=20", "--data.batch_size=64"]
    assert lightning("fit", config, *options).code == 0
    ran = processes("fit", config, *options, *TWO)
    assert ran.returncode == 0, ran.stderr
    one, two = (Path("runs") / config / f"version_{number}" for number in (0, 1))
    assert [path.name for path in sorted(one.parent.iterdir())] == ["version_0", "version_1"]
    names = {path.name for path in (one / "checkpoints").iterdir()}
    assert {path.name for path in (two / "checkpoints").iterdir()} == names

    ours, theirs = last(two), last(one)
    assert ours["global_step"] == 20
    assert set(ours["state_dict"]) == set(theirs["state_dict"])
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=0, atol=1e-5)
    # Greedy policies are the same, so the patients are treated alike; Q moves by rounding.
    assert_close(story(two), story(one), 1e-5)
    expected = curves(one)
    assert_close(curves(two), expected, 1e-5 * max(1, expected["train/loss"][0][1]))
    # One process speaks.
    for table in ("90-day survival on ICU-Sepsis", "From recorded data alone"):
        assert ran.stdout.count(table) == 1, table
    assert "error" not in ran.stderr.lower()


@pytest.mark.slow
def test_two_processes_go_on_and_score(lightning, processes):
    """What one process began, and the other way round."""
    options = ["--data.batch_size=64"]
    assert lightning("fit", "bc", *options, "--trainer.max_steps=20").code == 0
    assert lightning("fit", "bc", *options, "--trainer.max_steps=12").code == 0
    ran = processes("fit", "bc", *options, *TWO, "--ckpt_path=last", "--trainer.max_steps=20")
    assert ran.returncode == 0, ran.stderr
    assert "step 12" in ran.stdout
    ours, theirs = last("runs/bc/version_1"), last("runs/bc/version_0")
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=0, atol=1e-5)

    ran = processes("test", "bc", *TWO, "--ckpt_path=last")
    assert ran.returncode == 0, ran.stderr
    path = Path("runs/bc/version_1/metrics.json")
    shared = json.loads(path.read_text())["test"]["last.ckpt"]
    assert lightning("test", "bc", "--ckpt_path=last").code == 0
    assert_close(shared, json.loads(path.read_text())["test"]["last.ckpt"], 1e-9)
    ran = processes("predict", "bc", *TWO, "--ckpt_path=last")
    assert ran.returncode == 0, ran.stderr
    assert [p.name for p in Path("runs/bc/version_1").glob("*.csv")] == ["policy.csv"]


def test_a_batch_that_processes_cannot_split_is_refused(lightning, tmp_path):
    """Before any other process starts."""
    ran = lightning("fit", "cql", *TWO, "--data.batch_size=33")
    assert ran.code == 2
    assert re.fullmatch(r"lightning: error: data\.batch_size=33 .* 2 .*\n", ran.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bad_data_end_all_processes(processes, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"no data")
    ran = processes("fit", "cql", *TWO, "--data.path=bad.npz")
    assert ran.returncode == 2
    assert ran.stderr.count("lightning: error: ") == 1
    assert "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]

"""Runs that are killed or stopped lose nothing: real processes, real signals."""

import functools
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from comparing import age, assert_same_state, last, scalars, story
from processes import CommandProcess

from sepsis_rl.runs.untrusted import read_checkpoint

CONFIGS = Path(__file__).parents[2] / "configs"
STEPS, INTERVAL = 80, 20
KINDS = {
    "cql": ["--config", str(CONFIGS / "cql.yaml")],
    "sweep": [
        "--config", str(CONFIGS / "sweep.yaml"),
        "--model.alpha", "1.0",
        "--model.learning_rate", "[0.001,0.0003]",
        "--model.seed", "3",
    ],
}  # fmt: skip
# Evaluations and checkpoints large enough that they are met.
LARGE = [
    "--model.embedding_dim", "256",
    "--model.hidden_dims", "[256]",
    "--evaluation.patients", "2000",
    "--trainer.max_steps", str(STEPS),
    "--trainer.val_check_interval", str(INTERVAL),
]  # fmt: skip


@pytest.fixture(scope="module")
def words(records, small):
    """The words of a fit, by kind."""
    return {kind: ["fit", *config, *small, *LARGE] for kind, config in KINDS.items()}


@pytest.fixture(scope="module")
def straight(words, tmp_path_factory):
    """The run folder of an uninterrupted run of a kind."""

    @functools.cache
    def straight(kind):
        folder = tmp_path_factory.mktemp("straight")
        assert CommandProcess(words[kind], folder).wait() == 0
        return folder / "runs" / kind / "version_0"

    return straight


def checkpoints(run):
    return sorted((run / "checkpoints").glob("*.ckpt"))


def assert_is_the_run(run, straight):
    """Whatever happened to it on the way."""
    assert_same_state(run, straight)
    assert story(run) == story(straight)
    assert scalars(run) == scalars(straight)
    assert [path.name for path in checkpoints(run)] == [path.name for path in checkpoints(straight)]


def go_on(words, process, **environment):
    age(process.folder)
    resumed = CommandProcess([*words, "--ckpt_path", "last"], process.folder, **environment)
    assert resumed.wait() == 0, resumed.screen


def started(words, folder, kind, **environment):
    """A run that has its first checkpoint."""
    process = CommandProcess(words[kind], folder, **environment)
    run = folder / "runs" / kind / "version_0"
    process.wait_until((run / "checkpoints" / "last.ckpt").exists)
    return process, run


def kill(process):
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def assert_lost_at_most_an_interval(run, reached):
    """Every file under a checkpoint's name is whole, and the last is recent."""
    steps = [read_checkpoint(path)["global_step"] for path in checkpoints(run)]
    assert steps
    assert last(run)["global_step"] > reached - INTERVAL - 1


# -- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cql", pytest.param("sweep", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "moment",
    [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 4))],
)
def test_killed_at_a_random_moment(words, straight, tmp_path, kind, moment):
    rng = random.Random(f"{kind} {moment}")
    process, run = started(words, tmp_path, kind)
    at = rng.randrange(INTERVAL, STEPS - INTERVAL)
    process.wait_until(lambda: len(checkpoints(run)) > 0 and last(run)["global_step"] + 10 > at)
    kill(process)
    assert_lost_at_most_an_interval(run, at)
    go_on(words[kind], process)
    assert_is_the_run(run, straight(kind))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "elsewhere"), [("cql", False), ("sweep", False), ("cql", True)])
def test_killed_while_a_checkpoint_is_written(words, straight, tmp_path, kind, elsewhere):
    """Also where temporary files are on another file system."""
    environment = {}
    if elsewhere:
        if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is one file system only")
        environment["TMPDIR"] = "/dev/shm"
    process, run = started(words, tmp_path, kind, **environment)
    process.wait_until(lambda: any((run / "checkpoints").glob(".*.tmp")))
    kill(process)
    assert any((run / "checkpoints").glob(".*.tmp")), "it was met too late"
    assert_lost_at_most_an_interval(run, INTERVAL)
    go_on(words[kind], process, **environment)
    assert_is_the_run(run, straight(kind))
    assert not any((run / "checkpoints").glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_during_an_evaluation(words, straight, tmp_path, kind):
    process, run = started(words, tmp_path, kind)
    process.wait_until(lambda: process.is_in("score_policies"))
    kill(process)
    go_on(words[kind], process)
    assert_is_the_run(run, straight(kind))


# -- stopped -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_between_two_steps(words, straight, tmp_path, kind, number):
    """And the line it prints goes on with it."""
    process, run = started(words, tmp_path, kind)
    process.send(number)
    assert process.wait() == 128 + number
    assert "Traceback" not in process.screen
    stopped = re.search(rf"Stopped by {number.name} after step (\d+)", process.screen)
    assert stopped, process.screen
    assert last(run)["global_step"] == int(stopped[1])
    assert not (run / "metrics.json").exists()

    (line,) = [line for line in process.screen.splitlines() if line.startswith("  lightning fit")]
    age(tmp_path)
    resumed = CommandProcess(shlex.split(line)[1:], tmp_path)
    assert resumed.wait() == 0, resumed.screen
    assert f"Going on from step {stopped[1]} " in resumed.screen
    assert_is_the_run(run, straight(kind))


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(words, tmp_path):
    """In the middle of an evaluation, which the first one waits for."""
    process = CommandProcess([*words["cql"], "--evaluation.patients", "300000"], tmp_path)
    process.wait_until(lambda: process.is_in("score_policies"))
    process.send(signal.SIGINT)
    time.sleep(0.1)
    assert process.running
    process.send(signal.SIGINT)
    assert process.wait(20) == 1
    assert "Traceback" not in process.screen
    assert "Stopped by SIGINT" in process.screen


# -- storage that fails --------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A file system of 12 MB at `runs`."""
    (tmp_path / "runs").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(tmp_path / "runs")]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    yield tmp_path / "runs"
    subprocess.run(["umount", "--lazy", str(tmp_path / "runs")], check=True)


def assert_told(process, *texts):
    """An exit code and a few lines that say what and where."""
    assert process.wait() == 1
    assert "Traceback" not in process.screen
    error = process.screen.splitlines()[-1]
    assert error.startswith("lightning: error: runs/") or "/runs/" in error
    for text in texts:
        assert text in process.screen


def test_a_full_disk(words, disk, tmp_path):
    """Two checkpoints of 5 MB fit, a third does not."""
    process = CommandProcess([*words["cql"], "--model.hidden_dims", "[256,256]"], tmp_path)
    assert_told(
        process, "No space left on device", "step=40.ckpt", "--ckpt_path runs/cql/version_0"
    )
    run = disk / "cql" / "version_0"
    assert [read_checkpoint(path)["global_step"] for path in checkpoints(run)] == [20, 20]
    assert not any((run / "checkpoints").glob(".*.tmp"))


@pytest.mark.slow
def test_a_disk_that_is_full_before_the_last_checkpoint(words, disk, tmp_path):
    """One of 9 MB fits, and is the one to go on from whatever its name."""
    process = CommandProcess([*words["cql"], "--model.hidden_dims", "[512,512]"], tmp_path)
    kept = "runs/cql/version_0/checkpoints/step=20.ckpt"
    assert_told(process, "No space left on device", "last.ckpt", f"--ckpt_path {kept}")
    assert [path.name for path in checkpoints(disk / "cql" / "version_0")] == ["step=20.ckpt"]


@pytest.mark.slow
def test_a_disk_that_becomes_read_only(words, disk, tmp_path):
    process, run = started(words, tmp_path, "cql")
    process.send(signal.SIGSTOP)
    remount = ["mount", "-o", "remount,ro", str(disk)]
    subprocess.run(remount, check=True)
    process.send(signal.SIGCONT)
    assert_told(process, "Read-only file system", "--ckpt_path runs/cql/version_0")
    assert last(run)["global_step"] == INTERVAL


@pytest.mark.slow
def test_a_run_folder_removed_under_way(words, tmp_path):
    process, run = started(words, tmp_path, "cql")
    shutil.rmtree(run)
    assert_told(process, "No such file or directory", "There is no checkpoint to go on from")

"""Two processes compute what one does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from comparing import assert_equal, last, scalars

import sepsis_rl

CONFIGS = Path(__file__).parents[2] / "configs"
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is a core for one only")


@pytest.fixture
def start(lightning, tmp_path):
    """The command in a process of its own, which with `ddp` starts itself once more."""

    def start(command, config, *options, launcher=()):
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(sepsis_rl.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "160",
        }
        words = [command, f"--config={CONFIGS / config}.yaml", *lightning.small, *options]
        return subprocess.Popen(
            [sys.executable, "-m", *launcher, "sepsis_rl", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def processes(start):
    """The same, to its end."""

    def processes(command, config, *options):
        with start(command, config, *options) as process:
            out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return processes


def assert_close(ours, theirs):
    """Weights and evaluations of two runs, up to rounding."""
    assert last(ours)["global_step"] == last(theirs)["global_step"]
    assert_equal(last(ours)["state_dict"], last(theirs)["state_dict"], tolerance=1e-5)
    # Greedy policies are the same, so the patients are treated alike; Q moves by rounding.
    assert_equal(ended_with(ours)["fit"], ended_with(theirs)["fit"], tolerance=1e-5)


def ended_with(run):
    return json.loads((Path(run) / "metrics.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("cql", []),  # processes split the states, and the records go by them
        ("essay/cql", ["--trainer.max_steps=100", "--data.batch_size=64"]),
        # Two members, and patients and held-out rows that two processes cannot share evenly.
        (
            "sweep",
            [
                "--model.alpha=[0.1,1.0]",
                "--model.td_weights=rows",
                "--model.seed=3",
                "--evaluation.patients=201",
                "--data.held_out_episodes=51",
            ],
        ),
    ],
    ids=["whole", "rows", "sweep"],
)
def test_two_processes_make_the_run_of_one(lightning, processes, config, options):
    name = config.replace("/", "-")
    options = [f"--trainer.logger.init_args.name={name}", "--trainer.max_steps=20", *options]
    assert lightning("fit", config, *options).code == 0
    ran = processes("fit", config, *options, *TWO)
    assert ran.returncode == 0, ran.stderr
    one, two = (Path("runs") / name / f"version_{number}" for number in (0, 1))
    assert [path.name for path in sorted(one.parent.iterdir())] == ["version_0", "version_1"]
    names = {path.name for path in (one / "checkpoints").iterdir()}
    assert {path.name for path in (two / "checkpoints").iterdir()} == names
    assert last(two)["global_step"] >= 20
    assert_close(two, one)
    expected = scalars(one)
    (_, first_loss), *_ = expected[".", "train/loss"]
    assert_equal(scalars(two), expected, tolerance=1e-5 * max(1, first_loss))
    # One process speaks.
    for table in ("90-day survival on ICU-Sepsis", "From recorded data alone"):
        assert ran.stdout.count(table) == 1, table
    assert "error" not in ran.stderr.lower()


@pytest.mark.slow
def test_two_processes_go_on_and_score(lightning, processes):
    """What one process began, and the other way round."""
    options = ["--model.schedule=constant"]
    assert lightning("fit", "bc", *options, "--trainer.max_steps=20").code == 0
    assert lightning("fit", "bc", *options, "--trainer.max_steps=12").code == 0
    ran = processes("fit", "bc", *options, *TWO, "--ckpt_path=last", "--trainer.max_steps=20")
    assert ran.returncode == 0, ran.stderr
    assert "step 12" in ran.stdout
    weights = (last(f"runs/bc/version_{number}")["state_dict"] for number in (1, 0))
    assert_equal(*weights, tolerance=1e-5)

    ran = processes("test", "bc", *TWO, "--ckpt_path=last")
    assert ran.returncode == 0, ran.stderr
    shared = ended_with("runs/bc/version_1")["test"]
    assert lightning("test", "bc", "--ckpt_path=last").code == 0
    assert_equal(shared, ended_with("runs/bc/version_1")["test"], tolerance=1e-9)
    ran = processes("predict", "bc", *TWO, "--ckpt_path=last")
    assert ran.returncode == 0, ran.stderr
    assert [p.name for p in Path("runs/bc/version_1").glob("*.csv")] == ["policy.csv"]


def test_a_batch_that_processes_cannot_split_is_refused(lightning, tmp_path):
    """Before any other process starts."""
    ran = lightning("fit", "essay/cql", *TWO, "--data.batch_size=33")
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


# -- stopped, killed, on several machines --------------------------------------------------------

LONG = (*TWO, "--trainer.max_steps=20000", "--trainer.val_check_interval=50")


def wait_for(path, process, timeout_s=120):
    end = time.monotonic() + timeout_s
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def child_of(process):
    """The process that the first one started: the first line of /proc/PID/task/PID/children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def assert_ends(pid):
    """Soon; one that nobody waits for stays in the list of processes as a zombie."""
    state = Path(f"/proc/{pid}/stat")
    end = time.monotonic() + 20
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def running(start, tmp_path):
    """Two processes that train and have their first checkpoint."""
    process = start("fit", "cql", *LONG)
    wait_for(tmp_path / "runs/cql/version_0/checkpoints/last.ckpt", process)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["first", "second", "both"])
def test_asked_to_stop_all_processes_do(running, lightning, which):
    """Whichever of them is asked."""
    first, second = running.pid, child_of(running)
    for pid in {"first": [first], "second": [second], "both": [first, second]}[which]:
        os.kill(pid, signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err
    assert err.count("--ckpt_path runs/cql/version_0/checkpoints/last.ckpt") == 1
    step = last("runs/cql/version_0")["global_step"]
    assert f"after step {step:,}." in err
    assert_ends(second)
    # One process goes on with what two began.
    ran = lightning("fit", "cql", "--ckpt_path=last", f"--trainer.max_steps={step + 1}")
    assert ran.code == 0
    assert f"from step {step:,} " in ran.out


@pytest.mark.slow
@pytest.mark.parametrize("which", ["first", "second"])
def test_a_killed_process_ends_the_others(running, processes, which):
    first, second = running.pid, child_of(running)
    killed, other = (first, second) if which == "first" else (second, first)
    os.kill(killed, signal.SIGKILL)
    begun = time.monotonic()
    _, err = running.communicate(timeout=60)  # until both have closed the screen
    assert time.monotonic() - begun < 60
    assert "Traceback" not in err
    assert err.count("lightning: error: another process of this run ended") == 1
    assert_ends(other)
    step = last("runs/cql/version_0")["global_step"]
    ran = processes("fit", "cql", *TWO, "--ckpt_path=last", f"--trainer.max_steps={step + 1}")
    assert ran.returncode == 0, ran.stderr
    assert f"from step {step:,} " in ran.stdout


@pytest.mark.slow
def test_two_machines(lightning, start, tmp_path):
    """`torchrun` on each of two nodes, here both on this machine."""
    options = ("--trainer.max_steps=20",)
    assert lightning("fit", "cql", *options).code == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    two = ("--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp")
    nodes = [
        start(
            "fit", "cql", *options, *two,
            launcher=(
                "torch.distributed.run", "--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1",
                "--master_addr=127.0.0.1", f"--master_port={port}", "-m",
            ),
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [node.communicate(timeout=240) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert sum(out.count("90-day survival on ICU-Sepsis") for out, _ in outputs) == 1
    assert last("runs/cql/version_1")["global_step"] == 20
    assert_close("runs/cql/version_1", "runs/cql/version_0")

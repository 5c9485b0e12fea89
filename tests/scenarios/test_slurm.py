"""The batch script, without SLURM: its command lines, with stand-ins for srun and scontrol."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sepsis_rl
from sepsis_rl.runs.untrusted import read_checkpoint

TOP = Path(__file__).parents[2]
SCRIPT = TOP / "configs" / "slurm.sbatch"

# What srun does: a process for each task, which knows its rank.
SRUN = """\
#!/bin/bash
pids=()
for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & pids+=($!)
done
echo "${pids[@]}" > pids
status=0
for pid in "${pids[@]}"; do wait $pid || status=$?; done
exit $status
"""
SCONTROL = '#!/bin/bash\necho "$@" >> requeued\n'


@pytest.fixture
def job(tmp_path, lightning):
    """Starts the script as a job of so many tasks."""
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(sepsis_rl.__file__).parents[1]),
        "COLUMNS": "160",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "sepsis-rl",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
    }
    command = f'#!/bin/bash\nexec {sys.executable} -m sepsis_rl "$@"\n'
    programs = {"srun": SRUN, "scontrol": SCONTROL, ".venv/bin/lightning": command}
    for name, text in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def job(config, *options, tasks=1, **variables):
        variables |= {"SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(tasks)}
        words = ["--config", str(TOP / "configs" / f"{config}.yaml"), *lightning.small, *options]
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            cwd=tmp_path,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return job


def test_the_script_is_bash():
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 2])
def test_a_job_whose_time_is_up_is_requeued_and_goes_on(job, tmp_path, tasks):
    if tasks > (os.cpu_count() or 1):
        pytest.skip("there is a core for one only")
    long = ["--trainer.val_check_interval=50"]
    process = job("cql", *long, "--trainer.max_steps=20000", tasks=tasks)
    last = tmp_path / "runs" / "slurm-7" / "version_0" / "checkpoints" / "last.ckpt"
    end = time.monotonic() + 120
    while not last.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    for pid in (tmp_path / "pids").read_text().split():
        os.kill(int(pid), signal.SIGUSR1)
    out, _ = process.communicate(timeout=60)
    assert "Traceback" not in out
    assert "Stopped by SIGUSR1 after step" in out
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    step = read_checkpoint(last)["global_step"]

    process = job("cql", *long, f"--trainer.max_steps={step + 10}", tasks=tasks)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert f"Going on from step {step:,} " in out
    assert read_checkpoint(last)["global_step"] == step + 10
    assert not list(tmp_path.rglob("hpc_ckpt*"))


@pytest.mark.slow
def test_an_array_trains_the_shares_of_a_sweep(job, tmp_path, lightning):
    members = ["--model.alpha=[0.1,1.0]", "--model.seed=[3,4]"]
    for task in ("1", "2"):
        array = {
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": task,
            "SLURM_ARRAY_TASK_COUNT": "2",
        }
        process = job("sweep", *members, **array)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    assert lightning("fit", "sweep", *members).code == 0
    whole = read_checkpoint("runs/sweep/version_0/checkpoints/last.ckpt")
    shares = [read_checkpoint(f"runs/slurm-7-{n}/version_0/checkpoints/last.ckpt") for n in (1, 2)]
    trained = {
        str(settings): share["state_dict"]["q_network.embedding"][index]
        for share in shares
        for index, settings in enumerate(share["sepsis_rl"]["members"])
    }
    assert len(trained) == 4
    for index, settings in enumerate(whole["sepsis_rl"]["members"]):
        weights = whole["state_dict"]["q_network.embedding"][index]
        torch.testing.assert_close(trained[str(settings)], weights, rtol=0, atol=1e-5)

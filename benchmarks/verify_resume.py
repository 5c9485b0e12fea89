"""Kills a run, goes on with it, and compares the end with that of a run left alone.

    make verify-resume CONFIG=configs/cql.yaml
    make verify-resume CONFIG=my.yaml ARGS="--model.alpha 0.1" STEPS=5000

Weights, target network, optimizer and evaluations are compared to the bit, on this machine, for
this config. The run is killed (SIGKILL) at a random moment after its first checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sepsis_rl.runs.untrusted import read_checkpoint

LAST = Path("verify", "version_0", "checkpoints", "last.ckpt")
PARTS = {
    "weights and target network": ("state_dict",),
    "optimizer": ("optimizer_states",),
    "evaluations": ("callbacks", "PolicyEvaluation"),
}


def main() -> int:
    """Runs the comparison.

    Returns:
        0 where all parts are equal, 1 where one is not, 2 where a run failed.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--steps", type=int, default=2000, help="of the run (default: 2000)")
    parser.add_argument("--seed", type=int, default=None, help="of the moment of the kill")
    known, options = parser.parse_known_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        fit = [
            sys.executable, "-m", "sepsis_rl", "fit", "--config", known.config, *options,
            "--trainer.max_steps", str(known.steps),
            "--trainer.val_check_interval", str(max(1, known.steps // 5)),
            "--trainer.logger.init_args.name", "verify",
            "--trainer.logger.init_args.save_dir",
        ]  # fmt: skip
        straight, killed = Path(folder, "straight"), Path(folder, "killed")
        try:
            with console.status("a run left alone"):
                seconds = _run([*fit, str(straight)], straight / LAST)
            console.print(f"1/3  a run of {known.steps:,} steps, left alone")
            moment = random.Random(known.seed).uniform(0, 0.8 * seconds)
            with console.status("the same, killed"):
                _run([*fit, str(killed)], killed / LAST, kill_after=moment)
            step = read_checkpoint(killed / LAST)["global_step"]
            if step >= known.steps:
                console.print("The second run had ended before it could be killed: more --steps")
                return 2
            console.print(f"2/3  the same, killed; its last checkpoint is of step {step:,}")
            with console.status("gone on with"):
                _run([*fit, str(killed), "--ckpt_path", "last"], killed / LAST)
            console.print("3/3  gone on with")
        except subprocess.CalledProcessError:
            return 2
        ours, theirs = read_checkpoint(killed / LAST), read_checkpoint(straight / LAST)
    equal = True
    for part, keys in PARTS.items():
        difference = _difference(_at(ours, keys), _at(theirs, keys), "")
        equal &= difference is None
        console.print(f"     {part}: {difference or 'equal to the bit'}")
    console.print(
        "The run that was killed is the run that was not." if equal else "The runs differ."
    )
    return 0 if equal else 1


def _run(command: list[str], last: Path, kill_after: float | None = None) -> float:
    """Runs a fit, to its end or killed that many seconds after its first checkpoint.

    Returns:
        Seconds between its first checkpoint and its last.

    Raises:
        subprocess.CalledProcessError: It failed, or ended before it was killed.
    """
    # With a group of its own, the processes it starts for other devices are killed with it.
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while not last.exists() and run.poll() is None:
            time.sleep(0.01)
        first = time.time()
        if kill_after is None:
            run.wait()
        else:
            time.sleep(kill_after)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    status = run.wait()
    if not last.exists() or status not in (0, -signal.SIGKILL):
        raise subprocess.CalledProcessError(status, command)
    return last.stat().st_mtime - first


def _at(checkpoint: dict[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = checkpoint
    for key in keys:
        value = value[key]
    return value


def _difference(ours: Any, theirs: Any, where: str) -> str | None:
    """Where two nested values first differ."""
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        same = ours.shape == theirs.shape and torch.equal(ours, theirs)
    elif isinstance(ours, dict) and isinstance(theirs, dict) and set(ours) == set(theirs):
        parts = (_difference(ours[key], theirs[key], f"{where}.{key}") for key in ours)
        return next((part for part in parts if part is not None), None)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        parts = (_difference(*pair, f"{where}.{index}") for index, pair in pairs)
        return next((part for part in parts if part is not None), None)
    else:
        same = ours == theirs
    return None if same else f"differ at {where.lstrip('.')}"


if __name__ == "__main__":
    sys.exit(main())

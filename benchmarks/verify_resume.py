"""Kills a run, goes on with it, and compares the end with that of a run left alone.

    make verify-resume CONFIG=configs/cql.yaml
    make verify-resume CONFIG=my.yaml ARGS="--model.alpha 0.1" STEPS=5000

Weights, target network, optimizer and evaluations are compared to the bit, on this machine, for
this config. The run is killed (SIGKILL) at a random moment after its first checkpoint.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sepsis_rl.checkpoints import read_checkpoint

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
    interval = max(1, known.steps // 5)
    words = [
        sys.executable, "-m", "sepsis_rl", "fit", "--config", known.config, *options,
        "--trainer.max_steps", str(known.steps), "--trainer.val_check_interval", str(interval),
        "--trainer.logger.init_args.name", "verify",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:

        def fit(name: str, *more: str) -> subprocess.Popen[bytes]:
            place = ("--trainer.logger.init_args.save_dir", f"{folder}/{name}")
            return subprocess.Popen([*words, *place, *more], stdout=subprocess.DEVNULL)

        def last(name: str) -> Path:
            return Path(folder, name, "verify", "version_0", "checkpoints", "last.ckpt")

        print(f"1/3  a run of {known.steps:,} steps, left alone", flush=True)
        started = time.monotonic()
        if fit("straight").wait():
            return 2
        duration = time.monotonic() - started
        print("2/3  the same, killed", end="", flush=True)
        run = fit("killed")
        while not last("killed").exists():
            if run.poll() is not None:
                return 2
            time.sleep(0.02)
        time.sleep(random.Random(known.seed).uniform(0, 0.3 * duration))
        run.kill()
        if run.wait() == 0:
            print(": it had ended before; give more --steps")
            return 2
        step = read_checkpoint(last("killed"))["global_step"]
        print(f"; its last checkpoint is of step {step:,}", flush=True)
        print("3/3  gone on with", flush=True)
        if fit("killed", "--ckpt_path", "last").wait():
            return 2
        ours, theirs = read_checkpoint(last("killed")), read_checkpoint(last("straight"))
    equal = True
    for part, keys in PARTS.items():
        difference = _difference(_at(ours, keys), _at(theirs, keys), "")
        equal &= difference is None
        print(f"     {part}: " + ("equal to the bit" if difference is None else difference))
    print("The run that was killed is the run that was not." if equal else "The runs differ.")
    return 0 if equal else 1


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

"""Runs of `lightning fit` for the scripts beside this one: trained once, then read."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from sepsis_rl.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
_UNWATCHED = (
    "--evaluation.patients=100",
    "--ope.resamples=10",
    "--checkpoint.save_top_k=1",
    "--trainer.enable_progress_bar=false",
)


def quiet_trainer(**options: Any) -> pl.Trainer:
    """A trainer on the CPU that evaluates, writes and shows nothing."""
    return pl.Trainer(
        accelerator="cpu",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def trained(name: str, config: str, *options: str, runs: Path) -> Path:
    """Folder of a finished run of `lightning fit`; trains it unless it has ended.

    Args:
        name: What tells the run from others; its folder is made of the letters and digits.
        config: As `cql` or `essay/cql`, of configs/.
        options: More words of the command line.
        runs: Where the folders of runs are.
    """
    words = [
        "fit",
        f"--config={CONFIGS / config}.yaml",
        f"--trainer.logger.init_args.save_dir={runs}",
        f"--trainer.logger.init_args.name={_folder_name(name)}",
        *_UNWATCHED,
        *options,
    ]
    if ended(name, runs) is None:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            if main(words):
                sys.exit(f"lightning {' '.join(words)} did not end well")
    folder = ended(name, runs)
    assert folder is not None
    return folder


def ended(name: str, runs: Path) -> Path | None:
    """Folder of the newest run of a name that has ended; None if there is none."""
    found = sorted((runs / _folder_name(name)).glob("version_*/metrics.json"))
    return found[-1].parent if found else None


def _folder_name(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def survival_of(folder: Path) -> list[float]:
    """Exact survival of the members' last policies, in their order; NaN for one that diverged."""
    fit = json.loads((folder / "metrics.json").read_text())["fit"]
    survival = [member["survival_exact"] for member in fit["evaluations"][-1]["members"]]
    return [math.nan if value is None else value for value in survival]

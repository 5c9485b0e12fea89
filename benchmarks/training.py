"""Runs of `lightning fit` for the scripts beside this one: trained once, then read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path

from sepsis_rl.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
_UNWATCHED = (
    "--evaluation.patients=100",
    "--ope.resamples=10",
    "--checkpoint.save_top_k=1",
    "--trainer.enable_progress_bar=false",
)


def trained(name: str, config: str, *options: str, runs: Path) -> Path:
    """Folder of a finished run of `lightning fit`; trains it unless it has ended.

    Args:
        name: What tells the run from others; its folder is made of the letters and digits.
        config: As `cql` or `essay/cql`, of configs/.
        options: More words of the command line.
        runs: Where the folders of runs are.
    """
    run = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    words = [
        "fit",
        f"--config={CONFIGS / config}.yaml",
        f"--trainer.logger.init_args.save_dir={runs}",
        f"--trainer.logger.init_args.name={run}",
        *_UNWATCHED,
        *options,
    ]
    ended = sorted((runs / run).glob("version_*/metrics.json"))
    if not ended:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            if main(words):
                sys.exit(f"lightning {' '.join(words)} did not end well")
        ended = sorted((runs / run).glob("version_*/metrics.json"))
    return ended[-1].parent


def survival_of(folder: Path) -> dict[str, float]:
    """Exact survival of each member's last policy, by its name."""
    fit = json.loads((folder / "metrics.json").read_text())["fit"]
    # Members come first, baselines after them.
    members = list(fit["policies"].items())[: len(fit["evaluations"][-1]["members"])]
    return {name: policy["survival_exact"] for name, policy in members}

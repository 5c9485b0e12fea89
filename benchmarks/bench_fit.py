"""Training speed: `fit` against a bare PyTorch loop, and the sweep against single runs.

    python benchmarks/bench_fit.py [--steps 1500] [--rounds 3]

The contestants take turns within one process and every figure is a ratio of neighbors, because
machines drift. Needs nothing else running.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import lightning.pytorch as pl
import torch
from bare import bare_loop
from rich import box
from rich.console import Console
from rich.table import Table

from sepsis_rl.cli import main
from sepsis_rl.data import OfflineDataModule

CONFIGS = Path(__file__).parent.parent / "configs"
WARM_UP = 100


class Stopwatch(pl.Callback):
    """Seconds per step and per evaluation of the last fit, without its start and its end."""

    step_s: float
    evaluation_s: float

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == WARM_UP:
            self._began = time.perf_counter()
        if trainer.global_step == trainer.max_steps:
            seconds = time.perf_counter() - self._began
            Stopwatch.step_s = seconds / (trainer.max_steps - WARM_UP)

    def on_validation_start(self, *args):
        self._validation_began = time.perf_counter()

    def on_validation_end(self, *args):
        Stopwatch.evaluation_s = time.perf_counter() - self._validation_began


def fit(config: str, steps: int, folder: str, *options: str) -> float:
    """Runs the command itself, with logging and progress bar; seconds per step."""
    words = f"""fit --config {CONFIGS / config} --trainer.max_steps {steps}
        --trainer.val_check_interval {10 * steps} --trainer.accelerator cpu
        --trainer.logger.init_args.save_dir {folder}
        --trainer.callbacks {__name__}.Stopwatch""".split()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        assert main([*words, *options]) == 0
    return Stopwatch.step_s


def bare_step_s(data: OfflineDataModule, steps: int) -> float:
    """Seconds per step of the plain loop."""
    loop = bare_loop(data.train, data.n_states, data.n_actions)
    for _ in range(WARM_UP):
        next(loop)
    began = time.perf_counter()
    for _ in range(steps - WARM_UP):
        next(loop)
    return (time.perf_counter() - began) / (steps - WARM_UP)


def bench(steps: int, rounds: int) -> Table:
    os.environ["FORCE_COLOR"] = "1"  # the progress bar draws as it does on a terminal
    data = OfflineDataModule()
    data.prepare_data()
    data.setup()
    bare, single, sweep = [], [], []
    members = 21
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            bare.append(bare_step_s(data, steps))
            single.append(fit("essay/cql.yaml", steps, folder))
            evaluation = Stopwatch.evaluation_s
            sweep.append(fit("essay/sweep.yaml", max(steps // 8, 2 * WARM_UP), folder) / members)
    fit_ratio = [b / s for b, s in zip(bare, single, strict=True)]
    sweep_ratio = [w / s for w, s in zip(sweep, single, strict=True)]
    interval = 5000
    share = evaluation / (evaluation + interval * statistics.median(single))
    table = Table(
        title=f"Training, {torch.get_num_threads()} threads, {rounds} rounds of {steps} steps",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("all rounds")
    table.add_column("target")

    def row(name: str, values: list[float], unit: str, target: str = "") -> None:
        every = "  ".join(f"{value:.3g}" for value in values)
        table.add_row(name, f"{statistics.median(values):.3g} {unit}", every, target)

    row("bare loop, ms per step", [1e3 * value for value in bare], "ms")
    row("fit, ms per step", [1e3 * value for value in single], "ms")
    row(f"sweep of {members}, ms per member-step", [1e3 * value for value in sweep], "ms")
    row("steps/s of fit over bare loop", fit_ratio, "x", ">= 0.95")
    row("member-step of sweep over step of fit", sweep_ratio, "x", "<= 0.65")
    row(f"evaluation, share of a run (every {interval:,} steps)", [100 * share], "%", "< 5")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    Console().print(bench(options.steps, options.rounds))

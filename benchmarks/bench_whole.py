"""What a step on all records costs, by number of episodes, and what counting them does.

    python benchmarks/bench_whole.py [--steps 60]

A step of the same network on batches of 256 rows takes turns with it, and the ratio is of
neighbors, because machines drift. Needs nothing else running.
"""

from __future__ import annotations

import argparse
import statistics
import time

import lightning.pytorch as pl
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from sepsis_rl.algorithms import CQL
from sepsis_rl.data import OfflineDataModule

SIZES = (5000, 50_000, 500_000)
SETTINGS = {"alpha": 0.003, "temperature": 0.01, "gamma": 1.0, "tau": 0.2}
WARM_UP = 10


class Stopwatch(pl.Callback):
    """Seconds of each step."""

    def on_train_start(self, *args):
        self.steps = []

    def on_train_batch_start(self, *args):
        self._began = time.perf_counter()

    def on_train_batch_end(self, *args):
        self.steps.append(time.perf_counter() - self._began)


def step_ms(data: OfflineDataModule, steps: int) -> float:
    """Median milliseconds of a step of a fit."""
    watch = Stopwatch()
    module = CQL(**SETTINGS, actions="admissible", value_range=(0.0, 1.0))
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(module, data)
    return 1000 * statistics.median(watch.steps[WARM_UP:])


def made(episodes: int, batch_size: int | str) -> OfflineDataModule:
    """The data, loaded."""
    dynamics = "empirical_bayes" if batch_size == "all" else "counts"
    data = OfflineDataModule(episodes=episodes, batch_size=batch_size, dynamics=dynamics)
    data.prepare_data()
    data.setup()
    return data


def main(steps: int) -> None:
    torch.manual_seed(0)
    table = Table(
        "episodes", "count, s", "dynamics, s", "step, ms", "of a step of 256 rows", box=box.SIMPLE
    )
    rows = made(SIZES[0], 256)
    for episodes in SIZES:
        data = made(episodes, "all")
        began = time.perf_counter()
        data.train.counts(data.n_states, data.n_actions)
        counted = time.perf_counter()
        data.estimate_dynamics()  # counts once more
        estimated = time.perf_counter() - counted - (counted - began)
        pairs = [(step_ms(data, steps), step_ms(rows, steps)) for _ in range(3)]
        whole = statistics.median(whole for whole, _ in pairs)
        ratio = statistics.median(whole / by_row for whole, by_row in pairs)
        table.add_row(
            f"{episodes:,}",
            f"{counted - began:.2f}",
            f"{estimated:.2f}",
            f"{whole:.1f}",
            f"{ratio:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=60)
    main(parser.parse_args().steps)

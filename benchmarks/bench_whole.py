"""What a step on all records costs, by number of episodes, and what counting them does.

    python benchmarks/bench_whole.py [--steps 60] [--largest 5000000]

Records are collected and counted 500,000 episodes at a time, each time with another seed, and the
counts added up, so memory does not grow with their number. Then fits take turns: on the counts of
each number of episodes, and on batches of 256 rows. A ratio is of neighbors, because machines
drift. Needs nothing else running. Collecting 5,000,000 episodes takes minutes and is not timed.
"""

from __future__ import annotations

import argparse
import logging
import resource
import statistics
import time

import lightning.pytorch as pl
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from training import quiet_trainer

from sepsis_rl import load_icu_sepsis
from sepsis_rl.algorithms import CQL
from sepsis_rl.data import OfflineDataModule, behavior_policy, collect
from sepsis_rl.display import progress_bar
from sepsis_rl.dynamics import Counts

SIZES = (5000, 50_000, 500_000, 5_000_000)
AT_ONCE = 500_000
FIRST_SEED = 42
SETTINGS = {"alpha": 0.003, "temperature": 0.01, "gamma": 1.0, "tau": 0.2}
WARM_UP = 10
TURNS = 3


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
    quiet_trainer(max_steps=steps, callbacks=[watch]).fit(module, data)
    return 1000 * statistics.median(watch.steps[WARM_UP:])


def count(episodes: int) -> tuple[Counts, float]:
    """Counts of so many episodes, and the seconds that counting and adding up took."""
    mdp = load_icu_sepsis()
    policy = behavior_policy(mdp, "clinician")
    total, seconds = None, 0.0
    with progress_bar() as progress:
        for number in progress.track(range(-(-episodes // AT_ONCE)), description="Collecting"):
            few = min(AT_ONCE, episodes - number * AT_ONCE)
            records = collect(mdp, policy, episodes=few, seed=FIRST_SEED + number)
            began = time.perf_counter()
            counts = records.counts(mdp.n_states, mdp.n_actions)
            total = counts if total is None else total + counts
            seconds += time.perf_counter() - began
    assert total is not None
    assert total.n_episodes[0] == episodes
    return total, seconds


def made(batch_size: int | str, counts: Counts | None = None) -> OfflineDataModule:
    """The smallest data set, loaded; with counts of more, a step sees those."""
    dynamics = "empirical_bayes" if batch_size == "all" else "counts"
    data = OfflineDataModule(episodes=SIZES[0], batch_size=batch_size, dynamics=dynamics)
    data.prepare_data()
    data.setup()
    if counts is not None:
        data.counts = counts
    return data


def main(steps: int, largest: int) -> None:
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    table = Table(
        "episodes",
        "transitions",
        "distinct",
        "count, s",
        "dynamics, s",
        "step, ms",
        "× 256 rows",
        box=box.SIMPLE,
    )
    data, cells = {}, {}
    for episodes in (size for size in SIZES if size <= largest):
        counts, counting = count(episodes)
        data[episodes] = made("all", counts)
        began = time.perf_counter()
        data[episodes].estimate_dynamics()
        cells[episodes] = (
            f"{episodes:,}",
            f"{counts.pairs.sum():,.0f}",
            f"{counts.transitions.nnz:,}",
            f"{counting:.2f}",
            f"{time.perf_counter() - began:.2f}",
        )
    rows = made(256)
    turns = [
        {name: (step_ms(one, steps), step_ms(rows, steps)) for name, one in data.items()}
        for _ in range(TURNS)
    ]
    for name, row in cells.items():
        whole = statistics.median(turn[name][0] for turn in turns)
        ratio = statistics.median(turn[name][0] / turn[name][1] for turn in turns)
        table.add_row(*row, f"{whole:.1f}", f"{ratio:.2f}")
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Console().print(f"Peak memory {peak:,.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="most episodes")
    options = parser.parse_args()
    main(options.steps, options.largest)

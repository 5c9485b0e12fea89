"""Seconds until a policy survives 81 %, and what the essay's batches reach in 100 times as many.

    python benchmarks/bench_mark.py [--times 100]

`lightning fit` of configs/cql.yaml is timed from its first step, evaluations on the way left out,
until the exact survival of the policy is above 81 %. Then a plain PyTorch loop of the essay's CQL
has 100 times as long, on the same 5,000 episodes, and so has `lightning fit` of the essay's own
settings. Their policies are judged on the way, which is not timed either. Exact
survival stops nothing that a user runs: it is the yardstick here. Needs nothing else running.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import lightning.pytorch as pl
import torch
from bare import bare_loop
from rich import box
from rich.console import Console
from rich.table import Table

from sepsis_rl.cli import main
from sepsis_rl.data import OfflineDataModule
from sepsis_rl.dynamics import Dynamics, true_dynamics
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy, greedy_policy

CONFIGS = Path(__file__).parent.parent / "configs"
MARK = 0.81
LOOKS = 60

Curve = list[tuple[float, float]]
"""Seconds of training, and exact survival after them."""


class Race(pl.Callback):
    """The curve of a fit; ends it where `is_over` says so."""

    is_over: Callable[[float, float], bool]
    every: int
    curve: Curve

    def on_train_start(self, *args):
        Race.curve = []
        self._seconds, self._began = 0.0, time.perf_counter()

    def on_train_batch_end(self, trainer, module, *args):
        if trainer.global_step % Race.every == 0:
            self._seconds += time.perf_counter() - self._began
            Race.curve.append((self._seconds, survival(*module.policies())))
            if Race.is_over(*Race.curve[-1]):
                trainer.should_stop = True
            self._began = time.perf_counter()


def survival(policy: Policy | None) -> float:
    assert policy is not None  # it has not diverged
    return evaluate(_truth(), policy.probabilities).survival


@cache
def _truth() -> Dynamics:
    return true_dynamics(load_icu_sepsis())


def fit(config: str, every: int, is_over: Callable[[float, float], bool], *options: str) -> Curve:
    """The curve of `lightning fit` itself, judged each so many steps."""
    Race.is_over, Race.every = staticmethod(is_over), every
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        words = f"""fit --config {CONFIGS / config} --trainer.val_check_interval 1000000
            --trainer.logger.init_args.save_dir {folder} --trainer.enable_progress_bar false
            --trainer.callbacks {__name__}.Race""".split()
        with contextlib.redirect_stdout(nowhere):
            assert main([*words, *options]) == 0
    return Race.curve


def plain(data: OfflineDataModule, seconds: float) -> Curve:
    """The curve of the plain loop."""
    states = torch.arange(data.n_states)
    curve, spent, began = [], 0.0, time.perf_counter()
    for network in bare_loop(data.train, data.n_states, data.n_actions):
        now = time.perf_counter()
        if spent + now - began > seconds * (len(curve) + 1) / LOOKS:
            spent += now - began
            with torch.no_grad():
                scores = network(states).double().numpy()
            curve.append((spent, survival(greedy_policy("plain", scores))))
            if spent >= seconds or len(curve) == LOOKS:
                return curve
            began = time.perf_counter()
    raise AssertionError("the loop has no end")


def race(times: int) -> Table:
    data = OfflineDataModule()
    data.prepare_data()
    data.setup()
    table = Table(
        title=f"Exact survival of {100 * MARK:.0f} %, {torch.get_num_threads()} threads",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("what", "seconds", "best %", "last %"):
        table.add_column(heading, justify="left" if heading == "what" else "right")

    def row(name: str, curve: Curve) -> float:
        seconds, ends = curve[-1]
        best = max(survives for _, survives in curve)
        table.add_row(name, f"{seconds:.1f}", f"{100 * best:.1f}", f"{100 * ends:.1f}")
        return seconds

    def reached(seconds: float, survives: float) -> bool:
        return survives > MARK

    limit = times * row("configs/cql.yaml, until it is there", fit("cql.yaml", 10, reached))
    row(f"a plain loop of the essay's batches, {times} times as long", plain(data, limit))
    essay = fit("essay/cql.yaml", 2000, lambda s, _: s >= limit, "--trainer.max_steps=10000000")
    row(f"configs/essay/cql.yaml, {times} times as long", essay)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--times", type=int, default=100)
    Console().print(race(parser.parse_args().times))

"""Speed and memory of the environment: `python benchmarks/bench_env.py`.

Everything is measured in one run, in turns, so that a machine that is busy or slow is so for both
sides: what counts is the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.envs import BatchedSepsisEnv
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy, random_policy
from sepsis_rl.registration import ENVIRONMENT_ID

NUM_ENVS = 10_000


def resident_megabytes() -> float:
    """Resident memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


def gymnasium_steps_per_second(env: gymnasium.Env, n_steps: int, seed: int) -> float:
    """The usual loop over one environment, with random actions drawn beforehand."""
    actions = np.random.default_rng(seed).integers(env.action_space.n, size=n_steps).tolist()
    env.reset(seed=seed)
    start = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return n_steps / (time.perf_counter() - start)


def batched_steps_per_second(env: BatchedSepsisEnv, n_steps: int, seed: int) -> float:
    """Steps of all patients together, automatic resets included."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_steps, env.num_envs)
    actions = torch.randint(env.mdp.n_actions, shape, generator=generator)
    env.reset(seed=seed)
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return n_steps * env.num_envs / (time.perf_counter() - start)


def milliseconds(call: Callable[[], object], repeats: int) -> list[float]:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="speed and memory of the environment")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default: 5)")
    arguments = parser.parse_args()

    # One core against one core; and threads that wait for a core of a busy machine would cost
    # more than they save on tensors of this size.
    torch.set_num_threads(1)
    imported = resident_megabytes()
    mdp = load_icu_sepsis()
    loaded = resident_megabytes()

    real = gymnasium.make(ENVIRONMENT_ID, disable_env_checker=True)
    sides: dict[str, Callable[[int], float]] = {
        "gymnasium.make, one patient": lambda seed: gymnasium_steps_per_second(real, 20_000, seed)
    }
    for info in (True, False):
        env = BatchedSepsisEnv(mdp, NUM_ENVS, info=info)
        label = f"BatchedSepsisEnv, {NUM_ENVS:,} patients, info={info}"
        sides[label] = lambda seed, env=env: batched_steps_per_second(env, 50, seed)
    speeds: dict[str, list[float]] = {label: [] for label in sides}
    for seed in range(arguments.rounds):
        for label, measure in sides.items():
            speeds[label].append(measure(seed))

    console = Console()
    table = Table(title="Environment steps")
    table.add_column("environment")
    table.add_column("steps/s (median)", justify="right")
    table.add_column("ratio", justify="right")
    base = statistics.median(next(iter(speeds.values())))
    for label, values in speeds.items():
        speed = statistics.median(values)
        table.add_row(label, f"{speed:,.0f}", f"{speed / base:,.1f}")
    console.print(table)

    table = Table(title="Exact evaluation of a policy, milliseconds")
    for heading in ("policy", "median", "fastest"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for policy in (random_policy(mdp), clinician_policy(mdp), optimal_policy(mdp)):
        times = milliseconds(lambda p=policy: evaluate(true_dynamics(mdp), p.probabilities), 50)
        table.add_row(policy.name, f"{statistics.median(times):.1f}", f"{min(times):.1f}")
    console.print(table)

    table = Table(title="Resident memory, MB")
    table.add_column("after")
    table.add_column("MB", justify="right")
    table.add_row("imports of this package", f"{imported:,.0f}")
    table.add_row("load_icu_sepsis(), icu_sepsis imported with it", f"{loaded:,.0f}")
    console.print(table)
    console.print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()

"""Speed of the off-policy estimators: `python benchmarks/bench_ope.py`.

54,000 clinician episodes, half a million transitions; each estimator of one policy, with the
interval of 200 bootstrap resamples where it has one.
"""

from __future__ import annotations

import argparse
import statistics
import time

from rich.console import Console
from rich.table import Table

from sepsis_rl.data import collect
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.ope import ESTIMATORS, Episodes, OffPolicyOptions, evaluate_off_policy
from sepsis_rl.policies import clinician_mode_policy, clinician_policy

TARGET = 2.0  # seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=54_000)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    mdp = load_icu_sepsis()
    data = collect(mdp, clinician_policy(mdp), episodes=options.episodes, seed=1)
    start = time.perf_counter()
    episodes = Episodes(data, mdp.n_states, mdp.n_actions)
    packing = time.perf_counter() - start
    policy = clinician_mode_policy(mdp)
    table = Table(
        title=f"{len(data):,} transitions, {options.resamples} resamples, one policy, "
        f"median of {options.rounds} (target: below {TARGET:g} s each)",
        caption=f"Packing the episodes, once for all: {packing:.2f} s",
    )
    table.add_column("estimator")
    table.add_column("estimate, s", justify="right")
    table.add_column("with interval, s", justify="right")
    for name in ESTIMATORS:
        cells = []
        for resamples in (0, options.resamples):
            seconds = []
            for _ in range(options.rounds):
                start = time.perf_counter()
                evaluate_off_policy(
                    [policy],
                    episodes,
                    estimators=(name,),
                    options=OffPolicyOptions(resamples=resamples),
                )
                seconds.append(time.perf_counter() - start)
            cells.append(f"{statistics.median(seconds):.2f}")
        table.add_row(name, cells[0], "none" if name == "fqe_zero" else cells[1])
    Console().print(table)


if __name__ == "__main__":
    main()

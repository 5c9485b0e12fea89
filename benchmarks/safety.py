"""How often what few records teach is worse than the clinicians, and by how much.

    python benchmarks/safety.py [--output docs/safety] [--seeds 50] [--cql-seeds 50] [--runs runs]

Survival is exact, of networks that of the last checkpoint, and chose nothing. A run that has ended
is read and not trained again, so the whole goes on where it was stopped. Writes safety.csv and
safety.png, and prints the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from marks import PLANNERS, learned
from training import survival_of

from sepsis_rl.baselines import hedged_policy, recorded_policy
from sepsis_rl.data import collect
from sepsis_rl.display import progress_bar
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.figures import COLORS, label_axes, new_figure
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy

SIZES = (250, 1000, 5000)
PLANS = {
    "recorded": lambda counts, mdp: recorded_policy(counts),
    **PLANNERS,
    "hedged": hedged_policy,
}


def measure(seeds: int, cql_seeds: int, runs: Path) -> pd.DataFrame:
    """A row for each policy, number of episodes and data set."""
    mdp = load_icu_sepsis()
    truth, clinician = true_dynamics(mdp), clinician_policy(mdp)
    rows = []
    cells = [(episodes, seed) for seed in range(seeds) for episodes in SIZES]
    with progress_bar() as progress:
        for episodes, seed in progress.track(cells, description="Learning from few records"):
            data = collect(mdp, clinician, episodes=episodes, seed=seed)
            counts = data.counts(mdp.n_states, mdp.n_actions)
            for name, plan in PLANS.items():
                survival = evaluate(truth, plan(counts, mdp).probabilities).survival
                rows.append((name, episodes, seed, survival))
            if seed < cql_seeds:
                (survival,) = survival_of(learned("CQL", episodes, seed, runs))
                rows.append(("CQL", episodes, seed, survival))
    return pd.DataFrame(rows, columns=["policy", "episodes", "data_seed", "survival_exact"])


def summarize(rows: pd.DataFrame, clinician: float) -> pd.DataFrame:
    """Mean, worst, mean of the worst tenth, and how many are below the clinicians'."""

    def of(survival: pd.Series) -> pd.Series:
        ranked = np.sort(survival)
        return pd.Series(
            {
                "mean": ranked.mean(),
                "error": ranked.std(ddof=1) / len(ranked) ** 0.5,
                "worst": ranked[0],
                "worst_tenth": ranked[: max(1, len(ranked) // 10)].mean(),
                # A copy of the clinicians is not below them for where a sum was rounded.
                "below": (ranked < clinician - 1e-9).sum(),
                "sets": len(ranked),
            }
        )

    groups = rows.groupby(["policy", "episodes"], sort=False)["survival_exact"]
    return groups.apply(of).unstack()


def as_table(summary: pd.DataFrame) -> str:
    """The table in Markdown, in percent."""
    lines = ["| | " + " | ".join(f"{size:,} episodes" for size in SIZES) + " |"]
    lines += ["|---|" + "---|" * len(SIZES)]
    for name in summary.index.get_level_values(0).unique():
        cells = []
        for size in SIZES:
            row = summary.loc[(name, size)]
            mean, error, worst, tenth = 100 * row[["mean", "error", "worst", "worst_tenth"]]
            cells.append(
                f"{mean:.2f} ± {error:.2f} / {tenth:.2f} / {worst:.2f} / "
                f"{row['below']:.0f} of {row['sets']:.0f}"
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(rows: pd.DataFrame, clinician: float) -> plt.Figure:
    """A dot for each data set, a bar at the mean of each policy."""
    names = rows["policy"].unique()
    figure = new_figure(8.4, 4.2)
    every = figure.subplots(1, len(SIZES), sharey=True)
    for axes, size in zip(every, SIZES, strict=True):
        for place, name in enumerate(names):
            chosen = (rows["policy"] == name) & (rows["episodes"] == size)
            own = 100 * rows.loc[chosen, "survival_exact"]
            # Side by side in the order of their data seeds, so that dots do not hide each other.
            aside = place + np.linspace(-0.3, 0.3, len(own))
            axes.plot(aside, own, ".", color=COLORS[1 + place % 6], markersize=4)
            axes.hlines(own.mean(), place - 0.38, place + 0.38, color="0.15", linewidth=1.6)
        axes.axhline(100 * clinician, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
        label_axes(axes, title=f"{size:,} episodes")
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.grid(visible=False, axis="x")
    every[-1].text(
        len(names) - 0.6, 100 * clinician - 0.03, "clinicians", fontsize=8, ha="right", va="top"
    )
    every[0].set_ylabel("exact 90-day survival, %", fontsize=9)
    return figure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("docs/safety"))
    parser.add_argument("--seeds", type=int, default=50, help="data sets of each size")
    parser.add_argument("--cql-seeds", type=int, default=50, help="of them those that train CQL")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    rows = measure(options.seeds, options.cql_seeds, options.runs)
    options.output.mkdir(parents=True, exist_ok=True)
    rows.to_csv(options.output / "safety.csv", index=False, float_format="%.6f")
    mdp = load_icu_sepsis()
    clinician = evaluate(true_dynamics(mdp), clinician_policy(mdp).probabilities).survival
    draw(rows, clinician).savefig(options.output / "safety.png")
    print(as_table(summarize(rows, clinician)))

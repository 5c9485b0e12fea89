"""What each way to learn is worth, from 1,000, 5,000 and 50,000 episodes, over ten data sets each.

    python benchmarks/marks.py [--output docs/marks] [--seeds 10] [--essay-seeds 0] [--runs runs]

Networks are trained by `lightning fit` itself with the configs as they are; survival is exact, of
the last checkpoint, and chose nothing. What stands in marks.csv is not learned again: delete its
rows after a change of what learns; a run that has ended is read, so the whole goes on where it was
stopped. Writes marks.csv and marks.png, and prints the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from training import survival_of, trained

from sepsis_rl.baselines import pooled_policy, spibb_policy, tabular_policy
from sepsis_rl.data import collect
from sepsis_rl.display import progress_bar
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.figures import COLORS, MARKERS, label_axes, new_figure
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy

SIZES = (1000, 5000, 50_000)
ESSAY_STEPS = 20_000
"""Of the essay's 100,000, after which its CQL and BC are where they stay (docs/essay)."""

WHOLE = ["--trainer.val_check_interval=600"]
ESSAY = [f"--trainer.max_steps={ESSAY_STEPS}", f"--trainer.val_check_interval={ESSAY_STEPS}"]
NETWORKS = {
    "CQL": ("cql", WHOLE),
    "CQL, all actions": ("cql", [*WHOLE, "--model.actions=all"]),
    "essay's CQL": ("essay/cql", ESSAY),
    "essay's BC": ("essay/bc", ESSAY),
}
PLANNERS = {
    "tabular": tabular_policy,
    "pooled": lambda counts, mdp: pooled_policy(counts, admissible=mdp.admissible),
    "SPIBB": lambda counts, mdp: spibb_policy(counts),
}
MARKS = {
    "CQL": (0.791, 0.811, 0.856),
    "CQL, all actions": (0.790, 0.804, 0.838),
    "tabular": (0.792, 0.811, 0.858),
}


COLUMNS = ["policy", "episodes", "data_seed", "survival_exact"]


def measure(known: pd.DataFrame, seeds: int, essay_seeds: int, runs: Path) -> pd.DataFrame:
    """A row for each policy, number of episodes and data set; those that are known stay."""
    mdp = load_icu_sepsis()
    truth, clinician = true_dynamics(mdp), clinician_policy(mdp)
    before = known.set_index(COLUMNS[:3])["survival_exact"].to_dict()
    asked = {name: essay_seeds if name.startswith("essay") else seeds for name in NETWORKS}
    cells = [
        (name, episodes, seed)
        for name in (*PLANNERS, *NETWORKS)
        for episodes in SIZES
        for seed in range(max([seeds, essay_seeds, *(known["data_seed"] + 1)]))
        if seed < asked.get(name, seeds) or (name, episodes, seed) in before
    ]
    rows = []
    with progress_bar() as progress:
        for name, episodes, seed in progress.track(cells, description="Learning from records"):
            if (name, episodes, seed) in before:
                survival = before[name, episodes, seed]
            elif name in PLANNERS:
                data = collect(mdp, clinician, episodes=episodes, seed=seed)
                policy = PLANNERS[name](data.counts(mdp.n_states, mdp.n_actions), mdp)
                survival = evaluate(truth, policy.probabilities).survival
            else:
                (survival,) = survival_of(learned(name, episodes, seed, runs))
            rows.append((name, episodes, seed, survival))
    return pd.DataFrame(rows, columns=COLUMNS)


def learned(name: str, episodes: int, seed: int, runs: Path) -> Path:
    """Folder of the run of one of the networks on one data set; trains it unless it has ended."""
    config, options = NETWORKS[name]
    data = [f"--data.episodes={episodes}", f"--data.seed={seed}"]
    return trained(f"marks-{name}-{episodes}-{seed}", config, *data, *options, runs=runs)


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard error and number of data sets, by policy and number of episodes."""
    groups = rows.groupby(["policy", "episodes"], sort=False)["survival_exact"]
    return groups.agg(["mean", "sem", "count"])


def as_table(summary: pd.DataFrame) -> str:
    """The table in Markdown, in percent, with the marks."""
    lines = [
        "| exact survival, % | " + " | ".join(f"{size:,} episodes" for size in SIZES) + " |",
        "|---|" + "---|" * len(SIZES),
    ]
    for name in summary.index.get_level_values(0).unique():
        cells = []
        for position, size in enumerate(SIZES):
            mean, error, count = summary.loc[(name, size)]
            mark = f", mark {100 * MARKS[name][position]:.1f}" if name in MARKS else ""
            cells.append(f"{100 * mean:.2f} ± {100 * error:.2f} ({count:.0f} sets{mark})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(summary: pd.DataFrame, references: dict[str, float]) -> plt.Figure:
    """Means over data sets, with bands of two standard errors."""
    figure = new_figure(7.2, 4.6)
    axes = figure.subplots()
    for index, name in enumerate(summary.index.get_level_values(0).unique()):
        own = 100 * summary.loc[name]
        color, marker = COLORS[index % len(COLORS)], MARKERS[index]
        dash = "--" if name.startswith("essay") else "-"
        axes.plot(own.index, own["mean"], dash, color=color, marker=marker, label=name)
        band = 2 * own["sem"].fillna(0)
        axes.fill_between(own.index, own["mean"] - band, own["mean"] + band, color=color, alpha=0.2)
    for name, survival in references.items():
        axes.axhline(100 * survival, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{name} {100 * survival:.1f}",
            (1.01, 100 * survival),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            va="center",
        )
    axes.set_xscale("log")
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()
    label_axes(axes, "recorded episodes to learn from", "exact 90-day survival, %")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("docs/marks"))
    parser.add_argument("--seeds", type=int, default=10, help="data sets of each size")
    parser.add_argument("--essay-seeds", type=int, default=0, help="of the essay's settings")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "marks.csv"
    known = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=COLUMNS)
    rows = measure(known, options.seeds, options.essay_seeds, options.runs)
    rows.to_csv(table, index=False, float_format="%.6f")
    summary = summarize(rows)
    mdp = load_icu_sepsis()
    references = {
        name: evaluate(true_dynamics(mdp), policy.probabilities).survival
        for name, policy in (("clinician", clinician_policy(mdp)), ("optimum", optimal_policy(mdp)))
    }
    draw(summary, references).savefig(options.output / "marks.png")
    print(as_table(summary))

"""What made the essay's CQL fail: from its settings to `configs/cql.yaml`, one change at a time.

    python benchmarks/ablation.py [--output docs/ablation] [--seeds 10] [--essay-seeds 10]

Two directions, from 5,000 episodes each: a path of changes that add up, and the recommended
settings with one thing changed. Differences are of exact survival of the last policy, paired over
data sets. Runs are those of `lightning fit`; one that has ended is read and not trained again.
Writes ablation.csv and ablation.png, and prints the tables.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from marks import NETWORKS, learned
from matplotlib.axes import Axes
from training import survival_of, trained

from sepsis_rl.data import OfflineDataModule
from sepsis_rl.display import progress_bar
from sepsis_rl.dynamics import Dynamics, empirical_bayes_dynamics, true_dynamics
from sepsis_rl.figures import COLORS, label_axes, new_figure
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy
from sepsis_rl.report.statistics import Difference, paired

EPISODES = 5000
WITHOUT_DOSES = "--trainer.callbacks=ablation.WithoutDoseEffects"


def steps(count: int) -> str:
    return f"--trainer.max_steps={count} --trainer.val_check_interval={count}"


ADDED = {
    "all records": f"--data.batch_size=all {steps(1000)}",
    "optimizer": f"--model.tau=0.2 --model.learning_rate=1e-3 --model.schedule=cosine {steps(600)}",
    "value range": "--model.value_range=[0,1]",
    "temperature 0.01": "--model.temperature=0.01",
    "alpha 0.003": "--model.alpha=0.003",
    "gamma 1": "--model.gamma=1",
    "shrunk": f"--data.dynamics=empirical_bayes {WITHOUT_DOSES}",
}
"""Options that a step of the path adds to those of the steps before it."""
CHANGED = {
    "alpha 0": "--model.alpha=0",
    "temperature 1": "--model.temperature=1",
    "no value range": "--model.value_range=null",
    "gamma 0.99": "--model.gamma=0.99",
    "raw counts": "--data.dynamics=counts",
    "pooled": "--data.dynamics=pooled",
    "no dose effects": WITHOUT_DOSES,
    "weights of rows": "--model.td_weights=rows",
    "all actions, alpha 0": "--model.actions=all --model.alpha=0",
    "all actions, temperature 1": "--model.actions=all --model.temperature=1",
}
"""Options in which a run differs from `configs/cql.yaml`."""

PATH = {
    "essay's CQL": "the essay's CQL, 20,000 steps of 256 rows",
    "all records": "all records at each step, 1,000 steps",
    "optimizer": "τ 0.2, learning rate 10⁻³ to 0, 600 steps",
    "value range": "targets kept within [0, 1]",
    "temperature 0.01": "T 0.01",
    "alpha 0.003": "α 0.003",
    "gamma 1": "γ 1",
    "shrunk": "empirical Bayes without dose effects",
    "CQL, all actions": "dose effects",
    "weights of rows": "admissible actions alone",
    "CQL": "all pairs weigh alike: configs/cql.yaml",
}
"""What a reader is told of each step of the path, by run."""
TAKEN_AWAY = {
    "alpha 0": "no conservative term: α 0",
    "temperature 1": "T 1",
    "no value range": "targets without bounds",
    "gamma 0.99": "γ 0.99",
    "no dose effects": "no dose effects",
    "pooled": "pooled counts",
    "raw counts": "raw counts",
    "weights of rows": "pairs weigh as often as recorded",
    "CQL, all actions": "no mask: all actions",
}
"""What a reader is told of each change of `configs/cql.yaml`."""
WITHOUT_MASK = {
    "all actions, alpha 0": "no conservative term: α 0",
    "all actions, temperature 1": "T 1",
}
"""What a reader is told of each change of `configs/cql.yaml` without its mask."""
BRANCHED = {
    "alpha 0.02": "--model.alpha=0.02",
    "alpha 0.02, temperature 1": "--model.alpha=0.02 --model.temperature=1",
}
"""Options in which a run differs from the path's at α 0.003."""
ON_COUNTS = {
    "alpha 0.02": "T 0.01, α 0.02",
    "alpha 0.003": "α 0.003",
    "temperature 0.01": "α 0.5",
    "alpha 0.02, temperature 1": "T 1",
    "value range": "T 1, α 0.5",
}
"""What a reader is told of T and α on raw counts, where the path has not come to γ 1."""


class Row(NamedTuple):
    """A change, what it is compared with, and what came of it."""

    part: str
    label: str
    run: str
    reference: str | None


PARTS = {
    "one change after the other": "minus the line before",
    "configs/cql.yaml but for": "minus configs/cql.yaml",
    "without a mask, but for": "minus the same without a mask",
    "on raw counts, but for": "minus the first line",
}
ROWS = [
    *(
        Row("one change after the other", label, run, before)
        for (run, label), before in zip(PATH.items(), (None, *PATH), strict=False)
    ),
    *(Row("configs/cql.yaml but for", label, run, "CQL") for run, label in TAKEN_AWAY.items()),
    *(
        Row("without a mask, but for", label, run, "CQL, all actions")
        for run, label in WITHOUT_MASK.items()
    ),
    *(
        Row("on raw counts, but for", label, run, None if run == "alpha 0.02" else "alpha 0.02")
        for run, label in ON_COUNTS.items()
    ),
]


class WithoutDoseEffects(pl.Callback):
    """Estimates dynamics by empirical Bayes, but lets doses have no effect beyond their records.

    It is a callback so that the run's own config.yaml says what was done.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer.datamodule.estimate_dynamics = partial(without_dose_effects, trainer.datamodule)


def without_dose_effects(data: OfflineDataModule) -> Dynamics:
    mdp = data.require_mdp("the ablation")
    return empirical_bayes_dynamics(
        data.counts, admissible=mdp.admissible, state_vectors=mdp.state_vectors
    )


def options_of(run: str) -> tuple[str, list[str]]:
    """Config, and the words of the command line by which a run differs from it."""
    if run in CHANGED:
        return "cql", [*steps(600).split(), *CHANGED[run].split()]
    last = "alpha 0.003" if run in BRANCHED else run
    words = [ADDED[name] for name in list(ADDED)[: list(ADDED).index(last) + 1]]
    return "essay/cql", " ".join([*words, BRANCHED.get(run, "")]).split()


def measure(seeds: int, essay_seeds: int, runs: Path) -> pd.DataFrame:
    """Exact survival: a row for each data set, a column for each run; NaN where not asked for."""
    names = list(dict.fromkeys(row.run for row in ROWS))
    table = pd.DataFrame(index=pd.RangeIndex(seeds, name="data_seed"), columns=names, dtype=float)
    cells = [
        (name, seed)
        for seed in range(seeds)
        for name in names
        if seed < essay_seeds or not name.startswith("essay")
    ]
    with progress_bar() as progress:
        for name, seed in progress.track(cells, description="Learning from records"):
            if name in NETWORKS:
                folder = learned(name, EPISODES, seed, runs)
            else:
                config, words = options_of(name)
                data = [f"--data.episodes={EPISODES}", f"--data.seed={seed}"]
                folder = trained(f"ablation-{name}-{seed}", config, *data, *words, runs=runs)
            (table.loc[seed, name],) = survival_of(folder)
    return table


def compare(table: pd.DataFrame) -> list[tuple[Row, pd.Series, Difference | None]]:
    """Each row with its survival by data set and the paired difference."""
    compared = []
    for row in ROWS:
        change = None
        if row.reference is not None:
            both = table[[row.run, row.reference]].dropna()
            change = paired(both[row.run], both[row.reference])
        compared.append((row, table[row.run].dropna(), change))
    return compared


def as_tables(table: pd.DataFrame) -> str:
    """The tables in Markdown, in percent and points."""
    lines = []
    for part, against in PARTS.items():
        lines += [
            "",
            f"| {part} | exact survival, % (sets) | {against}, points (95 %) |",
            "|---|---|---|",
        ]
        for row, survival, change in compare(table):
            if row.part == part:
                mean = f"{100 * survival.mean():.2f} ± {100 * survival.sem():.2f} ({len(survival)})"
                told = "" if change is None else str(change).removesuffix(" points")
                lines.append(f"| {row.label} | {mean} | {told} |")
    return "\n".join(lines) + "\n"


def draw(table: pd.DataFrame, clinician: float) -> plt.Figure:
    """A line for each change: the paired difference with its interval, and survival beside."""
    figure = new_figure(9.6, 10)
    heights = [sum(row.part == part for row in ROWS) + 0.5 for part in PARTS]
    panels = figure.subplots(
        len(PARTS), 2, sharex="col", sharey="row", height_ratios=heights, width_ratios=(1.6, 1)
    )
    for (left, right), (part, against) in zip(panels, PARTS.items(), strict=True):
        own = [compared for compared in compare(table) if compared[0].part == part]
        left.axvline(0, color="0.35", linewidth=0.9)
        right.axvline(100 * clinician, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
        for place, (_, survival, change) in enumerate(own):
            if change is not None:
                draw_change(left, place, change)
            margin = 2 * survival.sem()
            right.errorbar(
                100 * survival.mean(), place, xerr=100 * margin, fmt="o", color=COLORS[4], capsize=3
            )
        left.set_yticks(range(len(own)), [row.label for row, *_ in own])
        left.set_ylim(len(own) - 0.5, -0.5)
        label_axes(left, f"{against}, points of survival (95 %)")
        label_axes(right)
        left.set_title(part, fontsize=10, loc="left")
    label_axes(panels[-1][1], "exact 90-day survival, % (dashed: clinicians)")
    return figure


def draw_change(axes: Axes, place: int, change: Difference) -> None:
    """A point with its interval: green for a gain, red for a loss, gray where neither is sure."""
    color, marker = "0.55", "o"
    if change.low > 0:
        color, marker = COLORS[3], "^"
    elif change.high < 0:
        color, marker = COLORS[5], "v"
    mean, low, high = 100 * np.array(change)
    axes.errorbar(
        mean, place, xerr=[[mean - low], [high - mean]], fmt=marker, color=color, capsize=3
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("docs/ablation"))
    parser.add_argument("--seeds", type=int, default=10, help="data sets, two at least")
    parser.add_argument(
        "--essay-seeds", type=int, default=10, help="of the essay's settings, two at least"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    table = measure(options.seeds, options.essay_seeds, options.runs)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = table.melt(var_name="run", value_name="survival_exact", ignore_index=False)
    rows.to_csv(options.output / "ablation.csv", float_format="%.6f")
    mdp = load_icu_sepsis()
    clinician = evaluate(true_dynamics(mdp), clinician_policy(mdp).probabilities).survival
    draw(table, clinician).savefig(options.output / "ablation.png")
    print(as_tables(table))

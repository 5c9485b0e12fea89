"""What alpha and the temperature of the conservative term make of CQL, on all records and on rows.

    python benchmarks/temperatures.py [--forms all,admissible] [--output docs/temperature]

Networks are trained by `lightning fit` itself, 5,000 episodes and three seeds a cell; survival is
exact, of the last checkpoint, and chose nothing. A run that has ended is read and not trained
again, and rows of the CSV whose runs are gone stay: the row batches take hours. Writes
temperatures.csv and temperatures.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from training import trained

from sepsis_rl.display import progress_bar
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.figures import new_figure
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy
from sepsis_rl.report.experiment import read_experiment
from sepsis_rl.report.figures.temperature import (
    color_bar,
    draw_survival,
    survival_table,
    temperature,
)

SEEDS = (42, 123, 456)
TEMPERATURES = "--model.temperature=[0.003,0.01,0.03,0.1,1.0]"
WITH_TERM = "--model.alpha=[0.005,0.02,0.1,0.5]"
EVERY = "--model.alpha=[0.0,0.005,0.02,0.1,0.5]"
WHOLE = (EVERY, TEMPERATURES, f"--model.seed={list(SEEDS)}", "--trainer.val_check_interval=600")
ROWS = ("--trainer.max_steps=50000",)
FORMS = {
    "rows": "the essay's batches of rows,\n50,000 steps",
    "all": "all records, no mask,\n600 steps",
    "admissible": "all records, admissible actions,\n600 steps",
}
RUNS = {
    "all": {"heat-whole-all": ("sweep", *WHOLE, "--model.actions=all")},
    "admissible": {"heat-whole-admissible": ("sweep", *WHOLE)},
    "rows": {
        "heat-rows-0": ("essay/sweep", "--model.alpha=0.0", f"--model.seed={list(SEEDS)}", *ROWS),
        **{
            f"heat-rows-{seed}": (
                "essay/sweep",
                WITH_TERM,
                TEMPERATURES,
                f"--model.seed={seed}",
                *ROWS,
            )
            for seed in SEEDS
        },
    },
}
"""By form, the configs and options of its runs."""


def measured(form: str, runs: Path, train: bool) -> pd.DataFrame:
    """A row for each member of a form's runs."""
    folders = []
    with progress_bar() as progress:
        for run, words in progress.track(RUNS[form].items(), description=f"Training: {form}"):
            if train:
                folders.append(trained(run, *words, runs=runs))
            folders += [ended.parent for ended in (runs / run).glob("version_*/metrics.json")]
    exhibit = temperature(read_experiment(folders)) if folders else None
    return pd.DataFrame(exhibit.rows if exhibit else []).assign(form=form)


def draw(rows: pd.DataFrame, clinician: float) -> plt.Figure:
    """A heat map for each form that there is, all in the same colors."""
    forms = [form for form in FORMS if (rows["form"] == form).any()]
    tables = [survival_table(rows[rows["form"] == form]) for form in forms]
    low = min(100 * clinician, *(table.min(axis=None) for table in tables))
    high = max(table.max(axis=None) for table in tables)
    figure = new_figure(1.6 + 3.4 * len(forms), 3.4)
    for axes, form, table in zip(
        figure.subplots(1, len(forms), squeeze=False)[0], forms, tables, strict=True
    ):
        image = draw_survival(axes, table, clinician, (low, high))
        seeds = rows.loc[(rows["form"] == form) & (rows["alpha"] > 0), "seed"].nunique()
        axes.set_title(f"{FORMS[form]}, {seeds} seed{'s' * (seeds > 1)}", fontsize=10)
    color_bar(image, clinician)
    return figure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("docs/temperature"))
    parser.add_argument("--forms", default=",".join(RUNS), help="which to train")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    asked = options.forms.split(",")
    table = options.output / "temperatures.csv"
    found = pd.concat([measured(form, options.runs, form in asked) for form in RUNS])
    known = pd.read_csv(table) if table.exists() else found.iloc[:0]
    columns = ["form", "alpha", "temperature", "seed"]
    rows = pd.concat([known, found])[[*columns, "step", "survival"]]
    rows = rows.drop_duplicates(columns, keep="last")
    rows = rows.sort_values(columns, ignore_index=True)
    options.output.mkdir(parents=True, exist_ok=True)
    rows.to_csv(table, index=False, float_format="%.6f")
    mdp = load_icu_sepsis()
    clinician = evaluate(true_dynamics(mdp), clinician_policy(mdp).probabilities).survival
    draw(rows, clinician).savefig(options.output / "temperatures.png")
    for form, own in rows.groupby("form", sort=False):
        print(FORMS[form].replace("\n", " "), survival_table(own).round(2), sep="\n")

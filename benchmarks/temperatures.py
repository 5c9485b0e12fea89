"""What alpha and the temperature of the conservative term make of CQL, on rows and on all records.

    python benchmarks/temperatures.py [--train 'heat-whole-*' ...] [--output docs/temperature]

Networks are trained by `lightning fit` itself, on 5,000 episodes; survival is exact, of the last
checkpoint, and chose nothing. A sweep has 5 alphas x 5 temperatures x 3 seeds. The essay's cell and
one of small alpha and temperature are trained on five more data sets, on all records also the two
that differ from the essay's in one of both. What stands in the CSV is not trained again, and its
run's folder may be gone: the batches of rows take hours. A row that was deleted from it is read
from the run's folder, or trained anew. Writes temperatures.csv and temperatures.png of what there
is, and prints tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from training import ended, survival_of, trained

from sepsis_rl.algorithms.members import Scalars, expand_members
from sepsis_rl.display import progress_bar
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy
from sepsis_rl.report.figures.temperature import draw_temperature_maps, survival_table
from sepsis_rl.report.statistics import paired

ALPHAS = [0.005, 0.02, 0.1, 0.5]
TEMPERATURES = [0.003, 0.01, 0.03, 0.1, 1.0]
SEEDS = [42, 123, 456]
SWEPT_DATA_SEED = 42
ESSAYS_CELL, OTHER_CELL = (0.5, 1.0), (0.02, 0.01)
"""Alpha and temperature of the cells that matter: the essay's, and one of small temperature."""
DATA_SEEDS = range(5)
KEY = ["form", "alpha", "temperature", "seed", "data_seed"]


class Form(NamedTuple):
    """A way to train: its name in the picture, config, options, and number of steps."""

    panel: str
    config: str
    options: Sequence[str]
    steps: int


_WHOLE = ("--trainer.max_steps=600", "--trainer.val_check_interval=600")
FORMS = {
    "rows": Form(
        "batches of 256 rows, all actions", "essay/sweep", ["--trainer.max_steps=50000"], 50_000
    ),
    "all": Form("all records, all actions", "sweep", [*_WHOLE, "--model.actions=all"], 600),
}


class Run(NamedTuple):
    """A run of several members: settings of the model, and which share of their product."""

    name: str
    form: str
    settings: Scalars
    share: str | None = None
    data_seed: int = SWEPT_DATA_SEED

    def options(self) -> list[str]:
        """Words of the command line."""
        own = [f"--model.{name}={value}" for name, value in self.settings.items()]
        own += [f"--model.share={self.share}"] if self.share else []
        return [*FORMS[self.form].options, *own, f"--data.seed={self.data_seed}"]

    def rows(self, survival: Sequence[float] | None = None) -> pd.DataFrame:
        """A row for each member, in their order; without survival if there is none yet."""
        members = expand_members(self.settings, self.share).settings
        frame = pd.DataFrame(members).assign(form=self.form, data_seed=self.data_seed)
        return frame[KEY].assign(survival_exact=np.nan if survival is None else survival)


def plan() -> list[Run]:
    """All runs; each seed of the rows' sweep is one of its own, since it takes hours."""
    every = {"alpha": [0.0, *ALPHAS], "temperature": TEMPERATURES, "seed": SEEDS}
    with_term = {"alpha": ALPHAS, "temperature": TEMPERATURES}
    alphas, temperatures = zip(ESSAYS_CELL, OTHER_CELL, strict=True)
    cells = {"alpha": list(alphas), "temperature": list(temperatures), "seed": 42}
    return [
        Run("heat-whole-all", "all", every),
        # Without the term the temperature says nothing.
        Run("heat-rows-0", "rows", {"alpha": 0.0, "temperature": 1.0, "seed": SEEDS}),
        *(Run(f"heat-rows-{seed}", "rows", {**with_term, "seed": seed}) for seed in SEEDS),
        *(
            # Rows take hours: of the product of four the first and the last alone.
            Run(f"heat-cells-{form}-{seed}", form, cells, "1/3" if form == "rows" else None, seed)
            for form in FORMS
            for seed in DATA_SEEDS
        ),
    ]


def measure(known: pd.DataFrame, wanted: Sequence[str], runs: Path, table: Path) -> pd.DataFrame:
    """Adds rows of runs that have ended, after training those that are wanted.

    Args:
        known: Rows that there are already.
        wanted: Patterns of the names of runs that may be trained.
        runs: Where the folders of runs are.
        table: The CSV, written after each run.
    """
    with progress_bar() as progress:
        for run in progress.track(plan(), description="Training"):
            if set(map(tuple, run.rows()[KEY].values)) <= set(map(tuple, known[KEY].values)):
                continue
            folder = ended(run.name, runs)
            if folder is None and any(fnmatch(run.name, pattern) for pattern in wanted):
                config = FORMS[run.form].config
                folder = trained(run.name, config, *run.options(), runs=runs)
            if folder is not None:
                new = run.rows(survival_of(folder))
                known = pd.concat([known, new]) if len(known) else new
                known = known.drop_duplicates(KEY).sort_values(KEY, ignore_index=True)
                known.round({"survival_exact": 6}).to_csv(table, index=False)
    return known


def for_maps(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweeps' rows, as the heat maps take them, in the order of the forms."""
    swept = rows[rows["data_seed"] == SWEPT_DATA_SEED]
    parts = [
        swept[swept["form"] == form].assign(panel=about.panel, step=about.steps)
        for form, about in FORMS.items()
        # A row of the map alone has no temperatures.
        if ((swept["form"] == form) & (swept["alpha"] > 0)).any()
    ]
    return pd.concat(parts).rename(columns={"survival_exact": "survival"}) if parts else rows[:0]


def differences(rows: pd.DataFrame, clinician: float) -> str:
    """The cells minus the clinicians and the essay's cell, paired over data sets, a line each."""
    lines = []
    for form, about in FORMS.items():
        own = rows[(rows["form"] == form) & rows["data_seed"].isin(DATA_SEEDS)]
        cells = own.set_index(["alpha", "temperature", "data_seed"])["survival_exact"].unstack()
        for cell in cells.index:
            both = cells.reindex([ESSAYS_CELL, cell]).dropna(axis=1).to_numpy()
            essay, values = both[0], both[-1]
            if len(values) < 2:
                continue
            over = paired(values, np.full(len(values), clinician))
            line = f"alpha {cell[0]:g} at T {cell[1]:g}: {100 * values.mean():.2f} %"
            line += f", minus clinicians {over}"
            if cell != ESSAYS_CELL:
                line += f", minus the essay's cell {paired(values, essay)}"
            lines.append(f"{about.panel}, {len(values)} data sets: {line}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--train",
        nargs="*",
        default=["*"],
        metavar="RUN",
        help="runs that may be trained, as heat-rows-42 or 'heat-whole-*'; none: what is there",
    )
    parser.add_argument("--output", type=Path, default=Path("docs/temperature"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "temperatures.csv"
    columns = [*KEY, "survival_exact"]
    known = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=columns)
    rows = measure(known, options.train, options.runs, table)
    mdp = load_icu_sepsis()
    clinician = evaluate(true_dynamics(mdp), clinician_policy(mdp).probabilities).survival
    swept = for_maps(rows)
    print(differences(rows, clinician))
    if swept.empty:
        sys.exit(f"{table} has no map yet, and none has ended under {options.runs}: train some")
    draw_temperature_maps(swept, clinician).savefig(options.output / "temperatures.png")
    for panel, own in swept.groupby("panel", sort=False):
        print(panel, survival_table(own).round(2).to_string(), sep="\n")

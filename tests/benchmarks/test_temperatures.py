"""benchmarks/temperatures.py: what it trains, and what it keeps of runs that are gone."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("temperatures")


@pytest.fixture
def trained(script, monkeypatch):
    """Names of the runs that were trained, which takes no time here."""
    names = []

    def train(name, config, *options, runs):
        names.append(name)
        folder = runs / name / "version_0"
        folder.mkdir(parents=True)
        members = [{"survival_exact": None}, {"survival_exact": 0.5 + len(names) / 100}]
        fit = {"evaluations": [{"step": 0, "members": []}, {"step": 1, "members": members}]}
        (folder / "metrics.json").write_text(json.dumps({"fit": fit}))
        return folder

    monkeypatch.setattr(script, "trained", train)
    return names


def test_the_runs(script):
    runs = script.plan()
    assert len({run.name for run in runs}) == len(runs)
    rows = pd.concat([run.rows() for run in runs])
    assert not rows.duplicated(script.KEY).any()
    swept = rows[rows["data_seed"] == 42].groupby("form").size()
    assert swept.to_dict() == {"all": 75, "rows": 63}
    others = rows[rows["data_seed"] != 42].groupby(["form", "data_seed"])
    assert len(others) == 10
    for (form, _), own in others:
        cells = own[["alpha", "temperature"]].values.tolist()
        # A share of a product of four leaves the two that matter.
        between = [] if form == "rows" else [[0.5, 0.01], [0.02, 1.0]]
        assert cells == [[0.5, 1.0], *between, [0.02, 0.01]]


def test_what_has_been_measured_is_not_trained_again(script, trained, tmp_path):
    runs, table = tmp_path / "runs", tmp_path / "temperatures.csv"
    nothing = pd.DataFrame(columns=[*script.KEY, "survival_exact"])

    def measured(known, *wanted):
        return script.measure(known, wanted, runs, table)

    assert len(measured(nothing)) == 0  # nothing is trained that nobody wants
    measured(nothing, "heat-cells-rows-[01]", "heat-whole")
    assert trained == ["heat-cells-rows-0", "heat-cells-rows-1"]
    known = pd.read_csv(table)
    # The one that diverged is among them, without survival.
    values = known.set_index(["data_seed", "alpha"])["survival_exact"].to_dict()
    np.testing.assert_equal(
        values, {(0, 0.5): np.nan, (0, 0.02): 0.51, (1, 0.5): np.nan, (1, 0.02): 0.52}
    )
    # Rows stay when the folders are gone, and are read where there is one.
    shutil.rmtree(runs / "heat-cells-rows-0")
    assert len(measured(known, "heat-cells-rows-[01]")) == 4
    assert len(measured(known[known["data_seed"] == 0])) == 4
    assert len(trained) == 2
    # A row that was deleted is trained anew, and the others stay what they were.
    rows = measured(known[known["alpha"] == 0.02], "heat-cells-rows-0")
    assert trained[2:] == ["heat-cells-rows-0"]
    assert rows["survival_exact"].dropna().tolist() == [0.51, 0.52]
    assert len(rows) == 4


def test_differences_are_paired_over_data_sets(script):
    cells = [script.ESSAYS_CELL, script.OTHER_CELL]
    rows = pd.DataFrame(
        [
            ("rows", *cell, 42, seed, 0.78 + 0.02 * place + 0.01 * seed)
            for seed in range(5)
            for place, cell in enumerate(cells)
        ],
        columns=[*script.KEY, "survival_exact"],
    )
    other, essay = script.differences(rows, clinician=0.80).splitlines()
    named = "batches of 256 rows, all actions, 5 data sets: "
    assert other.startswith(
        f"{named}alpha 0.02 at T 0.01: 82.00 %, minus clinicians +2.00 (+0.04, "
    )
    assert other.endswith("minus the essay's cell +2.00 (+2.00, +2.00) points")
    assert essay.startswith(f"{named}alpha 0.5 at T 1: 80.00 %, minus clinicians +0.00 (-1.96, ")
    assert script.differences(rows[rows["data_seed"] == 0], 0.8) == ""

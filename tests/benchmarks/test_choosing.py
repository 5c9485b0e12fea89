"""benchmarks/choosing.py: which candidates stand together, and what a choice among them lost."""

import numpy as np
import pandas as pd
import pytest

from sepsis_rl.data import collect
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.ope.supported_value import SupportedValue
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy


@pytest.fixture
def choosing(script):
    return script("choosing")


def test_which_kinds_stand_together(choosing, script):
    kinds = ["random", "most recorded", "empirical-Bayes plan", "SPIBB", "pooled plan"]
    wide = {*kinds, *script("candidates").NETWORKS}
    every = [*wide, "over-fitted plan", "shrunk plan", "essay's rows"]
    expected = {
        "wide": wide,
        "wide, without plans of the same form": wide - {"empirical-Bayes plan"},
        "networks": {"CQL", "CQL, masked"},
        "networks without a mask": {"CQL"},
        "over-fitted plans": {"over-fitted plan"},
        "the same plans, shrunk": {"shrunk plan"},
        "networks on the essay's rows": {"essay's rows"},
    }
    found = {name: set(filter(belongs, every)) for name, belongs in choosing.SETS.items()}
    assert found == expected


@pytest.mark.slow
def test_what_a_choice_lost(choosing, mdp, monkeypatch):
    monkeypatch.setattr(choosing, "HELD_OUT", (100, 300))
    monkeypatch.setattr(choosing, "RESAMPLES", 3)
    data = collect(mdp, clinician_policy(mdp), episodes=400, seed=5)
    candidates = list(choosing.plans(data.counts(716, 25), mdp))
    rows = pd.DataFrame(choosing.judge(candidates, data, 5, mdp), columns=choosing.COLUMNS)
    assert set(rows["candidates"]) == {"wide", "wide, without plans of the same form"}
    survival = np.array(
        [evaluate(true_dynamics(mdp), c.policy.probabilities).survival for c in candidates]
    )
    wide = rows[rows["candidates"] == "wide"].set_index(["held_out", "criterion"])
    for size in (100, 300):
        held_out = collect(mdp, clinician_policy(mdp), episodes=size, seed=1_000_005)
        counts = data.counts(716, 25) + held_out.counts(716, 25)
        values = SupportedValue(counts, mdp).judge([c.policy for c in candidates])
        chosen, row = values.value.argmax(), wide.loc[size, "supported value"]
        assert row["regret"] == pytest.approx(survival.max() - survival[chosen])
        assert row["survival_exact"] == pytest.approx(survival[chosen])
        assert row["value"] == pytest.approx(values.value[chosen])
        assert row["anchored"] == pytest.approx(values.anchored[chosen])
        assert np.isfinite(row["anchored_sd"]) == (size == 100)  # the first alone is resampled
        assert wide.loc[size, "chance"]["regret"] == pytest.approx(survival.max() - survival.mean())
        assert wide.loc[size].loc["FQE", ["value", "anchored"]].isna().all()
    own = wide.loc[100, "the safest of those alike"]["regret"]
    assert np.isclose(survival.max() - survival, own).any()
    assert ("the safest of those alike" in wide.loc[300].index) is False


def test_what_has_been_measured_is_not_measured_again(choosing, monkeypatch, tmp_path):
    asked = []

    def judge(candidates, data, seed, mdp):
        name = candidates[0]
        asked.append((seed, name))
        return [(seed, 1000, name, criterion, 0.01, *[np.nan] * 4) for criterion in ("a", "b")]

    monkeypatch.setattr(choosing, "judge", judge)
    monkeypatch.setattr(choosing, "EPISODES", 5)
    monkeypatch.setattr(choosing, "plans", lambda *_: ["wide"])
    monkeypatch.setattr(choosing, "networks", lambda *_: [])
    monkeypatch.setattr(choosing, "resampled_plans", lambda *_: [])
    monkeypatch.setattr(choosing, "networks_on_rows", lambda *_: [choosing.ON_ROWS])
    table = tmp_path / "choosing.csv"
    first = choosing.FIRST_SEED
    known = choosing.measure(pd.DataFrame(columns=choosing.COLUMNS), 2, 0, tmp_path, table)
    assert asked == [(first, "wide"), (first + 1, "wide")]
    assert len(known) == 4
    known = choosing.measure(pd.read_csv(table), 3, 1, tmp_path, table)
    assert asked[2:] == [(first + 2, "wide"), (first, choosing.ON_ROWS)]
    assert len(known) == len(pd.read_csv(table)) == 8
    assert len(choosing.measure(pd.read_csv(table), 3, 1, tmp_path, table)) == 8
    assert len(asked) == 4


def test_the_table_is_of_chance(choosing):
    lost = {"supported value": [0.001, 0.003], "chance": [0.01, 0.03]}
    rows = pd.DataFrame(
        [
            (seed, 1000, "wide", criterion, points[seed])
            for criterion, points in lost.items()
            for seed in (0, 1)
        ],
        columns=choosing.COLUMNS[:5],
    )
    head, _, own, chance = choosing.as_table(rows, 1000).splitlines()
    assert head == "| points lost | wide |"
    assert own == "| supported value | 0.20 ± 0.10 (10 %) |"
    assert chance == "| chance | 2.00 ± 1.00 |"


def test_how_much_a_figure_flatters(choosing):
    told = [(0.83, 0.82, 0.005, 0.80), (0.81, 0.79, 0.006, 0.80)]
    rows = pd.DataFrame(
        [(seed, 1000, "wide", "supported value", 0.0, *told[seed]) for seed in (0, 1)]
        + [(seed, 1000, "wide", "chance", 0.01, *[np.nan] * 4) for seed in (0, 1)],
        columns=choosing.COLUMNS,
    )
    (*_, line) = choosing.flattery(rows, 1000).splitlines()
    assert line == "| wide | +2.00 ± 1.00 | +0.50 ± 1.50 | 1 of 2 |"

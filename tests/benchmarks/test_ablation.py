"""`make ablation`: the changes are those that the page tells of."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from sepsis_rl import OfflineDataModule

CONFIGS = Path(__file__).parents[2] / "configs"
ELSEWHERE = ("log_every_n_steps", "val_check_interval", "logger", "callbacks")
"""Settings of the trainer that change no weight, and the callback that leaves dose effects out."""


@pytest.fixture
def ablation(script):
    return script("ablation")


@pytest.fixture
def settings(lightning):
    """What a config and words make of model, data and trainer."""

    def read(config, words):
        ran = lightning.main("fit", f"--config={CONFIGS / config}.yaml", *words, "--print_config")
        assert ran.code == 0, ran.err
        read = yaml.safe_load(ran.out)
        trainer = {k: v for k, v in read["trainer"].items() if k not in ELSEWHERE}
        return {"model": read["model"], "data": read["data"], "trainer": trainer}

    return read


def test_the_path_ends_at_the_recommended_settings(ablation, settings):
    last = list(ablation.ADDED)[-1]
    config, words = ablation.options_of(last)
    assert config == "essay/cql"
    assert settings(config, words) == settings("cql", ["--model.actions=all"])


@pytest.mark.slow
def test_a_step_of_the_path_keeps_those_before_it(ablation, settings):
    here = settings(*ablation.options_of("value range"))["model"]["init_args"]
    assert (here["value_range"], here["tau"], here["alpha"]) == ([0, 1], 0.2, 0.5)
    branch = settings(*ablation.options_of("alpha 0.02"))["model"]["init_args"]
    assert (branch.pop("alpha"), here.pop("alpha")) == (0.02, 0.5)
    assert branch == {**here, "temperature": 0.01}
    only = settings(*ablation.options_of("raw counts"))
    assert (only["data"].pop("dynamics"), only["trainer"]["max_steps"]) == ("counts", 600)
    whole = settings("cql", [])
    del whole["data"]["dynamics"]
    assert only == whole


def test_doses_are_left_out_and_nothing_else(ablation, tmp_path):
    options = {"batch_size": "all", "dynamics": "empirical_bayes", "cache_dir": str(tmp_path)}
    data = OfflineDataModule(episodes=2000, held_out_episodes=1, report_episodes=1, **options)
    data.prepare_data()
    data.setup("fit")
    state = int(np.argmax(data.pair_counts.sum(axis=1)))
    never = np.flatnonzero(data.pair_counts[state] == 0)
    assert len(never) > 1
    survival = np.linspace(0, 1, data.n_states)
    whole = data.estimate_dynamics().expected(survival)[state, never]
    ablation.WithoutDoseEffects().setup(SimpleNamespace(datamodule=data), None, "fit")
    alike = data.estimate_dynamics().expected(survival)[state, never]
    np.testing.assert_allclose(alike, alike[0], rtol=1e-12)
    assert np.ptp(whole) > 1e-4


def test_a_change_is_told_against_what_it_changes(ablation):
    names = list(dict.fromkeys(row.run for row in ablation.ROWS))
    table = pd.DataFrame({name: [0.80, 0.81] for name in names})
    table["alpha 0.003"] += [0.01, 0.03]
    told = ablation.as_tables(table).splitlines()
    # Two data sets: 12.71 standard errors of 1 point.
    assert "| α 0.003 | 82.50 ± 1.50 (2) | +2.00 (-10.71, +14.71) |" in told
    assert "| γ 1 | 80.50 ± 0.50 (2) | -2.00 (-14.71, +10.71) |" in told
    assert "| T 0.01 | 80.50 ± 0.50 (2) | +0.00 (+0.00, +0.00) |" in told

"""A hospital's own table: other states, other actions, no simulator that knows the truth."""

import csv
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sepsis_rl.algorithms.base import ACTIONS
from sepsis_rl.dynamics import ESTIMATES
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.finished import read_run

N_STATES, N_ACTIONS = 300, 9
OPTIONS = (
    "--data.path=stays.csv",
    f"--data.n_states={N_STATES}",
    f"--data.n_actions={N_ACTIONS}",
    "--data.columns={episode: stay_id, observation: cluster, action: dose, reward: survived}",
)


def make_stays(episodes=400, seed=0):
    """Walks through 300 states; dose 3 of 9 helps."""
    rng = np.random.default_rng(seed)
    rows = []
    for stay in range(episodes):
        state = rng.integers(N_STATES)
        for step in range(rng.integers(2, 8)):
            dose = rng.integers(N_ACTIONS)
            rows.append({"stay_id": 9000 - stay, "bloc": step, "cluster": state, "dose": dose})
            state = (state + rng.integers(1, 4) + 5 * (dose == 3)) % N_STATES
            rows[-1]["survived"] = 0.0
        rows[-1]["survived"] = float(rng.random() < (0.9 if dose == 3 else 0.6))
    return pd.DataFrame(rows)


@pytest.fixture
def stays(lightning, tmp_path):
    make_stays().to_csv(tmp_path / "stays.csv", index=False)
    return tmp_path / "stays.csv"


@pytest.fixture
def trained(stays, lightning):
    """Runs of two algorithms on it."""
    for config, actions in (("cql", "all, since no environment publishes"), ("bc", "all: 9 of 9")):
        ran = lightning("fit", config, *OPTIONS)
        assert ran.code == 0, ran.err
        assert f"Actions    {actions}" in ran.out
    return ran


def survived(stays, reward):
    """The same stays with all of them ending alike."""
    return np.where(stays["stay_id"].duplicated(keep="last"), 0.0, reward)


ODD = {
    "most pairs and many states never": lambda stays: stays,
    "all die": lambda stays: stays.assign(survived=survived(stays, 0.0)),
    "all survive": lambda stays: stays.assign(survived=survived(stays, 1.0)),
    "one action": lambda stays: stays.assign(dose=4),
    "one state": lambda stays: stays.assign(cluster=7),
    "one stay to learn from": lambda stays: stays[stays["stay_id"] > 9000 - 3],
    "stays of one decision": lambda stays: stays[~stays["stay_id"].duplicated(keep="last")],
}


WAYS = list(itertools.product(ESTIMATES, ACTIONS))


@pytest.mark.parametrize(
    ("odd", "dynamics", "actions"),
    [
        # Each kind meets each way of both; a fifth of all kinds and ways does for every day.
        pytest.param(odd, *way, marks=[pytest.mark.slow] if (kind + sum(at)) % 5 else [])
        for kind, odd in enumerate(ODD)
        for at, way in zip(itertools.product(range(3), range(3)), WAYS, strict=True)
    ],
)
def test_odd_records_give_a_policy(lightning, tmp_path, odd, dynamics, actions):
    stays = ODD[odd](make_stays(60))
    stays.to_csv(tmp_path / "stays.csv", index=False)
    options = (*OPTIONS, f"--model.actions={actions}", f"--data.dynamics={dynamics}")
    ran = lightning("fit", "cql", *options, f"--trainer.max_steps={100 if 'one a' in odd else 10}")
    assert (ran.code, ran.err) == (0, "")
    (policy,) = load_algorithm("runs/cql/version_0/checkpoints/last.ckpt").policies()
    text = Path("runs/cql/version_0/metrics.json").read_text()
    metrics = json.loads(text, parse_constant=pytest.fail)  # no NaN
    figures = metrics["fit"]["off_policy"]["policies"]["CQL"]
    assert 0 <= figures["fqe"] <= 1
    if odd in ("all die", "all survive"):
        assert figures["fqe"] == pytest.approx(stays["survived"].max())
    if odd == "one action":
        visited = stays["cluster"].unique()
        assert (policy.actions[visited] == 4).mean() > 0.5  # not where only held-out stays were


def test_it_trains_and_scores(trained, lightning):
    assert "No environment simulates these patients" in trained.out
    assert "90-day survival" not in trained.out
    assert "Not for clinical use" in trained.out
    for row in ("BC", "random", "most recorded", "recorded"):
        assert any(line.strip().startswith(row) for line in trained.out.splitlines()), row
    metrics = json.loads(Path("runs/cql/version_0/metrics.json").read_text())["fit"]
    assert "policies" not in metrics
    policies = metrics["off_policy"]["policies"]
    assert set(policies) == {"CQL", "random", "most recorded"}
    assert 0 < policies["CQL"]["fqe"] < 1
    (entry, *_) = metrics["evaluations"]
    assert set(entry["members"][0]) == {"value_estimate"}
    ran = lightning("test", "cql", *OPTIONS, "--ckpt_path=last")
    assert ran.code == 0, ran.err
    assert "No environment simulates these patients" in ran.out
    ran = lightning("fit", "cql", *OPTIONS, "--ckpt_path=last", "--trainer.max_steps=12")
    assert ran.code == 0
    # More steps than before; nothing else is said.
    assert re.fullmatch(r"Note: model\.schedule=cosine over .*\n", ran.err)


def test_its_policy_has_its_states_and_actions(trained, lightning):
    assert lightning("predict", "cql", *OPTIONS, "--ckpt_path=last").code == 0
    path = Path("runs/cql/version_0/policy.csv")
    assert "Not for clinical use" in path.with_suffix(".json").read_text()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == N_STATES
    assert list(rows[0]) == ["state", "action", "supported", *(f"q_{a}" for a in range(N_ACTIONS))]
    for row in rows:
        scores = [float(row[f"q_{action}"]) for action in range(N_ACTIONS)]
        assert int(row["action"]) == int(np.argmax(scores))


def test_choosing_needs_no_simulator(trained, lightning):
    runs = ["runs/cql/version_0", "runs/bc/version_0"]
    ran = lightning.main("select", *runs, "--resamples=10")
    assert ran.code == 0, ran.err
    assert "Chosen by" in ran.out
    ran = lightning.main("select", *runs, "--truth")
    assert ran.code == 2
    assert "--truth needs the simulator" in ran.err
    assert lightning.main("report", *runs, "--output=report").code == 0
    assert "No simulator knows the patients of stays.csv" in Path("report/report.md").read_text()


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_outcomes_that_are_all_alike_tell_nothing_apart(lightning, tmp_path, reward):
    stays = make_stays(300)
    stays = stays.assign(survived=survived(stays, reward))
    stays.to_csv(tmp_path / "stays.csv", index=False)
    words = ("--model.seed=[1,2]", "--model.learning_rate=0.05")
    assert lightning("fit", "cql", *OPTIONS, *words).code == 0
    ran = lightning.main("select", "runs/cql/version_0", "--resamples=4")
    assert (ran.code, ran.err) == (0, "")
    assert f"it is worth {100 * reward:.1f} % ({100 * reward:.1f}–{100 * reward:.1f})" in ran.out
    assert "All policies are worth the same on these records; it keeps most to them." in ran.out


def test_what_was_chosen_learns_from_nearly_all_records(stays, lightning):
    """By the line that `select` ends with."""
    words = ("--model.alpha=[0.1,0.0123456]", "--model.seed=[1,2]", "--model.share=2/2")
    assert lightning("fit", "sweep", *OPTIONS, *words).code == 0
    ran = lightning.main("select", "runs/sweep/version_0", "--resamples=4")
    (line,) = re.findall(r"From nearly all records: lightning (fit .*)", ran.out)
    assert lightning.main(*line.split()).code == 0
    module = load_algorithm("runs/sweep/version_1/checkpoints/last.ckpt")
    (settings,) = module.members.settings
    assert settings["alpha"] in (0.1, 0.0123456)
    assert settings["seed"] == 2
    data = read_run("runs/sweep/version_1").data
    assert data.train.n_episodes == 392  # of 400


def test_held_out_stays_that_were_trained_on_are_named(lightning, tmp_path):
    """A table that has each stay twice, under two names."""
    stays = make_stays(200)
    twice = stays.assign(stay_id=stays["stay_id"] + 10_000)
    pd.concat([stays, twice]).to_csv(tmp_path / "stays.csv", index=False)
    words = ("--data.held_out_share=0.1", "--data.report_share=0.1")
    assert lightning("fit", "cql", *OPTIONS, *words).code == 0
    ran = lightning.main("select", "runs/cql/version_0", "--resamples=4")
    assert ran.code == 0
    (known, every) = map(int, re.match(r"Note: (\d+) of the (\d+) held-out", ran.err).groups())
    assert 0.5 * every < known <= every <= 40
    assert "runs/cql/version_0 was trained on" in ran.err


def test_a_checkpoint_of_other_states_is_refused(trained, lightning):
    for command in ("fit", "test"):
        ran = lightning(command, "cql", "--ckpt_path=last")
        assert ran.code == 2
        assert "300 states and 9 actions, and the data have 716 and 25" in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (OPTIONS[:2], "data.n_states=300 and data.n_actions=None cannot be used: give both"),
        ((*OPTIONS, "--data.n_actions=8"), "action lies between 0 and 7"),
        (OPTIONS[1:3], "describe a table: give data.path as well"),
        ((*OPTIONS[:1], *OPTIONS[3:]), "of ICU-Sepsis, since data.n_states and data.n_actions"),
        ((OPTIONS[0], "--data.n_states=299", *OPTIONS[2:]), "observation lies between 0 and 298"),
        (
            (*OPTIONS, "--data.columns.reward=bloc"),
            "reward is 0, or 1 where a stay that was survived is terminated",
        ),
    ],
)
def test_what_cannot_be_used_is_named(stays, lightning, options, message):
    ran = lightning("fit", "cql", *options)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not Path("runs").exists()


def test_a_single_stay_cannot_be_set_aside(stays, lightning):
    pd.read_csv(stays).query("stay_id == 9000").to_csv(stays, index=False)
    ran = lightning("fit", "cql", *OPTIONS)
    assert ran.code == 2
    assert "hold out 0 and 0; each part and the rest need one" in ran.err
    assert "Traceback" not in ran.err

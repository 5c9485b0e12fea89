"""The whole scorecard, and how it goes on after a stop."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import sepsis_rl.scorecard.assembly as scorecard_file
from sepsis_rl.baselines import pooled_policy
from sepsis_rl.data import collect
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.ope import ESTIMATORS, Episodes, OffPolicyOptions, evaluate_off_policy
from sepsis_rl.ope.criteria import criterion_values
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import (
    Policy,
    clinician_mode_policy,
    clinician_policy,
    epsilon_clinician_policy,
    random_policy,
)
from sepsis_rl.scorecard.accuracy import (
    RULES,
    Estimates,
    KnownPolicy,
    summarize_policies,
    summarize_rules,
)
from sepsis_rl.scorecard.assembly import SEEDS_APART, scorecard
from sepsis_rl.scorecard.judging import Judge
from sepsis_rl.scorecard.known_policies import known_policies

OPTIONS = {"episodes": (60, 100), "data_sets": 3, "seed": 0, "resamples": 6, "processes": 1}


def survival(mdp, policy):
    return evaluate(true_dynamics(mdp), policy.probabilities).survival


def known(mdp, policy, *which):
    return KnownPolicy(policy, policy.name, survival(mdp, policy), *which)


@pytest.fixture(scope="module")
def policies(mdp):
    return [
        known(mdp, clinician_mode_policy(mdp)),
        known(mdp, epsilon_clinician_policy(mdp)),
        known(mdp, random_policy(mdp), False),
    ]


@pytest.fixture
def few(monkeypatch, policies):
    """Three policies instead of all."""
    monkeypatch.setattr(scorecard_file, "known_policies", lambda mdp, runs: list(policies))


@pytest.fixture(scope="module")
def finished(policies, tmp_path_factory):
    """A finished scorecard. Not to be written to."""
    output = tmp_path_factory.mktemp("scorecard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorecard_file, "known_policies", lambda mdp, runs: list(policies))
        scorecard([], output, **OPTIONS)
    return output


@pytest.fixture
def copy(finished, few, tmp_path):
    """A copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def estimates_alone(copy):
    """A copy of its data sets without what came of them."""
    for path in (*copy.glob("scorecard*"), copy / "contents.json"):
        path.unlink()
    return copy


@pytest.fixture
def judged(monkeypatch):
    """The data sets that are judged from now on, as (episodes, seed)."""
    judge, found = Judge.__call__, []

    def count(self, episodes, seed):
        found.append((episodes, seed))
        return judge(self, episodes, seed)

    monkeypatch.setattr(Judge, "__call__", count)
    return found


def assert_same(folder, other):
    """Every file of a scorecard, to the byte."""
    for path in other.rglob("*.*"):
        assert (folder / path.relative_to(other)).read_bytes() == path.read_bytes(), path.name


def table(path):
    about = json.loads((path.parent / "contents.json").read_text())
    assert "Not for clinical use" in about["note"]
    assert "exactly Markov" in about["text"]
    assert (about["softened_by"], about["clip"]) == (0.01, None)
    return pd.read_csv(path)


def test_the_tables_are_those_of_the_data_sets(mdp, policies, finished):
    """All over again from the simulator; test_accuracy holds the summaries against numbers."""
    found = [known.policy for known in policies]
    by_rule, by_policy = [], []
    for size in OPTIONS["episodes"]:
        expected = []
        for k in range(3):
            data = collect(mdp, clinician_policy(mdp), episodes=size, seed=10_000_000 + k)
            options = OffPolicyOptions(epsilon=0.01, resamples=6, seed=10_000_000 + k)
            episodes = Episodes(data, 716, 25)
            scores = evaluate_off_policy(found, episodes, options=options)
            _, low, high = zip(*(scores.interval(name) for name in ESTIMATORS), strict=True)
            # Criteria see only what can be chosen.
            two = evaluate_off_policy(found[:2], episodes, options=options)
            criteria = [
                [*criterion_values(two, name), -np.inf] for name in ("wis_lower", "two_stage")
            ]
            exact = [survival(mdp, policy) for policy in scores.policies]
            estimate = [scores.estimates[name] for name in ESTIMATORS]
            rest = (exact, scores.effective_sample_size, scores.unseen_rate)
            made = Estimates(*map(np.array, (estimate, low, high, criteria, *rest)))
            file = np.load(finished / "estimates" / f"{size}-{k}.npz", allow_pickle=False)
            for name, values in made._asdict().items():
                np.testing.assert_allclose(file[name], values, rtol=1e-12)
            expected.append(made)
        together = Estimates(*map(np.stack, zip(*expected, strict=True)))
        by_rule += summarize_rules(size, together, policies)
        by_policy += summarize_policies(size, together, policies)
    for name, rows in (("scorecard", by_rule), ("scorecard-policies", by_policy)):
        pd.testing.assert_frame_equal(
            table(finished / f"{name}.csv"), pd.DataFrame(rows), check_dtype=False, rtol=1e-8
        )


def test_the_page(finished):
    page = (finished / "scorecard.html").read_text()
    assert re.findall(r'id="([^"]*)"', page) == ["scorecard", "scorecard-policies"]
    assert page.count("data:image/png;base64,") == 1
    rows = re.findall(r"<tr><td[^>]*>(\d+)</td><td>([^<]*)</td>", page)
    assert len(rows) == 2 * len(RULES)
    assert set(rows) >= {("60", "FQE"), ("100", "WIS, then FQE")}
    assert page.count("choosing blindly, which costs") == 2
    assert set(re.findall(r'href="([^"#]+)"', page)) <= {path.name for path in finished.iterdir()}
    assert "Not for clinical use" in page


def test_the_picture(finished):
    picture = imread(finished / "scorecard-policies.png")
    assert min(picture.shape[:2]) > 500
    assert 0.01 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.5


def test_the_same_call_judges_nothing_anew_and_tells_and_writes_the_same(
    copy, finished, judged, capsys
):
    (copy / "scorecard-policies.svg").unlink()
    scorecard([], copy, **OPTIONS)
    assert judged == []
    assert_same(copy, finished)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    text = " ".join(printed.split())
    for said in (
        "exactly Markov and nothing is hidden",
        "3 data sets of 60 episodes",
        "3 data sets of 100 episodes",
        "softened by 0.01, no clip",
        "Not for clinical use",
    ):
        assert said in text
    assert text.count("choosing blindly, which costs") == 2
    assert "…" not in text  # nothing cut off


@pytest.mark.slow
def test_the_policies_of_the_runs_are_also_compared_alone(
    mdp, policies, tmp_path, monkeypatch, capsys
):
    *learned, outside = policies
    learned = [dataclasses.replace(one, is_of_a_run=True) for one in learned]
    data = collect(mdp, clinician_policy(mdp), episodes=500, seed=1)
    tabular = pooled_policy(data.counts(mdp.n_states, mdp.n_actions), admissible=mdp.admissible)
    better = known(mdp, tabular)
    rows = {}
    for folder, given in {"all": [better, *learned, outside], "alone": learned}.items():
        monkeypatch.setattr(scorecard_file, "known_policies", lambda mdp, runs, k=given: k)
        scorecard([], tmp_path / folder, **{**OPTIONS, "episodes": (60,)})
        rows[folder] = table(tmp_path / folder / "scorecard.csv")
    among_all = table(tmp_path / "all" / "scorecard-runs.csv")
    assert rows["all"]["chance_regret"][0] != rows["alone"]["chance_regret"][0]
    pd.testing.assert_frame_equal(among_all, rows["alone"].query("rule != 'two_stage'"))
    low, high = sorted(100 * one.survival for one in learned)
    said = f"Among the 2 policies of the runs alone, {low:.1f} to {high:.1f} %: With 60 episodes"
    assert " ".join(capsys.readouterr().out.split()).count(said) == 2


def test_a_stopped_scorecard_goes_on(few, finished, tmp_path, monkeypatch, capsys, judged):
    judge = Judge.__call__

    def stop_at_the_third(self, episodes, seed):
        if len(judged) == 2:
            raise KeyboardInterrupt
        return judge(self, episodes, seed)

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "__call__", stop_at_the_third)
        with pytest.raises(SystemExit) as stopped:
            scorecard([], tmp_path, **OPTIONS)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == (
        f"Stopped: 2 of 6 data sets are kept in {tmp_path / 'estimates'}; the same command goes on "
        "from there.\n"
    )
    assert sorted(os.listdir(tmp_path)) == ["estimates"]
    assert sorted(os.listdir(tmp_path / "estimates")) == ["100-0.npz", "60-0.npz"]
    scorecard([], tmp_path, **OPTIONS)
    assert sorted(judged) == [(n, SEEDS_APART + k) for n in (60, 100) for k in range(3)]
    assert_same(tmp_path, finished)


@pytest.mark.parametrize(
    ("change", "others", "named"),
    [
        ({"resamples": 7}, [], r"resamples \(6, not 7\)"),
        ({"seed": 1}, [], r"seed \(10000000, not 20000000\)"),
        ({}, [KnownPolicy(Policy("other", np.eye(25)[[0] * 716]), "other", 0.5)], "policies"),
    ],
)
def test_data_sets_of_another_configuration_are_refused(
    estimates_alone, policies, monkeypatch, change, others, named
):
    monkeypatch.setattr(scorecard_file, "known_policies", lambda mdp, runs: policies + others)
    with pytest.raises(InputError, match=rf"estimates/.*\.npz .* differs in {named}; accepted"):
        scorecard([], estimates_alone, **{**OPTIONS, **change})


@pytest.mark.parametrize("change", [{"data_sets": 2}, {"episodes": (60,)}, {"resamples": 7}])
def test_tables_of_another_configuration_are_not_overwritten(copy, finished, change):
    with pytest.raises(InputError, match=r"holds contents\.json of another configuration"):
        scorecard([], copy, **{**OPTIONS, **change})
    assert_same(copy, finished)


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "is no folder"), ("scorecard.csv", r"holds scorecard\.csv of another configuration")],
)
def test_what_is_somebody_elses_is_not_overwritten(few, tmp_path, name, said):
    path = tmp_path / "mine" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=said):
        scorecard([], tmp_path / "mine", **OPTIONS)
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == [path.name]


def test_more_data_sets_use_those_that_are_there(estimates_alone, judged):
    scorecard([], estimates_alone, **{**OPTIONS, "data_sets": 4})
    assert sorted(judged) == [(60, SEEDS_APART + 3), (100, SEEDS_APART + 3)]


@pytest.mark.parametrize("damage", ["torn", "foreign", "incomplete"])
def test_a_damaged_data_set_is_named(copy, damage):
    path = copy / "estimates" / "60-1.npz"
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-30])
    if damage == "foreign":
        np.savez(path, other=np.zeros(3))
    if damage == "incomplete":
        np.savez(path, configuration=np.load(path)["configuration"])
    with pytest.raises(InputError, match=r"60-1\.npz cannot be read .*remove it"):
        scorecard([], copy, **OPTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": ()}, "--episodes  cannot be used"),
        ({"episodes": (10, 0)}, "--episodes 10,0 cannot be used; accepted: sizes of at least 1"),
        ({"episodes": (10, 10)}, "--episodes 10,10 cannot be used"),
        ({"data_sets": 1}, "--data_sets 1 is out of range; accepted: 2 to 10,000,000"),
        ({"seed": -1}, "--seed -1 is out of range"),
        ({"resamples": 1}, "--resamples 1 is out of range"),
        ({"processes": 0}, "--processes 0 is out of range"),
    ],
)
def test_options_out_of_range(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        scorecard([], tmp_path, **{**OPTIONS, **change})


@pytest.mark.parametrize("name", ["train", "held_out", "report"])
def test_no_policy_is_judged_on_its_own_episodes(few, monkeypatch, tmp_path, name):
    def data(seed):
        return SimpleNamespace(provenance=SimpleNamespace(seed=seed))

    parts = {"train": data(42), "held_out": data(None), "report": data(43)}
    run = SimpleNamespace(
        folder=Path("runs/a/version_0"),
        data=SimpleNamespace(**{**parts, name: data(10_000_002)}),
    )
    monkeypatch.setattr(scorecard_file, "read_run", lambda folder: run)
    with pytest.raises(
        InputError, match=r"seed 10000002, and the scorecard's are 10000000 to 1000"
    ):
        scorecard(["a"], tmp_path, **OPTIONS)
    scorecard(["a"], tmp_path, **{**OPTIONS, "episodes": (60,), "data_sets": 2})


def test_known_policies(mdp, monkeypatch):
    """Of a run, all members of the first and the last checkpoint."""
    run = SimpleNamespace(folder=Path("runs/cql/version_0"))
    best = np.eye(25)[np.zeros(716, dtype=int)]
    left = [
        SimpleNamespace(
            run=run.folder,
            label="",
            step=step,
            name=f"step {step} alpha={alpha}",
            policy=Policy("any", best),
        )
        for step in (5, 10, 15)
        for alpha in (0, 1)
    ]
    monkeypatch.setattr("sepsis_rl.scorecard.known_policies.candidates", lambda runs: left)
    found = known_policies(mdp, [run])
    names = [p.policy.name for p in found]
    assert names == [
        "clinician's most likely",
        "tabular",
        "tabular, raw counts",
        "30 % tabular, 70 % clinician",
        "70 % tabular, 30 % clinician",
        *(f"cql step {step} alpha={alpha}" for step in (5, 15) for alpha in (0, 1)),
        "random",
        "optimal",
    ]
    assert len(set(names)) == len(names)
    assert [p.policy.name for p in found if not p.is_candidate] == ["random", "optimal"]
    values = dict(zip(names, (p.survival for p in found), strict=True))
    assert values["optimal"] == max(values.values())
    assert values["tabular"] == max(p.survival for p in found if p.is_candidate)
    clinician = survival(mdp, clinician_policy(mdp))
    mixed = [values[f"{share} % tabular, {100 - share} % clinician"] for share in (30, 70)]
    assert clinician < mixed[0] < mixed[1] < values["tabular"]


def test_a_files_configuration_says_what_it_depends_on(finished):
    archive = np.load(finished / "estimates" / "60-1.npz", allow_pickle=False)
    there = json.loads(str(archive["configuration"]))
    assert (there["episodes"], there["seed"], there["resamples"]) == (60, 10_000_001, 6)
    assert (there["epsilon"], there["clip"]) == (0.01, None)
    hashes = {name: content for name, _, _, content in there["policies"]}
    assert len(set(hashes.values())) == 3


@pytest.mark.slow
def test_processes_side_by_side_give_the_same(few, finished, tmp_path):
    before = dict(os.environ)
    scorecard([], tmp_path, **{**OPTIONS, "processes": 2})
    assert dict(os.environ) == before
    assert_same(tmp_path, finished)

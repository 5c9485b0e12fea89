"""The essay's claims: what is found, and what it takes to hold."""

import dataclasses
import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from reading import numbers, read_csv

from sepsis_rl.algorithms import CQL
from sepsis_rl.data import OfflineDataModule
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import optimal_policy
from sepsis_rl.report.claims import FAILS, HOLDS, NOT_EXAMINED, UNDECIDED
from sepsis_rl.report.experiment import Experiment
from sepsis_rl.report.findings import CLAIMS
from sepsis_rl.report.likeness import ESSAY_SETTINGS
from sepsis_rl.report.verdicts import claims, claims_shown
from sepsis_rl.runs.history import Curve

ORDER, LOSS, PEAK, SPREAD, FEW, RARE, COVERAGE, OPTIMUM, DOSES, LIVES, BOUND = range(11)


@pytest.fixture(scope="module")
def experiment(essay):
    """The runs as if each of their 10 steps had been 6,000."""
    longer = [dataclasses.replace(m, steps=6000 * m.steps) for m in essay[0].members]
    return dataclasses.replace(essay[0], members=longer)


@pytest.fixture(scope="module")
def protocol(essay, experiment):
    """That of the runs as they are."""
    rates = dict(zip(experiment.members, essay[1].rates.values(), strict=True))
    return dataclasses.replace(essay[1], rates=rates)


def with_survival(member, value, **changes):
    metrics = {**member.metrics, "survival_exact": np.full(len(member.steps), value)}
    return dataclasses.replace(member, metrics=metrics, **changes)


@pytest.fixture
def rows_with(experiment, protocol):
    """The claims on a grid of other members, which the protocol finds as good as they are."""

    def examine(members, elsewhere=()):
        rates = {member: np.full((3, 3), member.survival) for member in members}
        grid = dataclasses.replace(experiment, members=members, elsewhere=list(elsewhere))
        return claims(grid, dataclasses.replace(protocol, rates=rates)).rows

    return examine


@pytest.fixture
def on_data_sets(experiment, rows_with):
    """The claims on the grid with chosen survival, on as many data sets as there are values."""

    def examine(**survival):
        chosen = {"CQL α=0.5": "CQL"}
        main, elsewhere = [], []
        for member in experiment.members:
            first, *others = survival.get(chosen.get(member.setting, member.setting), [0.5])
            main.append(with_survival(member, first))
            for number, value in enumerate(others):
                data = SimpleNamespace(content_hash=f"other {number}", n_actions=25)
                elsewhere.append(with_survival(member, value, data=data))
        return rows_with(main, elsewhere)

    return examine


@pytest.fixture
def at_alphas(experiment, rows_with):
    """The claims on CQL members with chosen survival for three seeds of each alpha."""

    def examine(survival):
        (model,) = experiment.of("CQL", 0.5)
        return rows_with(
            [
                with_survival(
                    model,
                    value,
                    settings={**model.settings, "alpha": alpha, "seed": seed},
                    algorithm="CQL" if alpha else "DQN",
                )
                for alpha, values in survival.items()
                for seed, value in enumerate(values)
            ]
        )

    return examine


def test_every_claim_stands_in_the_table(experiment, protocol):
    exhibit = claims(experiment, protocol)
    assert len(exhibit.rows) == 11
    for row, shown in zip(exhibit.rows, claims_shown(exhibit.rows), strict=True):
        assert row["claim"] == shown["the essay"]
        assert shown["is it true?"] == f"{row['verdict']}: {row['exact']}"
        assert row["threshold"] == shown["counts as true"] != ""
    # One data set has no interval.
    for index in (ORDER, LIVES):
        assert exhibit.rows[index]["verdict"] == NOT_EXAMINED
    # Steps, interval, data sets needed and there.
    assert numbers(exhibit.text.partition("In the table")[2]) == [60_000, 95, 5, 1]


def test_a_claim_about_more_steps_than_there_were_is_not_examined(essay):
    """The essay trains for 50,000 steps, and its DQN explodes after 60,000."""
    rows = claims(*essay).rows
    for index in range(11):
        if index in (COVERAGE, OPTIMUM, DOSES):
            assert rows[index]["verdict"] in (HOLDS, FAILS)
        else:
            assert rows[index]["verdict"] == NOT_EXAMINED
            assert rows[index]["exact"].startswith("needs ")
            assert rows[index]["protocol"] == ""
    said = "needs DQN trained for 60,000 steps (here 10)"
    assert rows[LOSS]["exact"] == said
    assert "CQL α=0.5 trained for 50,000 steps (here 10)" in rows[FEW]["exact"]


def test_it_says_how_runs_differ_from_the_essays(essay):
    text = claims(*essay).text
    assert "These are not the essay's settings" in text
    assert "embedding_dim 8 (there 256), hidden_dims 16 (there 256–256)" in text
    assert "best of 3 evaluations (in the essay 20)" in text


def test_the_essays_settings_are_the_defaults():
    given = {**inspect.signature(OfflineDataModule).parameters}
    for kind in CQL.__mro__:
        given |= inspect.signature(kind.__init__).parameters
    for name, value in ESSAY_SETTINGS.items():
        default = given[name].default
        assert (tuple(default) if isinstance(default, list) else default) == value, name


def test_criteria_are_those_written_down_before():
    rows = read_csv(Path(__file__).parents[2] / "docs" / "essay" / "0-claims.csv")
    assert [(row["claim"], row["threshold"]) for row in rows] == [known[:2] for known in CLAIMS]


@pytest.mark.parametrize(
    ("survival", "verdict"),
    [
        ({"CQL": [0.861, 0.862], "BC": [0.84, 0.8415], "DQN": [0.82, 0.8205]}, HOLDS),
        ({"CQL": [0.86, 0.87], "BC": [0.84, 0.88], "DQN": [0.82, 0.83]}, UNDECIDED),
        ({"CQL": [0.801, 0.81], "BC": [0.84, 0.85], "DQN": [0.82, 0.83]}, FAILS),
    ],
)
def test_the_order(on_data_sets, survival, verdict):
    row = on_data_sets(**survival)[ORDER]
    assert row["verdict"] == verdict
    gaps = 100 * np.subtract(survival["CQL"], survival["BC"])
    interval = scipy.stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    said = numbers(row["exact"])[1:4]  # after the alpha
    assert said == pytest.approx([gaps.mean(), interval.low, interval.high], abs=0.006)


@pytest.mark.parametrize(
    ("gaps", "verdict"), [([0.079, 0.081], HOLDS), ([0.039, 0.041], FAILS), ([0.0, 0.2], UNDECIDED)]
)
def test_lives(on_data_sets, gaps, verdict):
    """1,600 of 20,000 are 8 points."""
    survival = {"DQN": [0.7, 0.7], "CQL": [0.7 + gap for gap in gaps]}
    row = on_data_sets(**survival)[LIVES]
    assert row["verdict"] == verdict
    points, lives, exact, *_ = numbers(row["exact"])
    assert (points, lives, exact) == (4, 800, round(20_000 * np.mean(gaps)))


def test_what_the_tables_say(experiment, protocol, mdp):
    rows, train = claims(experiment, protocol).rows, experiment.data.train
    value = evaluate(true_dynamics(mdp), optimal_policy(mdp).probabilities).survival
    assert value == pytest.approx(0.8751, abs=5e-5)
    assert (rows[OPTIMUM]["verdict"], numbers(rows[OPTIMUM]["exact"])) == (HOLDS, [87.51])
    # IV-fluid level 4 and vasopressor level 0 to 4.
    assert (rows[DOSES]["verdict"], numbers(rows[DOSES]["exact"])) == (FAILS, [4, 0, 4])
    pairs = set(zip(train.observation.tolist(), train.action.tolist(), strict=True))
    assert rows[COVERAGE]["verdict"] == FAILS
    covered = pytest.approx(100 * len(pairs) / (716 * 25), abs=0.06)
    assert numbers(rows[COVERAGE]["exact"]) == [200, covered, 51.7]


def loss(*values):
    return Curve(np.arange(len(values)), np.array(values))


def q(value):
    return np.full((716, 25), value)


STEADY, LOW = loss(*[0.2] * 12), np.array([True, True, True])


@pytest.mark.parametrize(
    ("claimed", "asked", "cql", "dqn", "verdict", "said"),
    [
        (LOSS, "loss", STEADY, loss(0.1, 0.01, *[200.0] * 10), HOLDS, [200, 200, 0.2, 0.2]),
        (LOSS, "loss", STEADY, loss(0.1, 0.01, *[0.9] * 10), FAILS, [0.9, 0.9, 0.2, 0.2]),
        (LOSS, "loss", STEADY, loss(3.0, *[200.0] * 10), FAILS, [200, 200, 0.2, 0.2]),
        (RARE, "scores", q(-0.2), q(0.5), HOLDS, [-0.2, -0.2, 0.5, 0.5]),
        (RARE, "scores", q(0.2), q(0.5), FAILS, [0.2, 0.2, 0.5, 0.5]),
        (RARE, "scores", q(-0.2), q(1.5), FAILS, [-0.2, -0.2, 1.5, 1.5]),
        # Five members of CQL, evaluated three times each.
        (BOUND, "is_below", LOW, ~LOW, HOLDS, [15, 15]),
        (BOUND, "is_below", np.array([True, False, True]), LOW, FAILS, [10, 15]),
    ],
)
def test_what_is_found_in_networks(
    experiment, protocol, monkeypatch, claimed, asked, cql, dqn, verdict, said
):
    def found(self, member):
        return dqn if member.algorithm == "DQN" else cql

    if asked == "scores":
        for member in experiment.members:
            monkeypatch.setitem(vars(member), "scores", found(experiment, member))
    else:
        monkeypatch.setattr(Experiment, asked, found)
    row = claims(experiment, protocol).rows[claimed]
    assert row["verdict"] == verdict
    assert numbers(row["exact"])[: len(said)] == pytest.approx(said)


@pytest.mark.parametrize(
    ("middle", "last", "verdict"),
    [
        ([0.84, 0.85, 0.86], [0.80, 0.81, 0.82], HOLDS),
        ([0.84, 0.85, 0.86], [0.75, 0.89, 0.84], UNDECIDED),
        ([0.84, 0.85, 0.86], [0.90, 0.91, 0.92], FAILS),
    ],
)
def test_a_peak(at_alphas, middle, last, verdict):
    survival = {0.0: [0.78, 0.79, 0.80], 0.5: middle, 10.0: last}
    row = at_alphas(survival)[PEAK]
    assert row["verdict"] == verdict
    best = 10 if np.mean(last) > np.mean(middle) else 0.5
    assert numbers(row["exact"])[0] == best
    # Where the protocol has its peak, how often, where most often, how often; and blindly.
    assert numbers(row["protocol"]) == [0.5, 100 * (best == 0.5), best, 100, 33]


@pytest.mark.parametrize(
    ("small", "large", "verdict"),
    [
        ([0.70, 0.80, 0.90], [0.80, 0.80, 0.81], HOLDS),
        ([0.79, 0.80, 0.81], [0.79, 0.80, 0.81], UNDECIDED),
    ],
)
def test_the_spread_of_seeds(at_alphas, small, large, verdict):
    survival = {0.0: small, 0.1: small, 2.0: large, 10.0: large}
    row = at_alphas(survival)[SPREAD]
    assert row["verdict"] == verdict
    ratio = np.var(small) / np.var(large)
    deviations = [100 * np.std(values, ddof=1) for values in (small, large)]
    expected = [*deviations, ratio, scipy.stats.f.sf(ratio, 4, 4)]
    assert numbers(row["exact"]) == pytest.approx(expected, abs=0.006)
    assert numbers(row["protocol"])[0] == 100 * (verdict == HOLDS)


def test_few_actions(experiment, protocol, rows_with, mdp):
    (member,) = experiment.of("CQL", 0.5)
    clinician = np.where(mdp.terminal[:, None], 1 / 25, mdp.clinician)
    shares = []
    for policy in (member.policy.probabilities, clinician):
        visits = evaluate(true_dynamics(mdp), policy).visits.sum(axis=0)
        shares.append(100 * np.sort(visits)[-3:].sum() / visits.sum())
    said = numbers(claims(experiment, protocol).rows[FEW]["exact"])[-3:]
    assert said == pytest.approx([shares[0], shares[0], shares[1]], abs=0.51)
    # A policy that takes action 0 in all states, then 10, then 20.
    actions = np.zeros_like(member.actions)
    actions[:, 1::3], actions[:, 2::3] = 10, 20
    other = dataclasses.replace(member, actions=actions)
    row = rows_with([other])[FEW]
    assert row["verdict"] == HOLDS
    assert numbers(row["exact"])[:5] == [0, 10, 20, 1, 1]  # in 1 of 1 runs


def test_runs_that_are_missing_leave_their_claims_open(only, protocol):
    rows = claims(only("BC"), protocol).rows
    for index in (ORDER, LOSS, PEAK, SPREAD, FEW, RARE, LIVES, BOUND):
        assert rows[index]["verdict"] == NOT_EXAMINED
    rows = claims(only("CQL α=0.1", "DQN"), protocol).rows
    for index in (PEAK, FEW, RARE, LIVES):  # which are about alpha 0.5
        assert rows[index]["verdict"] == NOT_EXAMINED
        assert rows[index]["exact"].startswith("needs CQL α=0.5")

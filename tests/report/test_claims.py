"""The essay's claims: what is found, what it takes to hold, and what the page says of it."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import optimal_policy
from sepsis_rl.report import claims as claims_file
from sepsis_rl.report.claims import FAILS, HOLDS, UNDECIDED
from sepsis_rl.report.curves import lower_bound
from sepsis_rl.report.differences import Difference


def claims(experiment, protocol):
    return claims_file.claims(experiment, protocol, lower_bound(experiment))


ORDER, LOSS, PEAK, SPREAD, FEW, RARE, COVERAGE, OPTIMUM, DOSES, LIVES, BOUND = range(11)


def with_survival(member, value):
    metrics = {**member.metrics, "survival_exact": np.full(len(member.steps), value)}
    return dataclasses.replace(member, metrics=metrics)


def as_data(member, name):
    """The same member, as if it had been trained on other episodes."""

    class Other:
        content_hash, n_actions = name, 25

    return dataclasses.replace(member, data=Other())


@pytest.fixture
def on_data_sets(experiment, protocol):
    """The grid with chosen survival on as many data sets as there are values."""

    def make(**survival):
        chosen = {"CQL": "CQL α=0.5", "BC": "BC", "DQN": "DQN"}
        values = {chosen[name]: row for name, row in survival.items()}
        main, elsewhere = [], []
        for member in experiment.members:
            row = values.get(member.setting, [member.survival])
            main.append(with_survival(member, row[0]))
            elsewhere += [
                as_data(with_survival(member, value), f"other {k}")
                for k, value in enumerate(row[1:])
            ]
        renamed = dict(zip(experiment.members, main, strict=True))
        return (
            dataclasses.replace(experiment, members=main, elsewhere=elsewhere),
            dataclasses.replace(
                protocol, rates={renamed[m]: rates for m, rates in protocol.rates.items()}
            ),
        )

    return make


def test_every_claim_stands_in_the_table(experiment, protocol):
    exhibit = claims(experiment, protocol)
    assert len(exhibit.rows) == len(exhibit.shown) == 11
    for row, shown in zip(exhibit.rows, exhibit.shown, strict=True):
        assert row["claim"] == shown["the essay"]
        assert shown["is it true?"] == f"{row['verdict']}: {row['exact']}"
        assert row["threshold"] == shown["counts as true"]
        assert row["threshold"]
    # One data set has no interval.
    for index in (ORDER, LIVES):
        assert exhibit.rows[index]["verdict"] == "not examined"
    assert "Only 1 of the 5 data sets" in exhibit.text


@pytest.mark.parametrize(
    ("survival", "verdict"),
    [
        ({"CQL": [0.861, 0.862], "BC": [0.84, 0.8415], "DQN": [0.82, 0.8205]}, HOLDS),
        ({"CQL": [0.86, 0.87], "BC": [0.84, 0.88], "DQN": [0.82, 0.83]}, UNDECIDED),
        ({"CQL": [0.801, 0.81], "BC": [0.84, 0.85], "DQN": [0.82, 0.83]}, FAILS),
    ],
)
def test_the_order(on_data_sets, mdp, survival, verdict):
    row = claims(*on_data_sets(**survival)).rows[ORDER]
    assert row["verdict"] == verdict
    gaps = np.subtract(survival["CQL"], survival["BC"])
    interval = scipy.stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    said = Difference(gaps.mean(), interval.low, interval.high, 2)
    assert row["exact"].startswith(f"CQL α=0.5 − BC {said};")


@pytest.mark.parametrize(
    ("gaps", "verdict"), [([0.079, 0.081], HOLDS), ([0.039, 0.041], FAILS), ([0.0, 0.2], UNDECIDED)]
)
def test_lives(on_data_sets, gaps, verdict):
    """1,600 of 20,000 are 8 points."""
    survival = {"DQN": [0.7, 0.7], "CQL": [0.7 + gap for gap in gaps]}
    row = claims(*on_data_sets(**survival)).rows[LIVES]
    assert row["verdict"] == verdict
    assert "its own 4 points are 800 lives" in row["exact"]
    assert f"exactly {20_000 * np.mean(gaps):+.0f} (" in row["exact"]


def test_what_the_tables_say(experiment, protocol, mdp):
    rows = claims(experiment, protocol).rows
    value = evaluate(true_dynamics(mdp), optimal_policy(mdp).probabilities).survival
    assert value == pytest.approx(0.8751, abs=5e-5)
    assert (rows[OPTIMUM]["verdict"], rows[OPTIMUM]["exact"]) == (
        HOLDS,
        "87.51 % by value iteration",
    )
    assert rows[DOSES]["verdict"] == FAILS
    assert rows[DOSES]["exact"] == "they have IV-fluid level 4 and vasopressor level 0 to 4"
    train = experiment.data.train
    pairs = set(zip(train.observation.tolist(), train.action.tolist(), strict=True))
    assert rows[COVERAGE]["verdict"] == FAILS
    assert f"200 episodes have {100 * len(pairs) / (716 * 25):.1f} % of" in rows[COVERAGE]["exact"]
    assert "51.7 % is what clinicians might do" in rows[COVERAGE]["exact"]


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([0.1, 0.01, *[200.0] * 10], HOLDS),
        ([0.1, 0.01, *[0.9] * 10], FAILS),
        ([3.0, *[200.0] * 10], FAILS),
    ],
)
def test_an_explosion(experiment, protocol, monkeypatch, losses, verdict):
    monkeypatch.setattr(
        claims_file,
        "read_curve",
        lambda member, tag: (
            (np.arange(len(losses)), np.array(losses))
            if member.algorithm == "DQN"
            else (np.arange(12), np.full(12, 0.2))
        ),
    )
    row = claims(experiment, protocol).rows[LOSS]
    assert row["verdict"] == verdict
    assert row["exact"].startswith(f"its loss ends at {losses[-1]:.3g} to {losses[-1]:.3g}")
    assert "that of CQL at 0.2 to 0.2" in row["exact"]


def at_alphas(experiment, protocol, survival):
    """A grid of CQL members with chosen survival for three seeds of each alpha."""
    (model,) = experiment.of("CQL", 0.5)
    members = []
    for alpha, values in survival.items():
        for seed, value in enumerate(values):
            settings = {**model.settings, "alpha": alpha, "seed": seed}
            algorithm = "CQL" if alpha else "DQN"
            members.append(
                with_survival(
                    dataclasses.replace(model, settings=settings, algorithm=algorithm), value
                )
            )
    rates = {member: np.full((3, 4), member.survival) for member in members}
    return (
        dataclasses.replace(experiment, members=members),
        dataclasses.replace(protocol, rates=rates),
    )


@pytest.mark.parametrize(
    ("middle", "last", "verdict"),
    [
        ([0.84, 0.85, 0.86], [0.80, 0.81, 0.82], HOLDS),
        ([0.84, 0.85, 0.86], [0.75, 0.89, 0.84], UNDECIDED),
        ([0.84, 0.85, 0.86], [0.90, 0.91, 0.92], FAILS),
    ],
)
def test_a_peak(experiment, protocol, middle, last, verdict):
    survival = {0.0: [0.78, 0.79, 0.80], 0.5: middle, 10.0: last}
    row = claims(*at_alphas(experiment, protocol, survival)).rows[PEAK]
    assert row["verdict"] == verdict
    best = 10 if np.mean(last) > np.mean(middle) else 0.5
    assert f"highest mean is at α={best:g}" in row["exact"]
    assert f"puts the peak at 0.5 in {100 * (best == 0.5)} % of the tries" in row["protocol"]
    assert "blindly it would be 33 %" in row["protocol"]


@pytest.mark.parametrize(
    ("small", "large", "verdict"),
    [
        ([0.70, 0.80, 0.90], [0.80, 0.80, 0.81], HOLDS),
        ([0.79, 0.80, 0.81], [0.79, 0.80, 0.81], UNDECIDED),
    ],
)
def test_the_spread_of_seeds(experiment, protocol, small, large, verdict):
    survival = {0.0: small, 0.1: small, 2.0: large, 10.0: large}
    row = claims(*at_alphas(experiment, protocol, survival)).rows[SPREAD]
    assert row["verdict"] == verdict
    ratio = np.var(small) / np.var(large)
    assert f"{100 * np.std(small, ddof=1):.2f} points at small" in row["exact"]
    assert f"F = {ratio:.2f}, p = {scipy.stats.f.sf(ratio, 4, 4):.3f}" in row["exact"]
    assert f"in {100 * (verdict == HOLDS)} % of the tries" in row["protocol"]


def test_few_actions(experiment, protocol, mdp):
    row = claims(experiment, protocol).rows[FEW]
    (member,) = experiment.of("CQL", 0.5)
    visits = evaluate(true_dynamics(mdp), member.tables()[-1]).visits.sum(axis=0)
    first = np.sort(visits)[-3:].sum() / visits.sum()
    assert f"first three make up {100 * first:.0f} to {100 * first:.0f} %" in row["exact"]
    expert = evaluate(
        true_dynamics(mdp), np.where(mdp.terminal[:, None], 1 / 25, mdp.clinician)
    ).visits.sum(0)
    assert (
        f"the clinicians' {100 * np.sort(expert)[-3:].sum() / expert.sum():.0f} %" in row["exact"]
    )
    # A policy that takes action 0 in all states, then 10, then 20.
    actions = np.zeros_like(member.actions)
    actions[:, 1::3], actions[:, 2::3] = 10, 20
    other = dataclasses.replace(member, actions=actions)
    alone = dataclasses.replace(experiment, members=[other])
    row = claims(alone, dataclasses.replace(protocol, rates={})).rows[FEW]
    assert row["verdict"] == HOLDS
    assert "0, 10 and 20 come first in 1 of 1 runs" in row["exact"]


@pytest.mark.parametrize(
    ("cql", "dqn", "verdict"),
    [
        (-0.2, 0.5, HOLDS),
        (0.2, 0.5, FAILS),
        (-0.2, 1.5, FAILS),
    ],
)
def test_rare_actions(experiment, protocol, monkeypatch, cql, dqn, verdict):
    monkeypatch.setattr(
        type(experiment.members[0]),
        "scores",
        lambda member: np.full((716, 25), cql if member.algorithm == "CQL" else dqn),
    )
    row = claims(experiment, protocol).rows[RARE]
    assert row["verdict"] == verdict
    assert f"CQL's mean over them is {cql:.2f} to {cql:.2f}" in row["exact"]


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_a_lower_bound(experiment, protocol, shift):
    members = [
        dataclasses.replace(
            member,
            metrics={
                **member.metrics,
                "value_estimate": np.full(len(member.steps), shift),
            },
        )
        for member in experiment.of("CQL")
    ]
    rates = {
        new: protocol.rates[old] for new, old in zip(members, experiment.of("CQL"), strict=True)
    }
    row = claims(
        dataclasses.replace(experiment, members=members),
        dataclasses.replace(protocol, rates=rates),
    ).rows[BOUND]
    evaluations = sum(len(member.steps) for member in members)
    assert row["verdict"] == (HOLDS if shift < 0 else FAILS)
    assert row["exact"] == (
        f"it lies below at {evaluations if shift < 0 else 0} of {evaluations} evaluations"
    )


def test_runs_that_are_missing_leave_their_claims_open(experiment, protocol):
    alone = dataclasses.replace(experiment, members=experiment.of("BC"))
    rows = claims(alone, protocol).rows
    for index in (ORDER, LOSS, PEAK, SPREAD, FEW, RARE, LIVES, BOUND):
        assert rows[index]["verdict"] == "not examined"

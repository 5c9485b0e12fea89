"""The essay's protocol, simulated."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_mode_policy, optimal_policy, random_policy
from sepsis_rl.report.protocol import (
    REPORTED,
    carry_out,
    evaluation_rates,
    share_in_order,
)


@pytest.fixture(scope="module")
def policies(mdp):
    return [optimal_policy(mdp), clinician_mode_policy(mdp)]


def test_a_rate_is_that_of_a_hundred_patients(mdp, policies, monkeypatch):
    whole = evaluation_rates(mdp, policies, seed=4, tries=3)
    assert whole.shape == (2, 3)
    assert np.array_equal(np.round(100 * whole), 100 * whole)
    monkeypatch.setattr("sepsis_rl.report.protocol._AT_ONCE", 250)  # a try at a time
    assert np.array_equal(evaluation_rates(mdp, policies, seed=4, tries=3), whole)
    assert not np.array_equal(evaluation_rates(mdp, policies, seed=5, tries=3), whole)


def test_rates_average_to_the_truth(mdp, policies):
    """Within four standard errors of 20,000 patients, also where actions are sampled anew."""
    given = [*policies, random_policy(mdp), random_policy(mdp)]
    rates = evaluation_rates(mdp, given, seed=1, tries=200).mean(axis=1)
    for rate, policy in zip(rates, given, strict=True):
        exact = evaluate(true_dynamics(mdp), policy.probabilities).survival
        assert abs(rate - exact) < 4 * (exact * (1 - exact) / 20_000) ** 0.5


def test_evaluations_share_their_patients(mdp, policies):
    """So do algorithms of one seed: a policy given twice does equally well, if it samples nothing.

    One that acts at random does not, but on the same patients it has the same luck.
    """
    twice = evaluation_rates(mdp, policies[:1] * 2, seed=1, tries=5)
    assert np.array_equal(twice[0], twice[1])
    one, other = evaluation_rates(mdp, [random_policy(mdp)] * 2, seed=1, tries=150)
    assert not np.array_equal(one, other)
    assert 0.2 < np.corrcoef(one, other)[0, 1] < 0.8


def test_three_choices_of_a_checkpoint(experiment, protocol):
    for member in experiment.members:
        rates = protocol.rates[member]
        assert rates.shape == (3, 3)  # evaluations, tries
        on_record = evaluation_rates(experiment.mdp, member.policies(), seed=member.seed, tries=1)
        assert np.array_equal(rates[:, :1], on_record)
        exact = [experiment.exact(policy).survival for policy in member.policies()]
        best = int(np.argmax(on_record[:, 0]))
        chosen = {"last": 2, "protocol": best, "exact": int(np.argmax(exact))}
        assert protocol.choices(member) == chosen
        assert protocol.on_record(member) == on_record.max()
        assert member.metrics["survival_exact"] == pytest.approx(exact, abs=1e-9)


def test_a_random_policy_has_as_many_evaluations_and_the_seeds_of_the_runs(experiment, protocol):
    assert (protocol.evaluations, protocol.seeds) == (3, [42])
    assert protocol.best_of == "best of 3 evaluations (in the essay 20)"
    random = evaluation_rates(
        experiment.mdp, [experiment.references["random"]] * 12, seed=42, tries=3
    )
    expected = random.reshape(1, 4, 3, 3).max(axis=2)
    assert np.array_equal(protocol.random, expected)


def test_what_the_essay_would_report_of_a_setting(experiment, protocol):
    members = experiment.of("CQL", 1.0)
    expected = [np.mean([max(protocol.rates[m][:, k]) for m in members]) for k in range(3)]
    assert protocol.reported(members).tolist() == pytest.approx(expected)


@pytest.mark.slow
def test_the_best_of_noise(mdp, experiment):
    """On other patients each time it is the largest of 20 binomial counts."""
    (member,) = experiment.of("BC")
    steps, actions = np.arange(1, 21), np.repeat(member.actions[:1], 20, axis=0)
    members = [
        dataclasses.replace(
            member, steps=steps, actions=actions, settings={**member.settings, "seed": seed}
        )
        for seed in (42, 123, 456)
    ]
    found = carry_out(dataclasses.replace(experiment, members=members), tries=60)
    assert found.best_of == "best of 20 evaluations"
    assert found.random.shape == (3, len(REPORTED), 60)
    assert found.random_on_others.shape == (3, 60)
    exact = evaluate(true_dynamics(mdp), random_policy(mdp).probabilities).survival
    counts = np.arange(101)
    largest = scipy.stats.binom.cdf(counts, 100, exact) ** 20
    expected = (counts * np.diff(largest, prepend=0)).sum() / 100
    assert expected == pytest.approx(0.857, abs=0.003)
    rates = found.random_on_others.ravel()
    assert abs(rates.mean() - expected) < 4 * rates.std() / len(rates) ** 0.5
    # On the same patients the tries have their luck in common, and the best of them is less good.
    same = found.random.mean()
    assert exact + 0.03 < same < expected - 0.01


def test_how_often_figures_fall():
    rows = [np.array([3, 3, 1, 2]), np.array([2, 3, 2, 1]), np.array([1, 1, 3, 0])]
    assert share_in_order(rows) == 0.5
    orders = np.array(list(itertools.permutations(range(4)))).T
    assert share_in_order(list(orders)) == 1 / 24

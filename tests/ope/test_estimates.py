"""All estimates of several policies at once: their parts, their intervals, their limits."""

import math

import numpy as np
import pytest

from sepsis_rl.data.collection import collect
from sepsis_rl.errors import InputError
from sepsis_rl.ope import ESTIMATORS, Episodes, OffPolicyOptions, evaluate_off_policy
from sepsis_rl.ope.doubly_robust import cross_fit, doubly_robust, weighted_doubly_robust
from sepsis_rl.ope.fitted_q import FittedQEvaluation, count_episodes
from sepsis_rl.ope.importance import (
    importance_sampling,
    importance_weights,
    per_decision_importance_sampling,
    weighted_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from sepsis_rl.policies import Policy

FITTED = ("fqe", "fqe_zero")
BOUNDED = tuple(name for name in ESTIMATORS if name != "fqe_zero")  # those with an interval

OF_WEIGHTS = ("ess", "ess_share", "largest_weight")


@pytest.fixture
def policies(random_tables) -> list[Policy]:
    return [Policy(f"policy {i}", table) for i, table in enumerate(random_tables(41, 3, 4, 4))]


@pytest.fixture
def episodes(make_random_records) -> Episodes:
    """In which the last of the actions never occurs."""
    return Episodes(make_random_records(42), 4, 4, gamma=0.9)


@pytest.fixture
def chain_episodes(chain_mdp) -> Episodes:
    behavior = Policy("behavior", np.array([[0.5, 0.5], [0.6, 0.4], *[[0.5, 0.5]] * 3]))
    return Episodes(collect(chain_mdp, behavior, episodes=200, seed=0), 5, 2)


def judge(policies, episodes, *, epsilon=0.01, clip=None, resamples=200, seed=0, **others):
    options = OffPolicyOptions(epsilon, clip, resamples, seed)
    return evaluate_off_policy(policies, episodes, options=options, **others)


def width(interval) -> np.ndarray:
    return (interval.high - interval.low).numpy()


@pytest.mark.parametrize("clip", [None, 0.7])
def test_each_estimate_and_replicate_is_its_estimator_on_the_counts(
    episodes, policies, clip, monkeypatch
) -> None:
    """However many resamples are drawn at once."""
    with monkeypatch.context() as few:
        few.setattr("sepsis_rl.ope.episodes._ELEMENTS_PER_BLOCK", 4 * 40)
        scores = judge(policies, episodes, clip=clip, resamples=30, seed=3)
    tables = np.stack([policy.probabilities for policy in policies])
    weights = importance_weights(tables, episodes, clip)
    counted = count_episodes(episodes)
    fit = cross_fit(tables, counted, episodes)

    def fitted(unseen):
        def values(counts):
            model = FittedQEvaluation(counted.sample(counts), gamma=episodes.gamma, unseen=unseen)
            return np.stack([model.fit(table).value for table in tables], axis=1)

        return values

    expected = {
        "fqe": fitted("pooled"),
        "fqe_zero": fitted("zero"),
        "is": lambda counts: importance_sampling(weights, episodes, counts),
        "wis": lambda counts: weighted_importance_sampling(weights, episodes, counts),
        "pdis": lambda counts: per_decision_importance_sampling(weights, episodes, counts),
        "wpdis": lambda counts: weighted_per_decision_importance_sampling(
            weights, episodes, counts
        ),
        "dr": lambda counts: doubly_robust(weights, fit, episodes, counts),
        "wdr": lambda counts: weighted_doubly_robust(weights, fit, episodes, counts),
    }
    assert set(scores.estimates) == set(scores.replicates) == set(ESTIMATORS) == set(expected)
    once = np.ones((1, len(episodes)))
    counts = np.concatenate(list(episodes.resamples(30, seed=3)))
    for name, estimate in expected.items():
        np.testing.assert_allclose(scores.estimates[name], estimate(once)[0], rtol=1e-12)
        if name not in BOUNDED:
            assert np.isnan(scores.replicates[name]).all()
            assert scores.interval(name).low.isnan().all()
            continue
        tolerance = 1e-6 if name in FITTED else 1e-11
        np.testing.assert_allclose(scores.replicates[name], estimate(counts), rtol=tolerance)
        point, low, high = scores.interval(name)
        np.testing.assert_array_equal(point, scores.estimates[name])
        ends = [np.sort(scores.replicates[name], axis=0)[[0, -1]]]
        assert (ends[0][0] < low.numpy()).all()
        assert (high.numpy() < ends[0][1]).all()
        # Of 30 sorted values, 2.5 % lies 0.725 of the way from the first to the second.
        first, second = np.sort(scores.replicates[name], axis=0)[:2]
        np.testing.assert_allclose(low, first + 0.725 * (second - first), rtol=1e-12)
    assert len({round(float(scores.estimates[name][0]), 9) for name in ESTIMATORS}) == 8
    assert scores.recorded == pytest.approx(episodes.returns.mean())
    np.testing.assert_allclose(
        scores.recorded_replicates, counts @ episodes.returns / 40, rtol=1e-13
    )
    np.testing.assert_array_equal(scores.effective_sample_size, weights.effective_sample_size)
    np.testing.assert_array_equal(scores.largest_share, weights.largest_share)
    assert (scores.clip, scores.episodes) == (clip, 40)


def test_only_deterministic_policies_are_softened(chain_episodes) -> None:
    table = np.array([[1.0, 0.0]] * 5)
    nearly = np.where(table > 0, 0.999, 0.001)
    mixed = table.copy()
    mixed[1] = [0.5, 0.5]
    policies = [Policy(str(i), each) for i, each in enumerate((table, nearly, mixed))]
    scores = judge(policies, chain_episodes, epsilon=0.1, resamples=0)
    np.testing.assert_array_equal(scores.epsilon, [0.1, 0, 0])
    np.testing.assert_allclose(
        scores.policies[0].probabilities,
        0.9 * table + 0.1 * chain_episodes.behavior.probabilities,
        rtol=1e-14,
    )
    assert scores.policies[1:] == tuple(policies[1:])
    again = judge([scores.policies[0]], chain_episodes, resamples=0)
    for name in ESTIMATORS:
        assert again.estimates[name][0] == pytest.approx(scores.estimates[name][0], rel=1e-12)
    hard = judge(policies, chain_episodes, epsilon=0.0, resamples=0)
    np.testing.assert_array_equal(hard.epsilon, [0, 0, 0])
    np.testing.assert_array_equal(hard.policies[0].probabilities, table)


def test_without_resamples(episodes, policies) -> None:
    scores = judge(policies, episodes, resamples=0)
    for name in ESTIMATORS:
        for interval in (scores.interval(name), scores.minus_recorded(name)):
            assert interval.estimate.isfinite().all()
            assert interval.low.isnan().all()
            assert interval.high.isnan().all()
            assert interval.low.shape == (3,)
    estimate, low, high = scores.recorded_interval()
    assert estimate.tolist() == [scores.recorded]
    assert low.isnan().all()
    assert high.isnan().all()
    assert set(scores.metrics()) == {*ESTIMATORS, *OF_WEIGHTS, "unseen_rate"}


def test_without_refitting(episodes, policies) -> None:
    scores = judge(policies, episodes, resamples=20, refit=False)
    full = judge(policies, episodes, resamples=20)
    for name in ESTIMATORS:
        np.testing.assert_array_equal(scores.estimates[name], full.estimates[name])
        if name in FITTED:
            assert scores.interval(name).low.isnan().all()
            assert f"{name}_low" not in scores.metrics()
        else:
            np.testing.assert_array_equal(scores.replicates[name], full.replicates[name])
            assert f"{name}_low" in scores.metrics()
    assert set(full.metrics()) == {
        *ESTIMATORS,
        *(f"{name}{part}" for name in BOUNDED for part in ("_low", "_high")),
        *OF_WEIGHTS,
        "unseen_rate",
    }


def test_differences_are_paired(chain_episodes) -> None:
    policy = Policy("policy", np.array([[0.4, 0.6], [0.75, 0.25], *[[0.5, 0.5]] * 3]))
    scores = judge([policy], chain_episodes, resamples=300)
    for name in BOUNDED:
        difference = scores.minus_recorded(name)
        np.testing.assert_allclose(
            difference.estimate, scores.estimates[name] - scores.recorded, atol=1e-15
        )
        unpaired = math.hypot(*width(scores.interval(name)), *width(scores.recorded_interval()))
        assert 0 < width(difference)[0] < 0.5 * unpaired


def test_the_estimated_behavior_minus_the_records_is_nothing(chain_episodes) -> None:
    scores = judge([chain_episodes.behavior], chain_episodes, resamples=50)
    for name in ("is", "wis", "pdis", "wpdis"):
        assert scores.estimates[name][0] == scores.recorded
        for part in scores.minus_recorded(name):
            assert float(part[0]) == pytest.approx(0, abs=1e-12)
    for name in FITTED:
        assert scores.estimates[name][0] == pytest.approx(scores.recorded, abs=1e-9)
    assert scores.unseen_rate[0] == 0
    assert scores.effective_sample_size[0] == 200


def test_progress_is_told_of_every_resample_of_every_policy(
    episodes, policies, monkeypatch
) -> None:
    monkeypatch.setattr("sepsis_rl.ope.episodes._ELEMENTS_PER_BLOCK", 4 * 40)
    for refit in (True, False):
        told: list[int] = []
        judge(policies, episodes, resamples=10, refit=refit, advance=told.append)
        assert sum(told) == 3 * 10
        assert len(told) > 1
        assert max(told) <= 3 * 4


def test_a_policy_that_no_episode_follows(make_records) -> None:
    # Every decision was 0 and is known to be a coin's; this policy's is always 1.
    transitions = make_records([[(0, 0, 1.0, 1), (1, 0, 1.0, 3)], [(0, 0, 1.0, 3)]])
    coin = Policy("coin", np.full((4, 2), 0.5))
    episodes = Episodes(transitions, 4, 2, behavior=coin)
    never = Policy("never", np.array([[0.0, 1.0]] * 4))
    scores = judge([never, coin], episodes, epsilon=0.0, resamples=20)
    assert scores.effective_sample_size[0] == 0
    assert scores.largest_share[0] == 0
    for name in ("is", "pdis"):
        assert scores.estimates[name][0] == 0
    for name in ("wis", "wpdis", "wdr"):
        assert np.isnan(scores.estimates[name][0])
        assert scores.interval(name).low[0].isnan()
        assert np.isfinite(scores.estimates[name][1])
        assert scores.interval(name).low[1].isfinite()
    assert scores.estimates["fqe"][0] == pytest.approx(1.5)
    assert scores.estimates["fqe_zero"][0] == 0
    np.testing.assert_allclose(scores.unseen_rate, [1, 0.5], atol=1e-12)


def test_an_interval_is_unknown_where_some_resample_has_no_weight(make_records) -> None:
    transitions = make_records([[(0, 1, 1.0, 3)], *[[(0, 0, 0.0, 3)]] * 5])
    episodes = Episodes(transitions, 4, 2, behavior=Policy("coin", np.full((4, 2), 0.5)))
    rare = Policy("rare", np.array([[0.0, 1.0]] * 4))
    scores = judge([rare], episodes, epsilon=0.0, resamples=50)
    assert scores.estimates["wis"][0] == 1
    assert scores.interval("wis").low.isnan().all()
    assert scores.interval("is").low.isfinite().all()


def test_the_unseen_rate_is_that_of_the_pooled_world(make_records) -> None:
    # Half of the decisions in state 0 are unseen, none in state 1. That is visited with 1/4 where
    # unseen decisions lead nowhere, and with 1/4 + 1/2 * 1/2 where half of them lead there too.
    transitions = make_records([[(0, 0, 1.0, 3)], [(0, 1, 0.0, 1), (1, 0, 3.0, 3)]])
    episodes = Episodes(transitions, 4, 3)
    policy = Policy("p", np.array([[0.25, 0.25, 0.5], [1, 0, 0], [1, 0, 0], [1, 0, 0]]))
    for estimators, rate in (
        (("fqe",), 0.5 / 1.5),
        (("fqe_zero",), 0.5 / 1.25),
        (("fqe", "fqe_zero"), 0.5 / 1.5),
        (("fqe_zero", "fqe"), 0.5 / 1.5),
        (("wis",), np.nan),
    ):
        scores = judge([policy], episodes, estimators=estimators, resamples=0)
        assert scores.unseen_rate[0] == pytest.approx(rate, nan_ok=True)
        assert tuple(scores.estimates) == estimators


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimators": ["fqe", "mean"]}, "estimator 'mean' is unknown; accepted: fqe, fqe_zero,"),
        ({"policies": []}, "no policies"),
        (
            {"policies": [Policy("wide", np.full((4, 5), 0.2))]},
            r"policy 'wide' has shape \(4, 5\); accepted: \(4, 4\)",
        ),
    ],
)
def test_bad_arguments(episodes, options, message) -> None:
    policy = Policy("greedy", np.eye(4)[[0, 1, 2, 0]])
    with pytest.raises(InputError, match=message):
        evaluate_off_policy(**{"policies": [policy], "episodes": episodes, **options})


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        *(("epsilon", value, "a number from 0 to 1") for value in (-0.1, 1.5, math.nan)),
        *(("clip", value, "a number above 0, or null") for value in (0.0, -1.0, math.nan)),
        ("resamples", -1, "an integer from 0 upward"),
        ("seed", -1, "an integer from 0 upward"),
        *(("penalty", value, "a number from 0 upward") for value in (-0.1, math.inf, math.nan)),
    ],
)
def test_options_out_of_range(name, value, accepted) -> None:
    with pytest.raises(InputError, match=f"{name}={value} cannot be used: give {accepted}"):
        OffPolicyOptions(**{name: value})

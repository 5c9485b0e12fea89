"""Importance sampling against the papers' formulas, one episode after the other."""

import warnings

import numpy as np
import pytest

from sepsis_rl.ope import Episodes
from sepsis_rl.ope.importance import (
    importance_sampling,
    importance_weights,
    per_decision_importance_sampling,
    weighted_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from sepsis_rl.policies import Policy

ESTIMATES = {
    "is": importance_sampling,
    "wis": weighted_importance_sampling,
    "pdis": per_decision_importance_sampling,
    "wpdis": weighted_per_decision_importance_sampling,
}


def naive_estimates(transitions, split, table, behavior, gamma, clip):
    """All four, as Precup et al. (2000) and Thomas (2015) write them, with loops."""
    limit = np.inf if clip is None else clip
    weight, reward = [], []
    for rows in split:
        product, weights = 1.0, []
        for state, action in zip(
            transitions.observation[rows], transitions.action[rows], strict=True
        ):
            product *= table[state, action] / behavior[state, action]
            weights.append(min(product, limit))
        weight.append(weights)
        reward.append([float(r) for r in transitions.reward[rows]])
    n = len(weight)
    returns = [sum(gamma**t * r for t, r in enumerate(rewards)) for rewards in reward]
    last = [weights[-1] for weights in weight]
    weighted = sum(w * g for w, g in zip(last, returns, strict=True))
    per_decision = sum(
        gamma**t * w * r
        for weights, rewards in zip(weight, reward, strict=True)
        for t, (w, r) in enumerate(zip(weights, rewards, strict=True))
    )
    by_step = 0.0
    for t in range(max(len(weights) for weights in weight)):
        # An episode that is over stays where it is, without reward.
        at_step = [weights[min(t, len(weights) - 1)] for weights in weight]
        rewards = [rewards[t] if t < len(rewards) else 0.0 for rewards in reward]
        by_step += gamma**t * np.dot(at_step, rewards) / sum(at_step)
    return {
        "is": weighted / n,
        "wis": weighted / sum(last),
        "pdis": per_decision / n,
        "wpdis": by_step,
    }, last


@pytest.mark.parametrize("clip", [None, 1.2, 0.3])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("options", [{}, {"length": 4}, {"truncate": True}, {"n_episodes": 1}])
@pytest.mark.parametrize("known", [False, True])
def test_estimates_one_episode_after_the_other(
    make_random_records, split_rows, random_tables, clip, gamma, options, known
) -> None:
    """Each episode once, and as often as its count says."""
    transitions = make_random_records(1, **options)
    tables = random_tables(2)
    behavior = Policy("known", random_tables(3, 1)[0]) if known else None
    episodes = Episodes(transitions, 4, 3, gamma=gamma, behavior=behavior)
    weights = importance_weights(tables, episodes, clip)
    split = split_rows(transitions)
    times = 1 + np.arange(len(split)) % 3
    counts = np.stack([np.ones(len(split)), times])
    repeated = [rows for rows, count in zip(split, times, strict=True) for _ in range(count)]
    got = {name: estimate(weights, episodes, counts) for name, estimate in ESTIMATES.items()}
    for policy, table in enumerate(tables):
        arguments = (table, episodes.behavior.probabilities, gamma, clip)
        often, _ = naive_estimates(transitions, repeated, *arguments)
        expected, last = naive_estimates(transitions, split, *arguments)
        for name in ESTIMATES:
            for sample, want in enumerate((expected[name], often[name])):
                assert got[name].shape == (2, 2)
                assert got[name][sample, policy] == pytest.approx(want, rel=1e-12, abs=1e-13), name
        assert weights.effective_sample_size[policy] == pytest.approx(
            sum(last) ** 2 / sum(w**2 for w in last), rel=1e-12
        )
        assert weights.largest_share[policy] == pytest.approx(max(last) / sum(last), rel=1e-12)
        if not options and clip is None:
            assert len({round(value, 6) for value in expected.values()}) == 4


@pytest.mark.parametrize("behind", [1e-200, 5e-324])
def test_huge_ratios_neither_overflow_nor_hide(make_records, behind) -> None:
    # Ratios of 1e200 and more, twice, and before or after decisions of ratio 0.
    transitions = make_records(
        [
            [(0, 1, 0.0, 0), (0, 1, 0.0, 1), (1, 0, 1.0, 3)],
            [(0, 1, 0.0, 0), (0, 1, 0.0, 2), (2, 1, 1.0, 3)],
            [(2, 1, 0.0, 0), (0, 1, 1.0, 3)],
            [(1, 0, 0.0, 3)],
            [(1, 0, 0.0, 3)],
        ]
    )
    behavior = Policy("b", np.array([[1.0, behind], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]))
    table = np.array([[[0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]])
    episodes = Episodes(transitions, 4, 2, behavior=behavior)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = importance_weights(table, episodes)
        np.testing.assert_array_equal(weights.effective_sample_size, [1])
        np.testing.assert_array_equal(weights.largest_share, [1])
        assert np.isfinite(weights.cumulative).all()
        assert (weights.final[0, 1:] == [0, 0, 1, 1]).all()
        ones = np.ones((1, 5))
        assert weighted_importance_sampling(weights, episodes, ones)[0, 0] == 1
        got = weighted_per_decision_importance_sampling(weights, episodes, ones)[0, 0]
        assert got == 1


def test_tiny_weights_count_as_weights(make_records) -> None:
    behavior = Policy("b", np.array([[0.5, 0.5], [0.5, 0.5]]))
    for tiny in (1e-200, 4e-323):
        transitions = make_records([[(0, 1, 1.0, 1)]] * 5)
        table = np.array([[[1.0, tiny], [0.5, 0.5]]])
        weights = importance_weights(table, Episodes(transitions, 2, 2, behavior=behavior))
        assert weights.effective_sample_size[0] == pytest.approx(5)
        assert weights.largest_share[0] == pytest.approx(1 / 5)

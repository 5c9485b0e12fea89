"""Doubly robust estimates against their recursions, and what cross-fitting leaves out."""

import numpy as np
import pytest

from sepsis_rl.ope import Episodes
from sepsis_rl.ope.doubly_robust import cross_fit, doubly_robust, weighted_doubly_robust
from sepsis_rl.ope.fitted_q import FittedQEvaluation, count_episodes
from sepsis_rl.ope.importance import (
    importance_weights,
)
from sepsis_rl.policies import Policy


def fit_once(episodes, table, unseen="pooled"):
    """Fitted Q on each episode once."""
    counts = count_episodes(episodes).sample(np.ones((1, len(episodes))))
    return FittedQEvaluation(counts, gamma=episodes.gamma, unseen=unseen).fit(table)


def models_by_fold(transitions, split, table, gamma, folds, unseen):
    """Q of each episode from the episodes of the other folds, picked from the records by id."""
    ids = np.array([transitions.episode[rows[0]] for rows in split])
    fold = np.arange(len(split)) % min(folds, len(split))
    models = {}
    for left_out in set(fold.tolist()):
        others = Episodes(
            transitions.select_episodes(np.sort(ids[fold != left_out])), *table.shape, gamma=gamma
        )
        models[left_out] = fit_once(others, table, unseen).q[0]
    return [models[left_out] for left_out in fold.tolist()]


def naive_estimates(transitions, split, table, behavior, gamma, q_of_episode):
    """Jiang & Li (2016), eq. 10, from the last step back; Thomas & Brunskill (2016), WDR."""
    recursive, weights, parts = [], [], []
    for rows, q in zip(split, q_of_episode, strict=True):
        v = (table * q).sum(axis=1)
        s, a = transitions.observation[rows], transitions.action[rows]
        ratio = table[s, a] / behavior[s, a]
        last = rows[-1]
        beyond = 0.0 if transitions.terminated[last] else v[transitions.next_observation[last]]
        value = beyond
        for t in reversed(range(len(rows))):
            reward = float(transitions.reward[rows[t]])
            value = v[s[t]] + ratio[t] * (reward + gamma * value - q[s[t], a[t]])
        recursive.append(value)
        weights.append(np.cumprod(ratio))
        # Reward, Q(s_t, a_t) and V(s_t) of each step, and V of where the record breaks off.
        parts.append((transitions.reward[rows].astype(float), q[s, a], [*v[s], beyond]))
    n = len(split)
    horizon = max(len(rows) for rows in split)
    share = np.zeros((horizon + 1, n))  # of each episode in the weights of step t - 1
    share[0] = 1 / n
    for t in range(horizon):
        at_step = np.array([w[min(t, len(w) - 1)] for w in weights])
        share[t + 1] = at_step / at_step.sum()
    weighted = 0.0
    for i, (reward, q, v) in enumerate(parts):
        for t in range(len(reward)):
            weighted += gamma**t * share[t + 1, i] * (reward[t] - q[t])
        for t in range(len(v)):
            weighted += gamma**t * share[t, i] * v[t]
    return np.mean(recursive), weighted


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("unseen", ["pooled", "zero"])
@pytest.mark.parametrize("options", [{}, {"truncate": True}, {"n_episodes": 3}, {"length": 3}])
def test_agrees_with_the_recursions(
    make_random_records, split_rows, random_tables, gamma, unseen, options
) -> None:
    """Each episode once, and as often as its count says."""
    transitions = make_random_records(21, **options)
    tables = random_tables(22)
    behavior = Policy("known", random_tables(23, 1)[0])
    episodes = Episodes(transitions, 4, 3, gamma=gamma, behavior=behavior)
    weights = importance_weights(tables, episodes)
    fit = cross_fit(tables, count_episodes(episodes), episodes, unseen, folds=5)
    split = split_rows(transitions)
    once = np.ones(len(split), dtype=int)
    counts = np.stack([once, 1 + np.arange(len(split)) % 3])
    plain = doubly_robust(weights, fit, episodes, counts.astype(float))
    weighted = weighted_doubly_robust(weights, fit, episodes, counts.astype(float))
    assert plain.shape == weighted.shape == (2, 2)
    for policy, table in enumerate(tables):
        q = models_by_fold(transitions, split, table, gamma, 5, unseen)
        for sample, times in enumerate(counts):
            chosen = np.repeat(np.arange(len(split)), times)
            repeated, models = [split[i] for i in chosen], [q[i] for i in chosen]
            expected = naive_estimates(
                transitions, repeated, table, behavior.probabilities, gamma, models
            )
            got = plain[sample, policy], weighted[sample, policy]
            assert got == pytest.approx(expected, rel=1e-10)
            assert abs(expected[0] - expected[1]) > 1e-4


def test_a_single_episode_has_no_model(make_records, random_tables) -> None:
    transitions = make_records([[(0, 1, 0.5, 1), (1, 0, 2.0, 3)]])
    tables = random_tables(30)
    episodes = Episodes(transitions, 4, 3, gamma=0.9)
    fit = cross_fit(tables, count_episodes(episodes), episodes)
    assert (fit.start_value == 0).all()
    np.testing.assert_array_equal(fit.td_error, [[0.5, 2.0]] * 2)

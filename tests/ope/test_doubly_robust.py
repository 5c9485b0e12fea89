"""Doubly robust estimates against their recursions, and what cross-fitting leaves out."""

import dataclasses

import numpy as np
import pytest

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.ope import Episodes
from sepsis_rl.ope.doubly_robust import (
    CrossFit,
    cross_fit,
    doubly_robust,
    weighted_doubly_robust,
)
from sepsis_rl.ope.fitted_q import FittedQEvaluation, count_episodes
from sepsis_rl.ope.importance import (
    importance_sampling,
    importance_weights,
    per_decision_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy


def fit_once(episodes, table, unseen="pooled"):
    """Fitted Q on each episode once."""
    counts = count_episodes(episodes).sample(np.ones((1, len(episodes))))
    return FittedQEvaluation(counts, gamma=episodes.gamma, unseen=unseen).fit(table)


def longest_first(split):
    return [split[number] for number in np.argsort([-len(rows) for rows in split], kind="stable")]


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
    transitions = make_random_records(21, **options)
    tables = random_tables(22)
    behavior = Policy("known", random_tables(23, 1)[0])
    episodes = Episodes(transitions, 4, 3, gamma=gamma, behavior=behavior)
    weights = importance_weights(tables, episodes)
    fit = cross_fit(tables, count_episodes(episodes), episodes, unseen, folds=5)
    once = np.ones((1, len(episodes)))
    split = longest_first(split_rows(transitions))
    for policy, table in enumerate(tables):
        q = models_by_fold(transitions, split, table, gamma, 5, unseen)
        plain, weighted = naive_estimates(
            transitions, split, table, behavior.probabilities, gamma, q
        )
        got = doubly_robust(weights, fit, episodes, once)
        assert got.shape == (1, 2)
        assert got[0, policy] == pytest.approx(plain, rel=1e-10)
        got = weighted_doubly_robust(weights, fit, episodes, once)
        assert got[0, policy] == pytest.approx(weighted, rel=1e-10)
        assert abs(plain - weighted) > 1e-4


def test_a_fold_is_judged_by_the_others_alone(make_random_records, random_tables) -> None:
    transitions = make_random_records(24)
    tables = random_tables(25)
    lengths = np.bincount(transitions.episode)
    order = np.argsort(-lengths, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(40)
    for folds, left_out in ((5, 0), (5, 3), (2, 1)):
        changed = place[transitions.episode] % folds == left_out
        noisy = dataclasses.replace(
            transitions, reward=transitions.reward + np.where(changed, 8, 0).astype(np.float32)
        )
        fits = []
        for records in (transitions, noisy):
            episodes = Episodes(records, 4, 3)
            fits.append(cross_fit(tables, count_episodes(episodes), episodes, folds=folds))
        before, after = fits
        same = np.arange(40) % folds == left_out
        # Folds are solved for together, so that rounding of one shows in the others.
        np.testing.assert_allclose(
            before.start_value[:, same], after.start_value[:, same], rtol=1e-10
        )
        assert (before.start_value[:, ~same] + 0.1 < after.start_value[:, ~same]).all()
        rows = same[Episodes(transitions, 4, 3).episode]
        np.testing.assert_allclose(
            after.td_error[:, rows], before.td_error[:, rows] + 8, atol=1e-10
        )


def test_counts_weigh_episodes(make_random_records, random_tables, split_rows) -> None:
    transitions = make_random_records(26)
    behavior = Policy("known", random_tables(27, 1)[0])
    episodes = Episodes(transitions, 4, 3, behavior=behavior)
    tables = random_tables(28)
    weights = importance_weights(tables, episodes)
    fit = cross_fit(tables, count_episodes(episodes), episodes)
    counts = np.random.default_rng(0).integers(3, size=(1, 40)).astype(float)
    split = longest_first(split_rows(transitions))
    chosen = np.repeat(np.arange(40), counts[0].astype(int))
    for policy, table in enumerate(tables):
        q = models_by_fold(transitions, split, table, 1.0, 5, "pooled")
        plain, weighted = naive_estimates(
            transitions,
            [split[i] for i in chosen],
            table,
            behavior.probabilities,
            1.0,
            [q[i] for i in chosen],
        )
        assert doubly_robust(weights, fit, episodes, counts)[0, policy] == pytest.approx(plain)
        assert weighted_doubly_robust(weights, fit, episodes, counts)[0, policy] == pytest.approx(
            weighted
        )


def test_a_world_without_chance_leaves_no_error(make_records, random_tables) -> None:
    # Every pair always leads to the same place; whatever the weights, the model is right.
    step = {
        (0, 0): (0, 0, 0.5, 1),
        (0, 1): (0, 1, 0.25, 2),
        (1, 0): (1, 0, 1.0, 2),
        (1, 1): (1, 1, 2.0, 3),
        (2, 0): (2, 0, 4.0, 3),
        (2, 1): (2, 1, 8.0, 3),
    }
    paths = [
        [(0, 0), (1, 0), (2, 0)],
        [(0, 0), (1, 0), (2, 1)],
        [(0, 0), (1, 1)],
        [(0, 1), (2, 0)],
        [(0, 1), (2, 1)],
    ]
    # Ten in a row of each length: every fold but one still has every path.
    order = sorted(paths * 10, key=len, reverse=True)
    transitions = make_records([[step[pair] for pair in path] for path in order])
    table = random_tables(29, 1, 4, 2)
    a, b, c = table[0, :3, 0]
    v2 = 4 * c + 8 * (1 - c)
    v1 = b * (1 + v2) + (1 - b) * 2
    v0 = a * (0.5 + v1) + (1 - a) * (0.25 + v2)
    for clip in (None, 0.5):
        episodes = Episodes(transitions, 4, 2)
        fit = cross_fit(table, count_episodes(episodes), episodes)
        np.testing.assert_allclose(fit.td_error, 0, atol=1e-12)
        np.testing.assert_allclose(fit.start_value, v0, rtol=1e-12)
        weights = importance_weights(table, episodes, clip)
        once = np.ones((1, 50))
        assert doubly_robust(weights, fit, episodes, once)[0, 0] == pytest.approx(v0)
        assert weighted_doubly_robust(weights, fit, episodes, once)[0, 0] == pytest.approx(v0)


def test_unbiased_with_the_exact_model_or_a_wrong_one_and_less_noisy_with_the_exact(
    chain_mdp, chain_data_sets, chain_behavior
) -> None:
    # Waiting in state 0 with probability 1/5 and in state 1 with 9/10.
    table = np.array([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    truth = evaluate(true_dynamics(chain_mdp), table).value
    v1 = 0.9 * 0.75 + 0.1 * 0.25
    v0 = (0.8 * 0.5 + 0.2 * v1 / 2) / (1 - 0.2 / 2)
    q = np.array([[(v0 + v1) / 2, 0.5], [0.75, 0.25], [0, 0], [0, 0], [0, 0]])
    assert 0.75 * v0 + 0.25 * v1 == pytest.approx(truth)
    estimates: dict[str, list[float]] = {"exact": [], "wrong": [], "is": []}
    errors = []
    for data in chain_data_sets(500, 30, seed=1):
        episodes = Episodes(data, 5, 2, behavior=chain_behavior)
        weights = importance_weights(table[None], episodes)
        once = np.ones((1, 30))
        for name, model in (("exact", q), ("wrong", 1 - q)):
            v = (table * model).sum(axis=1) * ~chain_mdp.terminal
            td_error = (
                episodes.reward
                + v[episodes.next_observation]
                - model[episodes.observation, episodes.action]
            )
            fit = CrossFit(v[episodes.starts][None], td_error[None])
            estimates[name].append(doubly_robust(weights, fit, episodes, once)[0, 0])
            if name == "exact":
                errors.append((weights.cumulative[0] * td_error).mean())
        estimates["is"].append(importance_sampling(weights, episodes, once)[0, 0])
    assert np.mean(errors) == pytest.approx(0, abs=3.5 * np.std(errors) / np.sqrt(500))
    for values in estimates.values():
        assert np.mean(values) == pytest.approx(truth, abs=3.5 * np.std(values) / np.sqrt(500))
    assert np.std(estimates["exact"]) < 0.9 * np.std(estimates["is"])


def test_a_single_episode_has_no_model(make_records, random_tables) -> None:
    transitions = make_records([[(0, 1, 0.5, 1), (1, 0, 2.0, 3)]])
    tables = random_tables(30)
    episodes = Episodes(transitions, 4, 3, gamma=0.9, behavior=Policy("b", random_tables(31, 1)[0]))
    fit = cross_fit(tables, count_episodes(episodes), episodes)
    assert (fit.start_value == 0).all()
    np.testing.assert_array_equal(fit.td_error, [[0.5, 2.0]] * 2)
    weights = importance_weights(tables, episodes)
    once = np.ones((1, 1))
    np.testing.assert_allclose(
        doubly_robust(weights, fit, episodes, once),
        per_decision_importance_sampling(weights, episodes, once),
        rtol=1e-14,
    )
    np.testing.assert_allclose(
        weighted_doubly_robust(weights, fit, episodes, once),
        weighted_per_decision_importance_sampling(weights, episodes, once),
        rtol=1e-14,
    )


def test_the_estimated_behavior_without_cross_fitting_is_worth_the_mean_return(
    make_random_records, every_episode
) -> None:
    # The errors of a model fitted to the same rows cancel; those of a cross-fitted one need not.
    episodes = Episodes(make_random_records(32), 4, 3)
    tables = episodes.behavior.probabilities[None]
    counted = count_episodes(episodes)
    once = every_episode(episodes)
    fitted = fit_once(episodes, tables[0])
    td_error = (
        episodes.reward
        + np.where(episodes.terminated, 0, fitted.v[0, episodes.next_observation])
        - fitted.q[0, episodes.observation, episodes.action]
    )
    own = CrossFit(fitted.v[:, episodes.starts], td_error[None])
    weights = importance_weights(tables, episodes)
    mean = episodes.returns.mean()
    for estimate in (doubly_robust, weighted_doubly_robust):
        assert estimate(weights, own, episodes, once)[0, 0] == pytest.approx(mean, abs=1e-12)
        crossed = estimate(weights, cross_fit(tables, counted, episodes), episodes, once)[0, 0]
        assert 1e-5 < abs(crossed - mean) < 0.1

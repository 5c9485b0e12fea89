"""Importance sampling against the papers' formulas, one episode after the other."""

import warnings

import numpy as np
import pytest

from sepsis_rl.data.collection import collect
from sepsis_rl.data.transitions import COLUMNS, Transitions
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.ope import Episodes
from sepsis_rl.ope.importance import (
    importance_sampling,
    importance_weights,
    per_decision_importance_sampling,
    weighted_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy, clinician_policy, random_policy

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
    make_random_records, split_rows, random_tables, every_episode, clip, gamma, options, known
) -> None:
    transitions = make_random_records(1, **options)
    tables = random_tables(2)
    behavior = Policy("known", random_tables(3, 1)[0]) if known else None
    episodes = Episodes(transitions, 4, 3, gamma=gamma, behavior=behavior)
    weights = importance_weights(tables, episodes, clip)
    for policy, table in enumerate(tables):
        expected, last = naive_estimates(
            transitions,
            split_rows(transitions),
            table,
            episodes.behavior.probabilities,
            gamma,
            clip,
        )
        for name, estimate in ESTIMATES.items():
            got = estimate(weights, episodes, every_episode(episodes))
            assert got.shape == (1, 2)
            assert got[0, policy] == pytest.approx(expected[name], rel=1e-12, abs=1e-13), name
        assert weights.effective_sample_size[policy] == pytest.approx(
            sum(last) ** 2 / sum(w**2 for w in last), rel=1e-12
        )
        assert weights.largest_share[policy] == pytest.approx(max(last) / sum(last), rel=1e-12)
        if not options and clip is None:
            assert len({round(value, 6) for value in expected.values()}) == 4


def test_a_clip_limits_what_is_used_of_a_product_and_not_the_product(make_records) -> None:
    transitions = make_records([[(0, 0, 0.0, 1), (1, 0, 0.0, 2), (2, 0, 1.0, 3)]])
    behavior = Policy("b", np.array([[0.1, 0.9], [0.5, 0.5], [0.9, 0.1], [0.5, 0.5]]))
    table = np.array([[[0.8, 0.2], [0.1, 0.9], [0.9, 0.1], [0.5, 0.5]]])
    episodes = Episodes(transitions, 4, 2, behavior=behavior)
    weights = importance_weights(table, episodes, clip=2.0)  # products 8, 1.6, 1.6
    np.testing.assert_allclose(weights.cumulative, [[2.0, 1.6, 1.6]], rtol=1e-14)
    np.testing.assert_allclose(weights.final, [[1.6]], rtol=1e-14)


def test_counts_stand_for_episodes_that_occur_more_than_once(
    make_random_records, random_tables
) -> None:
    transitions = make_random_records(5, 12)
    tables = random_tables(6)
    behavior = Policy("known", random_tables(7, 1)[0])
    for gamma in (1.0, 0.9):
        episodes = Episodes(transitions, 4, 3, gamma=gamma, behavior=behavior)
        # The order of the records, and how often each of them occurs there.
        order = np.argsort([-(transitions.episode == e).sum() for e in range(12)], kind="stable")
        times = np.array([[0, 3, 1, 2, 0, 1, 1, 5, 0, 0, 2, 1]])
        repeated = []
        for episode in np.repeat(np.arange(12), times[0]):
            rows = transitions.episode == episode
            columns = {name: getattr(transitions, name)[rows] for name in COLUMNS}
            columns["episode"] = np.full(rows.sum(), len(repeated))
            repeated.append(columns)
        longer = Episodes(
            Transitions(
                **{name: np.concatenate([part[name] for part in repeated]) for name in COLUMNS},
                provenance=transitions.provenance,
            ),
            4,
            3,
            gamma=gamma,
            behavior=behavior,
        )
        assert len(longer) == 16
        for name, estimate in ESTIMATES.items():
            got = estimate(
                importance_weights(tables, episodes), episodes, times[:, order].astype(float)
            )
            want = estimate(importance_weights(tables, longer), longer, np.ones((1, 16)))
            np.testing.assert_allclose(got, want, rtol=1e-12, err_msg=name)


def test_unbiased_with_known_behavior_and_biased_with_a_clip(
    chain_mdp, chain_data_sets, chain_behavior
) -> None:
    far = Policy("far", np.array([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]))
    truth = evaluate(true_dynamics(chain_mdp), far.probabilities).value
    plain, clipped, per_decision = [], [], []
    for data in chain_data_sets(600, 30):
        episodes = Episodes(data, 5, 2, behavior=chain_behavior)
        weights = importance_weights(far.probabilities[None], episodes)
        ones = np.ones((1, len(episodes)))
        plain.append(importance_sampling(weights, episodes, ones)[0, 0])
        per_decision.append(per_decision_importance_sampling(weights, episodes, ones)[0, 0])
        weights = importance_weights(far.probabilities[None], episodes, clip=1.0)
        clipped.append(importance_sampling(weights, episodes, ones)[0, 0])
    standard_error = np.std(plain) / np.sqrt(len(plain))
    assert standard_error < 0.008
    assert np.mean(plain) == pytest.approx(truth, abs=3.5 * standard_error)
    # The only reward is the last one.
    np.testing.assert_allclose(per_decision, plain, rtol=1e-12)
    assert (np.array(clipped) <= plain).all()
    assert np.mean(clipped) < truth - 10 * standard_error


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_estimated_behavior_is_worth_the_mean_return_exactly(
    make_random_records, every_episode, gamma
) -> None:
    episodes = Episodes(make_random_records(8, truncate=True), 4, 3, gamma=gamma)
    weights = importance_weights(episodes.behavior.probabilities[None], episodes)
    assert (weights.cumulative == 1).all()
    ones = every_episode(episodes)
    for name in ("is", "wis"):
        assert ESTIMATES[name](weights, episodes, ones)[0, 0] == episodes.returns.mean(), name
    for name in ("pdis", "wpdis"):
        # Summed in another order, which shows where gamma makes sums inexact.
        tolerance = 0 if gamma == 1 else 1e-14
        got = ESTIMATES[name](weights, episodes, ones)[0, 0]
        assert got == pytest.approx(episodes.returns.mean(), rel=tolerance, abs=1e-15), name
    assert weights.effective_sample_size[0] == len(episodes)
    assert weights.largest_share[0] == pytest.approx(1 / len(episodes), rel=1e-15)


def test_effective_sample_and_largest_share_by_hand(make_records) -> None:
    # Of four episodes of one decision each, three take action 0 and one action 1.
    transitions = make_records([[(0, action, 1.0, 1)] for action in (0, 0, 0, 1)])
    tables = np.array([[[p, 1 - p], [0.5, 0.5]] for p in (0.75, 0.0, 1.0, 0.5)])
    weights = importance_weights(tables, Episodes(transitions, 2, 2))
    # 1 1 1 1; 0 0 0 4; 4/3 4/3 4/3 0; 2/3 2/3 2/3 2.
    np.testing.assert_allclose(weights.effective_sample_size, [4, 1, 3, 16 / (16 / 3)], rtol=1e-14)
    np.testing.assert_allclose(weights.largest_share, [1 / 4, 1, 1 / 3, 1 / 2], rtol=1e-14)


def test_without_any_weight(make_records) -> None:
    transitions = make_records([[(0, 0, 1.0, 1), (1, 0, 1.0, 2)], [(0, 0, 1.0, 2)]])
    episodes = Episodes(transitions, 3, 2)
    weights = importance_weights(np.array([[[0.0, 1.0]] * 3]), episodes)
    np.testing.assert_array_equal(weights.effective_sample_size, [0])
    np.testing.assert_array_equal(weights.largest_share, [0])
    ones = np.ones((1, 2))
    assert importance_sampling(weights, episodes, ones)[0, 0] == 0
    assert np.isnan(weighted_importance_sampling(weights, episodes, ones)[0, 0])
    assert per_decision_importance_sampling(weights, episodes, ones)[0, 0] == 0
    assert np.isnan(weighted_per_decision_importance_sampling(weights, episodes, ones)[0, 0])


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


def test_a_behavior_fitted_elsewhere_leaves_nothing_of_icu_sepsis(mdp) -> None:
    clinician = clinician_policy(mdp)
    data = collect(mdp, clinician, episodes=2000, seed=1)
    train, judge = (
        data.select_episodes((data.episode[data.step == 0] < 1000) == part)
        for part in (True, False)
    )
    size = (mdp.n_states, mdp.n_actions)
    tables = clinician.probabilities[None]

    own = importance_weights(tables, Episodes(judge, *size))
    assert 300 < own.effective_sample_size[0] < 700
    known = importance_weights(tables, Episodes(judge, *size, behavior=clinician))
    assert known.effective_sample_size[0] == pytest.approx(1000)

    fitted = Episodes(train, *size).behavior
    with pytest.raises(InputError, match="cannot have made"):
        Episodes(judge, *size, behavior=fitted)
    smoothed = fitted.softened(0.01, random_policy(mdp))
    elsewhere = importance_weights(tables, Episodes(judge, *size, behavior=smoothed))
    assert elsewhere.effective_sample_size[0] < 5
    assert elsewhere.largest_share[0] > 0.5

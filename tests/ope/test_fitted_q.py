"""Fitted Q evaluation against a dense solve, pair by pair."""

import numpy as np
import pytest

from sepsis_rl.dynamics import UNSEEN_RULES
from sepsis_rl.errors import InputError
from sepsis_rl.ope import Episodes
from sepsis_rl.ope.fitted_q import FittedQEvaluation, count_episodes, refitted_values


def evaluation(episodes, counts, unseen):
    sample = count_episodes(episodes).sample(counts)
    return FittedQEvaluation(sample, gamma=episodes.gamma, unseen=unseen)


def fit(table, episodes, counts, unseen="pooled"):
    return evaluation(episodes, counts, unseen).fit(table)


def values_of(table, episodes, counts, unseen="pooled"):
    return evaluation(episodes, counts, unseen).values(table)


def naive_fitted_q(transitions, split, times, table, gamma, unseen):
    """Counts with loops, and one dense system for the values of all states."""
    n_states, n_actions = table.shape
    visits = np.zeros((n_states, n_actions))
    rewards = np.zeros((n_states, n_actions))
    arrivals = np.zeros((n_states, n_actions, n_states))
    start = np.zeros(n_states)
    mean_return = 0.0
    for rows, time in zip(split, times, strict=True):
        start[transitions.observation[rows[0]]] += time / sum(times)
        for step, row in enumerate(rows):
            s, a = transitions.observation[row], transitions.action[row]
            visits[s, a] += time
            rewards[s, a] += time * float(transitions.reward[row])
            mean_return += time / sum(times) * gamma**step * float(transitions.reward[row])
            if not transitions.terminated[row]:
                arrivals[s, a, transitions.next_observation[row]] += time
    # q(s, a) = constant(s, a) + factor(s, a) @ v
    constant = np.zeros((n_states, n_actions))
    factor = np.zeros((n_states, n_actions, n_states))
    moves_on = np.zeros((n_states, n_states))
    for s in range(n_states):
        for a in range(n_actions):
            if visits[s, a] > 0:
                constant[s, a] = rewards[s, a] / visits[s, a]
                factor[s, a] = gamma * arrivals[s, a] / visits[s, a]
            elif unseen == "pooled" and visits[s].sum() > 0:
                constant[s, a] = rewards[s].sum() / visits[s].sum()
                factor[s, a] = gamma * arrivals[s].sum(axis=0) / visits[s].sum()
            elif unseen == "pooled":
                constant[s, a] = mean_return
            moves_on[s] += table[s, a] * factor[s, a]
    v = np.linalg.solve(np.eye(n_states) - moves_on, (table * constant).sum(axis=1))
    q = constant + factor @ v
    by_state = np.linalg.solve(np.eye(n_states) - moves_on.T, start)
    share = (by_state[:, None] * table * (visits == 0)).sum() / by_state.sum()
    return start @ v, v, q, share


@pytest.mark.parametrize("unseen", UNSEEN_RULES)
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("options", [{}, {"truncate": True}, {"n_episodes": 6}, {"n_episodes": 1}])
def test_agrees_with_a_dense_solve(
    make_random_records, split_rows, random_tables, unseen, gamma, options
) -> None:
    transitions = make_random_records(11, **options)
    episodes = Episodes(transitions, 6, 4, gamma=gamma)  # states 4 and 5, action 3: never seen
    rng = np.random.default_rng(0)
    # Each episode once, then samples of them, some of which leave whole states out.
    counts = np.ones((1, len(episodes)))
    for share in (1.0, 0.1):
        drawn = rng.integers(max(1, int(share * len(episodes))), size=(2, len(episodes)))
        counts = np.concatenate(
            [counts, [np.bincount(row, minlength=len(episodes)) for row in drawn]]
        )
    split = split_rows(transitions)
    for table in random_tables(12, 2, 6, 4):
        fitted = fit(table, episodes, counts, unseen)
        expected = [naive_fitted_q(transitions, split, row, table, gamma, unseen) for row in counts]
        value, v, q, share = (np.array(part) for part in zip(*expected, strict=True))
        np.testing.assert_allclose(fitted.value, value, atol=1e-10)
        np.testing.assert_allclose(fitted.v, v, atol=1e-10)
        np.testing.assert_allclose(fitted.q, q, atol=1e-10)
        np.testing.assert_allclose(fitted.unseen_share, share, atol=1e-10)
        assert (fitted.unseen_share > 0).all()
        np.testing.assert_allclose((table * fitted.q).sum(axis=2), fitted.v, atol=1e-10)
        np.testing.assert_allclose(values_of(table, episodes, counts, unseen), value, atol=1e-6)


def test_both_rules_by_hand(make_records) -> None:
    # State 0: action 0 ends with 1, action 1 leads to state 1, which action 0 leaves with 3.
    transitions = make_records([[(0, 0, 1.0, 3)], [(0, 1, 0.0, 1), (1, 0, 3.0, 3)]])
    episodes = Episodes(transitions, 4, 3)
    table = np.array([[0.25, 0.25, 0.5], [0.5, 0.5, 0], [1, 0, 0], [1, 0, 0]])
    once = np.ones((1, 2))

    zero = fit(table, episodes, once, "zero")
    np.testing.assert_allclose(zero.q[0, :2], [[1, 1.5, 0], [3, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(zero.v, [[0.625, 1.5, 0, 0]], atol=1e-12)
    # One visit of state 0, a quarter of state 1; half of either is spent on unseen actions.
    np.testing.assert_allclose(zero.unseen_share, [0.5], atol=1e-12)

    pooled = fit(table, episodes, once)
    # In state 1 the pooled row is worth 3; in state 0 half of 1 and half of 3; elsewhere the mean
    # of the returns 1 and 3.
    np.testing.assert_allclose(pooled.q[0, :2], [[1, 3, 2], [3, 3, 3]], atol=1e-12)
    np.testing.assert_allclose(pooled.v, [[2, 3, 2, 2]], atol=1e-12)
    np.testing.assert_allclose(pooled.value, [2], atol=1e-12)
    # State 1 is visited with 1/4 + 1/2 * 1/2.
    np.testing.assert_allclose(pooled.unseen_share, [(0.5 + 0.25) / 1.5], atol=1e-12)


def test_an_unknown_rule(make_random_records, random_tables) -> None:
    episodes = Episodes(make_random_records(0), 4, 3)
    for solve in (fit, values_of):
        with pytest.raises(InputError, match="unseen is 'mean'; accepted: pooled or zero"):
            solve(random_tables(0)[0], episodes, np.ones((1, 40)), "mean")


@pytest.mark.parametrize("converges", [True, False])
@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize("ways", [1, 2, 3])
def test_a_loop_that_is_never_left(make_records, reward, ways, converges, monkeypatch) -> None:
    if not converges:
        name = "scipy.sparse.linalg.bicgstab"
        monkeypatch.setattr(name, lambda chain, right, **options: (np.zeros_like(right), 1))
    # Two states that lead to each other; the shares of several actions sum to 1 but for rounding.
    loop = [(s, a, reward, 1 - s) for _ in range(2) for a in range(ways) for s in (0, 1)]
    loop += [(0, 0, reward, 1)]
    transitions = make_records([loop, [(2, 0, 1.0, 3)]], truncated=[0])
    episodes = Episodes(transitions, 4, 3)
    once = np.ones((1, 2))
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = np.zeros((4, 3))
        table[:, :ways] = rng.dirichlet(np.ones(ways), size=4)
        table[2] = [1, 0, 0]
        for unseen in UNSEEN_RULES:
            if reward:
                for solve in (fit, values_of):
                    with pytest.raises(InputError, match="may never end"):
                        solve(table, episodes, once, unseen)
            else:  # forever nothing
                fitted = fit(table, episodes, once, unseen)
                values = values_of(table, episodes, once, unseen)
                np.testing.assert_allclose([fitted.value, values], 0.5, atol=1e-9)
                assert np.isnan(fitted.unseen_share).all()
    # A discount ends everything.
    discounted = Episodes(transitions, 4, 3, gamma=0.5)
    table = np.full((4, 3), 1 / 3)
    fitted = fit(table, discounted, once)
    assert fitted.value[0] == pytest.approx(reward + 0.5)


def test_a_loop_that_the_policy_stays_in_or_leaves(make_records) -> None:
    # In state 0, action 0 stays and action 1 ends it.
    transitions = make_records([[(0, 0, 0.0, 0), (0, 1, 1.0, 3)]])
    episodes = Episodes(transitions, 4, 2)
    stay = np.array([[1.0, 0.0]] * 4)
    fitted = fit(stay, episodes, np.ones((1, 1)))
    assert fitted.value[0] == 0
    assert np.isnan(fitted.unseen_share[0])
    leaves = 0.999 * stay + 0.001 * stay[:, ::-1]
    fitted = fit(leaves, episodes, np.ones((1, 1)))
    assert fitted.value[0] == pytest.approx(1, abs=1e-9)


def test_samples_are_refitted_a_few_at_a_time(
    make_random_records, random_tables, monkeypatch
) -> None:
    episodes = Episodes(make_random_records(17), 4, 3, gamma=0.9)
    counted, tables = count_episodes(episodes), random_tables(18)
    weights = np.random.default_rng(0).integers(3, size=(5, 40)).astype(float)
    told: list[int] = []
    monkeypatch.setattr("sepsis_rl.ope.fitted_q._TRANSITIONS_AT_ONCE", 2 * counted.n_transitions)
    values = refitted_values(tables, counted, weights, gamma=0.9, advance=told.append)
    assert told == [2, 2, 2, 2, 1, 1]  # of two policies
    for sample, row in enumerate(weights):
        alone = FittedQEvaluation(counted.sample(row[None]), gamma=0.9)
        expected = np.concatenate([alone.fit(table).value for table in tables])
        np.testing.assert_allclose(values[sample], expected, atol=1e-6)

"""What records say of each decision: by hand, and pair by pair with loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import CHAIN, counted, recorded, tally

from sepsis_rl.dynamics import UNSEEN_RULES, Dynamics, pooled_dynamics
from sepsis_rl.errors import InputError

ONCE = counted(CHAIN, 5, 2).sample(np.ones((1, 4)))


def distributions(dynamics: Dynamics) -> np.ndarray:
    """(n_states, n_actions, n_states)."""
    return (dynamics.mixture @ dynamics.rows).toarray().reshape(*dynamics.rewards.shape, -1)


@pytest.mark.parametrize(
    ("prior", "from_0", "ends"),
    [
        # Waiting in 0 stayed twice and went on once; treating ended it.
        (0.0, [[2 / 3, 1 / 3], [0, 0]], [0, 1]),
        # All in state 0: half stay, a quarter goes on. (2 + 2 / 2) / 5, (1 + 2 / 4) / 5, ...
        (2.0, [[3 / 5, 3 / 10], [1 / 3, 1 / 6]], [0.1, 0.5]),
    ],
)
def test_chain_by_hand(prior: float, from_0: list[list[float]], ends: list[float]) -> None:
    expected = np.zeros((5, 2, 5))
    expected[0, :, :2] = from_0
    pooled, zero = (pooled_dynamics(ONCE, prior, unseen) for unseen in UNSEEN_RULES)
    for dynamics in (pooled, zero):
        np.testing.assert_allclose(distributions(dynamics), expected, atol=1e-15)
        # Transitions that end an episode are left out: nothing follows them.
        np.testing.assert_allclose(1 - distributions(dynamics)[0].sum(axis=1), ends, atol=1e-15)
        assert not dynamics.terminal.any()
        np.testing.assert_array_equal(dynamics.start, ONCE.start)
    # Waiting in 1 paid half the time; treating there was never seen; 2 to 4 were never visited.
    mean_return = [[0.25, 0.25]] * 3
    np.testing.assert_allclose(pooled.rewards, [[0, 0], [0.5, 0.5], *mean_return], atol=1e-15)
    np.testing.assert_allclose(zero.rewards, [[0, 0], [0.5, 0], *[[0, 0]] * 3], atol=1e-15)


@settings(max_examples=150, deadline=None)
@given(recorded(), st.sampled_from([0.0, 0.5, 5.0]), st.sampled_from(UNSEEN_RULES))
def test_agrees_with_loops(records, prior: float, unseen: str) -> None:
    episodes, weights, n_states, n_actions = records
    dynamics = pooled_dynamics(
        counted(episodes, n_states, n_actions).sample(weights), prior, unseen
    )
    size = len(weights) * n_states
    moves, rewards = np.zeros((size, n_actions, size)), np.zeros((size, n_actions))
    for sample, row in enumerate(weights):
        one = tally(episodes, row, n_states, n_actions)
        first = sample * n_states
        own = slice(first, first + n_states)
        for s in range(n_states):
            visits = one.pairs[s].sum()
            for a in range(n_actions):
                n, goes, paid = one.pairs[s, a], one.arrivals[s, a], one.reward_sums[s, a]
                if visits == 0:
                    rewards[first + s, a] = one.mean_return if unseen == "pooled" else 0.0
                    continue
                share = one.arrivals[s].sum(axis=0) / visits
                mean_reward = one.reward_sums[s].sum() / visits
                if n > 0:
                    moves[first + s, a, own] = (goes + prior * share) / (n + prior)
                    rewards[first + s, a] = (paid + prior * mean_reward) / (n + prior)
                elif unseen == "pooled":
                    moves[first + s, a, own], rewards[first + s, a] = share, mean_reward
    np.testing.assert_allclose(distributions(dynamics), moves, atol=1e-12)
    np.testing.assert_allclose(dynamics.rewards, rewards, atol=1e-12)
    assert not dynamics.terminal.any()
    assert dynamics.survival_state is dynamics.forbidden is None


@pytest.mark.parametrize("prior", [0.0, 5.0])
@settings(max_examples=50, deadline=None)
@given(records=recorded())
def test_no_rounding_decides_between_a_states_only_action_and_unseen_ones(records, prior) -> None:
    episodes, weights, n_states, n_actions = records
    counts = counted(episodes, n_states, n_actions).sample(weights)
    dynamics = pooled_dynamics(counts, prior)
    q = dynamics.rewards + dynamics.expected(
        np.random.default_rng(0).normal(size=len(counts.pairs))
    )
    only = (counts.pairs > 0).sum(axis=1) == 1
    np.testing.assert_array_equal(q[only], np.broadcast_to(q[only][:, :1], q[only].shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": -1.0}, "prior is -1.0; accepted: 0 or more"),
        ({"prior": np.inf}, "prior is inf"),
        ({"prior": np.nan}, "prior is nan"),
        ({"unseen": "mean"}, "unseen is 'mean'; accepted: pooled or zero"),
    ],
)
def test_options_out_of_range(options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pooled_dynamics(ONCE, **options)

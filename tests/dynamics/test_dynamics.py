"""Means over next states and transitions under a policy, against dense loops."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sepsis_rl.dynamics import Dynamics, true_dynamics
from sepsis_rl.mdp import TabularMDP


@pytest.mark.parametrize("strategy", ["mean", "terminate"])
def test_by_hand(chain_mdp: TabularMDP, strategy: str) -> None:
    # Waiting in 0: states 0 and 1; treating: 2 and 3. In 1: 3 with 3/4, or with 1/4.
    expected = np.array([[1.5, 6], [7, 5], [16, 16], [16, 16], [16, 16]])
    moves = np.zeros((5, 5))
    moves[0] = [0.25, 0.25, 0.25, 0.25, 0]
    moves[1] = [0, 0, 0.2 * 0.25 + 0.8 * 0.75, 0.2 * 0.75 + 0.8 * 0.25, 0]
    if strategy == "terminate":
        expected[1, 1] = 4  # death
        moves[1] = [0, 0, 0.2 * 0.25 + 0.8, 0.2 * 0.75, 0]
    dynamics = true_dynamics(chain_mdp, strategy)
    np.testing.assert_array_equal(dynamics.expected(np.array([1.0, 2, 4, 8, 16])), expected)
    probabilities = np.array([[0.5, 0.5], [0.2, 0.8], [1, 0], [1, 0], [1, 0]])
    np.testing.assert_allclose(dynamics.under(probabilities).toarray(), moves, atol=1e-15)


@st.composite
def processes(draw: st.DrawFn) -> tuple[Dynamics, np.random.Generator]:
    """Rows that pairs share and mix, some twice; distributions may end early or be empty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_states, n_actions, n_rows = (draw(st.integers(1, 5)) for _ in range(3))
    n_entries = draw(st.integers(0, 3 * n_rows))
    # An entry may be there more than once, and not in order.
    row = np.sort(rng.integers(n_rows, size=n_entries))
    rows = sp.csr_array(
        (
            rng.random(n_entries),
            rng.integers(n_states, size=n_entries),
            np.searchsorted(row, np.arange(n_rows + 1)),
        ),
        shape=(n_rows, n_states),
    )
    mixture = rng.random((n_states * n_actions, n_rows)) * rng.integers(
        2, size=(n_states * n_actions, n_rows)
    )
    return Dynamics(
        rows=rows,
        mixture=sp.csr_array(mixture),
        rewards=rng.random((n_states, n_actions)),
        start=np.eye(n_states)[0],
        terminal=rng.random(n_states) < 0.3,
    ), rng


@settings(max_examples=100, deadline=None)
@given(processes())
def test_agrees_with_dense_loops(process: tuple[Dynamics, np.random.Generator]) -> None:
    dynamics, rng = process
    n_states, n_actions = dynamics.rewards.shape
    mixture, rows = dynamics.mixture.toarray(), np.zeros(dynamics.rows.shape)
    for row in range(len(rows)):
        for entry in range(dynamics.rows.indptr[row], dynamics.rows.indptr[row + 1]):
            rows[row, dynamics.rows.indices[entry]] += dynamics.rows.data[entry]
    values = rng.normal(size=n_states)
    # Some actions are never taken.
    probabilities = rng.random((n_states, n_actions)) * rng.integers(2, size=(n_states, n_actions))
    expected, moves = np.zeros((n_states, n_actions)), np.zeros((n_states, n_states))
    for s in range(n_states):
        for a in range(n_actions):
            for row in range(len(rows)):
                for after in range(n_states):
                    chance = mixture[s * n_actions + a, row] * rows[row, after]
                    expected[s, a] += chance * values[after]
                    if not dynamics.terminal[s]:
                        moves[s, after] += probabilities[s, a] * chance
    np.testing.assert_allclose(dynamics.expected(values), expected, atol=1e-12)
    under = dynamics.under(probabilities)
    assert under.shape == (n_states, n_states)
    np.testing.assert_allclose(under.toarray(), moves, atol=1e-12)
    assert under[dynamics.terminal].nnz == 0

"""Recorded transitions added up, for several samples side by side."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import given, settings
from recorded import CHAIN, counted, recorded, tally

from sepsis_rl.dynamics import Counts
from sepsis_rl.errors import InputError


def test_counts_by_hand() -> None:
    episodes = counted(CHAIN, 5, 2)
    assert episodes.n_transitions == 2  # state 0 waits and stays, or waits and goes on to 1
    counts = episodes.sample(np.ones((1, 4)))
    assert counts.n_samples == 1
    np.testing.assert_array_equal(counts.pairs, [[3, 1], [2, 0], [0, 0], [0, 0], [0, 0]])
    expected = np.zeros((10, 5))
    expected[0, :2] = [2, 1]  # what breaks off goes on, as far as is known
    np.testing.assert_array_equal(counts.transitions.toarray(), expected)
    np.testing.assert_array_equal(counts.reward_sums, np.array([[0, 0], [1, 0], *[[0, 0]] * 3]))
    np.testing.assert_array_equal(counts.start, [0.75, 0.25, 0, 0, 0])
    np.testing.assert_array_equal(counts.mean_return, [0.25])


@settings(max_examples=100, deadline=None)
@given(recorded())
def test_agrees_with_loops(records) -> None:
    episodes, weights, n_states, n_actions = records
    counts = counted(episodes, n_states, n_actions).sample(weights)
    one_by_one = [tally(episodes, row, n_states, n_actions) for row in weights]
    for name in ("pairs", "reward_sums", "start"):
        expected = np.concatenate([getattr(one, name) for one in one_by_one])
        np.testing.assert_allclose(getattr(counts, name), expected, atol=1e-12)
    arrivals = [one.arrivals.reshape(-1, n_states) for one in one_by_one]
    np.testing.assert_array_equal(counts.transitions.toarray(), scipy.linalg.block_diag(*arrivals))
    mean_returns = [one.mean_return for one in one_by_one]
    np.testing.assert_allclose(counts.mean_return, mean_returns, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": sp.csr_array((5, 5))}, r"transitions has shape \(5, 5\); .* \(10, 5\)"),
        ({"reward_sums": np.zeros((5, 3))}, r"reward_sums has shape \(5, 3\); accepted: \(5, 2\)"),
        ({"start": np.zeros(4)}, r"start has shape \(4,\); accepted: \(5,\)"),
        ({"pairs": np.full((5, 2), -1.0)}, "negative"),
        ({"transitions": sp.csr_array(-np.eye(10, 5))}, "negative"),
    ],
)
def test_broken_counts_are_refused(change, message: str) -> None:
    counts = counted(CHAIN, 5, 2).sample(np.ones((1, 4)))
    assert isinstance(counts, Counts)
    with pytest.raises(InputError, match=message):
        replace(counts, **change)

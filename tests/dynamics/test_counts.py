"""Recorded transitions added up, for several samples side by side."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import CHAIN, Row, counted, recorded, tally

import sepsis_rl.dynamics.counts as counting
from sepsis_rl.dynamics import Counts, count_rows
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


# -- in one pass -------------------------------------------------------------------------------


def rows_of(episodes: list[list[Row]]) -> dict[str, np.ndarray]:
    names = ("observation", "action", "reward", "next_observation", "terminated", "is_first")
    dtypes = (int, int, float, int, bool, bool)
    rows = [(*row, n == 0) for episode in episodes for n, row in enumerate(episode)]
    columns = zip(*rows, strict=True) if rows else [[]] * len(names)
    return {
        name: np.array(column, dtype=dtype)
        for name, column, dtype in zip(names, columns, dtypes, strict=True)
    }


def assert_same_counts(ours: Counts, theirs: Counts) -> None:
    """To the bit: sums of quarters have no rounding."""
    for name in ("pairs", "reward_sums", "starts", "return_sums", "n_episodes", "start"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(ours.mean_return, theirs.mean_return)
    moves = [counts.transitions.copy() for counts in (ours, theirs)]
    for one in moves:
        one.eliminate_zeros()  # a sample stores those of the episodes that it leaves out
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(*(getattr(one, name) for one in moves))


@settings(max_examples=100, deadline=None)
@given(recorded(), st.integers(1, 30))
def test_one_pass_agrees_with_episodes_and_with_loops(records, rows_at_once: int) -> None:
    episodes, _, n_states, n_actions = records
    with pytest.MonkeyPatch.context() as patch:  # parts end anywhere
        patch.setattr(counting, "_ROWS_AT_ONCE", rows_at_once)
        counts = count_rows(**rows_of(episodes), n_states=n_states, n_actions=n_actions)
    once = np.ones((1, len(episodes)))
    assert_same_counts(counts, counted(episodes, n_states, n_actions).sample(once))
    assert counts.transitions.indices.dtype == np.int32  # half the memory to wait for
    slow = tally(episodes, once[0], n_states, n_actions)
    np.testing.assert_array_equal(counts.pairs, slow.pairs)
    np.testing.assert_array_equal(counts.transitions.toarray(), slow.arrivals.reshape(-1, n_states))
    np.testing.assert_array_equal(counts.reward_sums, slow.reward_sums)
    np.testing.assert_allclose(counts.start, slow.start, atol=1e-12)
    np.testing.assert_allclose(counts.mean_return, [slow.mean_return], atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(recorded(), st.data())
def test_counts_add_up(records, data: st.DataObject) -> None:
    """Of parts that have few episodes, many, or none."""
    episodes, weights, n_states, n_actions = records
    part = data.draw(st.lists(st.integers(0, 2), min_size=len(episodes), max_size=len(episodes)))
    parts = [[e for e, p in zip(episodes, part, strict=True) if p == which] for which in range(3)]
    sizes = {"n_states": n_states, "n_actions": n_actions}
    first, second, third = (count_rows(**rows_of(few), **sizes) for few in parts)
    both = count_rows(**rows_of(episodes), **sizes)
    assert_same_counts(first + second + third, both)
    assert_same_counts(first + (third + second), both)
    # Samples side by side add up one by one.
    sampled = counted(episodes, n_states, n_actions)
    chosen = np.array(part) == 0
    assert_same_counts(
        sampled.sample(weights) + sampled.sample(weights * chosen),
        sampled.sample(weights * (1 + chosen)),
    )


def test_the_mean_return_of_unequal_parts() -> None:
    """One survivor, and three of whom none survives: one in four, not one half."""
    sizes = {"n_states": 5, "n_actions": 2}
    both = count_rows(**rows_of(CHAIN[:1]), **sizes) + count_rows(**rows_of(CHAIN[1:]), **sizes)
    assert both.n_episodes.tolist() == [4.0]
    assert both.mean_return.tolist() == [0.25]
    assert both.start.tolist() == [0.75, 0.25, 0, 0, 0]


@pytest.mark.parametrize(
    ("n_states", "n_actions", "samples", "named"),
    [
        (6, 2, 1, r"\(5, 2\) in 1 sample\(s\) and \(6, 2\) in 1"),
        (5, 3, 1, r"and \(5, 3\) in 1"),
        (5, 2, 2, r"and \(10, 2\) in 2"),
    ],
)
def test_unlike_counts_do_not_add_up(n_states, n_actions, samples, named: str) -> None:
    counts = counted(CHAIN, 5, 2).sample(np.ones((1, 4)))
    other = counted(CHAIN, n_states, n_actions).sample(np.ones((samples, 4)))
    with pytest.raises(InputError, match=named):
        counts + other


def test_memory_goes_with_distinct_transitions() -> None:
    """Beside the rows; episode by episode it would take several times their size."""
    n, n_states, n_actions = 2_000_000, 50, 4
    rng = np.random.default_rng(0)
    rows = {
        "observation": rng.integers(n_states, size=n),
        "action": rng.integers(n_actions, size=n),
        "reward": np.zeros(n, dtype=np.float32),
        "next_observation": rng.integers(n_states, size=n),
        "terminated": np.zeros(n, dtype=bool),
        "is_first": np.arange(n) % 5 == 0,
    }
    peaks = []
    for most in (n // 4, n):
        few = {name: column[:most] for name, column in rows.items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(counting, "_ROWS_AT_ONCE", 2**14)
            tracemalloc.start()
            counts = count_rows(**few, n_states=n_states, n_actions=n_actions)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert counts.pairs.sum() == most
    assert peaks[1] < 1.1 * peaks[0] < 4e6


# -- what they refuse --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": sp.csr_array((5, 5))}, r"transitions has shape \(5, 5\); .* \(10, 5\)"),
        ({"reward_sums": np.zeros((5, 3))}, r"reward_sums has shape \(5, 3\); accepted: \(5, 2\)"),
        ({"starts": np.zeros(4)}, r"starts has shape \(4,\); accepted: \(5,\)"),
        ({"pairs": np.full((5, 2), -1.0)}, "negative"),
        ({"transitions": sp.csr_array(-np.eye(10, 5))}, "negative"),
    ],
)
def test_broken_counts_are_refused(change, message: str) -> None:
    counts = counted(CHAIN, 5, 2).sample(np.ones((1, 4)))
    assert isinstance(counts, Counts)
    with pytest.raises(InputError, match=message):
        replace(counts, **change)

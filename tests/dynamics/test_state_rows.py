"""Rows of states: by hand, and the records that they refuse."""

from dataclasses import replace

import numpy as np
import pytest
from outcome_records import counts_of

from sepsis_rl.dynamics import empirical_bayes_dynamics
from sepsis_rl.dynamics.state_rows import count_outcomes, state_rows
from sepsis_rl.errors import InputError

# Three states on a line, at 0, 1 and 3. From the first, 20 decisions of one kind went on to the
# second and 10 of the other survived; from the second, all 10 died; the third was never visited.
LINE = np.zeros((3, 2, 5), dtype=int)
LINE[0, 0, 1], LINE[0, 1, 3], LINE[1, 0, 4] = 20, 10, 10
FIRST = np.array([[1, 0], [0, 0], [0, 0]])
PLACES = np.array([[0.0], [1.0], [3.0]])


def rows_of(led: np.ndarray, vectors: np.ndarray | None) -> np.ndarray:
    """(n_states, n_states + 2), death the last."""
    rows = state_rows(count_outcomes(counts_of(led)), vectors)
    alive = (rows.mixture @ rows.rows).toarray()
    values = np.random.default_rng(0).random(len(led) + 1)
    np.testing.assert_allclose(rows.expected(values), alive @ values, atol=1e-12)
    return np.hstack([alive, 1 - alive.sum(axis=1, keepdims=True)])


def test_neighbors_by_hand() -> None:
    # Squared distances: 1 between the first two; 9 and 4 from the third. Those of the first to the
    # second, the second to the first and the third to both are 1, 1, 4, 9: the scale is 2.5. The
    # third weighs the second's row 1 and the first's exp(-9 / 2.5) / exp(-4 / 2.5) = exp(-2).
    first = np.exp(-2) / (1 + np.exp(-2))
    expected = [
        [0, 20 / 40, 0, 10 / 40, 10 / 40],  # 30 of its own and 10 like the second's
        [0, 20 / 60, 0, 10 / 60, 1 / 2],  # 10 of its own and 10 like the first's
        [0, first * 2 / 3, 0, first / 3, 1 - first],
    ]
    np.testing.assert_allclose(rows_of(LINE, PLACES), expected, atol=1e-12)


def test_all_records_as_the_neighbor_by_hand() -> None:
    # Of 40 records, half went on to the second state, a quarter survived, a quarter died.
    expected = [
        [0, 25 / 40, 0, 12.5 / 40, 2.5 / 40],
        [0, 5 / 20, 0, 2.5 / 20, 12.5 / 20],
        [0, 1 / 2, 0, 1 / 4, 1 / 4],
    ]
    np.testing.assert_allclose(rows_of(LINE, None), expected, atol=1e-12)


@pytest.mark.parametrize("records", [0, 5])
def test_a_state_far_from_all_others_has_the_nearest_ones_row(records: int) -> None:
    led = np.zeros((7, 1, 9), dtype=int)
    led[:, 0, 8] = 5  # they died, but for those in the nearest one
    led[5, 0, 7:] = [5, 0]
    led[6, 0, 8] = records
    rows = rows_of(led, np.array([[0.0], [1], [2], [3], [4], [5], [1e4]]))
    np.testing.assert_allclose(rows[6, 7:], [10 / (records + 10), records / (records + 10)])


def test_states_in_one_place() -> None:
    # Each state counts the same, except for one's own: 30 others, whichever those are.
    led = np.zeros((40, 1, 42), dtype=int)
    led[:, 0, 40] = 5
    np.testing.assert_allclose(rows_of(led, np.zeros((40, 2)))[:, 40], 1, atol=1e-12)
    led[:20, 0, 40:] = [0, 5]
    assert rows_of(led, np.zeros((40, 2)))[:, 40:].min() > 0.1


def test_a_single_visited_state_is_what_all_know_of() -> None:
    alone = LINE.copy()
    alone[1:] = 0
    for vectors in (PLACES, None):
        rows = rows_of(alone, vectors)
        np.testing.assert_allclose(rows, [[0, 2 / 3, 0, 1 / 3, 0]] * 3, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"pairs": 0 * c.pairs, "transitions": 0 * c.transitions}, "there are no counts"),
        (lambda c: {"return_sums": np.array([0.5, 0.5])}, "or of several samples"),
        (lambda c: {"reward_sums": -c.reward_sums}, "rewards are not survival"),
        (lambda c: {"reward_sums": 2 * c.reward_sums}, "rewards are not survival"),
        # The first decision in the first state never ended an episode.
        (lambda c: {"reward_sums": c.reward_sums + FIRST}, "rewards are not survival"),
        (lambda c: {"reward_sums": c.reward_sums * np.nan}, "rewards are not survival"),
    ],
)
def test_refused_records(change, message: str) -> None:
    counts = counts_of(LINE)
    with pytest.raises(InputError, match=message):
        empirical_bayes_dynamics(replace(counts, **change(counts)))


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("dose_features", np.ones((9, 3)), "dose_features has 9 rows; accepted: 2"),
        ("state_vectors", np.ones((2, 3)), "state_vectors has 2 rows; accepted: 3"),
        ("admissible", np.ones((4, 2), dtype=bool), "admissible has 4 rows; accepted: 3"),
    ],
)
def test_a_dose_grid_or_states_that_do_not_fit(name, rows, message: str) -> None:
    with pytest.raises(InputError, match=message):
        empirical_bayes_dynamics(counts_of(LINE), **{name: rows})

"""What followed the records of a state, whatever the decision, and those of its neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp
from scipy.spatial import KDTree

from sepsis_rl.dynamics.counts import Counts
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray

STATE_PRIOR: Final = 10.0
"""Weight of its neighbors in the row of a state, in decisions."""
NEIGHBORS: Final = 30
"""How many other states are a state's neighbors."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What followed the records: a next state, survival, or (what the sums lack) death.

    Attributes:
        pairs: (n_states, n_actions) float64, N, how often each pair was recorded.
        transitions: (n_states * n_actions, n_states + 1) csr float64, T; the last column is
            survival.
    """

    pairs: FloatArray
    transitions: sp.csr_array

    def by_state(self, chosen: BoolArray | None = None) -> sp.csr_array:
        """The transitions of a state's pairs, all or the chosen ones, added up."""
        weights = np.ones(self.pairs.size) if chosen is None else chosen.ravel().astype(np.float64)
        ends = np.arange(0, len(weights) + 1, self.pairs.shape[1])
        of_state = sp.csr_array((weights, np.arange(len(weights)), ends))
        return of_state @ self.transitions

    def mean(self, values: FloatArray) -> FloatArray:
        """Mean of a value, (n_states + 1,), over what followed a pair; 0 for a pair without any."""
        total: FloatArray = (self.transitions @ values).reshape(self.pairs.shape)
        return total / np.maximum(self.pairs, 1)


@dataclass(frozen=True, eq=False)
class StateRows:
    """What follows in a state, whatever the decision: `mixture @ rows`, as in `Dynamics`.

    Attributes:
        rows: (n_rows, n_states + 1) csr float64.
        mixture: (n_states, n_rows) csr float64.
    """

    rows: sp.csr_array
    mixture: sp.csr_array

    def expected(self, values: FloatArray) -> FloatArray:
        """Mean of a value, (n_states + 1,), over what follows in a state, (n_states,)."""
        mean: FloatArray = self.mixture @ (self.rows @ values)
        return mean


def count_outcomes(counts: Counts) -> Outcomes:
    """Joins survival to the next states.

    Raises:
        InputError: There are no counts, or of several samples, or of rewards that are not survival.
    """
    if counts.n_samples != 1 or not counts.pairs.any():
        raise InputError("there are no counts, or of several samples; accepted: those of one")
    if not pays_survival(counts):
        raise InputError("rewards are not survival; accepted: 0, or 1 where an episode ends")
    column = sp.csr_array(counts.reward_sums.reshape(-1, 1))
    return Outcomes(
        counts.pairs, sp.csr_array(sp.hstack([counts.transitions, column], format="csr"))
    )


def pays_survival(counts: Counts) -> bool:
    """Whether all that is paid is 1 where an episode ends: no pair is paid more often than that."""
    went_on = (counts.transitions @ np.ones(len(counts.pairs))).reshape(counts.pairs.shape)
    paid, ended = counts.reward_sums, counts.pairs - went_on
    return bool(((paid >= 0) & (paid <= ended + 1e-6)).all())


def state_rows(outcomes: Outcomes, state_vectors: FloatArray | None) -> StateRows:
    """What follows in a state: its own decisions, and `STATE_PRIOR` like its neighbors'.

    Neighbors weigh by a Gaussian of their distance, whose scale is the median squared distance.
    """
    recorded, n = outcomes.by_state(), outcomes.pairs.sum(axis=1)
    n_states, visited = len(n), np.flatnonzero(n)
    if state_vectors is None or len(visited) == 1:
        near, which = sp.csr_array(np.full((1, n_states), 1 / n.sum())), np.zeros(n_states, int)
    else:
        # One more than asked for, since a visited state is nearest to itself.
        distance, found = KDTree(state_vectors[visited]).query(
            state_vectors, k=np.arange(1, min(NEIGHBORS + 1, len(visited)) + 1)
        )
        found, squared = visited[found], distance**2
        others = found != np.arange(n_states)[:, None]
        others &= others.cumsum(axis=1) <= NEIGHBORS
        # Beyond the nearest one's, or all weights of a state far from all others would be 0.
        nearest = np.where(others, squared, np.inf).min(axis=1, keepdims=True)
        beyond = np.maximum(squared - nearest, 0.0)
        weights = np.exp(-beyond / max(np.median(squared[others]), 1e-100)) * others
        weights /= weights.sum(axis=1, keepdims=True) * n[found]
        ends = np.arange(0, found.size + 1, found.shape[1])
        near = sp.csr_array((weights.ravel(), found.ravel(), ends), (n_states, n_states))
        which = np.arange(n_states)
    total = n + STATE_PRIOR
    mixture = sp.csr_array(
        (
            np.stack([1 / total, STATE_PRIOR / total], axis=1).ravel(),
            np.stack([np.arange(n_states), n_states + which], axis=1).ravel(),
            2 * np.arange(n_states + 1),
        )
    )
    return StateRows(sp.csr_array(sp.vstack([recorded, near @ recorded], format="csr")), mixture)

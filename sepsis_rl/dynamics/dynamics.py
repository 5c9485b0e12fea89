"""What follows each decision, whoever says so: `Dynamics`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from sepsis_rl.mdp import BoolArray, DoseGrid, FloatArray


def all_where_none(choices: BoolArray) -> BoolArray:
    """Choices (n_states, n_actions), in which a state that allows no action allows all."""
    return choices | ~choices.any(axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Dynamics:
    """Next-state distributions and rewards of all pairs of state and action.

    The distributions are `mixture @ rows`, which is never computed: that of a pair may be its own
    counts and a share of its state's row, so that memory goes with the distinct transitions and
    not with pairs times states.

    Attributes:
        rows: (n_rows, n_states) csr float64, what the distributions are made of. A row may hold an
            entry more than once; the entries add up.
        mixture: (n_states * n_actions, n_rows) csr float64, the weight of each row in the
            distribution of a pair, which is that of index state * n_actions + action. A
            distribution that sums to less than 1 ends the episode with the rest.
        rewards: (n_states, n_actions) float64, expected immediate reward of each pair.
        start: (n_states,) float64, distribution of an episode's first state.
        terminal: (n_states,) bool, states that are worth 0 and never left.
        survival_state: The terminal state in which a patient has survived, where there is one.
        forbidden: (n_states, n_actions) bool, pairs that no policy may come to. None: there are
            none.
        entry_rewards: (n_states,) float64, the reward on entering a state, where rewards depend on
            nothing else; `rewards` holds its expectations. It keeps a policy's value and survival
            the same to the bit where survival is the only reward.
        dose_grid: What an action's index means, for messages, where actions are doses.
    """

    rows: sp.csr_array
    mixture: sp.csr_array
    rewards: FloatArray
    start: FloatArray
    terminal: BoolArray
    survival_state: int | None = None
    forbidden: BoolArray | None = None
    entry_rewards: FloatArray | None = None
    dose_grid: DoseGrid | None = None

    def expected(self, values: FloatArray) -> FloatArray:
        """Mean of a value over the next state of each pair.

        Args:
            values: (n_states,).

        Returns:
            float64 (n_states, n_actions). An episode that ends without a next state adds nothing.
        """
        mean: FloatArray = self.mixture @ (self.rows @ values)
        return mean.reshape(self.rewards.shape)

    def under(self, probabilities: FloatArray) -> sp.csr_array:
        """Transitions between states under a policy.

        Args:
            probabilities: (n_states, n_actions).

        Returns:
            csr float64 (n_states, n_states); rows of terminal states are empty.
        """
        # A csr over pairs is one over states that keeps every n_actions-th of its row pointers.
        pairs = np.where(self.terminal[:, None], 0.0, probabilities).ravel()
        weights = np.repeat(pairs, np.diff(self.mixture.indptr)) * self.mixture.data
        kept = np.flatnonzero(weights)
        ends = np.searchsorted(kept, self.mixture.indptr[:: probabilities.shape[1]])
        by_state = sp.csr_array(
            (weights[kept], self.mixture.indices[kept], ends),
            shape=(len(probabilities), self.rows.shape[0]),
        )
        # Actions may share a row, which is then added once for all of them.
        by_state.sum_duplicates()
        return by_state @ self.rows

"""Dynamics of counted records, in which pairs borrow from their state."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import scipy.sparse as sp

from sepsis_rl.dynamics.counts import Counts
from sepsis_rl.dynamics.dynamics import Dynamics
from sepsis_rl.errors import InputError

Unseen = Literal["pooled", "zero"]
UNSEEN_RULES: Final[tuple[Unseen, ...]] = get_args(Unseen)
"""What a pair is like that the records never have: `pooled`, like all recorded decisions in its
state together (and in a state never visited it ends the episode with the mean return); or `zero`,
it ends the episode with nothing."""


def pooled_dynamics(counts: Counts, prior: float = 0.0, unseen: Unseen = "pooled") -> Dynamics:
    """What the records say follows each decision.

    A pair (s, a) that was recorded N times is what followed it, and besides `prior` decisions like
    all those recorded in s, whatever the action: (counts + prior * pooled row) / (N + prior).

    Args:
        counts: The records; several samples make several processes side by side.
        prior: Weight of the state's pooled row, in decisions, at least 0.
        unseen: The rule for pairs that were never recorded.

    Returns:
        Dynamics in which no state is terminal: transitions that end an episode are left out of
        the distributions.

    Raises:
        InputError: The prior is out of range, or there is no such rule.
    """
    if not 0 <= prior < np.inf:
        raise InputError(f"prior is {prior}; accepted: 0 or more")
    if unseen not in UNSEEN_RULES:
        raise InputError(f"unseen is {unseen!r}; accepted: {' or '.join(UNSEEN_RULES)}")
    n_states, n_actions = counts.pairs.shape
    seen = counts.pairs > 0
    n_state = counts.pairs.sum(axis=1, keepdims=True)
    visited = n_state > 0
    # A pair that is all that its state has is like the state's pooled row; rounding shall not tell
    # it from the pairs that borrow that row.
    has_own_row = seen & ((counts.pairs < n_state) | (unseen == "zero"))
    # What one recorded transition of the pair, and one of its state, weighs in the pair's mean.
    weight = has_own_row / (counts.pairs + prior + ~seen)
    share = np.where(has_own_row, prior * weight, 1.0 if unseen == "pooled" else 0.0)
    share *= visited / (n_state + ~visited)
    rewards = weight * counts.reward_sums + share * counts.reward_sums.sum(axis=1, keepdims=True)
    if unseen == "pooled":
        mean_return = np.repeat(counts.mean_return, n_states // counts.n_samples)
        rewards = np.where(visited, rewards, mean_return[:, None])

    own = counts.transitions
    # The transitions of all pairs of a state stand together: they are its pooled row as they are.
    pooled = sp.csr_array((own.data, own.indices, own.indptr[::n_actions]), shape=(n_states,) * 2)
    pair = np.arange(seen.size)
    mixture = sp.csr_array(
        (
            np.stack([weight.ravel(), share.ravel()], axis=1).ravel(),
            np.stack([pair, seen.size + pair // n_actions], axis=1).ravel(),
            2 * np.arange(seen.size + 1),
        ),
        shape=(seen.size, seen.size + n_states),
    )
    mixture.eliminate_zeros()
    return Dynamics(
        rows=sp.csr_array(sp.vstack([own, pooled], format="csr")),
        mixture=mixture,
        rewards=rewards,
        start=counts.start,
        terminal=np.zeros(n_states, dtype=np.bool_),
    )

"""Recorded transitions, added up: all that dynamics are estimated from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Counts:
    """How often records have each decision, what it paid and where it led.

    Several samples of episodes lie side by side as one larger process, whose states are those of
    the first sample, then those of the second, and so on.

    Attributes:
        pairs: (n_states, n_actions) float64, how often each action was taken in each state.
        transitions: (n_states * n_actions, n_states) csr float64, how often each state followed
            and *the episode went on*; the row of a pair is state * n_actions + action. What its
            sum lacks of the pair's count ended the episode.
        reward_sums: (n_states, n_actions) float64, all rewards that the pair was paid.
        start: (n_states,) float64, share of a sample's episodes that begin in each state.
        mean_return: (samples,) float64, mean return of a sample's episodes.

    Raises:
        InputError: Shapes that do not fit together, or a negative count.
    """

    pairs: FloatArray
    transitions: sp.csr_array
    reward_sums: FloatArray
    start: FloatArray
    mean_return: FloatArray

    def __post_init__(self) -> None:
        n_states = len(self.pairs)
        for name, shape in (
            ("transitions", (self.pairs.size, n_states)),
            ("reward_sums", self.pairs.shape),
            ("start", (n_states,)),
        ):
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"{name} has shape {getattr(self, name).shape}; accepted: {shape}, as pairs "
                    f"has shape {self.pairs.shape}"
                )
        if self.pairs.min() < 0 or (self.transitions.nnz and self.transitions.data.min() < 0):
            raise InputError("a count is negative; accepted: transitions counted from records")

    @property
    def n_samples(self) -> int:
        """Number of samples that lie side by side."""
        return len(self.mean_return)


class CountedEpisodes:
    """Recorded episodes, prepared so that samples of them are counted fast.

    Args:
        episode: int64 (rows,), which episode a row belongs to, from 0 upward.
        observation: int64 (rows,), state.
        action: int64 (rows,).
        reward: float64 (rows,).
        next_observation: int64 (rows,), state.
        terminated: bool (rows,), the episode ended in `next_observation`.
        starts: int64 (episodes,), first state of each episode.
        returns: float64 (episodes,).
        n_states: Number of states.
        n_actions: Number of actions.
    """

    def __init__(
        self,
        *,
        episode: IntArray,
        observation: IntArray,
        action: IntArray,
        reward: FloatArray,
        next_observation: IntArray,
        terminated: BoolArray,
        starts: IntArray,
        returns: FloatArray,
        n_states: int,
        n_actions: int,
    ) -> None:
        self.n_states, self.n_actions, self.returns = n_states, n_actions, returns
        n_episodes, n_pairs = len(starts), n_states * n_actions

        def by_episode(
            episode: IntArray, column: IntArray, n_columns: int, values: FloatArray | None = None
        ) -> sp.csr_array:
            values = np.ones(len(column)) if values is None else values
            return sp.csr_array((values, (episode, column)), shape=(n_episodes, n_columns))

        pair, paid = observation * n_actions + action, reward != 0
        triples, which = np.unique(
            (pair * n_states + next_observation)[~terminated], return_inverse=True
        )
        source, target = np.divmod(triples, n_states)
        # Indices of 32 bits where they do: sparse products wait for memory.
        self._target = target.astype(sp.get_index_dtype(maxval=n_states))
        self._row_ends = np.cumsum(np.bincount(source, minlength=n_pairs))
        # (episodes, ...): how often an episode goes on by a transition, ends with a pair, what it
        # is paid for a pair, and where it starts.
        self._transitions = by_episode(episode[~terminated], which, len(triples))
        self._ends = by_episode(episode[terminated], pair[terminated], n_pairs)
        self._rewards = by_episode(episode[paid], pair[paid], n_pairs, reward[paid])
        self._starts = by_episode(np.arange(n_episodes), starts, n_states)

    @property
    def n_transitions(self) -> int:
        """Number of distinct transitions after which an episode went on."""
        return len(self._target)

    def sample(self, weights: FloatArray) -> Counts:
        """Counts samples of the episodes.

        Args:
            weights: How often each episode counts, float64 (samples, episodes).
        """
        samples, shape = len(weights), (len(weights) * self.n_states, self.n_actions)
        n_pairs = shape[0] * shape[1]
        dtype = sp.get_index_dtype(maxval=max(n_pairs, samples * self.n_transitions))
        sample = np.arange(samples, dtype=dtype)[:, None]
        targets = self._target + sample * self.n_states
        row_ends = self._row_ends + sample * self.n_transitions
        transitions = sp.csr_array(
            (
                (weights @ self._transitions).ravel(),
                targets.ravel(),
                np.append(0, row_ends).astype(dtype),
            ),
            shape=(n_pairs, shape[0]),
        )
        goes_on = transitions @ np.ones(shape[0])
        n_episodes = weights.sum(axis=1, keepdims=True)
        return Counts(
            pairs=(goes_on + (weights @ self._ends).ravel()).reshape(shape),
            transitions=transitions,
            reward_sums=(weights @ self._rewards).reshape(shape),
            start=(weights @ self._starts / n_episodes).ravel(),
            mean_return=weights @ self.returns / n_episodes[:, 0],
        )

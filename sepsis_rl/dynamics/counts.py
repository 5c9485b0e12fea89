"""Recorded transitions, added up: all that dynamics are estimated from."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray

# Enough to make the overhead of a part vanish, few enough to take some 100 MB on the way.
_ROWS_AT_ONCE: Final = 2**20


@dataclass(frozen=True, eq=False)
class Counts:
    """How often records have each decision, what it paid and where it led.

    All of it adds up: the counts of two disjoint parts of the records, such as two files, are those
    of both together by `+`. A part may be any rows, also some of an episode's.

    Several samples of episodes lie side by side as one larger process, whose states are those of
    the first sample, then those of the second, and so on.

    Attributes:
        pairs: (n_states, n_actions) float64, how often each action was taken in each state.
        transitions: (n_states * n_actions, n_states) csr float64, how often each state followed
            and *the episode went on*; the row of a pair is state * n_actions + action. What its
            sum lacks of the pair's count ended the episode.
        reward_sums: (n_states, n_actions) float64, all rewards that the pair was paid.
        starts: (n_states,) float64, how many episodes begin in each state.
        return_sums: (samples,) float64, all rewards of a sample's episodes.

    Raises:
        InputError: Shapes that do not fit together, or a negative count.
    """

    pairs: FloatArray
    transitions: sp.csr_array
    reward_sums: FloatArray
    starts: FloatArray
    return_sums: FloatArray

    def __post_init__(self) -> None:
        n_states = len(self.pairs)
        for name, shape in (
            ("transitions", (self.pairs.size, n_states)),
            ("reward_sums", self.pairs.shape),
            ("starts", (n_states,)),
        ):
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"{name} has shape {getattr(self, name).shape}; accepted: {shape}, as pairs "
                    f"has shape {self.pairs.shape}"
                )
        if self.pairs.min() < 0 or (self.transitions.nnz and self.transitions.data.min() < 0):
            raise InputError("a count is negative; accepted: transitions counted from records")

    def __add__(self, other: Counts) -> Counts:
        """Counts this and other records together.

        Raises:
            InputError: The others have other states, actions or samples.
        """
        shapes = [(counts.pairs.shape, counts.n_samples) for counts in (self, other)]
        if shapes[0] != shapes[1]:
            named = " and ".join(f"{shape} in {samples} sample(s)" for shape, samples in shapes)
            raise InputError(f"counts of {named} do not add up; accepted: the same of both")
        return Counts(
            pairs=self.pairs + other.pairs,
            transitions=sp.csr_array(self.transitions + other.transitions),
            reward_sums=self.reward_sums + other.reward_sums,
            starts=self.starts + other.starts,
            return_sums=self.return_sums + other.return_sums,
        )

    @property
    def n_samples(self) -> int:
        """Number of samples that lie side by side."""
        return len(self.return_sums)

    @property
    def n_episodes(self) -> FloatArray:
        """Number of episodes of each sample, (samples,)."""
        number: FloatArray = self.starts.reshape(self.n_samples, -1).sum(axis=1)
        return number

    @property
    def start(self) -> FloatArray:
        """Share of a sample's episodes that begin in each state, (n_states,)."""
        share: FloatArray = self.starts.reshape(self.n_samples, -1) / self.n_episodes[:, None]
        return share.ravel()

    @property
    def mean_return(self) -> FloatArray:
        """Mean return of a sample's episodes, (samples,)."""
        return self.return_sums / self.n_episodes


def count_rows(
    *,
    observation: IntArray,
    action: IntArray,
    reward: npt.NDArray[np.floating],
    next_observation: IntArray,
    terminated: BoolArray,
    is_first: BoolArray,
    n_states: int,
    n_actions: int,
) -> Counts:
    """Counts rows, once each, in one pass.

    Memory goes with the distinct transitions, however many rows there are.

    Args:
        observation: int64 (rows,), state.
        action: int64 (rows,).
        reward: Floating (rows,).
        next_observation: int64 (rows,), state.
        terminated: bool (rows,), the episode ended in `next_observation`.
        is_first: bool (rows,), an episode begins with the row.
        n_states: Number of states.
        n_actions: Number of actions.
    """
    shape, n_pairs = (n_states, n_actions), n_states * n_actions
    index = sp.get_index_dtype(maxval=max(n_pairs, _ROWS_AT_ONCE))

    def count(few: slice) -> Counts:
        state, goes_on, paid = observation[few], ~terminated[few], reward[few].astype(np.float64)
        pair = state * n_actions + action[few]
        moved = pair[goes_on].astype(index), next_observation[few][goes_on].astype(index)
        moves = np.ones(len(moved[0])), moved
        return Counts(
            pairs=np.bincount(pair, minlength=n_pairs).reshape(shape).astype(np.float64),
            transitions=sp.csr_array(moves, shape=(n_pairs, n_states)),  # those alike add up
            reward_sums=np.bincount(pair, paid, n_pairs).reshape(shape).astype(np.float64),
            starts=np.bincount(state[is_first[few]], minlength=n_states).astype(np.float64),
            return_sums=paid.sum(keepdims=True),
        )

    firsts = range(0, max(len(observation), 1), _ROWS_AT_ONCE)
    return functools.reduce(
        operator.add, (count(slice(first, first + _ROWS_AT_ONCE)) for first in firsts)
    )


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
        return Counts(
            pairs=(goes_on + (weights @ self._ends).ravel()).reshape(shape),
            transitions=transitions,
            reward_sums=(weights @ self._rewards).reshape(shape),
            starts=(weights @ self._starts).ravel(),
            return_sums=weights @ self.returns,
        )

"""Fitted Q evaluation on counts: the value of a policy in the world that the records show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import scipy.sparse as sp

from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray
from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.planning import solve_chain

Unseen = Literal["pooled", "zero"]
UNSEEN_RULES: Final[tuple[Unseen, ...]] = get_args(Unseen)
"""What a pair of state and action is worth that the records never have: `pooled`, the mean over
all recorded decisions in that state (in a state never visited, the mean return); or `zero`."""


# More visits than this, to whatever state, are the rounding of a loop that is never left.
_MOST_VISITS: Final = 1e9


class CountModel:
    """What follows each state and action in recorded episodes, counted once for all policies.

    Args:
        episodes: The records.
    """

    def __init__(self, episodes: Episodes) -> None:
        self.episodes = episodes
        n_states, n_actions = episodes.n_states, episodes.n_actions
        pair = episodes.observation * n_actions + episodes.action
        goes_on = ~episodes.terminated
        triple = pair * n_states + episodes.next_observation
        triples, column = np.unique(triple[goes_on], return_inverse=True)
        #: Pair and next state of each distinct transition that does not end its episode.
        self.pair, self.arrival = np.divmod(triples, n_states)
        by_state = np.bincount(self.pair // n_actions, minlength=n_states)
        self.row_ends = np.cumsum(by_state)
        # (episodes, ...): how often an episode has a pair, a transition, the rewards it collects.
        self.pairs = self._by_episode(pair, n_states * n_actions)
        self.rewards = self._by_episode(pair, n_states * n_actions, episodes.reward)
        where = np.flatnonzero(goes_on)
        self.triples = sp.csr_array(
            (np.ones(len(where)), (episodes.episode[where], column)),
            shape=(len(episodes), len(triples)),
        )
        self.starts = sp.csr_array(
            (np.ones(len(episodes)), (np.arange(len(episodes)), episodes.starts)),
            shape=(len(episodes), n_states),
        )

    def _by_episode(
        self, column: np.ndarray, n_columns: int, values: FloatArray | None = None
    ) -> sp.csr_array:
        episodes = self.episodes
        values = np.ones(len(column)) if values is None else values
        shape = (len(episodes), n_columns)
        return sp.csr_array((values, (episodes.episode, column)), shape=shape)


@dataclass(frozen=True)
class FittedQ:
    """What fitted Q evaluation says of a policy, for each sample of the episodes.

    Attributes:
        value: float64 (samples,), mean value of the first states.
        v: float64 (samples, n_states).
        q: float64 (samples, n_states, n_actions), whose mean under the policy is `v`.
        unseen_share: float64 (samples,), share of the policy's decisions, by its own visits in
            the model, that the sample never has.
    """

    value: FloatArray
    v: FloatArray
    q: FloatArray
    unseen_share: FloatArray


def fitted_q_evaluation(
    table: FloatArray, model: CountModel, counts: FloatArray, unseen: Unseen = "pooled"
) -> FittedQ:
    """Solves Q(s, a) = r(s, a) + gamma * sum_s' p(s'|s, a) sum_a' pi(a'|s') Q(s', a').

    Source: Le, Voloshin & Yue (2019), "Batch policy learning under constraints", ICML, algorithm 3.
    With a table for Q its regressions are means over the counted transitions, and their fixed
    point is solved for at once.

    Args:
        table: The policy, (n_states, n_actions).
        model: Counts of the episodes.
        counts: How often each episode counts, (samples, episodes); an episode may be left out.
        unseen: What a pair is worth that a sample never has. It often decides the answer.

    Returns:
        Values and what they are made of.

    Raises:
        InputError: There is no such rule, or in the counted world the policy goes on forever.
    """
    solved = _Solved(table, model, counts, unseen, tolerance=1e-13)
    return FittedQ(solved.value, solved.v, solved.q(), solved.unseen_share())


def fitted_values(
    table: FloatArray, model: CountModel, counts: FloatArray, unseen: Unseen = "pooled"
) -> FloatArray:
    """The values of `fitted_q_evaluation` alone, to some 1e-6, for many samples: (samples,)."""
    return _Solved(table, model, counts, unseen, tolerance=1e-8).value


class _Solved:
    """The fixed point for every sample, as one block-diagonal system."""

    def __init__(
        self,
        table: FloatArray,
        model: CountModel,
        counts: FloatArray,
        unseen: Unseen,
        tolerance: float,
    ) -> None:
        if unseen not in UNSEEN_RULES:
            raise InputError(f"unseen is {unseen!r}; accepted: {' or '.join(UNSEEN_RULES)}")
        self.table, self.model, self.counts = table, model, counts
        samples, gamma = len(counts), model.episodes.gamma
        shape = (samples, *table.shape)
        self.pair_counts = (counts @ model.pairs).reshape(shape)
        self.state_counts = self.pair_counts.sum(axis=2)
        self.seen: BoolArray = self.pair_counts > 0
        self.visited: BoolArray = self.state_counts > 0
        self.unseen_probability = np.where(self.seen, 0.0, table).sum(axis=2)
        self.pooled = unseen == "pooled"
        # What one recorded row of a pair weighs in the backup of its state.
        weight = np.divide(table, self.pair_counts, out=np.zeros(shape), where=self.seen)
        if self.pooled:
            weight += np.divide(
                self.unseen_probability,
                self.state_counts,
                out=np.zeros(shape[:2]),
                where=self.visited,
            )[..., None]
        self.reward_sums = (counts @ model.rewards).reshape(shape)
        self.triple_counts = counts @ model.triples
        self.nowhere = (
            counts @ model.episodes.returns / counts.sum(axis=1)
            if self.pooled
            else np.zeros(samples)
        )
        right = np.where(
            self.visited, (weight * self.reward_sums).sum(axis=2), self.nowhere[:, None]
        )
        rows = weight.reshape(samples, -1)[:, model.pair] * self.triple_counts
        self.moves = self._block_diagonal(gamma * rows)
        most = _MOST_VISITS * float(np.abs(right).max())
        self.v = _solve(self.moves, right, most, tolerance)
        starts = counts @ model.starts
        self.start = starts / starts.sum(axis=1, keepdims=True)
        self.value: FloatArray = (self.start * self.v).sum(axis=1)

    def _block_diagonal(self, weights: FloatArray) -> sp.csr_array:
        samples, n_triples = weights.shape
        n_states = len(self.table)
        block = np.arange(samples)[:, None]
        ends = (self.model.row_ends + block * n_triples).ravel()
        arrivals = (self.model.arrival + block * n_states).ravel()
        size = samples * n_states
        return sp.csr_array((weights.ravel(), arrivals, np.append(0, ends)), shape=(size, size))

    def q(self) -> FloatArray:
        """The value of every pair, (samples, n_states, n_actions)."""
        model, samples = self.model, len(self.counts)
        after = self.triple_counts * self.v[:, model.arrival]
        pair = (model.pair + np.arange(samples)[:, None] * self.table.size).ravel()
        continued = np.bincount(pair, after.ravel(), minlength=self.pair_counts.size)
        backed_up = self.reward_sums + model.episodes.gamma * continued.reshape(self.seen.shape)
        elsewhere = np.broadcast_to(self.nowhere[:, None], self.visited.shape).copy()
        if self.pooled:
            np.divide(backed_up.sum(axis=2), self.state_counts, out=elsewhere, where=self.visited)
        unknown = np.broadcast_to(elsewhere[..., None], self.seen.shape).copy()
        q: FloatArray = np.divide(backed_up, self.pair_counts, out=unknown, where=self.seen)
        return q

    def unseen_share(self) -> FloatArray:
        """Visits to unseen pairs over all visits, (samples,)."""
        visits = _solve(self.moves.T.tocsr(), self.start, _MOST_VISITS, tolerance=1e-13)
        share: FloatArray = (visits * self.unseen_probability).sum(axis=1) / visits.sum(axis=1)
        return share


def _solve(moves: sp.csr_array, right: FloatArray, most: float, tolerance: float) -> FloatArray:
    """The fixed point of all samples, none of it above `most`."""
    with np.errstate(over="ignore", invalid="ignore"):  # a loop without end lets it overflow
        solution = solve_chain(moves, right.ravel(), tolerance).reshape(right.shape)
    if not np.abs(solution).max() <= most:
        raise InputError("under this policy an episode may never end")
    return solution

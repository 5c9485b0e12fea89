"""Fitted Q evaluation on counts: the value of a policy in the world that the records show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import scipy.sparse as sp

from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray
from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.planning import solve_chain

Unseen = Literal["pooled", "zero"]
UNSEEN_RULES: Final[tuple[Unseen, ...]] = get_args(Unseen)
"""What a pair of state and action is worth that the records never have: `pooled`, the mean over
all recorded decisions in that state (in a state never visited, the mean return); or `zero`."""


# More visits than this, to whatever state, are the rounding of a loop that is never left.
_MOST_VISITS: Final = 1e9


class CountModel:
    """What follows each state and action in recorded episodes, counted once for all samples.

    Args:
        episodes: The records.
    """

    def __init__(self, episodes: Episodes) -> None:
        self.episodes = episodes
        n_states, n_actions = episodes.n_states, episodes.n_actions
        state, action = episodes.observation, episodes.action
        goes_on = np.flatnonzero(~episodes.terminated)
        # Each distinct transition that does not end its episode; those of one move, from a state
        # to the next one whatever the action, stand together.
        move = state * n_states + episodes.next_observation
        triples, column = np.unique((move * n_actions + action)[goes_on], return_inverse=True)
        moves, self.move = np.unique(triples // n_actions, return_inverse=True)
        source, self.arrival = np.divmod(triples // n_actions, n_states)
        self.pair = source * n_actions + triples % n_actions
        source, target = np.divmod(moves, n_states)
        self.target = target.astype(np.int32)
        self.row_ends = np.cumsum(np.bincount(source, minlength=n_states))

        # (episodes, ...): how often an episode has a pair, a transition, the rewards it collects.
        pair, n_pairs = state * n_actions + action, n_states * n_actions
        self.pairs = _by_episode(episodes, episodes.episode, pair, n_pairs)
        self.rewards = _by_episode(episodes, episodes.episode, pair, n_pairs, episodes.reward)
        self.triples = _by_episode(episodes, episodes.episode[goes_on], column, len(triples))
        self.starts = _by_episode(episodes, np.arange(len(episodes)), episodes.starts, n_states)

    def sample(self, counts: FloatArray) -> CountedSamples:
        """The counts of samples of the episodes.

        Args:
            counts: How often each episode counts, (samples, episodes); one may be left out.
        """
        return CountedSamples(self, counts)


class CountedSamples:
    """Counts of several samples of the episodes, shared by the policies that are judged on them.

    Args:
        model: The episodes, counted.
        counts: How often each episode counts, (samples, episodes).
    """

    def __init__(self, model: CountModel, counts: FloatArray) -> None:
        self.model = model
        episodes = model.episodes
        shape = (len(counts), episodes.n_states, episodes.n_actions)
        self.pair_counts = (counts @ model.pairs).reshape(shape)
        self.state_counts = self.pair_counts.sum(axis=2)
        self.reward_sums = (counts @ model.rewards).reshape(shape)
        self.triple_counts = counts @ model.triples
        self.seen: BoolArray = self.pair_counts > 0
        self.visited: BoolArray = self.state_counts > 0
        # What one recorded row weighs in the mean of its pair, and in that of its state.
        self.of_pair = np.divide(1.0, self.pair_counts, out=np.zeros(shape), where=self.seen)
        self.of_state = np.divide(
            1.0, self.state_counts, out=np.zeros(shape[:2]), where=self.visited
        )
        n = counts.sum(axis=1, keepdims=True)
        self.start = (counts @ model.starts) / n
        self.mean_return = counts @ episodes.returns / n[:, 0]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.state_counts)


def _by_episode(
    episodes: Episodes,
    row: IntArray,
    column: IntArray,
    n_columns: int,
    values: FloatArray | None = None,
) -> sp.csr_array:
    values = np.ones(len(column)) if values is None else values
    return sp.csr_array((values, (row, column)), shape=(len(episodes), n_columns))


@dataclass(frozen=True)
class FittedQ:
    """What fitted Q evaluation says of a policy, for each sample of the episodes.

    Attributes:
        value: float64 (samples,), mean value of the first states.
        v: float64 (samples, n_states).
        q: float64 (samples, n_states, n_actions), whose mean under the policy is `v`.
        unseen_share: float64 (samples,), share of the policy's decisions, by its own visits in
            the model, that the sample never has; NaN where visits never end.
    """

    value: FloatArray
    v: FloatArray
    q: FloatArray
    unseen_share: FloatArray


def fitted_q_evaluation(
    table: FloatArray, samples: CountedSamples, unseen: Unseen = "pooled"
) -> FittedQ:
    """Solves Q(s, a) = r(s, a) + gamma * sum_s' p(s'|s, a) sum_a' pi(a'|s') Q(s', a').

    Source: Le, Voloshin & Yue (2019), "Batch policy learning under constraints", ICML, algorithm 3.
    With a table for Q its regressions are means over the counted transitions, and their fixed
    point is solved for at once.

    Args:
        table: The policy, (n_states, n_actions).
        samples: Counts of samples of the episodes.
        unseen: What a pair is worth that a sample never has. It often decides the answer.

    Returns:
        Values and what they are made of.

    Raises:
        InputError: There is no such rule, or in the counted world the policy is paid forever.
    """
    solved = _Solved(table, samples, unseen, tolerance=1e-13)
    return FittedQ(solved.value, solved.v, solved.q(), solved.unseen_share())


def fitted_values(
    table: FloatArray, samples: CountedSamples, unseen: Unseen = "pooled"
) -> FloatArray:
    """The values of `fitted_q_evaluation` alone, to some 1e-6, for many samples: (samples,)."""
    return _Solved(table, samples, unseen, tolerance=1e-8).value


class _Solved:
    """The fixed point for every sample, as one block-diagonal system."""

    def __init__(
        self,
        table: FloatArray,
        samples: CountedSamples,
        unseen: Unseen,
        tolerance: float,
    ) -> None:
        if unseen not in UNSEEN_RULES:
            raise InputError(f"unseen is {unseen!r}; accepted: {' or '.join(UNSEEN_RULES)}")
        self.table, self.samples = table, samples
        model, gamma = samples.model, samples.model.episodes.gamma
        self.unseen_probability = np.where(samples.seen, 0.0, table).sum(axis=2)
        # What one recorded row of a pair weighs in the backup of its state.
        weight = table * samples.of_pair
        self.pooled = unseen == "pooled"
        self.nowhere = np.zeros(len(samples))
        if self.pooled:
            weight += (self.unseen_probability * samples.of_state)[..., None]
            self.nowhere = samples.mean_return
        right = np.where(
            samples.visited,
            (weight * samples.reward_sums).sum(axis=2),
            self.nowhere[:, None],
        )
        weighted = weight.reshape(len(samples), -1)[:, model.pair]
        weighted *= samples.triple_counts
        self.moves = self._block_diagonal(gamma * weighted)
        most = _MOST_VISITS * float(np.abs(right).max())
        self.v = _solve(self.moves, right, most, tolerance)
        self.value: FloatArray = (samples.start * self.v).sum(axis=1)

    def _block_diagonal(self, weights: FloatArray) -> sp.csr_array:
        """Transitions of each sample, (samples, transitions), as one matrix over all states."""
        model, samples, n_states = self.samples.model, len(weights), len(self.table)
        n_moves = len(model.target)
        # A third of the time of np.add.reduceat, which has many short runs to add up.
        # Where no episode goes on, bincount forgets that its weights are no integers.
        weights = np.stack([np.bincount(model.move, row, n_moves) for row in weights], dtype=float)
        block = np.arange(samples, dtype=np.int32)[:, None]
        targets = (model.target + block * n_states).ravel()
        # Indices of 32 bits: the products of the solver wait for memory.
        ends = (model.row_ends + block * n_moves).ravel().astype(np.int32)
        shape = (samples * n_states, samples * n_states)
        return sp.csr_array((weights.ravel(), targets, np.append(np.int32(0), ends)), shape=shape)

    def q(self) -> FloatArray:
        """The value of every pair, (samples, n_states, n_actions)."""
        samples, model = self.samples, self.samples.model
        after = samples.triple_counts * self.v[:, model.arrival]
        pair = (model.pair + np.arange(len(samples))[:, None] * self.table.size).ravel()
        continued = np.bincount(pair, after.ravel(), minlength=samples.seen.size)
        backed_up = samples.reward_sums + model.episodes.gamma * continued.reshape(
            samples.seen.shape
        )
        elsewhere = np.broadcast_to(self.nowhere[:, None], samples.visited.shape)
        if self.pooled:
            pooled = backed_up.sum(axis=2) * samples.of_state
            elsewhere = np.where(samples.visited, pooled, elsewhere)
        q: FloatArray = np.where(samples.seen, backed_up * samples.of_pair, elsewhere[..., None])
        return q

    def unseen_share(self) -> FloatArray:
        """Visits to unseen pairs over all visits, (samples,); NaN where they have no end."""
        right = self.samples.start
        try:
            visits = _solve(self.moves.T.tocsr(), right, _MOST_VISITS, tolerance=1e-13)
        except InputError:  # a loop that pays nothing has a value, but no number of visits
            return np.full(len(self.samples), np.nan)
        unseen = (visits * self.unseen_probability).sum(axis=1)
        share: FloatArray = unseen / visits.sum(axis=1)
        return share


def _solve(moves: sp.csr_array, right: FloatArray, most: float, tolerance: float) -> FloatArray:
    """The fixed point of all samples, none of it above `most`."""
    with np.errstate(over="ignore", invalid="ignore"):  # a loop without end lets it overflow
        solution = solve_chain(moves, right.ravel(), tolerance).reshape(right.shape)
    if not np.abs(solution).max() <= most:
        raise InputError("under this policy an episode may never end")
    return solution

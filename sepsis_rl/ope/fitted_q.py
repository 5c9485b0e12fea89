"""Fitted Q evaluation on counts: the value of a policy in the world that the records show."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from sepsis_rl.dynamics import CountedEpisodes, Counts, Unseen, pooled_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray
from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.planning import solve_chain

# More visits than this, to whatever state, are the rounding of a loop that is never left.
_MOST_VISITS: Final = 1e9
# With more at once, counting and solving leave the processor's cache and take longer.
_TRANSITIONS_AT_ONCE: Final = 2**20


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


def count_episodes(episodes: Episodes) -> CountedEpisodes:
    """Prepares episodes so that samples of them are counted fast."""
    rows = ("episode", "observation", "action", "reward", "next_observation", "terminated")
    names = (*rows, "starts", "returns", "n_states", "n_actions")
    return CountedEpisodes(**{name: getattr(episodes, name) for name in names})


class FittedQEvaluation:
    """The dynamics of counted episodes, on which policies are evaluated.

    It solves Q(s, a) = r(s, a) + gamma * sum_s' p(s'|s, a) sum_a' pi(a'|s') Q(s', a').

    Source: Le, Voloshin & Yue (2019), "Batch policy learning under constraints", ICML, algorithm 3.
    With a table for Q its regressions are means over the counted transitions, and their fixed
    point is solved for at once, of all samples together.

    Args:
        counts: Counts of samples of the episodes.
        gamma: Discount of the episodes, in (0, 1].
        unseen: What a pair is worth that a sample never has. It often decides the answer.

    Raises:
        InputError: There is no such rule.
    """

    def __init__(self, counts: Counts, *, gamma: float, unseen: Unseen = "pooled") -> None:
        self.counts, self.gamma = counts, gamma
        self.dynamics = pooled_dynamics(counts, unseen=unseen)

    def values(self, table: FloatArray) -> FloatArray:
        """The values that `fit` tells, (samples,), alone and to some 1e-6, which is faster."""
        return self._solve(table, tolerance=1e-8)[0]

    def fit(self, table: FloatArray) -> FittedQ:
        """Solves for the values of all states and pairs.

        Args:
            table: The policy, (n_states, n_actions).

        Returns:
            Values and what they are made of.

        Raises:
            InputError: In the counted world the policy is paid forever.
        """
        samples = self.counts.n_samples
        value, v, moves = self._solve(table, tolerance=1e-13)
        q = self.dynamics.rewards + self.gamma * self.dynamics.expected(v)
        unseen_share = np.full(samples, np.nan)
        with suppress(InputError):  # a loop that pays nothing has a value, but no number of visits
            visits = _solve_chains(moves.T.tocsr(), self.dynamics.start, _MOST_VISITS, 1e-13)
            unseen = (np.tile(table, (samples, 1)) * (self.counts.pairs == 0)).sum(axis=1)
            visits, unseen = visits.reshape(samples, -1), unseen.reshape(samples, -1)
            unseen_share = (visits * unseen).sum(axis=1) / visits.sum(axis=1)
        return FittedQ(
            value, v.reshape(samples, -1), q.reshape(samples, *table.shape), unseen_share
        )

    def _solve(
        self, table: FloatArray, tolerance: float
    ) -> tuple[FloatArray, FloatArray, sp.csr_array]:
        """The values of the samples and of their states, and the discounted moves."""
        dynamics, samples = self.dynamics, self.counts.n_samples
        tables = np.tile(table, (samples, 1))
        moves = dynamics.under(tables)
        moves.data *= self.gamma
        rewards = (tables * dynamics.rewards).sum(axis=1)
        most = _MOST_VISITS * float(np.abs(rewards).max())
        try:
            v = _solve_chains(moves, rewards, most, tolerance)
        except InputError:
            # Where nothing is paid forever the value is 0, but its equations have many solutions,
            # so that only the iteration finds it, and that not always.
            endless = _endless(moves)
            if rewards[endless].any():
                raise
            ending = sp.csr_array(sp.diags_array((~endless).astype(np.float64)) @ moves)
            v = _solve_chains(ending, rewards, most, tolerance)
        value: FloatArray = (dynamics.start * v).reshape(samples, -1).sum(axis=1)
        return value, v, moves


def refitted_values(
    tables: FloatArray,
    episodes: CountedEpisodes,
    weights: FloatArray,
    *,
    gamma: float,
    advance: Callable[[int], Any] = lambda count: None,
) -> FloatArray:
    """The values of policies, fitted anew to each of many samples of the episodes.

    Args:
        tables: Probabilities, (policies, n_states, n_actions).
        episodes: The episodes, prepared.
        weights: How often each episode counts, (samples, episodes).
        gamma: Discount of the episodes.
        advance: Told of samples done; each policy has them all.

    Returns:
        float64 (samples, policies), to some 1e-6.
    """
    at_once = max(1, _TRANSITIONS_AT_ONCE // max(1, episodes.n_transitions))
    values = np.empty((len(weights), len(tables)))
    for first in range(0, len(weights), at_once):
        few = slice(first, min(first + at_once, len(weights)))
        model = FittedQEvaluation(episodes.sample(weights[few]), gamma=gamma)
        for policy, table in enumerate(tables):
            values[few, policy] = model.values(table)
            advance(few.stop - few.start)
    return values


def _endless(moves: sp.csr_array) -> BoolArray:
    """The states from which no episode comes to an end, (n_states,)."""
    ending: BoolArray = moves.sum(axis=1) < 1 - 1 / _MOST_VISITS
    while True:
        further = ending | (moves @ ending.astype(np.float64) > 0)
        if (further == ending).all():
            return ~ending
        ending = further


def _solve_chains(
    moves: sp.csr_array, right: FloatArray, most: float, tolerance: float
) -> FloatArray:
    """The fixed point of all samples, none of it above `most`."""
    with np.errstate(over="ignore", invalid="ignore"):  # a loop without end lets it overflow
        solution = solve_chain(moves, right, tolerance)
    if not np.abs(solution).max() <= most:
        raise InputError("under this policy an episode may never end")
    return solution

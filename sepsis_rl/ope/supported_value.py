"""What policies are worth on dynamics of all records, less a price for what is seldom recorded.

It is for choosing. Records that a policy was trained on may be among those that the dynamics are
estimated from: what they lack is more than what they flatter. As a claim of what a policy is worth
it is too high by a point or so, which is what episodes that chose nothing are for.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from sepsis_rl.baselines import rarity_costs, recorded_policy
from sepsis_rl.data.transitions import Transitions
from sepsis_rl.dynamics import Counts, all_where_none, estimated_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, TabularMDP
from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.ope.fitted_q import count_episodes
from sepsis_rl.planning import PolicyValue, evaluate
from sepsis_rl.policies import Policy, stack_policies

PENALTY: Final = 0.005
"""Price of a decision recorded once, in units of the return. A whole course of such decisions, nine
in ICU-Sepsis, costs 4.5 points of survival; of decisions recorded a hundred times half a point. So
it decides between policies that the dynamics take for alike, and hardly between others."""


@dataclass(frozen=True, eq=False)
class SupportedValues:
    """What the records make policies worth, each float64 (..., policies).

    Attributes:
        value: The criterion: `modeled` less the penalty times `rarity`.
        modeled: Value on the estimated dynamics.
        anchored: The same, moved by what the dynamics get wrong of the recorded decisions, whose
            value is known.
        rarity: Sum of 1 / sqrt(N) over an episode's decisions, with N how often each is recorded,
            and 1 where it never is; by the policy's own visits.
    """

    value: FloatArray
    modeled: FloatArray
    anchored: FloatArray
    rarity: FloatArray


class SupportedValue:
    """Values policies by the records: the dynamics are estimated once.

    The value of a policy is solved for on empirical-Bayes dynamics, as `planning.evaluate` does on
    any, and each decision costs `penalty / sqrt(max(N, 1))`. It is the penalized return of MOPO (Yu
    et al., 2020, "MOPO: Model-based offline policy optimization") with an uncertainty that
    falls with the square root of counts, as in Jin, Yang & Wang (2021), "Is pessimism provably
    efficient for offline RL?". Difference: it judges given policies and makes none.

    Where the environment publishes admissible actions, it takes their mean for any other, and so do
    values: such a decision has few records, and may have been chosen for the luck in them.

    Args:
        counts: Records, those that policies were trained on among them.
        mdp: The environment that they are of, whose admissible actions, state features and doses
            are used, and no transitions. None: there is none.
        penalty: Price of a decision recorded once, at least 0, in units of the return.

    Raises:
        InputError: The counts are empty, of several samples, or of rewards that are not survival;
            or the penalty is negative.
    """

    def __init__(
        self, counts: Counts, mdp: TabularMDP | None = None, penalty: float = PENALTY
    ) -> None:
        if not 0 <= penalty < np.inf:
            raise InputError(f"penalty is {penalty}; accepted: a number from 0 upward")
        self.counts, self.penalty = counts, penalty
        self._admissible = None if mdp is None else all_where_none(mdp.admissible)
        self.dynamics = estimated_dynamics(counts, "empirical_bayes", mdp)
        recorded = recorded_policy(counts).probabilities
        self._bias = self._solve(recorded).value - float(counts.mean_return[0])

    def judge(self, policies: Sequence[Policy]) -> SupportedValues:
        """Values policies as they are.

        Args:
            policies: Of the states and actions of the counts.

        Raises:
            InputError: A policy is of another shape, or an episode under it may never end.
        """
        tables = stack_policies(policies, self.counts.pairs.shape)
        solved = [self._solve(table) for table in tables]
        modeled = np.array([one.value for one in solved])
        scarcity = rarity_costs(self.counts, 1.0)
        rarity = np.array([(one.visits * scarcity).sum() for one in solved])
        return SupportedValues(
            value=modeled - self.penalty * rarity,
            modeled=modeled,
            anchored=modeled - self._bias,
            rarity=rarity,
        )

    def _solve(self, table: FloatArray) -> PolicyValue:
        if self._admissible is not None:
            lost = np.where(self._admissible, 0.0, table).sum(axis=1, keepdims=True)
            spread = lost / self._admissible.sum(axis=1, keepdims=True)
            table = np.where(self._admissible, table + spread, 0.0)
        return evaluate(self.dynamics, table)


def supported_value_of(
    train: Counts, held_out: Transitions, mdp: TabularMDP | None, penalty: float
) -> SupportedValue:
    """What values policies by the records that they were trained on and by others together.

    Args:
        train: The former.
        held_out: The latter.
        mdp: As for `SupportedValue`.
        penalty: Likewise.

    Raises:
        InputError: Rewards are not survival.
    """
    return SupportedValue(train + held_out.counts(*train.pairs.shape), mdp, penalty)


def resampled_values(
    policies: Sequence[Policy],
    parts: Sequence[Episodes],
    mdp: TabularMDP | None = None,
    *,
    penalty: float = PENALTY,
    resamples: int = 40,
    seed: int = 0,
    advance: Callable[[int], Any] = lambda count: None,
) -> SupportedValues:
    """Values on bootstrap samples of the episodes, on the same for all policies.

    The dynamics are estimated anew on each, which takes a third of a second for ICU-Sepsis. The
    standard deviation over 40 is known to a tenth of itself.

    Args:
        policies: What is compared.
        parts: Training and held-out episodes, each resampled by itself.
        mdp: As for `SupportedValue`.
        penalty: Likewise.
        resamples: Number of samples.
        seed: Of the first part's; that of each other is one more.
        advance: Told of each sample done.

    Returns:
        Each (resamples, policies).
    """
    counted = [count_episodes(part) for part in parts]
    draws = (
        (drawn for block in part.resamples(resamples, seed + number) for drawn in block)
        for number, part in enumerate(parts)
    )
    values = []
    for drawn in zip(*draws, strict=True):
        samples = (one.sample(weights[None]) for one, weights in zip(counted, drawn, strict=True))
        judge = SupportedValue(functools.reduce(operator.add, samples), mdp, penalty)
        values.append(judge.judge(policies))
        advance(1)
    return SupportedValues(
        **{f.name: np.stack([getattr(v, f.name) for v in values]) for f in fields(SupportedValues)}
    )


def alike(values: FloatArray, replicates: FloatArray) -> BoolArray:
    """Which policies the records cannot tell from the best.

    Args:
        values: The criterion, (policies,).
        replicates: The same on samples of the episodes, (samples, policies), two at least.

    Returns:
        (policies,): the difference to the best is within 1.96 standard deviations of its
        replicates; the best is among them.
    """
    best = int(values.argmax())
    spread = (replicates[:, [best]] - replicates).std(axis=0, ddof=1)
    close: BoolArray = values[best] - values <= 1.96 * spread
    return close

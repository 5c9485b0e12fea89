"""A policy is a table: `Policy`, and the policies that others are compared with.

States are indices, so whatever made a policy (a network, a plan, a count) can be tabulated, and
every evaluator takes the table and never sees who made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sepsis_rl.dynamics import all_where_none, true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray, Strategy, TabularMDP
from sepsis_rl.planning import value_iteration

_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Policy:
    """A named table of action probabilities.

    Attributes:
        name: What tables and figures call it.
        probabilities: (n_states, n_actions) float64, read-only; rows sum to 1. (`torch.tensor`
            copies it; `torch.as_tensor` would warn that it is read-only.)

    Raises:
        InputError: Not a matrix, or a row is no distribution (the sum may be off by 1e-6).
    """

    name: str
    probabilities: FloatArray

    def __post_init__(self) -> None:
        table = np.array(self.probabilities, dtype=np.float64)
        if table.ndim != 2 or 0 in table.shape:
            raise InputError(
                f"policy {self.name!r}: probabilities have shape {table.shape}; "
                "accepted: (n_states, n_actions)"
            )
        bad: BoolArray = ~np.all(np.isfinite(table) & (table >= 0), axis=1)
        sums = np.where(bad, 0.0, np.where(bad[:, None], 0.0, table).sum(axis=1))
        bad |= np.abs(sums - 1) > _SUM_TOLERANCE
        if bad.any():
            state = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"policy {self.name!r}: {int(bad.sum())} rows are no distributions, first that of "
                f"state {state}: {table[state]}; accepted: finite, at least 0, sum 1"
            )
        table /= sums[:, None]
        table.setflags(write=False)
        object.__setattr__(self, "probabilities", table)

    def __repr__(self) -> str:
        n_states, n_actions = self.probabilities.shape
        kind = "deterministic" if self.is_deterministic else "stochastic"
        return f"Policy({self.name!r}, {n_states} states, {n_actions} actions, {kind})"

    @property
    def actions(self) -> IntArray:
        """Most likely action of each state (n_states,), the lowest index on ties."""
        actions: IntArray = self.probabilities.argmax(axis=1).astype(np.int64)
        return actions

    @property
    def is_deterministic(self) -> bool:
        """Whether every state has one action of probability 1."""
        return bool((self.probabilities.max(axis=1) == 1.0).all())

    def softened(self, epsilon: float, behavior: Policy) -> Policy:
        """This policy with probability 1 - ε, another with ε.

        Args:
            epsilon: In [0, 1].
            behavior: The other one.

        Raises:
            InputError: ε is out of range or the shapes differ.
        """
        if not 0.0 <= epsilon <= 1.0:
            raise InputError(f"epsilon is {epsilon}; accepted: 0 to 1")
        if behavior.probabilities.shape != self.probabilities.shape:
            raise InputError(
                f"policy {behavior.name!r} has shape {behavior.probabilities.shape}; accepted: "
                f"{self.probabilities.shape}, that of policy {self.name!r}"
            )
        mixture = (1.0 - epsilon) * self.probabilities + epsilon * behavior.probabilities
        return Policy(self.name, mixture)


def policies_from_scores(
    names: Sequence[str],
    scores: npt.NDArray[np.floating],
    *,
    allowed: BoolArray | None = None,
    sampled: bool = False,
) -> list[Policy | None]:
    """Makes policies of the scores that networks give to actions.

    Args:
        names: The policies' names, one for each member.
        scores: (members, n_states, n_actions); action values, or logits of action probabilities.
        allowed: Actions that the policies keep to, (n_states, n_actions) bool. A state that allows
            none allows all; None allows all everywhere.
        sampled: The policies take an action with the softmax of its score. Otherwise they take the
            one with the highest score, the lowest index on ties.

    Returns:
        A policy for each member; None for one whose scores, allowed or not, are not all finite: it
        has diverged and has no policy.

    Raises:
        InputError: The mask has another shape than the scores of a member.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if allowed is None:
        allowed = np.ones(scores.shape[1:], dtype=np.bool_)
    if allowed.shape != scores.shape[1:]:
        raise InputError(f"the mask has shape {allowed.shape}; accepted: {scores.shape[1:]}")
    allowed = all_where_none(allowed)
    make = _softmax_policy if sampled else greedy_policy
    return [
        make(name, np.where(allowed, own, -np.inf)) if np.isfinite(own).all() else None
        for name, own in zip(names, scores, strict=True)
    ]


def stack_policies(policies: Sequence[Policy], shape: tuple[int, ...]) -> FloatArray:
    """The tables of policies, one after the other.

    Args:
        policies: At least one.
        shape: What each has to have, (n_states, n_actions).

    Returns:
        float64 (policies, n_states, n_actions).

    Raises:
        InputError: There are no policies, or one has another shape.
    """
    if not policies:
        raise InputError("there are no policies; accepted: at least one")
    for policy in policies:
        if policy.probabilities.shape != shape:
            raise InputError(
                f"policy {policy.name!r} has shape {policy.probabilities.shape}; accepted: {shape}"
            )
    return np.stack([policy.probabilities for policy in policies])


def greedy_policy(name: str, scores: FloatArray) -> Policy:
    """Takes the action with the highest score, the lowest index on ties.

    Args:
        name: The policy's name.
        scores: (n_states, n_actions), without NaN.

    Raises:
        InputError: A score is NaN, or the scores are no matrix.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or np.isnan(scores).any():
        raise InputError(f"policy {name!r}: scores must be a matrix without NaN")
    probabilities = np.zeros(scores.shape)
    probabilities[np.arange(len(scores)), scores.argmax(axis=1)] = 1.0
    return Policy(name, probabilities)


def _softmax_policy(name: str, logits: FloatArray) -> Policy:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Policy(name, weights / weights.sum(axis=1, keepdims=True))


def random_policy(mdp: TabularMDP) -> Policy:
    """All actions alike, admissible or not."""
    return Policy("random", np.full(mdp.admissible.shape, 1.0 / mdp.n_actions))


def clinician_policy(mdp: TabularMDP) -> Policy:
    """The environment's estimate of what clinicians did; uniform in terminal states."""
    table = mdp.clinician.copy()
    table[mdp.terminal] = 1.0 / mdp.n_actions
    return Policy("clinician", table)


def clinician_mode_policy(mdp: TabularMDP) -> Policy:
    """The action clinicians took most."""
    return greedy_policy("clinician's most likely", mdp.clinician)


def epsilon_clinician_policy(mdp: TabularMDP, epsilon: float = 0.1) -> Policy:
    """The clinician, with probability ε a uniformly random action."""
    mixed = clinician_policy(mdp).softened(epsilon, random_policy(mdp))
    return Policy(f"clinician, epsilon {epsilon:g}", mixed.probabilities)


def optimal_policy(mdp: TabularMDP, gamma: float = 1.0, strategy: Strategy = "mean") -> Policy:
    """The best policy there is, by value iteration on the true tables."""
    plan = value_iteration(true_dynamics(mdp, strategy), gamma=gamma)
    return Policy("optimal", np.eye(mdp.n_actions)[plan.actions])

"""A policy is a table: `Policy`, and the policies that others are compared with.

States are indices, so whatever made a policy (a network, a plan, a count) can be tabulated, and
every evaluator takes the table and never sees who made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray, Strategy, TabularMDP
from sepsis_rl.planning import iterate_values, value_iteration

_SUM_TOLERANCE = 1e-6

Allowed = Literal["admissible", "supported"]


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

    def greedy(self) -> Policy:
        """The policy that always takes the most likely action."""
        return greedy_policy(self.name, self.probabilities)

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
        self._check_shape(behavior.probabilities, f"policy {behavior.name!r}")
        mixture = (1.0 - epsilon) * self.probabilities + epsilon * behavior.probabilities
        return Policy(self.name, mixture)

    def masked(self, allowed: BoolArray) -> Policy:
        """This policy restricted to allowed actions and renormalized.

        A state in which the policy has no probability on allowed actions gets the uniform
        distribution over them. A state that allows nothing keeps its row.

        Args:
            allowed: (n_states, n_actions) bool.

        Raises:
            InputError: The shapes differ.
        """
        allowed = np.asarray(allowed, dtype=np.bool_)
        self._check_shape(allowed, "the mask")
        kept = self.probabilities * allowed
        kept = np.where(kept.sum(axis=1, keepdims=True) > 0, kept, allowed)
        kept = np.where(allowed.any(axis=1, keepdims=True), kept, self.probabilities)
        return Policy(self.name, kept / kept.sum(axis=1, keepdims=True))

    def _check_shape(self, other: FloatArray | BoolArray, what: str) -> None:
        if other.shape != self.probabilities.shape:
            raise InputError(
                f"{what} has shape {other.shape}; accepted: {self.probabilities.shape}, that of "
                f"policy {self.name!r}"
            )


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


def softmax_policy(name: str, logits: FloatArray) -> Policy:
    """Takes an action with the softmax of its logits.

    Args:
        name: The policy's name.
        logits: (n_states, n_actions).

    Raises:
        InputError: A logit is NaN or +infinity, or the logits are no matrix.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or not (logits < np.inf).all():
        raise InputError(f"policy {name!r}: logits must be a matrix without NaN or infinity")
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Policy(name, weights / weights.sum(axis=1, keepdims=True))


def policies_from_scores(
    names: Sequence[str],
    scores: FloatArray,
    *,
    allowed: BoolArray | None = None,
    sampled: bool = False,
) -> list[Policy | None]:
    """Makes a policy of each member's scores.

    Args:
        names: The policies' names, one for each member.
        scores: (members, n_states, n_actions).
        allowed: Actions that the policies keep to, (n_states, n_actions) bool; None for all.
        sampled: Sample from the softmax of the scores instead of taking the highest.

    Returns:
        The policies; None where a member's scores are not all finite, since it has diverged.
    """
    make = softmax_policy if sampled else greedy_policy
    return [
        make(name, own if allowed is None else np.where(allowed, own, -np.inf))
        if np.isfinite(own).all()
        else None
        for name, own in zip(names, scores, strict=True)
    ]


def random_policy(mdp: TabularMDP) -> Policy:
    """All actions alike, admissible or not."""
    return Policy("random", np.full(mdp.admissible.shape, 1.0 / mdp.n_actions))


def most_recorded_policy(pair_counts: IntArray) -> Policy:
    """The action recorded most; the first one where none was.

    Args:
        pair_counts: (n_states, n_actions).
    """
    return greedy_policy("most recorded", pair_counts.astype(np.float64))


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
    plan = value_iteration(mdp, gamma=gamma, strategy=strategy)
    return _policy_of_actions("optimal", plan.actions, mdp.n_actions)


def worst_policy(mdp: TabularMDP) -> Policy:
    """The worst policy there is."""
    plan = value_iteration(mdp, maximize=False)
    return _policy_of_actions("worst", plan.actions, mdp.n_actions)


def _policy_of_actions(name: str, actions: IntArray, n_actions: int) -> Policy:
    return Policy(name, np.eye(n_actions)[actions])


def tabular_policy(
    mdp: TabularMDP,
    counts: sp.csr_array,
    *,
    prior: float = 5.0,
    penalty: float = 0.05,
    gamma: float = 1.0,
    allowed: Allowed = "admissible",
) -> Policy:
    """Value iteration on the data's own counts: what the data say without any network.

    The model of a pair (s, a) is its own transitions plus `prior` transitions distributed like all
    transitions seen from s, whatever the action; a pair never seen has that pooled distribution
    alone, and a state never seen the one pooled over the whole data set. Its reward is the
    expected reward on entering the next state. Each step of a plan costs penalty / √N, where N is
    how often the pair was seen (a pair never seen costs as one seen once), so that plans keep to
    what is known. The cost is part of every Bellman backup, not of the last choice alone: charged
    only there, survival after 5,000 episodes was 0.004 lower, while other readings of N (plus 1,
    plus the prior's, unseen pairs cheaper or dearer) changed nothing beyond the noise.

    Of `mdp`, only the rewards on entering a state (visible in the data), the terminal states and
    the admissible actions are used.

    Args:
        mdp: The decision process.
        counts: (n_states * n_actions, n_states), transitions in the data; the row of a pair is
            state * n_actions + action.
        prior: Weight of the pooled distribution, in transitions, at least 0.
        penalty: At least 0.
        gamma: Discount in (0, 1].
        allowed: "admissible" chooses among admissible actions, "supported" among those seen in
            the data (in states never seen, among all).

    Returns:
        The greedy policy.

    Raises:
        InputError: Counts of another shape or negative, or an option out of range.
    """
    if allowed not in ("admissible", "supported"):
        raise InputError(f"allowed is {allowed!r}; accepted: 'admissible' or 'supported'")
    if not (0 <= prior < np.inf and 0 <= penalty < np.inf):
        raise InputError(f"prior is {prior}, penalty is {penalty}; accepted: 0 or more")
    n_states, n_actions = mdp.n_states, mdp.n_actions
    if counts.shape != (n_states * n_actions, n_states):
        raise InputError(
            f"counts have shape {counts.shape}; accepted: ({n_states * n_actions}, {n_states})"
        )
    counts = sp.csr_array(counts, dtype=np.float64)
    if counts.nnz == 0 or counts.data.min() < 0:
        raise InputError("counts are empty or negative; accepted: transitions counted from data")

    n_pair = np.asarray(counts.sum(axis=1))
    seen = np.flatnonzero(n_pair)
    of_state = sp.kron(sp.eye_array(n_states), np.ones((1, n_actions)), format="csr")
    pooled = _normalized(of_state @ counts)
    everywhere = _normalized(sp.csr_array(counts.sum(axis=0)[None, :]))
    own = _normalized(counts[seen] + prior * pooled[seen // n_actions])
    rows = sp.csr_array(sp.vstack([pooled, own, everywhere], format="csr"))

    row_of_pair = np.repeat(np.arange(n_states), n_actions)
    unvisited = n_pair.reshape(n_states, n_actions).sum(axis=1) == 0
    row_of_pair[np.repeat(unvisited, n_actions)] = rows.shape[0] - 1
    row_of_pair[seen] = n_states + np.arange(len(seen))
    row_index = row_of_pair.reshape(n_states, n_actions)

    cost = penalty / np.sqrt(np.maximum(n_pair, 1.0)).reshape(n_states, n_actions)
    choices = mdp.admissible if allowed == "admissible" else (n_pair > 0).reshape(cost.shape)
    plan = iterate_values(
        rows,
        row_index,
        (rows @ mdp.rewards)[row_index] - cost,
        terminal=mdp.terminal,
        allowed=choices | ~choices.any(axis=1, keepdims=True),
        gamma=gamma,
        # With costs, a loop seen in the data would be worth minus infinity.
        floor=min(0.0, float(mdp.rewards.min())),
    )
    return _policy_of_actions("tabular", plan.actions, n_actions)


def _normalized(counts: sp.csr_array) -> sp.csr_array:
    """Rows divided by their sums; empty rows stay empty."""
    sums = np.asarray(counts.sum(axis=1))
    scale = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    return sp.csr_array(sp.diags_array(scale) @ counts)

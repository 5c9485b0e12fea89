"""What a policy is worth exactly, and the best and worst there is, solved for on any `Dynamics`.

An episode under a policy is a Markov chain with absorbing ends. With P its transition matrix
between states that are no end and d the start, the expected visits x solve x (I - P) = d, and
survival, length and value are sums over x (Kemeny & Snell, 1960, "Finite Markov Chains", ch. 3).
The environment's limit on an episode's length is left out: in ICU-Sepsis it changes nothing above
1e-15.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from sepsis_rl.dynamics import Dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray

_RESIDUAL = 1e-13
_MAX_SWEEPS = 10_000  # ICU-Sepsis settles in some 300


@dataclass(frozen=True)
class PolicyValue:
    """Exact figures of a policy.

    Attributes:
        survival: Probability that an episode ends in survival.
        expected_length: Steps of 4 hours.
        value: Expected sum of discounted rewards, the first step's undiscounted.
        visits: (n_states, n_actions) float64, expected visits per episode, undiscounted. They sum
            to `expected_length`; terminal states have none.
    """

    survival: float
    expected_length: float
    value: float
    visits: FloatArray


@dataclass(frozen=True)
class Plan:
    """Result of value iteration.

    Attributes:
        q: (n_states, n_actions) float64, value of an action, then going on greedily; 0 in
            terminal states. Actions that are not allowed have their value too.
        values: (n_states,) float64, value of the best (or worst) allowed action.
        actions: (n_states,) int64, that action, the lowest index on ties.
    """

    q: FloatArray
    values: FloatArray
    actions: IntArray


def evaluate(dynamics: Dynamics, probabilities: FloatArray, *, gamma: float = 1.0) -> PolicyValue:
    """Solves for the exact value of a policy.

    Args:
        dynamics: What follows each decision.
        probabilities: (n_states, n_actions), rows of non-terminal states sum to 1.
        gamma: Discount of `value`, in (0, 1]; the other figures are undiscounted.

    Returns:
        Survival, length, value and visits.

    Raises:
        InputError: A wrong shape or γ; the policy goes on forever; or it comes to a forbidden pair.
    """
    _check_gamma(gamma)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.shape != dynamics.rewards.shape:
        raise InputError(
            f"probabilities have shape {probabilities.shape}; accepted: {dynamics.rewards.shape}"
        )
    alive = ~dynamics.terminal
    if not np.abs(probabilities[alive].sum(axis=1) - 1).max() <= 1e-6 or probabilities.min() < 0:
        raise InputError("probabilities are no policy; accepted: rows >= 0 that sum to 1")
    moves = dynamics.under(probabilities)
    _refuse_forbidden(dynamics, probabilities, moves)

    arrivals = _discounted_visits(moves, dynamics.start, 1.0)
    visits = np.where(alive, arrivals, 0.0)
    entered = arrivals - dynamics.start
    discounted = arrivals if gamma == 1.0 else _discounted_visits(moves, dynamics.start, gamma)
    if dynamics.entry_rewards is None:
        value = float((discounted[:, None] * probabilities * dynamics.rewards).sum())
    elif gamma == 1.0:
        value = float(entered @ dynamics.entry_rewards)
    else:
        value = float((moves.T @ discounted) @ dynamics.entry_rewards)
    survival = dynamics.survival_state
    return PolicyValue(
        survival=value if survival is None else float(entered[survival]),
        expected_length=float(visits.sum()),
        value=value,
        visits=visits[:, None] * probabilities,
    )


def value_iteration(
    dynamics: Dynamics,
    *,
    gamma: float = 1.0,
    maximize: bool = True,
    allowed: BoolArray | None = None,
    floor: float = -np.inf,
    tolerance: float = 1e-12,
) -> Plan:
    """The best or the worst that can be done (Bellman, 1957), from values of 0.

    Args:
        dynamics: What follows each decision. Forbidden pairs are never chosen.
        gamma: Discount in (0, 1].
        maximize: False finds the worst policy.
        allowed: (n_states, n_actions) bool, actions to choose from; None allows all.
        floor: No state is worth less; keeps a loop with costs from sinking forever.
        tolerance: Largest change of a state's value in the last sweep.

    Returns:
        Values and greedy actions.

    Raises:
        InputError: γ or the mask is wrong, a non-terminal state has no allowed action, or the
            values do not settle (with γ = 1, a loop that pays forever).
    """
    _check_gamma(gamma)
    shape, terminal = dynamics.rewards.shape, dynamics.terminal
    choosable = np.ones(shape, dtype=np.bool_) if allowed is None else allowed
    if choosable.shape != shape:
        raise InputError(f"allowed has shape {choosable.shape}; accepted: {shape}")
    if dynamics.forbidden is not None:
        choosable = choosable & ~dynamics.forbidden
    choosable = choosable | terminal[:, None]
    stuck = ~choosable.any(axis=1)
    if stuck.any():
        raise InputError(
            f"state {int(np.flatnonzero(stuck)[0])} has no allowed action; accepted: at least one "
            "in each non-terminal state"
        )
    sign = 1.0 if maximize else -1.0
    values = np.zeros(len(terminal))
    for _ in range(_MAX_SWEEPS):
        q = dynamics.rewards + gamma * dynamics.expected(values)
        q[terminal] = 0.0
        scores = np.where(choosable, sign * q, -np.inf)
        new_values = np.maximum(sign * scores.max(axis=1), floor)
        change = float(np.abs(new_values - values).max())
        values = new_values
        if not change > tolerance:
            break
    if not change <= tolerance:
        raise InputError(
            f"value iteration still changes by {change:g} after {_MAX_SWEEPS} sweeps; with "
            "gamma = 1 every episode must end"
        )
    return Plan(q=q, values=values, actions=scores.argmax(axis=1).astype(np.int64))


def state_values(dynamics: Dynamics, probabilities: FloatArray, gamma: float = 1.0) -> FloatArray:
    """Exact value of going on with a policy from each state, (n_states,).

    As a Q-value of the policy's action, it leaves the first step's reward undiscounted.
    """
    rewards = np.where(dynamics.terminal, 0.0, (probabilities * dynamics.rewards).sum(axis=1))
    return solve_chain(gamma * dynamics.under(probabilities), rewards)


def _check_gamma(gamma: float) -> None:
    if not 0.0 < gamma <= 1.0:
        raise InputError(f"gamma is {gamma}; accepted: above 0, at most 1")


def _refuse_forbidden(dynamics: Dynamics, probabilities: FloatArray, moves: sp.csr_array) -> None:
    if dynamics.forbidden is None:
        return
    reached = dynamics.start > 0
    while True:
        # Reachability in whole steps, not visits > 0: a solve leaves rounding noise.
        further = reached | (moves.T @ reached.astype(np.float64) > 0)
        if (further == reached).all():
            break
        reached = further
    refused = reached[:, None] & (probabilities > 0) & dynamics.forbidden
    if refused.any():
        state, action = (int(where[0]) for where in np.nonzero(refused))
        dose = "" if dynamics.dose_grid is None else f" ({dynamics.dose_grid.name(action)})"
        raise InputError(
            f"the policy takes inadmissible actions, which are forbidden here, first action "
            f"{action}{dose} in state {state}; accepted: admissible actions alone"
        )


def _discounted_visits(moves: sp.csr_array, start: FloatArray, gamma: float) -> FloatArray:
    """Solves x = start + gamma * x @ moves: expected visits, those of terminal states included."""
    visits = solve_chain(gamma * moves.T.tocsr(), start)
    if not visits.min() >= -1e-9 * max(1.0, visits.max()):
        raise InputError("under this policy an episode may never end")
    # Rounding noise around zero would otherwise show as visits of -1e-17.
    result: FloatArray = np.maximum(visits, 0.0)
    return result


def solve_chain(moves: sp.csr_array, right: FloatArray, tolerance: float = _RESIDUAL) -> FloatArray:
    """Solves x = right + moves @ x for a chain that ends.

    BiCGSTAB (van der Vorst, 1992) takes some thirty sparse products, 3 ms for ICU-Sepsis; a dense
    LU takes 10 ms and more. Where it does not converge, a sparse LU does the work.

    Args:
        moves: (n, n) csr, at least 0; transitions, or their transpose.
        right: float64 (n,).
        tolerance: Norm of what is left over, relative to that of `right`.

    Returns:
        float64 (n,).

    Raises:
        InputError: There is no finite solution: some part of the chain is never left.
    """
    # Unknowns are arrivals, not visits: many patients stay where they are, and this takes their
    # waiting out of the iteration (it is Jacobi's preconditioner) and two fifths of the products.
    stays = moves.diagonal()
    visits_per_arrival = np.divide(1.0, 1.0 - stays, out=np.ones_like(stays), where=stays < 1.0)

    def leave_out(visits: FloatArray) -> FloatArray:
        remainder: FloatArray = visits - moves @ visits
        return remainder

    operator = scipy.sparse.linalg.LinearOperator(
        moves.shape, lambda arrivals: leave_out(arrivals * visits_per_arrival), dtype=np.float64
    )
    arrivals, _ = scipy.sparse.linalg.bicgstab(
        operator, right, rtol=tolerance, atol=0.0, maxiter=500
    )
    solution: FloatArray = arrivals * visits_per_arrival
    if not np.abs(leave_out(solution) - right).max() <= 10 * tolerance * np.linalg.norm(right):
        try:
            remaining = sp.csc_array(sp.eye_array(len(right)) - moves)
            solution = scipy.sparse.linalg.splu(remaining).solve(right)
        except RuntimeError as error:  # exactly singular
            raise InputError("under this policy an episode may never end") from error
    if not np.isfinite(solution).all():
        raise InputError("under this policy an episode may never end")
    return solution

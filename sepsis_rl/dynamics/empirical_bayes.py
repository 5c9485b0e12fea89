"""Dynamics of counted records, in which pairs borrow as much as the records say is right.

A pair of state and action is what followed it and, besides, a *prior row* with a weight that is
estimated from how much the pairs of a state differ: empirical Bayes, in the linear form of
credibility (Bühlmann, 1967, "Experience rating and credibility"). The prior row is that of the
state, tilted toward better or worse ends by what the dose does in other states of like value. With
N and T the counts of a pair and of its transitions, and V the value of a state:

1. State rows: all decisions of a state, and `STATE_PRIOR` more like those of its neighbors.
2. The weight k' of the prior row, by moments of the squared distances within states; where no
   admissible actions are published, larger for pairs that are too seldom recorded to differ.
3. V of the recorded decisions, on the state rows.
4. Effects g of doses on V, by ridge regression within states, the variance of the coefficients by
   marginal likelihood (MacKay, 1992, "Bayesian interpolation"). R, the state rows tilted by g, and
   the dynamics (T + k' R) / (N + k'). Then once more with the V of the best plan on these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import scipy.sparse as sp

from sepsis_rl.dynamics.counts import Counts
from sepsis_rl.dynamics.dose_effects import DoseEffects, dose_effects, dose_features_by_state
from sepsis_rl.dynamics.dynamics import Dynamics, all_where_none
from sepsis_rl.dynamics.prior_weights import differences_shown, prior_weights
from sepsis_rl.dynamics.state_rows import Outcomes, StateRows, count_outcomes, state_rows
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray

LARGEST_TILT: Final = 0.98
"""A tilt takes at most this share of a transition's probability."""
LEAST_RISK: Final = 1e-3
"""Where death or survival is less likely, a tilt is no steeper than if it were this likely: it
would tell rounding errors apart."""
_MAX_SWEEPS: Final = 10_000
_TOLERANCE: Final = 1e-10


@dataclass(frozen=True, eq=False)
class EmpiricalBayesDynamics(Dynamics):
    """Dynamics so estimated, none of whose states is terminal.

    Attributes:
        dose_effects_probability: How likely the records make it that doses have effects that
            states share; 0 where none were looked for.
    """

    dose_effects_probability: float = 0.0


def empirical_bayes_dynamics(
    counts: Counts,
    *,
    admissible: BoolArray | None = None,
    state_vectors: FloatArray | None = None,
    dose_features: FloatArray | None = None,
) -> EmpiricalBayesDynamics:
    """What the records say follows each decision, also one that they hardly have.

    Args:
        counts: One sample of records whose rewards are survival: 0, or 1 where an episode ends.
        admissible: (n_states, n_actions) bool, actions among which pairs are compared and planned.
            None: the recorded ones.
        state_vectors: (n_states, n_features), by which states are near each other. None: all states
            are each other's neighbors.
        dose_features: (n_actions, n_features), what the effect of a dose depends on. None: doses
            have no effect beyond what their own records show.

    Raises:
        InputError: There are no counts, or of several samples, or of rewards that are not survival;
            or what is known of states and actions is of other ones.
    """
    outcomes = count_outcomes(counts)
    n_states, n_actions = outcomes.pairs.shape
    for name, given, length in (
        ("admissible", admissible, n_states),
        ("state_vectors", state_vectors, n_states),
        ("dose_features", dose_features, n_actions),
    ):
        if given is not None and len(given) != length:
            raise InputError(
                f"{name} has {len(given)} rows; accepted: {length}, since the counts are of "
                f"{n_states} states and {n_actions} actions"
            )
    chosen = outcomes.pairs > 0 if admissible is None else (outcomes.pairs > 0) & admissible
    allowed = all_where_none(chosen if admissible is None else admissible)
    base = state_rows(outcomes, state_vectors)
    cohort, weight = prior_weights(outcomes, chosen)
    if admissible is None:
        weight = weight / differences_shown(outcomes, cohort)
    values = _settled(base.expected, n_states)
    if dose_features is None:
        none = DoseEffects(np.zeros(outcomes.pairs.shape), 0.0)
        return _mixed(counts, outcomes, base, weight, none, values)
    visited = outcomes.pairs.sum(axis=1) > 0
    features = dose_features_by_state(dose_features, values[:-1], visited)

    def with_effects(values: FloatArray) -> EmpiricalBayesDynamics:
        effects = dose_effects(outcomes, base, values, features, chosen, cohort)
        return _mixed(counts, outcomes, base, weight, effects, values)

    return with_effects(_settled(partial(_best, with_effects(values), allowed), n_states))


def _mixed(
    counts: Counts,
    outcomes: Outcomes,
    base: StateRows,
    weight: FloatArray,
    effects: DoseEffects,
    values: FloatArray,
) -> EmpiricalBayesDynamics:
    """(T + k' R) / (N + k'), where R is the state row P tilted: P (1 + g (V - PV) / Var_P V)."""
    n_states, n_actions = outcomes.pairs.shape
    mean = base.expected(values)[:, None]
    variance = base.expected(values**2)[:, None] - mean**2
    # V lies between 0, of death, and 1, of survival: there a tilt leaves the least, or the most.
    tilt = (effects.of_decisions / np.maximum(variance, 1e-12)).clip(
        -LARGEST_TILT / np.maximum(1 - mean, LEAST_RISK),
        LARGEST_TILT / np.maximum(mean, LEAST_RISK),
    )
    total = outcomes.pairs + weight
    of_state = sp.csr_array(base.mixture[np.repeat(np.arange(n_states), n_actions)])

    def share(part: FloatArray) -> sp.dia_array:
        return sp.diags_array((part / total).ravel())

    rows = [outcomes.transitions, base.rows, base.rows @ sp.diags_array(values)]
    mixture = [
        share(np.ones_like(total)),
        share(weight * (1 - tilt * mean)) @ of_state,
        share(weight * tilt) @ of_state,
    ]
    joined = sp.csr_array(sp.vstack(rows, format="csr"))
    mixed = sp.csr_array(sp.hstack(mixture, format="csr"))
    mixed.eliminate_zeros()
    return EmpiricalBayesDynamics(
        rows=joined[:, :-1],
        mixture=mixed,
        rewards=(mixed @ joined[:, [-1]].toarray()).reshape(n_states, n_actions),
        start=counts.start,
        terminal=np.zeros(n_states, dtype=np.bool_),
        dose_effects_probability=effects.probability,
    )


def _best(dynamics: Dynamics, allowed: BoolArray, values: FloatArray) -> FloatArray:
    q = dynamics.rewards + dynamics.expected(values[:-1])
    values_of_best: FloatArray = np.where(allowed, q, -np.inf).max(axis=1)
    return values_of_best


def _settled(backup: Callable[[FloatArray], FloatArray], n_states: int) -> FloatArray:
    """Values of outcomes, (n_states + 1,): of states by repeated backups from 0; of survival 1."""
    values = np.append(np.zeros(n_states), 1.0)
    for _ in range(_MAX_SWEEPS):
        backed_up = backup(values)
        change = float(np.abs(backed_up - values[:-1]).max())
        values = np.append(backed_up, 1.0)
        if change < _TOLERANCE:
            break
    return values

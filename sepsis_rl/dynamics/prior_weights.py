"""How much a pair of state and action borrows from its state."""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.sparse as sp
from scipy.optimize import isotonic_regression

from sepsis_rl.dynamics.state_rows import Outcomes
from sepsis_rl.mdp import BoolArray, FloatArray

LEAST_COHORT: Final = 20.0
"""How many patients a pair of the true process is taken to rest on, at least: ICU-Sepsis admits no
action that clinicians took less often."""
LEAST_RATIO: Final = 0.02
"""Least ratio of the recorded decisions to those that the true process is taken to rest on."""
LEAST_SHOWN: Final = 0.01
"""Where records show no differences between pairs, the prior row has a hundred times its weight."""


def prior_weights(outcomes: Outcomes, chosen: BoolArray) -> tuple[FloatArray, FloatArray]:
    """How many decisions like its state's a pair's own are worth.

    A true row is taken for what followed a cohort of k patients, drawn from the state's row. With c
    the ratio of recorded decisions to those, two pairs of a state differ 1 + c times as much as the
    numbers of their records explain, which gives c; then k = N / c, and k' = k / (1 + c).

    Args:
        outcomes: The records.
        chosen: (n_states, n_actions) bool, the pairs that are compared.

    Returns:
        k and k', each (n_states, n_actions).
    """
    n = np.where(chosen, outcomes.pairs, 0.0)
    n_state, n_pairs = n.sum(axis=1), chosen.sum(axis=1)
    # Squared lengths of the pairs' distributions, and of their state's.
    own = _squared_length(outcomes.transitions, outcomes.pairs.ravel()).reshape(n.shape)
    pooled = _squared_length(outcomes.by_state(chosen), n_state)
    between = (n * own).sum(axis=1) - n_state * pooled
    freedom = n_state - n_pairs
    within = (n * (1 - own)).sum(axis=1) / np.maximum(freedom, 1)
    compared = (n_pairs >= 2) & (freedom > 0)
    explained = ((n_pairs - 1) * within)[compared].sum()
    # Where each pair has a single outcome nothing is explained, and any difference is the truth's.
    ratio = max(between[compared].sum() / max(explained, 1e-9) - 1, LEAST_RATIO)
    cohort = np.maximum(outcomes.pairs / ratio, LEAST_COHORT)
    return cohort, cohort / (1 + ratio)


def differences_shown(outcomes: Outcomes, cohort: FloatArray) -> FloatArray:
    """How much of the differences that the cohorts make likely the records show, by N.

    Where no admissible actions are published, many pairs are recorded a few times only, and some
    for a reason: what a clinician hardly ever does may be a slip of the records, or be replaced. In
    ICU-Sepsis all that fewer than 20 patients had leads where the admissible actions lead on
    average. A plan may choose among such pairs the ones that were lucky, in many states at once.

    The squared distance between what followed a pair and what followed the rest of its state's
    decisions has as its mean v (1 / N + 1 / M) for the numbers of both, with v the chance that two
    of the state's decisions are followed by different outcomes, and v / k for the cohort of k. What
    exceeds the former, in units of the latter, is averaged over pairs of like N, such that those
    recorded more often show no less (isotonic regression: Barlow et al., 1972, "Statistical
    inference under order restrictions").

    Args:
        outcomes: The records.
        cohort: k, (n_states, n_actions).

    Returns:
        (n_states, n_actions), between `LEAST_SHOWN` and 1.
    """
    n_actions, n_state = outcomes.pairs.shape[1], outcomes.pairs.sum(axis=1)
    of_states = _with_deaths(outcomes.by_state(), n_state)
    whole = of_states.power(2).sum(axis=1)
    # Of two decisions of a state, drawn without putting back.
    differ = 1 - (whole - n_state) / np.maximum(n_state * (n_state - 1), 1)
    compared = (outcomes.pairs > 0) & (outcomes.pairs < n_state[:, None]) & (differ > 0)[:, None]
    pair = np.flatnonzero(compared)
    if len(pair) == 0:
        return np.ones(outcomes.pairs.shape)
    state, n = pair // n_actions, outcomes.pairs.ravel()[pair]
    rest, v = n_state[state] - n, differ[state]
    of_pairs = _with_deaths(outcomes.transitions[pair], n)
    own, both = of_pairs.power(2).sum(axis=1), of_pairs.multiply(of_states[state]).sum(axis=1)
    squared = own / n**2 - 2 * (both - own) / (n * rest) + (whole[state] - 2 * both + own) / rest**2
    by_chance, by_cohort = 1 / n + 1 / rest, 1 / cohort.ravel()[pair]
    shown = (squared / v - by_chance) / by_cohort
    # The standard deviation of a squared distance goes with what chance makes of it.
    weights = (by_cohort / by_chance) ** 2
    numbers, which = np.unique(n, return_inverse=True)
    total = np.bincount(which, weights)
    fitted = isotonic_regression(np.bincount(which, weights * shown) / total, weights=total).x
    of_all: FloatArray = np.interp(outcomes.pairs, numbers, fitted.clip(LEAST_SHOWN, 1.0))
    return of_all


def _with_deaths(totals: sp.csr_array, n: FloatArray) -> sp.csr_array:
    """Counts of what followed, with those of death as the last column."""
    dead = sp.csr_array((n - totals.sum(axis=1)).reshape(-1, 1))
    return sp.csr_array(sp.hstack([totals, dead], format="csr"))


def _squared_length(totals: sp.csr_array, n: FloatArray) -> FloatArray:
    """Sum of squared probabilities of each row of counts, death included."""
    squares: FloatArray = _with_deaths(totals, n).power(2).sum(axis=1) / np.maximum(n, 1) ** 2
    return squares

"""What a dose does to the value of what follows, learned within states and shared between them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.special import expit, logsumexp

from sepsis_rl.dynamics.state_rows import STATE_PRIOR, Outcomes, StateRows
from sepsis_rl.mdp import BoolArray, FloatArray

LARGEST_SCORE: Final = 2.5
"""Standardized values beyond this one count as this one."""
VARIANCES: Final = np.logspace(-8, 0, 81)
"""Prior variances of a dose's effect that are compared."""


class DoseEffects(NamedTuple):
    """Effects of doses, and how likely it is that there are any.

    Attributes:
        of_decisions: (n_states, n_actions), what each decision adds to the value of what follows;
            0 in the mean of a state's chosen records.
        probability: Posterior probability that doses have effects by their features. Beforehand it
            is 1/2, and given that they have, all `VARIANCES` are equally likely.
    """

    of_decisions: FloatArray
    probability: float


def dose_features_by_state(
    dose_features: FloatArray, values: FloatArray, visited: BoolArray
) -> FloatArray:
    """Features of a decision: those of its dose, and the same times the score of its state.

    Args:
        dose_features: (n_actions, n_features).
        values: Of states, (n_states,); standardized over the visited ones they are the scores.
        visited: (n_states,) bool.

    Returns:
        (n_states, n_actions, 2 * n_features).
    """
    # Values that differ by less are the same, but for where their computation stopped.
    spread = max(values[visited].std(), 1e-8)
    scores = (values - values[visited].mean()) / spread
    scores = scores.clip(-LARGEST_SCORE, LARGEST_SCORE)[:, None, None]
    doses = np.broadcast_to(dose_features, (len(values), *dose_features.shape))
    return np.concatenate([doses, doses * scores], axis=2)


def dose_effects(
    outcomes: Outcomes,
    base: StateRows,
    values: FloatArray,
    features: FloatArray,
    chosen: BoolArray,
    cohort: FloatArray,
) -> DoseEffects:
    """What each decision adds to the value of what follows, by the features of its dose.

    Args:
        outcomes: The records.
        base: The state rows.
        values: (n_states + 1,), the value of each outcome.
        features: (n_states, n_actions, n_features).
        chosen: (n_states, n_actions) bool, the pairs to learn from.
        cohort: (n_states, n_actions), k, how much a true row differs from its state's.
    """
    n, mean = outcomes.pairs, outcomes.mean(values)
    expected = base.expected(values)
    prior_variance = base.expected(values**2) - expected**2
    squares = np.where(chosen, n * (outcomes.mean(values**2) - mean**2), 0.0).sum(axis=1)
    freedom = np.where(chosen, n - 1, 0.0).sum(axis=1)
    variance = (squares + STATE_PRIOR * prior_variance) / (freedom + STATE_PRIOR)
    noise = np.maximum(variance, 1e-12)[:, None] * (1 / np.maximum(n, 1) + 1 / cohort)
    precision = np.where(chosen, 1 / noise, 0.0)
    y = _centered(mean[..., None], precision)[..., 0]
    x = _centered(features, precision)
    information = np.einsum("sa,saf,sag->fg", precision, x, x)
    length, axes = np.linalg.eigh(information)
    length = np.maximum(length, 0.0)
    score = axes.T @ np.einsum("sa,saf,sa->f", precision, x, y)
    grid = VARIANCES[:, None]
    # Logarithm of the likelihood ratio to no effect, by prior variance.
    evidence = (score**2 / (length + 1 / grid) - np.log1p(grid * length)).sum(axis=1) / 2
    best = VARIANCES[evidence.argmax()]
    coefficients = axes @ (score / (length + 1 / best))
    effects = _centered(features @ coefficients[:, None], np.where(chosen, n, 0.0))
    return DoseEffects(
        effects.squeeze(-1), float(expit(logsumexp(evidence) - np.log(len(VARIANCES))))
    )


def _centered(columns: FloatArray, weights: FloatArray) -> FloatArray:
    """Columns (n_states, n_actions, n_columns) less their weighted mean within each state."""
    total = np.maximum(weights.sum(axis=1), 1e-300)
    mean = np.einsum("sa,saf->sf", weights, columns) / total[:, None]
    centered: FloatArray = columns - mean[:, None]
    return centered

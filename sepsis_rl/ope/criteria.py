"""Choosing a policy by what recorded episodes say of it."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np

from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope.estimates import Estimator, OffPolicyScores

Criterion = Literal["supported_value", "fqe", "wis", "wis_lower", "wdr", "two_stage"]
CRITERIA: Final[tuple[Criterion, ...]] = get_args(Criterion)
"""`wis_lower` is the lower end of the interval of `wis`; `two_stage` screens by `wis`."""

ESTIMATOR_LABELS: Final[dict[Estimator | Criterion, str]] = {
    "supported_value": "supported value",
    "fqe": "FQE",
    "fqe_zero": "FQE, unseen 0",
    "wis": "WIS",
    "is": "IS",
    "pdis": "PDIS",
    "wpdis": "WPDIS",
    "dr": "DR",
    "wdr": "WDR",
    "wis_lower": "WIS lower end",
    "two_stage": "WIS, then FQE",
}
"""What tables and figures call estimators and criteria."""

_KEPT = 0.5


def criterion_values(scores: OffPolicyScores, criterion: Criterion) -> FloatArray:
    """What a criterion gives each policy; the largest is chosen.

    `two_stage` follows Tang & Wiens (2021), "Model selection for offline reinforcement learning:
    practical considerations for healthcare settings", MLHC: a cheap estimate screens the policies
    and fitted Q evaluation decides among those kept, here the better half by `wis`.

    Args:
        scores: With the estimators `fqe`, `wis` and `wdr`, intervals for `wis_lower`, and a model
            for `supported_value`.
        criterion: Which.

    Returns:
        float64 (policies,); -infinity for what cannot be chosen.

    Raises:
        InputError: `supported_value` of scores that were made without a model.
    """
    if criterion == "supported_value":
        if scores.supported is None:
            raise InputError(
                "supported_value is not among these scores: evaluate_off_policy takes a model for "
                f"it; accepted here: {', '.join(CRITERIA[1:])}"
            )
        return scores.supported.value
    if criterion == "two_stage":
        screening = criterion_values(scores, "wis")
        kept = np.argsort(-screening, kind="stable")[: max(1, round(_KEPT * len(screening)))]
        values = np.full_like(screening, -np.inf)
        values[kept] = criterion_values(scores, "fqe")[kept]
        return values
    if criterion == "wis_lower":
        values = scores.interval("wis").low.numpy()
    else:
        values = scores.estimates[criterion]
    return np.where(np.isnan(values), -np.inf, values)


def regret(values: FloatArray, truth: FloatArray) -> float:
    """How much worse the chosen policy is than the best of them.

    Args:
        values: Criterion, (policies,); the first of the largest is chosen.
        truth: What each policy is worth, (policies,).
    """
    return float(truth.max() - truth[values.argmax()])


def regret_of_chance(truth: FloatArray) -> float:
    """What choosing blindly costs on average, (policies,) to a number."""
    return float(truth.max() - truth.mean())

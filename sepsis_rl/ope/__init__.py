"""What a policy is worth, judged from recorded episodes alone."""

from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.ope.estimates import (
    ESTIMATORS,
    LOW_ESS,
    Estimator,
    OffPolicyOptions,
    OffPolicyScores,
    evaluate_off_policy,
)

__all__ = [
    "ESTIMATORS",
    "LOW_ESS",
    "Episodes",
    "Estimator",
    "OffPolicyOptions",
    "OffPolicyScores",
    "evaluate_off_policy",
]

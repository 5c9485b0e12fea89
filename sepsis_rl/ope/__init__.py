"""What a policy is worth, judged from recorded episodes alone."""

from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.ope.estimates import (
    ESTIMATORS,
    LOW_ESS,
    Estimator,
    OffPolicyScores,
    evaluate_off_policy,
)
from sepsis_rl.ope.options import OffPolicyOptions

__all__ = [
    "ESTIMATORS",
    "LOW_ESS",
    "Episodes",
    "Estimator",
    "OffPolicyOptions",
    "OffPolicyScores",
    "evaluate_off_policy",
]

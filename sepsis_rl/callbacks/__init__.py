"""What happens around the gradient steps."""

from sepsis_rl.callbacks.baseline_curves import BaselineCurves
from sepsis_rl.callbacks.dose_images import DoseGridImages
from sepsis_rl.callbacks.graceful_stop import GracefulStop
from sepsis_rl.callbacks.last_checkpoint import LastCheckpoint
from sepsis_rl.callbacks.off_policy import OffPolicyEvaluation
from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation
from sepsis_rl.callbacks.policy_export import PolicyExport
from sepsis_rl.callbacks.progress import FitProgressBar
from sepsis_rl.callbacks.recorded_settings import RecordedSettings
from sepsis_rl.callbacks.results import Results

__all__ = [
    "BaselineCurves",
    "DoseGridImages",
    "FitProgressBar",
    "GracefulStop",
    "LastCheckpoint",
    "OffPolicyEvaluation",
    "PolicyEvaluation",
    "PolicyExport",
    "RecordedSettings",
    "Results",
]

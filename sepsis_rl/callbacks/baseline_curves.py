"""What others are worth, beside what is learned."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning_utilities.core.rank_zero import rank_zero_only

from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation, find_callback
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.loggers import run_loggers
from sepsis_rl.planning import evaluate

_SHOWN = ("clinician", "tabular", "optimal")


class BaselineCurves(pl.Callback):
    """Adds the baselines to TensorBoard's chart of exact survival, at each evaluation of a fit.

    Where no environment simulates the patients there are none.
    """

    def __init__(self) -> None:
        self._survival: dict[str, float] = {}

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs them, unless this is Lightning's sanity check of the loop."""
        evaluation = find_callback(trainer, PolicyEvaluation)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or evaluation is None or data.mdp is None:
            return
        for logger in run_loggers(trainer):
            if not self._survival:
                dynamics = true_dynamics(data.mdp, evaluation.strategy)
                self._survival = {
                    policy.name: evaluate(dynamics, policy.probabilities).survival
                    for policy in evaluation.baselines(data)
                    if policy.name in _SHOWN
                }
            logger.log_baselines(self._survival, trainer.global_step)

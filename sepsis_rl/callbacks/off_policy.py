"""Judging the policy by recorded episodes while it is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks.policy_evaluation import nan_without_policy
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.errors import InputError
from sepsis_rl.ope import Episodes, OffPolicyOptions, OffPolicyScores, evaluate_off_policy
from sepsis_rl.ope.estimates import Estimator
from sepsis_rl.ope.supported_value import SupportedValue, supported_value_of
from sepsis_rl.policies import Policy

_LOGGED: tuple[Estimator, ...] = ("fqe", "fqe_zero", "wis", "wdr")


class OffPolicyEvaluation(pl.Callback):
    """Scores every member's policy on the held-out episodes at each validation.

    Logs, under `ope/`: the value by training and held-out episodes together that policies are best
    chosen by (`supported_value`), fitted Q evaluation (`fqe`, and `fqe_zero` where an unseen pair
    is worth nothing), weighted importance sampling and weighted doubly robust estimates with their
    95 % intervals, the effective sample size and the share of unseen pairs. So
    `ModelCheckpoint(monitor="ope/supported_value", mode="max")` and early stopping need no
    simulator.

    Args:
        options: The fields of `OffPolicyOptions`.

    Raises:
        InputError: A value is out of range.
    """

    def __init__(self, **options: Any) -> None:
        try:
            self.options = OffPolicyOptions(**options)
        except InputError as error:
            raise InputError(f"ope.{error}") from error
        self._held_out: Episodes | None = None
        self._model: SupportedValue | None = None

    def model(self, data: OfflineDataModule) -> SupportedValue:
        """What values policies by training and held-out episodes."""
        if self._model is None:
            self._model = supported_value_of(
                data.counts, data.held_out, data.mdp, self.options.penalty
            )
        return self._model

    def score(self, policies: Sequence[Policy], episodes: Episodes, **how: Any) -> OffPolicyScores:
        """Scores any policies with this callback's options; `how` as `evaluate_off_policy` has."""
        return evaluate_off_policy(
            policies, episodes, estimators=_LOGGED, options=self.options, **how
        )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Scores and logs, unless this is Lightning's sanity check of the loop."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, OfflineAlgorithm)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self._held_out is None:
            self._held_out = Episodes(data.held_out, data.n_states, data.n_actions)
        policies = pl_module.policies()
        uniform = np.full((data.n_states, data.n_actions), 1 / data.n_actions)
        stand_in = Policy("without a policy", uniform)  # its figures are then replaced by NaN
        # The intervals of fitted Q take a second for each policy; the end of the run has them.
        scores = self.score(
            [policy or stand_in for policy in policies],
            self._held_out,
            refit=False,
            model=self.model(data),
        )
        pl_module.log_members(
            {
                f"ope/{name}": nan_without_policy(values, policies)
                for name, values in scores.metrics().items()
            }
        )

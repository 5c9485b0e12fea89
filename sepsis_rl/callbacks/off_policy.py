"""Judging the policy by recorded episodes while it is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.errors import InputError
from sepsis_rl.ope import Episodes, OffPolicyOptions, OffPolicyScores, evaluate_off_policy
from sepsis_rl.ope.estimates import Estimator
from sepsis_rl.policies import Policy

_LOGGED: tuple[Estimator, ...] = ("fqe", "fqe_zero", "wis", "wdr")


class OffPolicyEvaluation(pl.Callback):
    """Scores every member's policy on the held-out episodes at each validation.

    Logs, under `ope/`: fitted Q evaluation (`fqe`, and `fqe_zero` where an unseen pair is worth
    nothing), weighted importance sampling and weighted doubly robust estimates with their 95 %
    intervals, the effective sample size and the share of unseen pairs. So
    `ModelCheckpoint(monitor="ope/fqe", mode="max")` and early stopping need no simulator.

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

    def score(
        self,
        policies: Sequence[Policy],
        episodes: Episodes,
        estimators: Sequence[Estimator] = _LOGGED,
        *,
        refit: bool = True,
        advance: Callable[[int], Any] = lambda count: None,
    ) -> OffPolicyScores:
        """Scores any policies with this callback's options; see `evaluate_off_policy`."""
        return evaluate_off_policy(
            policies,
            episodes,
            estimators=estimators,
            options=self.options,
            refit=refit,
            advance=advance,
        )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Scores and logs, unless this is Lightning's sanity check of the loop."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, OfflineAlgorithm)
        if self._held_out is None:
            data = trainer.datamodule  # type: ignore[attr-defined]
            self._held_out = Episodes(data.held_out, data.n_states, data.n_actions)
        policies = [pl_module.policy(member) for member in range(len(pl_module.members))]
        # The intervals of fitted Q take a second for each policy; the end of the run has them.
        scores = self.score(policies, self._held_out, refit=False)
        diverged = pl_module.diverged()
        pl_module.log_members(
            {
                f"ope/{name}": values.to(diverged.device).masked_fill(diverged, torch.nan)
                for name, values in scores.metrics().items()
            }
        )

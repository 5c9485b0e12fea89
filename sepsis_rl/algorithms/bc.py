"""Behavior cloning: the policy that imitates the recorded decisions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepsis_rl.algorithms.base import OfflineAlgorithm
from sepsis_rl.algorithms.losses import negative_log_likelihood
from sepsis_rl.data.whole import Batch


class BC(OfflineAlgorithm):
    """Behavior cloning by cross-entropy; the network's outputs are the logits of the actions.

    Args:
        sampled: The policy samples from the learned distribution instead of taking its most likely
            action.
        kwargs: Those of `OfflineAlgorithm`.
    """

    def __init__(self, *, sampled: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sampled = sampled

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of the data's actions, in nats.

        Args:
            batch: Rows for each member, or all records.

        Returns:
            `loss` and `imitation_loss`, each (members,).
        """
        unlikeliness = negative_log_likelihood(self.q_network(batch.states))
        loss = batch.mean(batch.of_decisions(unlikeliness))
        return {"loss": loss, "imitation_loss": loss}

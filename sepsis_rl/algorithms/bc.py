"""Behavior cloning: the policy that imitates the recorded decisions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sepsis_rl.algorithms.base import OfflineAlgorithm
from sepsis_rl.algorithms.losses import imitation_loss
from sepsis_rl.data.batches import Batch


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
            batch: Columns of shape (members, batch).

        Returns:
            `loss` and `imitation_loss`, each (members,).
        """
        loss = imitation_loss(self.q_network(batch.observation), batch.action)
        return {"loss": loss, "imitation_loss": loss}

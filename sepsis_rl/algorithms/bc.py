"""Behavior cloning: the policy that imitates the recorded decisions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sepsis_rl.algorithms.base import OfflineAlgorithm
from sepsis_rl.algorithms.losses import imitation_loss
from sepsis_rl.data.batches import Batch


class BC(OfflineAlgorithm):
    """Behavior cloning by cross-entropy; the network's outputs are the logits of the actions.

    Args:
        learning_rate: Adam's step size; may be a list, as may `seed`.
        seed: Initial weights and batches follow from it.
        sampled: The policy samples from the learned distribution instead of taking its most likely
            action.
        embedding_dim: Width of the learned state vector.
        hidden_dims: Widths of the hidden layers.
        min_action_count: The policy chooses among actions that the training data has at least this
            often in the state (0: among all).
        share: `k/n` trains every n-th member from the k-th on, and other runs train the rest.
    """

    def __init__(
        self,
        learning_rate: float | list[float] = 3e-4,
        seed: int | list[int] = 42,
        sampled: bool = False,
        embedding_dim: int = 256,
        hidden_dims: Sequence[int] = (256, 256),
        min_action_count: int = 0,
        share: str | None = None,
    ) -> None:
        super().__init__(embedding_dim, hidden_dims, min_action_count, share)
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

    @torch.no_grad()
    def policy_tables(self) -> Tensor:
        """The members' policies: greedy, or the learned distribution if `sampled`.

        Returns:
            Probabilities, float64, (members, n_states, n_actions).
        """
        if not self.sampled:
            return super().policy_tables()
        scores = self.scores().masked_fill(self.diverged()[:, None, None], 0.0)
        return scores.double().softmax(-1)

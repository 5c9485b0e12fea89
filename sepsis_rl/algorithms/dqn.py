"""Deep Q-learning on recorded transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sepsis_rl.algorithms.base import OfflineAlgorithm
from sepsis_rl.algorithms.losses import q_of_action, td_loss, td_target
from sepsis_rl.algorithms.networks import QNetwork
from sepsis_rl.data.batches import Batch


class DQN(OfflineAlgorithm):
    """DQN (Mnih et al., 2015) with a soft target network, trained offline.

    Minimizes E[(Q(s, a) - y)^2], y = r + gamma * max_a' Q_target(s', a'), the essay's formula; the
    target network follows by `SoftTargetUpdate`. Differences from Mnih et al.: the squared error
    is not clipped, Adam replaces RMSProp, soft updates replace copies, and nothing explores, since
    the data is given.

    Each of `gamma`, `learning_rate`, `tau` and `seed` may be a list: the run then trains the
    product of all lists at once.

    Args:
        gamma: Discount factor, in [0, 1].
        learning_rate: Adam's step size.
        tau: Share of the online network that enters the target at each step, in (0, 1].
        seed: Initial weights and batches follow from it.
        double_q: Double DQN (van Hasselt et al., 2016): the online network picks the next action.
            The essay's published code does so, its formula does not.
        embedding_dim: Width of the learned state vector.
        hidden_dims: Widths of the hidden layers.
        min_action_count: The policy chooses among actions that the training data has at least this
            often in the state (0: among all).
        share: `k/n` trains every n-th member from the k-th on, and other runs train the rest.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("gamma", "learning_rate", "tau", "seed")

    gamma: Tensor
    target_q_network: QNetwork

    def __init__(
        self,
        gamma: float | list[float] = 0.99,
        learning_rate: float | list[float] = 3e-4,
        tau: float | list[float] = 0.005,
        seed: int | list[int] = 42,
        double_q: bool = False,
        embedding_dim: int = 256,
        hidden_dims: Sequence[int] = (256, 256),
        min_action_count: int = 0,
        share: str | None = None,
    ) -> None:
        super().__init__(embedding_dim, hidden_dims, min_action_count, share)
        self.check("gamma", "a number in [0, 1]", lambda value: 0 <= value <= 1)
        self.check("tau", "a number in (0, 1]", lambda value: 0 < value <= 1)
        self.tau: list[float] = self.members.values("tau")
        self.double_q = double_q
        self.register_setting("gamma")

    def build(self, n_states: int, n_actions: int) -> None:
        """Creates the online network and its copy, the target network, which takes no gradient."""
        super().build(n_states, n_actions)
        self.target_q_network = QNetwork(
            n_states, n_actions, self.embedding_dim, self.hidden_dims, self.seeds
        ).requires_grad_(False)

    @torch.no_grad()
    def td_target(self, batch: Batch) -> Tensor:
        """The value each Q(s, a) of the batch is regressed on, (members, batch)."""
        return td_target(
            batch.reward,
            batch.terminated,
            self.target_q_network(batch.next_observation),
            self.gamma,
            self.q_network(batch.next_observation) if self.double_q else None,
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The TD loss.

        Args:
            batch: Columns of shape (members, batch).

        Returns:
            `loss`, `td_loss`, `q_data` (mean Q of the data's actions) and `q_max` (largest Q in
            the batch), each (members,).
        """
        q = self.q_network(batch.observation)
        q_data = q_of_action(q, batch.action)
        loss = td_loss(q_data, self.td_target(batch))
        return {"loss": loss, "td_loss": loss, **q_statistics(q, q_data)}

    @torch.no_grad()
    def value_estimates(self, start: Tensor, policies: Tensor) -> Tensor:
        """Mean Q of the policy's actions over the start distribution, (members,)."""
        return torch.einsum("s,msa,msa->m", start, policies, self.q_network.table().to(start))


@torch.no_grad()
def q_statistics(q: Tensor, q_data: Tensor) -> dict[str, Tensor]:
    """What to watch in Q: survival lies in [0, 1], so a Q above 1 is overestimated.

    Args:
        q: (members, batch, n_actions).
        q_data: Q of the data's actions, (members, batch).

    Returns:
        `q_data`, the mean, and `q_max`, the largest of all, each (members,).
    """
    return {"q_data": q_data.mean(-1), "q_max": q.amax((-2, -1))}

"""Deep Q-learning on recorded transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from sepsis_rl.algorithms.base import OfflineAlgorithm
from sepsis_rl.algorithms.losses import q_of_action, td_loss, td_target
from sepsis_rl.algorithms.networks import QNetwork
from sepsis_rl.algorithms.target_update import SoftTargetUpdate
from sepsis_rl.data.batches import Batch
from sepsis_rl.policies import Policy


class DQN(OfflineAlgorithm):
    """DQN (Mnih et al., 2015) with a soft target network, trained offline.

    Minimizes E[(Q(s, a) - y)^2], y = r + gamma * max_a' Q_target(s', a'), the essay's formula; the
    target network follows by `SoftTargetUpdate`. Differences from Mnih et al.: the squared error
    is not clipped, Adam replaces RMSProp, soft updates replace copies, and nothing explores, since
    the data is given.

    Args:
        gamma: Discount factor, in [0, 1]; may be a list.
        tau: Share of the online network that enters the target network at each step, in (0, 1];
            may be a list.
        double_q: Double DQN (van Hasselt et al., 2016): the online network picks the next action.
            The essay's published code does so, its formula does not.
        kwargs: Those of `OfflineAlgorithm`.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("gamma", "learning_rate", "tau", "seed")

    gamma: Tensor
    target_q_network: QNetwork

    def __init__(
        self,
        *,
        gamma: float | list[float] = 0.99,
        tau: float | list[float] = 0.005,
        double_q: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check("gamma", "a number in [0, 1]", lambda value: 0 <= value <= 1)
        self.check("tau", "a number in (0, 1]", lambda value: 0 < value <= 1)
        self.tau: list[float] = self.members.values("tau")
        self.double_q = double_q
        self.register_setting("gamma")

    def configure_callbacks(self) -> list[pl.Callback]:
        """Brings the update of the target network."""
        return [SoftTargetUpdate(self.tau)]

    def build(self, n_states: int, n_actions: int) -> None:
        """Creates the online network and its copy, the target network, which takes no gradient."""
        super().build(n_states, n_actions)
        self.target_q_network = self.new_network(n_states, n_actions).requires_grad_(False)

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
    def value_estimates(self, start: Tensor, policies: Sequence[Policy | None]) -> Tensor:
        """Mean Q of the policies' actions over the start distribution, (members,)."""
        q = self.all_scores().cpu().to(start)
        nothing = torch.full(q.shape[1:], torch.nan, dtype=q.dtype)
        tables = [
            nothing if policy is None else torch.tensor(policy.probabilities) for policy in policies
        ]
        return torch.einsum("s,msa,msa->m", start, torch.stack(tables), q)


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

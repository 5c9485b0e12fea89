"""Conservative Q-learning: DQN plus one term."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from sepsis_rl.algorithms.dqn import DQN, q_statistics
from sepsis_rl.algorithms.losses import conservative_loss, q_of_action, td_loss
from sepsis_rl.data.batches import Batch


class CQL(DQN):
    """CQL(H) for discrete actions (Kumar et al., 2020, eq. 4).

    Minimizes the TD loss of `DQN` plus alpha * E[log sum_a exp Q(s, a) - Q(s, a_data)]. With
    alpha = 0 it is DQN to the bit. Difference from the paper: the TD loss lacks its factor 1/2, as
    in the essay, so an alpha here is twice the paper's for the same trade-off.

    Args:
        alpha: Weight of the conservative term, at least 0; may be a list like the others.
        gamma: Discount factor, in [0, 1].
        learning_rate: Adam's step size.
        tau: Share of the online network that enters the target at each step, in (0, 1].
        seed: Initial weights and batches follow from it.
        double_q: Double DQN: the online network picks the next action.
        embedding_dim: Width of the learned state vector.
        hidden_dims: Widths of the hidden layers.
        min_action_count: The policy chooses among actions that the training data has at least this
            often in the state (0: among all).
        share: `k/n` trains every n-th member from the k-th on, and other runs train the rest.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("alpha", *DQN.SETTINGS)

    alpha: Tensor

    def __init__(
        self,
        alpha: float | list[float] = 0.5,
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
        super().__init__(
            gamma,
            learning_rate,
            tau,
            seed,
            double_q,
            embedding_dim,
            hidden_dims,
            min_action_count,
            share,
        )
        self.check("alpha", "a number of at least 0", lambda value: 0 <= value < math.inf)
        self.register_setting("alpha")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The TD loss plus alpha times the conservative loss.

        Args:
            batch: Columns of shape (members, batch).

        Returns:
            `loss`, `td_loss`, `conservative_loss`, `q_data` and `q_max`, each (members,).
        """
        q = self.q_network(batch.observation)
        q_data = q_of_action(q, batch.action)
        td = td_loss(q_data, self.td_target(batch))
        conservative = conservative_loss(q, q_data)
        return {
            "loss": td + self.alpha.squeeze(1) * conservative,
            "td_loss": td,
            "conservative_loss": conservative,
            **q_statistics(q, q_data),
        }

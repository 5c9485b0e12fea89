"""Conservative Q-learning: DQN plus one term."""

from __future__ import annotations

import math
from typing import Any, ClassVar

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
        alpha: Weight of the conservative term, at least 0; may be a list.
        kwargs: Those of `DQN`.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("alpha", *DQN.SETTINGS)

    alpha: Tensor

    def __init__(self, *, alpha: float | list[float] = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
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

"""Conservative Q-learning: DQN plus one term."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor

from sepsis_rl.algorithms.dqn import DQN, q_statistics
from sepsis_rl.algorithms.losses import conservative_gap, squared_td_error
from sepsis_rl.data.whole import Batch


class CQL(DQN):
    """CQL(H) for discrete actions (Kumar et al., 2020, eq. 4).

    Minimizes the TD loss of `DQN` plus alpha * E[T log sum_a exp(Q(s, a) / T) - Q(s, a_data)], the
    sum over the actions that may be taken and the mean over the recorded ones among them. With
    alpha = 0 it is DQN to the bit. Difference from the paper: the TD loss lacks its factor 1/2, as
    in the essay, so an alpha here is twice the paper's for the same trade-off.

    Args:
        alpha: Weight of the conservative term, at least 0; may be a list.
        temperature: T of the conservative term, above 0, in units of the return; may be a list. The
            essay and the paper have 1. Near 0 only what stands out above the recorded actions is
            pushed down; far above the differences of values, the term imitates the records.
        kwargs: Those of `DQN`.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("alpha", "temperature", *DQN.SETTINGS)

    alpha: Tensor
    temperature: Tensor

    def __init__(
        self,
        *,
        alpha: float | list[float] = 0.5,
        temperature: float | list[float] = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check("alpha", "a number of at least 0", lambda value: 0 <= value < math.inf)
        self.check("temperature", "a number above 0", lambda value: 0 < value < math.inf)
        self.register_setting("alpha")
        self.register_setting("temperature")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The TD loss plus alpha times the conservative loss.

        Args:
            batch: Rows for each member, or all records.

        Returns:
            `loss`, `td_loss`, `conservative_loss`, `q_data` and `q_max`, each (members,).
        """
        q = self.q_network(batch.states)
        q_data = batch.of_decisions(q)
        td = batch.mean(squared_td_error(q_data, self.td_target(batch)), self.pair_weights)
        allowed = self.keep_allowed(q, batch.states)
        gap = conservative_gap(allowed, q_data, self.temperature)
        if self.actions != "all":
            gap = gap * batch.of_decisions(self.allowed_actions[batch.states])
        conservative = batch.mean(gap)
        return {
            "loss": td + self.alpha.squeeze(1) * conservative,
            "td_loss": td,
            "conservative_loss": conservative,
            **q_statistics(allowed, batch.mean(q_data)),
        }

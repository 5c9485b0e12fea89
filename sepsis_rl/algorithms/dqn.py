"""Deep Q-learning on recorded transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from sepsis_rl.algorithms.base import OfflineAlgorithm
from sepsis_rl.algorithms.losses import next_value, squared_td_error
from sepsis_rl.algorithms.networks import QNetwork
from sepsis_rl.algorithms.target_update import SoftTargetUpdate
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.data.whole import Batch
from sepsis_rl.errors import InputError
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
        value_range: Least and largest value that the target gives a next state, such as [0, 1] for
            survival, beyond which every value is overestimated; null sets no bounds.
        td_weights: In training on all records, `rows` weighs a pair in the TD loss as often as it
            was recorded, and `pairs` weighs all alike that the records, or for admissible actions
            the dynamics estimated from them, say something of.
        kwargs: Those of `OfflineAlgorithm`.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("gamma", "learning_rate", "tau", "seed")

    gamma: Tensor
    td_weights: Tensor | None
    target_q_network: QNetwork

    def __init__(
        self,
        *,
        gamma: float | list[float] = 0.99,
        tau: float | list[float] = 0.005,
        double_q: bool = False,
        value_range: tuple[float, float] | None = None,
        td_weights: Literal["rows", "pairs"] = "rows",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check("gamma", "a number in [0, 1]", lambda value: 0 <= value <= 1)
        self.check("tau", "a number in (0, 1]", lambda value: 0 < value <= 1)
        self.tau: list[float] = self.members.values("tau")
        self.double_q = double_q
        if value_range is not None and not -np.inf < value_range[0] < value_range[1] < np.inf:
            raise InputError(
                f"model.value_range={value_range} cannot be used: give two finite numbers, the "
                "least and the largest, or null"
            )
        self.value_range = value_range
        if td_weights not in ("rows", "pairs"):
            raise InputError(f"model.td_weights={td_weights} cannot be used: give rows or pairs")
        self.td_weighting = td_weights
        self.register_buffer("td_weights", None, persistent=False)
        self.register_setting("gamma")

    def configure_callbacks(self) -> list[pl.Callback]:
        """Brings the update of the target network."""
        return [SoftTargetUpdate(self.tau)]

    def build(self, n_states: int, n_actions: int) -> None:
        """Creates the online network and its copy, the target network, which takes no gradient."""
        super().build(n_states, n_actions)
        self.target_q_network = self.new_network(n_states, n_actions).requires_grad_(False)

    def check_data(self, data: OfflineDataModule) -> None:
        """Checks what this algorithm asks of the data.

        Raises:
            InputError: The data are drawn by rows, and pairs are to weigh alike.
        """
        super().check_data(data)
        if self.td_weighting == "pairs" and data.batch_size != "all":
            raise InputError(
                f"model.td_weights=pairs cannot be used with data.batch_size={data.batch_size}: "
                "rows are drawn as often as they were recorded; give rows, or data.batch_size=all"
            )

    def configure_model(self) -> None:
        """Builds the networks, and the weights of the pairs in the TD loss."""
        super().configure_model()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.td_weighting == "pairs":
            known = data.pair_counts > 0
            if self.actions == "admissible" and data.mdp is not None:
                admissible = data.mdp.admissible & ~data.mdp.terminal[:, None]
                known = admissible if data.dynamics != "counts" else admissible & known
            elif self.actions == "supported":
                known = data.pair_counts >= self.min_action_count
            # A division by 0 where nothing is known would train on NaN.
            weights = known / max(known.sum(), 1)
            self.td_weights = torch.tensor(weights, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def td_target(self, batch: Batch) -> Tensor:
        """The value each Q(s, a) of the batch's decisions is regressed on."""
        states = batch.next_states
        value = next_value(
            self.keep_allowed(self.target_q_network(states), states),
            self.keep_allowed(self.q_network(states), states) if self.double_q else None,
        )
        if self.value_range is not None:
            value = value.clamp(*self.value_range)
        return batch.backup(value, self.gamma)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The TD loss.

        Args:
            batch: Rows for each member, or all records.

        Returns:
            `loss`, `td_loss`, `q_data` (mean Q of the recorded decisions) and `q_max` (largest Q in
            the batch), each (members,).
        """
        q = self.q_network(batch.states)
        q_data = batch.of_decisions(q)
        td = batch.mean(squared_td_error(q_data, self.td_target(batch)), self.td_weights)
        return {"loss": td, "td_loss": td, **q_statistics(q, batch.mean(q_data))}

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
        q: (members, states, n_actions).
        q_data: Mean Q of the data's decisions, (members,).

    Returns:
        `q_data` as given, and `q_max`, the largest of all, each (members,).
    """
    return {"q_data": q_data.detach(), "q_max": q.amax((-2, -1))}

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
from sepsis_rl.mdp import BoolArray
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
        td_weights: `rows` weighs a pair in the TD loss as often as it was recorded, in balance with
            the conservative term; `pairs`, of all records alone, weighs alike all pairs that may be
            taken and are recorded, or if admissible estimated, which settles rare states sooner.
            null is `pairs` where a step sees all records and `actions` leaves some out.
        kwargs: Those of `OfflineAlgorithm`.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("gamma", "learning_rate", "tau", "seed")

    gamma: Tensor
    pair_weights: Tensor | None
    target_q_network: QNetwork

    def __init__(
        self,
        *,
        gamma: float | list[float] = 0.99,
        tau: float | list[float] = 0.005,
        double_q: bool = False,
        value_range: tuple[float, float] | None = None,
        td_weights: Literal["rows", "pairs"] | None = None,
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
        self.check("td_weights", "rows, pairs or null", ("rows", "pairs", None).__contains__)
        self.register_buffer("pair_weights", None, persistent=False)
        self.register_setting("gamma")

    def configure_callbacks(self) -> list[pl.Callback]:
        """Brings the update of the target network."""
        return [SoftTargetUpdate(self.tau)]

    def build(self, n_states: int, n_actions: int) -> None:
        """Creates the online network and its copy, the target network, which takes no gradient."""
        super().build(n_states, n_actions)
        self.target_q_network = self.new_network(n_states, n_actions).requires_grad_(False)

    def check_fit(self, trainer: pl.Trainer, data: OfflineDataModule) -> None:
        """Refuses to weigh pairs alike in rows that are drawn, besides what no algorithm can do.

        Raises:
            InputError: The data or the trainer cannot give what is asked for.
        """
        super().check_fit(trainer, data)
        if self.hparams["td_weights"] == "pairs" and data.batch_size != "all":
            raise InputError(
                f"model.td_weights=pairs cannot be used with data.batch_size={data.batch_size}: "
                "rows are drawn as often as they were recorded; give rows, or data.batch_size=all"
            )

    def configure_model(self) -> None:
        """Builds the networks, and the weights of the pairs in the TD loss."""
        super().configure_model()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        weighting = self.hparams["td_weights"]
        if weighting is None and data.batch_size == "all" and not self.allowed_actions.all():
            weighting = "pairs"
        if weighting == "pairs":
            known = self._known_pairs(data)
            weights = known / max(known.sum(), 1)
            self.pair_weights = torch.tensor(weights, dtype=torch.float32, device=self.device)

    def _known_pairs(self, data: OfflineDataModule) -> BoolArray:
        """The pairs that may be taken and whose dynamics are known, (n_states, n_actions)."""
        recorded: BoolArray = data.pair_counts > 0
        mdp = data.mdp if self.actions == "admissible" else None
        if mdp is None:
            allowed: BoolArray = self.allowed_actions.cpu().numpy()
            return recorded & allowed
        admissible: BoolArray = mdp.admissible & ~mdp.terminal[:, None]
        return admissible & recorded if data.dynamics == "counts" else admissible

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
            `loss`, `td_loss`, `q_data` (mean Q of the recorded decisions) and `q_max` (largest Q of
            actions that may be taken in the batch's states), each (members,).
        """
        q = self.q_network(batch.states)
        q_data = batch.of_decisions(q)
        td = batch.mean(squared_td_error(q_data, self.td_target(batch)), self.pair_weights)
        allowed = self.keep_allowed(q.detach(), batch.states)
        return {"loss": td, "td_loss": td, **q_statistics(allowed, batch.mean(q_data))}

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
        q: (members, states, n_actions); actions that may not be taken are -inf.
        q_data: Mean Q of the data's decisions, (members,).

    Returns:
        `q_data` as given, and `q_max`, the largest of all, each (members,).
    """
    return {"q_data": q_data.detach(), "q_max": q.detach().amax((-2, -1))}

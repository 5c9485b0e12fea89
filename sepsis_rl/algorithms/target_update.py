"""Soft updates of the target network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sepsis_rl.algorithms.optimizer import along_members
from sepsis_rl.errors import InputError


class SoftTargetUpdate(pl.Callback):
    """Moves a target network toward the online one after every optimizer step.

    target <- tau * online + (1 - tau) * target (Lillicrap et al., 2016, "Continuous control with
    deep reinforcement learning", Algorithm 1), for all parameters in one fused operation.

    It hangs on the optimizer's post-step hook, so it runs exactly once per optimizer step, also
    under gradient accumulation and manual optimization. A module without a `target_q_network` is
    left alone. `DQN` and `CQL` bring theirs along, which takes the place of one in the Trainer.

    Args:
        tau: Share of the online network in (0, 1]; one number, or one for each member.
    """

    def __init__(self, tau: float | Sequence[float]) -> None:
        self.tau = [tau] if isinstance(tau, float | int) else list(tau)
        if not self.tau or not all(0 < value <= 1 for value in self.tau):
            raise InputError(f"tau={tau} cannot be used: give a number in (0, 1]")
        self._hook: RemovableHandle | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attaches the update to the optimizer, whose state is restored by now.

        Raises:
            InputError: There is another such callback, or the number of taus is not that of the
                members.
        """
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if sum(isinstance(callback, SoftTargetUpdate) for callback in callbacks) > 1:
            raise InputError(
                "the Trainer has two SoftTargetUpdate callbacks, and the target would move twice a "
                "step; DQN and CQL bring their own"
            )
        networks = dict(pl_module.named_children())
        if "target_q_network" not in networks:
            return
        online: list[Tensor] = list(networks["q_network"].parameters())
        target: list[Tensor] = list(networks["target_q_network"].parameters())
        members = online[0].shape[0]
        if len(self.tau) not in (1, members):
            raise InputError(
                f"tau={self.tau} cannot be used: give one, or one for each of {members}"
            )
        weight = self._weights(online)

        @torch.no_grad()  # hooks run with gradients on: the target would join the graph
        def update(*_: Any) -> None:
            torch._foreach_lerp_(target, online, weight)

        self._hook = trainer.optimizers[0].register_step_post_hook(update)

    def _weights(self, parameters: list[Tensor]) -> float | list[Tensor]:
        if len(set(self.tau)) == 1:
            return self.tau[0]
        return [along_members(torch.tensor(self.tau, dtype=p.dtype), p) for p in parameters]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Detaches it."""
        self._detach()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Detaches it."""
        self._detach()

    def _detach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

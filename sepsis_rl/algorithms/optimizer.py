"""One optimizer for all members: their learning rates, and the clipping of their gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam


class MemberAdam(Adam):
    """One fused Adam for stacked parameters, with a learning rate for each member.

    A fused optimizer has one learning rate. Adam's step is proportional to it, so members with a
    smaller one get their share of a step with the largest: `set_weights_aside` leaves zeros in the
    parameters, which after the step hold the step alone; it is scaled and added to the weights.
    The difference of the weights before and after would lose a small step in their rounding.

    Args:
        parameters: Tensors with a leading members dimension.
        learning_rates: One for each member.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rates: Sequence[float]) -> None:
        self._stacked = list(parameters)
        self._largest = max(learning_rates)
        # Capturable, or torch refuses to make the step part of a CUDA graph; else the same.
        super().__init__(self._stacked, lr=self._largest, fused=True, capturable=True)
        self._weights: list[Tensor] = []
        self._shares: list[Tensor] = []
        if min(learning_rates) < self._largest:
            shares = torch.tensor(learning_rates) / self._largest
            self._shares = [along_members(shares, parameter) for parameter in self._stacked]
            self.register_step_post_hook(MemberAdam._scale_step)

    @torch.no_grad()
    def set_weights_aside(self) -> None:
        """Comes between the gradients and the step; does nothing where all rates are equal."""
        if self._shares:
            self._weights = [parameter.clone() for parameter in self._stacked]
            torch._foreach_zero_(self._stacked)

    @torch.no_grad()
    def _scale_step(self, *_: Any) -> None:
        for parameter, weights, share in zip(
            self._stacked, self._weights, self._shares, strict=True
        ):
            parameter.mul_(share).add_(weights)
        self._weights = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a checkpoint's moments; the learning rates remain the configured ones."""
        super().load_state_dict(state_dict)
        self.scale_learning_rates(1.0)

    def scale_learning_rates(self, factor: float) -> None:
        """Sets the learning rates to a multiple of the configured ones."""
        for group in self.param_groups:
            group["lr"] = self._largest * factor


def cosine_decay(step: int, max_steps: int) -> float:
    """The share of the learning rate that a step has: half a wave of the cosine, from 1 to 0.

    Args:
        step: Number of optimizer steps before it.
        max_steps: Number of all.
    """
    return (1 + math.cos(math.pi * min(step / max_steps, 1.0))) / 2


def clip_grad_norm_by_member(gradients: list[Tensor], max_norm: float | None) -> Tensor:
    """Scales each member's gradient down to a norm, in place.

    `torch.nn.utils.clip_grad_norm_` for stacked parameters: the norm runs over all parameters of
    one member, so no member's step depends on another's.

    Args:
        gradients: Tensors with a leading members dimension; changed in place.
        max_norm: Largest norm allowed, or None to measure only.

    Returns:
        The norms before clipping, (members,).
    """
    parts = [torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    if max_norm is not None:
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(along_members(scale, gradient))
    return norm


def along_members(values: Tensor, stacked: Tensor) -> Tensor:
    """Shapes a value for each member so that it multiplies a stacked tensor.

    Args:
        values: (members,).
        stacked: (members, ...).

    Returns:
        (members, 1, ..., 1), on the device of `stacked`.
    """
    return values.to(stacked.device).view(-1, *[1] * (stacked.ndim - 1))

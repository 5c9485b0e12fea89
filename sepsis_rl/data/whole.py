"""All records at once: a batch that is made of counts and estimated dynamics."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sepsis_rl.data.batches import RowBatch
from sepsis_rl.dynamics import Counts, Dynamics


@dataclass(frozen=True, eq=False)
class WholeBatch:
    """Every recorded decision at once, at a cost that does not grow with the number of records.

    It answers what `RowBatch` answers. Its decisions are all actions in all states, shared by the
    members, and a mean over them weighs a pair as often as it was recorded. The next state is not
    drawn but expected: by the records' counts, or by what else `Dynamics` say follows.

    Several processes split the states. Each counts its part as often as there are processes, so
    that their mean is the whole.

    Attributes:
        states: int64 (1, states), those of this process, in order.
        next_states: int64 (1, n_states), all of them.
        share: float32 (states, n_actions), a pair's share of all recorded decisions.
        first: The first of `states`.
        processes: Number of processes.
        rewards: float32 (states, n_actions), expected immediate rewards.
        rows: float32 csr (n_rows, n_states), as in `Dynamics`.
        mixture: float32 csr (states * n_actions, n_rows), as in `Dynamics`.
    """

    states: Tensor
    next_states: Tensor
    share: Tensor
    first: int
    processes: int
    rewards: Tensor
    rows: Tensor
    mixture: Tensor

    @classmethod
    def of_records(
        cls,
        counts: Counts,
        dynamics: Dynamics,
        device: torch.device | str,
        rank: int = 0,
        world_size: int = 1,
    ) -> WholeBatch:
        """Makes the batch of a process.

        Args:
            counts: The records.
            dynamics: What follows each decision; estimated from the counts, or more.
            device: Where it lives.
            rank: This process.
            world_size: Number of processes.
        """
        n_states, n_actions = counts.pairs.shape
        first, end = rank * n_states // world_size, (rank + 1) * n_states // world_size
        share = counts.pairs[first:end] / counts.pairs.sum()
        return cls(
            states=torch.arange(first, end, device=device).unsqueeze(0),
            next_states=torch.arange(n_states, device=device).unsqueeze(0),
            share=torch.tensor(share, dtype=torch.float32, device=device),
            first=first,
            processes=world_size,
            rewards=torch.tensor(dynamics.rewards[first:end], dtype=torch.float32, device=device),
            rows=_csr(dynamics.rows, device),
            mixture=_csr(dynamics.mixture[first * n_actions : end * n_actions], device),
        )

    def of_decisions(self, scores: Tensor) -> Tensor:
        """The scores as they are, for every action in `states` is a decision.

        Args:
            scores: (members or 1, states, n_actions).
        """
        return scores

    def backup(self, next_value: Tensor, gamma: Tensor) -> Tensor:
        """One step of what a decision is worth: E[r + gamma * V(s')].

        Args:
            next_value: Value of `next_states`, (members, n_states).
            gamma: Discount factor, (members, 1).

        Returns:
            (members, states, n_actions).
        """
        with _in_full_precision(next_value.device.type):
            followed: Tensor = self.mixture @ (self.rows @ next_value.float().T)
        return self.rewards + gamma.unsqueeze(-1) * followed.T.reshape(-1, *self.rewards.shape)

    def mean(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """Weighted sum over the decisions.

        Args:
            values: (members, states, n_actions).
            weights: Weight of each pair, (n_states, n_actions), summing to 1; None weighs a pair
                as often as it was recorded.

        Returns:
            (members,).
        """
        mine = slice(self.first, self.first + len(self.share))
        weighted = values * (self.share if weights is None else weights[mine])
        return weighted.sum((-2, -1)) * self.processes


Batch = RowBatch | WholeBatch


class WholeBatches:
    """The same batch for every step, without an end.

    Args:
        batch: All records.
    """

    # No __len__: Lightning reads a sized loader differently, and counts epochs by it.

    def __init__(self, batch: WholeBatch) -> None:
        self._batch = batch

    def __iter__(self) -> Iterator[WholeBatch]:
        """Yields the batch forever."""
        return itertools.repeat(self._batch)


def _in_full_precision(device: str) -> AbstractContextManager[Any]:
    """Keeps autocast away from sparse products, which have no 16-bit form on the CPU."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def _csr(matrix: sp.csr_array, device: torch.device | str) -> Tensor:
    with warnings.catch_warnings():
        # torch calls its csr tensors a beta; the products used here are tested.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.tensor(matrix.indptr, dtype=torch.int64),
            torch.tensor(matrix.indices, dtype=torch.int64),
            torch.tensor(matrix.data.astype(np.float32)),
            size=matrix.shape,
            device=device,
            check_invariants=False,
        )

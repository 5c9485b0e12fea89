"""Batches of transitions, packed, drawn by address and gathered on the training device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sepsis_rl.data.transitions import Transitions
from sepsis_rl.errors import InputError
from sepsis_rl.randomness import BATCH, integers

# Rows drawn at once: enough to make the overhead of a call vanish, few enough to stay in cache.
_ROWS_PER_BLOCK = 2**15
# Held-out rows per batch: bounds the activations of a population of networks.
_ROWS_PER_HELD_OUT_BATCH = 4096


class RowBatch(NamedTuple):
    """Transitions for each member, drawn from the records; columns of shape (members, rows).

    What a loss asks of a batch is what `WholeBatch` answers too: the states to score, the batch's
    own decisions among their actions, what follows those, and the mean over them. Here a state has
    one decision, so what is said of decisions has the shape (members, rows, 1).

    Attributes:
        observation: int64, state index.
        action: int64, action index.
        reward: float32.
        next_observation: int64, state index.
        terminated: float32, 1 where the episode ended in `next_observation`. A truncated one did
            not, so its value goes on.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    terminated: Tensor

    @property
    def states(self) -> Tensor:
        """States whose actions a loss scores, (members, rows)."""
        return self.observation

    @property
    def next_states(self) -> Tensor:
        """States whose value `backup` takes, (members, rows)."""
        return self.next_observation

    def of_decisions(self, scores: Tensor) -> Tensor:
        """Picks the scores of the recorded decisions.

        Args:
            scores: Of all actions in `states`, (members or 1, rows, n_actions).

        Returns:
            (members, rows, 1).
        """
        return scores.gather(-1, self.action.unsqueeze(-1))

    def backup(self, next_value: Tensor, gamma: Tensor) -> Tensor:
        """One step of what a decision is worth: r + gamma * V(s'), of the end r alone.

        Args:
            next_value: Value of `next_states`, (members, rows).
            gamma: Discount factor, (members, 1).

        Returns:
            (members, rows, 1).
        """
        return (self.reward + gamma * (1 - self.terminated) * next_value).unsqueeze(-1)

    def mean(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over the rows, which have no weights but their number.

        Args:
            values: Of decisions, (members, rows, 1).
            weights: Not used: pairs weigh as often as they are drawn.

        Returns:
            (members,).
        """
        return values.mean((-2, -1))


class TransitionTable:
    """Transitions on a device, 8 bytes a row: the columns of a batch packed into one integer.

    A batch is then one gather from memory instead of five.

    Args:
        transitions: The rows.
        device: Where they live.

    Raises:
        InputError: A row does not fit into 63 bits.
    """

    def __init__(self, transitions: Transitions, device: torch.device | str) -> None:
        rewards, reward_index = np.unique(transitions.reward, return_inverse=True)
        word = transitions.terminated.astype(np.int64)
        used = 1
        self._fields: list[tuple[int, int]] = []  # (shift, mask)
        for column in (
            transitions.observation,
            transitions.action,
            reward_index,
            transitions.next_observation,
        ):
            bits = int(column.max()).bit_length()
            self._fields.append((used, (1 << bits) - 1))
            used += bits
            if used > 63:
                raise InputError(
                    f"{transitions!r}: a row needs more than 63 bits; there are too many different "
                    "states, actions and rewards"
                )
            word |= column << (used - bits)
        self._words = torch.as_tensor(word, device=device)
        self._rewards = torch.as_tensor(rewards, device=device)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._words)

    @property
    def device(self) -> torch.device:
        """Where the rows live."""
        return self._words.device

    def gather(self, rows: Tensor) -> RowBatch:
        """The columns of given rows.

        Args:
            rows: int64, any shape.

        Returns:
            Columns of that shape.
        """
        word = self._words.take(rows)
        observation, action, reward, next_observation = (
            (word >> shift).bitwise_and_(mask) for shift, mask in self._fields
        )
        return RowBatch(
            observation=observation,
            action=action,
            reward=self._rewards.take(reward),
            next_observation=next_observation,
            terminated=word.bitwise_and_(1).to(torch.float32),
        )


class AddressedBatches:
    """Batches without an end, drawn uniformly with replacement.

    Batch k of a member is a function of its seed and k alone: the same in a population, after a
    resume, and split over processes, each of which takes its contiguous share.

    Args:
        table: Rows to draw from, on the device of the batches.
        member_seeds: int64 (members,).
        batch_size: Rows of a member's batch over all processes.
        first: Says, each time an iteration begins, which batch it begins with.
        rank: This process.
        world_size: Number of processes.

    Raises:
        InputError: The processes cannot split a batch evenly.
    """

    # No __len__: Lightning reads a sized loader differently, and counts epochs by it.

    def __init__(
        self,
        table: TransitionTable,
        member_seeds: Tensor,
        batch_size: int,
        first: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_batch_size(batch_size, world_size)
        self._table = table
        self._seeds = member_seeds.to(table.device).view(1, -1, 1)
        share = batch_size // world_size
        self._position = torch.arange(rank * share, (rank + 1) * share, device=table.device)
        self._first = first
        self._block = max(1, _ROWS_PER_BLOCK // (share * self._seeds.numel()))

    def __iter__(self) -> Iterator[RowBatch]:
        """Yields batches from the first one asked for onward."""
        first = self._first()
        while True:
            # Batches are addressed, so drawing several at once changes none of them.
            k = torch.arange(first, first + self._block, device=self._table.device)
            rows = integers(len(self._table), self._seeds, k.view(-1, 1, 1), BATCH, self._position)
            block = self._table.gather(rows)
            yield from map(RowBatch._make, zip(*(column.unbind() for column in block), strict=True))
            first += self._block


class HeldOutBatches:
    """All held-out rows once, in a few large batches of shape (1, rows), split over processes.

    Args:
        table: The held-out rows.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, table: TransitionTable, rank: int = 0, world_size: int = 1) -> None:
        n = len(table)
        first, end = rank * n // world_size, (rank + 1) * n // world_size
        # By the largest share, so that all processes take the same number of steps.
        n_batches = -(-n // (world_size * _ROWS_PER_HELD_OUT_BATCH))
        edges = [first + (end - first) * i // n_batches for i in range(n_batches + 1)]
        self._batches = [
            table.gather(torch.arange(low, high, device=table.device).unsqueeze(0))
            for low, high in itertools.pairwise(edges)
        ]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[RowBatch]:
        """Yields the batches in the order of their rows."""
        return iter(self._batches)


def check_batch_size(batch_size: int | Literal["all"], world_size: int) -> None:
    """Checks that processes can split a batch evenly; all records they split by states.

    Raises:
        InputError: They cannot.
    """
    if batch_size != "all" and batch_size % world_size:
        raise InputError(
            f"data.batch_size={batch_size} cannot be split evenly over {world_size} devices; give "
            f"a multiple of {world_size}"
        )

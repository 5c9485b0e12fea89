"""Feeding transitions to a population: `OfflineDataModule`."""

from __future__ import annotations

from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from sepsis_rl.data.batches import (
    AddressedBatches,
    HeldOutBatches,
    TransitionTable,
    check_batch_size,
)
from sepsis_rl.data.recorded import RecordedEpisodes
from sepsis_rl.data.whole import WholeBatch, WholeBatches
from sepsis_rl.dynamics import ESTIMATES, Dynamics, Estimate, estimated_dynamics
from sepsis_rl.errors import InputError


class OfflineDataModule(RecordedEpisodes, pl.LightningDataModule):
    """Serves recorded episodes to the members of a run.

    A gradient step sees rows drawn from the records, or all of them at once. Either way the data
    live on the training device, and there are no worker processes.

    Args:
        batch_size: Rows of a gradient step, over all devices; `all` makes every step see all
            records, at a cost that does not grow with their number.
        dynamics: Where a step sees all records, what it takes to follow a decision: `counts`, what
            followed in the records; `pooled`, that and five decisions like all in the state;
            `empirical_bayes`, that and as much of the state, its neighbors and the dose's effect
            elsewhere as the records say is right.
        episodes: Which episodes, as `RecordedEpisodes` takes them.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        batch_size: int | Literal["all"] = 256,
        dynamics: Estimate = "counts",
        **episodes: Any,
    ) -> None:
        super().__init__(**episodes)
        if batch_size != "all" and batch_size < 1:
            raise InputError(
                f"data.batch_size={batch_size} cannot be used: give an integer from 1 upward, or "
                "all"
            )
        if dynamics not in ESTIMATES:
            raise InputError(
                f"data.dynamics={dynamics} cannot be used: give one of {', '.join(ESTIMATES)}"
            )
        if dynamics != "counts" and batch_size != "all":
            raise InputError(
                f"data.dynamics={dynamics} cannot be used with data.batch_size={batch_size}: a row "
                "has the next state that was recorded; give counts, or data.batch_size=all"
            )
        self.batch_size = batch_size
        self.dynamics: Estimate = dynamics

    def estimate_dynamics(self) -> Dynamics:
        """What the training episodes say follows each decision, as `dynamics` asks for."""
        return estimated_dynamics(self.counts, self.dynamics, self.mdp)

    # -- Lightning's hooks ---------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Simulates what is not cached yet; Lightning calls it in one process of a machine.

        That process loads and checks the data at once: before `setup`, Lightning makes the folder
        of the run, which data that cannot be used should not leave behind.

        Raises:
            InputError: The file is missing or breaks a rule, or the cache folder cannot be written
                to.
        """
        self.make()
        self.load()

    def setup(self, stage: str | None = None) -> None:
        """Loads and checks the data and moves them to the training device.

        Raises:
            InputError: The data break a rule, or cannot be split as asked.
        """
        _, world_size, device = self._place()
        if stage == "fit":
            check_batch_size(self.batch_size, world_size)
        self.load()
        if len(self.held_out) < world_size:
            raise InputError(
                f"{len(self.held_out)} held-out rows cannot be split over {world_size} processes; "
                "hold out more"
            )
        if self.batch_size != "all":
            self._train_table = TransitionTable(self.train, device)
        self._held_out_table = TransitionTable(self.held_out, device)

    def train_dataloader(self) -> AddressedBatches | WholeBatches:
        """Batches for the members of the module that is trained, from the trainer's step onward."""
        rank, world_size, device = self._place()
        if self.batch_size == "all":
            dynamics = self.estimate_dynamics()
            batch = WholeBatch.of_records(self.counts, dynamics, device, rank, world_size)
            return WholeBatches(batch)
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("train_dataloader needs a Trainer; without one use AddressedBatches")
        seeds = trainer.lightning_module.member_seeds
        assert isinstance(seeds, Tensor)
        return AddressedBatches(
            self._train_table,
            seeds,
            self.batch_size,
            # The step is read when the iteration begins, which is after a checkpoint is restored.
            # Counting batches here instead would count the one that Lightning reads ahead.
            first=lambda: trainer.global_step * trainer.accumulate_grad_batches,
            rank=rank,
            world_size=world_size,
        )

    def val_dataloader(self) -> HeldOutBatches:
        """The held-out rows."""
        rank, world_size, _ = self._place()
        return HeldOutBatches(self._held_out_table, rank, world_size)

    def test_dataloader(self) -> HeldOutBatches:
        """The held-out rows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Tensor:
        """All states in one batch: iterating over (1, n_states) yields it."""
        # A list would be taken for a list of loaders, and the tensor in it for a loader of scalars.
        _, _, device = self._place()
        return torch.arange(self.n_states, device=device).unsqueeze(0)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Batches are made on the device, so there is nothing to do."""
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Names the data for the checkpoint."""
        return {"content_hash": self.content_hash}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warns where the checkpoint was trained on other data."""
        if state_dict["content_hash"] != self.content_hash:
            rank_zero_warn(
                "the checkpoint was trained on other data than these: content hash "
                f"{state_dict['content_hash'][:12]} there, {self.content_hash[:12]} here "
                f"({self.train!r})"
            )

    def _place(self) -> tuple[int, int, torch.device]:
        """This process, the number of processes, and the device of this one."""
        if self.trainer is None:
            return 0, 1, torch.device("cpu")
        trainer = self.trainer
        return trainer.global_rank, trainer.world_size, trainer.strategy.root_device

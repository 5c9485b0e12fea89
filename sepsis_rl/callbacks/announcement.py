"""What a fit begins by saying."""

from __future__ import annotations

import lightning.pytorch as pl
import torch

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import shown, tell


class Announcement(pl.Callback):
    """Says what is trained, on which device and data, for how long, and where it is written."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints six lines, on the first process."""
        folder = trainer.log_dir  # all processes have to ask
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, OfflineAlgorithm)
        members = len(pl_module.members)
        parameters = sum(weights.numel() for weights in pl_module.q_network.parameters())
        trains = f"{members} members of " if members > 1 else ""
        trains += f"{parameters // members:,} parameters"
        if trainer.max_steps >= 0:
            trains += f", {trainer.max_steps:,} steps"
            trains += f", {trainer.global_step:,} of them done" if trainer.global_step else ""
        device = trainer.strategy.root_device
        name = f"{device.type}, {_count(torch.get_num_threads(), 'thread')}"
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
        if trainer.world_size > 1:
            name += f", {_count(trainer.world_size, 'process')}"
        data: OfflineDataModule = trainer.datamodule  # type: ignore[attr-defined]
        source = f"{shown(data.path)}: " if data.path is not None else ""
        each = f"{data.batch_size:,} rows" if data.batch_size != "all" else "all records"
        estimate = f", dynamics {data.dynamics}" if data.batch_size == "all" else ""
        actions: str = pl_module.actions
        if actions == "admissible" and data.mdp is None:
            actions = "all, since no environment publishes admissible ones"
        visited = torch.tensor(data.pair_counts.sum(axis=1) > 0)
        choices = float(pl_module.allowed_actions.cpu()[visited].sum(-1).float().mean())
        tell(
            f"Trains     {type(pl_module).__name__}, {trains}\n"
            f"Device     {name}\n"
            f"Data       {source}{_count(data.train.n_episodes, 'episode')}, "
            f"{len(data.train):,} transitions, content hash {data.content_hash[:12]}\n"
            f"Each step  {each}{estimate}\n"
            f"Actions    {actions}: {choices:.3g} of {data.n_actions} in a visited state\n"
            f"Writes to  {shown(str(folder))}"
        )


def _count(number: int, thing: str) -> str:
    plural = "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{plural * (number != 1)}"

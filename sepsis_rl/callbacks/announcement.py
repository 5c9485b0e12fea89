"""What a fit begins by saying."""

from __future__ import annotations

import lightning.pytorch as pl
import torch

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import tell


class Announcement(pl.Callback):
    """Says what is trained, on which device and data, for how long, and where it is written."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints four lines, on the first process."""
        folder = trainer.log_dir  # all processes have to ask
        if trainer.is_global_zero:
            assert isinstance(pl_module, OfflineAlgorithm)
            data: OfflineDataModule = trainer.datamodule  # type: ignore[attr-defined]
            source = f"{data.path}: " if data.path is not None else ""
            tell(
                f"Trains     {_model(pl_module)}{_steps(trainer)}\n"
                f"Device     {_device(trainer)}\n"
                f"Data       {source}{_count(data.train.n_episodes, 'episode')}, "
                f"{len(data.train):,} transitions, content hash {data.content_hash[:12]}\n"
                f"Writes to  {folder}"
            )


def _model(module: OfflineAlgorithm) -> str:
    """The algorithm, and the size of its networks."""
    members = len(module.members)
    parameters = sum(parameter.numel() for parameter in module.q_network.parameters()) // members
    many = f"{members} members of " if members > 1 else ""
    return f"{type(module).__name__}, {many}{parameters:,} parameters"


def _steps(trainer: pl.Trainer) -> str:
    if trainer.max_steps < 0:
        return ""
    done = f", {trainer.global_step:,} of them done" if trainer.global_step else ""
    return f", {trainer.max_steps:,} steps{done}"


def _device(trainer: pl.Trainer) -> str:
    """The kind of device, and how many processes share the work."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type}, {_count(torch.get_num_threads(), 'thread')}"
    processes = trainer.world_size
    return f"{name}, {_count(processes, 'process')}" if processes > 1 else name


def _count(number: int, thing: str) -> str:
    plural = "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{plural * (number != 1)}"

"""What a fit begins by saying."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from rich.console import Console

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.data.datamodule import OfflineDataModule


class Announcement(pl.Callback):
    """Says what is trained, on which device and data, for how long, and where it is written."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints four lines, on the first process."""
        folder = trainer.log_dir  # all processes have to ask
        if trainer.is_global_zero:
            assert isinstance(pl_module, OfflineAlgorithm)
            data: OfflineDataModule = trainer.datamodule  # type: ignore[attr-defined]
            lines = (
                ("Trains", _model(pl_module) + _steps(trainer)),
                ("Device", _device(trainer)),
                ("Data", _data(data)),
                ("Writes to", str(folder)),
            )
            console = Console(markup=False, highlight=False)
            for name, text in lines:
                console.print(f"{name:11}{text}", soft_wrap=True)


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


def _data(data: OfflineDataModule) -> str:
    """How much there is to learn from, and the hash that checkpoints name the data by."""
    source = f"{data.path}: " if data.path is not None else ""
    return (
        f"{source}{_count(data.train.n_episodes, 'episode')}, {len(data.train):,} transitions, "
        f"content hash {data.content_hash[:12]}"
    )


def _count(number: int, thing: str) -> str:
    plural = "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{plural * (number != 1)}"

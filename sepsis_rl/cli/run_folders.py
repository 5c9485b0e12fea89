"""Where a run is written, whatever its logger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from sepsis_rl.callbacks.policy_evaluation import find_callback
from sepsis_rl.display import shown, tell
from sepsis_rl.files import free_path
from sepsis_rl.loggers import RunLogger
from sepsis_rl.runs.branches import keep_best, set_aside_abandoned
from sepsis_rl.runs.checkpoints import run_folder
from sepsis_rl.runs.described import FOLDER


class RunTrainer(pl.Trainer):
    """A Trainer whose `log_dir` is the run's folder, which Lightning knows of two loggers alone."""

    run_folder: Path | None = None

    @property
    def log_dir(self) -> str | None:
        """The first process's run folder. All processes have to ask."""
        if self.run_folder is None:
            return super().log_dir
        return self.strategy.broadcast(str(self.run_folder))


def runs_of(logger: Any, name: str, root: str | None) -> RunLogger | TensorBoardLogger | CSVLogger:
    """What numbers the runs of one name: the configured logger, where it does.

    Those of MLflow, Weights & Biases and others number nothing, and `logger: false` is none.

    Args:
        logger: As configured: a logger, several of which the first counts, or whether there is one.
        name: Name of the run, for a logger that numbers nothing.
        root: Folder of all runs, for one that has no folder.
    """
    first = next(iter(logger), None) if isinstance(logger, list | tuple) else logger
    if isinstance(first, TensorBoardLogger | CSVLogger):
        return first
    folder = first.save_dir if isinstance(first, Logger) else None
    return RunLogger(folder or root or "runs", name)


def write_into(trainer: RunTrainer, folder: Path) -> None:
    """Has the config and all checkpoints written into a run's folder."""
    trainer.run_folder = folder
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / FOLDER)


def go_on(
    trainer: pl.Trainer,
    runs: RunLogger | TensorBoardLogger | CSVLogger,
    checkpoint: dict[str, Any],
    path: str,
) -> None:
    """Prepares to go on from a checkpoint: in its run's folder, if that is one of these runs.

    Args:
        trainer: With its callbacks, before it has started.
        runs: What numbers the runs.
        checkpoint: As `read_checkpoint` returns it; what it remembers of the best ones may change.
        path: Its file or address.
    """
    for callback in trainer.checkpoint_callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if isinstance(callback, ModelCheckpoint) and state:
            keep_best(state, callback.save_top_k, callback.mode)
    folder, step = run_folder(path), int(checkpoint["global_step"])
    version = "" if folder is None else folder.name.removeprefix("version_")
    if folder is None or folder.parent != Path(runs.root_dir).resolve() or not version.isdigit():
        return
    _resume_in(runs, folder, int(version), step)
    if writer := find_callback(trainer, SaveConfigCallback):
        writer.config_filename = free_path(folder / f"config-from-step-{step}.yaml").name
    if trainer.is_global_zero and (aside := set_aside_abandoned(folder, Path(path), step)):
        tell(f"What the run did after that step is in {shown(aside)} now")


def _resume_in(
    runs: RunLogger | TensorBoardLogger | CSVLogger, folder: Path, version: int, step: int
) -> None:
    """Has a logger go on in an existing run's folder.

    Args:
        runs: What numbers the runs.
        folder: The run's folder.
        version: Its number.
        step: Optimizer steps taken at the checkpoint.
    """
    if isinstance(runs, RunLogger):
        runs.resume(version, step)
        return
    runs._version = version  # it has no public setter
    curves = folder / "metrics.csv"
    if isinstance(runs, CSVLogger) and curves.exists():  # which it would delete
        curves.rename(free_path(folder / f"metrics-to-step-{step}.csv"))

"""The state that a run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Writes `last.ckpt` at each evaluation, whatever other checkpoints are kept by.

    With `save_last`, a `ModelCheckpoint` that monitors something writes it only where it keeps that
    checkpoint for its score as well. A run that got no better would go on from long ago, and end in
    a state that no file holds.
    """

    def __init__(self) -> None:
        super().__init__(filename=self.CHECKPOINT_NAME_LAST, enable_version_counter=False)

    @property
    def path(self) -> Path | None:
        """The file; None before a fit."""
        if self.dirpath is None:
            return None
        return Path(self.dirpath, self.CHECKPOINT_NAME_LAST + self.FILE_EXTENSION)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: there is one file, of one name."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves where no evaluation did."""
        tries_out = trainer.fast_dev_run  # type: ignore[attr-defined]
        if not trainer.enable_validation and not tries_out and self.path is not None:
            trainer.save_checkpoint(self.path)

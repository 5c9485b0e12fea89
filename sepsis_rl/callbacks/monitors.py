"""Which metrics a checkpoint, or the end of a fit, can be chosen by."""

from __future__ import annotations

from typing import Final

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from sepsis_rl.algorithms import DQN, OfflineAlgorithm
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.errors import InputError

_RECORDS: Final = (
    *("supported_value", "anchored_value", "rarity", "fqe", "fqe_zero", "unseen_rate"),
    *("ess", "ess_share", "largest_weight"),
    *(f"{name}{end}" for name in ("wis", "wdr") for end in ("", "_low", "_high")),
)
_SIMULATOR: Final = (
    *("survival_exact", "survival_rate", "survival_rate_low", "survival_rate_high"),
    *("episode_length", "clinician_agreement", "unsupported_rate", "inadmissible_rate"),
)


def metric_names(module: OfflineAlgorithm, data: OfflineDataModule) -> set[str]:
    """What every fit logs of each member, or of the median.

    Args:
        module: What is trained.
        data: Where no environment simulates its patients, there is no survival.
    """
    values = {"val/value_estimate"} if isinstance(module, DQN) else set()
    simulator = _SIMULATOR if data.mdp is not None else ()
    return {
        "step",
        "train/loss",
        "val/loss",
        *values,
        *(f"val/{name}" for name in simulator),
        *(f"ope/{name}" for name in _RECORDS),
    }


def check_monitors(trainer: pl.Trainer, module: OfflineAlgorithm, data: OfflineDataModule) -> None:
    """Refuses to choose by what no evaluation logs, before anything is written.

    Raises:
        InputError: A callback monitors another metric.
    """
    names = metric_names(module, data)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, ModelCheckpoint | EarlyStopping):
            continue
        monitor, is_checkpoint = callback.monitor, isinstance(callback, ModelCheckpoint)
        if monitor not in names and monitor is not None:
            option = "checkpoint.monitor" if is_checkpoint else "trainer.callbacks: monitor"
            raise InputError(
                f"{option}={monitor} cannot be used: give one of {', '.join(sorted(names))}"
            )

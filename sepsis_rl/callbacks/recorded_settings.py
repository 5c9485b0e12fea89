"""What a checkpoint remembers of the config that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import lightning.pytorch as pl

RECORDED: Final = (
    "checkpoint.mode",
    "checkpoint.monitor",
    "data.",
    "evaluation.",
    "ope.",
    "trainer.accumulate_grad_batches",
    "trainer.deterministic",
    "trainer.gradient_clip_algorithm",
    "trainer.gradient_clip_val",
    "trainer.limit_",
    "trainer.overfit_batches",
    "trainer.precision",
    "trainer.val_check_interval",
)
"""Beginnings of the settings that a run's figures depend on, apart from the model's own."""


class RecordedSettings(pl.Callback):
    """Writes the settings of a run into its checkpoints, and tells which of them differ.

    The model's settings are in a checkpoint anyway, and where and how long a run goes on may change
    without changing what it computes.

    Args:
        config: The run's config as plain values, nested.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.settings = {
            name: value for name, value in _flatten(config) if name.startswith(RECORDED)
        }

    def state_dict(self) -> dict[str, Any]:
        """The settings and their SHA-256."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return {"settings": self.settings, "hash": digest}

    def differences(self, checkpoint: Mapping[str, Any]) -> list[str]:
        """A line for each setting that differs from those in a checkpoint; these count.

        Args:
            checkpoint: As `read_checkpoint` returns it; one without settings has no differences.
        """
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state is None or state["hash"] == self.state_dict()["hash"]:
            return []
        held, now = state["settings"], self.settings
        return [
            f"{name}: {held.get(name)} in the checkpoint, {now.get(name)} now"
            for name in sorted({*held, *now})  # one that is null may be missing
            if held.get(name) != now.get(name)
        ]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

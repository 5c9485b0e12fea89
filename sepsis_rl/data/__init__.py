"""Recorded transitions: their files, their collection, and how training reads them."""

from typing import TYPE_CHECKING, Any

from sepsis_rl.data.batches import RowBatch
from sepsis_rl.data.collection import POLICIES, behavior_policy, collect
from sepsis_rl.data.transitions import Provenance, Transitions

if TYPE_CHECKING:
    from sepsis_rl.data.datamodule import OfflineDataModule

__all__ = [
    "POLICIES",
    "OfflineDataModule",
    "Provenance",
    "RowBatch",
    "Transitions",
    "behavior_policy",
    "collect",
]


def __getattr__(name: str) -> Any:
    """Imports what needs Lightning, which takes seconds, only when it is asked for."""
    if name == "OfflineDataModule":
        from sepsis_rl.data.datamodule import OfflineDataModule

        return OfflineDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

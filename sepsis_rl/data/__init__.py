"""Recorded transitions: their files, their collection, and how training reads them."""

from sepsis_rl.data.collection import POLICIES, behavior_policy, collect
from sepsis_rl.data.datamodule import Batch, OfflineDataModule
from sepsis_rl.data.transitions import Provenance, Transitions

__all__ = [
    "POLICIES",
    "Batch",
    "OfflineDataModule",
    "Provenance",
    "Transitions",
    "behavior_policy",
    "collect",
]

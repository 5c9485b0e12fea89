"""The algorithms, each a LightningModule over a stack of Q-networks."""

from sepsis_rl.algorithms.base import OfflineAlgorithm
from sepsis_rl.algorithms.bc import BC
from sepsis_rl.algorithms.cql import CQL
from sepsis_rl.algorithms.dqn import DQN
from sepsis_rl.algorithms.target_update import SoftTargetUpdate

__all__ = ["BC", "CQL", "DQN", "OfflineAlgorithm", "SoftTargetUpdate"]

"""What follows a decision: the truth, or what records say of it."""

from sepsis_rl.dynamics.counts import CountedEpisodes, Counts
from sepsis_rl.dynamics.dynamics import Dynamics
from sepsis_rl.dynamics.pooled import UNSEEN_RULES, Unseen, pooled_dynamics
from sepsis_rl.dynamics.truth import true_dynamics

__all__ = [
    "UNSEEN_RULES",
    "CountedEpisodes",
    "Counts",
    "Dynamics",
    "Unseen",
    "pooled_dynamics",
    "true_dynamics",
]

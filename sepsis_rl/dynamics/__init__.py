"""What follows a decision: the truth, or what records say of it."""

from sepsis_rl.dynamics.counts import CountedEpisodes, Counts, count_rows
from sepsis_rl.dynamics.dynamics import Dynamics, all_where_none
from sepsis_rl.dynamics.empirical_bayes import empirical_bayes_dynamics
from sepsis_rl.dynamics.estimates import ESTIMATES, Estimate, estimated_dynamics
from sepsis_rl.dynamics.pooled import UNSEEN_RULES, Unseen, pooled_dynamics
from sepsis_rl.dynamics.truth import true_dynamics

__all__ = [
    "ESTIMATES",
    "UNSEEN_RULES",
    "CountedEpisodes",
    "Counts",
    "Dynamics",
    "Estimate",
    "Unseen",
    "all_where_none",
    "count_rows",
    "empirical_bayes_dynamics",
    "estimated_dynamics",
    "pooled_dynamics",
    "true_dynamics",
]

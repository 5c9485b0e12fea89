"""The ways to estimate dynamics from records, by name."""

from __future__ import annotations

from typing import Final, Literal, get_args

from sepsis_rl.dynamics.counts import Counts
from sepsis_rl.dynamics.dynamics import Dynamics
from sepsis_rl.dynamics.empirical_bayes import empirical_bayes_dynamics
from sepsis_rl.dynamics.pooled import pooled_dynamics
from sepsis_rl.mdp import TabularMDP

Estimate = Literal["counts", "pooled", "empirical_bayes"]
ESTIMATES: Final[tuple[Estimate, ...]] = get_args(Estimate)
"""What follows a decision by the records alone; with five more decisions like all in its state; or
with as much from elsewhere as the records say is right."""

POOLED_PRIOR: Final = 5.0
"""Weight of the state's pooled row under `pooled`, in decisions."""


def estimated_dynamics(counts: Counts, estimate: Estimate, mdp: TabularMDP | None) -> Dynamics:
    """Estimates what follows each decision.

    Args:
        counts: The records.
        estimate: Which way.
        mdp: The environment that the records are of, for what it publishes beside its records:
            admissible actions, features of the states and doses. Its transitions are not read.
            None: there is none.
    """
    if estimate != "empirical_bayes":
        return pooled_dynamics(counts, 0.0 if estimate == "counts" else POOLED_PRIOR)
    if mdp is None:
        return empirical_bayes_dynamics(counts)
    return empirical_bayes_dynamics(
        counts,
        admissible=mdp.admissible,
        state_vectors=mdp.state_vectors,
        dose_features=mdp.dose_grid.features(),
    )

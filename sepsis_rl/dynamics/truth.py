"""The dynamics of the environment itself."""

from __future__ import annotations

import functools

import numpy as np
import scipy.sparse as sp

from sepsis_rl.dynamics.dynamics import Dynamics
from sepsis_rl.mdp import Strategy, TabularMDP, check_strategy


@functools.lru_cache(maxsize=8)
def true_dynamics(mdp: TabularMDP, strategy: Strategy = "mean") -> Dynamics:
    """What follows each decision in a decision process.

    Args:
        mdp: The decision process.
        strategy: What happens to inadmissible actions. "terminate" sends them to death.
            "raise_exception" has the rows of "mean", and forbids them.

    Returns:
        Its dynamics, in which each pair has one row; the same object for the same arguments.

    Raises:
        InputError: The strategy is unknown.
    """
    check_strategy(strategy)
    rows, row_index = mdp.rows, mdp.row_index
    # Once it is over the strategy has no say.
    refused = ~mdp.admissible & ~mdp.terminal[:, None]
    if strategy == "terminate":
        death = sp.csr_array(([1.0], ([0], [mdp.death_state])), shape=(1, mdp.n_states))
        row_index = np.where(refused, rows.shape[0], row_index)
        rows = sp.csr_array(sp.vstack([rows, death], format="csr"))
    mixture = sp.csr_array(
        (np.ones(row_index.size), row_index.ravel(), np.arange(row_index.size + 1)),
        shape=(row_index.size, rows.shape[0]),
    )
    return Dynamics(
        rows=rows,
        mixture=mixture,
        rewards=(rows @ mdp.rewards)[row_index],
        start=mdp.start,
        terminal=mdp.terminal,
        survival_state=mdp.survival_state,
        forbidden=refused if strategy == "raise_exception" else None,
        entry_rewards=mdp.rewards,
        dose_grid=mdp.dose_grid,
    )

"""Rolling a behavior policy through the environment into transitions."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import scipy.sparse as sp
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from sepsis_rl.data.transitions import COLUMNS, Provenance, Transitions
from sepsis_rl.envs import BatchedSepsisEnv
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.policies import (
    Policy,
    clinician_policy,
    epsilon_clinician_policy,
    random_policy,
)
from sepsis_rl.randomness import ACTION, RowSampler, uniform

PolicyName = Literal["clinician", "random", "epsilon_clinician"]
POLICIES: Final[tuple[PolicyName, ...]] = get_args(PolicyName)
"""Names of the behavior policies that data can be collected with."""


def behavior_policy(mdp: TabularMDP, name: str, epsilon: float = 0.1) -> Policy:
    """The behavior policy of a name.

    Args:
        mdp: Tables of the environment.
        name: One of `POLICIES`.
        epsilon: Share of random actions of `epsilon_clinician`; the others do not use it.

    Returns:
        The policy.

    Raises:
        InputError: There is no such behavior policy.
    """
    match name:
        case "clinician":
            return clinician_policy(mdp)
        case "random":
            return random_policy(mdp)
        case "epsilon_clinician":
            return epsilon_clinician_policy(mdp, epsilon)
    raise InputError(f"policy {name!r} cannot collect data; give one of {', '.join(POLICIES)}")


def collect(mdp: TabularMDP, policy: Policy, *, episodes: int, seed: int) -> Transitions:
    """Rolls episodes in the simulated environment, all of them side by side.

    Every draw is addressed by seed, episode and step, so episode i is the same whatever the number
    of episodes.

    Args:
        mdp: Tables of the environment; its `mean` strategy for inadmissible actions is used.
        policy: Behavior policy.
        episodes: Number of episodes, at least 1.
        seed: From 0 upward.

    Returns:
        The transitions in episode order; episodes are numbered from 0.

    Raises:
        InputError: `episodes` or `seed` is too small.
    """
    if episodes < 1:
        raise InputError(f"episodes={episodes} cannot be collected; give at least 1")
    if seed < 0:
        raise InputError(f"seed={seed} cannot be used; give an integer from 0 upward")
    env = BatchedSepsisEnv(mdp, episodes, autoreset_mode=AutoresetMode.DISABLED, info=False)
    sample_action = RowSampler(sp.csr_array(policy.probabilities))
    observation, _ = env.reset(seed=seed)
    keys = env.episode_keys
    actions = torch.zeros(episodes, dtype=torch.int64)
    active = torch.arange(episodes)
    parts: list[tuple[Tensor, ...]] = []
    while len(active):
        step = len(parts)
        before = observation[active]
        action = sample_action(before, uniform(ACTION, step, keys[active]))
        actions[active] = action
        observation, reward, terminated, truncated, _ = env.step(actions)
        outcome = (reward.float(), observation, terminated, truncated)
        at = torch.full_like(active, step)
        # In the order of COLUMNS.
        parts.append((active, at, before, action, *(column[active] for column in outcome)))
        active = active[~(terminated | truncated)[active]]

    columns = {
        name: torch.cat(part).numpy()
        for name, part in zip(COLUMNS, zip(*parts, strict=True), strict=True)
    }
    order = np.argsort(columns["episode"], kind="stable")  # within an episode, steps are in order
    columns = {name: column[order] for name, column in columns.items()}
    provenance = Provenance(
        environment_id=mdp.environment_id,
        environment_version=mdp.environment_version,
        policy=policy.name,
        seed=seed,
        episodes=episodes,
        source="simulated",
    )
    return Transitions(**columns, provenance=provenance)

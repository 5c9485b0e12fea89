"""Treating patients by policies, in the batched environment or in the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from sepsis_rl.envs import BatchedSepsisEnv, make_env
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import Strategy, TabularMDP
from sepsis_rl.policies import Policy, stack_policies
from sepsis_rl.randomness import ACTION, hash_address, uniform


@dataclass(frozen=True, eq=False)
class Rollout:
    """What became of patients under policies.

    Attributes:
        survived: (policies, patients) bool.
        length: (policies, patients) int64, steps of 4 hours.
        states: (policies, patients, steps + 1) int64, from the first state to that of the end; -1
            after it. None unless courses were asked for.
        actions: (policies, patients, steps) int64, likewise.
    """

    survived: Tensor
    length: Tensor
    states: Tensor | None = None
    actions: Tensor | None = None


def roll_out(
    mdp: TabularMDP,
    policies: Sequence[Policy],
    *,
    patients: Tensor,
    seed: int,
    stage: int,
    strategy: Strategy = "mean",
    separate_actions: bool = False,
    courses: bool = False,
    device: torch.device | str = "cpu",
) -> Rollout:
    """Treats patients by policies in `BatchedSepsisEnv`, one episode each.

    All policies meet the same patients with the same draws (common random numbers), so that the
    outcomes of two policies can be compared pair by pair. A patient's outcome is a function of
    (seed, stage, patient) and the policy alone.

    Args:
        mdp: The decision process.
        policies: The policies.
        patients: (n,) int64, the patients' addresses.
        seed: Seed of all draws.
        stage: Number of the evaluation stage; stages draw different patients.
        strategy: What happens to inadmissible actions.
        separate_actions: Policies that sample draw their actions from numbers of their own instead
            of common ones, so that one policy given twice is two tries.
        courses: Keep every state and action.
        device: Where to compute.

    Returns:
        Outcomes (policies, n) on `device`.

    Raises:
        InputError: A policy of another shape, no policies or no patients.
        icu_sepsis.utils.exceptions.InadmissibleActionError: As in `BatchedSepsisEnv.step`.
    """
    word = _stage_seed(patients, seed, stage)
    tables = torch.tensor(stack_policies(policies, mdp.admissible.shape), device=device)
    n_policies, n_patients = shape = len(policies), len(patients)
    env = BatchedSepsisEnv(
        mdp,
        n_policies * n_patients,
        strategy=strategy,
        device=device,
        autoreset_mode=AutoresetMode.DISABLED,
        info=False,
    )
    addresses = patients.to(env.device, torch.int64).repeat(n_policies)
    states, _ = env.reset(seed=word, options={"patients": addresses})
    policy = torch.arange(n_policies, device=env.device).repeat_interleave(n_patients)
    keys = env.episode_keys
    if separate_actions:
        keys = hash_address(keys, policy)  # type: ignore[assignment]
    history: list[tuple[Tensor, Tensor]] | None = [] if courses else None
    rollout = _play(env, states, tables, policy, keys, history)
    survived, length = rollout.survived.view(shape), rollout.length.view(shape)
    kept = () if history is None else _courses(states, history, length)
    return Rollout(survived, length, *kept)


def _courses(
    first: Tensor, history: Sequence[tuple[Tensor, Tensor]], length: Tensor
) -> tuple[Tensor, Tensor]:
    """States and actions of every patient, as `Rollout` has them.

    Args:
        first: First states, (num_envs,).
        history: Actions of each step and the states after it, each (num_envs,).
        length: Steps of each patient, (policies, patients).
    """
    states = torch.stack([first, *(after for _, after in history)], dim=1)
    actions = torch.stack([taken for taken, _ in history], dim=1)
    steps, end = torch.arange(states.shape[1], device=first.device), length[..., None]
    return (
        states.view(*length.shape, -1).masked_fill(steps > end, -1),
        actions.view(*length.shape, -1).masked_fill(steps[1:] > end, -1),
    )


def _play(
    env: BatchedSepsisEnv,
    states: Tensor,
    tables: Tensor,
    policy: Tensor,
    keys: Tensor,
    history: list[tuple[Tensor, Tensor]] | None,
) -> Rollout:
    """Plays the episode that every environment has begun, without automatic resets.

    Args:
        env: The environment.
        states: First states, (num_envs,).
        tables: Policies, (policies, n_states, n_actions).
        policy: Which of them treats each patient, (num_envs,).
        keys: Address of each patient's action draws, (num_envs,).
        history: Gets the actions of each step and the states after it, where it is a list.
    """
    n_actions = env.mdp.n_actions
    # Rows of all policies, one below the other; each ends at exactly 1, above every draw.
    cumulative = tables.reshape(-1, n_actions).cumsum(dim=1)
    cumulative = cumulative / cumulative[:, -1:]
    deterministic = bool((tables.amax(dim=2) == 1).all())
    greedy = tables.reshape(-1, n_actions).argmax(dim=1)

    survived = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    length = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    actions = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    active = torch.arange(env.num_envs, device=env.device)
    step = 0
    while len(active):
        rows = policy[active] * env.mdp.n_states + states[active]
        if deterministic:
            actions[active] = greedy[rows]
        else:
            draws = uniform(ACTION, step, keys[active])
            actions[active] = torch.searchsorted(
                cumulative[rows], draws[:, None], right=True
            ).squeeze(1)
        states, _, terminated, truncated, _ = env.step(actions)
        if history is not None:
            history.append((actions.clone(), states))
        step += 1
        over = (terminated | truncated)[active]
        ended = active[over]
        survived[ended] = states[ended] == env.mdp.survival_state
        length[ended] = step
        active = active[~over]
    return Rollout(survived=survived, length=length)


def roll_out_real(
    policies: Sequence[Policy],
    *,
    patients: Tensor,
    seed: int,
    stage: int,
    strategy: Strategy = "mean",
) -> Rollout:
    """Treats patients in the real `gymnasium.make` environment, one after another.

    Much slower than `roll_out`, and another sample: the environment consumes its own random
    numbers, seeded for each patient by (seed, stage, patient). It takes and refuses what `roll_out`
    does.

    Returns:
        Outcomes (policies, n), on the CPU.
    """
    word = _stage_seed(patients, seed, stage)
    env = make_env(strategy)
    inner: Any = env.unwrapped
    tables = stack_policies(policies, (inner.num_states, inner.num_actions))
    n_policies, n_patients = len(policies), len(patients)
    cumulative = np.cumsum(tables, axis=2)
    cumulative /= cumulative[:, :, -1:]
    survived = torch.zeros(n_policies, n_patients, dtype=torch.bool)
    length = torch.zeros(n_policies, n_patients, dtype=torch.int64)
    for column, patient in enumerate(patients.tolist()):
        patient_seed = hash_address(word, patient)
        assert isinstance(patient_seed, int)
        for policy in range(n_policies):
            state, _ = env.reset(seed=patient_seed)
            steps, over, total = 0, False, 0.0
            while not over:
                draw = float(uniform(ACTION, steps, patient_seed))
                action = int(np.searchsorted(cumulative[policy, state], draw, side="right"))
                state, reward, terminated, truncated, _ = env.step(action)
                total += float(reward)
                steps += 1
                over = terminated or truncated
            survived[policy, column] = total > 0
            length[policy, column] = steps
    env.close()
    return Rollout(survived=survived, length=length)


def _stage_seed(patients: Tensor, seed: int, stage: int) -> int:
    """The environment's seed for a run's seed and a stage; refuses what are no patients."""
    if patients.ndim != 1 or len(patients) == 0:
        raise InputError(
            f"patients have shape {tuple(patients.shape)}; accepted: (n,), n of 1 or more"
        )
    word = hash_address(seed, stage)
    assert isinstance(word, int)
    return word

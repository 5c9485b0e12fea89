"""Treating patients by policies, in the batched environment or in the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from sepsis_rl.envs import BatchedSepsisEnv, make_env
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray, Strategy, TabularMDP
from sepsis_rl.randomness import ACTION, hash_address, uniform


@dataclass(frozen=True, eq=False)
class Rollout:
    """What became of patients under policies.

    Attributes:
        survived: (policies, patients) bool.
        length: (policies, patients) int64, steps of 4 hours.
    """

    survived: Tensor
    length: Tensor


def roll_out(
    mdp: TabularMDP,
    probabilities: Tensor | FloatArray,
    *,
    patients: Tensor,
    seed: int,
    stage: int,
    strategy: Strategy = "mean",
    separate_actions: bool = False,
    device: torch.device | str = "cpu",
) -> Rollout:
    """Treats patients by policies in `BatchedSepsisEnv`, one episode each.

    All policies meet the same patients with the same draws (common random numbers), so that the
    outcomes of two policies can be compared pair by pair. A patient's outcome is a function of
    (seed, stage, patient) and the policy alone.

    Args:
        mdp: The decision process.
        probabilities: (policies, n_states, n_actions), rows summing to 1.
        patients: (n,) int64, the patients' addresses.
        seed: Address of all draws, together with
        stage: a number for the occasion (validation, test, ...), so that occasions do not share
            patients.
        strategy: What happens to inadmissible actions.
        separate_actions: Policies that sample draw their actions from numbers of their own instead
            of common ones, so that one policy given twice is two tries.
        device: Where to compute.

    Returns:
        Outcomes (policies, n) on `device`.

    Raises:
        InputError: Probabilities of another shape, no policies or no patients.
        icu_sepsis.utils.exceptions.InadmissibleActionError: As in `BatchedSepsisEnv.step`.
    """
    table = torch.tensor(probabilities) if isinstance(probabilities, np.ndarray) else probabilities
    table = table.detach().to(device, torch.float64)
    n_policies, n_patients = _check_rollout(mdp.admissible.shape, tuple(table.shape), patients)
    n_actions = mdp.n_actions

    env = BatchedSepsisEnv(
        mdp,
        n_policies * n_patients,
        strategy=strategy,
        device=device,
        autoreset_mode=AutoresetMode.DISABLED,
        info=False,
    )
    addresses = patients.to(env.device, torch.int64).repeat(n_policies)
    states, _ = env.reset(seed=_stage_seed(seed, stage), options={"patients": addresses})
    policy = torch.arange(n_policies, device=env.device).repeat_interleave(n_patients)
    keys = env.episode_keys
    if separate_actions:
        keys = hash_address(keys, policy)  # type: ignore[assignment]
    # Rows of all policies, one below the other; each ends at exactly 1, above every draw.
    cumulative = table.reshape(-1, n_actions).cumsum(dim=1)
    cumulative = cumulative / cumulative[:, -1:]
    deterministic = bool((table.amax(dim=2) == 1).all())
    greedy = table.reshape(-1, n_actions).argmax(dim=1)

    survived = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    length = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    actions = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    active = torch.arange(env.num_envs, device=env.device)
    step = 0
    while len(active):
        rows = policy[active] * mdp.n_states + states[active]
        if deterministic:
            actions[active] = greedy[rows]
        else:
            draws = uniform(ACTION, step, keys[active])
            actions[active] = torch.searchsorted(
                cumulative[rows], draws[:, None], right=True
            ).squeeze(1)
        states, _, terminated, truncated, _ = env.step(actions)
        step += 1
        over = (terminated | truncated)[active]
        ended = active[over]
        survived[ended] = states[ended] == mdp.survival_state
        length[ended] = step
        active = active[~over]
    shape = (n_policies, n_patients)
    return Rollout(survived=survived.view(shape), length=length.view(shape))


def roll_out_real(
    probabilities: FloatArray,
    *,
    patients: Tensor,
    seed: int,
    stage: int,
    strategy: Strategy = "mean",
) -> Rollout:
    """Treats patients in the real `gymnasium.make` environment, one after another.

    Much slower than `roll_out`, and another sample: the environment consumes its own random
    numbers, seeded for each patient by (seed, stage, patient).

    Args:
        probabilities: (policies, n_states, n_actions), rows summing to 1.
        patients: (n,) int64, the patients' addresses.
        seed: Address of all draws, together with
        stage: a number for the occasion.
        strategy: What happens to inadmissible actions.

    Returns:
        Outcomes (policies, n), on the CPU.

    Raises:
        InputError: Probabilities of another shape, no policies or no patients.
        icu_sepsis.utils.exceptions.InadmissibleActionError: The strategy is "raise_exception" and
            a policy takes an inadmissible action.
    """
    env = make_env(strategy)
    inner: Any = env.unwrapped
    pairs = (inner.num_states, inner.num_actions)
    n_policies, n_patients = _check_rollout(pairs, probabilities.shape, patients)
    cumulative = np.cumsum(probabilities, axis=2)
    cumulative /= cumulative[:, :, -1:]
    survived = torch.zeros(n_policies, n_patients, dtype=torch.bool)
    length = torch.zeros(n_policies, n_patients, dtype=torch.int64)
    for column, patient in enumerate(patients.tolist()):
        patient_seed = hash_address(_stage_seed(seed, stage), patient)
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


def _stage_seed(seed: int, stage: int) -> int:
    """The environment's seed for a run's seed and an occasion."""
    word = hash_address(seed, stage)
    assert isinstance(word, int)
    return word


def _check_rollout(
    pairs: tuple[int, ...], shape: tuple[int, ...], patients: Tensor
) -> tuple[int, int]:
    """Checks what is rolled out; returns the numbers of policies and patients."""
    if len(shape) != 3 or shape[1:] != pairs or shape[0] == 0:
        raise InputError(
            f"probabilities have shape {shape}; accepted: (policies, {pairs[0]}, {pairs[1]})"
        )
    if patients.ndim != 1 or len(patients) == 0:
        raise InputError(
            f"patients have shape {tuple(patients.shape)}; accepted: (n,), n of 1 or more"
        )
    return shape[0], len(patients)

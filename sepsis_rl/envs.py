"""Where policies act: the real environment, and thousands of its patients at once.

`BatchedSepsisEnv` steps over the same tables as the real `gymnasium.make` environment. Its draws
are addressed (see `randomness`): what happens to patient i in step t of an episode is a function of
(seed, i, episode, t) and of what the policy does, not of who else is in the batch.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import gymnasium
import numpy as np
import scipy.sparse as sp
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import Strategy, TabularMDP, check_strategy
from sepsis_rl.randomness import START, TRANSITION, RowSampler, hash_address, uniform
from sepsis_rl.registration import ENVIRONMENT_ID, import_icu_sepsis


def make_env(strategy: Strategy = "mean") -> gymnasium.Env[Any, Any]:
    """The real ICU-Sepsis environment of `gymnasium.make`, registered if it was not yet.

    Args:
        strategy: What it does with inadmissible actions.

    Raises:
        InputError: The strategy is unknown.
    """
    check_strategy(strategy)
    import_icu_sepsis()
    # gymnasium's checker would warn that infos share the environment's lists, which is so.
    return gymnasium.make(
        ENVIRONMENT_ID, inadmissible_action_strategy=strategy, disable_env_checker=True
    )


@functools.lru_cache(maxsize=8)
class _Tables:
    """The tables of a decision process as tensors on one device, under one strategy."""

    def __init__(self, mdp: TabularMDP, strategy: Strategy, device: torch.device) -> None:
        dynamics, put = true_dynamics(mdp, strategy), functools.partial(torch.tensor, device=device)
        self.starts = RowSampler(sp.csr_array(mdp.start[None, :]), device)
        self.transitions = RowSampler(dynamics.rows, device)
        # (n_states * n_actions,), the one row that a pair has.
        self.row_index = put(dynamics.mixture.indices, dtype=torch.int64)
        self.rewards = put(mdp.rewards)  # (n_states,) float64
        self.terminal = put(mdp.terminal)  # (n_states,) bool
        self.admissible = put(mdp.admissible)  # (n_states, n_actions) bool
        self.state_vectors = put(mdp.state_vectors)  # (n_states, n_features) float64
        self.sofa_scores = put(mdp.sofa_scores)  # (n_states,) float64
        self.admissible_actions = np.empty(mdp.n_states, dtype=np.object_)  # of lists
        self.admissible_actions[:] = [np.flatnonzero(mask).tolist() for mask in mdp.admissible]


class BatchedSepsisEnv(VectorEnv[Tensor, Any, Tensor]):
    """Many patients of a `TabularMDP` at once, as a gymnasium vector environment.

    Observations, rewards and flags are torch tensors on `device`; on the CPU `numpy.asarray` shares
    their memory. With `info=True` the infos have the keys and shapes of
    `gymnasium.vector.SyncVectorEnv` over the real environment: `state_vector`, `sofa_score` and the
    `_key` masks are tensors, `admissible_actions` is a numpy array of lists. An environment whose
    step is an automatic reset ignores its action.

    With `AutoresetMode.DISABLED` a finished patient stays where it is, with reward 0 and its flags
    up, until a reset (gymnasium's own SyncVectorEnv refuses to step it), and costs nothing.

    Args:
        mdp: The decision process.
        num_envs: Number of patients.
        strategy: What happens to inadmissible actions.
        device: Where tensors live.
        autoreset_mode: gymnasium's three modes.
        max_episode_steps: Steps after which an episode is truncated; None takes that of `mdp`.
        info: False leaves the infos empty, except `final_obs` with `AutoresetMode.SAME_STEP`.

    Raises:
        InputError: An unknown strategy, or a number below 1.
    """

    def __init__(
        self,
        mdp: TabularMDP,
        num_envs: int,
        *,
        strategy: Strategy = "mean",
        device: torch.device | str = "cpu",
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        info: bool = True,
    ) -> None:
        limit = mdp.max_episode_steps if max_episode_steps is None else max_episode_steps
        if num_envs < 1 or limit < 1:
            raise InputError(
                f"num_envs is {num_envs} and max_episode_steps is {limit}; accepted: 1 or more"
            )
        self.mdp = mdp
        self.num_envs = num_envs
        self.strategy = strategy
        self.device = torch.device(device)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.max_episode_steps = limit
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = gymnasium.spaces.Discrete(mdp.n_states)
        self.single_action_space = gymnasium.spaces.Discrete(mdp.n_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._with_info = info
        self._tables = _Tables(mdp, strategy, self.device)
        self._patients = torch.arange(num_envs, device=self.device)
        self._seed: int | None = None
        zeros = torch.zeros(4, num_envs, dtype=torch.int64, device=self.device)
        # An episode's key is a random word of its own.
        self._episodes, self._keys, self._steps, self._states = zeros.unbind()
        self._terminated, self._truncated = zeros[:2].bool().unbind()

    @property
    def episode_keys(self) -> Tensor:
        """(num_envs,) int64, hash of (seed, episode, patient): the address of further draws."""
        return self._keys.clone()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Starts an episode in every environment, or in those of a mask.

        Args:
            seed: Address of everything that happens from here on. None keeps the seed there is
                and goes on to its next episodes (the first time, it draws a seed).
            options: "patients", (num_envs,) integers, the patients' addresses (at first
                0, 1, 2, ...); "reset_mask", (num_envs,) bool, the environments to reset, as
                gymnasium has it.

        Returns:
            Observations (num_envs,) int64 and infos.

        Raises:
            ValueError: An option has another shape or type, or the mask resets nothing.
        """
        super().reset(seed=seed)
        options = options or {}
        mask = options.get("reset_mask")
        if mask is not None:
            mask = self._as_tensor(mask, "options['reset_mask']", torch.bool)
            if not mask.any():
                raise ValueError("options['reset_mask'] resets no environment")
        patients = options.get("patients", self._patients)
        self._patients = self._as_tensor(patients, "options['patients']", torch.int64)
        which = slice(None) if mask is None else mask.nonzero().squeeze(1)
        if self._seed is None or seed is not None:
            self._seed = self.np_random_seed
            self._episodes[which] = 0
        else:
            self._episodes[which] += 1
        self._begin(which)
        return self._states.clone(), self._infos(self._states, mask)

    def step(self, actions: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Treats every patient for one step of 4 hours.

        Args:
            actions: (num_envs,) integers, a tensor or an array.

        Returns:
            Observations int64, rewards float64, terminated bool, truncated bool, each (num_envs,),
            and infos.

        Raises:
            ValueError: Actions of another shape or type, or out of range.
            icu_sepsis.utils.exceptions.InadmissibleActionError: The strategy is "raise_exception"
                and an action is inadmissible. Nothing has moved then.
            gymnasium.error.ResetNeeded: There was no reset yet.
        """
        if self._seed is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        actions = self._as_tensor(actions, "actions", torch.int64)
        outside = ((actions < 0) | (actions >= self.mdp.n_actions)).nonzero()
        if len(outside):
            where = int(outside[0])
            raise ValueError(
                f"action {int(actions[where])} of environment {where} is out of range; "
                f"accepted: 0 to {self.mdp.n_actions - 1}"
            )
        over = self._terminated | self._truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP or not over.any():
            rewards = self._advance(slice(None), actions)
        else:
            active = (~over).nonzero().squeeze(1)
            rewards = torch.zeros(self.num_envs, dtype=torch.float64, device=self.device)
            rewards[active] = self._advance(active, actions[active])
            if self.autoreset_mode is AutoresetMode.NEXT_STEP:
                self._begin_next(over)
        terminated, truncated = self._terminated.clone(), self._truncated.clone()
        infos: dict[str, Any] = {}
        over = terminated | truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            infos["final_obs"] = self._states * over
            infos["_final_obs"] = over
            if self._with_info:
                infos["final_info"] = self._infos(self._states, over)
                infos["_final_info"] = over.clone()
            self._begin_next(over)
        infos |= self._infos(self._states)
        return self._states.clone(), rewards, terminated, truncated, infos

    def _as_tensor(self, values: Any, what: str, dtype: torch.dtype) -> Tensor:
        """Checks shape and kind of one value for each environment."""
        tensor = values if isinstance(values, Tensor) else torch.tensor(np.asarray(values))
        is_bool = tensor.dtype == torch.bool
        if is_bool != (dtype == torch.bool) or tensor.is_floating_point() or tensor.is_complex():
            raise ValueError(f"{what} have type {tensor.dtype}; accepted: {dtype}")
        if tensor.shape != (self.num_envs,):
            shape = tuple(tensor.shape)
            raise ValueError(f"{what} have shape {shape}; accepted: ({self.num_envs},)")
        return tensor.to(self.device, dtype)

    def _begin_next(self, over: Tensor) -> None:
        """Starts the next episode of the environments in a mask."""
        self._episodes += over
        self._begin(over.nonzero().squeeze(1))

    def _begin(self, which: Tensor | slice) -> None:
        """Starts the current episode of some environments."""
        assert self._seed is not None
        keys = hash_address(self._seed, self._episodes[which], self._patients[which])
        assert isinstance(keys, Tensor)
        self._keys[which] = keys
        self._states[which] = self._tables.starts(torch.zeros_like(keys), uniform(START, keys))
        self._steps[which] = 0
        self._terminated[which] = self._truncated[which] = False

    def _advance(self, which: Tensor | slice, actions: Tensor) -> Tensor:
        """Moves some environments on by one step and returns their rewards."""
        tables = self._tables
        states, steps = self._states[which], self._steps[which]
        pairs = states * self.mdp.n_actions + actions
        if self.strategy == "raise_exception":
            self._refuse_inadmissible(which, states, actions)
        draws = uniform(TRANSITION, steps, self._keys[which])
        self._states[which] = states = tables.transitions(tables.row_index[pairs], draws)
        self._steps[which] = steps = steps + 1
        self._terminated[which] = tables.terminal[states]
        self._truncated[which] = steps >= self.max_episode_steps
        return tables.rewards[states]

    def _refuse_inadmissible(self, which: Tensor | slice, states: Tensor, actions: Tensor) -> None:
        refused = (~self._tables.admissible[states, actions]).nonzero()
        if not len(refused):
            return
        first = int(refused[0])
        number = first if isinstance(which, slice) else int(which[first])
        action = int(actions[first])
        exceptions = importlib.import_module(f"{import_icu_sepsis().__name__}.utils.exceptions")
        raise exceptions.InadmissibleActionError(
            f"inadmissible action {action} ({self.mdp.dose_grid.name(action)}) in state "
            f"{int(states[first])} of environment {number}"
        )

    def _infos(self, states: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        """Infos on states, of the environments in a mask: zeros and None for the others."""
        if not self._with_info:
            return {}
        tables = self._tables
        infos: dict[str, Any] = {
            "admissible_actions": tables.admissible_actions[states.cpu().numpy()],
            "state_vector": tables.state_vectors[states],
            "sofa_score": tables.sofa_scores[states],
        }
        if mask is None:
            mask = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        else:
            infos["admissible_actions"][~mask.cpu().numpy()] = None
            infos["state_vector"] = infos["state_vector"] * mask[:, None]
            infos["sofa_score"] = infos["sofa_score"] * mask
        return infos | {f"_{name}": mask.clone() for name in infos}

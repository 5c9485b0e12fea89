"""`BatchedSepsisEnv` for `gymnasium.make_vec`, in the arrays that gymnasium's wrappers take."""

from __future__ import annotations

from typing import Any, Literal

from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor

from sepsis_rl.envs import BatchedSepsisEnv
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import Strategy, load_icu_sepsis


def make_vector_env(
    num_envs: int = 1,
    *,
    arrays: Literal["numpy", "torch"] = "numpy",
    info: bool = False,
    inadmissible_action_strategy: Strategy = "mean",
    **options: Any,
) -> VectorEnv[Any, Any, Any]:
    """Many patients of ICU-Sepsis at once, for `gymnasium.make_vec`.

    Args:
        num_envs: Number of patients.
        arrays: Observations, rewards, flags and infos are numpy arrays, which lie in the
            observation space and suit gymnasium's wrappers; or torch tensors, on `device`.
        info: Infos have what the real environment's have. One of them is a list for each patient,
            which gymnasium's `NumpyToTorch` takes from no environment.
        inadmissible_action_strategy: What happens to inadmissible actions.
        options: `device`, `autoreset_mode` and `max_episode_steps`, as `BatchedSepsisEnv` takes
            them.

    Raises:
        InputError: An unknown kind of arrays, or an option that `BatchedSepsisEnv` refuses.
    """
    if arrays not in ("numpy", "torch"):
        raise InputError(f"arrays={arrays} cannot be used: give numpy or torch")
    env = BatchedSepsisEnv(
        load_icu_sepsis(), num_envs, strategy=inadmissible_action_strategy, info=info, **options
    )
    return NumpyArrays(env) if arrays == "numpy" else env


class NumpyArrays(VectorWrapper[Any, Any, Any, Any, Any]):
    """Returns numpy arrays where an environment returns tensors; on the CPU they share memory.

    gymnasium's own `ArrayConversion` takes no infos that hold objects.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment, in numpy."""
        return _as_numpy(self.env.reset(seed=seed, options=options))  # type: ignore[no-any-return]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environment, in numpy."""
        return _as_numpy(self.env.step(actions))  # type: ignore[no-any-return]


def _as_numpy(value: Any) -> Any:
    """The same tuples and dicts, with arrays for tensors."""
    if isinstance(value, Tensor):
        return value.cpu().numpy()
    if isinstance(value, tuple):
        return tuple(map(_as_numpy, value))
    if isinstance(value, dict):
        return {name: _as_numpy(part) for name, part in value.items()}
    return value

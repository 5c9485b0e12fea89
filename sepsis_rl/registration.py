"""The environments that gymnasium knows once this package is imported.

gymnasium looks for no plugins (since its version 1.0): it knows an environment once something has
registered it. What makes one is named here, and imported when it is made.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from types import ModuleType
from typing import Any, Final

import gymnasium

ENVIRONMENT_ID: Final = "Sepsis/ICU-Sepsis-v2"
"""The real environment, which `icu_sepsis` registers as well when it is imported."""
BATCHED_ID: Final = "sepsis_rl/ICU-Sepsis-v2"
"""`BatchedSepsisEnv` for `gymnasium.make_vec`, the real environment for `gymnasium.make`."""

_MAX_EPISODE_STEPS = 500


def register_environments() -> None:
    """Registers the environments with gymnasium, unless something has.

    `icu_sepsis` registers its own once more when somebody imports it, which is the same one.
    """
    warnings.filterwarnings("ignore", f".*Overriding environment {ENVIRONMENT_ID} .*", UserWarning)
    options: dict[str, Any] = {
        "entry_point": f"{__name__}:{make_icu_sepsis.__name__}",
        "max_episode_steps": _MAX_EPISODE_STEPS,
    }
    if ENVIRONMENT_ID not in gymnasium.registry:
        gymnasium.register(ENVIRONMENT_ID, **options)
    if BATCHED_ID not in gymnasium.registry:
        vector_entry_point = "sepsis_rl.vector_env:make_vector_env"
        gymnasium.register(BATCHED_ID, vector_entry_point=vector_entry_point, **options)


def import_icu_sepsis() -> ModuleType:
    """Imports `icu_sepsis`, which registers its environments with gymnasium.

    It also imports the unmaintained `gym`, which prints a notice to stderr; that is kept from the
    user, who can do nothing about it.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        return importlib.import_module("icu_sepsis")


def make_icu_sepsis(**options: Any) -> Any:
    """The real environment, for `gymnasium.make`.

    Args:
        options: As `icu_sepsis` takes them, such as `inadmissible_action_strategy`.
    """
    return import_icu_sepsis().icu_sepsis_flat(**options)

"""What gymnasium knows once this package is imported.

gymnasium looks for no plugins (since its version 1.0): it knows an environment once something has
registered it. Importing gymnasium takes longer than importing this package may, so the environments
are registered when somebody else imports it, be it before this package or after.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

ENVIRONMENT_ID: Final = "Sepsis/ICU-Sepsis-v2"
"""The real environment, which `icu_sepsis` registers as well when it is imported."""
BATCHED_ID: Final = "sepsis_rl/ICU-Sepsis-v2"
"""`BatchedSepsisEnv` for `gymnasium.make_vec`, the real environment for `gymnasium.make`."""

_MAX_EPISODE_STEPS = 500


def register_environments() -> None:
    """Registers the environments with gymnasium: now if it is imported, else when it will be."""
    if "gymnasium" in sys.modules:
        _register()
    sys.meta_path.insert(0, _ImportWatch())


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


def _register() -> None:
    import gymnasium

    options: dict[str, Any] = {
        "entry_point": f"{__name__}:{make_icu_sepsis.__name__}",
        "max_episode_steps": _MAX_EPISODE_STEPS,
    }
    if ENVIRONMENT_ID not in gymnasium.registry:
        gymnasium.register(ENVIRONMENT_ID, **options)
    if BATCHED_ID not in gymnasium.registry:
        vector_entry_point = "sepsis_rl.vector_env:make_vector_env"
        gymnasium.register(BATCHED_ID, vector_entry_point=vector_entry_point, **options)


class _ImportWatch:
    """Registers after gymnasium is imported; clears `icu_sepsis`'s id before it registers it.

    Without that, gymnasium would warn of the second registration.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        """Finds the two modules as Python does, and leaves all others to Python."""
        if name not in ("gymnasium", "icu_sepsis"):
            return None
        spec: ModuleSpec | None = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if name == "icu_sepsis":
                importlib.import_module("gymnasium").registry.pop(ENVIRONMENT_ID, None)
            execute(module)
            if name == "gymnasium":
                _register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

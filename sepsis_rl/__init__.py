"""Offline reinforcement learning for ICU sepsis treatment.

Policies are learned from recorded clinician decisions with CQL, DQN and behavior cloning, and
judged by exact survival, rollouts and the data itself. For research only: not for clinical use.

Everything in `__all__` can be imported from here. A name is looked up in its own module when it is
first asked for (PEP 562), since PyTorch and Lightning take seconds to import. gymnasium knows
this package's environments once it is imported (see `registration`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sepsis_rl.registration import register_environments

if TYPE_CHECKING:
    from sepsis_rl.algorithms.base import OfflineAlgorithm
    from sepsis_rl.algorithms.bc import BC
    from sepsis_rl.algorithms.cql import CQL
    from sepsis_rl.algorithms.dqn import DQN
    from sepsis_rl.baselines import hedged_policy, pooled_policy, spibb_policy, tabular_policy
    from sepsis_rl.callbacks.off_policy import OffPolicyEvaluation
    from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation
    from sepsis_rl.data.collection import behavior_policy, collect
    from sepsis_rl.data.datamodule import OfflineDataModule
    from sepsis_rl.data.transitions import Transitions
    from sepsis_rl.dynamics.dynamics import Dynamics
    from sepsis_rl.dynamics.estimates import estimated_dynamics
    from sepsis_rl.dynamics.pooled import pooled_dynamics
    from sepsis_rl.dynamics.truth import true_dynamics
    from sepsis_rl.envs import BatchedSepsisEnv, make_env
    from sepsis_rl.errors import InputError
    from sepsis_rl.mdp import TabularMDP, load_icu_sepsis
    from sepsis_rl.ope.episodes import Episodes
    from sepsis_rl.ope.estimates import evaluate_off_policy
    from sepsis_rl.planning import evaluate, value_iteration
    from sepsis_rl.policies import Policy, clinician_policy, optimal_policy, random_policy
    from sepsis_rl.runs.checkpoints import load_algorithm

__version__ = "0.1.0"

register_environments()

__all__ = [
    "BC",
    "CQL",
    "DQN",
    "BatchedSepsisEnv",
    "Dynamics",
    "Episodes",
    "InputError",
    "OffPolicyEvaluation",
    "OfflineAlgorithm",
    "OfflineDataModule",
    "Policy",
    "PolicyEvaluation",
    "TabularMDP",
    "Transitions",
    "__version__",
    "behavior_policy",
    "clinician_policy",
    "collect",
    "estimated_dynamics",
    "evaluate",
    "evaluate_off_policy",
    "hedged_policy",
    "load_algorithm",
    "load_icu_sepsis",
    "make_env",
    "optimal_policy",
    "pooled_dynamics",
    "pooled_policy",
    "random_policy",
    "spibb_policy",
    "tabular_policy",
    "true_dynamics",
    "value_iteration",
]

_MODULES: Final = {
    "algorithms.base": ("OfflineAlgorithm",),
    "algorithms.bc": ("BC",),
    "algorithms.cql": ("CQL",),
    "algorithms.dqn": ("DQN",),
    "baselines": ("hedged_policy", "pooled_policy", "spibb_policy", "tabular_policy"),
    "callbacks.off_policy": ("OffPolicyEvaluation",),
    "callbacks.policy_evaluation": ("PolicyEvaluation",),
    "data.collection": ("behavior_policy", "collect"),
    "data.datamodule": ("OfflineDataModule",),
    "data.transitions": ("Transitions",),
    "dynamics.dynamics": ("Dynamics",),
    "dynamics.estimates": ("estimated_dynamics",),
    "dynamics.pooled": ("pooled_dynamics",),
    "dynamics.truth": ("true_dynamics",),
    "envs": ("BatchedSepsisEnv", "make_env"),
    "errors": ("InputError",),
    "mdp": ("TabularMDP", "load_icu_sepsis"),
    "ope.episodes": ("Episodes",),
    "ope.estimates": ("evaluate_off_policy",),
    "planning": ("evaluate", "value_iteration"),
    "policies": ("Policy", "clinician_policy", "optimal_policy", "random_policy"),
    "runs.checkpoints": ("load_algorithm",),
}
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # to a type checker a name that is not there would be there

    def __getattr__(name: str) -> Any:
        """Imports a name of `__all__` from its module, and keeps it."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The names of `__all__` beside what is imported already."""
    return sorted({*globals(), *__all__})

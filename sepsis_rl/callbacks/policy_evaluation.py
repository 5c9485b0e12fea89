"""Judging the policy while it is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.baselines import common_baselines
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import tell
from sepsis_rl.errors import InputError
from sepsis_rl.evaluation import PolicyScores, Stage, score_policies
from sepsis_rl.mdp import STRATEGIES, Strategy
from sepsis_rl.metrics import Interval
from sepsis_rl.policies import Policy, greedy_policy

_Callback = TypeVar("_Callback", bound=pl.Callback)


class PolicyEvaluation(pl.Callback):
    """Scores every member's policy in the environment at each validation and at the end.

    Where the data are of patients that no environment simulates, only the network's own value of
    the start is logged.

    Logs, under `val/` (or `test/`): survival of the rollouts with its 95 % interval, episode
    length, exact survival, the network's own value of the start beside it, and by the policy's own
    visits its agreement with clinicians and its shares of unsupported and inadmissible actions.
    The rollouts and the exact value judge; nothing here selects or stops.

    Args:
        patients: Simulated patients per evaluation, shared out over processes.
        seed: Seed of the patients, of whom validation and test meet different ones.
        strategy: What an inadmissible action does: `mean` (the mean of the state's admissible
            actions), `terminate` (death) or `raise_exception`.
        real_environment: Roll out the `gym.make` environment itself, one patient after another:
            thousands of times slower, the same distribution.
    """

    def __init__(
        self,
        patients: int = 10_000,
        seed: int = 0,
        strategy: Strategy = "mean",
        real_environment: bool = False,
    ) -> None:
        if patients < 1:
            raise InputError(f"evaluation.patients={patients} cannot be used: give at least 1")
        if not 0 <= seed < 2**63:
            raise InputError(
                f"evaluation.seed={seed} cannot be used: give an integer from 0 to 2**63 - 1"
            )
        if strategy not in STRATEGIES:
            raise InputError(
                f"evaluation.strategy={strategy} cannot be used: give one of {list(STRATEGIES)}"
            )
        self.patients = patients
        self.seed = seed
        self.strategy: Strategy = strategy
        self.real_environment = real_environment
        self.history: list[dict[str, Any]] = []
        """An entry per evaluation of a fit: `step`, and each member's metrics."""
        self.policies: dict[int, Tensor] = {}
        """By step the policies of each evaluation of a fit: actions, int16 (members, n_states), or
        where one is not deterministic all probabilities, float32 (members, n_states, n_actions).
        Zeros for a member that has diverged."""
        self.last: PolicyScores | None = None
        self._baselines: list[Policy] = []

    def score(
        self, trainer: pl.Trainer, policies: Sequence[Policy], reference: Policy | None = None
    ) -> PolicyScores:
        """Scores any policies on this callback's patients.

        Args:
            trainer: Says the stage, the processes and where the data is.
            policies: The policies.
            reference: Policy to compare with.

        Returns:
            The scores, equal in all processes.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        return score_policies(
            data.mdp,
            policies,
            supported=data.pair_counts > 0,
            patients=self.patients,
            seed=self.seed,
            stage=Stage.TEST if trainer.state.fn == "test" else Stage.VALIDATE,
            strategy=self.strategy,
            reference=reference,
            real_environment=self.real_environment,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            device=trainer.strategy.root_device,
        )

    def baselines(self, data: OfflineDataModule) -> list[Policy]:
        """Policies to compare with, those of `common_baselines`, planned once."""
        if not self._baselines:
            self._baselines = common_baselines(data.counts, data.mdp, self.strategy)
        return self._baselines

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Asks for a last validation when training ends between two of them."""
        if trainer.global_step >= trainer.max_steps > 0:
            trainer.should_stop = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluates, unless this is Lightning's sanity check of the loop."""
        if not trainer.sanity_checking:
            self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluates on the test patients."""
        self._evaluate(trainer, pl_module, "test")

    def _evaluate(self, trainer: pl.Trainer, module: pl.LightningModule, group: str) -> None:
        assert isinstance(module, OfflineAlgorithm)
        policies, data = module.policies(), trainer.datamodule  # type: ignore[attr-defined]
        lost = [name for name, own in zip(module.labels, policies, strict=True) if own is None]
        if lost and trainer.is_global_zero:
            tell(
                f"Note: diverged at step {trainer.global_step:,}, without a policy: "
                f"{', '.join(lost)}",
                error=True,
            )
        metrics: dict[str, Tensor] = {}
        if data.mdp is not None:
            # Accepted by every strategy; its figures are then replaced by NaN.
            stand_in = greedy_policy("without a policy", data.mdp.admissible)
            scores = self.score(trainer, [policy or stand_in for policy in policies])
            metrics = scores.metrics()
            survival = (nan_without_policy(part, policies) for part in scores.survival_rate)
            self.last = replace(scores, survival_rate=Interval(*survival))
        value = module.value_estimates(torch.tensor(data.start), policies)
        if value is not None:
            metrics["value_estimate"] = value
        metrics = {name: nan_without_policy(values, policies) for name, values in metrics.items()}
        if metrics:
            module.log_members({f"{group}/{name}": values for name, values in metrics.items()})
        if trainer.state.fn == "fit":
            rows = {name: values.tolist() for name, values in metrics.items()}
            members = [
                {name: row[member] for name, row in rows.items()}
                for member in range(len(module.members))
            ]
            self.history.append({"step": trainer.global_step, "members": members})
            self.policies[trainer.global_step] = _compact(policies, data.pair_counts.shape)

    def state_dict(self) -> dict[str, Any]:
        """The evaluations so far, so that a resumed run tells the whole story."""
        return {"history": self.history, "policies": self.policies}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the evaluations up to the checkpoint."""
        self.history = list(state_dict["history"])
        self.policies = dict(state_dict.get("policies", {}))


def nan_without_policy(values: Tensor, policies: Sequence[Policy | None]) -> Tensor:
    """Replaces the figures of members that have diverged by NaN.

    Args:
        values: (members,).
        policies: As `OfflineAlgorithm.policies` returns them.
    """
    return values.masked_fill(torch.tensor([policy is None for policy in policies]), torch.nan)


def find_callback(trainer: pl.Trainer, kind: type[_Callback]) -> _Callback | None:
    """The Trainer's callback of a class, or None."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def _compact(policies: Sequence[Policy | None], shape: tuple[int, int]) -> Tensor:
    nothing = np.zeros(shape)
    tables = np.stack([nothing if p is None else p.probabilities for p in policies])
    if all(policy is None or policy.is_deterministic for policy in policies):
        return torch.tensor(tables.argmax(axis=2).astype(np.int16))
    return torch.tensor(tables.astype(np.float32))

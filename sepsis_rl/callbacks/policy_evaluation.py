"""Judging the policy while it is learned."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.errors import InputError
from sepsis_rl.evaluation import PolicyScores, Stage, score_policies
from sepsis_rl.mdp import STRATEGIES, Strategy
from sepsis_rl.metrics import Interval
from sepsis_rl.policies import Policy


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
        seed: Who they are. Validation and test meet different patients of the same seed.
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
        self.policies: dict[int, torch.Tensor] = {}
        """By step the policies of each evaluation of a fit: actions, int16 (members, n_states), or
        where one is not deterministic all probabilities, float32 (members, n_states, n_actions)."""
        self.last: PolicyScores | None = None

    def score(
        self,
        trainer: pl.Trainer,
        policies: torch.Tensor,
        reference: torch.Tensor | None = None,
    ) -> PolicyScores:
        """Scores any policies on this callback's patients.

        Args:
            trainer: Says the stage, the processes and where the data is.
            policies: Probabilities, float64, (policies, n_states, n_actions).
            reference: Policy to compare with, (n_states, n_actions).

        Returns:
            The scores, equal in all processes.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        return score_policies(
            data.mdp,
            [Policy("", table) for table in policies.cpu().numpy()],
            supported=data.pair_counts > 0,
            patients=self.patients,
            seed=self.seed,
            stage=Stage.TEST if trainer.state.fn == "test" else Stage.VALIDATE,
            strategy=self.strategy,
            reference=None if reference is None else Policy("", reference.cpu().numpy()),
            real_environment=self.real_environment,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            device=policies.device,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
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
        policies, data = module.policy_tables(), trainer.datamodule  # type: ignore[attr-defined]
        metrics: dict[str, torch.Tensor] = {}
        diverged = module.diverged().cpu()
        if diverged.any() and trainer.is_global_zero:
            lost = ", ".join(itertools.compress(module.labels, diverged))
            Console(stderr=True).print(
                f"Note: diverged at step {trainer.global_step:,}, without a policy: {lost}",
                soft_wrap=True,
            )
        if data.mdp is not None:
            scores = self.score(trainer, policies)
            survival = (part.masked_fill(diverged, torch.nan) for part in scores.survival_rate)
            self.last = replace(scores, survival_rate=Interval(*survival))
            metrics = self.last.metrics()
        start = torch.tensor(data.start, device=policies.device)
        value = module.value_estimates(start, policies)
        if value is not None:
            metrics["value_estimate"] = value.cpu()
        metrics = {
            name: values.masked_fill(diverged, torch.nan) for name, values in metrics.items()
        }
        if metrics:
            module.log_members({f"{group}/{name}": values for name, values in metrics.items()})
        if trainer.state.fn == "fit":
            rows = {name: values.tolist() for name, values in metrics.items()}
            members = [
                {name: row[member] for name, row in rows.items()}
                for member in range(len(module.members))
            ]
            self.history.append({"step": trainer.global_step, "members": members})
            self.policies[trainer.global_step] = _compact(policies).cpu()

    def state_dict(self) -> dict[str, Any]:
        """The evaluations so far, so that a resumed run tells the whole story."""
        return {"history": self.history, "policies": self.policies}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the evaluations up to the checkpoint."""
        self.history = list(state_dict["history"])
        self.policies = dict(state_dict.get("policies", {}))


def _compact(policies: torch.Tensor) -> torch.Tensor:
    largest, actions = policies.max(-1)
    return actions.to(torch.int16) if (largest == 1).all() else policies.float()

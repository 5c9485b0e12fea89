"""What a run ends with: a table on the screen and the figures in a file."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks.off_policy import OffPolicyEvaluation
from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, progress_bar
from sepsis_rl.evaluation import PolicyScores
from sepsis_rl.files import atomic_write, free_path
from sepsis_rl.loggers import RunLogger
from sepsis_rl.mdp import Strategy, TabularMDP
from sepsis_rl.ope import Episodes, OffPolicyScores
from sepsis_rl.ope.tables import as_json, off_policy_table
from sepsis_rl.policies import (
    Policy,
    clinician_mode_policy,
    clinician_policy,
    most_recorded_policy,
    optimal_policy,
    random_policy,
    tabular_policy,
)

_NO_SIMULATOR = (
    "No environment simulates these patients: what a policy is worth is told from recorded "
    "episodes alone, and survival in rollouts, exact survival and the optimum are left out."
    f"\n{NOT_FOR_CLINICAL_USE}"
)


@dataclass(frozen=True)
class _Row:
    name: str
    metrics: dict[str, float]


class Results(pl.Callback):
    """Compares the trained policy with the baselines at the end of fit, validate and test.

    Prints a table of this run's policies beside random, the clinician, the clinician's most likely
    action, the tabular baseline and the optimum, all on the same patients, then another of what
    recorded episodes alone say of them, and writes both to `metrics.json` in the run's folder, with
    the evaluations of the whole run. Where no environment simulates the patients of the data, there
    is the second table alone.
    """

    def __init__(self) -> None:
        self.run_folder: Path | None = None
        """Where `metrics.json` goes; the logger's folder in a fit."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes each member's settings for TensorBoard's page of hyper-parameters."""
        assert isinstance(pl_module, OfflineAlgorithm)
        if isinstance(trainer.logger, RunLogger):
            self.run_folder = Path(trainer.logger.log_dir)
            members = pl_module.members
            for name, settings in zip(members.names, members.settings, strict=True):
                described = {"algorithm": type(pl_module).__name__, **settings}
                trainer.logger.log_member_settings(name, described)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends a fit."""
        self._conclude(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends `validate`; the validations of a fit have their own logs."""
        if trainer.state.fn == "validate":
            self._conclude(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends `test`."""
        self._conclude(trainer, pl_module)

    def _conclude(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, OfflineAlgorithm)
        evaluation = next(
            callback
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, PolicyEvaluation)
        )
        data = trainer.datamodule  # type: ignore[attr-defined]
        diverged = module.diverged()
        lost = list(itertools.compress(module.labels, diverged))
        learned = (~diverged).nonzero().flatten().tolist()
        rows: list[_Row] = []
        if data.mdp is None:
            baselines = _recorded_baselines(data.pair_counts)
        else:
            rows, baselines = self._compare(trainer, evaluation, module, learned)
        if not trainer.is_global_zero:
            return
        members = [module.policy(member) for member in learned]
        off_policy = self._score_off_policy(trainer, [*members, *baselines])
        self._write(trainer, evaluation, rows, off_policy, lost)
        if rows:
            self._print(trainer, evaluation, rows, len(learned))
        else:
            Console().print(_NO_SIMULATOR)
        if off_policy is not None:
            Console().print(off_policy_table(off_policy, len(learned)))
        if lost:
            Console().print(f"Diverged, without a policy: {', '.join(lost)}")
        self._print_places(trainer)

    def _compare(
        self,
        trainer: pl.Trainer,
        evaluation: PolicyEvaluation,
        module: OfflineAlgorithm,
        members: list[int],
    ) -> tuple[list[_Row], list[Policy]]:
        """Scores learned policies and baselines in the environment.

        Returns:
            A row for each, and the baselines that records are to judge as well.
        """
        mdp = trainer.datamodule.mdp  # type: ignore[attr-defined]
        baselines, clinician = self._baselines(trainer, evaluation.strategy), clinician_policy(mdp)
        reference: torch.Tensor | None = torch.tensor(clinician.probabilities)
        if evaluation.strategy == "raise_exception":  # who would raise cannot be compared
            baselines = [policy for policy in baselines if _is_admissible(policy, mdp)]
            reference = reference if _is_admissible(clinician, mdp) else None
        learned = module.policy_tables()[members]
        names = [module.labels[member] for member in members]
        tables = [torch.tensor(policy.probabilities)[None].to(learned) for policy in baselines]
        scores = evaluation.score(trainer, torch.cat([learned, *tables]), reference)
        rows = _rows([*names, *(policy.name for policy in baselines)], scores)
        # The clinician's own row is what was recorded.
        return rows, [policy for policy in baselines if policy.name != clinician.name]

    def _score_off_policy(
        self, trainer: pl.Trainer, policies: list[Policy]
    ) -> OffPolicyScores | None:
        """Scores policies on the episodes that nothing was chosen by."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        off_policy = next((c for c in callbacks if isinstance(c, OffPolicyEvaluation)), None)
        if off_policy is None:
            return None
        data = trainer.datamodule  # type: ignore[attr-defined]
        episodes = Episodes(data.report, data.n_states, data.n_actions)
        with progress_bar() as progress:
            task = progress.add_task(
                "Scoring policies on recorded episodes",
                total=len(policies) * off_policy.options.resamples,
            )
            return off_policy.score(
                policies, episodes, advance=lambda count: progress.advance(task, count)
            )

    def _baselines(self, trainer: pl.Trainer, strategy: Strategy) -> list[Policy]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        mdp = data.mdp
        return [
            random_policy(mdp),
            clinician_policy(mdp),
            clinician_mode_policy(mdp),
            tabular_policy(mdp, data.train.counts(data.n_states, data.n_actions)),
            optimal_policy(mdp, strategy=strategy),
        ]

    def _write(
        self,
        trainer: pl.Trainer,
        evaluation: PolicyEvaluation,
        rows: list[_Row],
        off_policy: OffPolicyScores | None,
        diverged: list[str],
    ) -> None:
        if self.run_folder is None:
            return
        path = self.run_folder / "metrics.json"
        content = _read_metrics(path)
        if content is None:  # damaged by somebody; it stays as it is
            path, content = free_path(path), {}
        checkpoint = trainer.ckpt_path
        result: dict[str, Any] = {"note": NOT_FOR_CLINICAL_USE}
        if diverged:
            result["diverged"] = diverged
        if rows:
            result |= {
                "inadmissible_actions": evaluation.strategy,
                "patients": evaluation.patients,
                "patients_seed": evaluation.seed,
                "policies": {row.name: row.metrics for row in rows},
            }
        if off_policy is not None:
            report = trainer.datamodule.report  # type: ignore[attr-defined]
            result["off_policy"] = {"content_hash": report.content_hash, **as_json(off_policy)}
        stage = str(trainer.state.fn.value)  # type: ignore[union-attr]
        if stage == "fit":
            result = {"step": trainer.global_step, **result, "evaluations": evaluation.history}
            content["fit"] = result
        else:
            content.setdefault(stage, {})[Path(str(checkpoint)).name] = result
        with atomic_write(path) as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")

    def _print(
        self, trainer: pl.Trainer, evaluation: PolicyEvaluation, rows: list[_Row], learned: int
    ) -> None:
        console = Console()
        table = framed_table(
            f"90-day survival on ICU-Sepsis, {evaluation.patients:,} simulated patients\n"
            f"inadmissible actions: {evaluation.strategy}",
            "In parentheses 95 % intervals; the difference is paired, on the same "
            f"patients. A step is 4 hours.\n{NOT_FOR_CLINICAL_USE}",
        )
        table.add_column("policy", no_wrap=True)
        table.add_column("exact %", justify="right", no_wrap=True)
        table.add_column("rollout %", justify="right", no_wrap=True)
        table.add_column("minus clinician", justify="right", no_wrap=True)
        table.add_column("steps", justify="right", no_wrap=True)
        for index, row in enumerate(rows):
            values = row.metrics
            table.add_row(
                row.name,
                f"{100 * values['survival_exact']:.2f}",
                _interval(values, "survival_rate", ""),
                _interval(values, "difference", "+") if "difference" in values else "",
                f"{values['length_exact']:.2f}",
                style="bold" if index < learned else "",
                end_section=index == learned - 1,
            )
        console.print(table)

    def _print_places(self, trainer: pl.Trainer) -> None:
        console = Console()
        if self.run_folder is not None:
            console.print(f"Run folder:  {self.run_folder}", soft_wrap=True)
        if trainer.state.fn == "fit" and isinstance(trainer.logger, RunLogger):
            console.print(
                f"TensorBoard: tensorboard --logdir {trainer.logger.save_dir}", soft_wrap=True
            )


def _read_metrics(path: Path) -> dict[str, Any] | None:
    """What a run's `metrics.json` holds; None if it is not one."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        return None
    ours = isinstance(content, dict) and all(isinstance(value, dict) for value in content.values())
    return content if ours else None


def _recorded_baselines(pair_counts: NDArray[np.int64]) -> list[Policy]:
    """What can be compared with where nothing but records is known."""
    uniform = np.full(pair_counts.shape, 1 / pair_counts.shape[1])
    return [Policy("random", uniform), most_recorded_policy(pair_counts)]


def _is_admissible(policy: Policy, mdp: TabularMDP) -> bool:
    """Whether a policy never takes an inadmissible action."""
    return not policy.probabilities[~mdp.terminal][~mdp.admissible[~mdp.terminal]].any()


def _rows(names: list[str], scores: PolicyScores) -> list[_Row]:
    columns = {**scores.metrics(), "length_exact": scores.length_exact}
    if scores.difference is not None:
        for part, values in zip(("", "_low", "_high"), scores.difference, strict=True):
            columns[f"difference{part}"] = values
    table = {name: values.tolist() for name, values in columns.items()}
    return [
        _Row(name, {key: values[index] for key, values in table.items()})
        for index, name in enumerate(names)
    ]


def _interval(values: dict[str, float], name: str, sign: str) -> str:
    estimate, low, high = (
        f"{100 * values[name + part]:{sign}.1f}" for part in ("", "_low", "_high")
    )
    if low == high:
        return estimate
    return f"{estimate} ({low}, {high})" if sign else f"{estimate} ({low}–{high})"

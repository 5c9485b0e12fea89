"""What a run ends with: tables on the screen and the figures in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from rich.table import Table

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks.off_policy import OffPolicyEvaluation
from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation, find_callback
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, progress_bar, shown, tell
from sepsis_rl.evaluation import PolicyScores
from sepsis_rl.files import free_path, write_json
from sepsis_rl.loggers import run_loggers
from sepsis_rl.ope import Episodes, OffPolicyScores
from sepsis_rl.ope.tables import as_json, off_policy_table
from sepsis_rl.policies import Policy

Figures = Mapping[str, Mapping[str, float]]
"""By policy the metrics by name, as in `metrics.json`."""

_NO_SIMULATOR = (
    "No environment simulates these patients: what a policy is worth is told from recorded "
    "episodes alone, and survival in rollouts, exact survival and the optimum are left out."
    f"\n{NOT_FOR_CLINICAL_USE}"
)


class Results(pl.Callback):
    """Compares the trained policies with the baselines at the end of fit, validate and test.

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
        data: OfflineDataModule = trainer.datamodule  # type: ignore[attr-defined]
        shared = {
            "algorithm": type(pl_module).__name__,
            "train_data": "simulated" if data.path is None else str(data.path),
            # As text, since TensorBoard shows five digits of a number: 42.000.
            "train_episodes": str(data.train.n_episodes),
            "train_seed": str(data.seed),
        }
        members = pl_module.members
        for logger in run_loggers(trainer):
            self.run_folder = self.run_folder or Path(logger.log_dir)
            for name, settings in zip(members.names, members.settings, strict=True):
                own = {**shared, **settings, "seed": str(settings["seed"])}
                logger.log_member_settings(name, own)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends `validate`; the validations of a fit have their own logs."""
        if trainer.state.fn == "validate":
            self._conclude(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends `fit` and `test`."""
        self._conclude(trainer, pl_module)

    on_fit_end = on_test_end

    def _conclude(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, OfflineAlgorithm)
        evaluation = find_callback(trainer, PolicyEvaluation)
        assert evaluation is not None
        data = trainer.datamodule  # type: ignore[attr-defined]
        policies = module.policies()
        learned = [policy for policy in policies if policy is not None]
        lost = [name for name, own in zip(module.labels, policies, strict=True) if own is None]
        figures: Figures = {}
        baselines = evaluation.baselines(data)
        if data.mdp is not None:
            figures = _compare(trainer, evaluation, [*learned, *baselines])
            # The clinician's own row is what was recorded.
            baselines = [policy for policy in baselines if policy.name != "clinician"]
        if not trainer.is_global_zero:
            return
        off_policy = _score_off_policy(trainer, [*learned, *baselines])
        self._write(trainer, evaluation, figures, off_policy, lost)
        console, prefix = Console(markup=False), f"{type(module).__name__} "
        # A member's name may be broken after a comma, and never loses its end.
        names = [p.name.removeprefix(prefix).replace(",", ", ") for p in [*learned, *baselines]]
        console.print(
            _survival_table(trainer, figures, names[: len(learned)], evaluation)
            if figures
            else _NO_SIMULATOR
        )
        console.print()
        if off_policy is not None:
            console.print(off_policy_table(off_policy, len(learned), names=names))
            console.print()
        if lost:
            console.print(f"Diverged, without a policy: {', '.join(lost)}")
        if self.run_folder is not None:
            tell(f"Run folder:  {shown(self.run_folder)}")
        if trainer.state.fn != "fit":
            return
        _tell_best_checkpoint(trainer)
        for logger in run_loggers(trainer):
            tell(f"TensorBoard: tensorboard --logdir {shown(logger.save_dir)}")

    def _write(
        self,
        trainer: pl.Trainer,
        evaluation: PolicyEvaluation,
        figures: Figures,
        off_policy: OffPolicyScores | None,
        diverged: list[str],
    ) -> None:
        if self.run_folder is None:
            return
        result: dict[str, Any] = {"note": NOT_FOR_CLINICAL_USE}
        if diverged:
            result["diverged"] = diverged
        if figures:
            result |= {
                "inadmissible_actions": evaluation.strategy,
                "patients": evaluation.patients,
                "patients_seed": evaluation.seed,
                "policies": figures,
            }
        if off_policy is not None:
            report = trainer.datamodule.report  # type: ignore[attr-defined]
            result["off_policy"] = {"content_hash": report.content_hash, **as_json(off_policy)}
        path = self.run_folder / "metrics.json"
        content = _read_metrics(path)
        if content is None:  # damaged by somebody; it stays as it is
            path, content = free_path(path), {}
        stage = str(trainer.state.fn.value)  # type: ignore[union-attr]
        if stage == "fit":
            result = {"step": trainer.global_step, **result, "evaluations": evaluation.history}
            content["fit"] = result
        else:
            content.setdefault(stage, {})[Path(str(trainer.ckpt_path)).name] = result
        write_json(path, content)


def _tell_best_checkpoint(trainer: pl.Trainer) -> None:
    """Names the file of the best score, where checkpoints are kept by one."""
    kept = trainer.checkpoint_callback
    score = kept.best_model_score if isinstance(kept, ModelCheckpoint) else None
    if isinstance(kept, ModelCheckpoint) and score is not None and score.isfinite():
        name = Path(kept.best_model_path).name
        tell(f"Checkpoint:  {name} has the best {kept.monitor}, {score:.4f}")


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


def _compare(trainer: pl.Trainer, evaluation: PolicyEvaluation, policies: list[Policy]) -> Figures:
    """Scores policies in the environment, against the clinician if that is one of them."""
    clinician = next((policy for policy in policies if policy.name == "clinician"), None)
    scores: PolicyScores = evaluation.score(trainer, policies, clinician)
    columns = {**scores.metrics(), "length_exact": scores.length_exact}
    if scores.difference is not None:
        for part, values in zip(("", "_low", "_high"), scores.difference, strict=True):
            columns[f"difference{part}"] = values
    return {
        policy.name: {name: float(values[index]) for name, values in columns.items()}
        for index, policy in enumerate(policies)
    }


def _score_off_policy(trainer: pl.Trainer, policies: list[Policy]) -> OffPolicyScores | None:
    """Scores policies on the episodes that nothing was chosen by."""
    off_policy = find_callback(trainer, OffPolicyEvaluation)
    if off_policy is None:
        return None
    data = trainer.datamodule  # type: ignore[attr-defined]
    episodes = Episodes(data.report, data.n_states, data.n_actions)
    with progress_bar() as progress:
        total = len(policies) * off_policy.options.resamples
        task = progress.add_task("Scoring policies on recorded episodes", total=total)
        advance = partial(progress.advance, task)
        return off_policy.score(policies, episodes, model=off_policy.model(data), advance=advance)


def _survival_table(
    trainer: pl.Trainer, figures: Figures, learned: list[str], evaluation: PolicyEvaluation
) -> Table:
    """Shows policies side by side, the first ones, under the names `learned`, set off."""
    stage = "test" if trainer.state.fn == "test" else "validation"
    table = framed_table(
        f"90-day survival on ICU-Sepsis, {evaluation.patients:,} simulated {stage} patients\n"
        f"inadmissible actions: {evaluation.strategy}",
        "95 % intervals in parentheses; differences on the same patients; steps of 4 h\n"
        f"{NOT_FOR_CLINICAL_USE}",
    )
    table.add_column("policy", overflow="fold")
    for column in ("exact %", "rollouts %", "minus clinician", "steps"):
        table.add_column(column, justify="right", no_wrap=True)
    for index, (name, values) in enumerate(figures.items()):
        table.add_row(
            learned[index] if index < len(learned) else name,
            f"{100 * values['survival_exact']:.2f}",
            _interval(values, "survival_rate", ""),
            _interval(values, "difference", "+") if "difference" in values else "",
            f"{values['length_exact']:.2f}",
            style="bold" if index < len(learned) else "",
            end_section=index == len(learned) - 1,
        )
    return table


def _interval(values: Mapping[str, float], name: str, sign: str) -> str:
    estimate, low, high = (
        f"{100 * values[name + part]:{sign}.1f}" for part in ("", "_low", "_high")
    )
    if low == high:
        return estimate
    return f"{estimate} ({low}, {high})" if sign else f"{estimate} ({low}–{high})"

"""`lightning select`: choosing among the policies of finished runs from recorded data alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, progress_bar, shown, tell
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.files import free_path, refuse_existing, write_json
from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope import Episodes, OffPolicyOptions, OffPolicyScores, evaluate_off_policy
from sepsis_rl.ope.criteria import (
    CRITERIA,
    ESTIMATOR_LABELS,
    Criterion,
    criterion_values,
    regret,
    regret_of_chance,
)
from sepsis_rl.ope.estimates import DEFAULTS, Estimator
from sepsis_rl.ope.supported_value import supported_value_of
from sepsis_rl.ope.tables import as_json, estimate_table, off_policy_table
from sepsis_rl.planning import evaluate
from sepsis_rl.runs.finished import Candidate, Run, candidates, read_run

_ESTIMATORS: Final[tuple[Estimator, ...]] = ("fqe", "fqe_zero", "wis", "wdr")
_ROWS_SHOWN: Final = 20


@dataclass(frozen=True, eq=False)
class _Selection:
    """What was chosen and why.

    Attributes:
        criterion: Estimate by which policies are compared; the largest is chosen.
        candidates: All policies that were compared.
        scores: Their scores on the held-out episodes.
        order: Indices of the candidates, best first.
        final: The score of the chosen one on the report's episodes.
        survival: Exact survival of all, float64 (candidates,), where the truth was asked for.
    """

    criterion: Criterion
    candidates: Sequence[Candidate]
    scores: OffPolicyScores
    order: list[int]
    final: OffPolicyScores
    survival: FloatArray | None

    @property
    def chosen(self) -> Candidate:
        """The best by the criterion; the first of equals."""
        return self.candidates[self.order[0]]

    @property
    def criteria(self) -> Sequence[Criterion]:
        """Those that these records allow."""
        return CRITERIA if self.scores.supported is not None else CRITERIA[1:]

    def regrets(self) -> dict[str, float]:
        """What each criterion's choice loses to the best candidate, and what chance loses."""
        assert self.survival is not None
        regrets: dict[str, float] = {
            criterion: regret(criterion_values(self.scores, criterion), self.survival)
            for criterion in self.criteria
        }
        return {**regrets, "chance": regret_of_chance(self.survival)}


def select(
    folders: Sequence[str | Path],
    *,
    criterion: Criterion = "supported_value",
    truth: bool = False,
    options: OffPolicyOptions = DEFAULTS,
    output: str | Path | None = None,
) -> Candidate:
    """Chooses among all checkpoints and members of runs, prints why, and writes the choice.

    Candidates are compared on the held-out episodes, and by `supported_value` on the training
    episodes besides, of the run that has most; what the chosen one is worth is told from the
    report's episodes, which chose nothing.

    Args:
        folders: Folders of runs that share their held-out and report episodes.
        criterion: Estimate by which policies are compared; the largest is chosen.
        truth: Print exact survival beside, and what each criterion's choice loses to the best.
        options: Softening, clip and bootstrap of the estimates.
        output: File to write; `selection.json` in the folder that holds all runs by default, with
            the next free number.

    Returns:
        The chosen candidate.

    Raises:
        InputError: A folder is no run, runs do not share their episodes, or the output exists.
    """
    if criterion not in CRITERIA:
        raise InputError(f"criterion is {criterion!r}; accepted: {', '.join(CRITERIA)}")
    if output is not None:
        refuse_existing(output)
    runs = [read_run(folder) for folder in dict.fromkeys(Path(f).resolve() for f in folders)]
    _check_shared_episodes(runs)
    data = max((run.data for run in runs), key=lambda data: data.train.n_episodes)
    selection = _choose(candidates(runs), data, criterion, options, truth)
    if output is None:
        together = os.path.commonpath([run.folder for run in runs])
        output = free_path(Path(together, "selection.json"))
    _print(selection)
    write_json(output, _content(selection, data, Path(output)))
    chosen = selection.chosen
    tell(
        f"Choice:     {output}\n"
        f"Its policy: lightning predict --config {shown(chosen.run / 'config.yaml')} "
        f"--ckpt_path {shown(chosen.checkpoint)} --member {chosen.member}\n{NOT_FOR_CLINICAL_USE}"
    )
    return chosen


def _check_shared_episodes(runs: Sequence[Run]) -> None:
    """Candidates are compared on the same episodes, and no run may have trained on them."""
    if not runs:
        raise InputError("select needs at least one run: lightning select runs/cql/version_0 ...")
    first = runs[0].data
    for run in runs[1:]:
        for name in ("held_out", "report"):
            if getattr(run.data, name).content_hash != getattr(first, name).content_hash:
                raise InputError(
                    f"{run.folder} and {runs[0].folder} do not share their {name} episodes; "
                    "accepted are runs with the same settings of `data`, apart from `episodes` "
                    "and `batch_size`"
                )


def _choose(
    found: Sequence[Candidate],
    data: OfflineDataModule,
    criterion: Criterion,
    options: OffPolicyOptions,
    truth: bool,
) -> _Selection:
    mdp = data.require_mdp("--truth") if truth else None
    held_out, report = (
        Episodes(part, data.n_states, data.n_actions) for part in (data.held_out, data.report)
    )
    judge = partial(evaluate_off_policy, estimators=_ESTIMATORS, options=options)
    model = supported_value_of(data.counts, data.held_out, data.mdp)
    policies = [candidate.policy for candidate in found]
    scores = judge(policies, held_out, refit=False, model=model)
    order = np.argsort(-criterion_values(scores, criterion), kind="stable").tolist()
    with progress_bar() as progress:
        task = progress.add_task("Scoring the chosen policy", total=options.resamples)
        advance = partial(progress.advance, task)
        final = judge([found[order[0]].policy], report, advance=advance)
    survival = None
    if mdp is not None:
        tables = (candidate.policy.probabilities for candidate in found)
        survival = np.array([evaluate(true_dynamics(mdp), table).survival for table in tables])
    return _Selection(criterion, found, scores, order, final, survival)


def _print(selection: _Selection) -> None:
    console = Console()
    console.print(_table(selection))
    console.print(
        f"\nChosen by {ESTIMATOR_LABELS[selection.criterion]}: [bold]{selection.chosen.name}[/]",
        highlight=False,
        soft_wrap=True,
    )
    console.print(off_policy_table(selection.final, 1, "of the report, which chose nothing"))
    if selection.survival is not None:
        console.print(_truth_table(selection))


def _content(selection: _Selection, data: OfflineDataModule, path: Path) -> dict[str, Any]:
    """What is written to the file at `path`."""
    chosen, survival = selection.chosen, selection.survival
    content: dict[str, Any] = {
        "note": NOT_FOR_CLINICAL_USE,
        "criterion": selection.criterion,
        "chosen": {
            "name": chosen.name,
            "run": os.path.relpath(chosen.run, path.resolve().parent),
            "checkpoint": os.path.relpath(chosen.checkpoint, path.resolve().parent),
            "step": chosen.step,
            "member": chosen.member,
        },
        "report": {"content_hash": data.report.content_hash, **as_json(selection.final)},
        "select": {"content_hash": data.held_out.content_hash, **as_json(selection.scores)},
    }
    if survival is not None:
        names = (candidate.name for candidate in selection.candidates)
        exact = dict(zip(names, survival.tolist(), strict=True))
        content["truth"] = {"survival_exact": exact, "regret": selection.regrets()}
    return content


def _table(selection: _Selection) -> Table:
    """All candidates, best first, or as many as a screen holds."""
    found, scores, survival = selection.candidates, selection.scores, selection.survival
    names = {
        "run": [candidate.label for candidate in found],
        "step": [f"{candidate.step:,}" for candidate in found],
        "member": [candidate.member_name.replace(",", ", ") for candidate in found],
    }
    more = f"{len(found) - _ROWS_SHOWN} more are in the file. " if len(found) > _ROWS_SHOWN else ""
    modeled = scores.supported is not None
    headings = ["supported %"] if modeled else ["as 0", "WDR %"]
    return estimate_table(
        f"{len(found)} policies on {scores.episodes:,} held-out episodes, best first by "
        f"{ESTIMATOR_LABELS[selection.criterion]}",
        scores,
        [*headings, "FQE %", "unseen", "WIS %", "ESS"],
        names={heading: texts for heading, texts in names.items() if any(texts)},
        order=selection.order[:_ROWS_SHOWN],
        emphasized=1,
        note=f"{more}Of those whose decisions were recorded {100 * scores.recorded:.1f} % "
        "survived. ",
        beside=None if survival is None else {"exact %": [f"{100 * v:.2f}" for v in survival]},
    )


def _truth_table(selection: _Selection) -> Table:
    regrets, scores, found = selection.regrets(), selection.scores, selection.candidates
    chance = regrets["chance"]
    beaten = [criterion for criterion in selection.criteria if regrets[criterion] < chance]
    finding = (
        "That a criterion beats chance on one set of episodes is no proof that it does."
        if beaten
        else f"No criterion beats chance among these {len(found)} policies on "
        f"{scores.episodes:,} episodes: a finding about what such data can tell."
    )
    table = framed_table("What choosing costs: exact survival below the best policy's", finding)
    table.add_column("chosen by")
    table.add_column("policy")
    table.add_column("points", justify="right")
    table.add_column("against chance")
    for criterion in selection.criteria:
        chosen = found[int(criterion_values(scores, criterion).argmax())]
        against = "better" if criterion in beaten else "no better"
        table.add_row(
            ESTIMATOR_LABELS[criterion], chosen.name, f"{100 * regrets[criterion]:.2f}", against
        )
    table.add_section()
    table.add_row("chance", "any, on average", f"{100 * chance:.2f}", "")
    return table

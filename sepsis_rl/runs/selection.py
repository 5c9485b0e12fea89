"""`lightning select`: choosing among the policies of finished runs from recorded data alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.data.transitions import Transitions
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, progress_bar, shown, tell
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.files import free_path, refuse_existing, write_json
from sepsis_rl.ope import Episodes, OffPolicyOptions, evaluate_off_policy
from sepsis_rl.ope.criteria import CRITERIA, Criterion, criterion_values
from sepsis_rl.ope.estimates import DEFAULTS, Estimator
from sepsis_rl.ope.supported_value import (
    SupportedValues,
    alike,
    resampled_values,
    supported_value_of,
)
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy
from sepsis_rl.runs.choice import Choice, as_content, show
from sepsis_rl.runs.finished import Candidate, Run, candidates, read_run
from sepsis_rl.runs.members import member_options

_ESTIMATORS: Final[tuple[Estimator, ...]] = ("fqe", "fqe_zero", "wis", "wdr")
_RESAMPLED: Final = 10  # policies that are told apart, each a fortieth of a second a sample
_RESAMPLES: Final = 40
_LONG: Final = 5  # decisions


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
    choice = _choose(candidates(runs), data, criterion, options, truth)
    if output is None:
        together = os.path.commonpath([run.folder for run in runs])
        output = free_path(Path(together, "selection.json"))
    show(choice)
    write_json(output, as_content(choice, data, Path(output)))
    chosen = choice.chosen
    config = shown(chosen.run / "config.yaml")
    tell(
        f"Choice:     {shown(output)}\n"
        f"Its policy: lightning predict --config {config} "
        f"--ckpt_path {shown(chosen.checkpoint)} --member {chosen.member}"
    )
    if data.path is not None:
        words = member_options(chosen.member_name)
        words += [f"--data.{part}_share=0.01" for part in ("held_out", "report")]
        tell(f"From nearly all records: lightning fit --config {config} {' '.join(words)}")
    tell(NOT_FOR_CLINICAL_USE)
    return chosen


def _check_shared_episodes(runs: Sequence[Run]) -> None:
    """Candidates are compared on the same episodes, and no run should have trained on them."""
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
    held_out = _courses(first.held_out)
    for run in runs:
        known = len(held_out & _courses(run.data.train))
        if known > len(held_out) / 2:
            tell(
                f"Note: {known} of the {len(held_out)} held-out episodes of {_LONG} decisions and "
                f"more are also among those that {shown(run.folder)} was trained on, decision by "
                "decision; what it learned by heart will seem good",
                error=True,
            )


def _courses(data: Transitions) -> set[bytes]:
    """States and actions of each long episode; of short ones many are alike by chance."""
    courses = np.column_stack([data.observation, data.action])
    parts = np.split(courses, np.flatnonzero(np.diff(data.episode)) + 1)
    return {part.tobytes() for part in parts if len(part) >= _LONG}


def _choose(
    everyone: Sequence[Candidate],
    data: OfflineDataModule,
    criterion: Criterion,
    options: OffPolicyOptions,
    truth: bool,
) -> Choice:
    mdp = data.require_mdp("--truth") if truth else None
    held_out, report = (
        Episodes(part, data.n_states, data.n_actions) for part in (data.held_out, data.report)
    )
    judge = partial(evaluate_off_policy, estimators=_ESTIMATORS, options=options)
    groups: dict[bytes, list[Candidate]] = {}
    for candidate in everyone:
        groups.setdefault(candidate.policy.probabilities.tobytes(), []).append(candidate)
    found = [group[0] for group in groups.values()]
    same = [len(group) for group in groups.values()]
    model = supported_value_of(data.counts, data.held_out, data.mdp, options.penalty)
    policies = [candidate.policy for candidate in found]
    scores = judge(policies, held_out, refit=False, model=model)
    values = criterion_values(scores, criterion)
    order = np.argsort(-values, kind="stable").tolist()
    similar, anchored_sd = order[:1], None
    if criterion == "supported_value" and options.resamples > 1:
        train = Episodes(data.train, data.n_states, data.n_actions)
        first = order[:_RESAMPLED]
        replicates = _replicates([policies[i] for i in first], [train, held_out], data, options)
        similar = np.array(first)[alike(values[first], replicates.value)].tolist()
        anchored_sd = float(replicates.anchored[:, 0].std(ddof=1))
    with progress_bar() as progress:
        task = progress.add_task("Scoring the chosen policy", total=options.resamples)
        advance = partial(progress.advance, task)
        final = judge([found[order[0]].policy], report, advance=advance)
    survival = None
    if mdp is not None:
        tables = (candidate.policy.probabilities for candidate in found)
        survival = np.array([evaluate(true_dynamics(mdp), table).survival for table in tables])
    return Choice(criterion, found, same, scores, order, similar, anchored_sd, final, survival)


def _replicates(
    policies: Sequence[Policy],
    parts: Sequence[Episodes],
    data: OfflineDataModule,
    options: OffPolicyOptions,
) -> SupportedValues:
    """Values on resampled episodes, each (resamples, policies)."""
    resamples = min(options.resamples, _RESAMPLES)
    with progress_bar() as progress:
        task = progress.add_task("Telling policies apart", total=resamples)
        advance = partial(progress.advance, task)
        return resampled_values(
            policies,
            parts,
            data.mdp,
            penalty=options.penalty,
            resamples=resamples,
            seed=options.seed,
            advance=advance,
        )

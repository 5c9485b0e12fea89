"""`lightning select`: choosing among the policies of finished runs from recorded data alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, progress_bar
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write, free_path
from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope import LOW_ESS, Episodes, OffPolicyScores, evaluate_off_policy
from sepsis_rl.ope.criteria import (
    CRITERIA,
    SPOKEN,
    Criterion,
    criterion_values,
    regret,
    regret_of_chance,
)
from sepsis_rl.ope.estimates import Estimator
from sepsis_rl.ope.tables import as_json, off_policy_table, percent, softening
from sepsis_rl.planning import evaluate
from sepsis_rl.runs.finished import Candidate, Run, candidates, read_run

_ESTIMATORS: tuple[Estimator, ...] = ("fqe", "fqe_zero", "wis", "wdr")
_ROWS_SHOWN = 20


def select(
    folders: Sequence[str | Path],
    *,
    criterion: Criterion = "fqe",
    truth: bool = False,
    epsilon: float = 0.01,
    clip: float | None = None,
    resamples: int = 200,
    seed: int = 0,
    output: str | Path | None = None,
) -> Candidate:
    """Chooses among all checkpoints and members of runs, prints why, and writes the choice.

    Candidates are compared on the held-out episodes; what the chosen one is worth is told from the
    report's episodes, which chose nothing.

    Args:
        folders: Folders of runs that share their held-out and report episodes.
        criterion: What is largest for the chosen one.
        truth: Print exact survival beside, and what each criterion's choice loses to the best.
        epsilon: A deterministic policy is softened toward the recorded decisions by this much.
        clip: Largest cumulative importance ratio; None for none.
        resamples: Bootstrap resamples of an interval.
        seed: Of the resamples.
        output: File to write; `selection.json` in the folder that holds all runs by default, with
            the next free number.

    Returns:
        The chosen candidate.

    Raises:
        InputError: A folder is no run, runs do not share their episodes, or the output exists.
    """
    if criterion not in CRITERIA:
        raise InputError(f"criterion is {criterion!r}; accepted: {', '.join(CRITERIA)}")
    if output is not None and Path(output).exists():
        raise InputError(f"--output {output} exists already; give another name")
    runs = [read_run(folder) for folder in dict.fromkeys(Path(f).resolve() for f in folders)]
    _check_shared_episodes(runs)
    found = candidates(runs)
    options: dict[str, Any] = {
        "estimators": _ESTIMATORS,
        "epsilon": epsilon,
        "clip": clip,
        "resamples": resamples,
        "seed": seed,
    }
    data = runs[0].data
    mdp = data.require_mdp("--truth") if truth else None
    held_out, report = (
        Episodes(part, data.n_states, data.n_actions) for part in (data.held_out, data.report)
    )
    with progress_bar() as progress:
        scores = evaluate_off_policy([c.policy for c in found], held_out, refit=False, **options)
        values = criterion_values(scores, criterion)
        order = np.argsort(-values, kind="stable").tolist()
        chosen: Candidate = found[order[0]]
        task = progress.add_task("Scoring the chosen policy", total=resamples)
        final = evaluate_off_policy(
            [chosen.policy],
            report,
            advance=lambda count: progress.advance(task, count),
            **options,
        )
    survival = None
    if mdp is not None:
        tables = (candidate.policy.probabilities for candidate in found)
        survival = np.array([evaluate(true_dynamics(mdp), table).survival for table in tables])

    console = Console()
    console.print(_table(found, scores, order, criterion, survival))
    console.print(
        f"\nChosen by {SPOKEN[criterion]}: [bold]{chosen.name}[/]", highlight=False, soft_wrap=True
    )
    console.print(off_policy_table(final, 1, "report episodes, which chose nothing"))
    regrets = None if survival is None else _regrets(scores, survival)
    if regrets is not None:
        console.print(_truth_table(regrets, found, scores))
    path = _output(runs) if output is None else Path(output)
    content = {
        "note": NOT_FOR_CLINICAL_USE,
        "criterion": criterion,
        "chosen": {
            "name": chosen.name,
            "run": _relative(chosen.run, path),
            "checkpoint": _relative(chosen.checkpoint, path),
            "step": chosen.step,
            "member": chosen.member,
        },
        "report": {"content_hash": data.report.content_hash, **as_json(final)},
        "select": {"content_hash": data.held_out.content_hash, **as_json(scores)},
    }
    if survival is not None:
        exact = {c.name: value for c, value in zip(found, survival.tolist(), strict=True)}
        content["truth"] = {"survival_exact": exact, "regret": regrets}
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")
    console.print(f"Choice:     {path}", soft_wrap=True, highlight=False)
    console.print(
        f"Its policy: lightning predict --config {_shown(chosen.run / 'config.yaml')} "
        f"--ckpt_path {_shown(chosen.checkpoint)} --member {chosen.member}",
        soft_wrap=True,
        highlight=False,
    )
    console.print(NOT_FOR_CLINICAL_USE)
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


def _table(
    found: Sequence[Candidate],
    scores: OffPolicyScores,
    order: list[int],
    criterion: Criterion,
    survival: FloatArray | None,
) -> Table:
    more = f"{len(found) - _ROWS_SHOWN} more are in the file. " if len(found) > _ROWS_SHOWN else ""
    low = int((scores.effective_sample_size < LOW_ESS).sum())
    warning = (
        f"\nEffective sample below {LOW_ESS}: these records cannot judge {low} of the policies; "
        "too few episodes go as they would."
    )
    intervals = "In parentheses 95 % intervals. " if len(scores.recorded_replicates) else ""
    table = framed_table(
        f"{len(found)} policies on {scores.episodes:,} held-out episodes, best first by "
        f"{SPOKEN[criterion]}",
        f"{more}Of those whose decisions were recorded {100 * scores.recorded:.1f} % survived. "
        "FQE %: fitted Q evaluation; as 0: decisions never recorded worth nothing; unseen "
        "%: their share. WIS %, WDR %: weighted importance sampling, weighted doubly robust; ESS: "
        f"effective sample of both, in episodes. {intervals}"
        f"{softening(scores)}" + (warning if low else ""),
    )
    named = {
        "run": [candidate.label for candidate in found],
        "step": [f"{candidate.step:,}" for candidate in found],
        "member": [candidate.member_name.replace(",", ", ") for candidate in found],
    }
    named = {column: texts for column, texts in named.items() if any(texts)}
    for column in named:
        justify: Literal["left", "right"] = "right" if column == "step" else "left"
        # Members differ at the end of their names, which is not to be cut off.
        table.add_column(column, justify=justify, overflow="fold")
    exact = () if survival is None else ("exact %",)
    for column in ("FQE %", "as 0", "unseen", "WIS %", "WDR %", "ESS", *exact):
        table.add_column(column, justify="right", no_wrap=True)
    fqe, zero, wis, wdr = (scores.interval(name) for name in _ESTIMATORS)
    for row, index in enumerate(order[:_ROWS_SHOWN]):
        table.add_row(
            *(texts[index] for texts in named.values()),
            percent(fqe, index),
            f"{100 * float(zero.estimate[index]):.0f}",
            f"{100 * scores.unseen_rate[index]:.1f}",
            percent(wis, index),
            percent(wdr, index),
            f"{scores.effective_sample_size[index]:.0f}",
            *(() if survival is None else (f"{100 * survival[index]:.2f}",)),
            style="bold" if row == 0 else "",
        )
    return table


def _regrets(scores: OffPolicyScores, survival: FloatArray) -> dict[str, float]:
    """What each criterion's choice loses to the best candidate, and what chance loses."""
    regrets: dict[str, float] = {
        criterion: regret(criterion_values(scores, criterion), survival) for criterion in CRITERIA
    }
    return {**regrets, "chance": regret_of_chance(survival)}


def _truth_table(
    regrets: dict[str, float], found: Sequence[Candidate], scores: OffPolicyScores
) -> Table:
    chance = regrets["chance"]
    beaten = [criterion for criterion in CRITERIA if regrets[criterion] < chance]
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
    for criterion in CRITERIA:
        chosen = found[int(criterion_values(scores, criterion).argmax())]
        against = "better" if criterion in beaten else "no better"
        table.add_row(SPOKEN[criterion], chosen.name, f"{100 * regrets[criterion]:.2f}", against)
    table.add_section()
    table.add_row("chance", "any, on average", f"{100 * chance:.2f}", "")
    return table


def _output(runs: Sequence[Run]) -> Path:
    folder = Path(os.path.commonpath([run.folder for run in runs]))
    return free_path(folder / "selection.json")


def _relative(path: Path, output: Path) -> str:
    return os.path.relpath(path, output.resolve().parent)


def _shown(path: Path) -> str:
    """A path as short as the current folder allows."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

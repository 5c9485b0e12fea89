"""`lightning report --scorecard`: how far estimates from recorded data alone can be trusted.

Policies whose exact value is known are judged on many simulated data sets, and every estimator of
`ope/` is held against the truth. The simulator is exactly Markov and hides nothing, so whatever is
found here is the best case.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import os
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from sepsis_rl.data.collection import collect
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, progress_bar
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write
from sepsis_rl.mdp import TabularMDP, load_icu_sepsis
from sepsis_rl.ope import ESTIMATORS
from sepsis_rl.ope.criteria import ESTIMATOR_LABELS
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import (
    Policy,
    clinician_mode_policy,
    clinician_policy,
    optimal_policy,
    random_policy,
    tabular_policy,
)
from sepsis_rl.report.style import picture
from sepsis_rl.runs.finished import Run, candidates, read_run
from sepsis_rl.scorecard.accuracy import (
    Estimates,
    KnownPolicy,
    PolicyFigures,
    RuleFigures,
    as_csv,
    finding,
    summarize_policies,
    summarize_rules,
)
from sepsis_rl.scorecard.figure import draw
from sepsis_rl.scorecard.judging import EPSILON, Judge, judge_all

BEST_CASE: Final = (
    "The simulator is exactly Markov and nothing is hidden from the estimators: this is the best "
    "case."
)
SEEDS_APART: Final = 10_000_000
"""Data set k of seed s is collected with (s + 1) * SEEDS_APART + k, far from what runs train on."""

TRAINING_EPISODES: Final = 5000
TRAINING_SEED: Final = 42

_NAMES: Final = (
    "scorecard.csv",
    "scorecard-policies.csv",
    "scorecard.png",
    "scorecard.svg",
    "scorecard-runs.csv",
)
# What reading a damaged or foreign file can raise.
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def scorecard(
    runs: Sequence[str | Path],
    output: Path,
    *,
    episodes: Sequence[int],
    data_sets: int,
    seed: int,
    resamples: int,
    processes: int | None = None,
) -> None:
    """Judges policies of known value on many data sets, prints and writes how well that went.

    Every data set that is finished is kept in `output`/estimates, and the same call goes on from
    there. Of each run the first and the last checkpoint are used, with all members.

    Args:
        runs: Folders of runs; the built-in policies are there in any case.
        output: Folder to write to.
        episodes: Sizes of the data sets. The smaller data sets are the beginnings of the larger.
        data_sets: How many of each size.
        seed: Other seeds have other data sets.
        resamples: Of the bootstrap behind each interval.
        processes: How many work side by side, one thread each; the number of cores by default.

    Raises:
        InputError: An option is out of range, a run cannot be used or was trained on these very
            episodes, or `output` holds a scorecard of another configuration.
        SystemExit: Ctrl-C, with code 130.
    """
    episodes = tuple(episodes)
    processes = (os.cpu_count() or 1) if processes is None else processes
    _check_options(episodes, data_sets, seed, resamples, processes)
    first_seed = (seed + 1) * SEEDS_APART
    mdp = load_icu_sepsis()
    found = [read_run(folder) for folder in dict.fromkeys(Path(run).resolve() for run in runs)]
    _check_seeds(found, range(first_seed, first_seed + data_sets))
    policies = known_policies(mdp, found)
    judge = Judge(mdp, tuple(policies), resamples)
    configurations = {
        (size, k): judge.configuration(size, first_seed + k)
        for k, size in itertools.product(range(data_sets), sorted(episodes, reverse=True))
    }
    header = _header(configurations)
    _check_output(output, header)

    paths = {(size, k): output / "estimates" / f"{size}-{k}.npz" for size, k in configurations}
    finished = {
        key: _read(path, configurations[key]) for key, path in paths.items() if path.exists()
    }
    missing = {key: (key[0], first_seed + key[1]) for key in configurations if key not in finished}
    try:
        with progress_bar() as progress:
            task = progress.add_task("Scoring data sets", total=len(paths), completed=len(finished))

            def keep(key: tuple[int, int], estimates: Estimates) -> None:
                _write(paths[key], configurations[key], estimates)
                finished[key] = estimates
                described = f"Scoring data sets, {len(finished)} of {len(paths)} done"
                progress.update(task, completed=len(finished), description=described)

            judge_all(judge, missing, processes, keep)
    except KeyboardInterrupt:
        print(
            f"Stopped: {len(finished)} of {len(paths)} data sets are kept in "
            f"{output / 'estimates'}; the same command goes on from there.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None

    by_rule: list[RuleFigures] = []
    by_policy: list[PolicyFigures] = []
    among_runs: list[RuleFigures] = []
    of_runs = [known.is_of_a_run for known in policies]
    for size in episodes:
        estimates = Estimates.stack([finished[size, k] for k in range(data_sets)])
        by_rule += summarize_rules(size, estimates, policies)
        if sum(of_runs) > 1:  # `two_stage` has screened among all candidates
            rows = summarize_rules(
                size, estimates.of(np.array(of_runs)), list(itertools.compress(policies, of_runs))
            )
            among_runs += [row for row in rows if row.rule != "two_stage"]
        by_policy += summarize_policies(size, estimates, policies)
    figure = draw(by_policy, data_sets)
    render = picture(figure, "scorecard")
    # The first of them says whose the others are.
    files = {
        "scorecard.csv": as_csv(by_rule, header),
        "scorecard-policies.csv": as_csv(by_policy, header),
        "scorecard.png": render("png"),
        "scorecard.svg": render("svg"),
    }
    if among_runs:
        files["scorecard-runs.csv"] = as_csv(among_runs, header)
    for name, content in files.items():
        with atomic_write(output / name) as file:
            file.write(content)
    _print(by_rule, among_runs, policies)
    console = Console()
    for name in files:
        console.print(f"{output / name}", soft_wrap=True, highlight=False)
    console.print(NOT_FOR_CLINICAL_USE)


def known_policies(mdp: TabularMDP, runs: Sequence[Run]) -> list[KnownPolicy]:
    """The policies that estimators are tried on, with their exact survival.

    Two tabular policies, one that keeps to what the data know and one that believes every count,
    and two mixtures of the first with the clinician's own decisions span the range of what is
    learned from 5,000 episodes.

    Args:
        mdp: The decision process.
        runs: The first and the last checkpoint of each are used, with all members.

    Returns:
        The built-in ones, those of the runs, then random and optimum, which are no candidates.

    Raises:
        InputError: A run has no checkpoint, or one cannot be read or is of another process.
    """
    clinician = clinician_policy(mdp)
    data = collect(mdp, clinician, episodes=TRAINING_EPISODES, seed=TRAINING_SEED)
    counts = data.counts(mdp.n_states, mdp.n_actions)
    tabular = tabular_policy(mdp, counts)
    credulous = tabular_policy(mdp, counts, prior=0.0, penalty=0.0)
    mixtures = {
        f"{share} % tabular, {100 - share} % clinician": tabular.softened(
            1 - share / 100, clinician
        ).probabilities
        for share in (30, 70)
    }
    named = [
        (clinician_mode_policy(mdp), "clinician's most likely"),
        (tabular, "tabular"),
        (Policy("tabular, no prior or penalty", credulous.probabilities), "tabular"),
        *((Policy(name, table), "mixture") for name, table in mixtures.items()),
    ]
    learned = []
    left = candidates(runs)
    for run in runs:
        own = [candidate for candidate in left if candidate.run == run.folder]
        for candidate in own:
            if candidate.step in (own[0].step, own[-1].step):
                kind = candidate.label or run.folder.parent.name
                rest = candidate.name.removeprefix(candidate.label).strip()
                learned.append((Policy(f"{kind} {rest}", candidate.policy.probabilities), kind))
    outside = [(random_policy(mdp), "random"), (optimal_policy(mdp), "optimal")]
    return [
        KnownPolicy(policy, kind, evaluate(mdp, policy.probabilities).survival, *which)
        for group, *which in ((named, True), (learned, True, True), (outside, False))
        for policy, kind in group
    ]


# -- what is given and what is there ---------------------------------------------------------------


def _check_options(
    episodes: Sequence[int], data_sets: int, seed: int, resamples: int, processes: int
) -> None:
    if not episodes or min(episodes) < 1 or len(set(episodes)) < len(episodes):
        given = ",".join(map(str, episodes))
        raise InputError(
            f"--episodes {given} cannot be used; accepted: sizes of at least 1, each once, such as "
            "1000,5000,20000"
        )
    for name, value, low, high in (
        ("data_sets", data_sets, 2, SEEDS_APART),
        ("seed", seed, 0, 1_000_000),
        ("resamples", resamples, 2, 1_000_000),
        ("processes", processes, 1, 1024),
    ):
        if not low <= value <= high:
            raise InputError(f"--{name} {value} is out of range; accepted: {low} to {high:,}")


def _check_seeds(runs: Sequence[Run], taken: range) -> None:
    """No policy is judged on episodes that it was trained on, or chosen by."""
    for run in runs:
        for data in (run.data.train, run.data.held_out, run.data.report):
            if data.provenance.seed in taken:
                raise InputError(
                    f"{run.folder} has simulated data of seed {data.provenance.seed}, and the "
                    f"scorecard's are {taken[0]} to {taken[-1]}; give another --seed"
                )


def _header(configurations: dict[tuple[int, int], dict[str, Any]]) -> str:
    """First line of the tables: how to take them, and what they depend on."""
    described = json.dumps(list(configurations.values())).encode()
    return (
        f"# {NOT_FOR_CLINICAL_USE} {BEST_CASE} Deterministic policies softened by {EPSILON:g}, no "
        f"clip. Configuration {hashlib.sha256(described).hexdigest()[:16]}."
    )


def _check_output(output: Path, header: str) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is no folder; give another name")
    there = [name for name in _NAMES if (output / name).exists()]
    first = output / _NAMES[0]
    same = first.is_file() and first.read_bytes().startswith(f"{header}\n".encode())
    if there and not same:
        raise InputError(
            f"--output {output} holds {there[0]} of another configuration; accepted: the same "
            "runs and options, or another --output"
        )


def _write(path: Path, configuration: dict[str, Any], estimates: Estimates) -> None:
    arrays = {field.name: getattr(estimates, field.name) for field in dataclasses.fields(estimates)}
    with atomic_write(path) as file:
        np.savez(file, configuration=np.array(json.dumps(configuration)), **arrays)


def _read(path: Path, configuration: dict[str, Any]) -> Estimates:
    """Reads a data set's estimates back.

    Raises:
        InputError: The file is damaged, or of another configuration.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            there = json.loads(str(archive["configuration"]))
            arrays = {field.name: archive[field.name] for field in dataclasses.fields(Estimates)}
    except _UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read as a scorecard's estimates; remove it, and it is made anew"
        ) from error
    for name, wanted in configuration.items():
        if there.get(name) != wanted:
            differ = "" if name == "policies" else f" ({there.get(name)}, not {wanted})"
            raise InputError(
                f"{path} is of another configuration: it differs in {name}{differ}; accepted: the "
                "same runs and options, or another --output"
            )
    return Estimates(**arrays)


# -- screen ----------------------------------------------------------------------------------------


def _print(
    figures: Sequence[RuleFigures],
    among_runs: Sequence[RuleFigures],
    policies: Sequence[KnownPolicy],
) -> None:
    console = Console()
    named = [known for known in policies if known.is_candidate]
    best = max(named, key=lambda known: known.survival)
    worst = min(named, key=lambda known: known.survival)
    console.print(
        f"{BEST_CASE} {len(policies)} policies, of which {len(named)} can be chosen: from "
        f"{worst.policy.name} ({100 * worst.survival:.1f} %) to {best.policy.name} "
        f"({100 * best.survival:.1f} %); random and optimum cannot. What choosing costs depends on "
        "what there is to choose from.",
        highlight=False,
    )
    for _, group in itertools.groupby(figures, key=lambda row: row.episodes):
        rows = list(group)
        console.print(_table(rows))
        console.print(finding(rows), highlight=False)
        own = [row for row in among_runs if row.episodes == rows[0].episodes]
        if own:
            learned = [known.survival for known in policies if known.is_of_a_run]
            console.print(
                f"Among the {len(learned)} policies of the runs alone, {100 * min(learned):.1f} to "
                f"{100 * max(learned):.1f} %: {finding(own)}",
                highlight=False,
            )
        console.print()
    console.print(
        "In points of survival: bias, RMSE and mean width of 95 % intervals of the estimates; "
        "regret, the best policy's survival minus that of the one chosen, with its standard error; "
        "95 % interval, over data sets, of regret minus that of choosing blindly. held: intervals "
        "that hold the truth, %. rank: Spearman's correlation with the truth. Deterministic "
        f"policies softened by {EPSILON:g}, no clip.\n",
        highlight=False,
        style="italic dim",
    )


def _table(rows: Sequence[RuleFigures]) -> Table:
    first = rows[0]
    table = framed_table(
        f"{first.data_sets} data sets of {first.episodes:,} episodes",
        f"Median effective sample: {first.ess_median:.0f} episodes.",
    )
    table.add_column("chosen by", no_wrap=True)
    for column in ("bias", "RMSE", "held", "width", "rank", "regret", "minus chance"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        accuracy = row.accuracy
        table.add_row(
            ESTIMATOR_LABELS[row.rule],
            _points(accuracy.bias, "+"),
            _points(accuracy.rmse),
            _points(accuracy.coverage, digits=0),
            _points(accuracy.width),
            "" if math.isnan(row.rank_correlation) else f"{row.rank_correlation:+.2f}",
            f"{_points(row.regret, digits=2)} ± {_points(row.regret_se, digits=2)}",
            f"{_points(row.minus_chance_low, '+', 2)} to {_points(row.minus_chance_high, '+', 2)}",
            style="bold" if row.verdict == "better" else "",
            end_section=row.rule == ESTIMATORS[-1],
        )
    return table


def _points(value: float, sign: str = "", digits: int = 1) -> str:
    """A share in percent; none for what does not exist, short for what is beyond all measure."""
    if math.isnan(value):
        return ""
    points = 100 * value
    return f"{points:{sign}.{digits}f}" if abs(points) < 1000 else f"{points:{sign}.0e}"

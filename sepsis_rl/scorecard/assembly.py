"""How far estimates from recorded data alone can be trusted.

Policies whose exact value is known are judged on many simulated data sets, and every estimator of
`ope/` is held against the truth. The simulator is exactly Markov and hides nothing, so whatever is
found here is the best case.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, progress_bar, shown
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.pages import CONTENTS, files_of, html_page, list_contents, save
from sepsis_rl.runs.finished import Run, read_run
from sepsis_rl.scorecard.accuracy import Estimates, KnownPolicy, summarize_policies, summarize_rules
from sepsis_rl.scorecard.exhibits import BEST_CASE, SHOWN, TITLE, exhibits
from sepsis_rl.scorecard.judging import EPSILON, DataSet, Judge, judge_all
from sepsis_rl.scorecard.kept import (
    PAGE,
    check_output,
    hash_of,
    read_estimates,
    write_estimates,
)
from sepsis_rl.scorecard.known_policies import known_policies
from sepsis_rl.scorecard.screen import print_scorecard

SEEDS_APART: Final = 10_000_000
"""Data set k of seed s is collected with (s + 1) * SEEDS_APART + k, far from what runs train on."""


def scorecard(
    runs: Sequence[str | Path],
    output: Path,
    *,
    episodes: Sequence[int],
    data_sets: int = 200,
    seed: int = 0,
    resamples: int = 100,
    processes: int | None = None,
) -> None:
    """Judges policies of known value on many data sets, prints and writes how well that went.

    Every data set that is finished is kept in `output`/estimates, and the same call goes on from
    there. Of each run the first and the last checkpoint are used, with all members.

    Args:
        runs: Folders of runs; the built-in policies are there in any case.
        output: Folder to write to.
        episodes: Sizes of the data sets. The smaller data sets are the beginnings of the larger.
        data_sets: Number of data sets of each size.
        seed: Seed of the data sets.
        resamples: Number of bootstrap resamples behind each interval.
        processes: Number of processes side by side, one thread each; by default that of cores.

    Raises:
        InputError: An option is out of range, a run cannot be used or was trained on these very
            episodes, or `output` holds a scorecard of another configuration.
        SystemExit: Ctrl-C, with code 130.
    """
    processes = (os.cpu_count() or 1) if processes is None else processes
    _check_options(episodes, data_sets, seed, resamples, processes)
    first_seed = (seed + 1) * SEEDS_APART
    seeds = range(first_seed, first_seed + data_sets)
    mdp = load_icu_sepsis()
    found = [read_run(folder) for folder in dict.fromkeys(Path(run).resolve() for run in runs)]
    _check_seeds(found, seeds)
    policies = known_policies(mdp, found)
    judge = Judge(mdp, tuple(policies), resamples)
    paths = {
        (size, own): output / "estimates" / f"{size}-{own - first_seed}.npz"
        for own in seeds
        for size in sorted(episodes, reverse=True)
    }
    configuration = hash_of([judge.configuration(*data_set) for data_set in paths])
    check_output(output, configuration)
    finished = _judge(judge, paths, processes)
    by_rule, by_policy, among_runs = _summarize(finished, episodes, seeds, policies)
    made = exhibits(by_rule, by_policy, among_runs)
    parts = {exhibit.name: files_of(exhibit) for exhibit in made}
    about = f"{len(policies)} policies of known value, judged on simulated records. {BEST_CASE}"
    provenance = {"configuration": configuration, "softened_by": EPSILON, "clip": None}
    texts = {"title": TITLE, "about": about, "warning": NOT_FOR_CLINICAL_USE}
    files = {CONTENTS: list_contents(TITLE, about, made, **provenance)}
    for own in parts.values():
        files |= own
    files[PAGE] = html_page(made, parts, SHOWN, problems=[], **texts)
    save(output, files)
    print_scorecard(by_rule, among_runs, policies, [output / name for name in files])


def _summarize(
    finished: Mapping[DataSet, Estimates],
    episodes: Sequence[int],
    seeds: Sequence[int],
    policies: Sequence[KnownPolicy],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows by rule, by policy, and by rule among the policies of runs alone."""
    learned = [known for known in policies if known.is_of_a_run]
    by_rule, by_policy, among_runs = [], [], []
    for size in episodes:
        parts = zip(*(finished[size, own] for own in seeds), strict=True)
        estimates = Estimates(*map(np.stack, parts))
        by_rule += summarize_rules(size, estimates, policies)
        by_policy += summarize_policies(size, estimates, policies)
        if len(learned) > 1:
            is_learned = [known.is_of_a_run for known in policies]
            of_runs = Estimates(*(values[..., is_learned] for values in estimates))
            among_runs += [
                row
                for row in summarize_rules(size, of_runs, learned)
                if row["rule"] != "two_stage"  # which has screened among all candidates
            ]
    return by_rule, by_policy, among_runs


def _judge(judge: Judge, paths: Mapping[DataSet, Path], processes: int) -> dict[DataSet, Estimates]:
    """Judges the data sets whose files are not there yet, and keeps each in its file."""
    finished = {
        data_set: read_estimates(path, judge.configuration(*data_set))
        for data_set, path in paths.items()
        if path.exists()
    }
    missing = [data_set for data_set in paths if data_set not in finished]
    try:
        with progress_bar() as progress:
            bar = progress.add_task("Scoring data sets", total=len(paths), completed=len(finished))

            def keep(data_set: DataSet, estimates: Estimates) -> None:
                write_estimates(paths[data_set], judge.configuration(*data_set), estimates)
                finished[data_set] = estimates
                described = f"Scoring data sets, {len(finished)} of {len(paths)} done"
                progress.update(bar, completed=len(finished), description=described)

            judge_all(judge, missing, processes, keep)
    except KeyboardInterrupt:
        folder = next(iter(paths.values())).parent
        print(
            f"Stopped: {len(finished)} of {len(paths)} data sets are kept in {shown(folder)}; the "
            "same command goes on from there.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    return finished


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

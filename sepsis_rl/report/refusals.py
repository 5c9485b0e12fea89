"""What `lightning report` and `lightning compare` cannot use, told from plain text.

Nothing here imports PyTorch, so that it is known at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sepsis_rl.display import tell
from sepsis_rl.errors import InputError
from sepsis_rl.runs.described import SAMPLED, Description, data_differences, describe, short_name


def check_reportable(folder: Path) -> None:
    """Checks what the folder of a run says about whether the report can use it.

    Raises:
        InputError: It is no finished run, its inadmissible actions do not do what the report's do,
            or its policy samples.
    """
    run = describe(folder)
    if run.sizes is None and run.strategy != "mean":
        raise InputError(f"inadmissible actions {run.strategy} there; the report's have their mean")
    if run.settings.get("model.sampled") is True:
        raise InputError(SAMPLED)
    _check_file(run)


def left_out(folder: Path, error: InputError) -> str:
    """Says why a run is not in the report."""
    return f"{short_name(folder)} is left out: {_told(folder, error)}"


def refuse_without(usable: object, problems: Sequence[str]) -> None:
    """Raises `InputError` with all reasons if no run can be used."""
    if not usable:
        raise InputError("no run can be used:\n" + "\n".join(f"  {text}" for text in problems))


def check_any_reportable(folders: Sequence[str | Path]) -> None:
    """Names the runs that the report will leave out, as far as their folders tell.

    Raises:
        InputError: These are all of them.
    """
    usable, problems = 0, []
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        try:
            check_reportable(folder)
            usable += 1
        except InputError as error:
            problems.append(left_out(folder, error))
    refuse_without(usable, problems)
    for problem in problems:
        tell(f"Note: {problem}", error=True)


def describe_comparable(folders: Sequence[str | Path]) -> list[Description]:
    """Reads what the folders of runs say, if the runs can be compared.

    Args:
        folders: Folders of runs; one named twice counts once, and a note says so.

    Raises:
        InputError: One is no finished run, or two of them differ in their records, their states or
            in what inadmissible actions do.
    """
    named = [Path(folder).resolve() for folder in folders]
    runs: list[Description] = []
    for folder in dict.fromkeys(named):
        try:
            runs.append(describe(folder))
            _check_file(runs[0])  # whose records stand for all
        except InputError as error:
            told = _told(folder, error)
            raise InputError(f"{short_name(folder)} cannot be compared: {told}") from error
        if named.count(folder) > 1:
            tell(f"Note: {short_name(folder)} is named twice and counts once", error=True)
    for run in runs[1:]:
        both = f"{runs[0].name} and {run.name} cannot be compared"
        differs = data_differences(runs[0], run)
        if differs:
            raise InputError(
                f"{both}: they have other records, by {', '.join(differs)}; accepted: runs that "
                "were trained on the same episodes and held out the same ones"
            )
        if run.strategy != runs[0].strategy:
            raise InputError(
                f"{both}: inadmissible actions have {runs[0].strategy} in the first and "
                f"{run.strategy} in the second; accepted: runs of one evaluation.strategy"
            )
    return runs


def _check_file(run: Description) -> None:
    path = run.data.get("path")
    if path is not None and not Path(str(path)).is_file():
        raise InputError(f"data.path={path}: there is no such file")


def _told(folder: Path, error: InputError) -> str:
    """A message in which the folder, which it begins with, is not named again."""
    return str(error).replace(f"{folder} ", "it ")

"""What a scorecard keeps of each data set, so that a stopped one goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from sepsis_rl.display import NOT_FOR_CLINICAL_USE
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write
from sepsis_rl.scorecard.accuracy import Estimates
from sepsis_rl.scorecard.judging import EPSILON

BEST_CASE: Final = (
    "The simulator is exactly Markov and nothing is hidden from the estimators: this is the best "
    "case."
)
RESULTS: Final = (
    "scorecard.csv",
    "scorecard-policies.csv",
    "scorecard.png",
    "scorecard.svg",
    "scorecard-runs.csv",
)
"""Files of a finished scorecard; the first says whose the others are."""

# What reading a damaged or foreign file can raise.
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def first_comment(configurations: dict[tuple[int, int], dict[str, Any]]) -> str:
    """What the files' first line says: how to take the numbers, and what they depend on."""
    described = json.dumps(list(configurations.values())).encode()
    return (
        f"{NOT_FOR_CLINICAL_USE} {BEST_CASE} Deterministic policies softened by {EPSILON:g}, no "
        f"clip. Configuration {hashlib.sha256(described).hexdigest()[:16]}."
    )


def check_output(output: Path, comment: str) -> None:
    """Refuses a folder with results that do not begin with this comment."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is no folder; give another name")
    there = [name for name in RESULTS if (output / name).exists()]
    first = output / RESULTS[0]
    same = first.is_file() and first.read_bytes().startswith(f"# {comment}\n".encode())
    if there and not same:
        raise InputError(
            f"--output {output} holds {there[0]} of another configuration; accepted: the same "
            "runs and options, or another --output"
        )


def write_estimates(path: Path, configuration: dict[str, Any], estimates: Estimates) -> None:
    """Keeps a data set's estimates with the configuration that they depend on."""
    arrays = {field.name: getattr(estimates, field.name) for field in dataclasses.fields(estimates)}
    with atomic_write(path) as file:
        np.savez(file, configuration=np.array(json.dumps(configuration)), **arrays)


def read_estimates(path: Path, configuration: dict[str, Any]) -> Estimates:
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

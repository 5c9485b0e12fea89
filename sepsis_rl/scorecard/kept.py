"""What a scorecard keeps of each data set, so that a stopped one goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write, read_arrays
from sepsis_rl.pages import CONTENTS
from sepsis_rl.scorecard.accuracy import Estimates

PAGE: Final = "scorecard.html"
_NAMES: Final = ("scorecard", "scorecard-policies", "scorecard-runs")
_RESULTS: Final = (
    CONTENTS,
    PAGE,
    *(f"{name}.{form}" for name in _NAMES for form in ("csv", "png", "svg")),
)
"""Files of a finished scorecard; the first says whose the others are."""


def hash_of(configurations: Sequence[dict[str, Any]]) -> str:
    """A short hash of all that a scorecard's numbers depend on."""
    return hashlib.sha256(json.dumps(configurations).encode()).hexdigest()[:16]


def check_output(output: Path, configuration: str) -> None:
    """Refuses a folder with results of another configuration than that of this hash."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is no folder; give another name")
    there = [name for name in _RESULTS if (output / name).exists()]
    try:
        same = json.loads((output / CONTENTS).read_bytes())["configuration"] == configuration
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if there and not same:
        raise InputError(
            f"--output {output} holds {there[0]} of another configuration; accepted: the same "
            "runs and options, or another --output"
        )


def write_estimates(path: Path, configuration: dict[str, Any], estimates: Estimates) -> None:
    """Keeps a data set's estimates with the configuration that they depend on."""
    with atomic_write(path) as file:
        np.savez(file, configuration=np.array(json.dumps(configuration)), **estimates._asdict())


def read_estimates(path: Path, configuration: dict[str, Any]) -> Estimates:
    """Reads a data set's estimates back.

    Raises:
        InputError: The file is damaged, or of another configuration.
    """
    arrays = read_arrays(path, "a scorecard's estimates (remove it, and it is made anew)")
    try:
        there = dict(json.loads(str(arrays.pop("configuration"))))
        estimates = Estimates(**arrays)
    except (KeyError, TypeError, ValueError) as error:
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
    return estimates

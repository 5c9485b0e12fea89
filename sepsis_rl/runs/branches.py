"""A run that goes on from an earlier checkpoint than its last, or keeps another number of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write, free_path
from sepsis_rl.runs.described import FOLDER, LAST
from sepsis_rl.runs.untrusted import read_checkpoint

METRICS = "metrics.json"


def set_aside_abandoned(run: Path, path: Path, step: int) -> Path | None:
    """Moves what a run left behind after the step that it goes on from.

    Checkpoints of both branches beside each other would be taken for one run's. The last
    checkpoint becomes the one that the run goes on from, so that a kill before the next evaluation
    leaves the new branch, too, where it was.

    Args:
        run: Folder of the run.
        path: Checkpoint that the run goes on from.
        step: Optimizer steps that it has taken.

    Returns:
        `checkpoints/abandoned-<step>` with the files, or the first such name that is free; None if
        there are none.
    """
    folder, last = run / FOLDER, run / FOLDER / LAST
    if path.resolve() == last.resolve():
        return None  # a file beyond it is of a kill between two files, and is written again
    later = list(_later(folder, step))
    is_ahead = last.is_file() and _step_of(last) > step
    if is_ahead:
        later.append(last)
    if _end_of(run / METRICS) > step:
        later.append(run / METRICS)
    if not later:
        return None
    aside = free_path(folder / f"abandoned-{step}")
    aside.mkdir()
    if is_ahead:
        shutil.copy2(last, aside / LAST)  # there is a last one at every moment
        later.remove(last)
        with atomic_write(last) as copy:
            copy.write(path.read_bytes())
    for file in later:
        file.rename(aside / file.name)
    return aside


def _later(folder: Path, step: int) -> Iterator[Path]:
    for file in sorted(folder.glob("step=*.ckpt")):
        match = re.fullmatch(r"step=(\d+)\.ckpt", file.name)
        if match and int(match[1]) > step:
            yield file


def _step_of(path: Path) -> int:
    try:
        return int(read_checkpoint(path)["global_step"])
    except InputError:  # damaged: whatever it was, it is not this branch's
        return 2**63


def _end_of(path: Path) -> int:
    """The last step that a `metrics.json` tells of; -1 if there is none, or it cannot be read."""
    try:
        return int(json.loads(path.read_text())["fit"]["step"])
    except (OSError, ValueError, TypeError, KeyError):
        return -1


def keep_best(state: MutableMapping[str, Any], top_k: int, mode: str) -> None:
    """Fits what a `ModelCheckpoint` remembers of its best files to the number that it is to keep.

    Lightning looks for the worst of as many as it keeps, which one that kept more has not noted.

    Args:
        state: Its state, which is changed; the files of those that it forgets stay.
        top_k: Number that it keeps, `checkpoint.save_top_k`.
        mode: `min` or `max`.
    """
    best = state["best_k_models"]
    if 0 < top_k <= len(best):
        order = sorted(best, key=best.get, reverse=mode == "max")[:top_k]
        state["best_k_models"] = {file: best[file] for file in order}
        state["kth_best_model_path"], state["kth_value"] = order[-1], best[order[-1]]

"""Finished runs and the policies in them."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import tell
from sepsis_rl.errors import InputError
from sepsis_rl.policies import Policy
from sepsis_rl.runs.checkpoints import rebuild_algorithm
from sepsis_rl.runs.described import CONFIG, FOLDER, LAST, read_config, run_labels
from sepsis_rl.runs.untrusted import read_checkpoint


@dataclass(frozen=True, eq=False)
class Candidate:
    """A policy that a run has left.

    Attributes:
        name: Run, step and member, without what all candidates share.
        label: The run's part of the name; empty where there is one run.
        run: Folder of the run.
        checkpoint: File with the weights.
        member: Counted from 0.
        member_name: Its settings, empty for a single run.
        step: Optimizer steps that made it.
        policy: The policy, named like this.
    """

    name: str
    label: str
    run: Path
    checkpoint: Path
    member: int
    member_name: str
    step: int
    policy: Policy


@dataclass(frozen=True, eq=False)
class Run:
    """A run's folder with its config and data.

    Attributes:
        folder: `runs/<name>/version_N`.
        data: The data that the config names, loaded.
    """

    folder: Path
    data: OfflineDataModule

    def checkpoints(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Reads each checkpoint of the run once, in the order of their steps.

        Yields:
            A file and what it holds; `last.ckpt` where no numbered file has its step.

        Raises:
            InputError: There is none, or one cannot be read or was trained on other data than the
                run's config names now.
        """
        folder = self.folder / FOLDER
        steps = {
            int(match[1]): path
            for path in folder.glob("step=*.ckpt")
            if (match := re.fullmatch(r"step=(\d+)\.ckpt", path.name))
        }
        last = folder / LAST
        held = read_checkpoint(last) if last.is_file() else None
        if held is not None and steps.setdefault(held["global_step"], last) != last:
            held = None
        if not steps:
            raise InputError(f"{folder} holds no checkpoint")
        for _, path in sorted(steps.items()):
            checkpoint = held if held is not None and path == last else read_checkpoint(path)
            self._check_data(path, checkpoint)
            yield path, checkpoint

    def last_checkpoint(self) -> tuple[Path, dict[str, Any]]:
        """Reads the checkpoint that a run ended with; else as `checkpoints`."""
        path = self.folder / FOLDER / LAST
        checkpoint = read_checkpoint(path)
        self._check_data(path, checkpoint)
        return path, checkpoint

    def _check_data(self, path: Path, checkpoint: dict[str, Any]) -> None:
        ours, theirs = self.data.content_hash, checkpoint.get("OfflineDataModule", {})
        if (trained_on := theirs.get("content_hash")) not in (None, ours):
            raise InputError(
                f"checkpoint {path} was trained on other data (content hash {trained_on[:12]}) "
                f"than {self.folder / CONFIG} names ({ours[:12]})"
            )


def read_run(folder: str | Path) -> Run:
    """Reads a run's config and loads the data that it was trained on.

    Of the config only the data's plain settings are used: nothing in it is run, and nothing is
    written to the folder that it names for simulated episodes.

    Args:
        folder: `runs/<name>/version_N`.

    Raises:
        InputError: It is no run folder, or its data cannot be had.
    """
    folder = Path(folder).resolve()
    _, settings = read_config(folder)
    try:
        data = OfflineDataModule(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{folder / CONFIG}: its settings of `data` cannot be used: {error}"
        ) from error
    data.load()
    return Run(folder, data)


def candidates(runs: Sequence[Run], *, last: bool = False) -> list[Candidate]:
    """The policies of all members in all checkpoints of runs.

    Args:
        runs: The runs.
        last: Only those of each run's last checkpoint.

    Returns:
        By run, step and member; those that have diverged are left out.

    Raises:
        InputError: A run has no checkpoint, one cannot be read, or was trained on other data than
            its config names now; or nothing is left.
    """
    found = []
    for run, label in zip(runs, run_labels([run.folder for run in runs]), strict=True):
        held = run.checkpoints()
        for path, checkpoint in collections.deque(held, maxlen=1) if last else held:
            step, module = checkpoint["global_step"], rebuild_algorithm(checkpoint, path)
            for member, policy in enumerate(module.policies()):
                member_name = module.members.names[member]
                name = f"{label} step {step:,} {member_name}".strip()
                if policy is None:
                    tell(f"Note: {name} is left out: its network has diverged", error=True)
                    continue
                policy = replace(policy, name=name)
                found.append(
                    Candidate(name, label, run.folder, path, member, member_name, step, policy)
                )
    if not found:
        raise InputError("no member of the runs has a policy: all have diverged")
    return found

"""Kills runs, goes on with them, and compares their ends with those of runs left alone.

    make verify-resume CONFIG=configs/cql.yaml                                  your config, once
    make verify-resume CONFIG=my.yaml ARGS="--model.alpha 0.1" STEPS=5000
    make verify-kill N=100                                      the four kinds of runs, 100 kills

A run is killed (SIGKILL, all its processes) at a random moment before its end, while it trains,
evaluates or writes: a run of your config after its first checkpoint, the four kinds from the making
of their folders on, where those that have no checkpoint yet are started anew. Weights, target
network, optimizer, evaluations, TensorBoard's curves and `metrics.json` are compared to the bit, on
this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sepsis_rl.runs import described
from sepsis_rl.runs.untrusted import read_checkpoint

CONFIGS = Path(__file__).parent.parent / "configs"
LAST = Path(described.FOLDER, described.LAST)
# So small that a run takes seconds, of which training is a good part.
SHORT = ("--data.episodes=1000", "--evaluation.patients=1000", "--ope.resamples=20")
KINDS = {
    "rows": (CONFIGS / "essay/cql.yaml", SHORT),
    "all records": (CONFIGS / "cql.yaml", SHORT),
    "sweep of 4": (
        CONFIGS / "sweep.yaml",
        (*SHORT, "--model.alpha=[0.003,0.1]", "--model.seed=[42,7]"),
    ),
    "two processes": (
        CONFIGS / "essay/cql.yaml",
        (*SHORT, "--trainer.devices=2", "--trainer.strategy=ddp"),
    ),
}
PARTS = ("weights and target network", "optimizer", "evaluations", "TensorBoard", "metrics.json")


@dataclass
class Outcome:
    """What became of the kills of one kind of run.

    Attributes:
        kind: Its name.
        early: Kills before a first checkpoint.
        same: Identical ends, by part.
        ends: Number of ends.
    """

    kind: str
    early: int = 0
    same: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    ends: int = 0

    @property
    def holds(self) -> bool:
        """Whether all parts of all ends are identical."""
        return set(self.same.values()) == {self.ends}


class Kind:
    """A fit, run in a folder of its own each time.

    Args:
        config: File for `--config`.
        options: More words.
        steps: Of a run.
        since: File or folder in a run's own, from which on it may be killed.
        home: Where its folders are made.
    """

    def __init__(
        self, config: str | Path, options: tuple[str, ...], steps: int, since: Path, home: Path
    ) -> None:
        self.words = [
            sys.executable, "-m", "sepsis_rl", "fit", "--config", str(config), *options,
            "--trainer.max_steps", str(steps),
            "--trainer.val_check_interval", str(max(1, steps // 5)),
            "--trainer.logger.init_args.name", "verify",
            "--trainer.logger.init_args.save_dir",
        ]  # fmt: skip
        self.steps = steps
        self._since = since
        self._home = home
        self._runs = 0
        self.seconds = 0.0

    def straight(self) -> Path:
        """Folder of a run that is left alone; notes for how long it may be killed."""
        folder = self._new()
        run = self._start(folder)
        begun = time.monotonic()
        self._end(run)
        self.seconds = time.monotonic() - begun
        return folder

    def killed(self, rng: random.Random) -> tuple[Path, int | None]:
        """Kills a run and goes on with it to its end.

        Returns:
            Folder of the run that ended, and the step of the checkpoint it went on from; None
            where it had none yet.
        """
        folder = self._new()
        while True:  # until one is killed before it ends
            run = self._start(folder)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(rng.uniform(0, self.seconds))
            if run.poll() is None:
                break
            self._end(run)
            folder = self._new()
        _kill(run)
        again = [*self.words, str(folder.parents[1])]
        if not (folder / LAST).is_file():
            self._end(self._popen(again))
            return folder.with_name("version_1"), None
        step = read_checkpoint(folder / LAST)["global_step"]
        self._end(self._popen([*again, "--ckpt_path", "last"]))
        return folder, step

    def _new(self) -> Path:
        self._runs += 1
        return self._home / str(self._runs) / "verify" / "version_0"

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Starts a run and waits until it may be killed."""
        run = self._popen([*self.words, str(folder.parents[1])])
        while not (folder / self._since).exists() and run.poll() is None:
            time.sleep(0.001)
        return run

    def _popen(self, words: list[str]) -> subprocess.Popen[bytes]:
        self._home.mkdir(parents=True, exist_ok=True)
        with open(self._home / "screen", "wb") as screen:
            # With a group of its own, processes it starts for other devices are killed with it.
            return subprocess.Popen(words, stdout=screen, stderr=screen, start_new_session=True)

    def _end(self, run: subprocess.Popen[bytes]) -> None:
        try:
            status = run.wait()
        finally:
            _kill(run)
        if status:
            sys.stderr.write((self._home / "screen").read_text())
            raise subprocess.CalledProcessError(status, run.args)


def main() -> int:
    """Runs the comparison.

    Returns:
        0 where all parts are equal, 1 where one is not, 2 where a run failed.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="of the runs; without it, the four kinds")
    parser.add_argument("--steps", type=int, default=2000, help="of a run (default: 2000)")
    parser.add_argument("--kills", type=int, default=1, help="of all kinds together (default: 1)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments of the kills")
    known, options = parser.parse_known_args()
    chosen = {"run": (known.config, tuple(options))} if known.config else KINDS
    console = Console(highlight=False)
    # It warns of curves that a resumed run goes on with, which is what they are here for.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    rng = random.Random(known.seed)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as home:
        for place, (name, (config, more)) in enumerate(chosen.items()):
            kills = (known.kills + len(chosen) - 1 - place) // len(chosen)
            extra = () if known.config else (f"--data.cache_dir={home}/data", *options)
            since = LAST if known.config else Path()
            kind = Kind(config, (*more, *extra), known.steps, since, Path(home, str(place)))
            try:
                outcomes.append(_outcome(name, kind, kills, rng, console))
            except subprocess.CalledProcessError:
                return 2
    console.print(_table(outcomes))
    holds = all(outcome.holds for outcome in outcomes)
    console.print(
        "Each run that was killed is the run that was not." if holds else "The runs differ."
    )
    return 0 if holds else 1


def _outcome(name: str, kind: Kind, kills: int, rng: random.Random, console: Console) -> Outcome:
    """Runs a kind once to its end and kills it so many times."""
    outcome = Outcome(name)
    with console.status(f"{name}: a run left alone"):
        straight = kind.straight()
    console.print(f"{name}: a run of {kind.steps:,} steps left alone, {kind.seconds:.0f} s")
    for number in range(1, kills + 1):
        with console.status(f"{name}: kill {number} of {kills}"):
            run, step = kind.killed(rng)
        differences = compare(run, straight)
        outcome.ends += 1
        outcome.early += step is None
        for part in PARTS:
            outcome.same[part] += differences[part] is None
        told = [f"{part} {where}" for part, where in differences.items() if where is not None]
        since = "started anew" if step is None else f"gone on with from step {step:,}"
        console.print(f"  {number}/{kills} killed, {since}: {'; '.join(told) or 'identical'}")
    return outcome


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="Identical ends after a SIGKILL", title_justify="left")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.kind, justify="right")
    table.add_row("kills", *(str(outcome.ends) for outcome in outcomes))
    table.add_row("before a checkpoint", *(str(outcome.early) for outcome in outcomes))
    table.add_section()
    for part in PARTS:
        table.add_row(part, *(str(outcome.same[part]) for outcome in outcomes))
    return table


# -- comparing -----------------------------------------------------------------------------------


def compare(run: Path, other: Path) -> dict[str, str | None]:
    """Holds two run folders against each other.

    Returns:
        By part, where they first differ; None where they do not.
    """
    ours, theirs = _ends(run), _ends(other)
    return {part: _difference(ours[part], theirs[part], "") for part in PARTS}


def _ends(run: Path) -> dict[str, Any]:
    """What is compared of a run, by part."""
    last = read_checkpoint(run / LAST)
    return {
        "weights and target network": last["state_dict"],
        "optimizer": last["optimizer_states"],
        "evaluations": last["callbacks"]["PolicyEvaluation"],
        "TensorBoard": _curves(run),
        "metrics.json": json.loads((run / "metrics.json").read_text()),
    }


def _curves(run: Path) -> dict[str, Any]:
    """What TensorBoard shows: steps and values by sub-run and tag."""
    curves = {}
    for folder in sorted({path.parent for path in run.rglob("events.out.*")}):
        shown = EventAccumulator(str(folder)).Reload()
        for tag in shown.Tags()["scalars"]:
            points = [[event.step, repr(event.value)] for event in shown.Scalars(tag)]
            curves[f"{folder.relative_to(run)}/{tag}"] = points
    return curves


def _difference(ours: Any, theirs: Any, where: str) -> str | None:
    """Where two nested values first differ."""
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        same = ours.shape == theirs.shape and torch.equal(ours, theirs)
    elif isinstance(ours, dict) and isinstance(theirs, dict) and set(ours) == set(theirs):
        parts = (_difference(ours[key], theirs[key], f"{where}.{key}") for key in ours)
        return next((part for part in parts if part is not None), None)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        parts = (_difference(*pair, f"{where}.{index}") for index, pair in pairs)
        return next((part for part in parts if part is not None), None)
    else:
        same = ours == theirs
    return None if same else f"differ at {where.lstrip('.')}"


def _kill(run: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()


if __name__ == "__main__":
    sys.exit(main())

"""Stopping a fit between two steps."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sepsis_rl.callbacks.last_checkpoint import LastCheckpoint
from sepsis_rl.callbacks.policy_evaluation import find_callback
from sepsis_rl.display import shown, tell


class GracefulStop(pl.Callback):
    """Ends a fit between two steps, with a whole checkpoint, when a signal asks for it.

    The signals are SIGINT (Ctrl-C), SIGTERM and, under SLURM, SIGUSR1, after which the job is
    requeued. They are only noted when they come; all processes agree on the step to stop at, each
    step in a single process and each logging step in several. A second Ctrl-C ends at once.

    Lightning's own handlers end a Ctrl-C in the middle of a step, wait forever where one of two
    processes is asked, and under SLURM write their checkpoint at whatever line the signal finds.

    Args:
        command: Words that started the run, for the line that tells how to go on.
    """

    def __init__(self, command: Sequence[str] = ()) -> None:
        self.command = list(command)
        self.received: signal.Signals | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the signals; Lightning gives them back to whom they belonged after the fit."""
        if threading.current_thread() is not threading.main_thread():
            return  # only there may Python handle signals
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        if SLURMEnvironment.detect():
            signal.signal(signal.SIGUSR1, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Has the loop stop once this step is logged and, where it is due, evaluated."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # half a batch is in the gradients, which no checkpoint holds
        if trainer.global_step >= trainer.max_steps > 0:
            return  # it ends anyway
        stop = self.received is not None
        if trainer.world_size > 1:
            if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            # What the loop looks at between two batches; it has no public setter.
            trainer._signal_connector.received_sigterm = True

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Saves if it was asked to stop, and tells how to go on, whatever the reason.

        Under SLURM a job that is about to lose its place is put back into the queue.
        """
        path = _last_checkpoint(trainer)
        if isinstance(exception, SIGTERMException):
            if path is not None:
                trainer.save_checkpoint(path)
            number = self.received or signal.SIGTERM
            # The other processes end without a complaint, or the launcher would kill this one.
            exception.code = 128 + number if trainer.is_global_zero else 0
            if number == signal.SIGUSR1 and trainer.is_global_zero:
                _requeue()
        if not trainer.is_global_zero:
            return
        reason = f" by {self.received.name}" if self.received is not None else ""
        stopped = f"Stopped{reason} after step {trainer.global_step:,}."
        path = _newest_checkpoint(path)
        if path is None:
            tell(f"{stopped} There is no checkpoint to go on from.", error=True)
            return
        words = ["lightning", *_without_checkpoint(self.command), "--ckpt_path", shown(path)]
        tell(f"{stopped} To go on from {shown(path)}:\n  {shlex.join(words)}", error=True)


def _last_checkpoint(trainer: pl.Trainer) -> Path | None:
    callback = find_callback(trainer, LastCheckpoint)
    return None if callback is None else callback.path


def _newest_checkpoint(last: Path | None) -> Path | None:
    """The last checkpoint, or where it could not be written the newest beside it, if any."""
    if last is None or last.exists():
        return last
    return max(last.parent.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)


def _without_checkpoint(words: list[str]) -> list[str]:
    """Leaves out the checkpoint that a run itself went on from."""
    kept, rest = [], iter(words)
    for word in rest:
        if word == "--ckpt_path":
            next(rest, None)
        elif not word.startswith("--ckpt_path="):
            kept.append(word)
    return kept


def _requeue() -> None:
    """Puts the SLURM job back into the queue; its script goes on with `--ckpt_path last`."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        tell(f"The job was not requeued: {error}", error=True)

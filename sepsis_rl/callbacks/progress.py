"""The progress bar of a run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation, find_callback


class _SpeedColumn(TextColumn):
    """Optimizer steps per second, and after them what the task says of them."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        steps = "-" if speed is None else f"{speed:.0f}"
        return Text(f"{steps} steps/s{self.text_format if speed else ''}", style="dim")


class _TwoLines(Progress):
    """A bar with the news of the run below it, so that both fit on 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["news"], no_wrap=True, overflow="ellipsis")


class FitProgressBar(ProgressBar):
    """Step and speed, and below them the loss and the last survival with its interval.

    Lightning's own bars count the batches of an epoch and read every metric at every batch; an
    offline run is one endless epoch, and a step takes a few milliseconds. This one looks at the
    run once a second, between two steps: a thread of its own would stop the steps at any moment to
    draw, which cost a tenth of the speed.

    Args:
        refresh_s: Seconds between two looks.
    """

    def __init__(self, refresh_s: float = 1.0) -> None:
        super().__init__()
        self.refresh_s = refresh_s
        self._looked = 0.0
        self._enabled = True
        self._progress: _TwoLines | None = None

    def disable(self) -> None:
        """Called by Lightning on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Called by Lightning on the first process."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the bar."""
        if not self._enabled:
            return
        assert isinstance(pl_module, OfflineAlgorithm)
        members = len(pl_module.members)
        self._progress = _TwoLines(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            _SpeedColumn(f" of {members} members" if members > 1 else ""),
            console=Console(soft_wrap=False),
            auto_refresh=False,
            speed_estimate_period=20,
        )
        total = trainer.max_steps if trainer.max_steps > 0 else None
        name = type(pl_module).__name__
        self._progress.add_task(name, total=total, completed=trainer.global_step, news="")
        self._progress.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Looks at the run now and then."""
        if time.monotonic() - self._looked >= self.refresh_s:
            self._update(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows the evaluation."""
        self._update(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the finished bar on the screen."""
        self._update(trainer)
        self._stop()

    def on_exception(self, *args: Any) -> None:
        """Gives the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _update(self, trainer: pl.Trainer) -> None:
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(
                task, completed=trainer.global_step, news=self._news(trainer), refresh=True
            )
            self._looked = time.monotonic()

    def _news(self, trainer: pl.Trainer) -> str:
        parts = []
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None:
            parts.append(f"loss {float(loss):.4g}")
        evaluation = find_callback(trainer, PolicyEvaluation)
        if evaluation is not None and evaluation.last is not None:
            parts.append(survival_news(evaluation.last.survival_rate))
        return "  ".join(parts)


def survival_news(survival: Any) -> str:
    """Survival in a few words.

    Args:
        survival: An `Interval` of (members,); NaN for those that have diverged.

    Returns:
        Rate and interval of a single run; best, median and worst of several members.
    """
    there = ~survival.estimate.isnan()
    if not there.any():
        return "diverged"
    rate, low, high = (100 * part[there] for part in survival)
    if len(there) == 1:
        return f"survival {rate[0]:.1f} % ({low[0]:.1f}-{high[0]:.1f})"
    median = rate.quantile(0.5)  # as in the logs; torch's own median is the lower of two
    return f"survival best {rate.max():.1f}, median {median:.1f}, worst {rate.min():.1f} %"

"""What the progress bar says."""

import io
import re
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from sepsis_rl.algorithms import CQL
from sepsis_rl.callbacks import FitProgressBar, PolicyEvaluation
from sepsis_rl.callbacks import progress as progress_module
from sepsis_rl.callbacks.progress import survival_news
from sepsis_rl.metrics import Interval


def interval(*rates):
    rate = torch.tensor(rates, dtype=torch.float64)
    return Interval(rate, rate - 0.012, rate + 0.011)


def evaluated(*rates):
    evaluation = PolicyEvaluation()
    evaluation.last = SimpleNamespace(survival_rate=interval(*rates))
    return evaluation


@pytest.fixture(params=[80, 160])
def screen(monkeypatch, request):
    """A terminal of a width; what is on it as text."""
    console = Console(
        file=io.StringIO(), record=True, width=request.param, force_terminal=True, height=20
    )
    monkeypatch.setattr(progress_module, "Console", lambda **_: console)
    return console


def trainer_at(step, *, max_steps=100_000, callbacks=(), **metrics):
    return SimpleNamespace(
        global_step=step,
        max_steps=max_steps,
        callbacks=list(callbacks),
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )


def module(members=1):
    seeds = list(range(members)) if members > 1 else 0
    return CQL(seed=seeds, embedding_dim=2, hidden_dims=[2])


def show(screen, trainer, members=1):
    """The bar after a run that ended where the trainer is."""
    bar = FitProgressBar()
    bar.on_train_start(trainer, module(members))
    bar.on_train_end(trainer, module(members))
    return screen.export_text()


def test_step_speed_loss_and_survival(screen):
    trainer = trainer_at(5000, callbacks=[evaluated(0.7843)], **{"train/loss": 0.123456})
    text = show(screen, trainer)
    for part in ("CQL", "5000/100000", "steps/s", "loss 0.1235", "78.4 %", "77.2", "79.5"):
        assert part in text
    assert "…" not in text


def test_before_the_first_evaluation(screen):
    text = show(screen, trainer_at(50, callbacks=[PolicyEvaluation()]))
    assert "50/100000" in text
    assert "survival" not in text
    assert "loss" not in text


def test_a_run_without_an_end(screen):
    assert re.search(r"\b7/\?", show(screen, trainer_at(7, max_steps=-1)))


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ([0.7843], "survival 78.4 % (77.2-79.5)"),
        ([0.7, 0.9, 0.8], "survival best 90.0, median 80.0, worst 70.0 %"),
        # The median of an even number of members lies between the two in the middle.
        ([0.7, 0.9, 0.8, 0.6], "survival best 90.0, median 75.0, worst 60.0 %"),
        ([0.7, torch.nan, 0.9], "survival best 90.0, median 80.0, worst 70.0 %"),
        ([torch.nan], "diverged"),
        ([torch.nan, torch.nan], "diverged"),
    ],
)
def test_survival_in_a_few_words(rates, text):
    assert survival_news(interval(*rates)) == text


def test_the_bar_looks_at_the_run_once_a_second(screen, monkeypatch):
    now, looks = [100.0], []
    monkeypatch.setattr("sepsis_rl.callbacks.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr(FitProgressBar, "_news", lambda self, t: looks.append(t.global_step) or "")
    bar = FitProgressBar(refresh_s=1.0)
    bar.on_train_start(trainer_at(0), module())
    for step in range(1, 26):
        now[0] += 0.125
        bar.on_train_batch_end(trainer_at(step), module())
    bar.on_train_end(trainer_at(25), module())
    assert looks == [1, 9, 17, 25, 25]


def test_a_disabled_bar_is_silent(screen):
    bar, trainer = FitProgressBar(), trainer_at(50)
    bar.disable()
    bar.on_train_start(trainer, module())
    bar.on_train_batch_end(trainer, module())
    bar.on_validation_end(trainer, module())
    bar.on_train_end(trainer, module())
    assert screen.export_text() == ""


def test_an_exception_gives_the_terminal_back(screen):
    bar, trainer = FitProgressBar(), trainer_at(50)
    bar.on_train_start(trainer, module())
    live = bar._progress.live
    assert live.is_started
    bar.on_exception(trainer, module(), KeyboardInterrupt())
    assert not live.is_started


@pytest.mark.slow
def test_the_bar_of_a_run(lightning):
    """The whole of it once, with what a run hands to it."""
    options = ["--model.alpha=[0.1,0.5,1.0]", "--model.seed=42"]
    ran = lightning("fit", "sweep", *options)
    assert "10/10" in ran.out
    assert "3 members" in ran.out
    assert re.search(r"loss \d+\.\d+ .*best \d+\.\d, median \d+\.\d, worst \d+\.\d %", ran.out)
    ran = lightning("fit", "cql")
    assert re.search(r"loss \d+\.\d+ .*survival \d+\.\d % \(\d+\.\d-\d+\.\d\)", ran.out)


def test_no_bar_where_none_is_wanted(lightning):
    ran = lightning("fit", "bc", "--trainer.enable_progress_bar=false", "--trainer.max_steps=2")
    assert ran.code == 0
    assert "steps/s" not in ran.out
    assert "optimal" in ran.out

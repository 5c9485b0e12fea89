"""Which checkpoints stay, and that the last is always there to go on from."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sepsis_rl.runs.untrusted import read_checkpoint

RUN = Path("runs/cql/version_0")


def kept():
    return {path.name for path in (RUN / "checkpoints").iterdir()}


def test_the_best_by_records_stay_by_default(lightning):
    words = ("--trainer.max_steps=24", "--model.learning_rate=0.05", "--checkpoint.save_top_k=2")
    ran = lightning("fit", "cql", *words)
    assert ran.code == 0
    curves = EventAccumulator(str(RUN))
    curves.Reload()
    scores = {e.step: e.value for e in curves.Scalars("ope/supported_value")}
    assert list(scores) == [4, 8, 12, 16, 20, 24]
    assert len(set(scores.values())) == 6
    best = sorted(scores, key=scores.get)[:-3:-1]
    assert kept() == {"last.ckpt", *(f"step={step}.ckpt" for step in best)}
    told = f"step={best[0]}.ckpt has the best ope/supported_value, {scores[best[0]]:.4f}"
    assert told in ran.out
    assert read_checkpoint(RUN / "checkpoints" / "last.ckpt")["global_step"] == 24


@pytest.mark.parametrize("steps", [4, 12, 10])
def test_the_last_is_written_where_it_is_not_among_the_best(lightning, steps):
    """Lightning's own `save_last` would leave that of step 4."""
    words = ("--checkpoint.monitor=step", "--checkpoint.mode=min", "--checkpoint.save_top_k=1")
    assert lightning("fit", "cql", *words, f"--trainer.max_steps={steps}").code == 0
    assert kept() == {"last.ckpt", "step=4.ckpt"}
    assert read_checkpoint(RUN / "checkpoints" / "last.ckpt")["global_step"] == steps


def test_a_run_without_evaluations_is_saved(lightning):
    ran = lightning("fit", "cql", "--trainer.limit_val_batches=0", "--trainer.max_steps=7")
    assert ran.code == 0
    assert "has the best" not in ran.out
    assert kept() == {"last.ckpt"}
    assert read_checkpoint(RUN / "checkpoints" / "last.ckpt")["global_step"] == 7

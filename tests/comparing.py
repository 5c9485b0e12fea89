"""Holding one run folder against another."""

import json
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sepsis_rl.runs.untrusted import read_checkpoint


def last(run):
    return read_checkpoint(Path(run) / "checkpoints" / "last.ckpt")


def assert_equal(ours, theirs, where="", tolerance=0.0):
    """Nested values, tensors and all; to the bit, or numbers up to a tolerance."""
    if isinstance(theirs, torch.Tensor):
        if tolerance:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
        else:
            assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key in theirs:
            assert_equal(ours[key], theirs[key], f"{where}.{key}", tolerance)
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(*pair, f"{where}.{index}", tolerance)
    elif tolerance and isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=tolerance), where
    else:
        assert ours == theirs, where


def assert_same_state(run, other):
    """Weights, target, optimizer and the story of the evaluations."""
    ours, theirs = last(run), last(other)
    for part in ("global_step", "state_dict", "optimizer_states", "hyper_parameters"):
        assert_equal(ours[part], theirs[part], part)
    assert_equal(ours["callbacks"]["PolicyEvaluation"], theirs["callbacks"]["PolicyEvaluation"])


def scalars(run):
    """What TensorBoard shows: (step, value) by tag, of the run and of each member."""
    curves = {}
    for folder in {path.parent for path in Path(run).rglob("events.out.*")}:
        shown = EventAccumulator(str(folder))
        shown.Reload()
        for tag in shown.Tags()["scalars"]:
            points = [(event.step, event.value) for event in shown.Scalars(tag)]
            curves[folder.relative_to(run).as_posix(), tag] = points
    return curves


def age(run):
    """Dates a stopped run's event files back: TensorBoard reads them in the order of their names.

    Names count in seconds, and tests go on within one.
    """
    for path in Path(run).rglob("events.out.*"):
        path.rename(path.with_name(re.sub(r"tfevents\.\d+", "tfevents.1000000000", path.name)))


def story(run):
    """The evaluations in `metrics.json`."""
    return json.loads((Path(run) / "metrics.json").read_text())["fit"]["evaluations"]

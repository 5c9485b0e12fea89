"""`make verify-resume` and `verify-kill`: runs killed, gone on with and compared."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "verify_resume.py"
VERDICT = "Each run that was killed is the run that was not."


@pytest.fixture
def verify(script):
    return script("verify_resume")


def nested(weight=1.0, step=3.0, extra=None):
    moments = {"step": torch.tensor(step), "exp_avg": torch.full((2,), weight)}
    return {"state": {0: moments}, "groups": [{"lr": 1e-3, **(extra or {})}]}


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (nested(weight=1.0 + 2e-7), "state.0.exp_avg"),
        (nested(step=4.0), "state.0.step"),
        (nested(extra={"fused": True}), "groups.0"),
        ({**nested(), "groups": []}, "groups"),
        ({"state": {}}, ""),
    ],
)
def test_the_first_difference_is_named(verify, other, where):
    assert verify._difference(nested(), nested(), "") is None
    assert verify._difference(nested(), other, "") == f"differ at {where}"


def checked(cwd, *words):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=cwd, capture_output=True, text=True
    )


def test_an_end_that_is_another_is_told(verify, finished_runs, tmp_path):
    ours, theirs = finished_runs / "runs" / "cql" / "version_0", tmp_path / "theirs"
    shutil.copytree(ours, theirs)
    assert verify.compare(ours, theirs) == dict.fromkeys(verify.PARTS)
    metrics = json.loads((theirs / "metrics.json").read_text())
    metrics["fit"]["step"] += 1
    (theirs / "metrics.json").write_text(json.dumps(metrics))
    checkpoint = torch.load(theirs / verify.LAST, weights_only=True)
    checkpoint["optimizer_states"][0]["state"][0]["step"] += 1
    torch.save(checkpoint, theirs / verify.LAST)
    for path in (theirs / "clinician").iterdir():
        path.unlink()
    told = verify.compare(ours, theirs)
    assert told["metrics.json"] == "differ at fit.step"
    assert told["optimizer"] == "differ at 0.state.0.step"
    assert told["TensorBoard"] is not None
    assert told["weights and target network"] is told["evaluations"] is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_comparison_of_a_run(small, tmp_path):
    words = ["--config", str(ROOT / "configs" / "bc.yaml"), *small, "--steps", "300", "--seed", "1"]
    ran = checked(tmp_path, *words, "--kills", "2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == VERDICT
    assert ran.stdout.count(": identical") == 2
    assert list(tmp_path.glob("runs")) == []


@pytest.mark.slow
def test_a_run_that_fails_has_no_verdict(tmp_path):
    ran = checked(tmp_path, "--config", "nowhere.yaml")
    assert ran.returncode == 2
    assert VERDICT not in ran.stdout
    assert "nowhere.yaml" in ran.stderr
    assert "Traceback" not in ran.stderr

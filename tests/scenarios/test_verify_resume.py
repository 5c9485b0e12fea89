"""`make verify-resume`: a user's own config, killed, gone on with and compared."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "verify_resume.py"
VERDICT = "The run that was killed is the run that was not."


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("verify_resume", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
def test_the_first_difference_is_named(script, other, where):
    assert script._difference(nested(), nested(), "") is None
    assert script._difference(nested(), other, "") == f"differ at {where}"


@pytest.mark.slow
def test_the_comparison_of_a_run(small, records, tmp_path):
    words = ["--config", str(ROOT / "configs" / "bc.yaml"), *small, "--steps", "300", "--seed", "1"]
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == VERDICT
    assert ran.stdout.count("equal to the bit") == 3
    assert list(tmp_path.glob("runs")) == []


@pytest.mark.slow
def test_a_run_that_fails_has_no_verdict(tmp_path):
    words = ["--config", "nowhere.yaml"]
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert VERDICT not in ran.stdout
    assert "nowhere.yaml" in ran.stderr
    assert "Traceback" not in ran.stderr

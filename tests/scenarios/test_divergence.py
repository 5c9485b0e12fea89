"""A network whose scores are no numbers any more has no policy, and none is made up for it."""

import json
import math
from pathlib import Path

import pytest
from comparing import scalars

WILD = ["--trainer.gradient_clip_val=null", "--trainer.max_steps=8"]
RATES = "--model.learning_rate=[0.0003,1e30]"


def story(run):
    return json.loads((Path(run) / "metrics.json").read_text())["fit"]


@pytest.mark.slow
def test_one_of_several(lightning):
    """The others are told as if it were not there."""
    members = ["--model.alpha=1.0", "--model.seed=3"]
    ran = lightning("fit", "sweep", *members, RATES, *WILD)
    assert ran.code == 0
    assert "Note: diverged at step 8, without a policy: CQL learning_rate=1e+30" in ran.err
    assert "Diverged, without a policy: CQL learning_rate=1e+30" in ran.out
    told = story("runs/sweep/version_0")
    assert told["diverged"] == ["CQL learning_rate=1e+30"]
    assert "CQL learning_rate=0.0003" in told["policies"]
    assert "CQL learning_rate=1e+30" not in {*told["policies"], *told["off_policy"]["policies"]}
    healthy, lost = told["evaluations"][-1]["members"]
    assert 0.7 < healthy["survival_exact"] < 0.9
    assert all(math.isnan(value) for value in lost.values())
    curves = scalars("runs/sweep/version_0")
    for key in ("Survival/exact", "ope/fqe"):
        assert 0.5 < curves[".", key][-1][1] < 1, key

    ran = lightning("predict", "sweep", *members, RATES, "--ckpt_path=last", "--member=1")
    assert ran.code == 2
    assert "its network has diverged" in ran.err
    ran = lightning.main("select", "runs/sweep/version_0")
    assert ran.code == 0
    assert "step 8 learning_rate=1e+30 is left out" in ran.err


def test_all_of_them(lightning):
    ran = lightning("fit", "cql", "--model.learning_rate=1e30", *WILD)
    assert ran.code == 0
    assert "Diverged, without a policy: CQL" in ran.out
    assert "optimal" in ran.out
    for command in ("select", "report"):
        more = ["--output=report"] if command == "report" else []
        ran = lightning.main(command, "runs/cql/version_0", *more)
        assert ran.code == 2, command
        assert "diverged" in ran.err, command
        assert "Traceback" not in ran.err, command
    assert not Path("report").exists()


def test_a_policy_that_samples(lightning):
    ran = lightning("fit", "bc", "--model.sampled=true", "--model.learning_rate=1e38", *WILD)
    assert ran.code == 0
    assert "Diverged, without a policy: BC" in ran.out

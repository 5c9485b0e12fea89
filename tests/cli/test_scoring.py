"""`lightning validate`, `test` and `predict`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from run_folders import BASELINES, MEMBERS, assert_refused, files, read_json

from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.finished import read_run


def test_scores_stand_beside_those_of_the_fit(runs, lightning):
    """Validation repeats the last evaluation, a test meets others; nothing else is touched."""

    def others():
        paths = (path for path in runs.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in paths if path.name != "metrics.json"}

    before = others()
    fit = read_json(runs / "cql/version_0/metrics.json")["fit"]
    for command in ("validate", "test"):
        ran = lightning(command, "cql", "--ckpt_path=last")
        assert (ran.code, ran.err) == (0, "")
        for name in ("CQL", *BASELINES):
            assert f"\n {name}" in ran.out
        assert "runs/cql/version_0" in ran.out
    assert others() == before
    content = read_json(runs / "cql/version_0/metrics.json")
    assert content["fit"] == fit
    assert content["validate"]["last.ckpt"]["policies"] == fit["policies"]
    tested = content["test"]["last.ckpt"]["policies"]
    assert list(tested) == ["CQL", *BASELINES]
    for name, values in tested.items():
        assert values["survival_exact"] == fit["policies"][name]["survival_exact"]
        assert values["episode_length"] != fit["policies"][name]["episode_length"]


def test_an_earlier_checkpoint_is_scored_as_itself(runs, lightning):
    path = runs / "bc" / "version_0" / "checkpoints" / "step=4.ckpt"
    history = read_json(runs / "bc/version_0/metrics.json")["fit"]["evaluations"]
    assert history[0]["members"] != history[-1]["members"]
    assert lightning("validate", "bc", f"--ckpt_path={path}").code == 0
    scores = read_json(runs / "bc/version_0/metrics.json")["validate"]["step=4.ckpt"]["policies"]
    assert history[0]["members"][0].items() <= scores["BC"].items()


def read_policy(path):
    """Header and rows of a policy's table."""
    table = pd.read_csv(path)
    return list(table), table.to_numpy()


def test_predict_writes_the_policy(runs, lightning, mdp):
    before = files(runs)
    ran = lightning("predict", "cql", "--ckpt_path=last")
    assert (ran.code, ran.err) == (0, "")
    path = runs / "cql" / "version_0" / "policy.csv"
    assert ran.out == "Policy of 716 states: runs/cql/version_0/policy.csv\n"
    assert files(runs) == sorted([*before, "cql/version_0/policy.csv", "cql/version_0/policy.json"])
    header, rows = read_policy(path)
    assert header == [
        "state",
        "action",
        "iv_fluid_level",
        "vasopressor_level",
        "supported",
        "sofa_score",
        *(f"q_{action}" for action in range(25)),
    ]
    assert rows.shape == (716, 31)
    state, action, iv_fluid, vasopressor, supported, sofa = rows.T[:6]
    assert (state == np.arange(716)).all()
    module = load_algorithm(runs / "cql" / "version_0" / "checkpoints" / "last.ckpt")
    assert (action == module.policies()[0].actions).all()
    # Nine digits tell a float32 apart from its neighbors.
    assert (rows[:, 6:].astype(np.float32) == module.q_network.table()[0].numpy()).all()
    assert (action == 5 * iv_fluid + vasopressor).all()
    assert set(iv_fluid) | set(vasopressor) <= set(range(5))
    np.testing.assert_allclose(sofa, mdp.sofa_scores, rtol=1e-5)
    seen = read_run(runs / "cql" / "version_0").data.pair_counts > 0
    assert (supported == seen[state.astype(int), action.astype(int)]).all()
    assert set(supported) == {0, 1}


def test_the_policy_of_a_member_is_picked(runs, lightning):
    module = load_algorithm(runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt")
    members = ("--model.alpha=[0.1,1.0]", "--model.seed=[42,7]")
    for member in (0, 2):
        path = f"member-{member}.csv"
        options = [f"--member={member}", f"--output={path}", "--ckpt_path=last"]
        assert lightning("predict", "sweep", *members, *options).code == 0
        _, rows = read_policy(path)
        np.testing.assert_allclose(rows[:, 6:], module.q_network.table()[member], rtol=1e-6)
        assert (rows[:, 1] == module.policies()[member].actions).all()
        settings = json.loads(Path(path).with_suffix(".json").read_text())["settings"]
        assert f"alpha={settings['alpha']:g},seed={settings['seed']}" == MEMBERS[member]
    ran = lightning("predict", "sweep", *members, "--member=4", "--ckpt_path=last")
    assert_refused(ran, "member", "3")

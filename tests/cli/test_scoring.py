"""`lightning validate`, `test` and `predict`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from run_folders import BASELINES, MEMBERS, assert_refused, files, read_json

from sepsis_rl.data import Transitions
from sepsis_rl.runs.checkpoints import load_algorithm


def test_validate_repeats_the_last_evaluation(runs, lightning):
    before = files(runs)
    fit = read_json(runs / "cql/version_0/metrics.json")["fit"]
    ran = lightning("validate", "cql", "--ckpt_path=last")
    assert (ran.code, ran.err) == (0, "")
    assert files(runs) == before
    content = read_json(runs / "cql/version_0/metrics.json")
    assert content["fit"] == fit
    assert content["validate"]["last.ckpt"]["policies"] == fit["policies"]
    for name in ["CQL", *BASELINES]:
        assert f"\n {name}" in ran.out
    assert "runs/cql/version_0" in ran.out


def test_test_meets_other_patients(runs, lightning):
    before = files(runs)
    ran = lightning("test", "cql", "--ckpt_path=last")
    assert (ran.code, ran.err) == (0, "")
    assert files(runs) == before
    content = read_json(runs / "cql/version_0/metrics.json")
    validated, tested = content["fit"]["policies"], content["test"]["last.ckpt"]["policies"]
    assert list(tested) == ["CQL", *BASELINES]
    for name, values in tested.items():
        assert values["survival_exact"] == validated[name]["survival_exact"]
        assert values["episode_length"] != validated[name]["episode_length"]


def test_an_earlier_checkpoint_is_scored_as_itself(runs, lightning):
    path = runs / "bc" / "version_0" / "checkpoints" / "step=4.ckpt"
    history = read_json(runs / "bc/version_0/metrics.json")["fit"]["evaluations"]
    assert history[0]["members"] != history[-1]["members"]
    assert lightning("validate", "bc", f"--ckpt_path={path}").code == 0
    scores = read_json(runs / "bc/version_0/metrics.json")["validate"]["step=4.ckpt"]["policies"]
    assert history[0]["members"][0].items() <= scores["BC"].items()


def test_scores_of_several_checkpoints_stand_side_by_side(runs, lightning):
    folder = runs / "cql" / "version_0"
    for name in ("step=4.ckpt", "last.ckpt"):
        path = folder / "checkpoints" / name
        assert lightning("test", "cql", f"--ckpt_path={path}").code == 0
    content = read_json(folder / "metrics.json")
    assert set(content) == {"fit", "test"}
    assert set(content["test"]) == {"step=4.ckpt", "last.ckpt"}


def test_scoring_changes_no_checkpoint(runs, lightning):
    folder = runs / "cql" / "version_0" / "checkpoints"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for command in ("validate", "test", "predict"):
        assert lightning(command, "cql", "--ckpt_path=last").code == 0
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def read_policy(path):
    """Header and rows of a policy's table."""
    table = pd.read_csv(path)
    return list(table), table.to_numpy()


def test_predict_writes_the_policy(runs, lightning, mdp):
    before = files(runs)
    ran = lightning("predict", "cql", "--ckpt_path=last")
    assert (ran.code, ran.err) == (0, "")
    path = runs / "cql" / "version_0" / "policy.csv"
    assert str(path) in ran.out
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
    np.testing.assert_allclose(rows[:, 6:], module.q_network.table()[0], rtol=1e-6)
    assert (action == 5 * iv_fluid + vasopressor).all()
    assert set(iv_fluid) | set(vasopressor) <= set(range(5))
    np.testing.assert_allclose(sofa, mdp.sofa_scores, rtol=1e-5)
    assert set(supported) == {0, 1}


def test_supported_is_what_the_training_episodes_have(runs, lightning, tmp_path, records):
    assert lightning("predict", "cql", "--ckpt_path=last").code == 0
    _, rows = read_policy(runs / "cql" / "version_0" / "policy.csv")
    (path,) = records.glob("*_200-episodes_*")
    train = Transitions.load(path)
    seen = set(zip(train.observation.tolist(), train.action.tolist(), strict=True))
    assert [(s, a) in seen for s, a in rows[:, :2].astype(int).tolist()] == rows[:, 4].astype(
        bool
    ).tolist()


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


def test_the_policy_of_behavior_cloning_has_its_logits(runs, lightning):
    assert lightning("predict", "bc", "--ckpt_path=last").code == 0
    _, rows = read_policy(runs / "bc" / "version_0" / "policy.csv")
    module = load_algorithm(runs / "bc" / "version_0" / "checkpoints" / "last.ckpt")
    np.testing.assert_allclose(rows[:, 6:], module.q_network.table()[0], rtol=1e-6)


def test_a_masked_policy_is_exported_masked(runs, lightning):
    """Of the actions that the data has in a state, the one of the highest score."""
    options = ["--ckpt_path=last", "--model.min_action_count=1"]
    assert lightning("predict", "cql", *options).code == 0
    _, rows = read_policy(runs / "cql" / "version_0" / "policy.csv")
    assert lightning("predict", "cql", "--ckpt_path=last").code == 0
    _, free = read_policy(runs / "cql" / "version_0" / "policy-1.csv")
    assert rows[:, 4].mean() > 0.5 > free[:, 4].mean()
    assert np.isfinite(rows[:, 6:]).all()


def test_an_existing_policy_is_not_overwritten(runs, lightning):
    path = runs / "cql" / "version_0" / "policy.csv"
    path.write_text("mine")
    assert lightning("predict", "cql", "--ckpt_path=last").code == 0
    assert path.read_text() == "mine"
    assert path.with_name("policy-1.csv").is_file()

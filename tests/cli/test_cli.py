"""The commands: what they write, what they say, and how they refuse."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sepsis_rl
from sepsis_rl.algorithms import BC, CQL
from sepsis_rl.data import Transitions
from sepsis_rl.runs.untrusted import read_checkpoint

CONFIGS = Path(__file__).parents[2] / "configs"
BASELINES = ["random", "clinician", "clinician's most likely", "tabular", "optimal"]
COMMANDS = ["fit", "validate", "test", "predict", "select", "report", "collect", "export"]
EVALUATED_AT = [4, 8, 10]  # every 4 steps, and at the end of 10

TRAIN = {
    "bc": ["loss", "imitation_loss", "grad_norm"],
    "dqn": ["loss", "td_loss", "q_data", "q_max", "grad_norm"],
    "cql": ["loss", "td_loss", "conservative_loss", "q_data", "q_max", "grad_norm"],
}
VAL = [
    "loss",
    "survival_rate",
    "survival_rate_low",
    "survival_rate_high",
    "survival_exact",
    "episode_length",
    "clinician_agreement",
    "unsupported_rate",
    "inadmissible_rate",
]
OPE = {
    "ope/fqe",
    "ope/fqe_zero",
    *(f"ope/{name}{end}" for name in ("wis", "wdr") for end in ("", "_low", "_high")),
    "ope/ess",
    "ope/ess_share",
    "ope/largest_weight",
    "ope/unseen_rate",
}
MEMBERS = ["alpha=0.1,seed=42", "alpha=0.1,seed=7", "alpha=1,seed=42", "alpha=1,seed=7"]


def files(folder):
    """Every file and empty folder below, with the random part of event files left out."""
    paths = [p for p in Path(folder).rglob("*") if p.is_file() or not any(p.iterdir())]
    names = [p.relative_to(folder).as_posix() for p in paths]
    return sorted(name.split(".tfevents.")[0] for name in names)


def read_json(path):
    """Strict JSON: no NaN."""
    return json.loads(Path(path).read_text(), parse_constant=pytest.fail)


def events(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def steps(accumulator, tag):
    return [event.step for event in accumulator.Scalars(tag)]


def load(module, checkpoint):
    """The module of a checkpoint, without a Trainer."""
    module.build(716, 25)
    module.load_state_dict(checkpoint["state_dict"])
    return module


# -- fit ---------------------------------------------------------------------------------------

RUN_FOLDER = [
    "checkpoints/last.ckpt",
    "checkpoints/step=10.ckpt",
    "checkpoints/step=4.ckpt",
    "checkpoints/step=8.ckpt",
    "config.yaml",
    "events.out",
    "metrics.json",
]


@pytest.mark.parametrize("config", ["cql", "dqn", "bc", "sweep"])
def test_a_run_folder_is_what_it_should_be(finished_runs, config):
    members = MEMBERS if config == "sweep" else []
    expected = [*RUN_FOLDER, *(f"members/{name}/events.out" for name in members)]
    assert files(finished_runs / "runs" / config) == sorted(f"version_0/{n}" for n in expected)


def test_a_run_writes_nowhere_else(finished_runs):
    assert [path.name for path in finished_runs.iterdir()] == ["runs"]


@pytest.mark.parametrize("config", ["cql", "dqn", "bc"])
def test_curves_have_the_keys_of_the_design_over_optimizer_steps(finished_runs, config):
    curves = events(finished_runs / "runs" / config / "version_0")
    train = {f"train/{name}" for name in TRAIN[config]}
    val = {f"val/{name}" for name in VAL} | (set() if config == "bc" else {"val/value_estimate"})
    assert set(curves.Tags()["scalars"]) == train | val | OPE
    for tag in train:
        assert steps(curves, tag) == [2, 4, 6, 8, 10], tag
    for tag in val | OPE:
        assert steps(curves, tag) == EVALUATED_AT, tag
    assert [image.step for image in curves.Images("policy/doses")] == EVALUATED_AT


def test_members_are_sub_runs_with_the_same_tags(finished_runs):
    """And the run itself has their medians."""
    run = finished_runs / "runs" / "sweep" / "version_0"
    whole, parts = events(run), [events(run / "members" / name) for name in MEMBERS]
    val = {f"val/{name}" for name in [*VAL, "value_estimate"]}
    tags = {f"train/{name}" for name in TRAIN["cql"]} | val | OPE
    assert set(whole.Tags()["scalars"]) == tags
    for part in parts:
        assert set(part.Tags()["scalars"]) == tags
        assert [image.step for image in part.Images("policy/doses")] == EVALUATED_AT
    for tag in tags:
        values = np.array([[e.value for e in part.Scalars(tag)] for part in parts])
        assert all(steps(part, tag) == steps(whole, tag) for part in parts)
        median = np.median(values, axis=0)
        np.testing.assert_allclose([e.value for e in whole.Scalars(tag)], median, rtol=1e-5)
    losses = {part.Scalars("train/loss")[-1].value for part in parts}
    assert len(losses) == len(MEMBERS)


@pytest.mark.parametrize("config", ["cql", "bc", "sweep"])
def test_the_figures_of_a_run_are_in_a_file(finished_runs, config):
    run = finished_runs / "runs" / config / "version_0"
    fit = read_json(run / "metrics.json")["fit"]
    learned = {"cql": ["CQL"], "bc": ["BC"], "sweep": [f"CQL {name}" for name in MEMBERS]}[config]
    assert list(fit["policies"]) == [*learned, *BASELINES]
    assert fit["step"] == 10
    assert fit["inadmissible_actions"] == "mean"
    assert [entry["step"] for entry in fit["evaluations"]] == EVALUATED_AT
    for member, name in enumerate(learned):
        # The last policy was evaluated at the last step, on the same patients.
        last = fit["evaluations"][-1]["members"][member]
        assert all(last[key] == fit["policies"][name][key] for key in VAL if key != "loss")
    curves = events(run if config != "sweep" else run / "members" / MEMBERS[0])
    for key in VAL[1:]:
        logged = [event.value for event in curves.Scalars(f"val/{key}")]
        held = [entry["members"][0][key] for entry in fit["evaluations"]]
        np.testing.assert_allclose(logged, held, rtol=1e-6)


def test_exact_figures_are_the_known_ones(finished_runs):
    policies = read_json(finished_runs / "runs/cql/version_0/metrics.json")["fit"]["policies"]
    for name, survival, length in (
        ("random", 0.7801, 9.46),
        ("clinician", 0.7818, 9.24),
        ("clinician's most likely", 0.7868, 8.85),
        ("optimal", 0.8751, 10.99),
    ):
        assert policies[name]["survival_exact"] == pytest.approx(survival, abs=1e-4)
        assert policies[name]["length_exact"] == pytest.approx(length, abs=0.006)


def test_evaluations_and_checkpoints_come_together(lightning):
    """At every interval, once; the newest three are kept."""
    assert lightning("fit", "cql", "--trainer.max_steps=20").code == 0
    run = Path("runs/cql/version_0")
    history = read_json(run / "metrics.json")["fit"]["evaluations"]
    assert [entry["step"] for entry in history] == [4, 8, 12, 16, 20]
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["last.ckpt", "step=12.ckpt", "step=16.ckpt", "step=20.ckpt"]
    last, newest = (read_checkpoint(run / "checkpoints" / n) for n in ("last.ckpt", "step=20.ckpt"))
    assert last["global_step"] == newest["global_step"] == 20
    assert all(torch.equal(v, newest["state_dict"][k]) for k, v in last["state_dict"].items())
    assert read_checkpoint(run / "checkpoints" / "step=12.ckpt")["global_step"] == 12


def test_a_run_shorter_than_the_interval_is_evaluated_and_saved(lightning):
    assert lightning("fit", "bc", "--trainer.max_steps=3").code == 0
    run = Path("runs/bc/version_0")
    assert [e["step"] for e in read_json(run / "metrics.json")["fit"]["evaluations"]] == [3]
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 3


def test_a_second_run_leaves_the_first_alone(runs, lightning):
    first = {p: p.read_bytes() for p in (runs / "cql").rglob("*") if p.is_file()}
    assert lightning("fit", "cql", "--trainer.max_steps=2").code == 0
    assert (runs / "cql" / "version_1" / "checkpoints" / "last.ckpt").is_file()
    assert {p: p.read_bytes() for p in first} == first


def test_a_fit_ends_with_a_table(lightning):
    ran = lightning("fit", "sweep", "--model.alpha=[0.5,2.0]", "--model.seed=1")
    lines = ran.out[: ran.out.index("From recorded data alone")].splitlines()
    policies = read_json("runs/sweep/version_0/metrics.json")["fit"]["policies"]
    assert list(policies) == ["CQL alpha=0.5", "CQL alpha=2", *BASELINES]
    rows = [line for line in lines if line.strip().startswith(tuple(policies))]
    assert len(rows) == len(policies)
    for row, (name, values) in zip(rows, policies.items(), strict=True):
        assert row.strip().startswith(name)
        numbers = row.replace(name, "", 1)
        percent = {
            key: f"{100 * values[key]:.1f}"
            for key in ("survival_rate", "survival_rate_low", "survival_rate_high")
        }
        assert f"{100 * values['survival_exact']:.2f}" in numbers
        assert (
            f"{percent['survival_rate']} ({percent['survival_rate_low']}–"
            f"{percent['survival_rate_high']})"
        ) in numbers
        assert f"{100 * values['difference']:+.1f}" in numbers
        assert numbers.rstrip().endswith(f"{values['length_exact']:.2f}")
    head = ran.out[: ran.out.index("CQL alpha=0.5")]
    assert "inadmissible actions: mean" in head
    assert "200 simulated patients" in head
    assert "runs/sweep/version_0" in ran.out
    assert "tensorboard --logdir runs" in ran.out
    assert ran.err == ""


def test_the_table_fits_a_terminal(lightning, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ran = lightning("fit", "cql", "--trainer.max_steps=2")
    assert "…" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_strategy_is_what_is_evaluated_and_named(lightning):
    ran = lightning("fit", "bc", "--evaluation.strategy=terminate", "--trainer.max_steps=2")
    fit = read_json("runs/bc/version_0/metrics.json")["fit"]
    assert "inadmissible actions: terminate" in ran.out
    assert fit["inadmissible_actions"] == "terminate"
    assert fit["policies"]["clinician"]["survival_exact"] == pytest.approx(0.416, abs=5e-4)
    assert fit["policies"]["random"]["survival_exact"] == pytest.approx(0.008, abs=5e-4)


def test_a_mask_keeps_the_policy_to_what_the_data_has(lightning):
    options = ["--model.min_action_count=1", "--trainer.max_steps=2"]
    assert lightning("fit", "cql", *options).code == 0
    masked = read_json("runs/cql/version_0/metrics.json")["fit"]["policies"]["CQL"]
    assert lightning("fit", "cql", options[1]).code == 0
    free = read_json("runs/cql/version_1/metrics.json")["fit"]["policies"]["CQL"]
    # States that the data does not have keep all actions.
    assert masked["unsupported_rate"] < 0.2 < 0.6 < free["unsupported_rate"]


# -- validate, test, predict -------------------------------------------------------------------


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
    """Header and rows of a policy's table; what comes before them is a comment."""
    lines = [line for line in Path(path).read_text().splitlines() if not line.startswith("#")]
    header, *rows = csv.reader(lines)
    return header, np.array(rows, dtype=float)


def test_predict_writes_the_policy(runs, lightning, mdp):
    before = files(runs)
    ran = lightning("predict", "cql", "--ckpt_path=last")
    assert (ran.code, ran.err) == (0, "")
    path = runs / "cql" / "version_0" / "policy.csv"
    assert str(path) in ran.out
    assert files(runs) == sorted([*before, "cql/version_0/policy.csv"])
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
    checkpoint = read_checkpoint(runs / "cql" / "version_0" / "checkpoints" / "last.ckpt")
    module = load(CQL(embedding_dim=8, hidden_dims=[16]), checkpoint)
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
    checkpoint = read_checkpoint(runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt")
    module = CQL(alpha=[0.1, 1.0], seed=[42, 7], embedding_dim=8, hidden_dims=[16])
    load(module, checkpoint)
    members = ("--model.alpha=[0.1,1.0]", "--model.seed=[42,7]")
    for member in (0, 2):
        path = f"member-{member}.csv"
        options = [f"--member={member}", f"--output={path}", "--ckpt_path=last"]
        assert lightning("predict", "sweep", *members, *options).code == 0
        _, rows = read_policy(path)
        np.testing.assert_allclose(rows[:, 6:], module.q_network.table()[member], rtol=1e-6)
        assert (rows[:, 1] == module.policies()[member].actions).all()
        assert MEMBERS[member] in Path(path).read_text().splitlines()[0]
    ran = lightning("predict", "sweep", *members, "--member=4", "--ckpt_path=last")
    assert_refused(ran, "member", "3")


def test_the_policy_of_behavior_cloning_has_its_logits(runs, lightning):
    assert lightning("predict", "bc", "--ckpt_path=last").code == 0
    _, rows = read_policy(runs / "bc" / "version_0" / "policy.csv")
    checkpoint = read_checkpoint(runs / "bc" / "version_0" / "checkpoints" / "last.ckpt")
    module = load(BC(embedding_dim=8, hidden_dims=[16]), checkpoint)
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


# -- collect and export ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["clinician", "random", "epsilon_clinician"])
def test_collect_writes_a_data_set_that_fit_takes(lightning, policy):
    words = ["--episodes=40", "--seed=3", f"--policy={policy}"]
    ran = lightning.main("collect", *words, "--output=a.npz")
    assert (ran.code, ran.err) == (0, "")
    data = Transitions.load("a.npz")
    assert data.n_episodes == 40
    assert data.provenance.seed == 3
    for text in ("a.npz", "40 episodes", f"{len(data)} transitions"):
        assert text in ran.out
    assert lightning.main("collect", *words, "--output=b.npz").code == 0
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    assert lightning("fit", "cql", "--data.path=a.npz", "--trainer.max_steps=2").code == 0
    checkpoint = read_checkpoint("runs/cql/version_0/checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 2


def test_a_member_becomes_a_checkpoint_of_its_own(runs, lightning):
    source = runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt"
    words = [f"--ckpt_path={source}", "--member=2", "--output=one.ckpt"]
    assert lightning.main("export", *words).code == 0
    options = ["--model.alpha=1.0", "--model.seed=42", "--ckpt_path=one.ckpt"]
    ran = lightning("validate", "cql", *options)
    assert (ran.code, ran.err) == (0, "")
    sweep = read_json(runs / "sweep/version_0/metrics.json")["fit"]["policies"]
    one = read_json("metrics.json")["validate"]["one.ckpt"]["policies"]
    assert one["CQL"] == pytest.approx(sweep[f"CQL {MEMBERS[2]}"])


# -- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_command(lightning, words):
    ran = lightning.main(*words)
    assert (ran.code, ran.err) == (0, "")
    for command in COMMANDS:
        assert command in ran.out


@pytest.mark.parametrize("command", ["fit", "predict", "select", "report", "collect", "export"])
def test_help_of_a_command_lists_its_options(lightning, command):
    ran = lightning.main(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    own = {
        "fit": ["--data.episodes", "--trainer.max_steps", "--evaluation.patients", "--ckpt_path"],
        "predict": ["--member"],
        "collect": ["--episodes", "--seed", "--policy", "--output"],
        "export": ["--ckpt_path", "--member", "--output"],
        "select": ["runs", "--criterion", "--truth", "--epsilon", "--clip", "--output"],
        "report": ["runs", "--scorecard", "--episodes", "--data_sets", "--output"],
    }
    for option in own[command]:
        assert option in ran.out


@pytest.mark.slow
def test_the_module_is_the_command(tmp_path):
    """In a process of its own; `gym`'s notice does not reach the user."""
    environment = {**os.environ, "PYTHONPATH": str(Path(sepsis_rl.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-m", "sepsis_rl", "collect", "--episodes=5", "--output=a.npz"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout.splitlines()) == 1
    refused = subprocess.run(
        [sys.executable, "-m", "sepsis_rl", "collect", "--output=a.npz"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("lightning: error: ")


# -- bad input ---------------------------------------------------------------------------------


def assert_refused(ran, *said):
    """Exit code 2 and one message, which says this."""
    assert ran.code == 2
    assert ran.err.startswith("lightning: error: ")
    assert ran.err.count("error:") == 1
    assert len(ran.err.splitlines()) == 1
    for text in ("Traceback", "usage:", "<class"):
        assert text not in ran.err
    for text in said:
        assert text in ran.err


def without(tree, *path):
    """A copy of a mapping without one of its keys."""
    first, *rest = path
    return {k: without(v, *rest) if rest and k == first else v for k, v in tree.items()
            if rest or k != first}  # fmt: skip


FIT_REFUSES = {
    "unknown key": (["--data.epsiodes=3"], ["epsiodes", "data.episodes"]),
    "unknown key of the model": (["--model.alhpa=3"], ["alhpa", "model.alpha"]),
    "unknown key of the trainer": (["--trainer.max_step=3"], ["max_step", "trainer.max_steps"]),
    "unknown group": (["--modle.alpha=3"], ["modle"]),
    "abbreviation": (["--data.epi=3"], ["data.epi"]),
    "key of another algorithm": (["--model.sampled=true"], ["sampled"]),
    "stray word": (["now"], ["now"]),
    "text for an integer": (["--data.episodes=many"], ["data.episodes", "many", "int"]),
    "text for a number": (["--model.alpha=high"], ["alpha", "high", "float"]),
    "number for an integer": (["--trainer.max_steps=1.5"], ["max_steps", "1.5", "int"]),
    "not one of several": (["--evaluation.strategy=none"], ["strategy", "terminate"]),
    "text for a switch": (["--model.double_q=perhaps"], ["double_q", "perhaps", "bool"]),
    "unknown policy": (["--data.policy=nurse"], ["data.policy", "nurse", "clinician"]),
    "unknown class": (["--model=SAC"], ["SAC"]),
    "unknown command": (None, ["train", *COMMANDS]),
    "second config missing": (["--config=nowhere.yaml"], ["nowhere.yaml"]),
    "alpha": (["--model.alpha=-0.1"], ["alpha", "-0.1", "at least 0"]),
    "alpha of a member": (["--model.alpha=[0.5,-1]"], ["alpha", "-1", "at least 0"]),
    "alpha not a number": (["--model.alpha=.nan"], ["alpha", "nan"]),
    "alpha infinite": (["--model.alpha=.inf"], ["alpha", "inf"]),
    "members twice": (["--model.alpha=[1.0,1.0]"], ["alpha"]),
    "no members": (["--model.alpha=[]"], ["alpha"]),
    "tau 0": (["--model.tau=0"], ["tau", "(0, 1]"]),
    "tau above 1": (["--model.tau=1.01"], ["tau", "1.01", "(0, 1]"]),
    "tau of a member": (["--model.tau=[0.1,2]"], ["tau", "2", "(0, 1]"]),
    "gamma above 1": (["--model.gamma=1.1"], ["gamma", "1.1"]),
    "gamma below 0": (["--model.gamma=-0.1"], ["gamma", "-0.1"]),
    "learning rate 0": (["--model.learning_rate=0"], ["learning_rate"]),
    "learning rate not a number": (["--model.learning_rate=.nan"], ["learning_rate", "nan"]),
    "seed": (["--model.seed=-1"], ["seed", "-1"]),
    "no layers": (["--model.hidden_dims=[]"], ["hidden_dims"]),
    "a layer of no width": (["--model.hidden_dims=[16,0]"], ["hidden_dims", "0"]),
    "embedding of no width": (["--model.embedding_dim=0"], ["embedding_dim", "0"]),
    "negative mask": (["--model.min_action_count=-1"], ["min_action_count", "-1"]),
    "no episodes": (["--data.episodes=0"], ["data.episodes", "0"]),
    "no batch": (["--data.batch_size=0"], ["data.batch_size", "0"]),
    "all held out": (["--data.held_out_share=1"], ["data.held_out_share", "1"]),
    "no patients": (["--evaluation.patients=0"], ["evaluation.patients", "0"]),
    "no report episodes": (["--data.report_episodes=0"], ["data.report_episodes", "0"]),
    "report share": (["--data.report_share=1"], ["data.report_share", "1"]),
    "held-out episodes twice": (["--data.report_seed=42"], ["data.report_seed", "must differ"]),
    "softening": (["--ope.epsilon=2"], ["ope.epsilon", "2"]),
    "clip": (["--ope.clip=0"], ["ope.clip", "0"]),
    "no resamples": (["--ope.resamples=-1"], ["ope.resamples", "-1"]),
    "typo in ope": (["--ope.epsylon=0.1"], ["ope.epsylon", "ope.epsilon"]),
    "no devices": (["--trainer.devices=0"], ["trainer.devices", "0"]),
    "unknown accelerator": (["--trainer.accelerator=abacus"], ["accelerator", "abacus"]),
    "unknown strategy": (["--trainer.strategy=chess"], ["strategy", "chess"]),
    "unknown precision": (["--trainer.precision=9"], ["precision", "9"]),
    "missing data": (["--data.path=nowhere.npz"], ["nowhere.npz", "no such file"]),
    "missing checkpoint": (["--ckpt_path=nowhere.ckpt"], ["nowhere.ckpt", "no such file"]),
    "nothing to go on from": (["--ckpt_path=last"], ["last", "runs/cql"]),
}


@pytest.mark.parametrize(("words", "said"), FIT_REFUSES.values(), ids=FIT_REFUSES)
def test_what_fit_refuses(lightning, tmp_path, words, said):
    """One message, and nothing is left behind."""
    ran = lightning.main("train") if words is None else lightning("fit", "cql", *words)
    assert_refused(ran, *said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(lightning, tmp_path):
    ran = lightning("fit", "cql", "--trainer.accelerator=gpu")
    assert_refused(ran, "trainer.accelerator", "gpu", "cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_more_gpus_than_there_are_are_refused(lightning, tmp_path):
    devices = torch.cuda.device_count() + 1
    ran = lightning("fit", "cql", "--trainer.accelerator=gpu", f"--trainer.devices={devices}")
    assert_refused(ran, "trainer.devices", str(devices), "cuda")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("config", ["cql", "bc"])
def test_a_run_on_a_gpu_ends_near_one_on_the_cpu(runs, lightning, config):
    assert lightning("fit", config, "--trainer.accelerator=gpu").code == 0
    ours, theirs = (
        read_checkpoint(runs / config / f"version_{n}" / "checkpoints" / "last.ckpt")["state_dict"]
        for n in (1, 0)
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].cpu(), value, rtol=1e-3, atol=1e-4)
    ran = lightning("test", config, "--ckpt_path=last", "--trainer.accelerator=gpu")
    assert (ran.code, ran.err) == (0, "")
    tested = read_json(runs / config / "version_1" / "metrics.json")["test"]["last.ckpt"]
    ran = lightning("test", config, f"--ckpt_path={runs / config}/version_1/checkpoints/last.ckpt")
    assert ran.code == 0
    again = read_json(runs / config / "version_1" / "metrics.json")["test"]["last.ckpt"]
    random, theirs = (scores["policies"]["random"] for scores in (again, tested))
    assert random == pytest.approx(theirs, abs=0.02)


def test_too_little_memory_is_told(lightning):
    """More than the address space has."""
    ran = lightning("fit", "bc", "--model.hidden_dims=[100000000000000]")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    error = ran.err.splitlines()[-1]
    assert error.startswith("lightning: error: there is not enough memory")
    assert "allocate" in error


def test_a_missing_config_is_refused(lightning, tmp_path):
    assert_refused(lightning.main("fit", "--config=nowhere.yaml"), "nowhere.yaml")
    assert_refused(lightning.main("fit"), "model", "config")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["model: [", "- a\n- list\n", "just a word", "\x00\x01", "model: ${...nowhere}\n"]
)
def test_a_malformed_config_is_refused(lightning, tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert_refused(lightning.main("fit", f"--config={path}"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_config_that_points_nowhere_is_refused(lightning, tmp_path):
    text = (CONFIGS / "cql.yaml").read_text()
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace("${...seed_everything}", "${...seed_evrything}"))
    assert_refused(lightning.main("fit", f"--config={path}", "--trainer.max_steps=1"), "evrything")
    assert list(tmp_path.iterdir()) == [path]


def truncated(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "spoil",
    {
        "empty": lambda data: b"",
        "text": lambda data: b"episode,step\n0,0\n",
        "truncated": truncated,
        "one byte changed": lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_malformed_data_file_is_refused(runs, lightning, tmp_path, spoil, command):
    assert lightning.main("collect", "--episodes=20", "--output=data.npz").code == 0
    path = tmp_path / "data.npz"
    path.write_bytes(spoil[1](path.read_bytes()))
    before = files(tmp_path)
    options = ["--data.path=data.npz", *(["--ckpt_path=last"] if command == "validate" else [])]
    assert_refused(lightning(command, "cql", *options), "data.npz")
    assert files(tmp_path) == before


def test_a_data_file_without_rows_is_refused(lightning, tmp_path):
    assert lightning.main("collect", "--episodes=20", "--output=data.npz").code == 0
    with np.load("data.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    rows = {name: array[:0] if array.ndim else array for name, array in arrays.items()}
    np.savez("data.npz", **rows)
    before = files(tmp_path)
    assert_refused(lightning("fit", "cql", "--data.path=data.npz"), "data.npz")
    assert files(tmp_path) == before


def test_a_damaged_cache_is_refused(lightning, tmp_path):
    cache = tmp_path / "cache"
    options = [f"--data.cache_dir={cache}", "--trainer.max_steps=1", "--data.episodes=20"]
    assert lightning("fit", "bc", *options).code == 0
    (path,) = cache.glob("*_20-episodes_*")
    path.write_bytes(truncated(path.read_bytes()))
    before = files(tmp_path)
    assert_refused(lightning("fit", "bc", *options), path.name)
    assert files(tmp_path) == before


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_scoring_needs_a_checkpoint(lightning, tmp_path, command):
    assert_refused(lightning(command, "cql"), "--ckpt_path")
    assert_refused(lightning(command, "cql", "--ckpt_path=last"), "last", "runs/cql")
    assert_refused(lightning(command, "cql", "--ckpt_path=no.ckpt"), "no.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["fit", "validate", "predict"])
def test_a_checkpoint_that_does_not_fit_is_refused(runs, lightning, tmp_path, command):
    before = files(tmp_path)
    bc = runs / "bc" / "version_0" / "checkpoints" / "last.ckpt"
    sweep = runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt"
    cql = runs / "cql" / "version_0" / "checkpoints" / "last.ckpt"
    for options, said in (
        ([f"--ckpt_path={bc}"], ["BC", "CQL"]),
        ([f"--ckpt_path={sweep}"], ["4", "1"]),
        ([f"--ckpt_path={cql}", "--model.hidden_dims=[32]"], ["hidden_dims", "16", "32"]),
        ([f"--ckpt_path={cql}", "--model.embedding_dim=4"], ["embedding_dim", "8", "4"]),
    ):
        assert_refused(lightning(command, "cql", *options), *said)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: held.update(loops={}),
        lambda held: held.update(OfflineDataModule={}),
        lambda held: held["callbacks"]["PolicyEvaluation"].update(history=None),
        lambda held: held["callbacks"].update(RecordedSettings={}),
        lambda held: held["hyper_parameters"].pop("embedding_dim"),
        lambda held: held.update({"pytorch-lightning_version": "x"}),
    ],
)
def test_entries_that_do_not_belong_together_are_told(lightning, runs, spoil):
    held = torch.load(runs / "cql/version_0/checkpoints/last.ckpt", weights_only=True)
    spoil(held)
    torch.save(held, "odd.ckpt")
    ran = lightning("fit", "cql", "--ckpt_path=odd.ckpt", "--trainer.max_steps=30")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert ran.err.splitlines()[-1].startswith("lightning: error: ")
    assert "checkpoint" in ran.err.splitlines()[-1]


def test_a_damaged_table_of_metrics_is_left_alone(lightning, runs):
    path = runs / "cql/version_0/metrics.json"
    path.write_text("{")
    assert lightning("test", "cql", "--ckpt_path=last").code == 0
    assert path.read_text() == "{"
    assert "test" in json.loads(path.with_name("metrics-1.json").read_text())


def test_weights_alone_are_scored_but_do_not_go_on(lightning):
    options = ["--checkpoint.save_weights_only=true", "--trainer.max_steps=2"]
    assert lightning("fit", "cql", *options).code == 0
    assert lightning("validate", "cql", "--ckpt_path=last").code == 0
    assert_refused(lightning("fit", "cql", "--ckpt_path=last"), "last.ckpt", "weights alone")
    ran = lightning.main("report", "runs/cql/version_0", "--output=report")
    assert ran.code == 2
    assert "weights alone" in ran.err
    path = Path("runs/cql/version_0/checkpoints/last.ckpt")
    words = [f"--ckpt_path={path}", "--member=0", "--output=one.ckpt"]
    assert lightning.main("export", *words).code == 0
    assert lightning("test", "cql", "--ckpt_path=one.ckpt").code == 0


class Payload:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def planted(path):
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["payload"] = Payload()
    torch.save(checkpoint, path)


def torn(path):
    path.write_bytes(path.read_bytes()[:-1000])


def foreign(path):
    torch.save({"state_dict": {}, "hyper_parameters": {"_instantiator": "x"}}, path)


def text(path):
    path.write_text("hello\n")


def empty(path):
    path.write_bytes(b"")


def a_list(path):
    torch.save([1, 2, 3], path)


@pytest.mark.parametrize(
    ("command", "spoil"),
    [
        *((command, planted) for command in ("fit", "validate", "test", "predict", "export")),
        *(("fit", spoil) for spoil in (torn, foreign, text, empty, a_list)),
        ("export", torn),
    ],
)
def test_a_bad_checkpoint_is_refused_and_never_run(runs, lightning, tmp_path, spoil, command):
    path = runs / "cql" / "version_0" / "checkpoints" / "last.ckpt"
    spoil(path)
    before = files(tmp_path)
    if command == "export":
        ran = lightning.main("export", f"--ckpt_path={path}", "--member=0", "--output=x.ckpt")
    else:
        ran = lightning(command, "cql", "--ckpt_path=last")
    assert_refused(ran, "last.ckpt")
    assert not Path("ran").exists()
    assert files(tmp_path) == before


def test_the_payload_would_run(tmp_path, monkeypatch):
    """The test above can fail."""
    monkeypatch.chdir(tmp_path)
    torch.save({"hyper_parameters": {}}, "x.ckpt")
    planted(Path("x.ckpt"))
    torch.load("x.ckpt", weights_only=False)
    assert Path("ran").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["output"]),
        (["--output=a.npz", "--episodes=0"], ["episodes", "0"]),
        (["--output=a.npz", "--episodes=many"], ["episodes", "many"]),
        (["--output=a.npz", "--seed=-1"], ["seed", "-1"]),
        (["--output=a.npz", "--policy=nurse"], ["policy", "nurse", "clinician"]),
        (["--output=a.npz", "--policy=epsilon_clinician", "--epsilon=2"], ["epsilon", "2"]),
        (["--output=a.npz", "--epsiodes=3"], ["epsiodes", "episodes"]),
        (["--output=a.npz", "extra"], ["extra"]),
        (["--output=."], ["."]),
    ],
)
def test_what_collect_refuses(lightning, tmp_path, words, said):
    assert_refused(lightning.main("collect", *words), *said)
    assert list(tmp_path.iterdir()) == []


def test_collect_does_not_overwrite(lightning, tmp_path):
    Path("a.npz").write_text("mine")
    assert_refused(lightning.main("collect", "--output=a.npz", "--episodes=5"), "a.npz")
    assert Path("a.npz").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_what_export_refuses(runs, lightning, tmp_path):
    path = runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt"
    Path("taken.ckpt").write_text("mine")
    before = files(tmp_path)
    for words, said in (
        (["--member=0", "--output=x.ckpt"], ["ckpt_path"]),
        ([f"--ckpt_path={path}", "--member=4", "--output=x.ckpt"], ["4", "3"]),
        ([f"--ckpt_path={path}", "--member=-1", "--output=x.ckpt"], ["-1", "3"]),
        ([f"--ckpt_path={path}", "--member=0", "--output=taken.ckpt"], ["taken.ckpt"]),
        (["--ckpt_path=no.ckpt", "--member=0", "--output=x.ckpt"], ["no.ckpt"]),
    ):
        assert_refused(lightning.main("export", *words), *said)
    assert files(tmp_path) == before
    assert Path("taken.ckpt").read_text() == "mine"


def test_inadmissible_actions_that_raise_are_one_message(runs, lightning):
    options = ["--ckpt_path=last", "--evaluation.strategy=raise_exception"]
    assert_refused(lightning("validate", "cql", *options), "inadmissible")


def test_the_config_in_a_run_folder_is_complete(finished_runs):
    """Also what the command line changed."""
    config = yaml.safe_load((finished_runs / "runs/cql/version_0/config.yaml").read_text())
    assert config["model"]["init_args"]["hidden_dims"] == [16]
    assert config["data"]["episodes"] == 200
    assert config["trainer"]["max_steps"] == 10


# -- report --------------------------------------------------------------------------------------


def test_a_scorecard_of_a_run(runs, lightning, tmp_path):
    words = ["--scorecard", "--output=card", "--episodes=60", "--data_sets=2", "--resamples=3"]
    ran = lightning.main("report", "runs/bc/version_0", *words, "--processes=1")
    assert (ran.code, ran.err) == (0, "")
    assert "2 data sets of 60 episodes" in ran.out
    assert "Not for clinical use" in ran.out
    with (tmp_path / "card" / "scorecard-policies.csv").open() as file:
        assert file.readline().startswith("#")
        judged = {row["policy"] for row in csv.DictReader(file)}
    assert {"bc step 4", "bc step 10", "tabular", "random", "optimal"} <= judged


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["output"]),
        (["--output=card"], ["needs runs", "runs/sweep/version_0"]),
        (["--scorecard", "--output=card", "--episodes=few"], ["--episodes", "few", "1000,5000"]),
        (["--scorecard", "--output=card", "--data_sets=1"], ["--data_sets", "1", "2 to"]),
        (["nowhere", "--scorecard", "--output=card"], ["nowhere", "is no run"]),
    ],
)
def test_what_report_refuses(lightning, tmp_path, words, said):
    assert_refused(lightning.main("report", *words), *said)
    assert list(tmp_path.iterdir()) == []

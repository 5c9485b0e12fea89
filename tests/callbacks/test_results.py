"""What a run ends with."""

import json
from types import SimpleNamespace

import pytest
from lightning.pytorch.trainer.states import TrainerFn

from sepsis_rl.algorithms import CQL
from sepsis_rl.baselines import tabular_policy
from sepsis_rl.callbacks import OffPolicyEvaluation, PolicyEvaluation, Results
from sepsis_rl.evaluation import Stage, score_policies
from sepsis_rl.ope import Episodes, OffPolicyOptions, evaluate_off_policy
from sepsis_rl.policies import (
    clinician_mode_policy,
    clinician_policy,
    optimal_policy,
    random_policy,
)

BASELINES = ["random", "clinician", "clinician's most likely", "tabular", "optimal"]


@pytest.fixture(scope="module")
def module():
    module = CQL(alpha=[0.0, 1.0], seed=[1, 2], embedding_dim=4, hidden_dims=[4])
    module.build(716, 25)
    return module


@pytest.fixture
def trainer(data):
    return SimpleNamespace(
        callbacks=[PolicyEvaluation(patients=400, seed=3)],
        strategy=SimpleNamespace(root_device="cpu"),
        datamodule=data,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        global_rank=0,
        world_size=1,
        is_global_zero=True,
        global_step=20,
        ckpt_path=None,
        checkpoint_callback=None,
        loggers=[],
    )


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def conclude(trainer, module, folder):
    results = Results()
    results.run_folder = folder
    results.on_fit_end(trainer, module)
    return json.loads((folder / "metrics.json").read_text())["fit"]


def test_the_policies_beside_the_baselines(trainer, module, tmp_path, data, mdp, capsys):
    """All on the same patients, with the difference to the clinician."""
    fit = conclude(trainer, module, tmp_path)
    names = [f"CQL alpha={a},seed={s}" for a in (0, 1) for s in (1, 2)]
    assert list(fit["policies"]) == [*names, *BASELINES]
    clinician = clinician_policy(mdp)
    baselines = [
        random_policy(mdp),
        clinician,
        clinician_mode_policy(mdp),
        tabular_policy(data.train.counts(716, 25), mdp),
        optimal_policy(mdp),
    ]
    scores = score_policies(
        mdp,
        [*module.policies(), *baselines],
        supported=data.pair_counts > 0,
        patients=400,
        seed=3,
        stage=Stage.VALIDATE,
        reference=clinician,
    )
    for index, values in enumerate(fit["policies"].values()):
        for key, expected in scores.metrics().items():
            assert values[key] == pytest.approx(float(expected[index]), abs=1e-12), key
        assert values["length_exact"] == float(scores.length_exact[index])
        for part, expected in zip(("", "_low", "_high"), scores.difference, strict=True):
            assert values[f"difference{part}"] == pytest.approx(float(expected[index]), abs=1e-12)
    out = capsys.readouterr().out
    shown = [name.removeprefix("CQL ").replace(",", ", ") for name in fit["policies"]]
    order = [out.index(f"\n {name} ") for name in shown]
    assert order == sorted(order)
    for text in ("inadmissible actions: mean", "400 simulated validation patients", str(tmp_path)):
        assert text in out
    assert "Not for clinical use" in out


def test_the_story_of_the_run_is_kept(trainer, module, tmp_path):
    trainer.callbacks[0].history = [{"step": 4, "members": [{"survival_rate": 0.5}]}]
    fit = conclude(trainer, module, tmp_path)
    assert fit["step"] == 20
    assert fit["evaluations"] == [{"step": 4, "members": [{"survival_rate": 0.5}]}]
    assert (fit["patients"], fit["patients_seed"]) == (400, 3)


def test_stages_stand_side_by_side(trainer, module, tmp_path):
    fit = conclude(trainer, module, tmp_path)
    results = Results()
    results.run_folder = tmp_path
    trainer.ckpt_path = "somewhere/step=5.ckpt"
    trainer.state.fn = TrainerFn.VALIDATING
    results.on_validation_end(trainer, module)
    trainer.state.fn = TrainerFn.TESTING
    results.on_test_end(trainer, module)
    trainer.ckpt_path = "somewhere/last.ckpt"
    results.on_test_end(trainer, module)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["fit"] == fit
    assert content["validate"]["step=5.ckpt"]["policies"] == fit["policies"]
    assert set(content["test"]) == {"step=5.ckpt", "last.ckpt"}
    assert content["test"]["last.ckpt"]["policies"] != fit["policies"]


def test_the_validations_of_a_fit_and_other_processes_say_nothing(
    trainer, module, tmp_path, capsys
):
    results = Results()
    results.run_folder = tmp_path
    results.on_validation_end(trainer, module)
    trainer.is_global_zero = False
    results.on_fit_end(trainer, module)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_without_a_run_folder_there_is_only_the_table(trainer, module, capsys):
    Results().on_fit_end(trainer, module)
    out = capsys.readouterr().out
    assert all(name in out for name in BASELINES)
    assert "Run folder" not in out
    assert "recorded data" not in out  # without off-policy evaluation


def test_who_would_raise_is_left_out(trainer, module, tmp_path, mdp, monkeypatch):
    optimum = optimal_policy(mdp, strategy="raise_exception")
    monkeypatch.setattr(module, "policies", lambda: [optimum] * 4)
    trainer.callbacks = [PolicyEvaluation(patients=50, strategy="raise_exception")]
    policies = conclude(trainer, module, tmp_path)["policies"]
    assert "optimal" in policies
    assert not {"random", "clinician"} & set(policies)
    assert "difference" not in policies["optimal"]


def test_what_recorded_data_alone_say(trainer, module, tmp_path, data, mdp, capsys):
    """A second table, from episodes that nothing was trained on or chosen by."""
    trainer.callbacks.append(OffPolicyEvaluation(epsilon=0.05, clip=30.0, resamples=20, seed=2))
    found = conclude(trainer, module, tmp_path)["off_policy"]
    policies = [
        *module.policies(),
        random_policy(mdp),
        clinician_mode_policy(mdp),
        tabular_policy(data.train.counts(716, 25), mdp),
        optimal_policy(mdp),
    ]
    options = OffPolicyOptions(epsilon=0.05, clip=30.0, resamples=20, seed=2)
    scores = evaluate_off_policy(policies, Episodes(data.report, 716, 25), options=options)
    assert list(found["policies"]) == [policy.name for policy in policies]
    for index, figures in enumerate(found["policies"].values()):
        for name in ("fqe", "fqe_zero", "wis", "wdr"):
            assert figures[name] == pytest.approx(scores.estimates[name][index], abs=1e-12)
        for name in ("fqe", "wis", "wdr"):
            _, low, high = (float(part[index]) for part in scores.interval(name))
            assert figures[f"{name}_low"] == pytest.approx(low, abs=1e-6)
            assert figures[f"{name}_high"] == pytest.approx(high, abs=1e-6)
        difference = [float(part[index]) for part in scores.minus_recorded("fqe")]
        told = [figures[f"fqe_minus_recorded{part}"] for part in ("", "_low", "_high")]
        assert told == pytest.approx(difference, abs=1e-6)
        assert figures["ess"] == pytest.approx(scores.effective_sample_size[index])
        assert figures["epsilon"] == scores.epsilon[index]
    assert found["recorded"]["estimate"] == data.report.returns().mean()
    assert (found["episodes"], found["clip"], found["resamples"]) == (50, 30.0, 20)
    assert found["content_hash"] == data.report.content_hash
    out = capsys.readouterr().out
    table = out[out.index("From recorded data alone") :]
    assert "50 episodes, not trained on nor chosen by" in table
    assert "these records cannot judge 8 of 8 policies." in table
    lines = {line.split("  ")[0].strip(): line for line in table.splitlines()}
    for index, policy in enumerate(policies):
        shown = lines[policy.name.removeprefix("CQL ").replace(",", ", ")]
        assert f" {100 * scores.estimates['fqe'][index]:.1f} (" in shown
        assert shown.endswith(f"{scores.effective_sample_size[index]:.0f} ")
    assert f"{100 * scores.recorded:.1f} (" in lines["recorded"]


@pytest.mark.parametrize(
    ("lists", "shown"),
    [
        ({"alpha": [0.003]}, "\n alpha=0.003, seed=456 "),
        ({"alpha": [0.003], "learning_rate": [0.0003], "tau": [0.005]}, " seed=456 "),
    ],
)
def test_80_columns_hold_the_whole_name_of_a_member(
    trainer, tmp_path, monkeypatch, capsys, lists, shown
):
    """One blank line stands between the tables, and two lines of notes below each."""
    monkeypatch.setenv("COLUMNS", "80")
    trainer.callbacks.append(OffPolicyEvaluation(resamples=3))
    trainer.state.fn = TrainerFn.TESTING
    module = CQL(**lists, seed=[456], embedding_dim=4, hidden_dims=[4])
    module.build(716, 25)
    results = Results()
    results.on_test_end(trainer, module)
    out = capsys.readouterr().out
    survival, off_policy, rest = out.split("\n\n")
    assert "400 simulated test patients" in survival
    assert rest == ""
    for table in (survival, off_policy):
        assert table.count(shown) == 1
        assert "…" not in table
        assert max(map(len, table.splitlines())) <= 80
        *_, before, _, _ = table.splitlines()
        assert before.strip() == ""

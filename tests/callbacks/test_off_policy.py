"""What is logged from recorded data alone, and what can be selected by it."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from sepsis_rl.algorithms import CQL
from sepsis_rl.callbacks import OffPolicyEvaluation
from sepsis_rl.ope import Episodes, OffPolicyOptions, evaluate_off_policy
from sepsis_rl.ope.supported_value import SupportedValue
from sepsis_rl.ope.tables import off_policy_table
from sepsis_rl.policies import Policy
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.untrusted import read_checkpoint

LOGGED = ("fqe", "fqe_zero", "wis", "wdr")
BY_ALL_RECORDS = ("supported_value", "anchored_value", "rarity")


@pytest.fixture
def module():
    module = CQL(alpha=[0.0, 1.0], embedding_dim=4, hidden_dims=[4])
    module.build(716, 25)
    module.logged = {}
    module.log_members = module.logged.update
    return module


@pytest.fixture
def trainer(data):
    return SimpleNamespace(datamodule=data, sanity_checking=False)


def test_what_is_logged(data, trainer, module):
    """Estimates of every member on the held-out episodes; the intervals that cost little."""
    how = {"epsilon": 0.05, "clip": 1e-3, "resamples": 30, "seed": 3}
    OffPolicyEvaluation(**how, penalty=0.02).on_validation_epoch_end(trainer, module)
    expected = evaluate_off_policy(
        module.policies(),
        Episodes(data.held_out, 716, 25),
        options=OffPolicyOptions(**how),
        model=SupportedValue(data.counts + data.held_out.counts(716, 25), data.mdp, penalty=0.02),
    )
    unclipped = evaluate_off_policy(
        module.policies(),
        Episodes(data.held_out, 716, 25),
        options=OffPolicyOptions(epsilon=0.05),
    )
    assert (expected.effective_sample_size > unclipped.effective_sample_size).any()
    with_interval = {f"{name}_{end}" for name in ("wis", "wdr") for end in ("low", "high")}
    names = {
        *LOGGED,
        *BY_ALL_RECORDS,
        *with_interval,
        "ess",
        "ess_share",
        "largest_weight",
        "unseen_rate",
    }
    assert set(module.logged) == {f"ope/{name}" for name in names}
    for name, values in expected.metrics().items():
        if name in names:
            torch.testing.assert_close(module.logged[f"ope/{name}"], values)
    assert module.logged["ope/ess"].tolist() == expected.effective_sample_size.tolist()


def test_the_sanity_check_of_the_loop_is_left_out(trainer, module):
    trainer.sanity_checking = True
    OffPolicyEvaluation().on_validation_epoch_end(trainer, module)
    assert not module.logged


@pytest.mark.slow
def test_checkpoints_can_be_kept_by_an_estimate(lightning, data, tmp_path):
    """No simulator is needed to choose the step."""
    options = ("--checkpoint.monitor=ope/fqe", "--checkpoint.mode=max", "--checkpoint.save_top_k=1")
    steps = (
        "--trainer.max_steps=12",
        "--trainer.val_check_interval=3",
        "--model.learning_rate=0.1",
    )
    every = ("--checkpoint.save_top_k=-1",)
    assert lightning("fit", "cql", *steps, *every).code == 0
    assert lightning("fit", "cql", *steps, *options).code == 0
    folders = [tmp_path / "runs" / "cql" / f"version_{n}" / "checkpoints" for n in (0, 1)]
    kept = [path for path in folders[1].glob("*.ckpt") if path.name != "last.ckpt"]
    (callback,) = (
        state
        for name, state in read_checkpoint(folders[1] / "last.ckpt")["callbacks"].items()
        if name.startswith("ModelCheckpoint")
    )
    assert callback["monitor"] == "ope/fqe"

    episodes = Episodes(data.held_out, 716, 25)
    estimates = {}
    for path in folders[0].glob("step=*.ckpt"):
        scores = evaluate_off_policy(
            load_algorithm(path).policies(),
            episodes,
            estimators=("fqe",),
            options=OffPolicyOptions(resamples=0),
        )
        estimates[path.name] = float(scores.estimates["fqe"][0])
    assert len(estimates) == 4
    assert len(set(estimates.values())) > 1
    (path,) = kept
    assert estimates[path.name] == max(estimates.values())
    assert float(callback["best_model_score"]) == pytest.approx(max(estimates.values()), abs=1e-6)


def test_training_can_stop_early_by_an_estimate(lightning, tmp_path):
    stop = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "ope/fqe", "mode": "max", "patience": 0, "min_delta": 1.0},
    }
    words = (f"--trainer.callbacks=[{json.dumps(stop)}]", "--trainer.max_steps=40")
    assert lightning("fit", "cql", *words).code == 0
    last = tmp_path / "runs" / "cql" / "version_0" / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == 8  # the second of the evaluations, every 4 steps


def test_the_table_of_a_run_fits_on_80_columns(data):
    """Names of policies are what gives way, and they are what one looks for."""
    policies = [
        Policy(name, np.full((716, 25), 1 / 25)) for name in ("CQL", "clinician's most likely")
    ]
    scores = evaluate_off_policy(
        policies,
        Episodes(data.held_out, 716, 25),
        options=OffPolicyOptions(resamples=20),
        model=SupportedValue(data.counts, data.mdp),
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(off_policy_table(scores, 1))
    lines = console.export_text().splitlines()
    assert any(line.split()[:3] == ["policy", "value", "%"] for line in lines)
    assert any(line.startswith(" clinician's ") for line in lines)
    assert f" {100 * scores.supported.value[0]:.2f} " in next(x for x in lines if "CQL" in x)

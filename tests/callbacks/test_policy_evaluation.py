"""When a policy is judged, on whom, and what is remembered."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from sepsis_rl.callbacks import PolicyEvaluation
from sepsis_rl.errors import InputError
from sepsis_rl.evaluation import Stage, score_policies
from sepsis_rl.policies import Policy

WAIT, TREAT = (Policy(name, np.eye(2)[[a] * 5]) for a, name in enumerate(("wait", "treat")))


class Module:
    """Two members on the chain: one that waits, one that treats."""

    members = labels = ("wait", "treat")

    def __init__(self):
        self.logged = {}

    def policies(self):
        return [WAIT, TREAT]

    def value_estimates(self, start, policies):
        assert start.tolist() == [0.75, 0.25, 0, 0, 0]
        assert len(policies) == 2
        return torch.tensor([0.9, 0.8], dtype=torch.float64)

    def log_members(self, metrics):
        self.logged.update(metrics)


@pytest.fixture(autouse=True)
def any_module(monkeypatch):
    monkeypatch.setattr("sepsis_rl.callbacks.policy_evaluation.OfflineAlgorithm", Module)


@pytest.fixture
def trainer(chain_mdp):
    counts = np.array([[3, 0], [1, 2], [0, 0], [0, 0], [0, 0]])
    return SimpleNamespace(
        datamodule=SimpleNamespace(mdp=chain_mdp, pair_counts=counts, start=chain_mdp.start),
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        strategy=SimpleNamespace(root_device="cpu"),
        sanity_checking=False,
        is_global_zero=True,
        global_rank=0,
        world_size=1,
        global_step=7,
        max_steps=100,
        should_stop=False,
    )


def test_what_is_logged(trainer, chain_mdp):
    module, evaluation = Module(), PolicyEvaluation(patients=500, seed=3)
    evaluation.on_validation_epoch_end(trainer, module)
    expected = score_policies(
        chain_mdp,
        module.policies(),
        supported=trainer.datamodule.pair_counts > 0,
        patients=500,
        seed=3,
        stage=Stage.VALIDATE,
    ).metrics()
    assert set(module.logged) == {f"val/{name}" for name in [*expected, "value_estimate"]}
    for name, values in expected.items():
        assert torch.equal(module.logged[f"val/{name}"], values)
    assert module.logged["val/value_estimate"].tolist() == [0.9, 0.8]
    assert module.logged["val/survival_exact"].tolist() == pytest.approx([0.75, 0.4375])
    assert module.logged["val/unsupported_rate"].tolist() == pytest.approx([0.0, 0.75])
    assert module.logged["val/inadmissible_rate"].tolist() == pytest.approx([0.0, 0.25])
    assert torch.equal(evaluation.last.survival_exact, module.logged["val/survival_exact"])


def test_the_test_is_on_other_patients(trainer):
    module, evaluation = Module(), PolicyEvaluation(patients=500)
    evaluation.on_validation_epoch_end(trainer, module)
    trainer.state.fn = TrainerFn.TESTING
    evaluation.on_test_epoch_end(trainer, module)
    val, test = (module.logged[f"{group}/episode_length"] for group in ("val", "test"))
    assert val[0] != test[0]
    trainer.state.fn = TrainerFn.VALIDATING
    again = Module()
    evaluation.on_validation_epoch_end(trainer, again)
    for name in ("survival_rate", "episode_length"):
        assert torch.equal(again.logged[f"val/{name}"], module.logged[f"val/{name}"])


def test_options_reach_the_rollouts(trainer, monkeypatch):
    seen = {}

    def record(mdp, policies, **options):
        seen.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("sepsis_rl.callbacks.policy_evaluation.score_policies", record)
    trainer.global_rank, trainer.world_size = 1, 4
    evaluation = PolicyEvaluation(11, 5, "terminate", True)
    with pytest.raises(KeyboardInterrupt):
        evaluation.on_validation_epoch_end(trainer, Module())
    expected = {"patients": 11, "seed": 5, "strategy": "terminate", "real_environment": True}
    assert seen.items() >= {**expected, "rank": 1, "world_size": 4}.items()


def test_the_sanity_check_is_no_evaluation(trainer):
    trainer.sanity_checking = True
    module, evaluation = Module(), PolicyEvaluation(patients=5)
    evaluation.on_validation_epoch_end(trainer, module)
    assert (module.logged, evaluation.history, evaluation.last) == ({}, [], None)


def test_the_story_of_a_fit_is_saved(trainer):
    module, evaluation = Module(), PolicyEvaluation(patients=50)
    evaluation.on_validation_epoch_end(trainer, module)
    trainer.global_step = 14
    evaluation.on_validation_epoch_end(trainer, module)
    assert [entry["step"] for entry in evaluation.history] == [7, 14]
    waiting, treating = evaluation.history[0]["members"]
    assert waiting["survival_exact"] == pytest.approx(0.75)
    assert treating["survival_exact"] == pytest.approx(0.4375)
    assert waiting["value_estimate"] == 0.9

    resumed = PolicyEvaluation(patients=50)
    saved = evaluation.state_dict()
    resumed.load_state_dict(saved)
    assert resumed.history == evaluation.history
    trainer.global_step = 21
    resumed.on_validation_epoch_end(trainer, module)
    assert [entry["step"] for entry in resumed.history] == [7, 14, 21]
    assert [entry["step"] for entry in saved["history"]] == [7, 14]
    assert list(resumed.policies) == [7, 14, 21]
    assert list(saved["policies"]) == [7, 14]
    for actions in resumed.policies.values():
        assert torch.equal(actions, torch.tensor([[0] * 5, [1] * 5], dtype=torch.int16))


def test_a_policy_that_samples_is_remembered_whole(trainer):
    module, evaluation = Module(), PolicyEvaluation(patients=5)
    table = TREAT.probabilities.copy()
    table[2] = [0.25, 0.75]
    module.policies = lambda: [WAIT, Policy("sometimes", table)]
    evaluation.on_validation_epoch_end(trainer, module)
    expected = torch.tensor(np.stack([WAIT.probabilities, table])).float()
    assert torch.equal(evaluation.policies[7], expected)


def test_a_score_outside_of_a_fit_is_not_part_of_its_story(trainer):
    evaluation = PolicyEvaluation(patients=5)
    for fn in (TrainerFn.VALIDATING, TrainerFn.TESTING):
        trainer.state.fn = fn
        evaluation.on_validation_epoch_end(trainer, Module())
    assert evaluation.history == []


@pytest.mark.parametrize(
    ("step", "max_steps", "stops"), [(99, 100, False), (100, 100, True), (100, -1, False)]
)
def test_a_last_evaluation_is_asked_for_at_the_end(trainer, step, max_steps, stops):
    trainer.global_step, trainer.max_steps = step, max_steps
    PolicyEvaluation().on_train_batch_end(trainer, Module())
    assert trainer.should_stop == stops


@pytest.mark.parametrize(
    "options", [{"patients": 0}, {"patients": -1}, {"strategy": "none"}], ids=str
)
def test_what_is_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=rf"{name}.*{value}"):
        PolicyEvaluation(**options)

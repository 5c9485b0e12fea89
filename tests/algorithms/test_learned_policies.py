"""From scores to policies: for all members at once, within the mask, and out of a checkpoint."""

import math

import numpy as np
import pytest
import torch
from by_hand import NARROW, Q, build, set_table

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.algorithms.networks import QNetwork
from sepsis_rl.callbacks import OffPolicyEvaluation, PolicyEvaluation, Results
from sepsis_rl.policies import Policy
from sepsis_rl.runs.checkpoints import load_algorithm

START = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64)


def tables(module):
    """Probabilities, (members, n_states, n_actions)."""
    return np.stack([policy.probabilities for policy in module.policies()])


@pytest.mark.parametrize(("algorithm", "options"), [(CQL, {}), (BC, {}), (BC, {"sampled": True})])
def test_the_policy_keeps_to_actions_seen_often_enough(data, fit, algorithm, options):
    least = 3
    masked = {"actions": "supported", "min_action_count": least}
    module = algorithm(seed=[1, 2], **masked, **options, **NARROW)
    free = algorithm(seed=[1, 2], **options, **NARROW)
    for one in (module, free):
        fit(one, 5)
    names = [policy.name for policy in module.policies()]
    assert names == [f"{algorithm.__name__} seed={seed}" for seed in (1, 2)]
    seen = data.pair_counts >= least
    some = seen.any(-1)
    assert 0 < some.sum() < len(some)
    assert np.array_equal(module.allowed_actions.numpy(), seen | ~some[:, None])
    assert free.allowed_actions.all()
    ours, theirs = tables(module), tables(free)
    np.testing.assert_allclose(ours.sum(-1), 1, rtol=1e-12)
    assert not ours[:, some][:, ~seen[some]].any()
    assert theirs[:, some][:, ~seen[some]].any()
    # Among the allowed ones it is the best, or in the learned proportions.
    allowed = torch.tensor(seen | ~some[:, None])
    scores = module.q_network.table().masked_fill(~allowed, -torch.inf)
    if options:
        np.testing.assert_allclose(ours, scores.double().softmax(-1), rtol=1e-12)
    else:
        assert np.array_equal(ours.argmax(-1), scores.argmax(-1).numpy())


def test_networks_built_by_hand_are_masked_too(data, fit):
    """A mask that silently masks nothing is the worst of all."""
    module = build(DQN, data.n_states, data.n_actions, actions="supported", **NARROW)
    fit(module, 1)
    seen = data.pair_counts > 0
    some = seen.any(-1)
    assert not tables(module)[:, some][:, ~seen[some]].any()


# -- values and scores -------------------------------------------------------------------------


def test_the_value_estimate_is_q_of_the_policy_at_the_start():
    module = build(DQN, 3, 2, seed=[1, 2])
    set_table(module.q_network, Q)
    # Greedy actions (0, 0) and (1, 0): 5 and 3; 1 and 0.
    estimates = module.value_estimates(START, module.policies())
    assert estimates.tolist() == [0.25 * 5 + 0.75 * 3, 0.25 * 1 + 0.75 * 0]
    uniform = Policy("uniform", np.full((3, 2), 0.5))
    expected = [0.25 * 3.5 + 0.75 * 1.5, 0.25 * 0.5]
    assert module.value_estimates(START, [uniform, uniform]).tolist() == expected
    logits = build(BC, 3, 2)
    assert logits.value_estimates(START, logits.policies()) is None
    one, none = module.value_estimates(START, [uniform, None]).tolist()
    assert one == expected[0]
    assert math.isnan(none)


def test_predictions_are_the_scores_of_every_member():
    module = build(CQL, 3, 2, seed=[1, 2])
    set_table(module.q_network, Q)
    assert torch.equal(module.predict_step(torch.tensor([2, 0, 1]), 0), Q[:, [2, 0, 1]])


# -- forward passes ----------------------------------------------------------------------------


@pytest.fixture
def passes(data, monkeypatch):
    """Members of each pass that computed scores of all states, or any in an evaluation."""
    counted, forward, states = [], QNetwork.forward, torch.arange(data.n_states)

    def count(network, observation):
        computed = network._known is None
        if computed and (torch.equal(observation[0], states) or not network.training):
            counted.append(len(observation))
        return forward(network, observation)

    monkeypatch.setattr(QNetwork, "forward", count)
    return counted


def test_policies_take_one_pass_for_all_members(data, passes):
    module = build(CQL, data.n_states, data.n_actions, seed=list(range(21)), **NARROW)
    assert len(module.policies()) == 21
    assert passes == [21]


@pytest.mark.parametrize("algorithm", [pytest.param(BC, marks=pytest.mark.slow), CQL])
def test_an_evaluation_takes_one_pass_for_all_callbacks(
    data, make_trainer, passes, monkeypatch, algorithm
):
    """Three evaluations of a fit and its end; then `validate` and `test`, on other weights.

    The held-out loss needs the target network too.
    """
    monkeypatch.setenv("COLUMNS", "160")
    module = algorithm(seed=[1, 2, 3], learning_rate=0.1, **NARROW)
    evaluation = PolicyEvaluation(patients=20)
    options = {
        "callbacks": [evaluation, OffPolicyEvaluation(resamples=2), Results()],
        "limit_val_batches": 1.0,
        "num_sanity_val_steps": 0,
    }
    trainer = make_trainer(6, val_check_interval=2, check_val_every_n_epoch=None, **options)
    trainer.fit(module, datamodule=data)
    assert len(evaluation.history) == 3
    networks = 1 if algorithm is BC else 2
    assert passes == [3] * (3 * networks + 1)
    # The weights have moved from one to the next, and so have the policies.
    first, second, last = evaluation.policies.values()
    assert not torch.equal(first, second)
    assert not torch.equal(second, last)
    assert np.array_equal(last, tables(module).argmax(-1))
    for run in (trainer.validate, trainer.test):
        passes.clear()
        with torch.no_grad():
            module.q_network.embedding.mul_(-1)
        (metrics,) = run(module, datamodule=data, verbose=False)
        assert passes == [3] * networks
        survival = np.nanmedian(evaluation.last.survival_exact)
        group = "val" if run == trainer.validate else "test"
        assert metrics[f"{group}/survival_exact"] == pytest.approx(survival, abs=1e-6)
        scores = evaluation.score(trainer, module.policies())
        assert torch.equal(scores.survival_exact, evaluation.last.survival_exact)


def test_an_evaluation_that_fails_leaves_no_scores_behind(data, make_trainer):
    class Fails(PolicyEvaluation):
        def on_validation_epoch_end(self, trainer, pl_module):
            raise ArithmeticError("as asked")

    module = build(DQN, data.n_states, data.n_actions, seed=[1, 2], **NARROW)
    trainer = make_trainer(limit_val_batches=1.0, callbacks=[Fails()])
    with pytest.raises(ArithmeticError):
        trainer.validate(module, datamodule=data, verbose=False)
    before = tables(module)
    with torch.no_grad():
        module.q_network.embedding.mul_(-1)
    assert not np.array_equal(tables(module), before)


# -- out of a checkpoint -----------------------------------------------------------------------


@pytest.mark.parametrize("actions", ["all", "supported", "admissible"])
@pytest.mark.parametrize(
    ("algorithm", "options"), [(CQL, {}), (DQN, {}), (BC, {}), (BC, {"sampled": True})]
)
def test_a_checkpoint_alone_gives_the_policies_of_the_run(
    fit, tmp_path, algorithm, options, actions
):
    module = algorithm(seed=[1, 2], actions=actions, **options, **NARROW)
    fit(module, 5).save_checkpoint(tmp_path / "a.ckpt")
    loaded = load_algorithm(tmp_path / "a.ckpt")
    assert np.array_equal(tables(loaded), tables(module))
    assert [policy.name for policy in loaded.policies()] == module.labels
    assert bool(loaded.allowed_actions.all()) == (actions == "all")


@pytest.mark.parametrize("least", [2, 3])
def test_the_configured_mask_beats_the_checkpoints(data, fit, make_trainer, tmp_path, least):
    """As every other setting does."""
    path = tmp_path / "a.ckpt"
    fit(DQN(actions="supported", **NARROW), 2).save_checkpoint(path)
    seen = data.pair_counts >= least
    for steps in (None, 4):
        module = DQN(actions="supported", min_action_count=least, **NARROW)
        if steps is None:
            make_trainer(limit_val_batches=1.0).validate(
                module, datamodule=data, ckpt_path=path, weights_only=True, verbose=False
            )
        else:
            fit(module, steps, ckpt_path=path)
        assert np.array_equal(module.allowed_actions.numpy(), seen | ~seen.any(1, keepdims=True))

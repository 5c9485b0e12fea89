"""Fitted Q evaluation with networks, beside the same with a table."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from torch import nn

from sepsis_rl.data import Batch, collect
from sepsis_rl.errors import InputError
from sepsis_rl.network_fqe import NetworkFQE, fit_network_fqe
from sepsis_rl.ope import Episodes
from sepsis_rl.ope.fitted_q import CountModel, fitted_q_evaluation
from sepsis_rl.policies import Policy

WAIT = Policy("wait", np.tile([1.0, 0.0], (5, 1)))
TREAT = Policy("treat", np.tile([0.2, 0.8], (5, 1)))
EITHER = Policy("either", np.full((5, 2), 0.5))
SETTINGS = {
    "n_states": 5,
    "n_actions": 2,
    "learning_rate": 1e-3,
    "tau": 0.02,
    "batch_size": 256,
    "embedding_dim": 8,
    "hidden_dims": [16],
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def chain_records(chain_mdp):
    return collect(chain_mdp, EITHER, episodes=300, seed=0)


def table_values(policies, transitions, gamma):
    episodes = Episodes(transitions, 5, 2, gamma=gamma)
    samples = CountModel(episodes).sample(np.ones((1, len(episodes))))
    return [float(fitted_q_evaluation(p.probabilities, samples).value[0]) for p in policies]


@pytest.mark.parametrize(("limit", "gamma"), [(50, 1.0), (2, 0.6)], ids=["whole", "truncated"])
def test_values_are_those_of_a_table(chain_mdp, limit, gamma):
    """Of two policies at once, within 0.01; an episode whose record stops goes on."""
    mdp = dataclasses.replace(chain_mdp, max_episode_steps=limit)
    transitions = collect(mdp, EITHER, episodes=300, seed=0)
    assert (transitions.truncated.sum() > 30) == (limit == 2)
    expected = table_values([WAIT, TREAT], transitions, gamma)
    values = fit_network_fqe([WAIT, TREAT], transitions, gamma=gamma, steps=600, **SETTINGS)
    assert values.shape == (2,)
    assert values.dtype == np.float64
    assert expected[0] - expected[1] > 0.05
    np.testing.assert_allclose(values, expected, atol=0.01)


# Three states (2 is the end), two actions.
TARGET_Q = torch.tensor(
    [[[0.0, 4.0], [1.0, 2.0], [7.0, 7.0]], [[2.0, 0.0], [4.0, 8.0], [7.0, 7.0]]]
)
POLICIES = torch.tensor(
    [[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [[0.25, 0.75], [0.0, 1.0], [1.0, 0.0]]]
)
BATCH = Batch(
    observation=torch.tensor([[0, 1, 0], [1, 0, 0]]),
    action=torch.tensor([[1, 0, 0], [1, 1, 0]]),
    reward=torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.0, 3.0]]),
    next_observation=torch.tensor([[1, 2, 0], [0, 2, 1]]),
    terminated=torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]),
)


class Table(nn.Module):
    """A network that is a table, (members, n_states, n_actions)."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, observation):
        return self.values[torch.arange(len(self.values)).unsqueeze(1), observation]


def module_with(target_q, **settings):
    module = NetworkFQE(POLICIES, **settings, embedding_dim=2, hidden_dims=[2])
    module.target_q_network = Table(target_q)
    return module


@pytest.mark.parametrize(
    ("policy", "target"),
    [
        # 0.5 * (1 + 2) / 2 and 0.5 * 0, by the first policy; 0.5 * 0.25 * 2 and 3 + 0.5 * 8.
        ([0, 1], [[0.75, 1.0, 0.5], [0.25, 0.0, 7.0]]),
        # Of the second, 0.5 * 2 and 0.5 + 0.5 * 0.75 * 4; 0.5 * 2 and 3 + 0.5 * (4 + 8) / 2.
        ([1, 0], [[1.0, 1.0, 2.0], [1.0, 0.0, 6.0]]),
    ],
)
def test_the_target_by_hand(policy, target):
    """A member's own policy is followed by its own target network."""
    module = module_with(TARGET_Q, policy=policy, gamma=0.5)
    assert module.td_target(BATCH).tolist() == target


def test_nothing_is_expected_of_the_end():
    """However large the network there, which nothing ever trains."""
    module = module_with(TARGET_Q * 1e6, policy=[0, 1])
    ended = BATCH._replace(terminated=torch.ones(2, 3))
    assert torch.equal(module.td_target(ended), BATCH.reward)
    assert float(module.td_target(BATCH)[:, 1].max()) == 1.0


def test_it_trains_on_that_target():
    """The loss is the squared distance to it, and the target network takes no gradient."""
    module = NetworkFQE(POLICIES, [0, 1], 0.5, embedding_dim=2, hidden_dims=[2])
    member = torch.arange(2).unsqueeze(1)
    q = module.q_network.table()[member, BATCH.observation, BATCH.action]
    loss = module.losses(BATCH)["loss"]
    torch.testing.assert_close(loss, (q - module.td_target(BATCH)).square().mean(-1))
    loss.sum().backward()
    assert all(p.grad is None for p in module.target_q_network.parameters())


def test_a_policys_value_does_not_depend_on_its_neighbors(chain_records):
    def fit(*policies):
        return fit_network_fqe(policies, chain_records, steps=100, **SETTINGS)

    together = fit(WAIT, TREAT, EITHER)
    assert np.ptp(together) > 1e-3
    np.testing.assert_allclose(together[::-1], fit(EITHER, TREAT, WAIT), atol=1e-6)
    alone = np.concatenate([fit(policy) for policy in (WAIT, TREAT, EITHER)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_the_seed_decides(chain_records):
    first, again, other = (
        fit_network_fqe([TREAT, WAIT], chain_records, steps=50, seed=seed, **SETTINGS)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_the_target_network_is_read(chain_records):
    """An average of the last steps: with one that hardly moves, the value is that at the start."""
    transitions = chain_records.select_episodes([0, 1, 2])
    settings = {**SETTINGS, "tau": 1e-7, "learning_rate": 0.1}
    values = fit_network_fqe([WAIT, TREAT], transitions, steps=3, **settings)
    q = NetworkFQE(torch.ones(1, 5, 2), embedding_dim=8, hidden_dims=[16]).q_network.table()[0]
    starts = transitions.observation[transitions.step == 0]
    for policy, value in zip((WAIT, TREAT), values, strict=True):
        v = (policy.probabilities * q.numpy()).sum(1)
        assert value == pytest.approx(v[starts].mean(), abs=1e-4)


def test_nothing_is_written_and_nothing_said(chain_records, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "lightning.pytorch")
    fit_network_fqe([WAIT], chain_records, steps=3, **SETTINGS)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("lightning.pytorch").level == logging.INFO  # as it was


def test_progress_is_shown_on_request(chain_records, capfd):
    fit_network_fqe([WAIT], chain_records, steps=3, progress=True, **SETTINGS)
    out = capfd.readouterr().out
    assert "NetworkFQE" in out
    assert "3/3" in out


def test_a_checkpoint_has_no_policies():
    """They are data, and as large as a network."""
    module = NetworkFQE(POLICIES, [0, 1])
    assert "policies" not in module.hparams
    assert "policies" not in module.state_dict()
    assert module.hparams["policy"] == [0, 1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("gamma", -0.1),
        ("gamma", 0.0),
        ("gamma", 1.1),
        ("gamma", float("nan")),
        ("steps", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("tau", 1.5),
        ("seed", -1),
    ],
)
def test_a_setting_out_of_range(chain_records, setting, value):
    with pytest.raises(InputError, match=f"{setting}( is |=){value}.*(accepted|give)"):
        fit_network_fqe([WAIT], chain_records, **{**SETTINGS, setting: value})


def test_policies_and_records_that_do_not_fit(chain_records):
    narrow = Policy("narrow", np.ones((5, 1)))
    with pytest.raises(InputError, match=r"'narrow' has shape \(5, 1\); accepted: \(5, 2\)"):
        fit_network_fqe([WAIT, narrow], chain_records, **SETTINGS)
    with pytest.raises(InputError, match="no policies"):
        fit_network_fqe([], chain_records, **SETTINGS)
    small = Policy("small", np.full((3, 2), 0.5))
    with pytest.raises(InputError, match="next_observation lies between 0 and 2"):
        fit_network_fqe([small], chain_records, **{**SETTINGS, "n_states": 3})
    with pytest.raises(InputError, match=r"policy=2 .* from 0 to 1"):
        NetworkFQE(POLICIES, [0, 2])

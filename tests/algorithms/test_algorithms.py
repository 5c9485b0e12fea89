"""CQL, DQN and BC: their numbers, their gradient step, and what a checkpoint holds."""

import itertools
import math

import lightning.pytorch as pl
import pytest
import torch
from by_hand import NARROW, Q, build, plain_network, set_table
from torch import nn
from torch.nn import functional as F

from sepsis_rl.algorithms import BC, CQL, DQN, OfflineAlgorithm
from sepsis_rl.data import RowBatch
from sepsis_rl.data.batches import AddressedBatches, TransitionTable
from sepsis_rl.runs.untrusted import read_checkpoint

# -- losses ------------------------------------------------------------------------------------

TARGET_Q = torch.tensor(
    [[[0.0, 4.0], [1.0, 2.0], [7.0, 7.0]], [[2.0, 0.0], [4.0, 8.0], [7.0, 7.0]]]
)
BATCH = RowBatch(
    observation=torch.tensor([[0, 1], [1, 0]]),
    action=torch.tensor([[1, 0], [1, 1]]),
    reward=torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
    next_observation=torch.tensor([[1, 2], [0, 2]]),
    terminated=torch.tensor([[0.0, 1.0], [0.0, 1.0]]),
)


def log_sum_exp(*values):
    return math.log(sum(math.exp(value) for value in values))


@pytest.mark.parametrize(
    ("double_q", "td"),
    [
        # Member 0: (2 - 0.5 * max(1, 2))^2 and (3 - 1)^2; member 1: (0 - 0.25 * max(2, 0))^2, 1^2.
        (False, [(1 + 4) / 2, (0.25 + 1) / 2]),
        # The online network picks 0 in state 1, and 1 in state 0: (2 - 0.5 * 1)^2, (0 - 0)^2.
        (True, [(2.25 + 4) / 2, (0 + 1) / 2]),
    ],
)
def test_losses_by_hand(double_q, td):
    """The discount and alpha are the member's own; nothing is expected of the end."""
    conservative = [
        (log_sum_exp(5, 2) - 2 + log_sum_exp(3, 0) - 3) / 2,
        (log_sum_exp(0, 0) - 0 + log_sum_exp(0, 1) - 1) / 2,
    ]
    settings = {"gamma": [0.5, 0.25], "double_q": double_q}
    dqn = build(DQN, 3, 2, **settings)
    # The product of two lists has four members: alpha 2 with both gammas, then 10 with both.
    cql = build(CQL, 3, 2, alpha=[2.0, 10.0], **settings)
    for module in (dqn, cql):
        copies = len(module.members) // 2
        set_table(module.q_network, Q.repeat(copies, 1, 1))
        set_table(module.target_q_network, TARGET_Q.repeat(copies, 1, 1))
    losses = dqn.losses(BATCH)
    assert set(losses) == {"loss", "td_loss", "q_data", "q_max"}
    assert losses["loss"].tolist() == losses["td_loss"].tolist() == td
    assert losses["q_data"].tolist() == [2.5, 0.5]
    assert losses["q_max"].tolist() == [5.0, 1.0]  # of all actions

    losses = cql.losses(RowBatch(*(column.repeat(2, 1) for column in BATCH)))
    assert set(losses) == {"loss", "td_loss", "conservative_loss", "q_data", "q_max"}
    assert losses["td_loss"].tolist() == td * 2
    torch.testing.assert_close(losses["conservative_loss"], torch.tensor(conservative * 2))
    expected = [
        alpha * penalty + error
        for alpha in (2.0, 10.0)
        for penalty, error in zip(conservative, td, strict=True)
    ]
    torch.testing.assert_close(losses["loss"], torch.tensor(expected))


def test_imitation_by_hand():
    module = build(BC, 3, 2, seed=[1, 2])
    set_table(module.q_network, Q)
    losses = module.losses(BATCH)
    assert set(losses) == {"loss", "imitation_loss"}
    expected = torch.tensor(
        [
            (log_sum_exp(5, 2) - 2 + log_sum_exp(3, 0) - 3) / 2,
            (log_sum_exp(0, 0) - 0 + log_sum_exp(0, 1) - 1) / 2,
        ]
    )
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses["imitation_loss"], expected)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (DQN, {"gamma": [0.9, 0.5]}),
        (DQN, {"gamma": [0.9, 0.5], "double_q": True}),
        (CQL, {"alpha": [0.5, 3.0]}),
        (BC, {"seed": [1, 2]}),
    ],
)
def test_gradients_are_those_of_finite_differences(algorithm, settings):
    """Of every parameter of a small network; the target is a constant."""
    module = build(algorithm, 5, 3, embedding_dim=2, hidden_dims=[4], **settings).double()
    generator = torch.Generator().manual_seed(0)

    def integers(high):
        return torch.randint(high, (2, 8), generator=generator)

    batch = RowBatch(
        integers(5), integers(3), integers(2).double(), integers(5), integers(2).double()
    )
    module.losses(batch)["loss"].sum().backward()
    step = 1e-6
    with torch.no_grad():
        for name, parameter in module.q_network.named_parameters():
            numeric = torch.zeros_like(parameter)
            for index in itertools.product(*map(range, parameter.shape)):
                for sign in (1, -1):
                    parameter[index] += sign * step
                    numeric[index] += sign * module.losses(batch)["loss"].sum() / (2 * step)
                    parameter[index] -= sign * step
            torch.testing.assert_close(
                parameter.grad, numeric, rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}"
            )
    if algorithm is not BC:
        assert all(p.grad is None for p in module.target_q_network.parameters())


# -- a gradient step ---------------------------------------------------------------------------


class Recorder(pl.Callback):
    """Keeps the batches."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)


def assert_same_weights(network, plain, member=0, **tolerance):
    """The plain network's weights are a member's."""
    ours = plain_network(network, member).state_dict()
    for name, theirs in plain.state_dict().items():
        torch.testing.assert_close(ours[name], theirs, **tolerance)


@pytest.mark.parametrize("double_q", [False, True])
def test_an_essay_step_is_its_formulas(data, fit, double_q):
    """CQL(theta) = alpha (E[log sum exp Q] - E[Q]) + E[(r + gamma max Q_target - Q)^2].

    Then the gradient clipped to 1, Adam with 3e-4, and target <- tau online + (1 - tau) target:
    written here with torch's own layers, one step after another.
    """
    alpha, gamma, tau, learning_rate = 0.5, 0.99, 0.005, 3e-4
    module = CQL(double_q=double_q)  # the essay's settings are the defaults
    module.build(data.n_states, data.n_actions)
    with torch.no_grad():  # a target of its own, and large enough that clipping cuts in
        for parameter in module.target_q_network.parameters():
            parameter.mul_(2)
    online = plain_network(module.q_network)
    target = plain_network(module.target_q_network)
    recorder = Recorder()
    fit(module, 3, callbacks=[recorder])

    adam = torch.optim.Adam(online.parameters(), lr=learning_rate)
    norms = []
    for batch in recorder.batches:
        s, a, r, s_next, done = (column[0] for column in batch)
        q = online(s)
        q_data = q[torch.arange(len(a)), a]
        with torch.no_grad():
            if double_q:
                next_value = target(s_next)[torch.arange(len(a)), online(s_next).argmax(1)]
            else:
                next_value = target(s_next).max(1).values
            y = r + gamma * next_value * (1 - done)
        penalty = torch.log(torch.exp(q).sum(1)).mean() - q_data.mean()
        loss = alpha * penalty + F.mse_loss(q_data, y)
        adam.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(online.parameters(), 1.0)))
        adam.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.copy_(tau * fast + (1 - tau) * slow)

    assert len(norms) == 3
    assert max(norms) > 1
    assert_same_weights(module.q_network, online, rtol=1e-5, atol=1e-6)
    assert_same_weights(module.target_q_network, target, rtol=1e-5, atol=1e-6)


def test_a_step_of_imitation_is_torchs_cross_entropy(data, fit):
    module = BC()
    module.build(data.n_states, data.n_actions)
    plain = plain_network(module.q_network)
    recorder = Recorder()
    fit(module, 3, callbacks=[recorder])
    adam = torch.optim.Adam(plain.parameters(), lr=3e-4)
    for batch in recorder.batches:
        adam.zero_grad()
        F.cross_entropy(plain(batch.observation[0]), batch.action[0]).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adam.step()
    assert_same_weights(module.q_network, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("double_q", [False, True])
def test_without_a_conservative_term_cql_is_dqn(fit, double_q):
    """To the bit."""
    settings = {"double_q": double_q, "seed": [1, 2], **NARROW}
    dqn, cql, conservative = DQN(**settings), CQL(alpha=0.0, **settings), CQL(**settings)
    for module in (dqn, cql, conservative):
        fit(module, 50)
    state = cql.state_dict()
    assert any(name.startswith("target_q_network") for name in state)
    for name, value in dqn.state_dict().items():
        assert torch.equal(state[name], value), name
        same = torch.equal(conservative.state_dict()[name], value)
        assert same == (name == "allowed_actions"), name


def test_the_target_begins_as_a_copy_and_is_not_trained(data, fit):
    module = DQN(seed=[1, 2], **NARROW)
    module.build(data.n_states, data.n_actions)
    for online, target in zip(
        module.q_network.parameters(), module.target_q_network.parameters(), strict=True
    ):
        assert torch.equal(online, target)
        assert online.data_ptr() != target.data_ptr()
    trainer = fit(module, 2)
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.q_network.parameters()}
    for target in module.target_q_network.parameters():
        assert not target.requires_grad
        assert target.grad is None


# -- checkpoints -------------------------------------------------------------------------------


def test_a_checkpoint_says_what_it_is(fit, tmp_path):
    """And is read without running anything that is in it."""
    path = tmp_path / "a.ckpt"
    module = CQL(alpha=[0.5, 1.0], seed=3, **NARROW)
    fit(module, 2).save_checkpoint(path)
    checkpoint = read_checkpoint(path)
    about = checkpoint["sepsis_rl"]
    assert about["algorithm"] == "CQL"
    assert about["names"] == ["alpha=0.5", "alpha=1"]
    assert about["members"] == [
        {
            "alpha": alpha,
            "temperature": 1.0,
            "gamma": 0.99,
            "learning_rate": 3e-4,
            "tau": 0.005,
            "seed": 3,
        }
        for alpha in (0.5, 1.0)
    ]
    # Settings come from the config: nothing but networks and the mask is in the state.
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {
        "q_network",
        "target_q_network",
        "allowed_actions",
    }
    assert about["format"] == 3


@pytest.mark.parametrize("algorithm", [BC, DQN, CQL])
def test_a_resumed_run_is_the_run_never_stopped(data, fit, tmp_path, algorithm):
    path = tmp_path / "half.ckpt"
    settings = {"seed": [1, 2], "learning_rate": [1e-3, 1e-4], **NARROW}
    whole, half, rest = (algorithm(**settings) for _ in range(3))
    fit(whole, 20)
    fit(half, 10).save_checkpoint(path)
    fit(rest, 20, ckpt_path=path)
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name


def test_batches_are_the_members_own(data, fit):
    """RowBatch k of a member is a function of its seed and k."""
    recorder = Recorder()
    fit(BC(seed=[5, 9], **NARROW), 3, callbacks=[recorder])
    table = TransitionTable(data.train, "cpu")
    alone = [
        itertools.islice(AddressedBatches(table, torch.tensor([seed]), 32), 3) for seed in (5, 9)
    ]
    for batch, *singles in zip(recorder.batches, *alone, strict=True):
        for column, first, second in zip(batch, *singles, strict=True):
            assert torch.equal(column, torch.cat([first, second]))


def test_a_new_algorithm_is_a_loss(fit):
    """All that a subclass has to say."""

    class Constant(OfflineAlgorithm):
        def losses(self, batch):
            return {"loss": batch.mean(batch.of_decisions(self.q_network(batch.states)).square())}

    module = Constant(learning_rate=0.1, embedding_dim=4, hidden_dims=(4,))
    fit(module, 50)
    assert float(module.q_network.table().abs().mean()) < 0.5

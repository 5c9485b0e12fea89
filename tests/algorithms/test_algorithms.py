"""CQL, DQN and BC: their numbers, their gradient step, and what a checkpoint holds."""

import itertools
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from by_hand import NARROW, Q, build, plain_network, set_table
from torch import nn
from torch.nn import functional as F

from sepsis_rl.algorithms import BC, CQL, DQN, OfflineAlgorithm
from sepsis_rl.algorithms.networks import QNetwork
from sepsis_rl.data import RowBatch
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
    assert losses["q_max"].tolist() == [5.0, 1.0]

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


@pytest.mark.parametrize(("actions", "largest"), [("all", [5.0, 1.0]), ("supported", [3.0, 1.0])])
@pytest.mark.parametrize("algorithm", [DQN, CQL])
def test_the_largest_q_is_that_of_actions_that_may_be_taken(algorithm, actions, largest):
    module = build(algorithm, 3, 2, gamma=[0.5, 0.25], actions=actions)
    module.mask_actions(np.array([[0, 1], [1, 1], [1, 1]]))
    set_table(module.q_network, Q)
    assert module.losses(BATCH)["q_max"].tolist() == largest


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (DQN, {"gamma": [0.9, 0.5]}),
        (DQN, {"gamma": [0.9, 0.5], "double_q": True}),
        (CQL, {"alpha": [0.5, 3.0]}),
        (CQL, {"temperature": [1.0, 0.1], "actions": "supported", "value_range": (0.0, 0.5)}),
        (BC, {"seed": [1, 2]}),
    ],
)
def test_gradients_are_those_of_finite_differences(algorithm, settings):
    """Of every parameter of a small network; the target is a constant."""
    module = build(algorithm, 5, 3, embedding_dim=2, hidden_dims=[4], **settings).double()
    module.mask_actions(np.arange(15).reshape(5, 3) % 4)
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


@pytest.mark.parametrize(("algorithm", "options"), [(CQL, {}), (CQL, {"double_q": True}), (BC, {})])
def test_a_step_is_the_essays_formulas(data, fit, algorithm, options):
    """CQL(theta) = alpha (E[log sum exp Q] - E[Q]) + E[(r + gamma max Q_target - Q)^2].

    Or the cross-entropy of the recorded actions. Then the gradient clipped to 1, Adam with 3e-4,
    and target <- tau online + (1 - tau) target: written here with torch's own layers, one step
    after another.
    """
    alpha, gamma, tau, learning_rate = 0.5, 0.99, 0.005, 3e-4
    module = algorithm(**options)  # the essay's settings are the defaults
    module.build(data.n_states, data.n_actions)
    networks = [child for child in module.children() if isinstance(child, QNetwork)]
    if algorithm is CQL:
        with torch.no_grad():  # a target of its own, and large enough that clipping cuts in
            for parameter in module.target_q_network.parameters():
                parameter.mul_(2)
    plain = [plain_network(network) for network in networks]
    online, target = plain[0], plain[-1]  # of cloning the same
    recorder = Recorder()
    fit(module, 3, callbacks=[recorder])

    def loss_of(s, a, r, s_next, done):
        q = online(s)
        if algorithm is BC:
            return F.cross_entropy(q, a)
        q_data = q[torch.arange(len(a)), a]
        with torch.no_grad():
            best = (online if options else target)(s_next).argmax(1)
            y = r + gamma * target(s_next)[torch.arange(len(a)), best] * (1 - done)
        penalty = torch.log(torch.exp(q).sum(1)).mean() - q_data.mean()
        return alpha * penalty + F.mse_loss(q_data, y)

    adam = torch.optim.Adam(online.parameters(), lr=learning_rate)
    norms = []
    for batch in recorder.batches:
        adam.zero_grad()
        loss_of(*(column[0] for column in batch)).backward()
        norms.append(float(nn.utils.clip_grad_norm_(online.parameters(), 1.0)))
        adam.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.copy_(tau * fast + (1 - tau) * slow)

    assert len(norms) == 3
    assert algorithm is BC or max(norms) > 1
    for network, expected in zip(networks, plain, strict=True):
        ours = plain_network(network).state_dict()
        for name, theirs in expected.state_dict().items():
            torch.testing.assert_close(ours[name], theirs, rtol=1e-5, atol=1e-6)


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
        assert target.is_leaf
        assert target.grad is None
        assert not target.requires_grad


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
    assert about["members"] == list(module.members.settings)
    # Settings come from the config: nothing but networks and the mask is in the state.
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {
        "q_network",
        "target_q_network",
        "allowed_actions",
    }
    assert about["format"] == 3


def test_a_new_algorithm_is_a_loss(fit):
    """All that a subclass has to say."""

    class Constant(OfflineAlgorithm):
        def losses(self, batch):
            return {"loss": batch.mean(batch.of_decisions(self.q_network(batch.states)).square())}

    module = Constant(learning_rate=0.1, embedding_dim=4, hidden_dims=(4,))
    fit(module, 50)
    assert float(module.q_network.table().abs().mean()) < 0.5

"""CQL, DQN and BC: their numbers, their gradient step, and the policies they end in."""

import itertools
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.nn import functional as F

from sepsis_rl.algorithms import BC, CQL, DQN, OfflineAlgorithm
from sepsis_rl.data import Batch
from sepsis_rl.data.batches import AddressedBatches, TransitionTable
from sepsis_rl.errors import InputError
from sepsis_rl.runs.untrusted import read_checkpoint

NARROW = {"embedding_dim": 8, "hidden_dims": [8]}


def build(algorithm, n_states=4, n_actions=3, **options):
    """A module with networks, without a Trainer."""
    module = algorithm(**{"embedding_dim": n_states, "hidden_dims": [n_states], **options})
    module.build(n_states, n_actions)
    return module


@torch.no_grad()
def set_table(network, table):
    """Makes a network of one hidden layer, as wide as there are states, output a table exactly."""
    identity = torch.eye(network.n_states)
    network.embedding.copy_(identity.expand_as(network.embedding))
    network.weights[0].copy_(identity.expand_as(network.weights[0]))
    network.weights[1].copy_(torch.as_tensor(table))
    for bias in network.biases:
        bias.zero_()


# -- losses ------------------------------------------------------------------------------------

# Two members, three states (2 is the end), two actions.
Q = torch.tensor([[[5.0, 2.0], [3.0, 0.0], [9.0, 9.0]], [[0.0, 1.0], [0.0, 0.0], [9.0, 9.0]]])
TARGET_Q = torch.tensor(
    [[[0.0, 4.0], [1.0, 2.0], [7.0, 7.0]], [[2.0, 0.0], [4.0, 8.0], [7.0, 7.0]]]
)
BATCH = Batch(
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

    losses = cql.losses(Batch(*(column.repeat(2, 1) for column in BATCH)))
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

    batch = Batch(integers(5), integers(3), integers(2).double(), integers(5), integers(2).double())
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


def plain_network(network, member=0):
    """The same network out of torch's own layers."""
    layers = [nn.Embedding(*network.embedding.shape[1:])]
    layers[0].load_state_dict({"weight": network.embedding[member].detach()})
    for weight, bias in zip(network.weights, network.biases, strict=True):
        linear = nn.Linear(*weight.shape[1:])
        linear.load_state_dict({"weight": weight[member].detach().T, "bias": bias[member, 0]})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


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
        assert not torch.equal(conservative.state_dict()[name], value), name


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


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_clipped_by_member(data, fit, accumulate):
    """One member's huge target does not touch the other's step."""
    modules = []
    for factor in (1.0, 1e4):
        module = DQN(seed=[1, 2], **NARROW)
        module.build(data.n_states, data.n_actions)
        with torch.no_grad():
            for parameter in module.target_q_network.parameters():
                parameter[1] *= factor
        fit(module, 5, gradient_clip_val=0.1, accumulate_grad_batches=accumulate)
        modules.append(module)
    ordinary, huge = (module.q_network for module in modules)
    for name, parameter in ordinary.named_parameters():
        assert torch.equal(parameter[0], huge.get_parameter(name)[0]), name
        assert not torch.equal(parameter[1], huge.get_parameter(name)[1]), name


def test_the_configured_learning_rate_beats_the_checkpoints(fit, tmp_path):
    path = tmp_path / "a.ckpt"
    fit(DQN(**NARROW), 2).save_checkpoint(path)
    trainer = fit(DQN(learning_rate=0.1, **NARROW), 4, ckpt_path=path)
    assert trainer.global_step == 4
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.1]


@pytest.mark.parametrize("off", [None, 0, 0.0])
def test_without_clipping_gradients_are_as_they_are(data, fit, off):
    """Lightning's ways to say it: None, and 0."""

    module = DQN(**NARROW)
    module.build(data.n_states, data.n_actions)
    before = module.q_network.table()
    fit(module, 1, gradient_clip_val=off)
    after = module.q_network.table()
    # Adam's first step moves every weight that has a gradient by the learning rate.
    assert float((after - before).abs().max()) > 1e-4


# -- logs --------------------------------------------------------------------------------------


class Log(Logger):
    """Keeps what is logged."""

    name, version = "log", 0

    def __init__(self):
        super().__init__()
        self.metrics = {}

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            # Lightning's own names for the x-axis
            if name not in ("epoch", "step"):
                self.metrics.setdefault(name, []).append((step, value))


@pytest.mark.parametrize(
    ("module", "keys"),
    [
        (BC, {"imitation_loss"}),
        (DQN, {"td_loss", "q_data", "q_max"}),
        (CQL, {"td_loss", "conservative_loss", "q_data", "q_max"}),
    ],
)
def test_training_logs(fit, module, keys):
    """On logging steps alone, at the number of optimizer steps taken."""
    log = Log()
    fit(module(**NARROW), 25, logger=log, log_every_n_steps=10)
    assert set(log.metrics) == {f"train/{key}" for key in keys | {"loss", "grad_norm"}}
    for values in log.metrics.values():
        assert [step for step, _ in values] == [10, 20]
        assert all(math.isfinite(value) for _, value in values)


def test_logging_can_be_switched_off(fit):
    """Lightning's way to say it is 0."""
    log = Log()
    fit(DQN(**NARROW), 3, logger=log, log_every_n_steps=0)
    assert log.metrics == {}


def test_a_population_logs_its_median_and_each_member(fit):
    """Each member's under its own name, as the single run logs it."""
    alphas = [0.1, 0.5, 2.0]
    singles = []
    for alpha in alphas:
        singles.append(Log())
        fit(CQL(alpha=alpha, **NARROW), 10, logger=singles[-1], log_every_n_steps=5)
    log = Log()
    fit(CQL(alpha=alphas, **NARROW), 10, logger=log, log_every_n_steps=5)
    for name in ("train/loss", "train/grad_norm", "train/q_max"):
        for position, step in enumerate((5, 10)):
            values = [single.metrics[name][position] for single in singles]
            median = sorted(value for _, value in values)[1]
            assert log.metrics[name][position] == (step, pytest.approx(median, rel=1e-4))
            for alpha, (_, value) in zip(alphas, values, strict=True):
                logged = log.metrics[f"alpha={alpha:g}/{name}"]
                assert logged[position] == (step, pytest.approx(value, rel=1e-4))
                assert len(logged) == 2


def test_accumulated_gradients_are_logged_once(fit):
    log = Log()
    fit(DQN(seed=[1, 2], **NARROW), 6, logger=log, log_every_n_steps=3, accumulate_grad_batches=2)
    for name, values in log.metrics.items():
        assert [step for step, _ in values] == [3, 6], name


@pytest.mark.parametrize("seed", [1, [1, 2, 3]])
@pytest.mark.parametrize("algorithm", [BC, CQL])
def test_the_held_out_loss_is_the_mean_over_held_out_rows(
    data, make_trainer, monkeypatch, algorithm, seed
):
    """Also where rows come in batches of unequal size."""
    monkeypatch.setattr("sepsis_rl.data.batches._ROWS_PER_HELD_OUT_BATCH", 100)
    module = algorithm(seed=seed, **NARROW)
    log = Log()
    trainer = make_trainer(module, limit_val_batches=1.0, logger=log)
    (metrics,) = trainer.validate(module, datamodule=data, verbose=False)
    assert len(data.val_dataloader()) > 1
    n_members = len(module.members)
    rows = TransitionTable(data.held_out, "cpu").gather(
        torch.arange(len(data.held_out)).expand(n_members, -1)
    )
    expected = module.losses(rows)["loss"].detach()
    assert metrics["val/loss"] == pytest.approx(float(expected.median()), rel=1e-5)
    for name, loss in zip(module.members.names, expected.tolist(), strict=True):
        if n_members > 1:
            assert log.metrics[f"{name}/val/loss"] == [(0, pytest.approx(loss, rel=1e-5))]
    # A second evaluation begins anew.
    with torch.no_grad():
        module.q_network.embedding.mul_(20)
    (again,) = trainer.validate(module, datamodule=data, verbose=False)
    changed = module.losses(rows)["loss"].detach()
    assert again["val/loss"] == pytest.approx(float(changed.median()), rel=1e-5)
    assert again["val/loss"] != pytest.approx(metrics["val/loss"], rel=0.01)


# -- policies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [BC, DQN, CQL])
def test_the_policy_is_greedy_and_takes_the_lowest_index_on_ties(algorithm):
    module = build(algorithm, 3, 4, seed=[1, 2])
    set_table(
        module.q_network,
        [
            [[0.0, 5.0, 5.0, 1.0], [2.0, 2.0, 2.0, 2.0], [-1.0, -2.0, -3.0, -0.5]],
            [[9.0, 5.0, 5.0, 9.0], [0.0, 0.0, 0.0, 1.0], [0.0, -1.0, 3.0, 3.0]],
        ],
    )
    tables = module.policy_tables()
    assert tables.dtype == torch.float64
    assert tables.shape == (2, 3, 4)
    expected = [[1, 0, 3], [0, 3, 2]]
    assert torch.equal(tables, F.one_hot(torch.tensor(expected), 4).double())
    for member in range(2):
        policy = module.policy(member)
        assert policy.actions.tolist() == expected[member]
        assert policy.is_deterministic
        assert policy.name == f"{algorithm.__name__} seed={member + 1}"


def test_the_policy_of_a_single_run():
    module = build(CQL, 3, 4)
    assert module.policy().name == "CQL"
    assert np.array_equal(module.policy().probabilities, module.policy_tables()[0].numpy())


def test_the_sampled_policy_is_the_softmax():
    module = build(BC, 2, 2, sampled=True)
    set_table(module.q_network, [[[math.log(1), math.log(3)], [0.0, 0.0]]])
    tables = module.policy_tables()
    assert tables.dtype == torch.float64
    expected = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]], dtype=torch.float64)
    torch.testing.assert_close(tables, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(tables.sum(-1), torch.ones(1, 2, dtype=torch.float64))


@pytest.mark.parametrize(("algorithm", "options"), [(CQL, {}), (BC, {}), (BC, {"sampled": True})])
def test_the_policy_keeps_to_actions_seen_often_enough(data, fit, algorithm, options):
    least = 3
    module = algorithm(seed=[1, 2], min_action_count=least, **options, **NARROW)
    free = algorithm(seed=[1, 2], **options, **NARROW)
    for one in (module, free):
        fit(one, 5)
    seen = torch.as_tensor(data.pair_counts) >= least
    some = seen.any(-1)
    assert 0 < int(some.sum()) < len(some)
    tables, free_tables = module.policy_tables(), free.policy_tables()
    torch.testing.assert_close(tables.sum(-1), torch.ones(2, data.n_states, dtype=torch.float64))
    assert not tables[:, some].masked_select(~seen[some]).any()
    assert free_tables[:, some].masked_select(~seen[some]).any()
    assert torch.equal(tables[:, ~some], free_tables[:, ~some])
    # Among the allowed ones it is the best, or in the learned proportions.
    table = module.q_network.table().masked_fill(~seen, -torch.inf)[:, some]
    if options:
        torch.testing.assert_close(tables[:, some], table.double().softmax(-1))
    else:
        assert torch.equal(tables[:, some].argmax(-1), table.argmax(-1))


def test_networks_built_by_hand_are_masked_too(data, fit):
    """A mask that silently masks nothing is the worst of all."""
    module = DQN(min_action_count=1, **NARROW)
    module.build(data.n_states, data.n_actions)
    fit(module, 1)
    seen = torch.as_tensor(data.pair_counts) > 0
    some = seen.any(-1)
    assert not module.policy_tables()[:, some].masked_select(~seen[some]).any()


def test_the_value_estimate_is_q_of_the_policy_at_the_start():
    module = build(DQN, 3, 2, seed=[1, 2])
    set_table(module.q_network, Q)
    start = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64)
    # Greedy actions (0, 0) and (1, 0): 5 and 3; 1 and 0.
    estimates = module.value_estimates(start, module.policy_tables())
    assert estimates.tolist() == [0.25 * 5 + 0.75 * 3, 0.25 * 1 + 0.75 * 0]
    uniform = torch.full((2, 3, 2), 0.5, dtype=torch.float64)
    assert module.value_estimates(start, uniform).tolist() == [
        0.25 * 3.5 + 0.75 * 1.5,
        0.25 * 0.5,
    ]


def test_logits_are_no_values():
    module = build(BC, 3, 2)
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert module.value_estimates(start, module.policy_tables()) is None


def test_predictions_are_the_scores_of_every_member():
    module = build(CQL, 3, 2, seed=[1, 2])
    set_table(module.q_network, Q)
    assert torch.equal(module.predict_step(torch.tensor([2, 0, 1]), 0), Q[:, [2, 0, 1]])


# -- settings ----------------------------------------------------------------------------------


def test_settings_that_may_be_lists():
    """All of them, in the order of the names: the seed varies fastest."""
    module = CQL(
        seed=[1, 2], tau=[0.1, 0.2], learning_rate=[1e-3, 1e-4], gamma=[0.9, 1.0], alpha=[0.0, 1.0]
    )
    assert len(module.members) == 32
    assert module.members.names[1] == "alpha=0,gamma=0.9,learning_rate=0.001,tau=0.1,seed=2"
    assert module.seeds == [1, 2] * 16
    assert module.member_seeds.tolist() == [1, 2] * 16
    assert module.tau == [0.1, 0.1, 0.2, 0.2] * 8
    assert len(BC(seed=[1, 2], learning_rate=[1e-3, 1e-4]).members) == 4
    assert len(DQN(tau=[0.1, 0.2], gamma=[0.5, 0.9]).members) == 4


def test_the_defaults_are_the_essays():
    module = CQL()
    (settings,) = module.members.settings
    assert settings == {
        "alpha": 0.5,
        "gamma": 0.99,
        "learning_rate": 3e-4,
        "tau": 0.005,
        "seed": 42,
    }
    assert not module.double_q
    assert (module.embedding_dim, module.hidden_dims) == (256, (256, 256))
    for other in (DQN(), BC()):
        (shared,) = other.members.settings
        assert shared == {name: settings[name] for name in shared}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    ("algorithm", "name", "value"),
    [
        (CQL, "alpha", -0.1),
        (CQL, "alpha", math.nan),
        (CQL, "alpha", math.inf),
        (DQN, "gamma", -0.1),
        (DQN, "gamma", 1.01),
        (DQN, "tau", 0.0),
        (DQN, "tau", 1.5),
        (BC, "learning_rate", 0.0),
        (BC, "learning_rate", -1.0),
        (BC, "learning_rate", math.inf),
        (BC, "seed", -1),
        (BC, "seed", 2**63),
        (CQL, "gamma", math.nan),
    ],
)
def test_settings_out_of_range_are_refused(algorithm, name, value, listed):
    with pytest.raises(InputError, match=rf"model\.{name}={value}") as error:
        algorithm(**{name: [1, value] if listed else value})
    assert "give" in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"min_action_count": -1},
        {"embedding_dim": 0},
        {"hidden_dims": []},
        {"hidden_dims": [8, 0]},
        {"hidden_dims": (8, -1)},
        {"seed": [1, 1]},
        {"learning_rate": []},
    ],
)
@pytest.mark.parametrize("algorithm", [BC, DQN, CQL])
def test_impossible_networks_and_lists_are_refused(algorithm, options):
    (name,) = options
    with pytest.raises(InputError, match=rf"model\.{name}="):
        algorithm(**options)


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
        {"alpha": alpha, "gamma": 0.99, "learning_rate": 3e-4, "tau": 0.005, "seed": 3}
        for alpha in (0.5, 1.0)
    ]
    # Settings come from the config: nothing but networks is restored.
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {
        "q_network",
        "target_q_network",
    }


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
    """Batch k of a member is a function of its seed and k."""
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
        def __init__(self, learning_rate=0.1, seed=0):
            super().__init__(4, (4,), 0)

        def losses(self, batch):
            return {"loss": self.q_network(batch.observation).square().mean((-1, -2))}

    module = Constant()
    fit(module, 50)
    assert float(module.q_network.table().abs().mean()) < 0.5

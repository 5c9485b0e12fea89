"""Training on all records at once: the same losses as of rows, only without their noise."""

import itertools
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from by_hand import NARROW, build, set_table

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.data import OfflineDataModule, RowBatch
from sepsis_rl.data.batches import AddressedBatches, TransitionTable
from sepsis_rl.data.whole import WholeBatch
from sepsis_rl.dynamics import Dynamics
from sepsis_rl.errors import InputError

ALGORITHMS = [
    (CQL, {"alpha": [0.5, 0.01], "temperature": 0.01, "value_range": (0.0, 1.0)}),
    (CQL, {"alpha": [0.5, 0.01], "actions": "admissible", "double_q": True}),
    (CQL, {"temperature": [1.0, 0.1], "actions": "supported", "min_action_count": 2}),
    (DQN, {"gamma": [0.9, 1.0]}),
    (BC, {"seed": [1, 2]}),
]


@pytest.fixture(scope="module")
def whole(records):
    """The episodes of `data`, all at once."""

    def whole(batch_size="all", **options):
        data = OfflineDataModule(
            episodes=200,
            held_out_episodes=50,
            report_episodes=50,
            batch_size=batch_size,
            cache_dir=str(records),
            **options,
        )
        data.prepare_data()
        data.setup()
        return data

    return whole


def made(algorithm, data, **options):
    """With weights that are large enough for targets beyond [0, 1]."""
    module = build(algorithm, data.n_states, data.n_actions, **{**NARROW, **options})
    module.mask_actions(data.pair_counts, data.mdp.admissible)
    with torch.no_grad():
        for network in ("q_network", "target_q_network"):
            if hasattr(module, network):
                getattr(module, network).embedding.mul_(3)
    return module


def gradient(module, batch):
    """Of all parameters, (members, parameters)."""
    module.zero_grad()
    module.losses(batch)["loss"].sum().backward()
    members = len(module.members)
    return torch.cat([p.grad.reshape(members, -1) for p in module.q_network.parameters()], 1)


def all_rows(data, members):
    """One giant batch of every recorded row."""
    rows = torch.arange(len(data.train)).expand(members, -1)
    return TransitionTable(data.train, "cpu").gather(rows)


def assert_close(ours, theirs):
    """To a part of the largest entry: sums of float32 in another order."""
    scale = theirs.abs().amax(1, keepdim=True)
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("algorithm", "options"), ALGORITHMS)
def test_the_gradient_is_that_of_one_giant_batch(whole, algorithm, options):
    data = whole()
    module = made(algorithm, data, **options)
    (batch,) = itertools.islice(data.train_dataloader(), 1)
    ours = gradient(module, batch)
    assert_close(ours, gradient(module, all_rows(data, len(module.members))))
    assert ours.abs().amax() > 1e-4


def test_the_gradient_is_the_mean_of_drawn_batches(whole):
    """Within its error: standardized differences have a mean square of about 1."""
    data = whole()
    module = made(CQL, data, alpha=0.1, temperature=0.05)
    batches = AddressedBatches(TransitionTable(data.train, "cpu"), torch.tensor([0]), 256)
    drawn = torch.stack([gradient(module, batch)[0] for batch in itertools.islice(batches, 400)])
    expected = gradient(module, next(iter(data.train_dataloader())))[0]
    error = drawn.std(0) / math.sqrt(len(drawn))
    moved = error > error.amax() / 100
    assert moved.sum() > 100
    z = ((drawn.mean(0) - expected) / error)[moved]
    assert 0.7 < float(z.square().mean()) < 1.4
    # Of a gradient that is a tenth larger the same would be told apart.
    z = ((drawn.mean(0) - 1.1 * expected) / error)[moved]
    assert float(z.square().mean()) > 1.5


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("weights", ["rows", "pairs"])
def test_processes_split_the_states(whole, world_size, weights):
    """The mean of their gradients, which DDP takes, is the gradient of one."""
    data = whole(dynamics="empirical_bayes")
    module = made(CQL, data, actions="admissible", td_weights=weights, temperature=0.1)
    if weights == "pairs":
        known = torch.tensor(data.mdp.admissible, dtype=torch.float32)
        module.pair_weights = known / known.sum()
    counts, dynamics = data.train.counts(716, 25), data.estimate_dynamics()
    parts = [
        WholeBatch.of_records(counts, dynamics, "cpu", rank, world_size)
        for rank in range(world_size)
    ]
    assert torch.cat([part.states for part in parts], 1).tolist() == [list(range(716))]
    mean = sum(gradient(module, part) for part in parts) / world_size
    whole_batch = WholeBatch.of_records(counts, dynamics, "cpu")
    assert_close(mean, gradient(module, whole_batch))
    losses = [module.losses(part)["td_loss"] for part in parts]
    torch.testing.assert_close(sum(losses) / world_size, module.losses(whole_batch)["td_loss"])


# -- by hand -----------------------------------------------------------------------------------


@pytest.fixture
def by_hand():
    """State 0 has action 0 three times and 1 once, state 1 action 1 four times."""
    pairs = np.array([[3.0, 1.0], [0.0, 4.0], [0.0, 0.0]])
    next_states = np.zeros((6, 3))
    next_states[0] = [1 / 3, 2 / 3, 0]  # on the way
    next_states[1] = [0, 1 / 2, 0]  # half of them end
    dense = {"rows": next_states, "mixture": np.eye(6)}

    dynamics = Dynamics(
        **{name: sp.csr_array(value) for name, value in dense.items()},
        rewards=np.array([[0.0, 0.5], [0.0, 0.75], [0.0, 0.0]]),
        start=np.array([1.0, 0, 0]),
        terminal=np.array([False, False, True]),
    )
    counts = type("Counted", (), {"pairs": pairs})
    return WholeBatch.of_records(counts, dynamics, "cpu")


def test_losses_by_hand(by_hand):
    cql = build(CQL, 3, 2, alpha=2.0, temperature=0.5, gamma=[0.5, 1.0], value_range=(0.0, 1.0))
    q = [[0.5, 0.25], [0.0, 1.0], [0.0, 0.0]]
    set_table(cql.q_network, [q, q])
    set_table(cql.target_q_network, [[[0.5, 0.0], [2.0, 0.5], [9.0, 9.0]]] * 2)
    losses = cql.losses(by_hand)
    # V is 0.5 in state 0 and, of 2, 1 in state 1.
    targets = [[g * (0.5 / 3 + 2 / 3), 0.5 + g * 0.5, 0.75] for g in (0.5, 1.0)]
    td = [(3 * (0.5 - a) ** 2 + (0.25 - b) ** 2 + 4 * (1.0 - c) ** 2) / 8 for a, b, c in targets]
    torch.testing.assert_close(losses["td_loss"], torch.tensor(td))
    soft = [0.5 * math.log(sum(math.exp(x / 0.5) for x in row)) for row in q[:2]]
    gap = (3 * (soft[0] - 0.5) + (soft[0] - 0.25) + 4 * (soft[1] - 1.0)) / 8
    torch.testing.assert_close(losses["conservative_loss"], torch.full((2,), gap))
    torch.testing.assert_close(losses["loss"], torch.tensor(td) + 2 * gap)
    torch.testing.assert_close(losses["q_data"], torch.full((2,), (1.5 + 0.25 + 4) / 8))
    cql.pair_weights = torch.tensor([[0.25, 0.25], [0.0, 0.5], [0.0, 0.0]])
    td = [((0.5 - a) ** 2 + (0.25 - b) ** 2) / 4 + (1.0 - c) ** 2 / 2 for a, b, c in targets]
    torch.testing.assert_close(cql.losses(by_hand)["td_loss"], torch.tensor(td))


@pytest.mark.parametrize("form", ["whole", "rows"])
def test_actions_left_out_are_neither_pushed_down_nor_up(by_hand, form):
    """Nor do they make a state valuable."""
    batch = by_hand
    if form == "rows":
        state, action = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]
        columns = (state, action, [0.0] * 8, [1] * 8, [0.0] * 8)
        batch = RowBatch(*(torch.tensor([column]) for column in columns))
    cql = build(CQL, 3, 2, temperature=0.5, gamma=1.0, actions="admissible")
    cql.mask_actions(np.zeros((3, 2)), np.array([[True, False], [True, True], [True, True]]))
    set_table(cql.q_network, [[[0.5, 8.0], [0.0, 1.0], [0.0, 0.0]]])
    set_table(cql.target_q_network, [[[0.5, 8.0], [0.25, 0.5], [0.0, 0.0]]])
    # State 0 has one action left, whose gap is nothing.
    gap = 4 * (0.5 * math.log(1 + math.exp(2)) - 1.0) / 8
    torch.testing.assert_close(cql.losses(batch)["conservative_loss"], torch.tensor([gap]))
    target = cql.td_target(batch)
    expected = 0.5 / 3 + 0.5 * 2 / 3 if form == "whole" else 0.5
    torch.testing.assert_close(target[0, 0, 0], torch.tensor(expected))


# -- in a fit ----------------------------------------------------------------------------------

SETTINGS = {"learning_rate": [1e-3, 1e-4], "schedule": "cosine", **NARROW}


def trained(module, data, make_trainer, steps=12, ckpt_path=None, callbacks=()):
    trainer = make_trainer(steps, gradient_clip_val=1.0, callbacks=list(callbacks))
    trainer.fit(module, datamodule=data, weights_only=True, ckpt_path=ckpt_path)


def assert_same(ours, theirs):
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ({"batch_size": 32}, {"double_q": True, "seed": [1, 2]}),
        ({"dynamics": "empirical_bayes"}, {"value_range": (0.0, 1.0)}),
        ({"dynamics": "empirical_bayes"}, {"actions": "admissible", "value_range": (0.0, 1.0)}),
    ],
)
def test_alpha_0_is_dqn_to_the_bit(whole, make_trainer, form, options):
    data, options = whole(**form), {**SETTINGS, **options}
    cql, dqn = CQL(alpha=0.0, temperature=0.01, **options), DQN(**options)
    for module in (cql, dqn):
        trained(module, data, make_trainer)
    assert_same(cql, dqn)


class Save(pl.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 5:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("algorithm", [BC, DQN, CQL])
def test_a_resumed_run_is_the_run_never_stopped(whole, make_trainer, tmp_path, algorithm):
    """The schedule goes on, too."""
    data, path = whole(dynamics="pooled"), tmp_path / "half.ckpt"
    straight, rest = (algorithm(**SETTINGS) for _ in range(2))
    trainer = make_trainer(12, gradient_clip_val=1.0, callbacks=[Save(path)])
    trainer.fit(straight, datamodule=data)
    trained(rest, data, make_trainer, ckpt_path=path)
    assert_same(rest, straight)


class Rates(pl.Callback):
    def on_train_start(self, trainer, module):
        self.rates = []

    def on_train_batch_end(self, trainer, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_schedule(whole, make_trainer, tmp_path):
    """Half a cosine from the configured rate down to 0, also after a resume."""
    cosine = (1 + np.cos(np.pi * np.arange(8) / 8)) / 2
    path, rates = tmp_path / "half.ckpt", Rates()
    module = DQN(learning_rate=0.5, schedule="cosine", **NARROW)
    make_trainer(8, callbacks=[rates, Save(path)]).fit(module, datamodule=whole())
    np.testing.assert_allclose(rates.rates, 0.5 * cosine)
    module = DQN(learning_rate=0.1, schedule="cosine", **NARROW)
    trained(module, whole(), make_trainer, 8, ckpt_path=path, callbacks=[rates])
    np.testing.assert_allclose(rates.rates, 0.1 * cosine[5:])
    with pytest.raises(InputError, match=r"schedule=cosine needs trainer\.max_steps"):
        make_trainer(max_time="00:00:00:01").fit(DQN(schedule="cosine", **NARROW), whole())


def test_weights_of_pairs(whole, make_trainer, data):
    """Alike for all that may be taken and are known; by default where actions are left out."""
    counts, admissible = data.pair_counts, data.mdp.admissible & ~data.mdp.terminal[:, None]

    def weighted(dynamics="counts", **options):
        module = DQN(**options, **NARROW)
        trained(module, whole(dynamics=dynamics), make_trainer, steps=1)
        return module.pair_weights

    assert weighted() is None
    assert weighted(actions="admissible", td_weights="rows") is None
    known = {
        "supported": (weighted(actions="supported"), counts > 0),
        "admissible": (weighted(actions="admissible"), admissible & (counts > 0)),
        "estimated": (weighted("pooled", actions="admissible"), admissible),
        "all": (weighted("pooled", td_weights="pairs"), counts > 0),
    }
    for name, (weights, expected) in known.items():
        torch.testing.assert_close(
            weights, torch.tensor(expected / expected.sum(), dtype=torch.float32), msg=name
        )
    with pytest.raises(InputError, match=r"td_weights=pairs cannot be used with data\.batch_size"):
        make_trainer(1).fit(DQN(td_weights="pairs", **NARROW), data)


def test_admissible_actions_are_all_where_none_are_published(whole):
    module = build(CQL, 3, 2, actions="admissible")
    module.mask_actions(np.array([[0, 1], [0, 0], [1, 1]]))
    assert module.allowed_actions.all()

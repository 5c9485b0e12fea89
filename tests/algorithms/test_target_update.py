"""The soft target update, once per optimizer step, by numbers worked out by hand."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from sepsis_rl.algorithms import BC, CQL
from sepsis_rl.callbacks import SoftTargetUpdate
from sepsis_rl.data import OfflineDataModule
from sepsis_rl.errors import InputError


class Weights(nn.Module):
    """Two members, two parameters of unequal rank; everything starts at zero."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2, 3, 4))
        self.bias = nn.Parameter(torch.zeros(2, 1))


class Climber(pl.LightningModule):
    """Its online weights are 1 after one optimizer step, 2 after two, and so on."""

    def __init__(self, manual=False, every=1, fail_at=None):
        super().__init__()
        self.q_network = Weights()
        self.target_q_network = Weights().requires_grad_(False)
        self.automatic_optimization = not manual
        self.every = every
        self.fail_at = fail_at
        self.targets = []

    def training_step(self, batch, batch_idx):
        if batch_idx == self.fail_at:
            raise ArithmeticError("as asked")
        loss = -sum(parameter.sum() for parameter in self.q_network.parameters())
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            if batch_idx % self.every == 0:
                optimizer.zero_grad()
            self.manual_backward(loss / self.every)
            if batch_idx % self.every == self.every - 1:
                optimizer.step()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.q_network.parameters(), lr=1.0)

    def on_train_batch_end(self, *args):
        self.targets.append(self.target_q_network.table.detach()[:, 0, 0].tolist())


class Endless:
    """Batches that nobody reads."""

    def __iter__(self):
        while True:
            yield torch.zeros(1)


def make_trainer(callbacks, **options):
    return pl.Trainer(
        **{
            "callbacks": callbacks,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "limit_val_batches": 0,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        }
    )


def climb(tau, steps, module=None, **options):
    module = module or Climber()
    trainer = make_trainer([SoftTargetUpdate(tau)], max_steps=steps, **options)
    trainer.fit(module, Endless())
    return module, trainer


# Online is 1, 2, 3: half the way from 0 to 1, from 0.5 to 2, from 1.25 to 3.
HALVES = [0.5, 1.25, 2.125]


@pytest.mark.parametrize("tau", [0.5, [0.5], [0.5, 0.5]])
def test_target_follows_by_tau(tau):
    module, _ = climb(tau, 3)
    assert module.targets == [[value] * 2 for value in HALVES]
    for target in module.target_q_network.parameters():
        assert torch.equal(target, torch.full_like(target, HALVES[-1]))
    for online in module.q_network.parameters():
        assert torch.equal(online, torch.full_like(online, 3.0))


def test_each_member_has_its_own_tau():
    """1/4 of the way, and all of it."""
    module, _ = climb([0.25, 1.0], 3)
    # 0.25 * 1, then 0.75 * 0.25 + 0.25 * 2, then 0.75 * 0.6875 + 0.25 * 3
    assert module.targets == [[0.25, 1.0], [0.6875, 2.0], [1.265625, 3.0]]
    for target in module.target_q_network.parameters():
        assert torch.equal(target[0], torch.full_like(target[0], 1.265625))
        assert torch.equal(target[1], torch.full_like(target[1], 3.0))


def test_the_default_is_the_essays():
    module, _ = climb(SoftTargetUpdate().tau, 2)
    assert module.targets[-1] == pytest.approx([0.995 * 0.005 + 0.005 * 2] * 2)


def test_once_per_optimizer_step_under_gradient_accumulation():
    module, trainer = climb(0.5, 3, accumulate_grad_batches=2)
    assert trainer.global_step == 3
    assert module.targets == [
        [value] * 2 for value in (0.0, HALVES[0], HALVES[0], HALVES[1], HALVES[1], HALVES[2])
    ]


def test_once_per_optimizer_step_under_clipping():
    """The gradient has norm sqrt(26); clipped to half of it, the steps are halves."""
    module, _ = climb(0.5, 3, gradient_clip_val=26**0.5 / 2)
    assert [value for value, _ in module.targets] == pytest.approx([v / 2 for v in HALVES])


@pytest.mark.parametrize("every", [1, 2])
def test_once_per_optimizer_step_under_manual_optimization(every):
    module, trainer = climb(0.5, 3, Climber(manual=True, every=every))
    assert trainer.global_step == 3
    ends = module.targets[every - 1 :: every]
    assert ends == [[value] * 2 for value in HALVES]
    assert len(module.targets) == 3 * every


@pytest.mark.parametrize("tau", [0.5, [0.25, 1.0]])
def test_the_target_stays_out_of_the_graph_and_the_optimizer(tau):
    module, trainer = climb(tau, 3)
    (optimizer,) = trainer.optimizers
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for target in module.target_q_network.parameters():
        assert target.is_leaf
        assert target.grad_fn is None
        assert target.grad is None
        assert not target.requires_grad
        assert id(target) not in trained
        assert target not in optimizer.state


def test_it_comes_off_after_the_fit():
    module, trainer = climb(0.5, 3)
    module.q_network.table.grad = torch.ones(2, 3, 4)
    trainer.optimizers[0].step()
    assert float(module.target_q_network.table[0, 0, 0]) == HALVES[-1]
    # A second fit updates once again, not twice.
    again, _ = climb(0.5, 1, module)
    online = float(again.q_network.table[0, 0, 0].detach())
    assert again.targets[-1][0] == (HALVES[-1] + online) / 2


@pytest.mark.parametrize("callback_fails", [False, True])
def test_it_comes_off_after_an_exception(callback_fails):
    class Fails(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if callback_fails and batch_idx == 1:
                raise ArithmeticError("as asked")

    module = Climber(fail_at=None if callback_fails else 2)
    trainer = make_trainer([SoftTargetUpdate(0.5), Fails()], max_steps=5)
    with pytest.raises(ArithmeticError):
        trainer.fit(module, Endless())
    before = module.target_q_network.table.clone()
    assert float(before[0, 0, 0]) == HALVES[1]
    module.q_network.table.grad = torch.ones(2, 3, 4)
    trainer.optimizers[0].step()
    assert torch.equal(module.target_q_network.table, before)


def test_one_callback_serves_one_fit_after_another():
    """Also one that follows on an exception."""
    callback = SoftTargetUpdate(0.5)
    with pytest.raises(ArithmeticError):
        make_trainer([callback], max_steps=3).fit(Climber(fail_at=1), Endless())
    for _ in range(2):
        module = Climber()
        make_trainer([callback], max_steps=3).fit(module, Endless())
        assert module.targets == [[value] * 2 for value in HALVES]


@pytest.mark.parametrize("tau", [0.0, -0.1, 1.001, float("nan"), [0.5, 0.0], [2.0, 0.5], []])
def test_tau_out_of_range_is_refused(tau):
    with pytest.raises(InputError, match=r"\(0, 1\]"):
        SoftTargetUpdate(tau)


# -- with the algorithms themselves ------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return OfflineDataModule(
        episodes=100, held_out_episodes=10, batch_size=32, cache_dir=str(folder)
    )


class Online(pl.Callback):
    """Keeps the online weights after each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps.append([p.detach().clone() for p in pl_module.q_network.parameters()])


@pytest.mark.parametrize("rates", [1e-3, [1e-3, 1e-4]])
def test_the_target_of_cql_is_the_moving_average(data, rates, tmp_path):
    """Of what each step left, per-member learning rates included, and is in the checkpoint."""
    module = CQL(tau=[0.005, 0.5], learning_rate=rates, embedding_dim=8, hidden_dims=[8])
    data.prepare_data()
    data.setup()
    module.build(data.n_states, data.n_actions)
    expected = [p.clone() for p in module.target_q_network.parameters()]
    online = Online()
    trainer = make_trainer(
        [SoftTargetUpdate(module.tau), online], max_steps=10, gradient_clip_val=1.0
    )
    trainer.fit(module, datamodule=data)
    for weights in online.steps:
        for i, new in enumerate(weights):
            tau = torch.tensor(module.tau).view(-1, *[1] * (new.ndim - 1))
            expected[i] = tau * new + (1 - tau) * expected[i]
    assert len(online.steps) == 10
    for target, value in zip(module.target_q_network.parameters(), expected, strict=True):
        torch.testing.assert_close(target, value, rtol=1e-6, atol=1e-7)

    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    for name, target in module.target_q_network.named_parameters():
        assert torch.equal(checkpoint["state_dict"][f"target_q_network.{name}"], target)
    (optimizer,) = checkpoint["optimizer_states"]
    assert len(optimizer["state"]) == len(list(module.q_network.parameters()))


def test_a_module_without_a_target_is_left_alone(data):
    modules = [BC(embedding_dim=8, hidden_dims=[8]) for _ in range(2)]
    for module, callbacks in zip(modules, ([SoftTargetUpdate(0.5)], []), strict=True):
        trainer = make_trainer(callbacks, max_steps=5, gradient_clip_val=1.0)
        trainer.fit(module, datamodule=data)
    for ours, theirs in zip(*(module.q_network.parameters() for module in modules), strict=True):
        assert torch.equal(ours, theirs)

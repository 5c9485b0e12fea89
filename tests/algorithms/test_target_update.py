"""The soft target update, once per optimizer step, by numbers worked out by hand."""

from contextlib import nullcontext

import lightning.pytorch as pl
import pytest
import torch
from by_hand import NARROW, build
from torch import nn

from sepsis_rl.algorithms import BC, CQL, DQN, SoftTargetUpdate
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


@pytest.fixture
def climb(make_trainer):
    def climb(tau, steps, module=None, *, callbacks=(), **options):
        module = module or Climber()
        trainer = make_trainer(steps, callbacks=[SoftTargetUpdate(tau), *callbacks], **options)
        trainer.fit(module, Endless())
        return module, trainer

    return climb


# Online is 1, 2, 3: half the way from 0 to 1, from 0.5 to 2, from 1.25 to 3.
HALVES = [0.5, 1.25, 2.125]


@pytest.mark.parametrize("tau", [0.5, [0.5], [0.5, 0.5]])
def test_target_follows_by_tau(climb, tau):
    module, _ = climb(tau, 3)
    assert module.targets == [[value] * 2 for value in HALVES]
    for target in module.target_q_network.parameters():
        assert torch.equal(target, torch.full_like(target, HALVES[-1]))
    for online in module.q_network.parameters():
        assert torch.equal(online, torch.full_like(online, 3.0))


def test_each_member_has_its_own_tau(climb):
    """1/4 of the way, and all of it."""
    module, _ = climb([0.25, 1.0], 3)
    # 0.25 * 1, then 0.75 * 0.25 + 0.25 * 2, then 0.75 * 0.6875 + 0.25 * 3
    assert module.targets == [[0.25, 1.0], [0.6875, 2.0], [1.265625, 3.0]]
    for target in module.target_q_network.parameters():
        assert torch.equal(target[0], torch.full_like(target[0], 1.265625))
        assert torch.equal(target[1], torch.full_like(target[1], 3.0))


@pytest.mark.parametrize("every", [1, 2])
def test_once_per_optimizer_step_under_manual_optimization(climb, every):
    module, trainer = climb(0.5, 3, Climber(manual=True, every=every))
    assert trainer.global_step == 3
    ends = module.targets[every - 1 :: every]
    assert ends == [[value] * 2 for value in HALVES]
    assert len(module.targets) == 3 * every


@pytest.mark.parametrize("failing", [None, "step", "callback"])
def test_it_comes_off_after_the_fit(make_trainer, failing):
    """Also where an exception ended it."""

    class Fails(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if failing == "callback" and batch_idx == 1:
                raise ArithmeticError("as asked")

    module = Climber(fail_at=2 if failing == "step" else None)
    trainer = make_trainer(2 if failing is None else 5, callbacks=[SoftTargetUpdate(0.5), Fails()])
    with pytest.raises(ArithmeticError) if failing else nullcontext():
        trainer.fit(module, Endless())
    before = module.target_q_network.table.clone()
    assert float(before[0, 0, 0]) == HALVES[1]
    module.q_network.table.grad = torch.ones(2, 3, 4)
    trainer.optimizers[0].step()
    assert torch.equal(module.target_q_network.table, before)


def test_one_callback_serves_one_fit_after_another(make_trainer):
    """Also one that follows on an exception."""
    callbacks = [SoftTargetUpdate(0.5)]
    with pytest.raises(ArithmeticError):
        make_trainer(3, callbacks=callbacks).fit(Climber(fail_at=1), Endless())
    for _ in range(2):
        module = Climber()
        make_trainer(3, callbacks=callbacks).fit(module, Endless())
        assert module.targets == [[value] * 2 for value in HALVES]


@pytest.mark.parametrize("tau", [0.0, -0.1, 1.001, float("nan"), [0.5, 0.0], [2.0, 0.5], []])
def test_tau_out_of_range_is_refused(tau):
    with pytest.raises(InputError, match=r"\(0, 1\]"):
        SoftTargetUpdate(tau)


def test_two_updates_a_step_are_refused(climb):
    class Own(SoftTargetUpdate):
        pass

    with pytest.raises(InputError, match="twice"):
        climb(0.5, 1, callbacks=[Own(0.5)])


# -- with the algorithms themselves ------------------------------------------------------------


class Online(pl.Callback):
    """Keeps the online weights after each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step > len(self.steps):
            self.steps.append([p.detach().clone() for p in pl_module.q_network.parameters()])


@pytest.mark.parametrize("own", [(), (SoftTargetUpdate(1.0),)], ids=["none", "another"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("algorithm", [CQL, DQN])
def test_the_target_moves_without_anything_else_to_know(
    data, make_trainer, algorithm, accumulate, own
):
    """A plain Trainer and a plain module; a callback in the Trainer neither adds nor counts."""
    module, online = algorithm(**NARROW), Online()
    trainer = make_trainer(10, accumulate_grad_batches=accumulate, callbacks=[online, *own])
    trainer.fit(module, data)
    assert len(online.steps) == trainer.global_step == 10
    fresh = build(algorithm, data.n_states, data.n_actions, **NARROW)
    targets = (each.target_q_network.parameters() for each in (module, fresh))
    for target, begin, *steps in zip(*targets, *online.steps, strict=True):
        expected = begin.detach()
        for weights in steps:
            expected = 0.005 * weights + 0.995 * expected
        torch.testing.assert_close(target, expected, rtol=1e-6, atol=1e-7)
        assert not torch.equal(target, steps[-1])


def test_a_module_without_a_target_is_left_alone(fit):
    modules = [BC(**NARROW) for _ in range(2)]
    for module, callbacks in zip(modules, ([SoftTargetUpdate(0.5)], []), strict=True):
        fit(module, 5, callbacks=callbacks)
    for ours, theirs in zip(*(module.q_network.parameters() for module in modules), strict=True):
        assert torch.equal(ours, theirs)

"""No step waits for the device: a block of steps could be captured as one graph.

On a GPU a step would wait where Python reads a tensor's value (`.item()`, `if tensor:`), where the
values decide a shape (`nonzero`, a mask as index), and where a tensor is made of Python numbers,
which are then copied there. All of it can be seen on a CPU, since each is an operator. That nothing
is moved between devices is seen where the tensors have no values.
"""

import itertools
import sys
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from by_hand import NARROW
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sepsis_rl.data.batches
from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.data import OfflineDataModule
from sepsis_rl.data.batches import AddressedBatches, TransitionTable
from sepsis_rl.data.whole import WholeBatch

WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

MOVES = {"aten::_to_copy", "aten::copy_"}
COPIES = {"aten::lift_fresh", "aten::lift_fresh_copy"}
INDEXES = {"aten::index.Tensor", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""Which wait for a mask, and not for numbers."""


class Watch(TorchDispatchMode):
    """Notes each operator that would wait, and how many there are in all."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []
        self.operators: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name()
        self.operators.add(name)
        waits = bool(WAITS & set(func.tags)) or name in COPIES
        if name in INDEXES:
            waits = any(index is not None and index.dtype == torch.bool for index in args[1])
        if waits:
            self.waited.append(name)
        result = func(*args, **kwargs or {})
        if name in MOVES and len({tensor.device for tensor in (*_tensors(args), result)}) > 1:
            self.waited.append(name)
        return result


def _tensors(args: Any) -> list[Tensor]:
    return [arg for arg in args if isinstance(arg, Tensor)]


class WatchedSteps(pl.Callback):
    """Watches everything between the ends of the first and the last step, drawing of rows too."""

    def __init__(self) -> None:
        self.watch = Watch()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 1:
            self.watch.__enter__()
        elif trainer.global_step == trainer.max_steps:
            self.watch.__exit__(None, None, None)


ALGORITHMS = {
    "CQL": (CQL, {"alpha": 0.1, "temperature": 0.1, "value_range": (0.0, 1.0)}),
    "CQL, masked": (CQL, {"actions": "admissible", "double_q": True}),
    "CQL members": (
        CQL,
        {
            "alpha": [0.1, 0.2],
            "temperature": [0.1, 1.0],
            "learning_rate": [1e-3, 1e-4],
            "tau": [0.1, 0.2],
            "gamma": [0.9, 1.0],
            "schedule": "cosine",
            "actions": "supported",
        },
    ),
    "DQN": (DQN, {"seed": [1, 2], "learning_rate": [1e-3, 1e-4]}),
    "BC": (BC, {"schedule": "cosine", "actions": "supported"}),
}


@pytest.fixture
def watched(records, make_trainer, monkeypatch):
    """A fit of six steps, five of them watched; rows are drawn in each."""
    monkeypatch.setattr(sepsis_rl.data.batches, "_ROWS_PER_BLOCK", 1)

    def watched(module, batch_size) -> Watch:
        data = OfflineDataModule(
            episodes=200,
            held_out_episodes=50,
            report_episodes=50,
            batch_size=batch_size,
            dynamics="empirical_bayes" if batch_size == "all" else "counts",
            cache_dir=str(records),
        )
        steps = WatchedSteps()
        trainer = make_trainer(6, gradient_clip_val=1.0, log_every_n_steps=0, callbacks=[steps])
        trainer.fit(module, datamodule=data)
        return steps.watch

    return watched


@pytest.mark.parametrize("batch_size", ["all", 32])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_step_waits(watched, name, batch_size):
    algorithm, options = ALGORITHMS[name]
    watch = watched(algorithm(**options, **NARROW), batch_size)
    assert watch.waited == []
    # All of a step was watched.
    assert {"aten::_fused_adam_", "aten::linalg_vector_norm", "aten::baddbmm"} <= watch.operators
    assert ("aten::_foreach_lerp_.Scalar" in watch.operators) or name in ("BC", "CQL members")


READERS = {
    "aten::_local_scalar_dense": lambda loss: bool((loss > 0).all()),
    "aten::equal": lambda loss: torch.equal(loss, loss),
    "aten::nonzero": lambda loss: (loss > 0).nonzero(),
    "aten::index.Tensor": lambda loss: loss[loss > 0],
    "aten::index_put_": lambda loss: loss.detach().clone().index_put_((loss > 0,), loss[0]),
    "aten::lift_fresh": lambda loss: loss * torch.tensor(0.5),
}


class Impatient(CQL):
    """Reads a value in every step."""

    def losses(self, batch):
        losses = super().losses(batch)
        self.read(losses["loss"])
        return losses


@pytest.mark.parametrize("operator", READERS)
def test_one_that_waits_is_found(watched, operator):
    module = Impatient(**NARROW)
    module.read = READERS[operator]
    assert watched(module, "all").waited.count(operator) == 5


# -- on another device -------------------------------------------------------------------------


@pytest.fixture
def steps_elsewhere(data, monkeypatch):
    """Three steps by the module's own hooks, as Lightning calls them, on torch's `meta` device.

    It is one without values, but another than that of Python's numbers and of new tensors.
    """
    monkeypatch.setattr(sepsis_rl.data.batches, "_ROWS_PER_BLOCK", 1)
    # It has the fused kernel, but is not in the list of devices that have.
    supported = "_get_fused_kernels_supported_devices"
    monkeypatch.setattr(sys.modules["torch.optim.optimizer"], supported, lambda: ["meta"])

    def steps_elsewhere(module, form) -> Watch:
        module.build(716, 25)
        module.to("meta")
        batches = iter(FORMS[form](data, module))
        optimizer, updates = module.configure_optimizers(), module.configure_callbacks()
        module._trainer = SimpleNamespace(
            accumulate_grad_batches=1,
            log_every_n_steps=0,
            global_step=3,
            max_steps=9,
            optimizers=[optimizer],
            callbacks=updates,
        )
        for update in updates:
            update.on_train_start(module._trainer, module)
        with Watch() as watch:
            for step in range(3):
                optimizer.zero_grad()
                module.training_step(next(batches), step).backward()
                module.configure_gradient_clipping(optimizer, 1.0)
                module.on_before_optimizer_step(optimizer)
                optimizer.step()
        assert all(parameter.is_meta for parameter in module.parameters())
        assert "aten::_fused_adam_" in watch.operators
        return watch

    return steps_elsewhere


def drawn_rows(data, module):
    return AddressedBatches(TransitionTable(data.train, "meta"), module.member_seeds, 32)


def all_records(data, module):
    """The products are of dense matrices, since those of csr are not to be had there."""
    table = torch.ones(716, 25, device="meta")
    states = torch.arange(716, device="meta").unsqueeze(0)
    batch = WholeBatch(
        states=states,
        next_states=states,
        share=table,
        first=0,
        processes=1,
        rewards=table,
        rows=torch.ones(716, 716, device="meta"),
        mixture=torch.ones(716 * 25, 716, device="meta"),
    )
    return itertools.repeat(batch)


FORMS = {"rows": drawn_rows, "all": all_records}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_step_moves_anything_between_devices(steps_elsewhere, name, form):
    algorithm, options = ALGORITHMS[name]
    assert steps_elsewhere(algorithm(**options, **NARROW), form).waited == []


def test_a_move_between_devices_is_found(steps_elsewhere):
    module = Impatient(**NARROW)
    module.read = lambda loss: torch.arange(2.0).to(loss.device)
    assert steps_elsewhere(module, "rows").waited == ["aten::_to_copy"] * 3

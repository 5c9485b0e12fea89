"""Which batches `OfflineDataModule` hands out to whom."""

import itertools
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from sepsis_rl.data import OfflineDataModule, RowBatch, Transitions
from sepsis_rl.data.batches import AddressedBatches, TransitionTable
from sepsis_rl.data.transitions import Provenance
from sepsis_rl.errors import InputError

DTYPES = RowBatch(torch.int64, torch.int64, torch.float32, torch.int64, torch.float32)


def take(batches, n):
    return list(itertools.islice(iter(batches), n))


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


def join(batches, dim):
    return RowBatch(*(torch.cat(columns, dim) for columns in zip(*batches, strict=True)))


# -- rows on the device ------------------------------------------------------------------------


def any_transitions(rng, largest, rewards, n=5000):
    """Rows without any rule; `rewards` draws theirs."""
    return Transitions(
        episode=np.zeros(n, dtype=int),
        step=np.arange(n),
        observation=rng.integers(0, largest + 1, n),
        action=rng.integers(0, largest + 1, n),
        reward=rewards(n),
        next_observation=rng.integers(0, largest + 1, n),
        terminated=rng.integers(0, 2, n).astype(bool),
        truncated=rng.integers(0, 2, n).astype(bool),
        provenance=Provenance("Test-v0", "1", "p", None, 1, "s"),
    )


@pytest.mark.parametrize("largest", [0, 1, 1000, 2**20 - 1])
def test_packed_rows_of_any_size(largest):
    """Fields of no bits to 63 bits together; negative rewards; truncation is not termination."""
    rng = np.random.default_rng(0)
    many = 1 < largest < 2000
    transitions = any_transitions(
        rng, largest, rng.standard_normal if many else lambda n: rng.integers(-1, 2, n) / 2
    )
    gathered = TransitionTable(transitions, "cpu").gather(torch.arange(5000).view(50, 100))
    for name, column, dtype in zip(RowBatch._fields, gathered, DTYPES, strict=True):
        assert column.shape == (50, 100)
        assert column.dtype == dtype
        np.testing.assert_array_equal(column.flatten().numpy(), getattr(transitions, name))


def test_rows_that_cannot_be_packed_are_refused():
    rng = np.random.default_rng(0)
    five_rewards = any_transitions(rng, 2**20 - 1, lambda n: rng.integers(-2, 3, n) / 2)
    with pytest.raises(InputError, match="63 bits"):  # 3 x 20 + 3 + 1
        TransitionTable(five_rewards, "cpu")


# -- training batches --------------------------------------------------------------------------


def test_a_resumed_run_meets_the_batches_it_would_have_met(make):
    """Wherever a block of batches ends."""
    straight = take(make().train_dataloader(), 300)
    for step in (1, 37, 128, 250):
        resumed = take(make(trainer={"step": step}).train_dataloader(), 300 - step)
        assert_same(resumed, straight[step:])


def test_the_step_is_read_when_an_iteration_begins(make):
    data = make()
    loader = data.train_dataloader()
    straight = take(loader, 10)
    data.trainer.global_step = 4  # a checkpoint is restored after the loader was made
    assert_same(take(loader, 6), straight[4:])


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_shares_of_ranks_make_up_the_global_batch(make, world_size):
    def batches(**place):
        trainer = {"step": 5, "seeds": (42, 7, 9), **place}
        return take(make(trainer=trainer).train_dataloader(), 150)

    shares = [batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert shares[0][0].action.shape == (3, 256 // world_size)
    assert_same([join(parts, 1) for parts in zip(*shares, strict=True)], batches())


def test_a_member_gets_the_batches_of_a_single_run(make):
    """Those of one seed share theirs."""
    seeds = (42, 3, 1_000_042, 3)
    stack = take(make(trainer={"step": 10, "seeds": seeds}).train_dataloader(), 140)
    for member, seed in enumerate(seeds):
        single = take(make(trainer={"step": 10, "seeds": (seed,)}).train_dataloader(), 140)
        assert_same([RowBatch(*(c[member : member + 1] for c in batch)) for batch in stack], single)
    assert not torch.equal(stack[0].observation[0], stack[0].observation[1])


def test_rows_are_drawn_uniformly_with_replacement(make):
    table = TransitionTable(make().train, "cpu")
    drawn = []
    table.gather = lambda rows: drawn.append(rows) or RowBatch(rows, rows, rows, rows, rows)
    take(AddressedBatches(table, torch.tensor([0]), 256), 1024)
    rows = torch.cat([block.flatten() for block in drawn])
    assert len(rows) == 1024 * 256
    counts = torch.bincount(rows, minlength=len(table)).double()
    assert len(counts) == len(table) > 400
    expected = len(rows) / len(table)
    # Chi-square over its degrees of freedom: mean 1, standard deviation sqrt(2 / 500).
    assert 0.8 < ((counts - expected).square() / expected).mean() < 1.2
    assert len(rows[:256].unique()) < 256


def test_a_batch_that_does_not_split_evenly_is_refused(make):
    trainer = {"world_size": 3}
    with pytest.raises(InputError, match=r"data\.batch_size=256 cannot be split evenly over 3"):
        make(trainer=trainer)
    make(stage="validate", trainer=trainer)
    assert take(make(batch_size=255, trainer=trainer).train_dataloader(), 1)[0][0].shape == (1, 85)


# -- held-out batches --------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_held_out_rows_come_once_and_in_order(make, monkeypatch, world_size):
    monkeypatch.setattr("sepsis_rl.data.batches._ROWS_PER_HELD_OUT_BATCH", 30)
    loaders = [
        make(trainer={"rank": rank, "world_size": world_size}, batch_size=6).val_dataloader()
        for rank in range(world_size)
    ]
    largest_share = -(-len(make().held_out) // world_size)
    assert [len(loader) for loader in loaders] == [-(-largest_share // 30)] * world_size
    assert len(loaders[0]) > 1
    batches = [batch for loader in loaders for batch in loader]
    assert_same([batch for loader in loaders for batch in loader], batches)  # again
    assert all(0 < batch.action.shape[1] <= 30 for batch in batches)
    assert sum(map(len, loaders)) == len(batches)
    joined, held_out = join(batches, 1), make().held_out
    for name, column in zip(RowBatch._fields, joined, strict=True):
        assert column.shape == (1, len(held_out))
        np.testing.assert_array_equal(column[0].numpy(), getattr(held_out, name))


def test_batches_stay_on_their_device(make):
    data = make()
    (batch,) = take(data.train_dataloader(), 1)
    assert data.transfer_batch_to_device(batch, torch.device("meta"), 0) is batch


def test_more_ranks_than_held_out_rows(make):
    with pytest.raises(InputError, match="held-out rows cannot be split over 256 processes"):
        make(held_out_episodes=1, trainer={"world_size": 256})


# -- checkpoints -------------------------------------------------------------------------------


def test_other_data_on_resume_are_named(make):
    state = make().state_dict()
    make().load_state_dict(state)  # warnings are errors, so this one is silent
    for other in ({"seed": 1}, {"held_out_seed": 1}):
        with pytest.warns(UserWarning, match="trained on other data"):
            make(**other).load_state_dict(state)


# -- a real Trainer ----------------------------------------------------------------------------


class Recorder(pl.LightningModule):
    """Two members that learn next to nothing and remember the batches they met."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 1))
        self.register_buffer("member_seeds", torch.tensor([42, 7]), persistent=False)
        self.batches = []
        self.held_out = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        return (self.weight - batch.reward).square().mean()

    def validation_step(self, batch, batch_idx):
        self.held_out.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, steps, checkpoint=None, accumulate=1):
    module = Recorder()
    trainer = pl.Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        val_check_interval=5,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return trainer, module


# `pytest.warns` raises what it was not asked for anew, out of reach of the project's own filter.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_with_a_real_trainer(cache_dir, tmp_path, accumulate):
    sizes = {"episodes": 60, "held_out_episodes": 20}
    new_data = partial(OfflineDataModule, cache_dir=str(cache_dir), **sizes)
    data = new_data()
    _, straight = fit(data, 20, accumulate=accumulate)
    assert len(straight.batches) == 20 * accumulate
    table = TransitionTable(data.train, "cpu")
    expected = take(AddressedBatches(table, torch.tensor([42, 7]), 256), 20 * accumulate)
    assert_same(straight.batches, expected)
    # One pass over the held-out rows after every fifth batch.
    passes = 4 * accumulate
    assert join(straight.held_out, 1).action.shape == (1, passes * len(data.held_out))

    trainer, first = fit(new_data(), 7, accumulate=accumulate)
    checkpoint = tmp_path / "7.ckpt"
    trainer.save_checkpoint(checkpoint)
    _, second = fit(new_data(), 20, checkpoint, accumulate=accumulate)
    assert_same(first.batches + second.batches, straight.batches)
    assert torch.equal(second.weight, straight.weight)

    with pytest.warns(UserWarning, match="trained on other data"):
        fit(new_data(seed=5), 8, checkpoint, accumulate=accumulate)

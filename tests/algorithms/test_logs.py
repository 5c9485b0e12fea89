"""What is logged of a run and of its members, and when."""

import math

import pytest
import torch
from by_hand import NARROW
from lightning.pytorch.loggers import Logger

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.data.batches import TransitionTable


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


TD = {"td_loss", "q_data", "q_max"}


@pytest.mark.parametrize(
    ("algorithm", "keys", "every", "logged"),
    [
        (BC, {"imitation_loss"}, 10, [10, 20]),
        (DQN, TD, 10, [10, 20]),
        (CQL, TD | {"conservative_loss"}, 10, [10, 20]),
        (DQN, TD, 0, []),  # Lightning's way to switch it off
    ],
)
def test_training_logs(fit, algorithm, keys, every, logged):
    """On logging steps alone, at the number of optimizer steps taken."""
    log = Log()
    fit(algorithm(**NARROW), 25, logger=log, log_every_n_steps=every)
    assert set(log.metrics) == {f"train/{key}" for key in keys | {"loss", "grad_norm"} if logged}
    for values in log.metrics.values():
        assert [step for step, _ in values] == logged
        assert all(math.isfinite(value) for _, value in values)


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
    trainer = make_trainer(limit_val_batches=1.0, logger=log)
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

"""A LightningModule that is several members at once: their settings, and their logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from sepsis_rl.algorithms.members import Members, expand_members
from sepsis_rl.errors import InputError


class Population(pl.LightningModule):
    """Members that are trained side by side, each with a setting of its own.

    A member is one setting of the scalars in `SETTINGS`. A scalar given as a list spans the
    population, several lists span their product, and a single run is a population of one.

    A class declares, describes and checks its own constructor arguments, by keyword alone, and
    hands on those of its parents. The arguments of all of them are in `hparams`.

    Args:
        seed: Seed of the initial weights and the batches; may be a list.
        share: `k/n` trains every n-th member from the k-th on, and other runs train the rest.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("seed",)
    """Names of the arguments that may be lists; the last one varies fastest."""

    member_seeds: Tensor

    def __init__(self, *, seed: int | list[int] = 42, share: str | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()  # the arguments of the subclasses too, collected by Lightning
        self.check("seed", "an integer from 0 to 2**63 - 1", lambda value: 0 <= value < 2**63)
        self.members: Members = expand_members(
            {name: self.hparams[name] for name in self.SETTINGS}, share
        )
        self.register_buffer("member_seeds", torch.tensor(self.seeds), persistent=False)

    def check(self, name: str, accepted: str, holds: Callable[[Any], bool]) -> None:
        """Checks a constructor argument, or each value of a listed one.

        Raises:
            InputError: `holds` is false for a value.
        """
        given = self.hparams[name]
        for value in given if isinstance(given, list | tuple) else [given]:
            try:
                is_accepted = holds(value)
            except TypeError:  # null is no number to compare with
                is_accepted = False
            if not is_accepted:
                shown = "null" if value is None else value
                raise InputError(f"model.{name}={shown} cannot be used: give {accepted}")

    def register_setting(self, name: str) -> None:
        """Keeps a scalar of all members as a buffer of shape (members, 1), which moves along."""
        values = torch.tensor(self.members.values(name), dtype=torch.float32).unsqueeze(1)
        self.register_buffer(name, values, persistent=False)

    @property
    def seeds(self) -> list[int]:
        """Each member's seed."""
        return [int(seed) for seed in self.members.values("seed")]

    @property
    def labels(self) -> list[str]:
        """What the members' policies are called."""
        return [f"{type(self).__name__} {name}".strip() for name in self.members.names]

    @property
    def is_logging_step(self) -> bool:
        """Whether the step under way is logged."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def log_members(self, metrics: dict[str, Tensor]) -> None:
        """Logs a value per member: itself for a single run, else the median and each member's.

        A member's values are logged under `<member's name>/<metric>`, straight to the loggers:
        Lightning's own bookkeeping of a few hundred values would cost more than the step.

        Args:
            metrics: Name to values, (members,).
        """
        training = self.trainer.training
        # Lightning's x-axis counts from 0 and lags after a resume; ours is optimizer steps taken.
        step = self.global_step + training
        # float64 is not to be had on every accelerator, so what is logged is float32.
        values = torch.stack([value.detach().float().reshape(-1) for value in metrics.values()])
        if training and self.trainer.world_size > 1:
            values = self._over_processes(values, list(metrics))
        # A member that has diverged leaves the others their median.
        for name, value in zip(metrics, values.nanquantile(0.5, dim=1), strict=True):
            self.log(name, value)
        self.log("step", float(step))
        if len(self.members) > 1:
            members = {
                f"{member}/{name}": value
                for name, row in zip(metrics, values.tolist(), strict=True)
                for member, value in zip(self.members.names, row, strict=True)
            }
            for logger in self.loggers:
                logger.log_metrics(members, step)

    def _over_processes(self, values: Tensor, names: list[str]) -> Tensor:
        """Joins values (metrics, members) of processes, each of which has a share of the batch."""
        is_maximum = torch.tensor([name.endswith("_max") for name in names]).unsqueeze(1)
        reduce = self.trainer.strategy.reduce
        largest = reduce(values.clone(), reduce_op="max")
        return torch.where(is_maximum.to(values.device), largest, reduce(values, reduce_op="mean"))

"""What CQL, DQN and behavior cloning share: members, networks, optimizer, logs and the policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam, Optimizer

from sepsis_rl.algorithms.losses import clip_grad_norm_by_member
from sepsis_rl.algorithms.members import Members, expand_members
from sepsis_rl.algorithms.networks import QNetwork
from sepsis_rl.data.batches import Batch
from sepsis_rl.errors import InputError
from sepsis_rl.metrics import MemberMean
from sepsis_rl.policies import Policy

CHECKPOINT_FORMAT: Final = 2


class OfflineAlgorithm(pl.LightningModule):
    """A population of agents that learn from recorded transitions.

    A member is one setting of the scalars in `SETTINGS`. A scalar given as a list spans the
    population, several lists span their product, and a single run is a population of one.

    Subclasses say what a member's loss is (`losses`), and may say how scores become a policy.

    Args:
        embedding_dim: Width of the learned state vector.
        hidden_dims: Widths of the hidden layers.
        min_action_count: The policy chooses among actions that the training data has at least this
            often in the state (0: among all). A state without any such action keeps all.
        share: `k/n` trains every n-th member from the k-th on, and other runs train the rest.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("learning_rate", "seed")
    """Names of the constructor arguments that may be lists; the last one varies fastest."""

    member_seeds: Tensor
    allowed_actions: Tensor
    q_network: QNetwork

    def __init__(
        self,
        embedding_dim: int,
        hidden_dims: Sequence[int],
        min_action_count: int,
        share: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # the arguments of the subclass, collected by Lightning
        self.check("learning_rate", "a number above 0", lambda value: 0 < value < math.inf)
        self.check("seed", "an integer from 0 to 2**63 - 1", lambda value: 0 <= value < 2**63)
        self.check("min_action_count", "an integer from 0 upward", lambda value: value >= 0)
        self.check("embedding_dim", "an integer of at least 1", lambda value: value >= 1)
        self.check("hidden_dims", "integers of at least 1, one for each layer", lambda v: v >= 1)
        if not hidden_dims:
            raise InputError("model.hidden_dims=[] cannot be used: give at least one layer's width")
        self.members: Members = expand_members(
            {name: self.hparams[name] for name in self.SETTINGS}, share
        )
        self.embedding_dim = embedding_dim
        self.hidden_dims = tuple(hidden_dims)
        self.min_action_count = min_action_count
        self.register_buffer("member_seeds", torch.tensor(self.seeds), persistent=False)
        self.validation_loss = MemberMean(len(self.members))
        self._rate_ratios: list[Tensor] = []
        self._weights_before: list[Tensor] = []

    def check(self, name: str, accepted: str, holds: Callable[[Any], bool]) -> None:
        """Checks a constructor argument, or each value of a listed one.

        Raises:
            InputError: `holds` is false for a value.
        """
        given = self.hparams[name]
        for value in given if isinstance(given, list | tuple) else [given]:
            if not holds(value):
                raise InputError(f"model.{name}={value} cannot be used: give {accepted}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Spares `torch.nn.Module`'s search through parameters, buffers and modules for one name.

        Lightning notes the hook that is under way some forty times a step, which cost 3 % of it.
        """
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def seeds(self) -> list[int]:
        """Each member's seed: its initial weights and its batches follow from it."""
        return [int(seed) for seed in self.members.values("seed")]

    def register_setting(self, name: str) -> None:
        """Keeps a scalar of all members as a buffer of shape (members, 1), which moves along."""
        values = torch.tensor(self.members.values(name), dtype=torch.float32).unsqueeze(1)
        self.register_buffer(name, values, persistent=False)

    # -- networks ------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Builds the networks once the data has said how many states and actions there are."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(self, "q_network"):
            self.build(data.n_states, data.n_actions)
        if self.min_action_count > 0:
            self.mask_actions(data.pair_counts)

    def build(self, n_states: int, n_actions: int) -> None:
        """Creates the networks.

        Args:
            n_states: Number of discrete states.
            n_actions: Number of actions.
        """
        self.q_network = QNetwork(
            n_states, n_actions, self.embedding_dim, self.hidden_dims, self.seeds
        )
        everything = torch.ones(n_states, n_actions, dtype=torch.bool)
        self.register_buffer("allowed_actions", everything)

    def mask_actions(self, pair_counts: NDArray[np.int64]) -> None:
        """Keeps the policy to actions that the data has at least `min_action_count` times.

        Args:
            pair_counts: How often the training data has each pair, (n_states, n_actions).
        """
        allowed = torch.as_tensor(pair_counts >= self.min_action_count)
        self.allowed_actions.copy_(allowed | ~allowed.any(-1, keepdim=True))

    # -- a gradient step -----------------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each member's loss on its batch, and what is logged beside it.

        Args:
            batch: Columns of shape (members, batch).

        Returns:
            Values (members,) by name; `loss` is what is minimized.
        """
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sums the members' losses, so that each gets the gradient of its own."""
        losses = self.losses(batch)
        last = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        if last and self._is_logging_step:
            self.log_members({f"train/{name}": value for name, value in losses.items()})
        return losses["loss"].sum()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | int | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by member, which Lightning's own clipping over all parameters would not."""
        gradients = [p.grad for p in self.q_network.parameters() if p.grad is not None]
        norm = clip_grad_norm_by_member(gradients, gradient_clip_val or None)
        if self._is_logging_step:
            self.log_members({"train/grad_norm": norm})

    def configure_optimizers(self) -> Optimizer:
        """One fused Adam for the whole population; target networks are not part of it."""
        rates = self.members.values("learning_rate")
        optimizer = Adam(self.q_network.parameters(), lr=max(rates), fused=True)
        if min(rates) < max(rates):
            optimizer.register_step_post_hook(self._scale_step_by_member)
        return optimizer

    def on_fit_start(self) -> None:
        """Refuses what would clip wrongly.

        Raises:
            InputError: The precision or the clipping algorithm is not supported.
        """
        if self.trainer.precision == "16-mixed":  # fused Adam unscales after the clipping
            raise InputError(
                "trainer.precision=16-mixed cannot be used: give 32-true or bf16-mixed"
            )
        if self.trainer.gradient_clip_algorithm == "value":
            raise InputError(
                "trainer.gradient_clip_algorithm=value cannot be used: give norm, which is the "
                "default and goes by member"
            )

    def on_train_start(self) -> None:
        """Lets the configured learning rate win over the one in a resumed checkpoint."""
        rates = self.members.values("learning_rate")
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = max(rates)
        if min(rates) < max(rates):
            ratio = torch.tensor(rates, device=self.device) / max(rates)
            self._rate_ratios = [
                ratio.view(-1, *[1] * (p.ndim - 1)) for p in self.q_network.parameters()
            ]

    # One fused optimizer has one learning rate. Adam's step is proportional to it, so members with
    # a smaller one get their share of a step with the largest: the weights are put aside before the
    # step, which then is all that the parameters hold after it, and is scaled and added.

    @torch.no_grad()
    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Puts the weights aside if the members differ in their learning rates."""
        if self._rate_ratios:
            self._weights_before = [p.clone() for p in self.q_network.parameters()]
            for parameter in self.q_network.parameters():
                parameter.zero_()

    @torch.no_grad()
    def _scale_step_by_member(self, *_: Any) -> None:
        for parameter, before, ratio in zip(
            self.q_network.parameters(), self._weights_before, self._rate_ratios, strict=True
        ):
            parameter.mul_(ratio).add_(before)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Scores states.

        Args:
            batch: int64 states, (batch,).
            batch_idx: Not used.

        Returns:
            (members, batch, n_actions).
        """
        scores: Tensor = self.q_network(batch.expand(len(self.members), -1))
        return scores

    # -- held-out loss -------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds the loss on held-out rows; every member sees all of them."""
        shared = Batch(*(column.expand(len(self.members), -1) for column in batch))
        self.validation_loss.update(self.losses(shared)["loss"], batch.observation.shape[1])

    def on_validation_epoch_end(self) -> None:
        """Logs the mean held-out loss."""
        group = "test" if self.trainer.testing else "val"
        self.log_members({f"{group}/loss": self.validation_loss.compute()})
        self.validation_loss.reset()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    # -- logs ----------------------------------------------------------------------------------

    @property
    def _is_logging_step(self) -> bool:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def log_members(self, metrics: dict[str, Tensor], **options: Any) -> None:
        """Logs a value per member: itself for a single run, else the median and each member's.

        A member's values are logged under `<member's name>/<metric>`, straight to the loggers:
        Lightning's own bookkeeping of a few hundred values would cost more than the step.

        Args:
            metrics: Name to values, (members,).
            options: Passed on to `LightningModule.log`.
        """
        training = self.trainer.training
        # Lightning's x-axis counts from 0 and lags after a resume; ours is optimizer steps taken.
        step = self.global_step + training
        # float64 is not to be had on every accelerator, so what is logged is float32.
        values = torch.stack([value.detach().float().reshape(-1) for value in metrics.values()])
        if training and self.trainer.world_size > 1:  # each process has a share of the batch
            is_maximum = torch.tensor([name.endswith("_max") for name in metrics]).unsqueeze(1)
            reduce = self.trainer.strategy.reduce
            largest = reduce(values.clone(), reduce_op="max")
            values = torch.where(
                is_maximum.to(values.device), largest, reduce(values, reduce_op="mean")
            )
        # A member that has diverged leaves the others their median.
        for name, value in zip(metrics, values.nanquantile(0.5, dim=1), strict=True):
            self.log(name, value, **options)
        self.log("step", float(step))
        if len(self.members) > 1:
            members = {
                f"{member}/{name}": value
                for name, row in zip(metrics, values.tolist(), strict=True)
                for member, value in zip(self.members.names, row, strict=True)
            }
            for logger in self.loggers:
                logger.log_metrics(members, step)

    # -- the policy ----------------------------------------------------------------------------

    @property
    def labels(self) -> list[str]:
        """What the members' policies are called."""
        return [f"{type(self).__name__} {name}".strip() for name in self.members.names]

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Scores of all actions in all states; actions outside the mask score -inf.

        Returns:
            (members, n_states, n_actions).
        """
        return self.q_network.table().masked_fill(~self.allowed_actions, -torch.inf)

    @torch.no_grad()
    def diverged(self) -> Tensor:
        """Which members have a network that gives infinities or no numbers, and so no policy.

        Returns:
            bool, (members,).
        """
        return ~self.q_network.table().isfinite().all(dim=2).all(dim=1)

    @torch.no_grad()
    def policy_tables(self) -> Tensor:
        """The members' policies: the highest score's action, the lowest index on ties.

        Returns:
            Probabilities, float64, (members, n_states, n_actions). What stands there for a member
            that has `diverged` means nothing.
        """
        scores = self.scores().masked_fill(self.diverged()[:, None, None], 0.0)
        greedy = torch.zeros_like(scores, dtype=torch.float64)
        return greedy.scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)

    def policy(self, member: int = 0) -> Policy:
        """One member's policy as a table of probabilities.

        Args:
            member: Counted from 0.
        """
        return Policy(self.labels[member], self.policy_tables()[member].cpu().numpy())

    def policies(self) -> list[Policy | None]:
        """The members' policies; None for one that has diverged."""
        tables, diverged = self.policy_tables().cpu().numpy(), self.diverged().tolist()
        return [
            None if lost else Policy(label, table)
            for label, table, lost in zip(self.labels, tables, diverged, strict=True)
        ]

    def value_estimates(self, start: Tensor, policies: Tensor) -> Tensor | None:
        """What the network itself takes its policy to be worth at the start of an episode.

        Args:
            start: Start distribution, (n_states,).
            policies: (members, n_states, n_actions).

        Returns:
            (members,), or None where the scores are not values.
        """
        return None

    # -- checkpoints ---------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what identifies the checkpoint: format, algorithm and members."""
        checkpoint["sepsis_rl"] = {
            "format": CHECKPOINT_FORMAT,
            "algorithm": type(self).__name__,
            "members": list(self.members.settings),
            "names": list(self.members.names),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lets the configured mask win over the checkpoint's, as the other settings do."""
        checkpoint["state_dict"]["allowed_actions"] = self.allowed_actions

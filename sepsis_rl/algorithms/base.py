"""What CQL, DQN and behavior cloning share: networks, a gradient step, and the policies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from sepsis_rl.algorithms.networks import QNetwork, looked_up
from sepsis_rl.algorithms.optimizer import MemberAdam, clip_grad_norm_by_member, cosine_decay
from sepsis_rl.algorithms.population import Population
from sepsis_rl.data.batches import RowBatch
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.data.whole import Batch
from sepsis_rl.dynamics import all_where_none
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray
from sepsis_rl.metrics import MemberMean
from sepsis_rl.policies import Policy, policies_from_scores

CHECKPOINT_FORMAT: Final = 3
"""Since 2 a checkpoint holds the action mask, without which no masked policy can be rebuilt; since
3 `actions` says what the mask is."""

ACTIONS: Final = ("all", "supported", "admissible")
"""What policies may choose among."""


class OfflineAlgorithm(Population):
    """A population of agents that learn from recorded transitions.

    A subclass says what a member's loss is (`losses`).

    Args:
        learning_rate: Adam's step size; may be a list.
        schedule: Learning rate over the steps: `constant`, or `cosine`, half a wave down to 0.
        embedding_dim: Width of the learned state vector.
        hidden_dims: Widths of the hidden layers.
        actions: What the policy, and the value of a next state, choose among: `all`; `supported`,
            those recorded in the state at least `min_action_count` times; `admissible`, those that
            the environment publishes, which are all where it publishes none. A state without any
            such action keeps all.
        min_action_count: How often an action is recorded where it is supported, at least.
        kwargs: Those of `Population`.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("learning_rate", *Population.SETTINGS)
    q_network: QNetwork
    allowed_actions: Tensor

    def __init__(
        self,
        *,
        learning_rate: float | list[float] = 3e-4,
        schedule: Literal["constant", "cosine"] = "constant",
        embedding_dim: int = 256,
        hidden_dims: Sequence[int] = (256, 256),
        actions: Literal["all", "supported", "admissible"] = "all",
        min_action_count: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check("learning_rate", "a number above 0", lambda value: 0 < value < math.inf)
        self.check("schedule", "constant or cosine", ("constant", "cosine").__contains__)
        self.check("actions", "all, supported or admissible", ACTIONS.__contains__)
        self.check("min_action_count", "an integer from 1 upward", lambda value: value >= 1)
        if actions != "supported" and min_action_count != 1:
            raise InputError(
                f"model.min_action_count={min_action_count} cannot be used with model.actions="
                f"{actions}: it says which actions are supported"
            )
        self.check("embedding_dim", "an integer of at least 1", lambda value: value >= 1)
        self.check("hidden_dims", "integers of at least 1, one for each layer", lambda v: v >= 1)
        if not hidden_dims:
            raise InputError("model.hidden_dims=[] cannot be used: give at least one layer's width")
        self.embedding_dim, self.hidden_dims = embedding_dim, tuple(hidden_dims)
        self.schedule, self.actions, self.min_action_count = schedule, actions, min_action_count
        self.sampled = False  # whether the policies sample their actions
        self.validation_loss = MemberMean(len(self.members))
        self._scores: dict[QNetwork, Tensor] = {}

    # -- networks ------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Builds the networks once the data has said how many states and actions there are."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(self, "q_network"):
            self.build(data.n_states, data.n_actions)
        self.mask_actions(data.pair_counts, None if data.mdp is None else data.mdp.admissible)

    def build(self, n_states: int, n_actions: int) -> None:
        """Creates the networks, and a mask that allows all actions.

        Args:
            n_states: Number of discrete states.
            n_actions: Number of actions.
        """
        self.q_network = self.new_network(n_states, n_actions)
        everything = torch.ones(n_states, n_actions, dtype=torch.bool)
        self.register_buffer("allowed_actions", everything)

    def new_network(self, n_states: int, n_actions: int) -> QNetwork:
        """Creates a stack of networks with the members' initial weights."""
        return QNetwork(n_states, n_actions, self.embedding_dim, self.hidden_dims, self.seeds)

    def mask_actions(
        self, pair_counts: NDArray[np.int64], admissible: BoolArray | None = None
    ) -> None:
        """Settles which actions may be taken.

        Args:
            pair_counts: How often the training data has each pair, (n_states, n_actions).
            admissible: The actions that the environment publishes as admissible, alike; None where
                it publishes none.
        """
        allowed = np.ones_like(pair_counts, dtype=np.bool_)
        if self.actions == "supported":
            allowed = pair_counts >= self.min_action_count
        elif self.actions == "admissible" and admissible is not None:
            allowed = admissible
        self.allowed_actions.copy_(torch.tensor(all_where_none(allowed)))

    def keep_allowed(self, scores: Tensor, states: Tensor) -> Tensor:
        """Sets the scores of actions that may not be taken to -inf.

        Args:
            scores: (members, states, n_actions).
            states: int64, (members or 1, states).
        """
        if self.actions == "all":
            return scores
        return scores.masked_fill(~self.allowed_actions[states], -math.inf)

    # -- a gradient step -----------------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each member's loss on its batch, and what is logged beside it.

        Args:
            batch: Rows for each member, or all records.

        Returns:
            Values (members,) by name; `loss` is what is minimized.
        """
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sums the members' losses, so that each gets the gradient of its own."""
        losses = self.losses(batch)
        last = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        if last and self.is_logging_step:
            self.log_members({f"train/{name}": value for name, value in losses.items()})
        return losses["loss"].sum()

    def configure_optimizers(self) -> Optimizer:
        """One fused Adam for the whole population; target networks are not part of it."""
        return MemberAdam(self.q_network.parameters(), self.members.values("learning_rate"))

    def on_fit_start(self) -> None:
        """Refuses what this algorithm cannot be trained by."""
        self.check_fit(self.trainer, self.trainer.datamodule)  # type: ignore[attr-defined]

    def check_fit(self, trainer: pl.Trainer, data: OfflineDataModule) -> None:
        """Refuses what would clip wrongly, and a schedule without an end.

        Raises:
            InputError: The precision or clipping is not supported, or there is no last step.
        """
        if self.schedule == "cosine" and trainer.max_steps < 1:
            raise InputError("model.schedule=cosine needs trainer.max_steps, which is not given")
        if trainer.precision not in ("32-true", "bf16-mixed"):
            # Of 16-mixed, fused Adam unscales the gradients after the clipping.
            given = f"trainer.precision={trainer.precision}"
            raise InputError(f"{given} cannot be used: give 32-true or bf16-mixed")
        if trainer.gradient_clip_algorithm == "value":
            raise InputError(
                "trainer.gradient_clip_algorithm=value cannot be used: give norm, which is the "
                "default and goes by member"
            )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Prepares the optimizer: the step's learning rate, and members that differ in theirs."""
        if isinstance(optimizer, MemberAdam):
            if self.schedule == "cosine":
                factor = cosine_decay(self.global_step, self.trainer.max_steps)
                optimizer.scale_learning_rates(factor)
            optimizer.set_weights_aside()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | int | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by member, which Lightning's own clipping over all parameters would not."""
        gradients = [p.grad for p in self.q_network.parameters() if p.grad is not None]
        norm = clip_grad_norm_by_member(gradients, gradient_clip_val or None)
        if self.is_logging_step:
            self.log_members({"train/grad_norm": norm})

    # -- an evaluation -------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Scores all states, once for the loss and for all callbacks that judge the policies."""
        self._scores = {own: own.table() for own in self.children() if isinstance(own, QNetwork)}

    def validation_step(self, batch: RowBatch, batch_idx: int) -> None:
        """Adds the loss on held-out rows; every member sees all of them."""
        shared = RowBatch(*(column.expand(len(self.members), -1) for column in batch))
        with looked_up(self._scores):
            self.validation_loss.update(self.losses(shared)["loss"], batch.observation.shape[1])

    def on_validation_epoch_end(self) -> None:
        """Logs the mean held-out loss."""
        group = "test" if self.trainer.testing else "val"
        self.log_members({f"{group}/loss": self.validation_loss.compute()})
        self.validation_loss.reset()

    def on_validation_end(self) -> None:
        """Forgets the scores, since the weights are about to change."""
        self._scores = {}

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

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

    # -- the policies --------------------------------------------------------------------------

    def all_scores(self) -> Tensor:
        """Scores all actions in all states by one forward pass; in an evaluation the first serves.

        Returns:
            (members, n_states, n_actions).
        """
        # An evaluation that ended in an exception has left its scores behind.
        evaluating = self._trainer is not None and self._trainer.evaluating
        known = self._scores.get(self.q_network) if evaluating else None
        return self.q_network.table() if known is None else known

    def policies(self) -> list[Policy | None]:
        """The members' policies, by one forward pass for all of them.

        Returns:
            A policy for each member; None for one that has diverged, whose network gives infinities
            or no numbers.
        """
        return policies_from_scores(
            self.labels,
            self.all_scores().cpu().double().numpy(),
            allowed=self.allowed_actions.cpu().numpy(),
            sampled=self.sampled,
        )

    def value_estimates(self, start: Tensor, policies: Sequence[Policy | None]) -> Tensor | None:
        """What the networks themselves take policies to be worth at the start of an episode.

        Args:
            start: Start distribution, float64, (n_states,).
            policies: One for each member; None for one that has diverged.

        Returns:
            float64, (members,), on the CPU; None where the scores are not values.
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

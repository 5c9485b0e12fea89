"""Fitted Q evaluation with a network.

`fitted_q` solves it for a table, where a rule says what a pair is worth that the records never
have. Here such a pair is worth what the network makes of it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from sepsis_rl.algorithms import DQN
from sepsis_rl.callbacks import FitProgressBar, SoftTargetUpdate
from sepsis_rl.data.batches import AddressedBatches, Batch, TransitionTable
from sepsis_rl.data.transitions import Transitions
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.policies import Policy


class NetworkFQE(DQN):
    """Fitted Q evaluation with networks, a member for each policy.

    Minimizes E[(Q(s, a) - y)^2], y = r + gamma * sum_a' pi(a'|s') Q_target(s', a'). It is `DQN`
    with a given policy in place of the greedy one.

    Source: Le, Voloshin & Yue (2019), "Batch policy learning under constraints", ICML, algorithm 3.
    Differences: the target network follows by `SoftTargetUpdate` at each gradient step, where the
    paper solves K regressions one after another; and policies may be stochastic, so the next value
    is an expectation. Values are not clipped to what returns can be.

    Members have the same seed unless several are given, so that policies are compared on the same
    initial weights and the same batches.

    Args:
        policies: Probabilities, (policies, n_states, n_actions).
        policy: Which of them, counted from 0; like the next four it may be a list, and the
            members are the product of all lists.
        gamma: Discount factor, in [0, 1].
        learning_rate: Adam's step size.
        tau: Share of the online network that enters the target at each step, in (0, 1].
        seed: Initial weights and batches follow from it.
        embedding_dim: Width of the learned state vector.
        hidden_dims: Widths of the hidden layers.

    Raises:
        InputError: An argument is out of range.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("policy", *DQN.SETTINGS)

    policies: Tensor

    def __init__(
        self,
        policies: Tensor,
        policy: int | list[int] = 0,
        gamma: float | list[float] = 1.0,
        learning_rate: float | list[float] = 3e-4,
        tau: float | list[float] = 0.02,
        seed: int | list[int] = 0,
        embedding_dim: int = 64,
        hidden_dims: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(
            gamma,
            learning_rate,
            tau,
            seed,
            embedding_dim=embedding_dim,
            hidden_dims=hidden_dims,
        )
        # The base class saved all arguments; these are data, as large as a network.
        self.save_hyperparameters(ignore="policies")
        last = len(policies) - 1
        self.check("policy", f"an integer from 0 to {last}", lambda index: 0 <= index <= last)
        of_member = torch.tensor(self.members.values("policy"), dtype=torch.int64)
        self.register_buffer("policies", policies[of_member].float(), persistent=False)
        self.build(*policies.shape[1:])

    @torch.no_grad()
    def td_target(self, batch: Batch) -> Tensor:
        """The value each Q(s, a) of the batch is regressed on, (members, batch)."""
        member = torch.arange(len(self.policies), device=self.policies.device).unsqueeze(1)
        probability = self.policies[member, batch.next_observation]
        next_q: Tensor = self.target_q_network(batch.next_observation)
        next_value = (probability * next_q).sum(-1)
        return batch.reward + self.gamma * (1 - batch.terminated) * next_value


def fit_network_fqe(
    policies: Sequence[Policy],
    transitions: Transitions,
    *,
    n_states: int,
    n_actions: int,
    gamma: float = 1.0,
    steps: int = 20_000,
    learning_rate: float = 3e-4,
    tau: float = 0.02,
    batch_size: int = 256,
    embedding_dim: int = 64,
    hidden_dims: Sequence[int] = (64, 64),
    seed: int = 0,
    accelerator: str = "auto",
    progress: bool = False,
) -> FloatArray:
    """Trains `NetworkFQE` on recorded episodes, for all policies at once.

    A policy's value does not depend on which others are evaluated beside it. Nothing is written.

    The value is read from the target network, an average over the last 1 / tau steps: the online
    one's moves by some 0.02 from one look to the next. It grows from 0 about one decision in
    1 / tau steps, so `steps` * `tau` is to be many times an episode's length: on ICU-Sepsis (9
    decisions) 5,000 steps give 0.82 with tau = 0.02, as a table does, and 0.77 with 0.005.

    Args:
        policies: What to judge; none was trained on these episodes.
        transitions: The records. A truncated episode is taken to go on where its record stops.
        n_states: Number of states.
        n_actions: Number of actions.
        gamma: Discount factor, in (0, 1].
        steps: Gradient steps.
        learning_rate: Adam's step size.
        tau: Share of the online network that enters the target at each step, in (0, 1].
        batch_size: Rows of a gradient step.
        embedding_dim: Width of the learned state vector.
        hidden_dims: Widths of the hidden layers.
        seed: Initial weights and batches follow from it.
        accelerator: As Lightning names them.
        progress: Whether a bar is drawn.

    Returns:
        Mean over the episodes' first states of sum_a pi(a|s) Q(s, a), float64 (policies,).

    Raises:
        InputError: An argument is out of range, the records break a rule of theirs, or a policy
            has another shape.
    """
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        if count < 1:
            raise InputError(f"{name} is {count}; accepted: an integer from 1 upward")
    if not policies:
        raise InputError("there are no policies to judge; accepted: at least one")
    for policy in policies:
        if policy.probabilities.shape != (n_states, n_actions):
            raise InputError(
                f"policy {policy.name!r} has shape {policy.probabilities.shape}; accepted: "
                f"({n_states}, {n_actions})"
            )
    # A state out of range would read the next member's network.
    transitions.validate(n_states, n_actions)
    episodes = Episodes(transitions, n_states, n_actions, gamma=gamma)

    tables = torch.tensor(np.stack([policy.probabilities for policy in policies]))
    module = NetworkFQE(
        tables,
        list(range(len(policies))),
        gamma,
        learning_rate,
        tau,
        seed,
        embedding_dim,
        hidden_dims,
    )
    callbacks: list[pl.Callback] = [SoftTargetUpdate(tau)]
    if progress:
        callbacks.append(FitProgressBar())
    with _quiet():
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator=accelerator,
            devices=1,
            callbacks=callbacks,
            gradient_clip_val=1.0,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        batches = AddressedBatches(
            TransitionTable(transitions, trainer.strategy.root_device),
            module.member_seeds,
            batch_size,
            first=lambda: trainer.global_step,
        )
        trainer.fit(module, train_dataloaders=batches)
    v = (tables * module.target_q_network.table().to(tables)).sum(-1)
    values: FloatArray = v[:, episodes.starts].mean(1).numpy()
    return values


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Lightning says of itself off the screen, for the time of a fit."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # of torch's
            warnings.filterwarnings("ignore", "GPU available but not used")
            warnings.filterwarnings("ignore", "You defined a `validation_step`")
            yield
    finally:
        logger.setLevel(level)

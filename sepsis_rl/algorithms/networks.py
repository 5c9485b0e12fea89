"""The one network of the project: a stack of Q-networks that share every operation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepsis_rl.randomness import INIT, hash_address


class QNetwork(nn.Module):
    """Scores every action of a discrete state, for several independent members at once.

    Embedding -> (linear -> ReLU) x depth -> linear, as in the essay. All parameters carry a leading
    *members* dimension and every layer is one batched product, so training M members costs one
    sequence of operations, and one member computes what a network of its own would.

    The output is Q(s, a) for DQN and CQL and the logits of the action for behavior cloning.

    Args:
        n_states: Number of discrete states.
        n_actions: Number of actions.
        embedding_dim: Width of the learned state vector.
        hidden_dims: Widths of the hidden layers; its length is the depth.
        seeds: One seed per member. A member's initial weights depend on its seed alone.
    """

    offset: Tensor

    def __init__(
        self,
        n_states: int,
        n_actions: int,
        embedding_dim: int = 256,
        hidden_dims: Sequence[int] = (256, 256),
        seeds: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        members = len(seeds)
        widths = [embedding_dim, *hidden_dims, n_actions]
        self.embedding = nn.Parameter(torch.empty(members, n_states, embedding_dim))
        self.weights = nn.ParameterList(
            torch.empty(members, fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.empty(members, 1, fan_out) for fan_out in widths[1:])
        # Member m's states are rows m * n_states onward of the flattened embedding.
        offset = torch.arange(members).unsqueeze(1) * n_states
        self.register_buffer("offset", offset, persistent=False)
        self._known: Tensor | None = None
        self.reset_parameters(seeds)

    @property
    def n_members(self) -> int:
        """Number of stacked networks."""
        return self.embedding.shape[0]

    @property
    def n_states(self) -> int:
        """Number of discrete states."""
        return self.embedding.shape[1]

    @torch.no_grad()
    def reset_parameters(self, seeds: Sequence[int]) -> None:
        """Draws each member's weights from its own seed.

        The distributions are those of `torch.nn.Embedding` and `torch.nn.Linear`, which the
        essay's network uses.

        Args:
            seeds: One per member.
        """
        for member, seed in enumerate(seeds):
            address = hash_address(int(seed), INIT)
            assert isinstance(address, int)
            # On the CPU, wherever the parameters are: the same numbers on every device.
            generator = torch.Generator("cpu").manual_seed(address % 2**63)
            states = torch.empty(self.embedding.shape[1:], device="cpu")
            self.embedding[member].copy_(states.normal_(generator=generator))
            for weight, bias in zip(self.weights, self.biases, strict=True):
                bound = 1 / math.sqrt(weight.shape[1])
                for parameter in (weight, bias):
                    values = torch.empty(parameter.shape[1:], device="cpu")
                    parameter[member].copy_(values.uniform_(-bound, bound, generator=generator))

    def forward(self, observation: Tensor) -> Tensor:
        """Scores all actions.

        Args:
            observation: int64 states, (members, batch).

        Returns:
            (members, batch, n_actions).
        """
        if self._known is not None:
            return F.embedding(observation + self.offset, self._known.flatten(0, 1))
        hidden = F.embedding(observation + self.offset, self.embedding.flatten(0, 1))
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < last:
                hidden = hidden.relu_()
        return hidden

    @torch.no_grad()
    def table(self) -> Tensor:
        """Scores every action of every state.

        Returns:
            (members, n_states, n_actions).
        """
        states = torch.arange(self.n_states, device=self.embedding.device)
        output: Tensor = self(states.expand(self.n_members, -1))
        return output


@contextmanager
def looked_up(tables: Mapping[QNetwork, Tensor]) -> Iterator[None]:
    """Lets networks take their scores from tables of all states: many rows are of few states.

    Args:
        tables: What `QNetwork.table` returned for the weights as they are.
    """
    for network, table in tables.items():
        network._known = table
    try:
        yield
    finally:
        for network in tables:
            network._known = None

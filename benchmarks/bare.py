"""The essay's CQL as one would write it in an afternoon, for speed to be held against."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from sepsis_rl.data import Transitions


def bare_loop(
    data: Transitions, n_states: int, n_actions: int, seed: int = 42
) -> Iterator[nn.Module]:
    """Trains without an end, in plain PyTorch with the default Adam and batches of 256 rows.

    Args:
        data: The records.
        n_states: Number of discrete states.
        n_actions: Number of actions.
        seed: Of the weights and the batches.

    Yields:
        The network after each step, states (batch,) to Q (batch, n_actions).
    """
    torch.manual_seed(seed)

    def network() -> nn.Sequential:
        return nn.Sequential(
            nn.Embedding(n_states, 256),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, n_actions),
        )

    alpha, gamma, tau = 0.5, 0.99, 0.005
    q_network, target = network(), network()
    target.load_state_dict(q_network.state_dict())
    optimizer = torch.optim.Adam(q_network.parameters(), lr=3e-4)
    observation = torch.as_tensor(data.observation.copy())
    action = torch.as_tensor(data.action.copy())
    reward = torch.as_tensor(data.reward.copy())
    next_observation = torch.as_tensor(data.next_observation.copy())
    done = torch.as_tensor(data.terminated.copy()).float()
    while True:
        rows = torch.randint(len(observation), (256,))
        q = q_network(observation[rows])
        q_data = q.gather(1, action[rows].unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            next_q = target(next_observation[rows]).max(dim=1).values
            y = reward[rows] + gamma * (1 - done[rows]) * next_q
        loss = F.mse_loss(q_data, y) + alpha * (q.logsumexp(1) - q_data).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(q_network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for online, slow in zip(q_network.parameters(), target.parameters(), strict=True):
                slow.lerp_(online, tau)
        yield q_network

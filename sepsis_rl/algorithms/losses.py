"""The terms of the losses, as pure functions of network outputs, one value for each decision.

All of them keep the leading members dimension. Scores are (members, states, n_actions); what is
said of decisions is (members, states, 1) in a batch of rows, whose states have one decision each,
and (members, states, n_actions) where a batch is all records. A loss is a batch's mean of them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def next_value(target_q: Tensor, q: Tensor | None = None) -> Tensor:
    """The value of a state that the TD target r + gamma * V(s') takes: max_a Q_target(s, a).

    Source: the essay's TD target (Mnih et al., 2015, Algorithm 1). With `q` it is Double DQN (van
    Hasselt et al., 2016, "Deep reinforcement learning with double Q-learning", eq. 4): the online
    network picks the action, the target network scores it. The essay's published code does that.

    Args:
        target_q: Target network, (members, states, n_actions); actions that may not be taken are
            -inf.
        q: Online network for Double DQN, alike, or None.

    Returns:
        (members, states).
    """
    if q is None:
        return target_q.amax(-1)
    return target_q.gather(-1, q.argmax(-1, keepdim=True)).squeeze(-1)


def squared_td_error(q_data: Tensor, target: Tensor) -> Tensor:
    """The squared TD error, whose mean is the essay's TD(theta) = E[(Q(s, a) - y)^2].

    Kumar et al. (2020), eq. 4, have a factor 1/2 here and the essay has not, so the essay's alpha
    weighs half as much as the same number in the paper.

    Args:
        q_data: Q of the decisions.
        target: TD target, no gradient.

    Returns:
        Shaped like `q_data`.
    """
    return (q_data - target).square()


def conservative_gap(q: Tensor, q_data: Tensor, temperature: Tensor) -> Tensor:
    """The conservative penalty of CQL(H): T log sum_a exp(Q(s, a) / T) - Q(s, a_data).

    Source: Kumar et al. (2020), "Conservative Q-Learning for Offline Reinforcement Learning",
    eq. 4, which has T = 1; the authors' code has T as `temp`. The gradient pushes Q down by
    softmax(Q / T) and up by the data's frequencies. Where values differ by less than T the softmax
    is nearly uniform, and Q is pulled toward the frequencies, whatever the actions are worth.

    Args:
        q: (members, states, n_actions); actions that may not be taken are -inf.
        q_data: Q of the decisions.
        temperature: T in units of the return, (members, 1).

    Returns:
        Shaped like `q_data`; not negative, save for a decision that may not be taken.
    """
    soft_maximum = temperature * (q / temperature.unsqueeze(-1)).logsumexp(-1)
    return soft_maximum.unsqueeze(-1) - q_data


def negative_log_likelihood(logits: Tensor) -> Tensor:
    """The cross-entropy of taking each action.

    Args:
        logits: (members, states, n_actions).

    Returns:
        Like `logits`, in nats.
    """
    return -torch.log_softmax(logits, dim=-1)

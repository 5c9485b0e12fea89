"""The losses, as pure functions of network outputs and a batch.

All of them keep the leading members dimension: tensors are (members, batch) or (members, batch,
n_actions), and a loss is (members,), each member's mean over its own batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def q_of_action(q: Tensor, action: Tensor) -> Tensor:
    """Picks Q(s, a) of given actions.

    Args:
        q: (members, batch, n_actions).
        action: int64, (members, batch).

    Returns:
        (members, batch).
    """
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def td_target(
    reward: Tensor,
    terminated: Tensor,
    target_next_q: Tensor,
    gamma: Tensor,
    next_q: Tensor | None = None,
) -> Tensor:
    """The value that Q(s, a) is regressed on: y = r + gamma * max_a' Q_target(s', a').

    Source: the essay's TD target (Mnih et al., 2015, Algorithm 1). With `next_q` it is Double DQN
    (van Hasselt et al., 2016, "Deep reinforcement learning with double Q-learning", eq. 4): the
    online network picks a', the target network scores it. The essay's published code does that.

    Args:
        reward: (members, batch).
        terminated: 1 where the episode ended in s', else 0; (members, batch). A truncated episode
            did not end in s' and is not marked.
        target_next_q: Target network at s', (members, batch, n_actions).
        gamma: Discount factor, (members, 1).
        next_q: Online network at s' for Double DQN, or None; (members, batch, n_actions).

    Returns:
        (members, batch).
    """
    if next_q is None:
        next_value = target_next_q.amax(-1)
    else:
        next_value = q_of_action(target_next_q, next_q.argmax(-1))
    return reward + gamma * (1 - terminated) * next_value


def td_loss(q_data: Tensor, target: Tensor) -> Tensor:
    """Mean squared TD error, the essay's TD(theta) = E[(Q(s, a) - y)^2].

    Kumar et al. (2020), eq. 4, have a factor 1/2 here and the essay has not, so the essay's alpha
    weighs half as much as the same number in the paper.

    Args:
        q_data: Q of the data's actions, (members, batch).
        target: TD target, no gradient, (members, batch).

    Returns:
        (members,).
    """
    return (q_data - target).square().mean(-1)


def conservative_loss(q: Tensor, q_data: Tensor) -> Tensor:
    """The conservative penalty of CQL(H): E[log sum_a exp Q(s, a) - Q(s, a_data)].

    Source: Kumar et al. (2020), "Conservative Q-Learning for Offline Reinforcement Learning",
    eq. 4. It is never negative, and is the cross-entropy of the softmax of Q.

    Args:
        q: (members, batch, n_actions).
        q_data: Q of the data's actions, (members, batch).

    Returns:
        (members,).
    """
    return (q.logsumexp(-1) - q_data).mean(-1)


def imitation_loss(logits: Tensor, action: Tensor) -> Tensor:
    """Cross-entropy of the data's actions.

    Args:
        logits: (members, batch, n_actions).
        action: int64, (members, batch).

    Returns:
        (members,), in nats.
    """
    log_probability = F.log_softmax(logits, dim=-1)
    return -q_of_action(log_probability, action).mean(-1)

"""The losses against values worked out by hand, and their gradients against finite differences.

Everywhere there are two members, and what one has must not leak into the other.
"""

import math

import torch
from torch.autograd import gradcheck

from sepsis_rl.algorithms.losses import (
    conservative_loss,
    imitation_loss,
    q_of_action,
    td_loss,
    td_target,
)

LOG = torch.tensor([1.0, 3.0]).log()  # logits of the probabilities 1/4 and 3/4


def test_q_of_action():
    q = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[7.0, 8.0, 9.0], [10.0, 11.0, 12.0]]])
    action = torch.tensor([[2, 0], [1, 1]])
    assert q_of_action(q, action).tolist() == [[3.0, 4.0], [8.0, 11.0]]


# Three rows a member: on the way, survived, and stopped short of an end with a reward.
REWARD = torch.tensor([[0.0, 1.0, 0.25], [0.0, 1.0, 0.25]])
TERMINATED = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
TARGET_NEXT_Q = torch.tensor(
    [[[1.0, 3.0], [2.0, 5.0], [-2.0, -1.0]], [[4.0, 2.0], [0.0, 7.0], [1.0, 0.5]]]
)
GAMMA = torch.tensor([[0.5], [0.75]])


def test_td_target():
    """y = r + gamma * max Q_target(s', .), of which only r is left at the end of an episode."""
    target = td_target(REWARD, TERMINATED, TARGET_NEXT_Q, GAMMA)
    # 0 + 0.5 * 3, 1, 0.25 + 0.5 * -1; 0 + 0.75 * 4, 1, 0.25 + 0.75 * 1
    assert target.tolist() == [[1.5, 1.0, -0.25], [3.0, 1.0, 1.0]]


def test_td_target_of_double_q_learning():
    """The online network picks, the target network scores."""
    next_q = torch.tensor(
        [[[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]], [[0.0, 9.0], [9.0, 0.0], [0.0, 9.0]]]
    )
    target = td_target(REWARD, TERMINATED, TARGET_NEXT_Q, GAMMA, next_q)
    # 0 + 0.5 * 1, 1, 0.25 + 0.5 * -1; 0 + 0.75 * 2, 1, 0.25 + 0.75 * 0.5
    assert target.tolist() == [[0.5, 1.0, -0.25], [1.5, 1.0, 0.625]]


def test_td_loss():
    """A mean of squares, without a factor 1/2."""
    q_data = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    target = torch.tensor([[0.0, 4.0], [0.0, 2.0]])
    assert td_loss(q_data, target).tolist() == [2.5, 4.5]  # (1 + 4) / 2, (0 + 9) / 2


def test_conservative_loss():
    q = torch.stack([torch.zeros(2, 2), LOG.expand(2, 2)])
    action = torch.tensor([[0, 1], [0, 1]])
    loss = conservative_loss(q, q_of_action(q, action))
    # log 2 of two equal actions; log 4 minus the mean of log 1 and log 3
    expected = torch.tensor([math.log(2), math.log(4) - math.log(3) / 2])
    torch.testing.assert_close(loss, expected)


def test_conservative_loss_of_large_q():
    """No overflow: exp(1000) is infinite."""
    q = torch.tensor([[[1000.0, 0.0]], [[1000.0, 0.0]]])
    action = torch.tensor([[0], [1]])
    assert conservative_loss(q, q_of_action(q, action)).tolist() == [0.0, 1000.0]


def test_imitation_loss():
    """In nats: -log of the probability of the data's action."""
    logits = torch.stack([LOG.expand(2, 2), torch.zeros(2, 2)]) + 5.0  # a constant changes nothing
    action = torch.tensor([[0, 1], [1, 1]])
    expected = torch.tensor([-(math.log(1 / 4) + math.log(3 / 4)) / 2, math.log(2)])
    torch.testing.assert_close(imitation_loss(logits, action), expected)


def test_the_conservative_loss_is_the_cross_entropy_of_the_softmax():
    q = torch.randn(2, 50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    action = torch.arange(100).view(2, 50) % 7
    torch.testing.assert_close(
        conservative_loss(q, q_of_action(q, action)), imitation_loss(q, action)
    )


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    q = draw(2, 3, 4).requires_grad_()
    action = torch.tensor([[0, 3, 1], [2, 2, 0]])
    target = draw(2, 3)
    assert gradcheck(lambda q: td_loss(q_of_action(q, action), target), q)
    assert gradcheck(lambda q: conservative_loss(q, q_of_action(q, action)), q)
    assert gradcheck(lambda q: imitation_loss(q, action), q)
    gamma = GAMMA.double().requires_grad_()
    reward, terminated = REWARD.double(), TERMINATED.double()
    next_q = draw(2, 3, 4)
    assert gradcheck(lambda q, gamma: td_target(reward, terminated, q, gamma), (q, gamma))
    assert gradcheck(lambda q, gamma: td_target(reward, terminated, q, gamma, next_q), (q, gamma))

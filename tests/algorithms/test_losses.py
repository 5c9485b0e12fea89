"""The losses against values worked out by hand.

Everywhere there are two members, and what one has must not leak into the other.
"""

import math

import torch

from sepsis_rl.algorithms.losses import (
    conservative_gap,
    negative_log_likelihood,
    next_value,
    squared_td_error,
)

LOG = torch.tensor([1.0, 3.0]).log()  # logits of the probabilities 1/4 and 3/4
ONE = torch.ones(2, 1)

# Two members, three states, two actions.
Q = torch.tensor([[[1.0, 3.0], [2.0, 5.0], [-2.0, -1.0]], [[4.0, 2.0], [0.0, 7.0], [1.0, 0.5]]])


def test_next_value():
    assert next_value(Q).tolist() == [[3.0, 5.0, -1.0], [4.0, 7.0, 1.0]]


def test_next_value_of_double_q_learning():
    """The online network picks, the target network scores."""
    online = torch.tensor(
        [[[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]], [[0.0, 9.0], [9.0, 0.0], [0.0, 9.0]]]
    )
    assert next_value(Q, online).tolist() == [[1.0, 5.0, -1.0], [2.0, 0.0, 0.5]]


def test_squared_td_error():
    """Without a factor 1/2."""
    error = squared_td_error(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
    assert error.tolist() == [1.0, 4.0]


def test_conservative_gap():
    q = torch.stack([torch.zeros(2, 2), LOG.expand(2, 2)])
    # log 2 of two equal actions; log 4 minus log 1 and log 3
    two, four, three = math.log(2), math.log(4), math.log(3)
    expected = torch.tensor([[[two, two]] * 2, [[four, four - three]] * 2])
    torch.testing.assert_close(conservative_gap(q, q, ONE), expected)
    # Of one decision a state, here each state's second.
    torch.testing.assert_close(conservative_gap(q, q[..., 1:], ONE), expected[..., 1:])


def test_conservative_gap_at_other_temperatures():
    """T log(1 + 3 ** (1 / T)) of 0 and log 3: the log of the sum at 1, the maximum near 0."""
    q = torch.stack([torch.tensor([[0.0, math.log(3)]])] * 2)
    gap = conservative_gap(q, q[..., :1], torch.tensor([[0.5], [0.001]]))
    torch.testing.assert_close(gap.flatten(), torch.tensor([0.5 * math.log(1 + 9), math.log(3)]))


def test_conservative_gap_of_large_q_and_of_actions_left_out():
    """No overflow, though exp(1000) is infinite; -inf is no action at all."""
    q = torch.tensor([[[1000.0, 0.0]], [[-math.inf, 0.0]]])
    assert conservative_gap(q, q[..., 1:], ONE).flatten().tolist() == [1000.0, 0.0]


def test_negative_log_likelihood():
    """In nats: -log of the probability of the action."""
    logits = torch.stack([LOG.expand(1, 2), torch.zeros(1, 2)]) + 5.0  # a constant changes nothing
    expected = -torch.tensor([[[1 / 4, 3 / 4]], [[1 / 2, 1 / 2]]]).log()
    torch.testing.assert_close(negative_log_likelihood(logits), expected)

"""The conservative gap against values worked out by hand; other losses are in test_algorithms.py.

Everywhere there are two members, and what one has must not leak into the other.
"""

import math

import torch

from sepsis_rl.algorithms.losses import conservative_gap

LOG = torch.tensor([1.0, 3.0]).log()  # logits of the probabilities 1/4 and 3/4
ONE = torch.ones(2, 1)


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

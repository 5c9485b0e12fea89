"""One optimizer for several members: their clipping and their learning rates."""

import math

import pytest
import torch
from by_hand import NARROW

from sepsis_rl.algorithms import DQN
from sepsis_rl.algorithms.optimizer import MemberAdam, clip_grad_norm_by_member


def gradients(members, seed=0, scale=1.0):
    """Stacked gradients of an embedding, a weight and a bias."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(members, 30, 4), (members, 4, 5), (members, 1, 5)]
    return [scale * torch.randn(shape, generator=generator) for shape in shapes]


def test_clipping_by_hand():
    """Members of norm 5 over two parameters, 0.5, and 0."""
    weight = torch.tensor([[[3.0, 0.0]], [[0.3, 0.0]], [[0.0, 0.0]]])
    bias = torch.tensor([[[4.0]], [[0.4]], [[0.0]]])
    norm = clip_grad_norm_by_member([weight, bias], 2.5)
    torch.testing.assert_close(norm, torch.tensor([5.0, 0.5, 0.0]))
    expected = torch.tensor([[[1.5, 0.0]], [[0.3, 0.0]], [[0.0, 0.0]]])
    torch.testing.assert_close(weight, expected)
    torch.testing.assert_close(bias, torch.tensor([[[2.0]], [[0.4]], [[0.0]]]))


@pytest.mark.parametrize("outlier", [1e6, math.inf, math.nan])
def test_a_huge_gradient_leaves_the_other_member_alone(outlier):
    ours, others = gradients(2, scale=0.01), gradients(2, scale=0.01)
    ours[1][0] *= outlier
    norm = clip_grad_norm_by_member(ours, 1.0)
    for gradient, before in zip(ours, others, strict=True):
        assert torch.equal(gradient[1], before[1])
    assert norm[1] == pytest.approx(math.sqrt(sum(float(g[1].square().sum()) for g in others)))
    if math.isfinite(outlier):
        clipped = math.sqrt(sum(float(g[0].square().sum()) for g in ours))
        assert clipped == pytest.approx(1.0, rel=1e-5)


def test_without_a_largest_norm_it_only_measures():
    ours, before = gradients(2, scale=100.0), gradients(2, scale=100.0)
    norm = clip_grad_norm_by_member(ours, None)
    assert (norm > 100).all()
    for gradient, untouched in zip(ours, before, strict=True):
        assert torch.equal(gradient, untouched)


# -- in a fit ----------------------------------------------------------------------------------


def test_the_configured_learning_rate_beats_the_checkpoints(fit, tmp_path):
    path = tmp_path / "a.ckpt"
    fit(DQN(**NARROW), 2).save_checkpoint(path)
    trainer = fit(DQN(learning_rate=0.1, **NARROW), 4, ckpt_path=path)
    assert trainer.global_step == 4
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.1]


@pytest.mark.parametrize("off", [None, 0])
def test_without_clipping_gradients_are_as_they_are(data, fit, off):
    """Lightning's ways to say it: None, and 0."""
    module = DQN(**NARROW)
    module.build(data.n_states, data.n_actions)
    before = module.q_network.table()
    fit(module, 1, gradient_clip_val=off)
    after = module.q_network.table()
    # Adam's first step moves every weight that has a gradient by the learning rate.
    assert float((after - before).abs().max()) > 1e-4


# -- learning rates ----------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [[0.1, 0.1, 0.1], [0.1, 0.001, 1e-9]])
def test_members_step_as_they_would_alone(rates):
    """Against torch's own Adam for each member, over some steps."""
    start, slopes = gradients(3, seed=1), [gradients(3, seed=seed) for seed in range(2, 6)]
    ours = [tensor.clone().requires_grad_() for tensor in start]
    optimizer = MemberAdam(ours, rates)
    for slope in slopes:
        for parameter, gradient in zip(ours, slope, strict=True):
            parameter.grad = gradient.clone()
        optimizer.set_weights_aside()
        optimizer.step()
    for member, rate in enumerate(rates):
        alone = [tensor[member].clone().requires_grad_() for tensor in start]
        adam = torch.optim.Adam(alone, lr=rate, fused=True)
        for slope in slopes:
            for parameter, gradient in zip(alone, slope, strict=True):
                parameter.grad = gradient[member].clone()
            adam.step()
        for parameter, other, begin in zip(ours, alone, start, strict=True):
            torch.testing.assert_close(parameter[member], other, rtol=1e-6, atol=0)
            if rate > 1e-6:
                assert not torch.equal(other, begin[member])


def test_a_step_without_its_preparation_is_an_error():
    """It would otherwise scale the weights themselves."""
    parameters = [tensor.requires_grad_() for tensor in gradients(2)]
    optimizer = MemberAdam(parameters, [0.1, 0.01])
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.set_weights_aside()
    optimizer.step()
    with pytest.raises(ValueError, match="shorter"):
        optimizer.step()

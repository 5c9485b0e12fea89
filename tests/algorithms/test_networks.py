"""The stack of Q-networks: what it computes, and from which numbers it starts."""

import math

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sepsis_rl.algorithms.networks import QNetwork

N_STATES, N_ACTIONS, EMBEDDING_DIM, HIDDEN_DIMS = 40, 6, 16, (24, 12)


def make(seeds=(0,), hidden_dims=HIDDEN_DIMS):
    return QNetwork(N_STATES, N_ACTIONS, EMBEDDING_DIM, hidden_dims, seeds)


def plain(network, member):
    """The same network out of torch's own layers."""
    layers = [nn.Embedding.from_pretrained(network.embedding[member])]
    for weight, bias in zip(network.weights, network.biases, strict=True):
        linear = nn.Linear(*weight.shape[1:])
        linear.load_state_dict({"weight": weight[member].T, "bias": bias[member, 0]})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden_dims", [(5,), (24, 12), (8, 8, 8)])
def test_it_computes_what_plain_layers_compute(hidden_dims):
    network = make((1, 2, 3), hidden_dims)
    observation = torch.arange(60).view(3, 20) * 7 % N_STATES
    q = network(observation)
    assert q.shape == (3, 20, N_ACTIONS)
    for member in range(3):
        torch.testing.assert_close(q[member], plain(network, member)(observation[member]))


def test_a_stack_is_its_singles():
    seeds = (5, 0, 2**40)
    stack = make(seeds)
    observation = torch.arange(3 * 50).view(3, 50) * 11 % N_STATES
    outputs = stack(observation)
    for member, seed in enumerate(seeds):
        single = make((seed,))
        for name, parameter in single.named_parameters():
            assert torch.equal(parameter[0], stack.get_parameter(name)[member]), name
        torch.testing.assert_close(outputs[member], single(observation[member : member + 1])[0])


def test_a_members_output_is_its_own():
    """The gradient of a member's output is zero in the other's parameters."""
    network = make((1, 2))
    network(torch.tensor([[0, 1], [0, 1]]))[1].sum().backward()
    for name, parameter in network.named_parameters():
        assert not parameter.grad[0].any(), name
        assert parameter.grad[1].any(), name


def test_the_table_is_the_output_for_every_state():
    network = make((1, 2))
    table = network.table()
    assert table.shape == (2, N_STATES, N_ACTIONS)
    assert not table.requires_grad
    observation = torch.tensor([[3, 3, 17], [39, 0, 5]])
    expected = torch.stack([table[0, observation[0]], table[1, observation[1]]])
    torch.testing.assert_close(network(observation), expected)


def test_it_says_its_sizes():
    network = make((1, 2, 3))
    assert network.n_members == 3
    assert network.n_states == N_STATES
    assert all(parameter.shape[0] == 3 for parameter in network.parameters())
    layers = ((EMBEDDING_DIM + 1) * 24, (24 + 1) * 12, (12 + 1) * N_ACTIONS)
    count = 3 * (N_STATES * EMBEDDING_DIM + sum(layers))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


# -- where it starts ---------------------------------------------------------------------------


@torch.no_grad()
def test_initial_weights_have_torchs_distributions():
    """Embedding N(0, 1); weights and biases uniform within 1 / sqrt(fan_in)."""
    network = QNetwork(716, 25, 256, (256, 128), (42, 43))
    for member in range(2):
        embedding = network.embedding[member]
        n = embedding.numel()
        assert abs(float(embedding.mean())) < 5 / math.sqrt(n)
        assert float(embedding.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
        assert float(embedding.abs().max()) > 4  # unbounded
        for weight, bias, fan_in in zip(
            network.weights, network.biases, (256, 256, 128), strict=True
        ):
            bound = 1 / math.sqrt(fan_in)
            n = weight[member].numel()
            assert 0.99 * bound < float(weight[member].abs().max()) <= bound
            assert abs(float(weight[member].mean())) < 5 * bound / math.sqrt(3 * n)
            assert float(weight[member].std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert 0.8 * bound < float(bias[member].abs().max()) <= bound
            assert float(bias[member].min()) < 0 < float(bias[member].max())


@torch.no_grad()
def test_initial_weights_are_those_of_torchs_layers_in_distribution():
    """The quantiles of a weight meet those of `nn.Linear` and `nn.Embedding`."""
    torch.manual_seed(0)
    network = QNetwork(500, 25, 64, (200, 200), (1,))
    q = torch.linspace(0.01, 0.99, 50)
    pairs = [
        (network.embedding, nn.Embedding(500, 64).weight, 0.05),
        (network.weights[1], nn.Linear(200, 200).weight, 0.05 / math.sqrt(200)),
    ]
    for ours, theirs, atol in pairs:
        difference = ours.flatten().quantile(q) - theirs.flatten().quantile(q)
        assert float(difference.abs().max()) < atol


def test_initial_weights_depend_on_the_seed_alone():
    """Not on the members beside it, nor on torch's own generator, which stays where it is."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = make((7,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    other = make((3, 7))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter[0], other.get_parameter(name)[1]), name
        assert not torch.equal(parameter[0], other.get_parameter(name)[0]), name


def test_neighboring_seeds_have_nothing_in_common():
    embeddings = make(range(20)).embedding.detach().flatten(1)
    correlation = torch.corrcoef(embeddings) - torch.eye(20)
    assert float(correlation.abs().max()) < 6 / math.sqrt(embeddings.shape[1])


class GeneratorsOnTheirOwnDevice(TorchFunctionMode):
    """Refuses to draw for one device with another's generator, as CUDA does."""

    draws = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if generator is not None:
            self.draws += 1
            assert args[0].device == generator.device
        return function(*args, **kwargs)


def test_weights_are_drawn_where_their_generator_lives():
    """Lightning builds networks on the accelerator; the weights must come from the CPU still."""
    with torch.device("meta"), GeneratorsOnTheirOwnDevice() as mode:
        network = make((1, 2))
    assert mode.draws > 0
    assert network.embedding.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_starts_from_the_same_weights():
    expected = make((1, 2))
    with torch.device("cuda"):
        network = make((1, 2))
    for name, parameter in network.named_parameters():
        assert parameter.device.type == "cuda"
        assert torch.equal(parameter.cpu(), expected.get_parameter(name)), name

"""The stack of Q-networks: what it computes, and from which numbers it starts."""

import math

import pytest
import torch
from by_hand import plain_network
from torch.overrides import TorchFunctionMode

from sepsis_rl.algorithms.networks import QNetwork, looked_up

N_STATES, N_ACTIONS, EMBEDDING_DIM, HIDDEN_DIMS = 40, 6, 16, (24, 12)


def make(seeds=(0,), hidden_dims=HIDDEN_DIMS):
    return QNetwork(N_STATES, N_ACTIONS, EMBEDDING_DIM, hidden_dims, seeds)


@pytest.mark.parametrize("hidden_dims", [(5,), (24, 12), (8, 8, 8)])
def test_it_computes_what_plain_layers_compute(hidden_dims):
    network = make((1, 2, 3), hidden_dims)
    observation = torch.arange(60).view(3, 20) * 7 % N_STATES
    q = network(observation)
    assert q.shape == (3, 20, N_ACTIONS)
    for member in range(3):
        torch.testing.assert_close(q[member], plain_network(network, member)(observation[member]))


def test_the_table_is_the_output_for_every_state():
    network = make((1, 2))
    table = network.table()
    assert table.shape == (2, N_STATES, N_ACTIONS)
    assert not table.requires_grad
    observation = torch.tensor([[3, 3, 17], [39, 0, 5]])
    expected = torch.stack([table[0, observation[0]], table[1, observation[1]]])
    torch.testing.assert_close(network(observation), expected)
    with looked_up({network: table + 1}):
        assert torch.equal(network(observation), expected + 1)
    torch.testing.assert_close(network(observation), expected)


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

"""Networks whose output is known, and the same out of torch's own layers."""

import torch
from torch import nn

NARROW = {"embedding_dim": 8, "hidden_dims": [8]}

# Two members, three states (2 is the end), two actions.
Q = torch.tensor([[[5.0, 2.0], [3.0, 0.0], [9.0, 9.0]], [[0.0, 1.0], [0.0, 0.0], [9.0, 9.0]]])


def build(algorithm, n_states=4, n_actions=3, **options):
    """A module with networks, without a Trainer."""
    module = algorithm(**{"embedding_dim": n_states, "hidden_dims": [n_states], **options})
    module.build(n_states, n_actions)
    return module


@torch.no_grad()
def set_table(network, table):
    """Makes a network of one hidden layer, as wide as there are states, output a table exactly."""
    identity = torch.eye(network.n_states)
    network.embedding.copy_(identity.expand_as(network.embedding))
    network.weights[0].copy_(identity.expand_as(network.weights[0]))
    network.weights[1].copy_(torch.as_tensor(table))
    for bias in network.biases:
        bias.zero_()


def plain_network(network, member=0):
    """A member's network out of torch's own layers."""
    layers = [nn.Embedding(*network.embedding.shape[1:])]
    layers[0].load_state_dict({"weight": network.embedding[member].detach()})
    for weight, bias in zip(network.weights, network.biases, strict=True):
        linear = nn.Linear(*weight.shape[1:])
        linear.load_state_dict({"weight": weight[member].detach().T, "bias": bias[member, 0]})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])

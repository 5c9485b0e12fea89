"""The constructor arguments of the algorithms: lists, defaults, refusals, and their help."""

import itertools
import math

import pytest
from jsonargparse import ArgumentParser

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.errors import InputError


def test_settings_that_may_be_lists():
    """All of them, in the order of the names: the seed varies fastest."""
    module = CQL(
        seed=[1, 2], tau=[0.1, 0.2], learning_rate=[1e-3, 1e-4], gamma=[0.9, 1.0], alpha=[0.0, 1.0]
    )
    assert len(module.members) == 32
    assert module.members.names[1] == "alpha=0,gamma=0.9,learning_rate=0.001,tau=0.1,seed=2"
    assert module.seeds == [1, 2] * 16
    assert module.member_seeds.tolist() == [1, 2] * 16
    assert module.tau == [0.1, 0.1, 0.2, 0.2] * 8
    assert len(BC(seed=[1, 2], learning_rate=[1e-3, 1e-4]).members) == 4
    assert len(DQN(tau=[0.1, 0.2], gamma=[0.5, 0.9]).members) == 4


def test_the_defaults_are_the_essays():
    module = CQL()
    (settings,) = module.members.settings
    assert settings == {
        "alpha": 0.5,
        "temperature": 1.0,
        "gamma": 0.99,
        "learning_rate": 3e-4,
        "tau": 0.005,
        "seed": 42,
    }
    assert (module.double_q, module.value_range, module.hparams.td_weights) == (False, None, None)
    assert (module.actions, module.schedule) == ("all", "constant")
    assert (module.embedding_dim, module.hidden_dims) == (256, (256, 256))
    for other in (DQN(), BC()):
        (shared,) = other.members.settings
        assert shared == {name: settings[name] for name in shared}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    ("algorithm", "name", "value"),
    [
        (CQL, "alpha", -0.1),
        (CQL, "alpha", math.nan),
        (CQL, "alpha", math.inf),
        (CQL, "temperature", 0.0),
        (CQL, "temperature", math.inf),
        (DQN, "gamma", -0.1),
        (DQN, "gamma", 1.01),
        (DQN, "tau", 0.0),
        (DQN, "tau", 1.5),
        (BC, "learning_rate", 0.0),
        (BC, "learning_rate", -1.0),
        (BC, "learning_rate", math.inf),
        (BC, "seed", -1),
        (BC, "seed", 2**63),
        (CQL, "gamma", math.nan),
    ],
)
def test_settings_out_of_range_are_refused(algorithm, name, value, listed):
    with pytest.raises(InputError, match=rf"model\.{name}={value}") as error:
        algorithm(**{name: [1, value] if listed else value})
    assert "give" in str(error.value)


IMPOSSIBLE = [
    {"min_action_count": 0},
    {"min_action_count": 3},
    {"actions": "some"},
    {"schedule": "linear"},
    {"embedding_dim": 0},
    {"hidden_dims": []},
    {"hidden_dims": [8, 0]},
    {"seed": [1, 1]},
    {"learning_rate": []},
]
IMPOSSIBLE_TARGETS = [
    {"value_range": (1.0, 0.0)},
    {"value_range": (0.0, math.inf)},
    {"td_weights": "states"},
]


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        *itertools.product([BC, DQN, CQL], IMPOSSIBLE),
        *itertools.product([DQN, CQL], IMPOSSIBLE_TARGETS),
    ],
)
def test_impossible_networks_lists_and_targets_are_refused(algorithm, options):
    (name,) = options
    with pytest.raises(InputError, match=rf"model\.{name}="):
        algorithm(**options)


# -- declared once -----------------------------------------------------------------------------

NETWORK = {"learning_rate", "schedule", "embedding_dim", "hidden_dims"}
SHARED = NETWORK | {"actions", "min_action_count", "seed", "share"}
OWN = {
    BC: {"sampled"},
    DQN: {"gamma", "tau", "double_q", "value_range", "td_weights"},
    CQL: {"alpha", "temperature"},
}


class Bolder(CQL):
    """One more argument.

    Args:
        bonus: What is added.
    """

    def __init__(self, *, bonus: float = 0.25, **kwargs):
        super().__init__(**kwargs)
        self.bonus = bonus


def arguments_of(algorithm):
    own = set().union(*(names for owner, names in OWN.items() if issubclass(algorithm, owner)))
    return SHARED | own | ({"bonus"} if algorithm is Bolder else set())


@pytest.mark.parametrize("algorithm", [BC, DQN, CQL, Bolder])
def test_all_arguments_are_kept(algorithm):
    """Those of every class on the way, with the values that were given."""
    module = algorithm(learning_rate=[1e-3, 1e-4], share="2/2", hidden_dims=(4,))
    assert module.members.names == ("learning_rate=0.0001",)
    assert module.seeds == [42]
    assert set(module.hparams) == arguments_of(algorithm)
    assert module.hparams.learning_rate == [1e-3, 1e-4]
    assert module.hparams.min_action_count == 1
    assert algorithm(**module.hparams).members == module.members


@pytest.mark.parametrize("algorithm", [BC, DQN, CQL, Bolder])
def test_all_arguments_are_described(algorithm):
    """By whoever owns them, so that `--help` and the parser know them."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(algorithm, "model")
    options = {action.dest: action for action in parser._actions if "model." in action.dest}
    assert {name.removeprefix("model.") for name in options} == arguments_of(algorithm)
    assert all(option.help for option in options.values())
    given = parser.parse_args(["--model.actions=supported", "--model.seed=[1,2]"])
    module = algorithm(**given.model.as_dict())
    assert (module.actions, module.seeds) == ("supported", [1, 2])


@pytest.mark.parametrize("algorithm", [BC, DQN, CQL])
def test_arguments_have_names(algorithm):
    with pytest.raises(TypeError):
        algorithm(0.5)
    with pytest.raises(TypeError, match="alhpa"):
        algorithm(alhpa=0.5)

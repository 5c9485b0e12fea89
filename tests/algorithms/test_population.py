"""A member of a population is the single run with its settings."""

import itertools

import pytest
import torch

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.runs.checkpoints import compare_with
from sepsis_rl.runs.members import export_member
from sepsis_rl.runs.untrusted import read_checkpoint

NARROW = {"embedding_dim": 8, "hidden_dims": [8, 8]}
# Batched products may sum in another order; a weight is of the order of 0.1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}

RATES = {"learning_rate": [1e-3, 1e-4], "seed": [1, 7]}
TARGETS = {"gamma": [0.99, 0.5], "tau": [0.005, 0.5]}


def assert_is_member(single, population, member, **tolerance):
    """The single run's state is the member's slice of the population's."""
    state = population.state_dict()
    assert set(single.state_dict()) == set(state)
    for name, value in single.state_dict().items():
        pair = (value, state[name])
        if name != "allowed_actions":  # all members have the same
            pair = (value[0], state[name][member])
        torch.testing.assert_close(*pair, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


def distance(population, one, other):
    """Largest difference between the online weights of two members."""
    return max(
        float((p[one] - p[other]).detach().abs().max()) for p in population.q_network.parameters()
    )


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (CQL, {"alpha": [0.0, 0.5], **TARGETS, **RATES}),
        pytest.param(DQN, {**TARGETS, **RATES}, marks=pytest.mark.slow),
        (BC, RATES),
    ],
    ids=["CQL", "DQN", "BC"],
)
def test_members_after_200_steps_are_single_runs(fit, algorithm, settings):
    """The first, the last and one between: both values of every scalar, in three mixtures."""
    population = algorithm(**settings, **NARROW)
    fit(population, 200)
    members = population.members.settings
    chosen = (0, len(members) // 3, len(members) - 1)
    for name in settings:
        assert len({members[member][name] for member in chosen}) == 2
    for one, other in itertools.combinations(chosen, 2):
        assert distance(population, one, other) > 1000 * TOLERANCE["atol"]
    for member in chosen:
        single = algorithm(**members[member], **NARROW)
        fit(single, 200)
        assert_is_member(single, population, member, **TOLERANCE)


@pytest.mark.parametrize("algorithm", [CQL, BC])
def test_a_member_whose_numbers_are_none_takes_no_other_along(data, fit, algorithm):
    """One that diverged leaves the others as they would be without it."""
    settings = {"learning_rate": [1e-3, 1e-4], **NARROW}
    population = algorithm(**settings)
    population.build(data.n_states, data.n_actions)
    with torch.no_grad():
        population.q_network.embedding[0].fill_(torch.nan)
    fit(population, 20)
    assert population.q_network.table()[0].isnan().all()
    single = algorithm(**{**settings, "learning_rate": 1e-4})
    fit(single, 20)
    assert_is_member(single, population, 1, **TOLERANCE)


# -- a member of its own -----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [CQL, DQN, BC])
@pytest.mark.parametrize("member", [0, 2])
def test_an_exported_member_resumes_as_the_single_run(fit, tmp_path, algorithm, member):
    """Of three that differ in their learning rate."""
    tau = {} if algorithm is BC else {"tau": 0.05}
    settings = {"learning_rate": [1e-3, 3e-4, 1e-4], "seed": 5, **tau, **NARROW}
    population = algorithm(**settings)
    fit(population, 20).save_checkpoint(tmp_path / "population.ckpt")
    export_member(tmp_path / "population.ckpt", member, tmp_path / "member.ckpt")

    own = {**settings, **population.members.settings[member]}
    resumed, single = algorithm(**own), algorithm(**own)
    checkpoint = read_checkpoint(tmp_path / "member.ckpt")
    assert compare_with(checkpoint, resumed, (716, 25), "member.ckpt") == []
    trainer = fit(resumed, 40, ckpt_path=tmp_path / "member.ckpt")
    assert trainer.global_step == 40
    fit(single, 40)
    for name, value in single.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, **TOLERANCE)
    # The checkpoint was not the end already.
    name = "q_network.embedding"
    assert not torch.allclose(checkpoint["state_dict"][name], single.state_dict()[name], atol=1e-4)

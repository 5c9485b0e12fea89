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
        (DQN, {**TARGETS, **RATES}),
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


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (CQL, {"alpha": [0.1, 0.5, 2.0]}),
        (DQN, {"learning_rate": [3e-4, 1e-4, 3e-5]}),
        (BC, {"seed": [1, 2, 3]}),
    ],
    ids=["CQL", "DQN", "BC"],
)
def test_members_of_the_essays_network_are_single_runs(fit, algorithm, settings):
    population = algorithm(**settings)
    fit(population, 10)
    for member in (0, 2):
        single = algorithm(**population.members.settings[member])
        fit(single, 10)
        assert_is_member(single, population, member, **TOLERANCE)


@pytest.mark.parametrize("algorithm", [CQL, BC])
def test_learning_rates_far_apart(fit, algorithm):
    """The small one is not lost in the rounding of the large one."""
    population = algorithm(learning_rate=[1e-4, 10.0], **NARROW)
    fit(population, 50)
    single = algorithm(learning_rate=1e-4, **NARROW)
    fit(single, 50)
    assert_is_member(single, population, 0, **TOLERANCE)


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


def settings_of(algorithm):
    """Three members that differ in their learning rate and seed."""
    settings = {"learning_rate": [1e-3, 3e-4, 1e-4], "seed": 5, **NARROW}
    if algorithm is not BC:
        settings["tau"] = 0.05
    return settings


@pytest.mark.parametrize("algorithm", [CQL, DQN, BC])
@pytest.mark.parametrize("member", [0, 2])
def test_an_exported_member_resumes_as_the_single_run(fit, tmp_path, algorithm, member):
    settings = settings_of(algorithm)
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


def test_members_of_a_share_are_those_of_the_whole(fit):
    settings = {"alpha": [0.1, 0.5, 2.0], "seed": [1, 2], "tau": [0.005, 0.1], **NARROW}
    whole, share = CQL(**settings), CQL(**settings, share="2/5")
    assert share.members.names == tuple(whole.members.names[i] for i in (1, 6, 11))
    fit(whole, 20)
    fit(share, 20)
    ours, theirs = share.q_network.table(), whole.q_network.table()
    torch.testing.assert_close(ours, theirs[[1, 6, 11]], **TOLERANCE)


def test_an_exported_member_is_an_ordinary_checkpoint(fit, tmp_path):
    """Of the same shapes and settings as one that a single run has written."""
    population = tmp_path / "population.ckpt"
    settings = {"actions": "supported", "min_action_count": 2, **NARROW}
    module = CQL(alpha=[0.1, 0.5, 2.0], seed=[1, 2], **settings)
    fit(module, 3).save_checkpoint(population)
    before = population.read_bytes()
    export_member(population, 3, tmp_path / "member.ckpt")
    assert population.read_bytes() == before
    fit(CQL(alpha=0.5, seed=2, **settings), 3).save_checkpoint(tmp_path / "single.ckpt")
    member, single, source = (
        read_checkpoint(tmp_path / f"{name}.ckpt") for name in ("member", "single", "population")
    )
    for name, value in single["state_dict"].items():
        torch.testing.assert_close(member["state_dict"][name], value, **TOLERANCE)
        theirs, ours = source["state_dict"][name], member["state_dict"][name]
        assert torch.equal(*((ours, theirs) if name == "allowed_actions" else (ours[0], theirs[3])))
    assert set(member["state_dict"]) == set(single["state_dict"])
    for (ours,), (theirs,) in [(member["optimizer_states"], single["optimizer_states"])]:
        assert ours["param_groups"] == theirs["param_groups"]
        for index, state in theirs["state"].items():
            for name, value in state.items():
                torch.testing.assert_close(ours["state"][index][name], value, rtol=1e-4, atol=1e-7)
    assert dict(member["hyper_parameters"]) == dict(single["hyper_parameters"])
    assert member["sepsis_rl"] == single["sepsis_rl"]
    assert member["global_step"] == 3

"""A member of a population is the single run with its settings."""

import itertools

import pytest
import torch

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.errors import InputError
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
        torch.testing.assert_close(
            value[0], state[name][member], msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


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
    for ours, theirs in zip((0, 1, 2), (1, 6, 11), strict=True):
        torch.testing.assert_close(share.scores()[ours], whole.scores()[theirs], **TOLERANCE)


@pytest.fixture
def population(fit, tmp_path):
    path = tmp_path / "population.ckpt"
    fit(CQL(alpha=[0.1, 0.5, 2.0], seed=[1, 2], **NARROW), 3).save_checkpoint(path)
    return path


def test_an_exported_member_is_an_ordinary_checkpoint(fit, population, tmp_path):
    """Of the same shapes and settings as one that a single run has written."""
    before = population.read_bytes()
    export_member(population, 3, tmp_path / "member.ckpt")
    assert population.read_bytes() == before
    fit(CQL(alpha=0.5, seed=2, **NARROW), 3).save_checkpoint(tmp_path / "single.ckpt")
    member, single, source = (
        read_checkpoint(tmp_path / f"{name}.ckpt") for name in ("member", "single", "population")
    )
    for name, value in single["state_dict"].items():
        torch.testing.assert_close(member["state_dict"][name], value, **TOLERANCE)
        torch.testing.assert_close(member["state_dict"][name][0], source["state_dict"][name][3])
    assert set(member["state_dict"]) == set(single["state_dict"])
    for (ours,), (theirs,) in [(member["optimizer_states"], single["optimizer_states"])]:
        assert ours["param_groups"] == theirs["param_groups"]
        for index, state in theirs["state"].items():
            for name, value in state.items():
                torch.testing.assert_close(ours["state"][index][name], value, rtol=1e-4, atol=1e-7)
    assert dict(member["hyper_parameters"]) == dict(single["hyper_parameters"])
    assert member["sepsis_rl"] == single["sepsis_rl"]
    assert member["global_step"] == 3


def test_an_exported_member_keeps_its_own_evaluations(population, tmp_path):
    checkpoint = torch.load(population, weights_only=True)
    history = [
        {"step": step, "members": [{"survival_rate": step + m} for m in range(6)]}
        for step in (10, 20)
    ]
    story = {"history": history, "policies": {10: torch.arange(6).unsqueeze(1)}}
    checkpoint["callbacks"] = {"PolicyEvaluation": story, "Other": {"best": 1.0}}
    torch.save(checkpoint, population)
    export_member(population, 4, tmp_path / "member.ckpt")
    assert read_checkpoint(tmp_path / "member.ckpt")["callbacks"] == {
        "PolicyEvaluation": {
            "history": [
                {"step": 10, "members": [{"survival_rate": 14}]},
                {"step": 20, "members": [{"survival_rate": 24}]},
            ],
            "policies": {10: torch.tensor([[4]])},
        }
    }


def test_an_exported_member_takes_no_more_room_than_a_single_run(fit, population, tmp_path):
    """Slices of a tensor would be saved with all of it."""
    export_member(population, 0, tmp_path / "member.ckpt")
    fit(CQL(alpha=0.1, seed=1, **NARROW), 3).save_checkpoint(tmp_path / "single.ckpt")
    single = (tmp_path / "single.ckpt").stat().st_size
    assert (tmp_path / "member.ckpt").stat().st_size < 1.2 * single


@pytest.mark.parametrize("member", [-1, 6])
def test_a_member_that_is_not_there_is_refused(population, tmp_path, member):
    with pytest.raises(InputError, match=rf"--member {member}: .* 0 to 5"):
        export_member(population, member, tmp_path / "member.ckpt")
    assert not (tmp_path / "member.ckpt").exists()


def test_an_export_overwrites_nothing(population, tmp_path):
    taken = tmp_path / "taken.ckpt"
    taken.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export_member(population, 0, taken)
    assert taken.read_text() == "mine"

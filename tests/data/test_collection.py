"""Collected episodes follow the tables and the behavior policy, and are addressed."""

from dataclasses import replace

import numpy as np
import pytest

from sepsis_rl.data import POLICIES, behavior_policy, collect
from sepsis_rl.data.rules import check_rules
from sepsis_rl.data.transitions import COLUMNS, Provenance
from sepsis_rl.errors import InputError


@pytest.fixture(scope="module")
def clinician_data(mdp):
    return collect(mdp, behavior_policy(mdp, "clinician"), episodes=5000, seed=42)


def validate(mdp, data):
    check_rules(data, mdp.n_states, mdp.n_actions, terminal=mdp.terminal, rewards=mdp.rewards)


def assert_follows(counts, expected):
    """Chi-square over its degrees of freedom."""
    assert (counts[expected == 0] == 0).all()
    enough = expected > 5
    statistic = ((counts - expected)[enough] ** 2 / expected[enough]).sum()
    assert 0.7 < statistic / enough.sum() < 1.3


def test_the_clinicians_data_set(mdp, clinician_data):
    """Its size, survival and coverage as known of 5,000 clinician episodes."""
    validate(mdp, clinician_data)
    assert clinician_data.n_episodes == 5000
    assert abs(len(clinician_data) - 46_500) < 1_500
    # Exact survival is 0.7818 and its standard error over 5,000 episodes 0.006.
    assert abs(clinician_data.returns().mean() - 0.7818) < 0.02
    pair_counts = clinician_data.counts(mdp.n_states, mdp.n_actions).pairs
    assert abs((pair_counts > 0).mean() - 0.306) < 0.01
    assert clinician_data.provenance == Provenance(
        environment_id="Sepsis/ICU-Sepsis-v2",
        environment_version=mdp.environment_version,
        policy="clinician",
        seed=42,
        episodes=5000,
        source="simulated",
    )


def test_it_follows_the_policy_and_the_tables(mdp, clinician_data):
    """Actions in the states that are visited most, next states of each pair, and starts."""
    counts = clinician_data.counts(mdp.n_states, mdp.n_actions).pairs
    visits = counts.sum(1)
    often = np.argsort(visits)[-50:]
    assert_follows(counts[often], mdp.clinician[often] * visits[often, None])

    row = mdp.row_index[clinician_data.observation, clinician_data.action]
    assert (mdp.rows[row, clinician_data.next_observation] > 0).all()
    # The pooled frequency of each next state is what the visited rows say it is.
    expected = mdp.rows.T @ np.bincount(row, minlength=mdp.rows.shape[0])
    arrived = np.bincount(clinician_data.next_observation, minlength=mdp.n_states)
    assert_follows(arrived, expected)

    first = clinician_data.observation[clinician_data.step == 0]
    assert_follows(np.bincount(first, minlength=mdp.n_states), mdp.start * len(first))


def test_an_episode_does_not_depend_on_how_many_there_are(mdp):
    policy = behavior_policy(mdp, "clinician")
    few = collect(mdp, policy, episodes=100, seed=3)
    many = collect(mdp, policy, episodes=200, seed=3).select_episodes(np.arange(100))
    assert len(few) > 500
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name))


def test_same_seed_same_bytes(mdp, tmp_path):
    policy = behavior_policy(mdp, "epsilon_clinician")
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        collect(mdp, policy, episodes=50, seed=seed).save(tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_seeds_share_no_draws(mdp):
    policy = behavior_policy(mdp, "random")
    a, b = (collect(mdp, policy, episodes=500, seed=seed) for seed in (0, 1))
    assert a.content_hash != b.content_hash
    for column in ("observation", "action"):
        one, other = (getattr(data, column)[data.step == 0] for data in (a, b))
        # By chance 1 in 40 patients start alike and 1 in 25 get the same first action.
        assert (one == other).mean() < 0.1


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_collects(mdp, name):
    data = collect(mdp, behavior_policy(mdp, name), episodes=500, seed=0)
    validate(mdp, data)
    inadmissible = ~mdp.admissible[data.observation, data.action]
    # By visits; random's admissible actions are about 3 of 25.
    expected = {"clinician": 0.12, "random": 0.87, "epsilon_clinician": 0.2}
    assert abs(inadmissible.mean() - expected[name]) < 0.04


def test_epsilon_is_used(mdp):
    np.testing.assert_allclose(
        behavior_policy(mdp, "epsilon_clinician", epsilon=1.0).probabilities,
        behavior_policy(mdp, "random").probabilities,
    )


def test_the_step_limit_truncates(mdp):
    short = replace(mdp, max_episode_steps=3)
    data = collect(short, behavior_policy(mdp, "clinician"), episodes=200, seed=0)
    validate(mdp, data)
    assert data.step.max() == 2
    assert data.truncated.any()
    assert (data.truncated == (data.step == 2)).all()
    whole = collect(mdp, behavior_policy(mdp, "clinician"), episodes=200, seed=0)
    same = whole.step < 3
    np.testing.assert_array_equal(data.next_observation, whole.next_observation[same])


def test_bad_input(mdp):
    with pytest.raises(InputError, match="give one of clinician, random, epsilon_clinician"):
        behavior_policy(mdp, "clinicain")
    policy = behavior_policy(mdp, "random")
    with pytest.raises(InputError, match="episodes=0"):
        collect(mdp, policy, episodes=0, seed=0)
    with pytest.raises(InputError, match="seed=-1"):
        collect(mdp, policy, episodes=1, seed=-1)

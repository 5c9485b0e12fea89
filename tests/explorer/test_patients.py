"""The same patients under clinician and policy, and what is counted of them."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.explorer.patients import (
    count_actions,
    courses,
    decisions,
    paired,
    share_differences,
    summarize,
    treat,
)
from sepsis_rl.mdp import DoseGrid
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy, clinician_policy, optimal_policy

WAIT = Policy("wait", np.array([[1.0, 0.0]] * 5))


def test_identical_policies_give_identical_courses(mdp):
    pair = treat(mdp, clinician_policy(mdp), 300, seed=1)
    assert torch.equal(pair.states[0], pair.states[1])
    assert torch.equal(pair.actions[0], pair.actions[1])
    everyone = summarize(mdp, clinician_policy(mdp), pair)["groups"][0]
    for figure in ("survival", "vasopressor_hours", "hours"):
        assert (everyone[figure]["difference"], everyone[figure]["interval"]) == (0, [0, 0])
    assert (everyone["only_clinician"], everyone["only_policy"]) == (0, 0)


def test_patients_meet_the_same_draws_until_a_dose_differs(mdp):
    pair = treat(mdp, optimal_policy(mdp), 200, seed=0)
    theirs, ours = (courses(*of) for of in zip(pair.states, pair.actions, strict=True))
    assert theirs != ours
    for a, b in zip(theirs, ours, strict=True):
        apart = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        assert a == b if apart is None else apart % 2 == 1  # a dose, never a state
    again = treat(mdp, optimal_policy(mdp), 50, seed=0)  # others do not matter
    assert courses(again.states[1], again.actions[1]) == ours[:50]


def test_a_course_ends_where_the_patient_does(mdp):
    pair = treat(mdp, optimal_policy(mdp), 100, seed=3)
    for which, own in enumerate(courses(*of) for of in zip(pair.states, pair.actions, strict=True)):
        assert [len(course) for course in own] == (2 * pair.length[which] + 1).tolist()
        survived = [course[-1] == mdp.survival_state for course in own]
        assert survived == pair.survived[which].tolist()
        assert all(not mdp.terminal[course[0:-1:2]].any() for course in own)


def test_gains_by_group_are_those_of_planning_by_hand(chain_mdp):
    """Waiting is worth 3/4 everywhere; the clinician 17/30 in state 0 and 7/10 in state 1."""
    summary = summarize(chain_mdp, WAIT, treat(chain_mdp, WAIT, 4000, seed=0))
    everyone, low, high = summary["groups"]
    assert [group["name"] for group in (everyone, low, high)] == [
        "all patients", "SOFA < 5", "SOFA 8–<11",
    ]  # fmt: skip
    assert [group["share"] for group in (everyone, low, high)] == [1, 3 / 4, 1 / 4]
    np.testing.assert_allclose(low["exact"], [17 / 30, 3 / 4])
    np.testing.assert_allclose(high["exact"], [7 / 10, 3 / 4])
    np.testing.assert_allclose(everyone["exact"], [3 / 4 * 17 / 30 + 7 / 40, 3 / 4])
    assert low["patients"] + high["patients"] == everyone["patients"] == 4000
    for group in (everyone, low, high):
        gap, found = group["exact"][1] - group["exact"][0], group["survival"]
        assert abs(found["difference"] - gap) < 1.5 * (found["interval"][1] - found["difference"])
        net = (group["only_policy"] - group["only_clinician"]) / group["patients"]
        assert found["difference"] == pytest.approx(net)
    # By waiting alone nobody gets a vasopressor; the clinician gives 4 h a visit half the time.
    visits = evaluate(true_dynamics(chain_mdp), clinician_policy(chain_mdp).probabilities).visits
    hours = everyone["vasopressor_hours"]
    assert hours["policy"] == 0
    assert hours["clinician"] == pytest.approx(4 * visits[:, 1].sum(), rel=0.1)
    assert summary["vasopressor"][1]["difference"] == -summary["vasopressor"][1]["clinician"] < 0


def test_means_of_pairs_by_hand():
    theirs, ours = np.array([1.0, 0, 1, 0] * 8), np.array([1.0, 1, 1, 1] * 8)
    spread = 1.959963984540054 * math.sqrt(0.25 * 32 / 31 / 32)
    found = paired(theirs, ours)
    assert (found["clinician"], found["policy"], found["difference"]) == (0.5, 1, 0.5)
    np.testing.assert_allclose(found["interval"], [0.5 - spread, 0.5 + spread])
    assert paired(theirs[:29], ours[:29])["interval"] is None


def test_shares_of_decisions_by_hand():
    """Influences of the two kinds of patients on the difference are -1/2 and 1/2."""
    theirs, ours = np.array([[2.0, 0], [1, 1]] * 16), np.array([[0.0, 2], [1, 1]] * 16)
    first, second = share_differences(theirs, ours)
    spread = 1.959963984540054 * 0.5 / math.sqrt(31)
    assert (first["clinician"], first["policy"], first["difference"]) == (0.75, 0.25, -0.5)
    np.testing.assert_allclose(first["interval"], [-0.5 - spread, -0.5 + spread])
    assert second["difference"] == 0.5
    assert share_differences(theirs[:2], ours[:2])[0]["interval"] is None


def test_levels_are_sums_over_their_doses():
    counts = np.arange(12.0).reshape(2, 6)
    found = decisions(counts, counts, DoseGrid(2, 3))
    shares = counts.sum(axis=0) / counts.sum()
    assert [row["clinician"] for row in found["actions"]] == pytest.approx(shares.tolist())
    fluids = [shares[:3].sum(), shares[3:].sum()]
    assert [row["policy"] for row in found["iv_fluid"]] == pytest.approx(fluids)
    vasopressors = [shares[level::3].sum() for level in range(3)]
    assert [row["policy"] for row in found["vasopressor"]] == pytest.approx(vasopressors)
    assert "iv_fluid" not in decisions(counts, counts, None)


def test_counted_actions_and_woven_courses():
    actions = torch.tensor([[0, 2, -1], [1, 1, 1]])
    assert count_actions(actions.numpy(), 3).tolist() == [[1, 0, 1], [0, 3, 0]]
    states = torch.tensor([[5, 6, 9, -1], [7, 7, 7, 8]])
    assert courses(states, actions) == [[5, 0, 6, 2, 9], [7, 1, 7, 1, 7, 1, 8]]


def test_a_group_that_nobody_starts_in_is_left_out(chain_mdp):
    start = np.array([1.0, 0, 0, 0, 0])
    mdp = dataclasses.replace(chain_mdp, start=start)
    groups = summarize(mdp, WAIT, treat(mdp, WAIT, 100, seed=0))["groups"]
    assert [group["name"] for group in groups] == ["all patients", "SOFA < 5"]

"""Policies are tables that sum to one."""

import numpy as np
import pytest
import torch

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import (
    Policy,
    clinician_mode_policy,
    clinician_policy,
    epsilon_clinician_policy,
    greedy_policy,
    optimal_policy,
    policies_from_scores,
    random_policy,
)

TABLE = np.array([[0.2, 0.3, 0.5], [0.4, 0.4, 0.2], [0.0, 0.0, 1.0]])


def test_a_policy_is_checked_renormalized_copied_and_frozen() -> None:
    table = TABLE * (1 + 5e-7)
    policy = Policy("p", table)
    np.testing.assert_allclose(policy.probabilities, TABLE, rtol=1e-12)
    np.testing.assert_allclose(policy.probabilities.sum(axis=1), 1, rtol=1e-15)
    table[0, 0] = 9
    assert policy.probabilities[0, 0] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="read-only"):
        policy.probabilities[0, 0] = 1.0
    assert policy.probabilities.dtype == np.float64
    assert torch.tensor(policy.probabilities).dtype == torch.float64


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE * 1.001, "3 rows are no distributions, first that of state 0"),
        ([[1.0, 0.0], [1.5, -0.5]], "1 rows are no distributions, first that of state 1"),
        ([[1.0, 0.0], [np.nan, 1.0]], "first that of state 1"),
        ([[np.inf, 0.0]], "first that of state 0"),
        ([0.5, 0.5], r"shape \(2,\); accepted: \(n_states, n_actions\)"),
        (np.zeros((0, 2)), "shape"),
    ],
)
def test_no_policy(table, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Policy("p", np.array(table))


def test_actions_and_repr() -> None:
    policy = Policy("p", TABLE)
    np.testing.assert_array_equal(policy.actions, [2, 0, 2])  # a tie takes the lowest
    assert policy.actions.dtype == np.int64
    greedy = greedy_policy("most recorded", TABLE * 10)
    np.testing.assert_array_equal(greedy.probabilities, np.eye(3)[[2, 0, 2]])
    assert greedy.is_deterministic
    assert not policy.is_deterministic
    assert repr(policy) == "Policy('p', 3 states, 3 actions, stochastic)"
    assert repr(greedy) == "Policy('most recorded', 3 states, 3 actions, deterministic)"


def test_softened() -> None:
    policy, uniformly = Policy("p", TABLE), Policy("u", np.full((3, 3), 1 / 3))
    soft = policy.softened(0.1, uniformly)
    np.testing.assert_allclose(soft.probabilities, 0.9 * TABLE + 0.1 / 3, rtol=1e-12)
    np.testing.assert_array_equal(policy.softened(0, uniformly).probabilities, TABLE)
    with pytest.raises(InputError, match=r"epsilon is 1\.1"):
        policy.softened(1.1, uniformly)
    with pytest.raises(InputError, match="policy 'x' has shape"):
        policy.softened(0.1, Policy("x", np.ones((3, 1))))


def test_greedy_policy_of_scores() -> None:
    policy = greedy_policy("q", np.array([[1.0, 3.0, 3.0], [-2.0, -3.0, -np.inf]]))
    np.testing.assert_array_equal(policy.actions, [1, 0])
    assert policy.is_deterministic
    with pytest.raises(InputError, match="NaN"):
        greedy_policy("q", np.array([[np.nan, 1.0]]))


# --- scores of several members ------------------------------------------------------------------

ALLOWED = np.array([[True, True, False], [False, False, False], [True, False, True]])


def test_greedy_policies_of_scores() -> None:
    scores = np.array(
        [[[1, 3, 3], [2, 2, 2], [-9, -1, -2]], [[0, 0, 0], [0, 1, 5], [7, 8, 7]]], dtype=np.float32
    )
    policies = policies_from_scores(["a", "b"], scores)
    assert [policy.name for policy in policies] == ["a", "b"]
    assert all(policy.is_deterministic for policy in policies)
    assert [policy.actions.tolist() for policy in policies] == [[1, 0, 1], [0, 2, 1]]
    # Where nothing is allowed, everything is.
    policies = policies_from_scores(["a", "b"], scores, allowed=ALLOWED)
    assert [policy.actions.tolist() for policy in policies] == [[1, 0, 2], [0, 2, 0]]


def test_sampled_policies_are_the_softmax_over_what_is_allowed() -> None:
    logits = np.log([[[2.0, 3.0, 5.0], [4.0, 4.0, 2.0], [1.0, 8.0, 3.0]]])
    (free,) = policies_from_scores(["p"], logits, sampled=True)
    np.testing.assert_allclose(
        free.probabilities, [[0.2, 0.3, 0.5], [0.4, 0.4, 0.2], [1 / 12, 8 / 12, 3 / 12]], rtol=1e-12
    )
    (masked,) = policies_from_scores(["p"], logits, allowed=ALLOWED, sampled=True)
    # Renormalized; nothing allowed, so as it was.
    expected = [[0.4, 0.6, 0], [0.4, 0.4, 0.2], [0.25, 0, 0.75]]
    np.testing.assert_allclose(masked.probabilities, expected, rtol=1e-12)
    # What is a thousand below is out of reach, and what is a thousand above no overflow.
    (far,) = policies_from_scores(["p"], np.array([[[1000.0, -1000.0]]]), sampled=True)
    np.testing.assert_array_equal(far.probabilities, [[1, 0]])
    # All that is allowed lies far below what is not.
    steep, mask = np.array([[[-2000.0, -2000.0, 0.0]]]), ALLOWED[:1]
    (low,) = policies_from_scores(["p"], steep, allowed=mask, sampled=True)
    np.testing.assert_allclose(low.probabilities, [[0.5, 0.5, 0]], rtol=1e-12)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_member_that_has_diverged_has_no_policy(bad: float, sampled: bool) -> None:
    scores = np.zeros((3, 3, 3))
    scores[1, 0, 2] = bad  # the mask would hide it
    policies = policies_from_scores(["a", "b", "c"], scores, allowed=ALLOWED, sampled=sampled)
    assert [policy and policy.name for policy in policies] == ["a", None, "c"]


def test_a_mask_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"the mask has shape \(2, 3\); accepted: \(3, 3\)"):
        policies_from_scores(["p"], np.zeros((1, 3, 3)), allowed=ALLOWED[:2])


# --- named policies -----------------------------------------------------------------------------


def test_baselines_of_the_chain(chain_mdp: TabularMDP) -> None:
    np.testing.assert_array_equal(random_policy(chain_mdp).probabilities, np.full((5, 2), 0.5))
    clinician = clinician_policy(chain_mdp).probabilities
    np.testing.assert_allclose(clinician, [[0.5, 0.5], [0.9, 0.1]] + [[0.5, 0.5]] * 3)
    np.testing.assert_array_equal(clinician_mode_policy(chain_mdp).actions, [0, 0, 0, 0, 0])
    softened = epsilon_clinician_policy(chain_mdp, epsilon=0.2)
    np.testing.assert_allclose(softened.probabilities[1], [0.82, 0.18])
    assert softened.name == "clinician, epsilon 0.2"
    np.testing.assert_array_equal(optimal_policy(chain_mdp).actions[:2], [0, 0])
    np.testing.assert_array_equal(optimal_policy(chain_mdp, gamma=0.5).actions[:2], [1, 0])
    treated = optimal_policy(chain_mdp, strategy="terminate")
    value = evaluate(true_dynamics(chain_mdp, "terminate"), treated.probabilities)
    assert value.survival == pytest.approx(0.75)

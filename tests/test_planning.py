"""Exact figures: the published marks of ICU-Sepsis, and a chain worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from sepsis_rl.dynamics import Dynamics, true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate, value_iteration
from sepsis_rl.policies import (
    Policy,
    clinician_mode_policy,
    clinician_policy,
    optimal_policy,
    random_policy,
)

WAIT = np.array([[1.0, 0.0]] * 5)
EVEN = np.full((5, 2), 0.5)


def worst_policy(mdp: TabularMDP) -> Policy:
    plan = value_iteration(true_dynamics(mdp), maximize=False)
    return Policy("worst", np.eye(mdp.n_actions)[plan.actions])


@pytest.mark.parametrize(
    ("make", "survival", "length"),
    [
        (worst_policy, 0.6330, 12.32),
        (random_policy, 0.7801, 9.46),
        (clinician_policy, 0.7818, 9.24),
        (clinician_mode_policy, 0.7868, 8.85),
        (lambda mdp: optimal_policy(mdp, gamma=0.99), 0.8682, 9.13),
        (optimal_policy, 0.8751, 10.99),
    ],
)
def test_exact_survival_of_icu_sepsis(mdp: TabularMDP, make, survival, length) -> None:
    value = evaluate(true_dynamics(mdp), make(mdp).probabilities)
    assert value.survival == pytest.approx(survival, abs=1e-4)
    assert value.expected_length == pytest.approx(length, abs=0.0051)
    # Survival is the only reward, so the undiscounted value is the same number.
    assert value.value == pytest.approx(value.survival, abs=1e-12)
    assert value.visits.sum() == pytest.approx(value.expected_length, abs=1e-9)
    assert (value.visits >= 0).all()
    assert value.visits[mdp.terminal].sum() == 0


def test_icu_sepsis_agrees_with_a_dense_solve(mdp: TabularMDP) -> None:
    rng = np.random.default_rng(0)
    for probabilities in (
        rng.dirichlet(np.full(mdp.n_actions, 0.1), size=mdp.n_states),
        np.eye(mdp.n_actions)[rng.integers(mdp.n_actions, size=mdp.n_states)],
    ):
        moves = np.stack(
            [probabilities[s] @ mdp.rows[mdp.row_index[s]].toarray() for s in range(mdp.n_states)]
        )
        alive = ~mdp.terminal
        between = moves[np.ix_(alive, alive)]
        n = int(alive.sum())
        for gamma in (1.0, 0.9):
            values = np.linalg.solve(np.eye(n) - gamma * between, moves[alive] @ mdp.rewards)
            got = evaluate(true_dynamics(mdp), probabilities, gamma=gamma)
            assert got.value == pytest.approx(mdp.start[alive] @ values, abs=1e-11)
        visits = np.linalg.solve(np.eye(n) - between.T, mdp.start[alive])
        np.testing.assert_allclose(got.visits.sum(axis=1)[alive], visits, atol=1e-10)


@pytest.mark.parametrize(
    ("probabilities", "strategy", "survival", "length", "visits"),
    [
        # Waiting: 1.5 visits of state 0 (3/4 of the patients, two each), one of state 1.
        (WAIT, "mean", 0.75, 2.5, [[1.5, 0], [1, 0]]),
        (WAIT, "terminate", 0.75, 2.5, [[1.5, 0], [1, 0]]),
        (WAIT, "raise_exception", 0.75, 2.5, [[1.5, 0], [1, 0]]),
        # A coin: state 0 is left with 3/4, a third of them to state 1; state 1 saves one half,
        # (3/4 + 0) / 2 where treating there ends in death.
        (EVEN, "mean", 0.5, 1.5, [[0.5, 0.5], [0.25, 0.25]]),
        (EVEN, "terminate", 0.4375, 1.5, [[0.5, 0.5], [0.25, 0.25]]),
    ],
)
def test_chain_by_hand(chain_mdp, probabilities, strategy, survival, length, visits) -> None:
    value = evaluate(true_dynamics(chain_mdp, strategy), probabilities)
    assert value.survival == pytest.approx(survival, abs=1e-12)
    assert value.expected_length == pytest.approx(length, abs=1e-12)
    np.testing.assert_allclose(value.visits[:2], visits, atol=1e-12)
    assert (value.visits[2:] == 0).all()


def test_discounted_value_by_hand(chain_mdp: TabularMDP) -> None:
    # V1 = 3/4; V0 = (V0 + V1) / 4, so 1/4; 3/4 * 1/4 + 1/4 * 3/4.
    value = evaluate(true_dynamics(chain_mdp), WAIT, gamma=0.5)
    assert value.value == pytest.approx(0.375, abs=1e-12)
    assert value.survival == pytest.approx(0.75, abs=1e-12)
    assert value.expected_length == pytest.approx(2.5, abs=1e-12)


def test_raise_exception_refuses_only_what_can_happen(chain_mdp: TabularMDP) -> None:
    with pytest.raises(InputError, match=r"action 1 \(IV fluid 0, vasopressor 1\) in state 1"):
        evaluate(true_dynamics(chain_mdp, "raise_exception"), EVEN)
    # From state 0 alone, always treating, nobody comes to state 1.
    treat = np.array([[0.0, 1.0]] * 5)
    from_zero = true_dynamics(
        replace(chain_mdp, start=np.array([1.0, 0.0, 0.0, 0.0, 0.0])), "raise_exception"
    )
    assert evaluate(from_zero, treat).survival == pytest.approx(0.5)
    # Waiting leads there in the second step.
    late = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(InputError, match="in state 1"):
        evaluate(from_zero, late)


@pytest.fixture
def endless(waiting_mdp: TabularMDP, chain_mdp: TabularMDP) -> Dynamics:
    """Waiting in state 0 goes on forever."""
    return true_dynamics(replace(waiting_mdp, start=chain_mdp.start))


def test_a_policy_without_end_is_an_error(endless: Dynamics) -> None:
    with pytest.raises(InputError, match="may never end"):
        evaluate(endless, WAIT)
    assert evaluate(endless, EVEN).survival == pytest.approx(0.5, abs=1e-12)


def test_an_endless_state_that_nobody_reaches_is_none(endless: Dynamics) -> None:
    start = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    assert evaluate(replace(endless, start=start), WAIT).survival == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"gamma": 1.1}, "gamma is 1.1"),
        ({"probabilities": np.ones((5, 3)) / 3}, r"shape \(5, 3\); accepted: \(5, 2\)"),
        ({"probabilities": np.ones((5, 2))}, "no policy"),
        ({"probabilities": np.array([[2.0, -1.0]] * 5)}, "no policy"),
        ({"probabilities": np.full((5, 2), np.nan)}, "no policy"),
    ],
)
def test_bad_arguments(chain_mdp: TabularMDP, arguments, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(true_dynamics(chain_mdp), **{"probabilities": EVEN, **arguments})


def test_value_iteration_by_hand(chain_mdp: TabularMDP) -> None:
    plan = value_iteration(true_dynamics(chain_mdp))
    # Waiting in state 0 is worth what state 1 is.
    np.testing.assert_allclose(plan.q[:2], [[0.75, 0.5], [0.75, 0.25]], atol=1e-11)
    np.testing.assert_allclose(plan.values, [0.75, 0.75, 0, 0, 0], atol=1e-11)
    np.testing.assert_array_equal(plan.actions, [0, 0, 0, 0, 0])
    # Discounted by one half, (V0 + 3/4) / 4 of waiting is less than 1/2 of treating.
    plan = value_iteration(true_dynamics(chain_mdp), gamma=0.5)
    np.testing.assert_allclose(plan.q[:2], [[0.3125, 0.5], [0.75, 0.25]], atol=1e-11)
    np.testing.assert_array_equal(plan.actions[:2], [1, 0])


def test_the_worst_by_hand(chain_mdp: TabularMDP) -> None:
    plan = value_iteration(true_dynamics(chain_mdp), maximize=False)
    # In the worst case state 0 waits for the worse state 1, forever if that were worse still:
    # values grow from 0, so the sweeps never leave "wait forever, gain nothing".
    np.testing.assert_array_equal(plan.actions[1:2], [1])
    assert plan.values[1] == pytest.approx(0.25, abs=1e-11)
    assert plan.values[0] == pytest.approx(0.25, abs=1e-11)


def test_allowed_actions_and_strategies(chain_mdp: TabularMDP) -> None:
    only_treat = np.array([[False, True]] * 5)
    plan = value_iteration(true_dynamics(chain_mdp), allowed=only_treat)
    np.testing.assert_allclose(plan.values[:2], [0.5, 0.25], atol=1e-11)
    plan = value_iteration(true_dynamics(chain_mdp, "terminate"), allowed=only_treat)
    np.testing.assert_allclose(plan.values[:2], [0.5, 0.0], atol=1e-11)
    plan = value_iteration(true_dynamics(chain_mdp, "raise_exception"), maximize=False)
    np.testing.assert_array_equal(plan.actions[:2], [1, 0])
    with pytest.raises(InputError, match="state 1 has no allowed action"):
        value_iteration(true_dynamics(chain_mdp, "raise_exception"), allowed=only_treat)
    with pytest.raises(InputError, match="shape"):
        value_iteration(true_dynamics(chain_mdp), allowed=only_treat[:3])


def by_hand(row: list[float], rewards: np.ndarray, terminal: list[bool]) -> Dynamics:
    """A process in which the same follows every decision."""
    return Dynamics(
        rows=sp.csr_array([row]),
        mixture=sp.csr_array(np.ones((rewards.size, 1))),
        rewards=rewards,
        start=np.eye(len(rewards))[0],
        terminal=np.array(terminal),
    )


def test_ties_take_the_lowest_action_and_ends_are_worth_nothing() -> None:
    rewards = np.array([[0.0, 1.0, 1.0], [5.0, 5.0, 5.0]])
    plan = value_iteration(by_hand([0.0, 1.0], rewards, [False, True]))
    np.testing.assert_array_equal(plan.actions, [1, 0])
    np.testing.assert_array_equal(plan.values, [1.0, 0.0])
    np.testing.assert_array_equal(plan.q[1], [0, 0, 0])


def test_values_that_do_not_settle_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sepsis_rl.planning._MAX_SWEEPS", 100)
    with pytest.raises(InputError, match="still changes by 1 after 100 sweeps"):
        value_iteration(by_hand([1.0], np.ones((1, 1)), [False]))


def test_a_floor_keeps_a_loop_with_costs_from_sinking() -> None:
    plan = value_iteration(by_hand([1.0], -np.ones((1, 1)), [False]), floor=-3.0)
    np.testing.assert_array_equal(plan.values, [-3.0])


def test_plan_of_icu_sepsis_satisfies_bellman_and_its_own_policy(mdp: TabularMDP) -> None:
    plan = value_iteration(true_dynamics(mdp), gamma=0.99)
    q = (mdp.rows @ (mdp.rewards + 0.99 * plan.values))[mdp.row_index]
    q[mdp.terminal] = 0
    np.testing.assert_allclose(plan.q, q, atol=1e-10)
    got = evaluate(true_dynamics(mdp), np.eye(mdp.n_actions)[plan.actions], gamma=0.99)
    assert got.value == pytest.approx(mdp.start @ plan.values, abs=1e-9)

"""Dynamics by empirical Bayes: by hand, with loops, odd records, many states, and ICU-Sepsis."""

import tracemalloc

import numpy as np
import pytest
from outcome_records import (
    counts_of,
    odd_records,
    outcomes_of,
    random_led,
    slow_empirical_bayes,
    slow_state_rows,
    sparse_counts,
)

from sepsis_rl.data import behavior_policy, collect
from sepsis_rl.dynamics import (
    empirical_bayes,
    empirical_bayes_dynamics,
    estimated_dynamics,
    true_dynamics,
)
from sepsis_rl.dynamics.dose_effects import DoseEffects
from sepsis_rl.dynamics.prior_weights import prior_weights
from sepsis_rl.dynamics.state_rows import count_outcomes
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate, value_iteration

# One state, entered once in an episode. Of 20 with each of two doses 2 and 18 survived; nobody has
# had the third and fourth.
ONCE = np.array([[[0, 2, 18], [0, 18, 2], [0, 0, 0], [0, 0, 0]]])


def test_one_state_by_hand() -> None:
    # Squared lengths .82, .82 and .5: between 32.8 - 20 = 12.8, within 7.2 / 38, ratio 66.6 and
    # k' = 20 / 67.6 = .296. In the state's row half survive: V is 1/2, its variance 1/4. The
    # effects are -.385 and .385 (see test_dose_effects.py): with a dose R has survival .5 + g.
    dynamics = empirical_bayes_dynamics(
        counts_of(ONCE),
        admissible=np.ones((1, 4), dtype=bool),
        dose_features=np.array([[-1.0], [1.0], [0.5], [-10.0]]),
    )
    information = 2 / (6.1 / 48 / 10)
    g = 0.4 * information / (information + 10**0.8)
    weight = 20 / (12.8 / (7.2 / 38))
    expected = [
        (2 + weight * (0.5 - g)) / (20 + weight),
        (18 + weight * (0.5 + g)) / (20 + weight),
        0.5 + g / 2,
        0.01,  # of the half that survived, a tilt leaves 2 %
    ]
    np.testing.assert_allclose(dynamics.rewards, [expected], atol=1e-12)
    np.testing.assert_allclose(outcomes_of(dynamics)[0, :, 2], 1 - np.array(expected), atol=1e-12)
    assert not dynamics.terminal.any()
    assert dynamics.start == [1]


@pytest.mark.parametrize(
    ("n_states", "near", "with_doses"),
    [(4, False, True), (8, True, True), (12, False, False), (12, True, True), (40, True, True)],
)
@pytest.mark.parametrize("masked", [True, False])
def test_agrees_with_loops(n_states: int, near: bool, with_doses: bool, masked: bool) -> None:
    """Of 40 states not all are neighbors; the last dose is never recorded, and acts at its most."""
    rng, n_actions = np.random.default_rng([n_states, near, masked]), 5
    led = random_led(rng, n_states, n_actions, 40)
    led[:, -1] = 0
    vectors = rng.normal(size=(n_states, 3)) if near else None
    doses = rng.normal(size=(n_actions, 2)) * np.array([[1.0]] * 4 + [[30.0]])
    admissible = rng.random((n_states, n_actions)) < 0.7 if masked else led.any(axis=2)
    dynamics = empirical_bayes_dynamics(
        counts_of(led),
        admissible=admissible if masked else None,
        state_vectors=vectors,
        dose_features=doses if with_doses else None,
    )
    # Where no action is allowed, all are.
    admissible = admissible | ~admissible.any(axis=1, keepdims=True)
    expected = slow_empirical_bayes(led, admissible, vectors, doses * with_doses, masked)
    np.testing.assert_allclose(outcomes_of(dynamics), expected, atol=1e-6)


def test_where_nobody_dies_no_rounding_error_is_tilted(monkeypatch: pytest.MonkeyPatch) -> None:
    led = np.zeros((40, 2, 42), dtype=int)
    led[:, 0, :41] = np.random.default_rng(6).integers(9, size=(40, 41))
    steep = DoseEffects(np.full((40, 2), -0.3), 1.0)
    monkeypatch.setattr(empirical_bayes, "dose_effects", lambda *_: steep)
    dynamics = empirical_bayes_dynamics(counts_of(led), dose_features=np.ones((2, 1)))
    mixed = outcomes_of(dynamics)
    np.testing.assert_allclose(mixed[:, 1], slow_state_rows(led, None), atol=1e-5)
    assert np.abs(mixed[..., -1]).max() < 1e-11
    assert value_iteration(dynamics).values.max() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize("name", odd_records())
def test_odd_records(name: str, near: bool) -> None:
    led = odd_records()[name]
    # Two places far apart, where the first three and the last three are each other's neighbors.
    vectors = np.array([[0.0], [0.1], [0.2], [50], [50.1], [50.2]]) if near else None
    dynamics = empirical_bayes_dynamics(
        counts_of(led), state_vectors=vectors, dose_features=np.array([[-1.0], [0], [1]])
    )
    mixed = outcomes_of(dynamics)
    assert mixed.min() >= -1e-12  # death, the rest, too; NaN is not
    best = value_iteration(dynamics)
    assert ((best.values >= 0) & (best.values <= 1 + 1e-9)).all()
    survival = evaluate(dynamics, np.eye(3)[best.actions]).survival
    assert survival == pytest.approx(dynamics.start @ best.values, abs=1e-8)
    if name.startswith("all"):
        assert survival == pytest.approx(float(name == "all live"), abs=1e-8)


def test_memory_goes_with_distinct_transitions() -> None:
    # A matrix of pairs by states would take 80 GB here, and one of states by states 3.2 GB.
    rng, n_states, n_actions = np.random.default_rng(5), 20_000, 25
    counts = sparse_counts(rng, n_states, n_actions, 200_000)
    vectors, doses = rng.normal(size=(n_states, 2)), np.arange(25.0)[:, None] / 12 - 1
    tracemalloc.start()
    dynamics = empirical_bayes_dynamics(counts, state_vectors=vectors, dose_features=doses)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Rows of states are made of 31 states' transitions at most; pairs mix five rows. Measured: 65
    # bytes an entry.
    entries = 31 * (counts.transitions.nnz + n_states) + 5 * n_states * n_actions
    assert peak < 130 * entries
    dying = 1 - dynamics.expected(np.ones(n_states)) - dynamics.rewards
    assert dying.min() >= 0
    best = value_iteration(dynamics, tolerance=1e-6)
    assert 0.5 < dynamics.start @ best.values < 1


def test_plans_better_than_on_pooled_rows(mdp: TabularMDP) -> None:
    records = collect(mdp, behavior_policy(mdp, "clinician"), episodes=5000, seed=0)
    counts = records.counts(mdp.n_states, mdp.n_actions)
    outcomes = count_outcomes(counts)
    k, weight = prior_weights(outcomes, (outcomes.pairs > 0) & mdp.admissible)
    # .212 over data sets, standard deviation .016.
    assert (k / weight - 1)[0, 0] == pytest.approx(0.212, abs=0.05)
    allowed = mdp.admissible | mdp.terminal[:, None]

    def survival(estimate: str) -> float:
        plan = value_iteration(estimated_dynamics(counts, estimate, mdp), allowed=allowed)
        return evaluate(true_dynamics(mdp), np.eye(mdp.n_actions)[plan.actions]).survival

    assert survival("empirical_bayes") > max(0.805, survival("pooled"))

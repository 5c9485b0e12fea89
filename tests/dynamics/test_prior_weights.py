"""How much a pair borrows from its state: by hand, against loops, on real records."""

import numpy as np
import pytest
from outcome_records import counts_of, odd_records, outcomes_of, random_led, slow_shown

from sepsis_rl.baselines import tabular_policy
from sepsis_rl.data import behavior_policy, collect
from sepsis_rl.dynamics import empirical_bayes_dynamics, true_dynamics
from sepsis_rl.dynamics.prior_weights import differences_shown, prior_weights
from sepsis_rl.dynamics.state_rows import count_outcomes
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate


def ratio_of(led: np.ndarray, chosen: np.ndarray | None = None) -> float:
    outcomes = count_outcomes(counts_of(led))
    k, weight = prior_weights(outcomes, led.any(axis=2) if chosen is None else chosen)
    ratio = float((k / weight - 1)[0, 0])
    np.testing.assert_allclose(k, np.maximum(led.sum(axis=2) / ratio, 20), rtol=1e-6)
    np.testing.assert_allclose(weight, k / (1 + ratio), rtol=1e-6)
    return ratio


def test_prior_weights_by_hand() -> None:
    # 50 and 60 of 100 survived, squared lengths .5 and .52; together .55, squared length .505.
    # Between: 50 + 52 - 101 = 1. Within: (50 + 48) / 198 = 98 / 198. The ratio: 198 / 98 - 1.
    led = np.zeros((2, 4, 4), dtype=int)
    led[0, :2, 2:], led[0, 2, 2:] = [[50, 50], [60, 40]], [10, 0]
    led[1, 0, 2:] = [70, 30]  # a state with one decision compares none
    chosen = np.array([[True, True, False, False], [True, False, False, False]])
    k, weight = prior_weights(count_outcomes(counts_of(led)), chosen)
    # N / c is 98 for the two; of 10 / c and nothing, which are less than 20, 20; 70 + 30 again 98.
    np.testing.assert_allclose(k, [[98, 98, 20, 20], [98, 20, 20, 20]], rtol=1e-9)
    np.testing.assert_allclose(weight, k * 98 / 198, rtol=1e-9)
    assert ratio_of(led, chosen) == pytest.approx(100 / 98)
    # The third decision among the chosen, all of whose 10 survived, is further off.
    assert ratio_of(led) > 2


def test_prior_weights_at_their_limits() -> None:
    led = np.zeros((1, 2, 3), dtype=int)
    led[0, :, 1:] = [[30, 10], [60, 20]]
    assert ratio_of(led) == pytest.approx(0.02)  # no difference
    led[0, :, 1:] = [[1, 0], [0, 1]]
    assert ratio_of(led) == pytest.approx(0.02)  # nothing to compare a difference with
    # Always the same with one decision, and always another with the other: nothing is borrowed.
    led[0, :, 1:] = [[1000, 0], [0, 1000]]
    np.testing.assert_allclose(
        outcomes_of(empirical_bayes_dynamics(counts_of(led))), led / 1000, atol=1e-9
    )


def shown_by(led: np.ndarray) -> np.ndarray:
    outcomes = count_outcomes(counts_of(led))
    return differences_shown(outcomes, prior_weights(outcomes, led.any(axis=2))[0])


def test_differences_shown_by_hand() -> None:
    # Of 2 and 98 half survived: no distance, where chance makes some.
    led = np.zeros((1, 3, 3), dtype=int)
    led[0, :2, 1:] = [[1, 1], [49, 49]]
    assert shown_by(led).tolist() == [[0.01, 0.01, 0.01]]
    # Both of the 2 survived and 48 of the 98: the distance is twice what chance makes.
    led[0, :2, 1:] = [[2, 0], [48, 50]]
    assert shown_by(led).tolist() == [[1, 1, 1]]
    # Of 200 with each of two doses 90 and 111 survived: a squared distance of 2 (21 / 200)^2 =
    # .02205, where chance makes v / 100. Both have k = 20, and v = 1 - (201 * 200 + 199 * 198) /
    # (400 * 399) = .501241. Shown is (.02205 / .501241 - .01) * 20 = .6798.
    led = np.zeros((1, 2, 3), dtype=int)
    led[0, :, 1:] = [[90, 110], [111, 89]]
    outcomes = count_outcomes(counts_of(led))
    shown = differences_shown(outcomes, np.full((1, 2), 20.0))
    np.testing.assert_allclose(shown, 0.67981, rtol=1e-4)


def test_with_nothing_to_compare_all_is_as_without() -> None:
    led = np.zeros((2, 2, 4), dtype=int)
    assert shown_by(led + np.array([0, 0, 1, 0]) * [[[1], [0]]] * 3).tolist() == [[1, 1]] * 2
    led[:, :, 2] = 5  # all decisions survived
    assert shown_by(led).tolist() == [[1, 1]] * 2


@pytest.mark.parametrize("most", [3, 10, 40])
@pytest.mark.parametrize("n_states", [1, 6, 40])
def test_agrees_with_loops(n_states: int, most: int) -> None:
    led = random_led(np.random.default_rng([n_states, most]), n_states, 5, most)
    cohort = np.random.default_rng(1).uniform(20, 60, size=(n_states, 5))
    shown = differences_shown(count_outcomes(counts_of(led)), cohort)
    np.testing.assert_allclose(shown, slow_shown(led, cohort), rtol=1e-9)


@pytest.mark.parametrize("name", odd_records())
def test_odd_records_too(name: str) -> None:
    led = odd_records()[name]
    cohort = np.full(led.shape[:2], 20.0)
    shown = differences_shown(count_outcomes(counts_of(led)), cohort)
    np.testing.assert_allclose(shown, slow_shown(led, cohort), rtol=1e-9)
    assert ((shown >= 0.01) & (shown <= 1)).all()


def test_what_is_seldom_done_is_told_by_the_records_alone(
    mdp: TabularMDP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ICU-Sepsis puts the mean of the admissible actions in the place of the others."""
    records = collect(mdp, behavior_policy(mdp, "clinician"), episodes=50_000, seed=0)
    counts = records.counts(mdp.n_states, mdp.n_actions)
    outcomes = count_outcomes(counts)
    shown = differences_shown(outcomes, prior_weights(outcomes, outcomes.pairs > 0)[0])
    assert shown[outcomes.pairs == 5].max() < 0.2
    assert shown[outcomes.pairs >= 100].min() == 1

    def survival() -> float:
        table = tabular_policy(counts).probabilities
        return evaluate(true_dynamics(mdp), table).survival

    with_it = survival()
    where = "sepsis_rl.dynamics.empirical_bayes.differences_shown"
    monkeypatch.setattr(where, lambda outcomes, cohort: np.ones(outcomes.pairs.shape))
    assert with_it > survival() + 0.005

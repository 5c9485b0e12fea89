"""Effects of doses on the value of what follows: by hand."""

import numpy as np
import pytest
from outcome_records import counts_of
from scipy.stats import norm

from sepsis_rl.dynamics.dose_effects import (
    VARIANCES,
    DoseEffects,
    dose_effects,
    dose_features_by_state,
)
from sepsis_rl.dynamics.state_rows import count_outcomes, state_rows


def effects_of(led, values, features, chosen, cohort) -> DoseEffects:
    outcomes = count_outcomes(counts_of(led))
    return dose_effects(outcomes, state_rows(outcomes, None), values, features, chosen, cohort)


def test_features_by_hand() -> None:
    # Nine visited states worth 0 and one worth 1: mean .1, standard deviation .3, scores -1/3 and
    # 3, which counts as 2.5. The state worth 9 was never visited.
    values = np.array([0.0] * 9 + [1.0, 9.0])
    doses = np.array([[0.0, 1.0], [2.0, -1.0]])
    features = dose_features_by_state(doses, values, values < 9)
    expected = [[0, 1, 0, -1 / 3], [2, -1, -2 / 3, 1 / 3]]
    np.testing.assert_allclose(features[:9], [expected] * 9, atol=1e-12)
    expected = [[0, 1, 0, 2.5], [2, -1, 5, -2.5]]
    np.testing.assert_allclose(features[9:], [expected] * 2, atol=1e-12)
    # Where all are worth the same, no state scores above another.
    same = dose_features_by_state(doses, np.full(3, 0.7), np.ones(3, dtype=bool))
    np.testing.assert_allclose(same, [[[0, 1, 0, 0], [2, -1, 0, 0]]] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("cohort", "variance"),
    [
        # Means .1 and .9, half and half in the state's row: variance (3.6 + 10 / 4) / (38 + 10) =
        # .127, and noise .127 (1/20 + 1/20) = .0127. Apart from the intercept the means are -.4 and
        # .4 at features -1 and 1, so the information is 2 / .0127 = 157.4 and the likelihood is
        # largest at a variance of .4² - 1 / 157.4 = .154; 10^-.8 = .158 is next to it.
        (20.0, 10**-0.8),
        # A pair that rests on two patients says little: noise .127 (1/20 + 1/2) = .0699,
        # information 28.61, and .4² - 1 / 28.61 = .125; 10^-.9 = .126.
        (2.0, 10**-0.9),
    ],
)
def test_two_doses_by_hand(cohort: float, variance: float) -> None:
    # One state, entered once in an episode. Of 20 with each of two doses 2 and 18 survived; one
    # with a third survived, who is not among the chosen.
    led = np.array([[[0, 2, 18], [0, 18, 2], [0, 0, 0]]])
    features = np.array([[[-1.0], [1.0], [3.0]]])
    chosen = np.array([[True, True, False]])
    effects = effects_of(led, np.array([0.5, 1.0]), features, chosen, np.full((1, 3), cohort))
    noise = (3.6 + 2.5) / 48 * (1 / 20 + 1 / cohort)
    coefficient = 0.4 * (2 / noise) / (2 / noise + 1 / variance)
    np.testing.assert_allclose(effects.of_decisions, coefficient * features[..., 0], atol=1e-12)
    # The two means differ by .8, twice the coefficient and the noise of both.
    likelihood = norm.pdf(0.8, scale=np.sqrt(4 * VARIANCES + 2 * noise)).mean()
    none = norm.pdf(0.8, scale=np.sqrt(2 * noise))
    assert effects.probability == pytest.approx(likelihood / (likelihood + none), rel=1e-9)


def test_no_effect_where_nothing_tells_one() -> None:
    features, cohort = np.array([[[-1.0], [1.0]]]), np.full((1, 2), 20.0)
    values, both = np.array([0.5, 1.0]), np.ones((1, 2), dtype=bool)
    led = np.array([[[0, 2, 18], [0, 18, 2]]])
    assert effects_of(led, values, features, both, cohort).of_decisions.all()
    # Doses without features; no choice; everybody survives; a single dose was recorded.
    assert not effects_of(led, values, np.zeros((1, 2, 1)), both, cohort).of_decisions.any()
    assert not effects_of(led, values, features, ~both, cohort).of_decisions.any()
    survived = np.array([[[0, 5, 0], [0, 9, 0]]])
    assert not effects_of(survived, values, features, both, cohort).of_decisions.any()
    led[0, 1] = 0
    assert not effects_of(led, values, features, led.any(axis=2), cohort).of_decisions.any()

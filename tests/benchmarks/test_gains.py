"""`make gains`: values, strata, doses and bounds by hand."""

from dataclasses import replace

import numpy as np
import pytest

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate

WAIT = np.array([[1.0, 0.0]] * 5)
TREAT_FIRST = np.array([[0.0, 1.0], *[[1.0, 0.0]] * 4])


@pytest.fixture
def gains(script):
    return script("gains")


@pytest.mark.parametrize(
    ("policy", "gamma", "first"),
    # Waiting keeps half of them there: V = gamma (V / 2 + 3/8). Who is treated knows at once.
    [(WAIT, 1.0, 3 / 4), (WAIT, 0.5, 1 / 4), (TREAT_FIRST, 0.5, 1 / 2)],
)
def test_values_of_states(gains, chain_mdp, policy, gamma, first):
    truth = true_dynamics(chain_mdp)
    values = gains.state_values(truth, policy, gamma)
    np.testing.assert_allclose(values, [first, 3 / 4, 0, 0, 0], atol=1e-12)
    assert chain_mdp.start @ values == pytest.approx(evaluate(truth, policy, gamma=gamma).value)


def test_survival_by_stratum_is_weighted_by_first_states(gains, chain_mdp):
    values = np.array([0.2, 0.6, 0.0, 0.0, 0.0])
    by_stratum = gains.by_stratum(chain_mdp, values)
    assert by_stratum == pytest.approx({"SOFA < 5": 0.2, "SOFA 8–<11": 0.6})
    alike = replace(chain_mdp, sofa_scores=np.array([4.0, 4.0, 0.0, 0.0, 0.0]))
    assert gains.by_stratum(alike, values) == pytest.approx({"SOFA < 5": 0.3})


def test_decisions_by_level(gains, chain_mdp):
    visits = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    shares = gains.by_level(chain_mdp, visits)
    assert shares == {"IV fluid 0": 1.0, "vasopressor 0": 0.75, "vasopressor 1": 0.25}


def test_q_against_the_exact_value(gains):
    told = gains.lower_bound(
        start=np.array([0.5, 0.25, 0.25, 0.0]),
        visits=np.array([1.0, 2.0, 5.0, 0.0]),
        q=np.array([0.5, 0.5, 0.9, 9.0]),
        exact=np.array([0.5, 0.6, 0.8, 0.0]),
        alive=np.array([True, True, True, False]),
    )
    assert told == {
        "q_start": pytest.approx(0.6),
        "exact_start": pytest.approx(0.6),
        "states_below": pytest.approx(2 / 3),
        "visits_below": pytest.approx(3 / 8),
    }

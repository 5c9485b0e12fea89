"""Differences between settings over data sets and seeds."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import random_policy
from sepsis_rl.report.statistics import by_data_set, difference, paired, pooled_variance

# By data set and setting, exact survival of its seeds.
SURVIVAL = {
    "a": {"BC": [0.78, 0.80], "DQN": [0.70, 0.72, 0.74]},
    "b": {"BC": [0.80, 0.80], "DQN": [0.75, 0.77]},
    "c": {"BC": [0.76, 0.79], "DQN": [0.71, 0.71]},
    "d": {"BC": [0.90]},
}


def member(data="a", setting="BC", survival=0.5, alpha=0.0):
    return SimpleNamespace(
        data=SimpleNamespace(content_hash=data),
        setting=setting,
        alpha=alpha,
        steps=[4, 8] if data == "a" else [8],
        survival_at={4: 0.0, 8: survival}.__getitem__,
    )


@pytest.fixture
def experiment(mdp):
    everywhere = [
        member(data, setting, value)
        for data, settings in SURVIVAL.items()
        for setting, values in settings.items()
        for value in values
    ]
    random = evaluate(true_dynamics(mdp), random_policy(mdp).probabilities).survival
    return SimpleNamespace(
        everywhere=everywhere, common_step=8, reference_survival={"random": random}
    )


def test_a_difference_is_over_data_sets_that_have_both(experiment):
    found = difference(experiment, "BC", "DQN")
    gaps = [0.79 - 0.72, 0.80 - 0.76, 0.775 - 0.71]
    expected = scipy.stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(gaps))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert str(found) == f"+5.83 ({100 * expected.low:+.2f}, {100 * expected.high:+.2f}) points"
    assert set(by_data_set(experiment, ["BC"])) == {"a", "b", "c", "d"}
    assert set(by_data_set(experiment, ["BC", "DQN", "random"])) == {"a", "b", "c"}


def test_a_data_set_without_that_step_is_left_out(experiment):
    experiment.common_step = 4
    assert set(by_data_set(experiment, ["BC"])) == {"a"}


def test_random_is_the_same_everywhere(experiment):
    found = difference(experiment, "DQN", "random")
    exact = experiment.reference_survival["random"]
    assert found.mean == pytest.approx(np.mean([0.72, 0.76, 0.71]) - exact)


def test_one_data_set_has_no_interval(experiment):
    experiment.everywhere = [one for one in experiment.everywhere if one.data.content_hash == "a"]
    assert difference(experiment, "BC", "DQN") is None


def test_values_that_belong_together():
    found = paired(np.array([1.0, 2.0, 4.0]), np.array([0.5, 2.5, 3.0]))
    expected = scipy.stats.ttest_rel([1.0, 2.0, 4.0], [0.5, 2.5, 3.0]).confidence_interval(0.95)
    assert found.mean == pytest.approx(1 / 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_variance_within_alpha_is_pooled():
    members = [member(alpha=alpha) for alpha in (0.0, 0.0, 0.0, 1.0, 1.0, 2.0)]
    values = np.array([[1.0, 5], [2, 5], [3, 5], [10, 4], [14, 4], [99, 1]])
    variance, freedom = pooled_variance(members, values)
    assert freedom == 3
    assert variance.tolist() == pytest.approx([(2 + 8) / 3, 0])
    assert pooled_variance(members[-1:], values[-1:]) is None

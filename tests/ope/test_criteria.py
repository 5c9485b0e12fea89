"""Which policy a criterion chooses, and what that costs."""

import numpy as np
import pytest

from sepsis_rl.errors import InputError
from sepsis_rl.ope import OffPolicyScores
from sepsis_rl.ope.criteria import CRITERIA, criterion_values, regret, regret_of_chance
from sepsis_rl.ope.supported_value import SupportedValues
from sepsis_rl.policies import Policy


def scores(fqe, wis, wdr, wis_replicates, supported=None):
    policies = tuple(Policy(str(i), np.ones((1, 1))) for i in range(len(fqe)))
    some = np.ones(len(fqe))
    nothing = np.full((len(wis_replicates), len(fqe)), np.nan)
    return OffPolicyScores(
        policies=policies,
        epsilon=0 * some,
        clip=None,
        episodes=10,
        estimates={name: np.array(v) for name, v in (("fqe", fqe), ("wis", wis), ("wdr", wdr))},
        replicates={"fqe": nothing, "wis": np.array(wis_replicates), "wdr": nothing},
        recorded=0.5,
        recorded_replicates=np.full(len(wis_replicates), 0.5),
        effective_sample_size=some,
        largest_share=some,
        unseen_rate=some,
        supported=supported and SupportedValues(*np.full((4, len(fqe)), supported)),
    )


@pytest.fixture
def four():
    return scores(
        fqe=[0.9, 0.7, 0.8, 0.1],
        wis=[0.2, 0.6, 0.5, 0.9],
        wdr=[0.1, 0.1, 0.3, 0.2],
        # The lower ends are 0.15, 0.59, 0.45 and 0.1, give or take the percentile.
        wis_replicates=[[0.15, 0.59, 0.45, 0.1], [0.25, 0.61, 0.55, 1.0]],
        supported=[0.1, 0.1, 0.2, 0.1],
    )


@pytest.mark.parametrize(
    ("criterion", "chosen"),
    # The better half by WIS is 3 and 1, of which FQE takes 1.
    [
        ("supported_value", 2),
        ("fqe", 0),
        ("wis", 3),
        ("wis_lower", 1),
        ("wdr", 2),
        ("two_stage", 1),
    ],
)
def test_each_criterion_chooses_by_its_own(four, criterion, chosen):
    assert criterion_values(four, criterion).argmax() == chosen


def test_the_second_stage_has_only_those_kept(four):
    values = criterion_values(four, "two_stage")
    np.testing.assert_array_equal(values, [-np.inf, 0.7, -np.inf, 0.1])


def test_a_single_policy_is_kept():
    one = scores([0.4], [0.3], [0.2], [[0.1], [0.2]], [0.5])
    assert [float(criterion_values(one, c)[0]) for c in CRITERIA] == pytest.approx(
        [0.5, 0.4, 0.3, 0.1025, 0.2, 0.4]
    )


def test_what_cannot_be_estimated_is_not_chosen():
    some = scores([0.4, 0.3], [np.nan, 0.1], [0.2, 0.1], [[np.nan, 0.1], [np.nan, 0.1]])
    for criterion in ("wis", "wis_lower", "two_stage"):
        assert criterion_values(some, criterion).argmax() == 1


def test_scores_without_a_model_have_no_supported_value():
    with pytest.raises(InputError, match=r"takes a model for it; accepted here: fqe, wis"):
        criterion_values(scores([0.4], [0.3], [0.2], [[0.1]]), "supported_value")


def test_regret():
    truth = np.array([0.7, 0.9, 0.8])
    assert regret(np.array([3.0, 1.0, 2.0]), truth) == pytest.approx(0.2)
    assert regret(np.array([1.0, 1.0, 1.0]), truth) == pytest.approx(0.2)  # the first of equals
    assert regret(truth, truth) == 0
    assert regret_of_chance(truth) == pytest.approx(0.1)

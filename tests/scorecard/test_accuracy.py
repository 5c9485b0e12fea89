"""What a scorecard says of estimators, from arrays."""

import numpy as np
import pytest
import scipy.stats

from sepsis_rl.ope import ESTIMATORS
from sepsis_rl.policies import Policy
from sepsis_rl.scorecard.accuracy import (
    RULES,
    Estimates,
    KnownPolicy,
    summarize_policies,
    summarize_rules,
)
from sepsis_rl.scorecard.exhibits import finding
from sepsis_rl.scorecard.figure import draw


def known(*survivals, outside=0):
    """Policies of these values, the last so many of which cannot be chosen."""
    policy = Policy("p", np.ones((1, 1)))
    candidates = len(survivals) - outside
    return [
        KnownPolicy(policy, f"kind {i}", value, is_candidate=i < candidates)
        for i, value in enumerate(survivals)
    ]


def estimates(by_data_set, softened=None, half_width=0.1):
    """All estimators and criteria alike: (data sets, policies)."""
    values = np.array(by_data_set, dtype=np.float64)
    everywhere = np.repeat(values[:, None], len(ESTIMATORS), axis=1)
    return Estimates(
        estimate=everywhere,
        low=everywhere - half_width,
        high=everywhere + half_width,
        criteria=np.repeat(values[:, None], 2, axis=1),
        survival=values if softened is None else np.broadcast_to(softened, values.shape),
        ess=np.arange(values.size, dtype=np.float64).reshape(values.shape),
        unseen_rate=np.zeros(values.shape),
    )


def test_perfect_estimates():
    truth = [0.7, 0.9, 0.8]
    rows = summarize_rules(50, estimates([truth] * 4), known(*truth))
    assert [row["rule"] for row in rows] == list(RULES)
    for row in rows:
        # A criterion estimates nothing, and `two_stage` ranks only half of the candidates.
        if row["rule"] in ESTIMATORS:
            assert row["bias"] == row["rmse"] == 0
            assert row["coverage"] == 1
            assert row["width"] == pytest.approx(0.2)
        else:
            assert np.isnan([row[name] for name in ("bias", "rmse", "coverage", "width")]).all()
        rank = np.nan if row["rule"] == "two_stage" else 1
        assert row["rank_correlation"] == pytest.approx(rank, nan_ok=True)
        assert (row["episodes"], row["data_sets"]) == (50, 4)
        assert row["regret"] == row["regret_se"] == 0
        assert row["chance_regret"] == pytest.approx(0.1)  # 0.9 minus the mean of all three
        assert row["minus_chance"] == row["minus_chance_low"] == row["minus_chance_high"]
        assert row["minus_chance"] == pytest.approx(-0.1)
        assert row["verdict"] == "better"
        assert row["ess_median"] == 5.5


def test_errors_are_against_the_softened_policy_and_regret_against_its_own():
    # As scored, both are worth 0.5; by themselves, the second is better.
    by_data_set = estimates([[0.6, 0.5], [0.9, 0.4]], softened=0.5, half_width=0.15)
    row = summarize_rules(50, by_data_set, known(0.2, 0.6))[0]
    assert row["bias"] == pytest.approx((0.1 + 0.0 + 0.4 - 0.1) / 4)
    assert row["rmse"] == pytest.approx(np.sqrt((0.01 + 0.0 + 0.16 + 0.01) / 4))
    assert row["coverage"] == 0.75
    assert row["width"] == pytest.approx(0.3)
    assert row["regret"] == pytest.approx(0.4)
    assert row["rank_correlation"] == pytest.approx(-1)
    assert row["chance_regret"] == pytest.approx(0.2)
    assert row["verdict"] == "worse"


def test_random_and_optimum_are_not_chosen_and_not_ranked():
    # The third would be chosen, and upset every rank.
    by_data_set = estimates([[0.1, 0.2, 0.9]] * 2, softened=0.0)
    row = summarize_rules(50, by_data_set, known(0.5, 0.7, 0.1, outside=1))[0]
    assert row["regret"] == 0
    assert row["rank_correlation"] == pytest.approx(1)
    assert row["chance_regret"] == pytest.approx(0.1)
    assert row["bias"] == pytest.approx(0.4)  # but its error counts


def test_the_interval_is_students_over_data_sets():
    # Chosen: the third, the first, the second, the third.
    chosen = np.eye(3)[[2, 0, 1, 2]]
    row = summarize_rules(50, estimates(chosen), known(0.5, 0.6, 0.9))[0]
    regrets = np.array([0.0, 0.4, 0.3, 0.0])
    chance = 0.9 - 2.0 / 3
    expected = scipy.stats.ttest_1samp(regrets, chance).confidence_interval(0.95)
    assert row["regret"] == pytest.approx(regrets.mean())
    assert row["regret_se"] == pytest.approx(scipy.stats.sem(regrets))
    assert row["minus_chance"] == pytest.approx(regrets.mean() - chance)
    assert row["minus_chance_low"] == pytest.approx(expected.low - chance)
    assert row["minus_chance_high"] == pytest.approx(expected.high - chance)
    assert row["verdict"] == "no better"


@pytest.mark.parametrize(
    ("values", "regret", "rank"),
    [([np.nan, 0.1], 0.5, -1), ([0.5, 0.5], 0, 0)],
    ids=["what has no estimate is chosen last", "equal estimates rank nothing"],
)
def test_values_that_are_missing_or_alike(values, regret, rank):
    row = summarize_rules(50, estimates([values] * 2), known(0.9, 0.4))[0]
    assert (row["regret"], row["rank_correlation"]) == pytest.approx((regret, rank))


def test_figures_of_a_policy():
    values = np.array([[0.5, 0.2], [0.7, 0.2], [0.9, 0.2]])
    rows = summarize_policies(50, estimates(values, softened=(0.6, 0.2)), known(0.4, 0.3))
    assert [(row["estimator"], row["kind"]) for row in rows] == [
        (name, kind) for name in ESTIMATORS for kind in ("kind 0", "kind 1")
    ]
    row = rows[0]
    assert (row["exact"], row["exact_softened"]) == pytest.approx((0.4, 0.6))
    assert row["estimate"] == pytest.approx(0.7)
    assert row["estimate_low"] == pytest.approx(0.51)  # numpy's, between 0.5 and 0.7
    assert row["estimate_high"] == pytest.approx(0.89)
    assert row["bias"] == pytest.approx(0.1)
    assert row["coverage"] == pytest.approx(2 / 3)
    assert row["ess_median"] == 2.0


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], "With 50 episodes nothing beats choosing blindly, which costs"),
        ([[0.0, 1.0]] * 2, "With 50 episodes these beat choosing blindly, which costs 10.00 point"),
        ([[1.0, 0.0]] * 2, "Worse than blind: FQE (20.00), FQE, unseen 0 (20.00), WIS"),
    ],
)
def test_the_finding_in_words(chosen, said):
    assert said in finding(summarize_rules(50, estimates(chosen), known(0.5, 0.7)))


def test_what_is_beyond_the_axis_is_drawn_at_its_edge():
    rows = summarize_policies(50, estimates([[0.8, 7.0]] * 2, softened=0.8), known(0.8, 0.8))
    axes = draw(rows).axes[0]
    low, high = axes.get_ylim()
    marks = {
        line.get_marker(): line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 1
    }
    assert marks.keys() == {"o", "^"}
    assert (marks["o"], marks["^"]) == pytest.approx((80, high))
    assert low < 80


def test_an_optimum_far_from_all_others_is_an_arrow():
    softened = [0.78, 0.79, 0.90]
    rows = summarize_policies(50, estimates([softened] * 2, softened), known(*softened))
    for row, kind in zip(rows, ["BC", "CQL", "optimal"] * len(ESTIMATORS), strict=True):
        row["kind"] = kind
    axes = draw(rows).axes[0]
    assert 79 < axes.get_xlim()[1] < 80
    (arrow,) = [line for line in axes.lines if line.get_marker() == ">"]
    assert arrow.get_label() == "optimal, at 90.0 %"
    assert [*arrow.get_xdata(), *arrow.get_ydata()] == pytest.approx([axes.get_xlim()[1], 90])

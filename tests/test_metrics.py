"""Means, rates and differences against hand values, scipy and numpy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sepsis_rl.metrics import Z_95, MemberMean, PairedDifference, SurvivalRate


def outcomes(survived, patients):
    """A member each, of which so many survive."""
    return torch.arange(patients) < torch.tensor(survived).unsqueeze(1)


def test_z_is_the_normal_quantile():
    assert pytest.approx(float(stats.norm.ppf(0.975)), rel=1e-12) == Z_95


# -- survival ----------------------------------------------------------------------------------


def test_wilson_interval_by_hand():
    """8 of 10 for z = 1.96: 0.4901625 to 0.9433178 (Wilson, 1927)."""
    metric = SurvivalRate(1)
    metric.update(outcomes([8], 10))
    interval = metric.compute()
    z2 = Z_95**2
    center = (0.8 + z2 / 20) / (1 + z2 / 10)
    half = Z_95 * math.sqrt(0.8 * 0.2 / 10 + z2 / 400) / (1 + z2 / 10)
    assert interval.estimate.item() == 0.8
    assert interval.low.item() == pytest.approx(center - half, rel=1e-12)
    assert interval.high.item() == pytest.approx(center + half, rel=1e-12)
    assert interval.low.item() == pytest.approx(0.4901625, abs=1e-6)
    assert interval.high.item() == pytest.approx(0.9433178, abs=1e-6)


@pytest.mark.parametrize("patients", [1, 7, 100, 10_000])
def test_wilson_interval_is_scipys(patients):
    """Each member has its own; it stays inside [0, 1] also where all survive, or none."""
    survived = [0, patients // 3, patients]
    metric = SurvivalRate(3)
    metric.update(outcomes(survived, patients))
    interval = metric.compute()
    for member, count in enumerate(survived):
        expected = stats.binomtest(count, patients).proportion_ci(method="wilson")
        assert float(interval.estimate[member]) == count / patients
        assert float(interval.low[member]) == pytest.approx(expected.low, abs=1e-12)
        assert float(interval.high[member]) == pytest.approx(expected.high, abs=1e-12)
    assert ((interval.low >= 0) & (interval.low <= interval.estimate + 1e-12)).all()
    assert ((interval.high <= 1) & (interval.high >= interval.estimate - 1e-12)).all()
    assert all(field.dtype == torch.float64 for field in interval)


@pytest.mark.parametrize("rate", [0.5, 0.78, 0.95])
def test_the_interval_covers_the_truth_95_times_in_100(rate):
    """Over all that can happen to 200 patients, each outcome as often as it does."""
    patients = 200
    metric = SurvivalRate(patients + 1)
    metric.update(outcomes(list(range(patients + 1)), patients))
    interval = metric.compute()
    covers = ((interval.low <= rate) & (rate <= interval.high)).numpy()
    coverage = stats.binom.pmf(np.arange(patients + 1), patients, rate)[covers].sum()
    assert 0.93 < coverage < 0.97


# -- sums --------------------------------------------------------------------------------------


def updates():
    """Metrics, and rows to give them all at once or in parts."""
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 300, generator=generator) < 0.7
    b = torch.rand(300, generator=generator) < 0.7
    return [
        (SurvivalRate(2), lambda metric, rows: metric.update(a[:, rows])),
        (PairedDifference(2), lambda metric, rows: metric.update(a[:, rows], b[rows])),
        (
            MemberMean(2),
            lambda metric, rows: metric.update(a[:, rows].double().mean(1), len(a[0, rows])),
        ),
    ]


@pytest.mark.parametrize("which", range(3), ids=["SurvivalRate", "PairedDifference", "MemberMean"])
def test_two_updates_are_one(which):
    """Also over two processes, whose sums are added; and after a reset nothing is left."""
    whole, update = updates()[which]
    update(whole, slice(None))
    expected = [np.asarray(value) for value in whole.compute()]

    parts = updates()[which][0]
    update(parts, slice(0, 100))
    update(parts, slice(100, 300))
    np.testing.assert_allclose([np.asarray(v) for v in parts.compute()], expected, rtol=1e-12)

    first, second = updates()[which][0], updates()[which][0]
    update(first, slice(0, 120))
    update(second, slice(120, 300))
    first.merge_state(second)
    np.testing.assert_allclose([np.asarray(v) for v in first.compute()], expected, rtol=1e-12)

    whole.reset()
    update(whole, slice(0, 50))
    fresh = updates()[which][0]
    update(fresh, slice(0, 50))
    for ours, theirs in zip(whole.compute(), fresh.compute(), strict=True):
        assert torch.equal(ours, theirs)


def test_metrics_keep_nothing_in_checkpoints():
    for metric, update in updates():
        update(metric, slice(None))
        assert metric.state_dict() == {}


# -- means -------------------------------------------------------------------------------------


def test_member_mean_is_weighted_by_rows():
    metric = MemberMean(2)
    metric.update(torch.tensor([1.0, 10.0]), 300)
    metric.update(torch.tensor([5.0, 20.0]), 100)
    assert metric.compute().tolist() == [2.0, 12.5]
    assert metric.compute().dtype == torch.float64


def test_member_mean_without_weights_is_the_mean():
    metric = MemberMean(1)
    for value in (1.0, 2.0, 6.0):
        metric.update(torch.tensor([value], requires_grad=True))
    assert metric.compute().item() == 3.0
    assert not metric.compute().requires_grad


# -- differences -------------------------------------------------------------------------------


def correlated(patients, n_members=2, seed=0):
    """Outcomes that a patient's constitution decides as much as the policy."""
    rng = np.random.default_rng(seed)
    constitution = rng.normal(size=patients)
    reference = constitution + 0.5 * rng.normal(size=patients) > -1
    shift = 0.1 * np.arange(1, n_members + 1)[:, None]
    noise = rng.normal(size=(n_members, patients))
    return constitution + shift + 0.5 * noise > -1, reference


def test_paired_difference_is_numpys():
    outcome, reference = correlated(500)
    metric = PairedDifference(2)
    metric.update(torch.tensor(outcome), torch.tensor(reference))
    interval = metric.compute()
    difference = outcome.astype(float) - reference
    error = difference.std(axis=1, ddof=1) / math.sqrt(500)
    np.testing.assert_allclose(interval.estimate, difference.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(interval.low, difference.mean(axis=1) - Z_95 * error, rtol=1e-9)
    np.testing.assert_allclose(interval.high, difference.mean(axis=1) + Z_95 * error, rtol=1e-9)


def test_paired_difference_by_hand():
    """Differences of 1, 0, 0, -1, and of 1, 0, 1, -1: their variances are 2/3 and 11/12."""
    metric = PairedDifference(2)
    metric.update(
        torch.tensor([[True, True, False, False], [True, True, True, False]]),
        torch.tensor([False, True, False, True]),
    )
    interval = metric.compute()
    assert interval.estimate.tolist() == [0.0, 0.25]
    expected = [Z_95 * math.sqrt(2 / 3 / 4), Z_95 * math.sqrt(11 / 12 / 4)]
    assert (interval.high - interval.estimate).tolist() == pytest.approx(expected, rel=1e-12)
    assert (interval.estimate - interval.low).tolist() == pytest.approx(expected, rel=1e-12)


def test_paired_difference_of_lengths():
    """Not only of outcomes of 0 and 1."""
    rng = np.random.default_rng(0)
    reference = rng.integers(1, 30, 400)
    outcome = reference + rng.integers(-2, 5, (1, 400))
    metric = PairedDifference(1)
    metric.update(torch.tensor(outcome), torch.tensor(reference))
    difference = (outcome - reference)[0]
    error = difference.std(ddof=1) / math.sqrt(400)
    interval = metric.compute()
    assert interval.estimate.item() == pytest.approx(difference.mean())
    assert interval.high.item() == pytest.approx(difference.mean() + Z_95 * error)


def test_paired_intervals_are_narrower_and_still_cover():
    """Than two separate ones, where the outcomes are correlated."""
    patients, repeats = 400, 400
    outcome, reference = correlated(100_000, n_members=1, seed=1)
    truth = float(outcome.mean() - reference.mean())
    covered = 0
    for repeat in range(repeats):
        outcome, reference = correlated(patients, n_members=1, seed=2 + repeat)
        paired = PairedDifference(1)
        paired.update(torch.tensor(outcome), torch.tensor(reference))
        interval = paired.compute()
        covered += interval.low.item() <= truth <= interval.high.item()
        unpaired = Z_95 * math.sqrt((outcome.var(ddof=1) + reference.var(ddof=1)) / patients)
        assert (interval.high - interval.low).item() / 2 < 0.9 * unpaired
    assert 0.92 < covered / repeats < 0.98


def test_a_policy_compared_with_itself_does_not_differ():
    outcome, _ = correlated(300)
    metric = PairedDifference(1)
    metric.update(torch.tensor(outcome[:1]), torch.tensor(outcome[0]))
    assert [field.item() for field in metric.compute()] == [0.0, 0.0, 0.0]

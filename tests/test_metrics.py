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
    """Also over two processes, whose sums are added."""
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


def test_metrics_keep_nothing_in_checkpoints():
    for metric, update in updates():
        update(metric, slice(None))
        assert metric.state_dict() == {}


def test_member_mean_is_weighted_by_rows():
    """By 1 where no weight is given."""
    metric = MemberMean(2)
    metric.update(torch.tensor([1.0, 10.0], requires_grad=True), 3)
    metric.update(torch.tensor([5.0, 20.0]))
    assert metric.compute().tolist() == [2.0, 12.5]
    assert metric.compute().dtype == torch.float64
    assert not metric.compute().requires_grad


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

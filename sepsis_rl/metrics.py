"""Metrics of a population, summed over batches and processes.

Every metric keeps a leading *members* dimension and reduces by sums alone, so that a figure does
not depend on how its rows were spread over processes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

Z_95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


class Interval(NamedTuple):
    """An estimate with its 95 % interval; each field is (members,)."""

    estimate: Tensor
    low: Tensor
    high: Tensor


class MemberMean(Metric):
    """Weighted mean of a value per member.

    Args:
        n_members: Number of members.
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self, n_members: int) -> None:
        super().__init__()
        for name, shape in (("total", (n_members,)), ("weight", ())):
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, values: Tensor, weight: float = 1.0) -> None:
        """Adds a mean over `weight` rows.

        Args:
            values: (members,).
            weight: How many rows it stands for.
        """
        self.total += values.detach().to(torch.float64) * weight
        self.weight += weight

    def compute(self) -> Tensor:
        """The means, float64, (members,)."""
        return self.total / self.weight


class SurvivalRate(MemberMean):
    """Share of patients who survive, with its 95 % Wilson score interval.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference",
    JASA 22. Unlike estimate +- 1.96 standard errors it stays inside [0, 1].

    Args:
        n_members: Number of policies that are scored side by side.
    """

    def update(self, survived: Tensor) -> None:  # type: ignore[override]
        """Adds patients.

        Args:
            survived: bool, (members, patients).
        """
        self.total += survived.sum(-1)
        self.weight += survived.shape[-1]

    def compute(self) -> Interval:  # type: ignore[override]
        """Rate and interval, float64 probabilities."""
        n, rate = self.weight, super().compute()
        center = (rate + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
        spread = Z_95 * (rate * (1 - rate) / n + Z_95**2 / (4 * n**2)).sqrt() / (1 + Z_95**2 / n)
        return Interval(rate, (center - spread).clamp(min=0), (center + spread).clamp(max=1))


class PairedDifference(MemberMean):
    """Mean difference of two policies' outcomes on the same patients, with a 95 % interval.

    The outcomes of two policies on one patient are correlated, so the interval of their
    difference comes from the differences and is narrower than what two separate intervals say.

    Args:
        n_members: Number of policies that are compared with one reference.
    """

    squares: Tensor

    def __init__(self, n_members: int) -> None:
        super().__init__(n_members)
        self.add_state("squares", torch.zeros_like(self.total), dist_reduce_fx="sum")

    def update(self, outcome: Tensor, reference: Tensor) -> None:  # type: ignore[override]
        """Adds patients.

        Args:
            outcome: (members, patients).
            reference: Outcome of the reference policy on the same patients, (patients,).
        """
        difference = outcome.to(torch.float64) - reference.to(torch.float64)
        self.total += difference.sum(-1)
        self.squares += difference.square().sum(-1)
        self.weight += difference.shape[-1]

    def compute(self) -> Interval:  # type: ignore[override]
        """Mean difference and its normal interval."""
        n, mean = float(self.weight), super().compute()
        variance = (self.squares / n - mean.square()).clamp(min=0) * n / max(n - 1, 1)
        spread = Z_95 * variance.sqrt() / math.sqrt(n)
        return Interval(mean, mean - spread, mean + spread)

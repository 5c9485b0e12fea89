"""Statistics over data sets and seeds: differences between settings, and variances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from sepsis_rl.mdp import FloatArray
from sepsis_rl.report.experiment import Experiment
from sepsis_rl.runs.history import Member


class Difference(NamedTuple):
    """A mean difference of exact survival, with its 95 % paired-t interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:+.2f} ({100 * self.low:+.2f}, {100 * self.high:+.2f}) points"


def difference(experiment: Experiment, first: str, second: str) -> Difference | None:
    """Exact survival of one setting minus another's, over data sets, after as many steps.

    Args:
        experiment: With the grid and the same settings on other data sets.
        first: A setting, such as `CQL α=0.5`, `BC` or `random`.
        second: Another.

    Returns:
        The difference, or None with fewer than two data sets that have both.
    """
    means = [
        [_mean_of(experiment, members, name) for name in (first, second)]
        for members in by_data_set(experiment, [first, second]).values()
    ]
    return paired(*np.array(means).T) if len(means) > 1 else None


def by_data_set(experiment: Experiment, needed: Sequence[str]) -> dict[str, list[Member]]:
    """Members that were evaluated after `common_step`, by data set that has all the settings."""
    groups: dict[str, list[Member]] = {}
    for member in experiment.everywhere:
        if experiment.common_step in member.steps:
            groups.setdefault(member.data.content_hash, []).append(member)
    needed = [name for name in needed if name != "random"]
    return {
        data: members
        for data, members in groups.items()
        if set(needed) <= {member.setting for member in members}
    }


def _mean_of(experiment: Experiment, members: Sequence[Member], setting: str) -> float:
    if setting == "random":
        return experiment.reference_survival["random"]
    step = experiment.common_step
    return float(np.mean([m.survival_at(step) for m in members if m.setting == setting]))


def paired(first: FloatArray, second: FloatArray) -> Difference:
    """Mean of the differences between values that belong together, both (n,), n at least 2."""
    gaps = np.asarray(first) - np.asarray(second)
    n, mean = len(gaps), float(gaps.mean())
    margin = float(scipy.stats.t.ppf(0.975, n - 1) * gaps.std(ddof=1) / math.sqrt(n))
    return Difference(mean, mean - margin, mean + margin)


def pooled_variance(members: Sequence[Member], values: FloatArray) -> tuple[FloatArray, int] | None:
    """Variance over seeds within alpha.

    Args:
        members: Several of each alpha.
        values: For each member, (members, ...).

    Returns:
        The variance, (...), and its degrees of freedom; None where no alpha has two seeds.
    """
    by_alpha: dict[float, list[FloatArray]] = {}
    for member, value in zip(members, values, strict=True):
        by_alpha.setdefault(member.alpha, []).append(value)
    squares = [len(rows) * np.var(rows, axis=0) for rows in by_alpha.values()]
    freedom = sum(len(rows) - 1 for rows in by_alpha.values())
    return (np.sum(squares, axis=0) / freedom, freedom) if freedom else None

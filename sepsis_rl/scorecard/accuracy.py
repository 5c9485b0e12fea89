"""How near estimates come to the truth, and what choosing by them costs: a scorecard's tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import scipy.stats

from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope import ESTIMATORS, Estimator
from sepsis_rl.ope.criteria import Criterion, regret, regret_of_chance
from sepsis_rl.policies import Policy

CRITERIA_KEPT: Final[tuple[Criterion, ...]] = ("wis_lower", "two_stage")
RULES: Final[tuple[Estimator | Criterion, ...]] = (*ESTIMATORS, *CRITERIA_KEPT)
"""What a policy can be chosen by: an estimate's largest, or a criterion of `ope.criteria`."""

Row = dict[str, Any]
"""A row of a table, by column."""


@dataclass(frozen=True, eq=False)
class KnownPolicy:
    """A policy whose value is known.

    Attributes:
        policy: The policy.
        kind: What figures gather it under.
        survival: Its exact survival.
        is_candidate: Whether it can be chosen. The optimum and the random policy cannot: nobody
            has the one or would take the other, and both would make ranking look easy.
        is_of_a_run: Whether a run has learned it, with a network.
    """

    policy: Policy
    kind: str
    survival: float
    is_candidate: bool = True
    is_of_a_run: bool = False


class Estimates(NamedTuple):
    """What a data set says of the policies; of several data sets, with a leading dimension more.

    Attributes:
        estimate: float64 (estimators, policies), in the order of `ESTIMATORS`.
        low: Lower ends of 95 % intervals, likewise.
        high: Upper ends, likewise.
        criteria: float64 (2, policies): `CRITERIA_KEPT` among the candidates; -infinity for what
            they do not choose.
        survival: float64 (policies,), exact survival of the policies *as they were scored*:
            deterministic ones are softened toward the behavior of the data set.
        ess: float64 (policies,), effective sample size.
        unseen_rate: float64 (policies,), share of decisions that the data set never has.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    criteria: FloatArray
    survival: FloatArray
    ess: FloatArray
    unseen_rate: FloatArray


def summarize_rules(
    episodes: int, estimates: Estimates, policies: Sequence[KnownPolicy]
) -> list[Row]:
    """How well each rule does at a number of episodes.

    Errors are taken against the exact survival of the policies as they were scored, over all
    policies; ranks and regret against that of the policies themselves, over the candidates.

    Args:
        episodes: Of each data set.
        estimates: Of at least two data sets.
        policies: Which.

    Returns:
        By rule, in the order of `RULES`, the columns of `scorecard.csv`. A criterion estimates
        nothing and has no accuracy. `rank_correlation` is Spearman's, between the rule's values of
        the candidates and their exact survival, mean over data sets; `two_stage` has none, since it
        ranks only half of them. `regret` is the exact survival of the best candidate minus that of
        the one chosen, mean over data sets, `regret_se` its standard error, `chance_regret` what
        choosing blindly loses on average, and `minus_chance` the difference of the two with its
        95 % interval over data sets (Student's t). `verdict` is "better" or "worse" than chance
        where that interval leaves 0 out. `ess_median` is the median effective sample over policies
        and data sets.
    """
    kept = np.array([known.is_candidate for known in policies])
    truth = np.array([known.survival for known in policies])[kept]
    values = np.concatenate([estimates.estimate, estimates.criteria], axis=1)[:, :, kept]
    values = np.where(np.isnan(values), -np.inf, values)
    chance = regret_of_chance(truth)
    rows = []
    for index, rule in enumerate(RULES):
        regrets = np.array([regret(row, truth) for row in values[:, index]])
        correlations = [_rank_correlation(row, truth) for row in values[:, index]]
        se = float(scipy.stats.sem(regrets))
        minus_chance = float(regrets.mean()) - chance
        margin = float(scipy.stats.t.ppf(0.975, len(regrets) - 1)) * se
        low, high = minus_chance - margin, minus_chance + margin
        rows.append(
            {
                "episodes": episodes,
                "data_sets": len(regrets),
                "rule": rule,
                **_accuracy(estimates, index if rule in ESTIMATORS else None, slice(None)),
                "rank_correlation": math.nan if rule == "two_stage" else np.mean(correlations),
                "regret": regrets.mean(),
                "regret_se": se,
                "chance_regret": chance,
                "minus_chance": minus_chance,
                "minus_chance_low": low,
                "minus_chance_high": high,
                "verdict": "better" if high < 0 else "worse" if low > 0 else "no better",
                "ess_median": np.median(estimates.ess),
            }
        )
    return rows


def summarize_policies(
    episodes: int, estimates: Estimates, policies: Sequence[KnownPolicy]
) -> list[Row]:
    """What each estimator says of each policy at a number of episodes.

    Args:
        episodes: Of each data set.
        estimates: Of at least two data sets.
        policies: Which.

    Returns:
        By estimator and policy the columns of `scorecard-policies.csv`: `exact` survival of the
        policy, `exact_softened` that of the policy as it was scored, mean over data sets, and
        `estimate`, mean over data sets, between their 2.5th and 97.5th percentiles; its accuracy
        over data sets; the median effective sample; the mean share of decisions that a data set
        never has.
    """
    return [
        {
            "policy": known.policy.name,
            "kind": known.kind,
            "is_candidate": int(known.is_candidate),
            "episodes": episodes,
            "estimator": estimator,
            "exact": known.survival,
            "exact_softened": estimates.survival[:, column].mean(),
            "estimate": estimates.estimate[:, index, column].mean(),
            "estimate_low": np.percentile(estimates.estimate[:, index, column], 2.5),
            "estimate_high": np.percentile(estimates.estimate[:, index, column], 97.5),
            **_accuracy(estimates, index, column),
            "ess_median": np.median(estimates.ess[:, column]),
            "unseen_rate": estimates.unseen_rate[:, column].mean(),
        }
        for index, estimator in enumerate(ESTIMATORS)
        for column, known in enumerate(policies)
    ]


def _accuracy(estimates: Estimates, estimator: int | None, policies: int | slice) -> Row:
    """How near an estimator comes to the exact survival of the policies as they were scored.

    Returns:
        Mean error; root of the mean squared error; share of the 95 % intervals that hold the exact
        value, and their mean width, both NaN without intervals. All NaN without an estimator.
    """
    if estimator is None:
        return dict.fromkeys(("bias", "rmse", "coverage", "width"), math.nan)
    at = (slice(None), estimator, policies)
    truth = estimates.survival[:, policies]
    error = estimates.estimate[at] - truth
    low, high = estimates.low[at], estimates.high[at]
    held = np.where(np.isnan(low), np.nan, (low <= truth) & (truth <= high))
    return {
        "bias": error.mean(),
        "rmse": np.sqrt(np.square(error).mean()),
        "coverage": held.mean(),
        "width": (high - low).mean(),
    }


def _rank_correlation(values: FloatArray, truth: FloatArray) -> float:
    """Spearman's, of (candidates,); 0 where all values are alike and rank nothing."""
    if (values == values[0]).all():
        return 0.0
    return float(scipy.stats.spearmanr(values, truth).statistic)

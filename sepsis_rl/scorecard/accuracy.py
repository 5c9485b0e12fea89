"""How near estimates come to the truth, and what choosing by them costs: figures of a scorecard."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import scipy.stats

from sepsis_rl.mdp import BoolArray, FloatArray
from sepsis_rl.ope import ESTIMATORS, Estimator
from sepsis_rl.ope.criteria import ESTIMATOR_LABELS, regret, regret_of_chance
from sepsis_rl.policies import (
    Policy,
)

Rule = Estimator | Literal["wis_lower", "two_stage"]
RULES: Final[tuple[Rule, ...]] = (*ESTIMATORS, "wis_lower", "two_stage")
"""What a policy can be chosen by: an estimate's largest, or a criterion of `ope.criteria`."""

Verdict = Literal["better", "no better", "worse"]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)


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


@dataclass(frozen=True, eq=False)
class Estimates:
    """What a data set says of the policies; of several data sets, with a leading dimension more.

    Attributes:
        estimate: float64 (estimators, policies), in the order of `ESTIMATORS`.
        low: Lower ends of 95 % intervals, likewise.
        high: Upper ends, likewise.
        criteria: float64 (2, policies): `wis_lower` and `two_stage` among the candidates;
            -infinity for what they do not choose.
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

    def of(self, kept: BoolArray) -> Estimates:
        """Those of some of the policies, bool (policies,)."""
        return Estimates(
            *(getattr(self, field.name)[..., kept] for field in dataclasses.fields(self))
        )

    @classmethod
    def stack(cls, parts: Sequence[Estimates]) -> Estimates:
        """Those of several data sets."""
        return cls(
            *(
                np.stack([getattr(part, field.name) for part in parts])
                for field in dataclasses.fields(cls)
            )
        )


@dataclass(frozen=True)
class Accuracy:
    """How near estimates come to the exact survival of the policies as they were scored.

    Attributes:
        bias: Mean error.
        rmse: Root of the mean squared error.
        coverage: Share of the 95 % intervals that hold the exact value; NaN without intervals.
        width: Mean width of the intervals.
    """

    bias: float = math.nan
    rmse: float = math.nan
    coverage: float = math.nan
    width: float = math.nan


@dataclass(frozen=True)
class RuleFigures:
    """A row of `scorecard.csv`: a rule at a number of episodes.

    Attributes:
        episodes: Of each data set.
        data_sets: How many.
        rule: Estimator or criterion.
        accuracy: Over policies and data sets; NaN for a criterion, which estimates nothing.
        rank_correlation: Spearman's, between the rule's values of the candidates and their exact
            survival, mean over data sets. NaN for `two_stage`, which ranks only half of them.
        regret: Exact survival of the best candidate minus that of the one chosen, mean.
        regret_se: Its standard error.
        chance_regret: What choosing blindly loses on average.
        minus_chance: `regret` minus `chance_regret`.
        minus_chance_low: Lower end of its 95 % interval over data sets (Student's t).
        minus_chance_high: Upper end.
        verdict: "better" or "worse" than chance where that interval leaves 0 out.
        ess_median: Median effective sample over policies and data sets.
    """

    episodes: int
    data_sets: int
    rule: Rule
    accuracy: Accuracy
    rank_correlation: float
    regret: float
    regret_se: float
    chance_regret: float
    minus_chance: float
    minus_chance_low: float
    minus_chance_high: float
    verdict: Verdict
    ess_median: float


@dataclass(frozen=True)
class PolicyFigures:
    """A row of `scorecard-policies.csv`: an estimator's figures of a policy.

    Attributes:
        policy: Its name.
        kind: What figures gather it under.
        is_candidate: Whether rules choose among it and others.
        episodes: Of each data set.
        estimator: Which.
        exact: Exact survival of the policy.
        exact_softened: The same as scored, mean over data sets.
        estimate: Mean over data sets.
        estimate_low: The 2.5th percentile over data sets.
        estimate_high: The 97.5th.
        accuracy: Over data sets.
        ess_median: Median effective sample.
        unseen_rate: Mean share of decisions that a data set never has.
    """

    policy: str
    kind: str
    is_candidate: bool
    episodes: int
    estimator: Estimator
    exact: float
    exact_softened: float
    estimate: float
    estimate_low: float
    estimate_high: float
    accuracy: Accuracy
    ess_median: float
    unseen_rate: float


def summarize_rules(
    episodes: int, estimates: Estimates, policies: Sequence[KnownPolicy]
) -> list[RuleFigures]:
    """How well each rule does at a number of episodes.

    Errors are taken against the exact survival of the policies as they were scored, over all
    policies; ranks and regret against that of the policies themselves, over the candidates.

    Args:
        episodes: Of each data set.
        estimates: Of at least two data sets.
        policies: Which.

    Returns:
        By rule, in the order of `RULES`.
    """
    accuracies = [_accuracy(estimates, index, slice(None)) for index in range(len(ESTIMATORS))]
    kept = np.array([known.is_candidate for known in policies])
    truth = np.array([known.survival for known in policies])[kept]
    values = np.concatenate([estimates.estimate, estimates.criteria], axis=1)[:, :, kept]
    values = np.where(np.isnan(values), -np.inf, values)
    chance = regret_of_chance(truth)
    figures = []
    for index, rule in enumerate(RULES):
        regrets = np.array([regret(row, truth) for row in values[:, index]])
        correlations = [_rank_correlation(row, truth) for row in values[:, index]]
        se = float(regrets.std(ddof=1)) / math.sqrt(len(regrets))
        minus_chance = float(regrets.mean()) - chance
        margin = float(scipy.stats.t.ppf(0.975, len(regrets) - 1)) * se
        low, high = minus_chance - margin, minus_chance + margin
        figures.append(
            RuleFigures(
                episodes=episodes,
                data_sets=len(regrets),
                rule=rule,
                accuracy=accuracies[index] if index < len(ESTIMATORS) else Accuracy(),
                rank_correlation=math.nan if rule == "two_stage" else float(np.mean(correlations)),
                regret=float(regrets.mean()),
                regret_se=se,
                chance_regret=chance,
                minus_chance=minus_chance,
                minus_chance_low=low,
                minus_chance_high=high,
                verdict="better" if high < 0 else "worse" if low > 0 else "no better",
                ess_median=float(np.median(estimates.ess)),
            )
        )
    return figures


def summarize_policies(
    episodes: int, estimates: Estimates, policies: Sequence[KnownPolicy]
) -> list[PolicyFigures]:
    """What each estimator says of each policy at a number of episodes.

    Args:
        episodes: Of each data set.
        estimates: Of at least two data sets.
        policies: Which.

    Returns:
        By estimator and policy.
    """
    return [
        PolicyFigures(
            policy=known.policy.name,
            kind=known.kind,
            is_candidate=known.is_candidate,
            episodes=episodes,
            estimator=estimator,
            exact=known.survival,
            exact_softened=float(estimates.survival[:, column].mean()),
            estimate=float(estimates.estimate[:, index, column].mean()),
            estimate_low=float(np.percentile(estimates.estimate[:, index, column], 2.5)),
            estimate_high=float(np.percentile(estimates.estimate[:, index, column], 97.5)),
            accuracy=_accuracy(estimates, index, column),
            ess_median=float(np.median(estimates.ess[:, column])),
            unseen_rate=float(estimates.unseen_rate[:, column].mean()),
        )
        for index, estimator in enumerate(ESTIMATORS)
        for column, known in enumerate(policies)
    ]


def _accuracy(estimates: Estimates, estimator: int, policies: int | slice) -> Accuracy:
    at = (slice(None), estimator, policies)
    truth = estimates.survival[:, policies]
    error = estimates.estimate[at] - truth
    low, high = estimates.low[at], estimates.high[at]
    held = np.where(np.isnan(low), np.nan, (low <= truth) & (truth <= high))
    return Accuracy(
        bias=float(error.mean()),
        rmse=math.sqrt(float(np.square(error).mean())),
        coverage=float(held.mean()),
        width=float((high - low).mean()),
    )


def _rank_correlation(values: FloatArray, truth: FloatArray) -> float:
    """Spearman's, of (candidates,); 0 where all values are alike and rank nothing."""
    if (values == values[0]).all():
        return 0.0
    return float(scipy.stats.spearmanr(values, truth).statistic)


def finding(rows: Sequence[RuleFigures]) -> str:
    """What the rules' verdicts come to at a number of episodes, in a sentence or two."""
    first = rows[0]
    named = {
        verdict: ", ".join(
            f"{ESTIMATOR_LABELS[row.rule]} ({100 * row.regret:.2f})"
            for row in sorted(rows, key=lambda row: row.regret)
            if row.verdict == verdict
        )
        for verdict in VERDICTS
    }
    chance = f"choosing blindly, which costs {100 * first.chance_regret:.2f} points of survival"
    text = f"With {first.episodes:,} episodes "
    if named["better"]:
        text += f"these beat {chance}: {named['better']}."
    else:
        text += f"nothing beats {chance}."
    return text + (f" Worse than blind: {named['worse']}." if named["worse"] else "")


def as_csv(figures: Sequence[RuleFigures] | Sequence[PolicyFigures], header: str) -> bytes:
    """A row each, of `accuracy` its parts; what does not exist stays empty."""
    text = io.StringIO()
    text.write(f"{header}\n")
    rows = []
    for figure in figures:
        row: dict[str, Any] = {}
        for name, value in dataclasses.asdict(figure).items():
            row.update(value if name == "accuracy" else {name: value})
        rows.append({name: _cell(value) for name, value in row.items()})
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return str(int(value) if isinstance(value, bool) else value)

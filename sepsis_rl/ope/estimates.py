"""All estimates of several policies on the same episodes, with intervals that are paired.

Intervals are percentiles of a bootstrap over episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_args

import numpy as np
import torch

from sepsis_rl.dynamics import Unseen
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray
from sepsis_rl.metrics import Interval
from sepsis_rl.ope.doubly_robust import CrossFit, cross_fit, doubly_robust, weighted_doubly_robust
from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.ope.fitted_q import FittedQEvaluation, count_episodes, refitted_values
from sepsis_rl.ope.importance import (
    ImportanceWeights,
    importance_sampling,
    importance_weights,
    per_decision_importance_sampling,
    weighted_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from sepsis_rl.ope.supported_value import PENALTY, SupportedValue, SupportedValues
from sepsis_rl.policies import Policy, stack_policies

Estimator = Literal["fqe", "fqe_zero", "wis", "is", "pdis", "wpdis", "dr", "wdr"]
ESTIMATORS: Final[tuple[Estimator, ...]] = get_args(Estimator)
"""`fqe` values an unseen pair by its state's pooled row, `fqe_zero` by 0; `is` and `wis` weigh
whole episodes, `pdis` and `wpdis` single rewards; `dr` and `wdr` correct a fitted Q."""

LOW_ESS: Final = 100
"""An effective sample below this cannot judge a policy (Gottesman et al., 2019)."""

_PERCENTILES: Final = (2.5, 97.5)
_WEIGHTED: Final = {
    "is": importance_sampling,
    "wis": weighted_importance_sampling,
    "pdis": per_decision_importance_sampling,
    "wpdis": weighted_per_decision_importance_sampling,
}
_CORRECTED: Final = {"dr": doubly_robust, "wdr": weighted_doubly_robust}
_UNSEEN: Final[dict[str, Unseen]] = {"fqe": "pooled", "fqe_zero": "zero"}


@dataclass(frozen=True)
class OffPolicyOptions:
    """What off-policy estimates depend on, apart from the policies and the episodes.

    Args:
        epsilon: A deterministic policy is replaced by (1 - epsilon) * policy + epsilon * recorded
            decisions: few episodes follow one to the end. Its value moves too, by about epsilon
            times its distance from the recorded decisions'.
        clip: Largest cumulative importance ratio; null for none.
        resamples: Number of bootstrap resamples behind an interval; 0 for no intervals.
        seed: Seed of the resamples.
        penalty: What a decision that was recorded once costs in `supported_value`, in units of the
            return; one recorded N times costs 1 / sqrt(N) of it. It decides between policies that
            the records take for alike.

    Raises:
        InputError: A value is out of range.
    """

    epsilon: float = 0.01
    clip: float | None = None
    resamples: int = 200
    seed: int = 0
    penalty: float = PENALTY

    def __post_init__(self) -> None:
        for name, accepted, holds in (
            ("epsilon", "a number from 0 to 1", 0 <= self.epsilon <= 1),
            ("clip", "a number above 0, or null", self.clip is None or self.clip > 0),
            ("resamples", "an integer from 0 upward", self.resamples >= 0),
            ("seed", "an integer from 0 upward", self.seed >= 0),
            ("penalty", "a number from 0 upward", 0 <= self.penalty < math.inf),
        ):
            if not holds:
                raise InputError(f"{name}={getattr(self, name)} cannot be used: give {accepted}")


DEFAULTS: Final = OffPolicyOptions()


@dataclass(frozen=True)
class OffPolicyScores:
    """What recorded episodes say of several policies; nothing here has met a simulator.

    Attributes:
        policies: The policies as they were scored, softened where they were deterministic.
        epsilon: Softening of each, (policies,); 0 where there was none.
        clip: Largest cumulative importance ratio, or None.
        episodes: Number of episodes.
        estimates: float64 (policies,) by estimator.
        replicates: float64 (resamples, policies) by estimator, on the same resamples of the
            episodes; NaN where it was not asked for.
        recorded: Mean return of the episodes themselves.
        recorded_replicates: float64 (resamples,), of that.
        effective_sample_size: float64 (policies,), of the importance weights.
        largest_share: float64 (policies,), of the heaviest episode in the sum of the weights.
        unseen_rate: float64 (policies,), share of decisions that the episodes never have, by the
            policy's visits in the counted world of `fqe` (of `fqe_zero` where that alone was asked
            for); NaN without either.
        supported: Values of the policies, unsoftened, on dynamics of these and other records; None
            where they were not asked for.
    """

    policies: tuple[Policy, ...]
    epsilon: FloatArray
    clip: float | None
    episodes: int
    estimates: dict[Estimator, FloatArray]
    replicates: dict[Estimator, FloatArray]
    recorded: float
    recorded_replicates: FloatArray
    effective_sample_size: FloatArray
    largest_share: FloatArray
    unseen_rate: FloatArray
    supported: SupportedValues | None = None

    def interval(self, estimator: Estimator) -> Interval:
        """Estimates with their 95 % percentile intervals, float64 (policies,)."""
        return _interval(self.estimates[estimator], self.replicates[estimator])

    def recorded_interval(self) -> Interval:
        """Mean return of the episodes, float64 (1,)."""
        return _interval(np.array([self.recorded]), self.recorded_replicates[:, None])

    def minus_recorded(self, estimator: Estimator) -> Interval:
        """Each policy minus the recorded decisions, paired, float64 (policies,)."""
        return _interval(
            self.estimates[estimator] - self.recorded,
            self.replicates[estimator] - self.recorded_replicates[:, None],
        )

    def metrics(self) -> dict[str, torch.Tensor]:
        """The figures under their metric names, without the group; float64 (policies,)."""
        metrics: dict[str, torch.Tensor] = {}
        for name in self.estimates:
            interval = self.interval(name)
            metrics[name] = interval.estimate
            if not interval.low.isnan().all():
                metrics[f"{name}_low"], metrics[f"{name}_high"] = interval.low, interval.high
        metrics["ess"] = torch.from_numpy(self.effective_sample_size)
        metrics["ess_share"] = metrics["ess"] / self.episodes
        metrics["largest_weight"] = torch.from_numpy(self.largest_share)
        metrics["unseen_rate"] = torch.from_numpy(self.unseen_rate)
        if self.supported is not None:
            metrics["supported_value"] = torch.from_numpy(self.supported.value)
            metrics["anchored_value"] = torch.from_numpy(self.supported.anchored)
            metrics["rarity"] = torch.from_numpy(self.supported.rarity)
        return metrics


def evaluate_off_policy(
    policies: Sequence[Policy],
    episodes: Episodes,
    *,
    estimators: Sequence[Estimator] = ESTIMATORS,
    options: OffPolicyOptions = DEFAULTS,
    refit: bool = True,
    model: SupportedValue | None = None,
    advance: Callable[[int], Any] = lambda count: None,
) -> OffPolicyScores:
    """Judges policies by recorded episodes alone.

    Args:
        policies: What to judge; none was trained on these episodes.
        episodes: The records.
        estimators: Which estimates.
        options: Softening, clip and bootstrap.
        refit: False spares the interval of `fqe`, which takes most of the time.
        model: What values the policies besides, by other records too.
        advance: Told of resamples done; a policy has `options.resamples` of them.

    Returns:
        The scores.

    Raises:
        InputError: An estimator is unknown, or policies and episodes differ in their shape.
    """
    unknown = [name for name in estimators if name not in ESTIMATORS]
    if unknown:
        raise InputError(f"estimator {unknown[0]!r} is unknown; accepted: {', '.join(ESTIMATORS)}")
    shape = (episodes.n_states, episodes.n_actions)
    stack_policies(policies, shape)  # refuses what is no policy of these episodes
    soft = tuple(
        policy.softened(options.epsilon, episodes.behavior) if policy.is_deterministic else policy
        for policy in policies
    )
    tables = stack_policies(soft, shape)
    weights = importance_weights(tables, episodes, options.clip)
    judge = _Judge(estimators, tables, weights, episodes)
    estimates, unseen_rate = judge.estimate()
    replicates, recorded = judge.bootstrap(options, refit, advance)
    return OffPolicyScores(
        policies=soft,
        epsilon=np.array([options.epsilon * policy.is_deterministic for policy in policies]),
        clip=options.clip,
        episodes=len(episodes),
        estimates=estimates,
        replicates=replicates,
        recorded=float(episodes.returns.mean()),
        recorded_replicates=recorded,
        effective_sample_size=weights.effective_sample_size,
        largest_share=weights.largest_share,
        unseen_rate=unseen_rate,
        supported=None if model is None else model.judge(policies),
    )


class _Judge:
    """Estimators of policies, as functions of how often each episode counts.

    The importance weights are those of the whole sample, and so is the cross-fitted Q of `dr` and
    `wdr`. The Q of `fqe` is fitted anew to each sample.
    """

    def __init__(
        self,
        estimators: Sequence[Estimator],
        tables: FloatArray,
        weights: ImportanceWeights,
        episodes: Episodes,
    ) -> None:
        self.estimators, self.tables, self.episodes = estimators, tables, episodes
        self.counted = count_episodes(episodes)
        # Counts (samples, episodes) to estimates (samples, policies).
        self.linear: dict[Estimator, Callable[[FloatArray], FloatArray]] = {}
        fit: CrossFit | None = None
        for name in estimators:
            if name in _WEIGHTED:
                self.linear[name] = partial(_WEIGHTED[name], weights, episodes)
            elif name in _CORRECTED:
                fit = fit or cross_fit(tables, self.counted, episodes)
                self.linear[name] = partial(_CORRECTED[name], weights, fit, episodes)

    def estimate(self) -> tuple[dict[Estimator, FloatArray], FloatArray]:
        """Estimates on the episodes themselves, and the share of unseen decisions."""
        once = np.ones((1, len(self.episodes)))
        whole = self.counted.sample(once)
        estimates: dict[Estimator, FloatArray] = {}
        unseen_rate = np.full(len(self.tables), np.nan)
        for name in self.estimators:
            if name in self.linear:
                estimates[name] = self.linear[name](once)[0]
                continue
            fitted = FittedQEvaluation(whole, gamma=self.episodes.gamma, unseen=_UNSEEN[name])
            fits = [fitted.fit(table) for table in self.tables]
            estimates[name] = np.concatenate([fit.value for fit in fits])
            if name == "fqe" or "fqe" not in self.estimators:
                unseen_rate = np.concatenate([fit.unseen_share for fit in fits])
        return estimates, unseen_rate

    def bootstrap(
        self, options: OffPolicyOptions, refit: bool, advance: Callable[[int], Any]
    ) -> tuple[dict[Estimator, FloatArray], FloatArray]:
        """Estimates, and the mean return, on resamples of the episodes.

        `fqe_zero` is left out: it is the other end of what the rule for unseen pairs can do, and
        each resample has more of them than the sample, so that percentiles would lie below the
        estimate.
        """
        shape = (options.resamples, len(self.tables))
        replicates = {name: np.full(shape, np.nan) for name in self.estimators}
        recorded = np.empty(options.resamples)
        first = 0
        for counts in self.episodes.resamples(options.resamples, options.seed):
            block = slice(first, first + len(counts))
            first = block.stop
            recorded[block] = counts @ self.episodes.returns / len(self.episodes)
            for name, estimate in self.linear.items():
                replicates[name][block] = estimate(counts)
            if refit and "fqe" in self.estimators:
                replicates["fqe"][block] = refitted_values(
                    self.tables, self.counted, counts, gamma=self.episodes.gamma, advance=advance
                )
            else:
                advance(len(counts) * len(self.tables))
        return replicates, recorded


def _interval(estimates: FloatArray, replicates: FloatArray) -> Interval:
    if len(replicates):
        low, high = np.percentile(replicates, _PERCENTILES, axis=0)
    else:
        low = high = np.full_like(estimates, np.nan)
    return Interval(*(torch.from_numpy(np.asarray(part)) for part in (estimates, low, high)))

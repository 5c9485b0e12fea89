"""All estimates of several policies on the same episodes, with intervals that are paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import torch

from sepsis_rl.dynamics import Unseen
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray
from sepsis_rl.metrics import Interval
from sepsis_rl.ope.doubly_robust import cross_fit, doubly_robust, weighted_doubly_robust
from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.ope.fitted_q import FittedQEvaluation, count_episodes, refitted_values
from sepsis_rl.ope.importance import (
    importance_sampling,
    importance_weights,
    per_decision_importance_sampling,
    weighted_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from sepsis_rl.policies import Policy

Estimator = Literal["fqe", "fqe_zero", "wis", "is", "pdis", "wpdis", "dr", "wdr"]
ESTIMATORS: Final[tuple[Estimator, ...]] = get_args(Estimator)
"""`fqe` values an unseen pair by its state's pooled row, `fqe_zero` by 0; `is` and `wis` weigh
whole episodes, `pdis` and `wpdis` single rewards; `dr` and `wdr` correct a fitted Q."""

LOW_ESS: Final = 100
"""An effective sample below this cannot judge a policy (Gottesman et al., 2019)."""

_PERCENTILES = (2.5, 97.5)


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

    def minus_policy(self, estimator: Estimator, reference: int) -> Interval:
        """Each policy minus one of them, paired, float64 (policies,)."""
        estimates, replicates = self.estimates[estimator], self.replicates[estimator]
        return _interval(estimates - estimates[reference], replicates - replicates[:, [reference]])

    def metrics(self) -> dict[str, torch.Tensor]:
        """The figures under their metric names, without the group; float64 (policies,)."""
        metrics: dict[str, torch.Tensor] = {}
        for name in self.estimates:
            interval = self.interval(name)
            metrics[name] = interval.estimate
            if not interval.low.isnan().all():
                metrics[f"{name}_low"], metrics[f"{name}_high"] = (
                    interval.low,
                    interval.high,
                )
        metrics["ess"] = torch.from_numpy(self.effective_sample_size)
        metrics["ess_share"] = metrics["ess"] / self.episodes
        metrics["largest_weight"] = torch.from_numpy(self.largest_share)
        metrics["unseen_rate"] = torch.from_numpy(self.unseen_rate)
        return metrics


def evaluate_off_policy(
    policies: Sequence[Policy],
    episodes: Episodes,
    *,
    estimators: Sequence[Estimator] = ESTIMATORS,
    epsilon: float = 0.01,
    clip: float | None = None,
    resamples: int = 200,
    refit: bool = True,
    seed: int = 0,
    advance: Callable[[int], Any] = lambda count: None,
) -> OffPolicyScores:
    """Judges policies by recorded episodes alone.

    Intervals are percentiles of a bootstrap over episodes. The importance weights are those of the
    whole sample, the fitted Q of `fqe` is fitted anew to each resample; the cross-fitted Q of `dr`
    and `wdr` is not. `fqe_zero` has no interval: it is the other end of what the rule for unseen
    pairs can do, and each resample has more of them than the sample, so that percentiles would lie
    below the estimate.

    Args:
        policies: What to judge; none was trained on these episodes.
        episodes: The records.
        estimators: Which estimates.
        epsilon: A deterministic policy is replaced by (1 - epsilon) * policy + epsilon * behavior:
            few episodes follow one to the end. Its value moves too, by about epsilon times its
            distance from the behavior's.
        clip: Largest cumulative importance ratio; None for no limit.
        resamples: Number of bootstrap resamples; 0 for no intervals.
        refit: False spares the interval of `fqe`, which takes most of the time.
        seed: Of the resamples.
        advance: Told of resamples done; a policy has `resamples` of them.

    Returns:
        The scores.

    Raises:
        InputError: An option is out of range, or policies and episodes differ in their shape.
    """
    for option, value in (("resamples", resamples), ("seed", seed)):
        if value < 0:
            raise InputError(f"{option} is {value}; accepted: 0 or more")
    unknown = [name for name in estimators if name not in ESTIMATORS]
    if unknown:
        raise InputError(f"estimator {unknown[0]!r} is unknown; accepted: {', '.join(ESTIMATORS)}")
    if not policies:
        raise InputError("there are no policies to judge; accepted: at least one")
    shape = (episodes.n_states, episodes.n_actions)
    for policy in policies:
        if policy.probabilities.shape != shape:
            raise InputError(
                f"policy {policy.name!r} has shape {policy.probabilities.shape}; the episodes have "
                f"{shape}"
            )
    soft = tuple(
        policy.softened(epsilon, episodes.behavior) if policy.is_deterministic else policy
        for policy in policies
    )
    tables = np.stack([policy.probabilities for policy in soft])
    weights = importance_weights(tables, episodes, clip)
    counted = count_episodes(episodes)
    ones = np.ones((1, len(episodes)))

    linear: dict[Estimator, Callable[[FloatArray], FloatArray]] = {
        "is": lambda counts: importance_sampling(weights, episodes, counts),
        "wis": lambda counts: weighted_importance_sampling(weights, episodes, counts),
        "pdis": lambda counts: per_decision_importance_sampling(weights, episodes, counts),
        "wpdis": lambda counts: weighted_per_decision_importance_sampling(
            weights, episodes, counts
        ),
    }
    if {"dr", "wdr"} & set(estimators):
        fit = cross_fit(tables, counted, episodes)
        linear["dr"] = lambda counts: doubly_robust(weights, fit, episodes, counts)
        linear["wdr"] = lambda counts: weighted_doubly_robust(weights, fit, episodes, counts)
    fitted: dict[Estimator, Unseen] = {"fqe": "pooled", "fqe_zero": "zero"}

    estimates: dict[Estimator, FloatArray] = {}
    unseen_rate = np.full(len(soft), np.nan)
    for name in estimators:
        if name in linear:
            estimates[name] = linear[name](ones)[0]
        else:
            model = FittedQEvaluation(
                counted.sample(ones), gamma=episodes.gamma, unseen=fitted[name]
            )
            results = [model.fit(table) for table in tables]
            estimates[name] = np.concatenate([result.value for result in results])
            if name == "fqe" or "fqe" not in estimators:  # with `fqe_zero` alone, by its visits
                unseen_rate = np.concatenate([result.unseen_share for result in results])

    replicates = {name: np.full((resamples, len(soft)), np.nan) for name in estimators}
    recorded = np.empty(resamples)
    first = 0
    for counts in episodes.resamples(resamples, seed):
        block = slice(first, first + len(counts))
        first = block.stop
        recorded[block] = counts @ episodes.returns / len(episodes)
        for name in estimators:
            if name in linear:
                replicates[name][block] = linear[name](counts)
        if refit and "fqe" in estimators:
            replicates["fqe"][block] = refitted_values(
                tables, counted, counts, gamma=episodes.gamma, advance=advance
            )
        else:
            advance(len(counts) * len(tables))
    return OffPolicyScores(
        policies=soft,
        epsilon=np.array([epsilon * policy.is_deterministic for policy in policies]),
        clip=clip,
        episodes=len(episodes),
        estimates=estimates,
        replicates=replicates,
        recorded=float(episodes.returns.mean()),
        recorded_replicates=recorded,
        effective_sample_size=weights.effective_sample_size,
        largest_share=weights.largest_share,
        unseen_rate=unseen_rate,
    )


def _interval(estimates: FloatArray, replicates: FloatArray) -> Interval:
    if len(replicates):
        low, high = np.percentile(replicates, _PERCENTILES, axis=0)
    else:
        low = high = np.full_like(estimates, np.nan)
    return Interval(*(torch.from_numpy(np.asarray(part)) for part in (estimates, low, high)))

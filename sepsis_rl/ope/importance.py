"""Importance sampling: recorded returns, weighted by how likely the policy makes them.

All estimators are functions of how often each episode counts, `counts` (samples, episodes): ones
give the estimate, bootstrap counts its replicates. They return (samples, policies).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope.episodes import Episodes

# Largest product of ratios: infinity times a later 0 would be NaN, and sums must stay finite.
_LARGEST: Final = 1e250


@dataclass(frozen=True)
class ImportanceWeights:
    """Cumulative importance ratios of several policies.

    Attributes:
        cumulative: float64 (policies, rows), packed: the product of pi(a|s) / b(a|s) up to and
            including a row, in its episode, at most the clip.
        final: float64 (policies, episodes), that of each episode's last row.
    """

    cumulative: FloatArray
    final: FloatArray

    @property
    def effective_sample_size(self) -> FloatArray:
        """ESS = (sum of weights)^2 / sum of squares (Kong, 1992), (policies,); 0 without weight."""
        squares = np.square(self._scaled).sum(axis=1)
        ess: FloatArray = np.square(self._scaled.sum(axis=1)) / np.maximum(squares, 1e-300)
        return ess

    @property
    def largest_share(self) -> FloatArray:
        """Share of the heaviest episode in the sum of weights, (policies,); 0 without weight."""
        total = np.maximum(self._scaled.sum(axis=1), 1e-300)
        share: FloatArray = self._scaled.max(axis=1) / total
        return share

    @property
    def _scaled(self) -> FloatArray:
        """Final weights over the largest, so that squares of huge or tiny ones stay finite."""
        largest = self.final.max(axis=1, keepdims=True)
        scaled: FloatArray = self.final / np.where(largest > 0, largest, 1.0)
        return scaled


def importance_weights(
    tables: FloatArray, episodes: Episodes, clip: float | None = None
) -> ImportanceWeights:
    """Computes cumulative ratios.

    Args:
        tables: Probabilities, (policies, n_states, n_actions).
        episodes: The records.
        clip: Largest cumulative ratio, above 0; None leaves them as they are. A clip trades
            variance for bias. It limits what is used of a product, min(product, clip), and not
            the product that goes on (Ionides, 2008, "Truncated importance sampling").
    """
    state, action = episodes.observation, episodes.action
    behavior = episodes.behavior.probabilities[state, action]
    limit = _LARGEST if clip is None else clip
    product = np.ones((len(tables), len(episodes)))
    with np.errstate(over="ignore"):
        cumulative = np.minimum(tables[:, state, action] / behavior, _LARGEST)
        for rows in episodes.steps():
            under_way = product[:, : rows.stop - rows.start]
            under_way *= cumulative[:, rows]
            np.minimum(under_way, _LARGEST, out=under_way)
            np.minimum(under_way, limit, out=cumulative[:, rows])
    return ImportanceWeights(cumulative, np.minimum(product, limit))


def importance_sampling(
    weights: ImportanceWeights, episodes: Episodes, counts: FloatArray
) -> FloatArray:
    """Mean return, weighted by whole episodes.

    Source: Precup, Sutton & Singh (2000), "Eligibility traces for off-policy policy evaluation",
    ICML, section 3. Unbiased for a known behavior policy and without a clip.
    """
    return mean_by_count(weights.final * episodes.returns, counts)


def weighted_importance_sampling(
    weights: ImportanceWeights, episodes: Episodes, counts: FloatArray
) -> FloatArray:
    """The same, divided by the sum of the weights: biased, consistent, far less noisy.

    Source: Precup et al. (2000), section 3. NaN where no episode has any weight.
    """
    with np.errstate(invalid="ignore"):
        ratio: FloatArray = (counts @ (weights.final * episodes.returns).T) / (
            counts @ weights.final.T
        )
    return ratio


def per_decision_importance_sampling(
    weights: ImportanceWeights, episodes: Episodes, counts: FloatArray
) -> FloatArray:
    """Mean sum of rewards, each weighted by the decisions up to it.

    Source: Precup et al. (2000), section 4. Where the only reward is an episode's last, as in
    ICU-Sepsis, it equals `importance_sampling`.
    """
    rewards = weights.cumulative * (episodes.discount * episodes.reward)
    return mean_by_count(episodes.sum_by_episode(rewards), counts)


def weighted_per_decision_importance_sampling(
    weights: ImportanceWeights, episodes: Episodes, counts: FloatArray
) -> FloatArray:
    """The same with the weights of each step divided by their sum.

    Source: CWPDIS of Thomas (2015), "Safe reinforcement learning", PhD thesis, section 3.10, the
    consistent form of Precup et al. (2000), section 4.
    """
    return sum_normalized_by_step(
        weights, np.broadcast_to(episodes.reward, weights.cumulative.shape), episodes, counts
    )


def sum_normalized_by_step(
    weights: ImportanceWeights, values: FloatArray, episodes: Episodes, counts: FloatArray
) -> FloatArray:
    """Discounted sum over steps of the weighted mean of a value at that step.

    An episode that has ended keeps its last weight and has the value 0 from then on.

    Args:
        weights: Importance weights.
        values: (policies, rows), packed.
        episodes: The records.
        counts: How often each episode counts, (samples, episodes).

    Returns:
        (samples, policies).
    """
    total = np.zeros((len(counts), len(values)))
    ended = np.zeros_like(total)  # weight of the episodes that are over
    before = len(episodes)
    for rows in episodes.steps():
        under_way = rows.stop - rows.start
        ended += counts[:, under_way:before] @ weights.final[:, under_way:before].T
        weight = weights.cumulative[:, rows]
        drawn = counts[:, :under_way]
        discount = episodes.discount[rows.start]
        with np.errstate(invalid="ignore"):
            total += discount * (drawn @ (weight * values[:, rows]).T) / (drawn @ weight.T + ended)
        before = under_way
    return total


def mean_by_count(values: FloatArray, counts: FloatArray) -> FloatArray:
    """Means of (policies, episodes) over samples of the episodes, (samples, policies)."""
    mean: FloatArray = counts @ values.T / counts.sum(axis=1, keepdims=True)
    return mean

"""Doubly robust estimates: a model of the value, corrected by what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sepsis_rl.dynamics import CountedEpisodes, Unseen
from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope.episodes import Episodes
from sepsis_rl.ope.fitted_q import FittedQEvaluation
from sepsis_rl.ope.importance import ImportanceWeights, mean_by_count, sum_normalized_by_step

FOLDS: Final = 5


@dataclass(frozen=True)
class CrossFit:
    """What a model of the value says of episodes that it was not fitted to.

    Attributes:
        start_value: float64 (policies, episodes), value of each episode's first state.
        td_error: float64 (policies, rows), packed: r + gamma * V(s') - Q(s, a).
    """

    start_value: FloatArray
    td_error: FloatArray


def cross_fit(
    tables: FloatArray,
    counted: CountedEpisodes,
    episodes: Episodes,
    unseen: Unseen = "pooled",
    folds: int = FOLDS,
) -> CrossFit:
    """Fits Q on all folds of the episodes but one, and applies it to that one.

    A Q fitted to the very rows that it corrects would explain their noise and correct nothing
    (Chernozhukov et al., 2018, "Double/debiased machine learning"). The behavior policy is *not*
    cross-fitted: estimated on other episodes it makes the weights useless (see `Episodes`).

    Args:
        tables: Probabilities, (policies, n_states, n_actions).
        counted: The episodes, prepared for counting.
        episodes: The same episodes.
        unseen: What a pair without a count is worth.
        folds: Number of folds; of fewer episodes, each is one.

    Returns:
        Values and errors; zero for a single episode, which nothing else can explain.
    """
    n = len(episodes)
    start_value = np.zeros((len(tables), n))
    td_error = np.broadcast_to(episodes.reward, (len(tables), len(episodes.reward))).copy()
    folds = min(folds, n)
    if folds < 2:
        return CrossFit(start_value, td_error)
    fold = np.arange(n) % folds  # of episodes by length, so that folds are alike
    others = counted.sample((fold != np.arange(folds)[:, None]).astype(np.float64))
    model = FittedQEvaluation(others, gamma=episodes.gamma, unseen=unseen)
    fold_of_row = fold[episodes.episode]
    state, action = episodes.observation, episodes.action
    goes_on = episodes.gamma * ~episodes.terminated
    for policy, table in enumerate(tables):
        fitted = model.fit(table)
        start_value[policy] = fitted.v[fold, episodes.starts]
        td_error[policy] += goes_on * fitted.v[fold_of_row, episodes.next_observation]
        td_error[policy] -= fitted.q[fold_of_row, state, action]
    return CrossFit(start_value, td_error)


def doubly_robust(
    weights: ImportanceWeights, fit: CrossFit, episodes: Episodes, counts: FloatArray
) -> FloatArray:
    """V(s_0) plus the importance-weighted errors of the model.

    Source: Jiang & Li (2016), "Doubly robust off-policy value evaluation for reinforcement
    learning", ICML, eq. 10, unrolled over the episode.

    Returns:
        (samples, policies).
    """
    errors = weights.cumulative * (episodes.discount * fit.td_error)
    return mean_by_count(fit.start_value + episodes.sum_by_episode(errors), counts)


def weighted_doubly_robust(
    weights: ImportanceWeights, fit: CrossFit, episodes: Episodes, counts: FloatArray
) -> FloatArray:
    """The same with the weights of each step divided by their sum.

    Source: Thomas & Brunskill (2016), "Data-efficient off-policy policy evaluation for
    reinforcement learning", ICML: WDR.

    Returns:
        (samples, policies).
    """
    start = mean_by_count(fit.start_value, counts)
    return start + sum_normalized_by_step(weights, fit.td_error, episodes, counts)

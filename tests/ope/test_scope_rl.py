"""The same numbers as SCOPE-RL, on episodes of one length (it knows no others)."""

import warnings

import numpy as np
import pytest

from sepsis_rl.ope import Episodes
from sepsis_rl.ope.doubly_robust import CrossFit, doubly_robust, weighted_doubly_robust
from sepsis_rl.ope.fitted_q import FittedQEvaluation, count_episodes
from sepsis_rl.ope.importance import (
    importance_sampling,
    importance_weights,
    per_decision_importance_sampling,
    weighted_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from sepsis_rl.policies import Policy

LENGTH = 4


@pytest.fixture(scope="module")
def peer():
    """Its estimators; it is no dependency of this project."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("scope_rl.ope.discrete")


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_same_numbers(peer, make_random_records, random_tables, gamma) -> None:
    transitions = make_random_records(51, 60, length=LENGTH)
    behavior = random_tables(52, 1)[0]
    table = random_tables(53, 1)[0]
    episodes = Episodes(transitions, 4, 3, gamma=gamma, behavior=Policy("known", behavior))
    weights = importance_weights(table[None], episodes)
    once = np.ones((1, 60))
    q = FittedQEvaluation(count_episodes(episodes).sample(once), gamma=gamma).fit(table).q[0]
    v = (table * q).sum(axis=1)
    beyond = np.where(episodes.terminated, 0, gamma * v[episodes.next_observation])
    fit = CrossFit(
        v[episodes.starts][None],
        (episodes.reward + beyond - q[episodes.observation, episodes.action])[None],
    )
    given = {
        "step_per_trajectory": LENGTH,
        "action": transitions.action,
        "reward": transitions.reward.astype(np.float64),
        "pscore": behavior[transitions.observation, transitions.action],
        "evaluation_policy_action_dist": table[transitions.observation],
        "state_action_value_prediction": q[transitions.observation],
        "gamma": gamma,
    }
    for estimator, ours in (
        (peer.TrajectoryWiseImportanceSampling, importance_sampling(weights, episodes, once)),
        (peer.SelfNormalizedTIS, weighted_importance_sampling(weights, episodes, once)),
        (
            peer.PerDecisionImportanceSampling,
            per_decision_importance_sampling(weights, episodes, once),
        ),
        (
            peer.SelfNormalizedPDIS,
            weighted_per_decision_importance_sampling(weights, episodes, once),
        ),
        (peer.DoublyRobust, doubly_robust(weights, fit, episodes, once)),
        (peer.SelfNormalizedDR, weighted_doubly_robust(weights, fit, episodes, once)),
    ):
        theirs = estimator().estimate_policy_value(**given)
        # It adds 1e-10 to what it divides by.
        assert ours[0, 0] == pytest.approx(theirs, rel=1e-8), estimator.__name__

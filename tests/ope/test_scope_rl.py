"""The same numbers as SCOPE-RL, which `record_scope_rl.py` has written down."""

import json
from pathlib import Path

import numpy as np
import pytest

from sepsis_rl.ope import Episodes
from sepsis_rl.ope.doubly_robust import CrossFit, doubly_robust, weighted_doubly_robust
from sepsis_rl.ope.importance import (
    importance_sampling,
    importance_weights,
    per_decision_importance_sampling,
    weighted_importance_sampling,
    weighted_per_decision_importance_sampling,
)
from sepsis_rl.policies import Policy

RECORD = json.loads((Path(__file__).parent / "data" / "scope_rl.json").read_text())


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_same_numbers(make_records, gamma) -> None:
    columns = ("observation", "action", "reward", "next_observation")
    steps = list(zip(*(RECORD[name] for name in columns), strict=True))
    length = RECORD["length"]
    transitions = make_records(
        [steps[first : first + length] for first in range(0, len(steps), length)]
    )
    behavior, table, q = (np.array(RECORD[name]) for name in ("behavior", "policy", "q"))
    episodes = Episodes(transitions, *q.shape, gamma=gamma, behavior=Policy("known", behavior))
    weights = importance_weights(table[None], episodes)
    once = np.ones((1, len(episodes)))
    v = (table * q).sum(axis=1)
    beyond = np.where(episodes.terminated, 0, gamma * v[episodes.next_observation])
    fit = CrossFit(
        v[episodes.starts][None],
        (episodes.reward + beyond - q[episodes.observation, episodes.action])[None],
    )
    ours = {
        "is": importance_sampling(weights, episodes, once),
        "wis": weighted_importance_sampling(weights, episodes, once),
        "pdis": per_decision_importance_sampling(weights, episodes, once),
        "wpdis": weighted_per_decision_importance_sampling(weights, episodes, once),
        "dr": doubly_robust(weights, fit, episodes, once),
        "wdr": weighted_doubly_robust(weights, fit, episodes, once),
    }
    theirs = RECORD["estimates"][str(gamma)]
    # It adds 1e-10 to what it divides by.
    assert {name: value[0, 0] for name, value in ours.items()} == pytest.approx(theirs, rel=1e-8)

"""Values of policies by dynamics of the records: by hand, and against loops."""

import math

import numpy as np
import pytest
import scipy.sparse as sp

from sepsis_rl.data import behavior_policy, collect
from sepsis_rl.dynamics import Counts, true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.ope import Episodes
from sepsis_rl.ope.supported_value import PENALTY, SupportedValue, alike, resampled_values
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy


def one_state(survived, died):
    """Episodes of a single decision."""
    survived, died = np.array([survived], dtype=float), np.array([died], dtype=float)
    return Counts(
        pairs=survived + died,
        transitions=sp.csr_array((survived.size, 1)),
        reward_sums=survived,
        starts=np.array([(survived + died).sum()]),
        return_sums=np.array([survived.sum()]),
    )


def always(action, n_states, n_actions=2):
    table = np.zeros((n_states, n_actions))
    table[:, action] = 1
    return Policy(f"always {action}", table)


def test_one_decision_by_hand():
    # Squared lengths .82, .82 and .5: between 32.8 - 20 = 12.8, within 7.2 / 38, ratio 66.6; a pair
    # is worth its own 20 and 20 / 67.6 of its state's, of whom half survived.
    own = 20 / (12.8 / (7.2 / 38))
    best, worst = ((survived + own / 2) / (20 + own) for survived in (18, 2))
    judge = SupportedValue(one_state([18, 2], [2, 18]), penalty=0.01)
    both = Policy("both", np.array([[0.25, 0.75]]))
    values = judge.judge([always(0, 1), always(1, 1), both])
    mixed = best / 4 + worst * 3 / 4
    np.testing.assert_allclose(values.modeled, [best, worst, mixed], rtol=1e-12)
    np.testing.assert_allclose(values.rarity, 1 / math.sqrt(20), rtol=1e-12)
    np.testing.assert_allclose(values.value, values.modeled - 0.01 / math.sqrt(20), rtol=1e-12)
    # The model values the recorded decisions as they were: at one half.
    np.testing.assert_allclose(values.anchored, values.modeled, rtol=1e-12)


def test_what_is_anchored():
    # Of 30 with the first 27 survived, of 10 with the second 1: by the model a little less.
    judge = SupportedValue(one_state([27, 1], [3, 9]))
    recorded = Policy("recorded", np.array([[0.75, 0.25]]))
    (modeled,) = judge.judge([recorded]).modeled
    values = judge.judge([recorded, always(0, 1)])
    assert modeled != pytest.approx(0.7, abs=1e-6)
    assert values.anchored[0] == pytest.approx(28 / 40, rel=1e-12)
    np.testing.assert_allclose(values.anchored - values.modeled, 0.7 - modeled, rtol=1e-9)


def test_a_decision_never_recorded_is_as_rare_as_one_recorded_once():
    counts = one_state([5, 1, 0], [4, 0, 0])
    judge = SupportedValue(counts)
    assert judge.judge([always(a, 1, 3) for a in range(3)]).rarity.tolist() == [1 / 3, 1, 1]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("known", [False, True])
def test_agrees_with_loops(chain_mdp, seed, known):
    """Patients are followed step by step through the estimated dynamics, as shares of all."""
    mdp = chain_mdp if known else None
    counts = collect(
        chain_mdp, behavior_policy(chain_mdp, "clinician"), episodes=60, seed=seed
    ).counts(5, 2)
    judge = SupportedValue(counts, mdp)
    mixed = np.random.default_rng(seed).dirichlet([1, 1], size=5)
    policies = [Policy("mixed", mixed), always(0, 5), always(1, 5)]
    values = judge.judge(policies)
    rows = (judge.dynamics.mixture @ judge.dynamics.rows).toarray().reshape(5, 2, 5)
    for index, policy in enumerate(policies):
        table = policy.probabilities.copy()
        if known:
            table[1] = [1, 0]  # where "treat" is inadmissible
        here, worth, rarity = counts.starts / counts.starts.sum(), 0.0, 0.0
        for _ in range(2000):
            there = np.zeros(5)
            for state in range(5):
                for action in range(2):
                    share = here[state] * table[state, action]
                    worth += share * judge.dynamics.rewards[state, action]
                    rarity += share / math.sqrt(max(counts.pairs[state, action], 1))
                    there += share * rows[state, action]
            here = there
        assert values.modeled[index] == pytest.approx(worth, rel=1e-9)
        assert values.rarity[index] == pytest.approx(rarity, rel=1e-9)
        assert values.value[index] == pytest.approx(worth - PENALTY * rarity, rel=1e-9)
    worth_of_records = judge.judge([Policy("recorded", _shares(counts.pairs))])
    assert worth_of_records.anchored[0] == pytest.approx(counts.mean_return[0], rel=1e-9)


def _shares(pairs):
    visits = pairs.sum(1, keepdims=True)
    return np.where(visits > 0, pairs / np.maximum(visits, 1), 0.5)


def test_more_records_come_to_the_truth(chain_mdp):
    counts = collect(
        chain_mdp, behavior_policy(chain_mdp, "clinician"), episodes=50_000, seed=3
    ).counts(5, 2)
    waits = always(0, 5)
    values = SupportedValue(counts, chain_mdp).judge([waits])
    truth = evaluate(true_dynamics(chain_mdp), waits.probabilities).survival
    assert values.modeled[0] == pytest.approx(truth, abs=0.01)
    # Two decisions or three, each recorded ten thousand times and more.
    assert 0 < values.modeled[0] - values.value[0] < 3 * PENALTY / 100


@pytest.mark.parametrize("penalty", [-0.1, math.inf, math.nan])
def test_a_penalty_that_is_none_is_refused(penalty):
    with pytest.raises(InputError, match=r"penalty is .*; accepted: a number from 0 upward"):
        SupportedValue(one_state([1, 1], [1, 1]), penalty=penalty)


def test_policies_of_other_states_are_refused():
    with pytest.raises(InputError, match="shape"):
        SupportedValue(one_state([1, 1], [1, 1])).judge([always(0, 2)])


def test_resamples_are_of_each_part_by_itself(chain_mdp):
    """Against counting the episodes that were drawn, one after the other."""
    behavior = behavior_policy(chain_mdp, "clinician")
    parts = [
        Episodes(collect(chain_mdp, behavior, episodes=n, seed=seed), 5, 2)
        for n, seed in ((40, 1), (15, 2))
    ]
    policies = [always(0, 5), always(1, 5)]
    told = []
    values = resampled_values(policies, parts, chain_mdp, resamples=3, seed=7, advance=told.append)
    assert told == [1, 1, 1]
    for sample in range(3):
        counts = None
        for number, part in enumerate(parts):
            drawn = np.random.default_rng([7 + number, sample]).integers(len(part), size=len(part))
            for episode in drawn:
                own = _counts_of(part, episode)
                counts = own if counts is None else counts + own
        expected = SupportedValue(counts, chain_mdp).judge(policies)
        for name in ("value", "modeled", "anchored", "rarity"):
            drawn = getattr(values, name)[sample]
            np.testing.assert_allclose(drawn, getattr(expected, name), rtol=1e-9)
    assert len(np.unique(values.value[:, 0])) == 3


def _counts_of(part, episode):
    rows = part.episode == episode
    pair, ended = part.observation[rows] * 2 + part.action[rows], part.terminated[rows]
    moved = np.ones((~ended).sum()), (pair[~ended], part.next_observation[rows][~ended])
    return Counts(
        pairs=np.bincount(pair, minlength=10).reshape(5, 2).astype(float),
        transitions=sp.csr_array(moved, shape=(10, 5)),
        reward_sums=np.bincount(pair, part.reward[rows], 10).reshape(5, 2),
        starts=np.bincount([part.starts[episode]], minlength=5).astype(float),
        return_sums=np.array([part.returns[episode]]),
    )


def test_which_are_alike():
    # Differences to the best of 1 and 4, whose replicates have a standard deviation of 1 and 2.
    replicates = np.array([[0.0, 1, 2, 0.0], [0, 0, 0, 0], [0, -1, -2, 0.0]])
    assert alike(np.array([9.0, 8, 5, 9]), replicates).tolist() == [True, True, False, True]
    assert alike(np.array([9.0, 7, 5.1, 8.9]), replicates).tolist() == [True, False, True, False]

"""Policies that records give without a network, by hand and against their marks."""

import numpy as np
import pytest
import scipy.sparse as sp

from sepsis_rl.baselines import (
    hedged_policy,
    most_recorded_policy,
    pooled_policy,
    recorded_policy,
    spibb_policy,
    tabular_policy,
)
from sepsis_rl.data.collection import collect
from sepsis_rl.dynamics import Counts, empirical_bayes_dynamics, true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy


def test_the_most_recorded_action() -> None:
    policy = most_recorded_policy(np.array([[2, 3, 3], [0, 0, 0]]))
    assert policy.actions.tolist() == [1, 0]


def test_the_records_copied() -> None:
    policy = recorded_policy(_chain_counts({(0, 0, 3): 1, (0, 1, 2): 2, (0, 1, 3): 1}))
    np.testing.assert_allclose(policy.probabilities[:2], [[0.25, 0.75], [0.5, 0.5]])


# --- pooled -----------------------------------------------------------------------------------


def _chain_counts(entries: dict[tuple[int, int, int], int]) -> Counts:
    """Records of the chain: (state, action, next state) and how often; survival (3) pays 1."""
    every = np.zeros((5, 2, 5))
    for where, count in entries.items():
        every[where] = count
    return Counts(
        pairs=every.sum(axis=2),
        transitions=sp.csr_array((every * [1, 1, 0, 0, 0]).reshape(10, 5)),
        reward_sums=every[:, :, 3],
        starts=np.eye(5)[0] * max(every[:, :, 2:].sum(), 1),
        return_sums=np.array([every[:, :, 3].sum()]),
    )


@pytest.mark.parametrize(
    ("prior", "penalty", "action"),
    [(5.0, 0.0, 0), (5.0, 0.10, 0), (5.0, 0.11, 1), (1.0, 0.26, 0), (1.0, 0.28, 1)],
)
def test_pooled_by_hand(chain_mdp: TabularMDP, prior, penalty, action) -> None:
    # State 0: waiting was seen once, by luck with survival; treating nine times, with six
    # survivors. The pool of the state is 7 in 10. With a prior of 5 waiting is (1 + 3.5) / 6 =
    # 0.75, treating (6 + 3.5) / 14 = 0.679. A penalty p costs p for what was seen once, p / 3 for
    # nine times: equal at p = 0.107. A prior of 1: (1 + 0.7) / 2 = 0.85 against (6 + 0.7) / 10;
    # equal at p = 0.18 * 3 / 2.
    counts = _chain_counts({(0, 0, 3): 1, (0, 1, 3): 6, (0, 1, 2): 3, (1, 0, 3): 1})
    policy = pooled_policy(counts, admissible=chain_mdp.admissible, prior=prior, penalty=penalty)
    assert policy.actions[0] == action


def test_pooled_chooses_among_what_is_allowed(chain_mdp: TabularMDP) -> None:
    # Treating in state 1, inadmissible, always ended well; waiting was never seen.
    counts = _chain_counts({(0, 0, 1): 4, (1, 1, 3): 4})
    assert pooled_policy(counts, admissible=chain_mdp.admissible).actions[1] == 0
    assert pooled_policy(counts).actions[1] == 1
    # Treating in state 0 is admissible, not supported, and no worse than what was seen.
    shorter = pooled_policy(counts, prior=0.0, gamma=0.9)
    assert shorter.actions[0] == 0


def test_pooled_discounts(chain_mdp: TabularMDP) -> None:
    # Waiting is 3/4 in two steps, treating 7/10 in one.
    counts = _chain_counts(
        {(0, 0, 1): 900, (0, 1, 3): 700, (0, 1, 2): 300, (1, 0, 3): 750, (1, 0, 2): 250}
    )
    options = {"admissible": chain_mdp.admissible, "prior": 0.0, "penalty": 0.0}
    assert pooled_policy(counts, **options).actions[0] == 0
    assert pooled_policy(counts, gamma=0.9, **options).actions[0] == 1


def test_pooled_survives_a_loop_that_only_costs(chain_mdp: TabularMDP) -> None:
    # Nobody was ever seen to leave state 1: without a floor each step there would cost forever.
    counts = _chain_counts({(1, 0, 1): 5, (0, 0, 1): 5, (0, 1, 3): 1, (0, 1, 2): 1})
    assert pooled_policy(counts, admissible=chain_mdp.admissible, prior=0.0).actions[0] == 1


def test_pooled_of_states_never_seen_is_still_a_policy(chain_mdp: TabularMDP) -> None:
    counts = _chain_counts({(0, 1, 3): 2, (0, 1, 2): 1})
    for admissible in (chain_mdp.admissible, None):
        policy = pooled_policy(counts, admissible=admissible)
        assert policy.actions[0] == 1
        assert policy.is_deterministic


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": -1.0}, r"prior is -1\.0"),
        ({"prior": np.inf}, "prior is inf"),
        ({"penalty": -1.0}, r"penalty is -1\.0"),
        ({"admissible": np.ones((5, 3), dtype=bool)}, r"shape \(5, 3\); accepted: \(5, 2\)"),
        ({"gamma": 0.0}, r"gamma is 0\.0"),
        ({"counts": _chain_counts({})}, "empty"),
    ],
)
def test_pooled_refuses(options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pooled_policy(**{"counts": _chain_counts({(0, 1, 3): 1}), **options})


# --- tabular ----------------------------------------------------------------------------------


def _counts(mdp: TabularMDP, seed: int, episodes: int) -> Counts:
    data = collect(mdp, clinician_policy(mdp), episodes=episodes, seed=seed)
    return data.counts(mdp.n_states, mdp.n_actions)


@pytest.mark.parametrize(("episodes", "mark"), [(1000, 0.792), (5000, 0.811), (50_000, 0.858)])
@pytest.mark.slow
def test_tabular_reaches_its_marks(mdp: TabularMDP, episodes: int, mark: float) -> None:
    """Each on ten data sets, with a standard error of 0.0017, 0.0007 and 0.0005."""
    truth = true_dynamics(mdp)
    survival = [
        evaluate(truth, tabular_policy(_counts(mdp, seed, episodes), mdp).probabilities).survival
        for seed in range(10)
    ]
    assert np.mean(survival) > mark - 2 * np.std(survival, ddof=1) / np.sqrt(10)


def test_tabular_keeps_to_admissible_actions_and_reads_no_transitions(mdp: TabularMDP) -> None:
    counts = _counts(mdp, 3, 1000)
    policy = tabular_policy(counts, mdp)
    assert mdp.admissible[np.arange(713), policy.actions[:713]].all()
    assert evaluate(true_dynamics(mdp), policy.probabilities).survival > 0.784
    without = tabular_policy(counts)
    visited = counts.pairs.any(axis=1)
    assert (counts.pairs[np.arange(716), without.actions] > 0)[visited].all()


# --- hedged -----------------------------------------------------------------------------------


def test_hedged_mixes_two_plans_by_the_evidence(mdp: TabularMDP) -> None:
    counts = _counts(mdp, 4, 250)
    options = {"admissible": mdp.admissible, "state_vectors": mdp.state_vectors}
    doses = mdp.dose_grid.features()
    weight = empirical_bayes_dynamics(
        counts, dose_features=doses, **options
    ).dose_effects_probability
    assert 0.1 < weight < 0.9
    policy, plan = hedged_policy(counts, mdp), tabular_policy(counts, mdp)
    of_plan = policy.probabilities[np.arange(716), plan.actions]
    # In some states the plans agree; in the others the rest goes to one other action.
    np.testing.assert_allclose(np.unique(of_plan.round(9)), [weight, 1], atol=1e-8)
    assert set((policy.probabilities > 0).sum(axis=1)) == {1, 2}
    assert ((policy.probabilities > 0) <= mdp.admissible)[:713].all()


@pytest.mark.slow
def test_hedged_believes_what_many_records_say(mdp: TabularMDP) -> None:
    counts = _counts(mdp, 4, 50_000)
    np.testing.assert_allclose(
        hedged_policy(counts, mdp).probabilities,
        tabular_policy(counts, mdp).probabilities,
        atol=1e-3,
    )


# --- safe policy improvement ------------------------------------------------------------------


def test_spibb_by_hand() -> None:
    # State 0: waiting was seen once, with survival, and keeps its 1 in 10; treating was seen nine
    # times and gets the rest, though waiting looks better. State 1: both were seen often enough,
    # and the better one gets all. State 2 to 4 were never visited.
    counts = _chain_counts({(0, 0, 3): 1, (0, 1, 3): 6, (0, 1, 2): 3, (1, 0, 3): 6, (1, 1, 2): 6})
    policy = spibb_policy(counts, 2)
    np.testing.assert_allclose(policy.probabilities[:2], [[0.1, 0.9], [1, 0]], rtol=1e-12)
    np.testing.assert_allclose(policy.probabilities[2:], 0.5)
    # Where one record is enough it is the best plan on the counts, where none is, the records.
    assert spibb_policy(counts, 1).actions[0] == 0
    np.testing.assert_allclose(spibb_policy(counts, 10).probabilities[0], [0.1, 0.9])
    np.testing.assert_allclose(spibb_policy(counts, 10).probabilities[1], [0.5, 0.5])


def test_spibb_looks_ahead() -> None:
    # Waiting leads to state 1, which by its improved policy is worth 1 and by the records 1/2.
    counts = _chain_counts(
        {(0, 0, 1): 10, (0, 1, 3): 7, (0, 1, 2): 3, (1, 0, 3): 10, (1, 1, 2): 10}
    )
    assert spibb_policy(counts, 5).actions.tolist()[:2] == [0, 0]


def test_spibb_on_icu_sepsis(mdp: TabularMDP) -> None:
    """0.7972 on fifty data sets of 5,000 episodes with a threshold of 5."""
    policy = spibb_policy(_counts(mdp, 0, 5000), 5)
    assert evaluate(true_dynamics(mdp), policy.probabilities).survival == pytest.approx(
        0.7972, abs=0.006
    )


@pytest.mark.parametrize("least", [0, -1])
def test_spibb_refuses(least: int) -> None:
    with pytest.raises(InputError, match=f"least is {least}"):
        spibb_policy(_chain_counts({(0, 1, 3): 1}), least)

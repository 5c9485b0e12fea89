"""Policies that records give without any network, for networks to be compared with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from sepsis_rl.dynamics import (
    Counts,
    Dynamics,
    all_where_none,
    empirical_bayes_dynamics,
    estimated_dynamics,
    pooled_dynamics,
)
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray, Strategy, TabularMDP
from sepsis_rl.planning import value_iteration
from sepsis_rl.policies import (
    Policy,
    clinician_mode_policy,
    clinician_policy,
    greedy_policy,
    optimal_policy,
    random_policy,
)

_MAX_SWEEPS = 10_000
_TOLERANCE = 1e-12


def common_baselines(
    counts: Counts, mdp: TabularMDP | None, strategy: Strategy = "mean"
) -> list[Policy]:
    """Policies that need no training, for those that do to be compared with.

    Args:
        counts: The records.
        mdp: The environment that they are of; None where there is none.
        strategy: What an inadmissible action does. One that would be rejected is of no policy.

    Returns:
        Random, the clinician, the clinician's most likely action, the plan on the records and the
        optimum; without an environment, random and the action recorded most.
    """
    if mdp is None:
        uniform = np.full(counts.pairs.shape, 1 / counts.pairs.shape[1])
        return [Policy("random", uniform), most_recorded_policy(counts.pairs.astype(np.int64))]
    baselines = [
        random_policy(mdp),
        clinician_policy(mdp),
        clinician_mode_policy(mdp),
        tabular_policy(counts, mdp),
        optimal_policy(mdp, strategy=strategy),
    ]
    if strategy != "raise_exception":
        return baselines
    forbidden = ~mdp.admissible & ~mdp.terminal[:, None]
    return [policy for policy in baselines if not policy.probabilities[forbidden].any()]


def most_recorded_policy(pair_counts: IntArray) -> Policy:
    """The action recorded most; the first one where none was.

    Args:
        pair_counts: (n_states, n_actions).
    """
    return greedy_policy("most recorded", pair_counts.astype(np.float64))


def recorded_policy(counts: Counts) -> Policy:
    """The recorded decisions, copied as often as they were taken; any where a state has none."""
    n = counts.pairs
    visits = n.sum(axis=1, keepdims=True)
    shares = np.where(visits > 0, n / np.maximum(visits, 1), 1 / n.shape[1])
    return Policy("recorded", shares)


def tabular_policy(counts: Counts, mdp: TabularMDP | None = None) -> Policy:
    """Value iteration on empirical-Bayes dynamics of the records.

    It is what learning from the same dynamics comes to without a network.

    Args:
        counts: The records.
        mdp: The environment that the records are of, whose admissible actions, state features and
            doses are used, and no transitions. None: there is none; plans keep to recorded
            decisions and pay for rare ones as those of `pooled_policy` do.

    Returns:
        The greedy policy.

    Raises:
        InputError: The counts are empty, or of rewards that are not survival.
    """
    dynamics = estimated_dynamics(counts, "empirical_bayes", mdp)
    return Policy("tabular", _planned(dynamics, counts, mdp))


def hedged_policy(counts: Counts, mdp: TabularMDP) -> Policy:
    """Two plans, mixed as likely as the records make what each of them rests on.

    `tabular_policy` believes that a dose does to a patient what it did to others. Few records can
    hardly tell whether it does, and where it does not, the plan errs in all states alike. This is
    Bayesian model averaging (Hoeting, Madigan, Raftery & Volinsky, 1999, "Bayesian model
    averaging: a tutorial", Statistical Science) over plans with and without such effects.
    Difference: it averages the plans, not what they predict, for a plan on the average is as
    single-minded as either, and only a mixture spreads the risk.

    Args:
        counts: The records.
        mdp: The environment that they are of, as for `tabular_policy`.

    Returns:
        A stochastic policy.

    Raises:
        InputError: The counts are empty, or of rewards that are not survival.
    """
    estimate = partial(
        empirical_bayes_dynamics,
        counts,
        admissible=mdp.admissible,
        state_vectors=mdp.state_vectors,
    )
    without, shared = estimate(), estimate(dose_features=mdp.dose_grid.features())
    weight = shared.dose_effects_probability
    return Policy(
        "hedged",
        weight * _planned(shared, counts, mdp) + (1 - weight) * _planned(without, counts, mdp),
    )


def _planned(dynamics: Dynamics, counts: Counts, mdp: TabularMDP | None) -> FloatArray:
    """The best plan, (n_states, n_actions), each row 1 at one action."""
    choices = counts.pairs > 0 if mdp is None else mdp.admissible
    if mdp is None:
        dynamics = replace(dynamics, rewards=dynamics.rewards - rarity_costs(counts))
    plan = value_iteration(dynamics, allowed=all_where_none(choices), floor=0.0)
    return np.eye(counts.pairs.shape[1])[plan.actions]


def rarity_costs(counts: Counts, penalty: float = 0.05) -> FloatArray:
    """Cost of each decision, penalty / sqrt(N), (n_states, n_actions); N is 1 at least."""
    costs: FloatArray = penalty / np.sqrt(np.maximum(counts.pairs, 1.0))
    return costs


def pooled_policy(
    counts: Counts,
    *,
    admissible: BoolArray | None = None,
    prior: float = 5.0,
    penalty: float = 0.05,
    gamma: float = 1.0,
) -> Policy:
    """Value iteration on counts that borrow from their state, with a cost for rare decisions.

    What follows a pair is its own transitions and `prior` more like all those recorded in its
    state (see `pooled_dynamics`). Each step of a plan costs penalty / √N, where N is how often the
    pair was recorded (a pair never recorded costs as one recorded once), so that plans keep to
    what is known. The cost is part of every Bellman backup, not of the last choice alone: charged
    only there, survival after 5,000 episodes was 0.004 lower, while other readings of N (plus 1,
    plus the prior's, unseen pairs cheaper or dearer) changed nothing beyond the noise.

    Args:
        counts: The records.
        admissible: (n_states, n_actions) bool, actions to choose from; a state that has none
            allows all. None keeps to the recorded ones.
        prior: Weight of the state's pooled row, in decisions, at least 0.
        penalty: At least 0.
        gamma: Discount in (0, 1].

    Returns:
        The greedy policy.

    Raises:
        InputError: There are no counts, or an option is out of range or of another shape.
    """
    if not 0 <= penalty < np.inf:
        raise InputError(f"penalty is {penalty}; accepted: 0 or more")
    if not counts.pairs.any():
        raise InputError("the counts are empty; accepted: transitions counted from records")
    recorded = pooled_dynamics(counts, prior)
    choices = counts.pairs > 0 if admissible is None else admissible
    plan = value_iteration(
        replace(recorded, rewards=recorded.rewards - rarity_costs(counts, penalty)),
        allowed=all_where_none(choices),
        gamma=gamma,
        # With costs, a loop seen in the records would be worth minus infinity.
        floor=min(0.0, float(recorded.rewards.min())),
    )
    return Policy("pooled", np.eye(counts.pairs.shape[1])[plan.actions])


def spibb_policy(counts: Counts, least: int = 5) -> Policy:
    """Safe policy improvement: better than the recorded decisions only where there is evidence.

    Pi_b-SPIBB (Laroche, Trichelair & Tachet des Combes, 2019, "Safe policy improvement with
    baseline bootstrapping", ICML, algorithm 1): a pair recorded fewer than `least` times keeps the
    probability that the records give it, and what is left in a state goes to the best of the
    others. Difference: its fixed point is found by value iteration, not by policy iteration.

    Args:
        counts: The records, whose frequencies are the baseline policy; uniform where a state was
            never visited.
        least: N with a wedge in the paper, at least 1.

    Raises:
        InputError: The counts are empty, or `least` is out of range.
    """
    if least < 1 or not counts.pairs.any():
        raise InputError(f"least is {least}, or there are no counts; accepted: 1 or more, and some")
    dynamics, n = pooled_dynamics(counts), counts.pairs
    behavior = recorded_policy(counts).probabilities
    known = n >= least
    kept = np.where(known, 0.0, behavior)
    free = np.where(known.any(axis=1), 1 - kept.sum(axis=1), 0.0)
    values = np.zeros(len(n))
    for _ in range(_MAX_SWEEPS):
        q = dynamics.rewards + dynamics.expected(values)
        chosen = np.where(known, q, -np.inf).argmax(axis=1)
        probabilities = kept.copy()
        probabilities[np.arange(len(n)), chosen] += free
        improved = (probabilities * q).sum(axis=1)
        change = np.abs(improved - values).max()
        values = improved
        if change < _TOLERANCE:
            break
    return Policy(f"SPIBB {least}", probabilities)

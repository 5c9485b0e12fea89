"""The policies that a scorecard tries estimators on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sepsis_rl.baselines import pooled_policy, tabular_policy
from sepsis_rl.data.collection import collect
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import (
    Policy,
    clinician_mode_policy,
    clinician_policy,
    optimal_policy,
    random_policy,
)
from sepsis_rl.runs.finished import Run, candidates
from sepsis_rl.scorecard.accuracy import KnownPolicy

TRAINING_EPISODES: Final = 5000
TRAINING_SEED: Final = 42


def known_policies(mdp: TabularMDP, runs: Sequence[Run]) -> list[KnownPolicy]:
    """The policies that estimators are tried on, with their exact survival.

    Two tabular policies, that of every run's table and one that believes each count as it is, and
    two mixtures of the first with the clinician's own decisions span the range of what is
    learned from 5,000 episodes.

    Args:
        mdp: The decision process.
        runs: The first and the last checkpoint of each are used, with all members.

    Returns:
        The built-in ones, those of the runs, then random and optimum, which are no candidates.

    Raises:
        InputError: A run has no checkpoint, or one cannot be read or is of another process.
    """
    clinician = clinician_policy(mdp)
    data = collect(mdp, clinician, episodes=TRAINING_EPISODES, seed=TRAINING_SEED)
    counts = data.counts(mdp.n_states, mdp.n_actions)
    tabular = tabular_policy(counts, mdp)
    credulous = pooled_policy(counts, admissible=mdp.admissible, prior=0.0, penalty=0.0)
    named = [
        (clinician_mode_policy(mdp), "clinician's most likely"),
        (tabular, "tabular"),
        (Policy("tabular, raw counts", credulous.probabilities), "tabular"),
    ]
    for share in (30, 70):
        mixed = tabular.softened(1 - share / 100, clinician).probabilities
        named.append((Policy(f"{share} % tabular, {100 - share} % clinician", mixed), "mixture"))
    learned = []
    left = candidates(runs)
    for run in runs:
        own = [candidate for candidate in left if candidate.run == run.folder]
        for candidate in own:
            if candidate.step in (own[0].step, own[-1].step):
                kind = candidate.label or run.folder.parent.name
                rest = candidate.name.removeprefix(candidate.label).strip()
                learned.append((Policy(f"{kind} {rest}", candidate.policy.probabilities), kind))
    outside = [(random_policy(mdp), "random"), (optimal_policy(mdp), "optimal")]
    return [
        KnownPolicy(
            policy, kind, evaluate(true_dynamics(mdp), policy.probabilities).survival, *which
        )
        for group, *which in ((named, True), (learned, True, True), (outside, False))
        for policy, kind in group
    ]

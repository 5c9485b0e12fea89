"""Policies to choose among, made from one data set, for `choosing.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from training import CONFIGS, quiet_trainer, trained

from sepsis_rl.algorithms import BC, CQL, DQN, OfflineAlgorithm
from sepsis_rl.baselines import (
    hedged_policy,
    most_recorded_policy,
    pooled_policy,
    spibb_policy,
    tabular_policy,
)
from sepsis_rl.data import OfflineDataModule, Transitions
from sepsis_rl.dynamics import Counts
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.ope import Episodes
from sepsis_rl.ope.fitted_q import count_episodes
from sepsis_rl.policies import Policy, random_policy
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.described import FOLDER, LAST

EPISODES = 5000
STEPS = 300
RESAMPLED = 30
ON_ROWS = "networks on the essay's rows"


class Candidate(NamedTuple):
    """A policy, and what kind it is."""

    kind: str
    policy: Policy


OTHER_SETS = ("over-fitted plan", "shrunk plan", "essay's rows")
SETS: Mapping[str, Callable[[str], bool]] = {
    "wide": lambda kind: kind not in OTHER_SETS,
    "wide, without plans of the same form": lambda kind: (
        kind not in (*OTHER_SETS, "empirical-Bayes plan")
    ),
    "networks": lambda kind: kind in ("CQL, masked", "CQL"),
    "networks without a mask": lambda kind: kind == "CQL",
    "over-fitted plans": lambda kind: kind == "over-fitted plan",
    "the same plans, shrunk": lambda kind: kind == "shrunk plan",
    ON_ROWS: lambda kind: kind == "essay's rows",
}
"""By name which kinds of candidates belong to a set."""

NETWORKS: Mapping[str, tuple[type[OfflineAlgorithm], Mapping[str, Any]]] = {
    "CQL, masked": (CQL, {"alpha": [0.003, 0.03, 0.3], "gamma": [0.99, 1.0]}),
    "CQL": (CQL, {"alpha": [0.003, 0.01, 0.03, 0.1, 0.3], "actions": "all"}),
    "DQN": (DQN, {"actions": "all"}),
    "BC": (BC, {}),
}
"""By kind the class and what differs from its config; a list spans candidates."""
_ROWS = "--trainer.max_steps=20000 --trainer.val_check_interval=20000"
ESSAYS_RUNS = {
    "sweep": ("essay/sweep", f"--model.alpha=[0.0,0.1,0.5,1.0,2.0] --model.seed=42 {_ROWS}"),
    "bc": ("essay/bc", _ROWS),
}


def plans(counts: Counts, mdp: TabularMDP) -> Iterator[Candidate]:
    """Policies that records give without a network."""
    yield Candidate("random", random_policy(mdp))
    yield Candidate("most recorded", most_recorded_policy(counts.pairs.astype(np.int64)))
    yield Candidate("empirical-Bayes plan", tabular_policy(counts, mdp))
    yield Candidate("empirical-Bayes plan", hedged_policy(counts, mdp))
    yield Candidate("empirical-Bayes plan", tabular_policy(counts))
    for least in (2, 5, 20):
        yield Candidate("SPIBB", spibb_policy(counts, least))
    for admissible in (mdp.admissible, None):
        for prior in (0.0, 5.0, 20.0):
            for penalty in (0.0, 0.05):
                policy = pooled_policy(counts, admissible=admissible, prior=prior, penalty=penalty)
                yield Candidate("pooled plan", policy)


def resampled_plans(data: Transitions, mdp: TabularMDP, seed: int) -> Iterator[Candidate]:
    """Plans on bootstrap samples of the episodes, with and without shrinkage.

    Without it each believes what was luck in its own sample; with it they lie close together.
    """
    episodes = Episodes(data, mdp.n_states, mdp.n_actions)
    counted = count_episodes(episodes)
    for block in episodes.resamples(RESAMPLED, seed):
        for drawn in block:
            counts, allowed = counted.sample(drawn[None]), mdp.admissible
            raw = pooled_policy(counts, admissible=allowed, prior=0.0, penalty=0.0)
            yield Candidate("over-fitted plan", raw)
            yield Candidate("shrunk plan", pooled_policy(counts, admissible=allowed))


def networks(seed: int) -> Iterator[Candidate]:
    """Candidates on all records, trained here as their configs say, but for fewer steps."""
    data = OfflineDataModule(
        episodes=EPISODES, seed=seed, batch_size="all", dynamics="empirical_bayes"
    )
    for kind, (algorithm, changes) in NETWORKS.items():
        config = yaml.safe_load(Path(CONFIGS, f"{algorithm.__name__.lower()}.yaml").read_text())
        module = algorithm(**config["model"]["init_args"] | {"seed": 42, **changes})
        quiet_trainer(max_steps=STEPS, gradient_clip_val=1.0).fit(module, data)
        yield from (Candidate(kind, policy) for policy in module.policies() if policy is not None)


def networks_on_rows(seed: int, runs: Path) -> Iterator[Candidate]:
    """The members of the essay's runs; trains those that have not ended."""
    for name, (config, words) in ESSAYS_RUNS.items():
        options = [*words.split(), f"--data.episodes={EPISODES}", f"--data.seed={seed}"]
        folder = trained(f"choosing-rows-{name}-{seed}", config, *options, runs=runs)
        policies = load_algorithm(folder / FOLDER / LAST).policies()
        yield from (Candidate("essay's rows", policy) for policy in policies if policy is not None)

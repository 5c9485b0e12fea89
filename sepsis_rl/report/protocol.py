"""The essay's way of judging a run, on record and simulated many times over.

The essay evaluates a run 20 times on the same 100 simulated patients, keeps the checkpoint that did
best there, reports what it did there, and averages over three seeds. The best of many noisy figures
is too high, by how much can be simulated: the policies are known, and so is their exact value. Here
it is carried out with as many evaluations and seeds as the runs have.

Source: github.com/anishmariathasan/CQL-sepsis, scripts/03_train_cql.py and src/utils/evaluation.py.
It seeds the environment for each patient, so that all evaluations of a run, and all algorithms,
meet the same patients with the same luck; addressed draws do so here. Difference: it cuts episodes
off at 100 steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from sepsis_rl.display import progress_bar
from sepsis_rl.evaluation import Stage
from sepsis_rl.mdp import FloatArray, TabularMDP
from sepsis_rl.policies import Policy
from sepsis_rl.report.experiment import Experiment
from sepsis_rl.rollouts import roll_out
from sepsis_rl.runs.history import Member

PATIENTS: Final = 100
ESSAY_EVALUATIONS: Final = 20
REPORTED: Final = {"CQL": 0.86, "BC": 0.84, "DQN": 0.82, "random": 0.817}
"""The essay's figure 4: the best alpha, 0.5, for CQL."""

_AT_ONCE: Final = 400_000  # patients times policies: bounds the memory of a rollout


def evaluation_rates(
    mdp: TabularMDP, policies: Sequence[Policy], *, seed: int, tries: int
) -> FloatArray:
    """Evaluates policies on 100 patients, again and again on others.

    Args:
        mdp: The decision process.
        policies: They all meet the same patients. One that samples its actions and is given twice
            draws them anew.
        seed: Of the patients.
        tries: How often. The first is the one on record.

    Returns:
        Share of the patients who survive, (policies, tries).
    """
    rates = []
    at_once = max(1, _AT_ONCE // (PATIENTS * len(policies)))
    for first in range(0, tries, at_once):
        count = min(at_once, tries - first)
        patients = torch.arange(first * PATIENTS, (first + count) * PATIENTS)
        rollout = roll_out(
            mdp, policies, patients=patients, seed=seed, stage=Stage.REPORT, separate_actions=True
        )
        rates.append(
            rollout.survived.view(len(policies), count, PATIENTS).double().mean(-1).numpy()
        )
    return np.concatenate(rates, axis=1)


@dataclass(frozen=True, eq=False)
class Protocol:
    """The protocol carried out on an experiment.

    Attributes:
        rates: For each member of the grid, (evaluations, tries).
        seeds: Of the algorithms that are compared.
        evaluations: The most that one of them has.
        random: The best of so many evaluations of four algorithms that all act uniformly at random,
            (seeds, 4, tries).
        random_on_others: The same of one of them, had each evaluation met other patients,
            (seeds, tries).
    """

    rates: Mapping[Member, FloatArray]
    seeds: Sequence[int]
    evaluations: int
    random: FloatArray
    random_on_others: FloatArray

    @property
    def best_of(self) -> str:
        """Of how many evaluations the best one is reported, in words."""
        counts = sorted({len(rates) for rates in self.rates.values()})
        own = str(counts[-1]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        there = "" if counts == [ESSAY_EVALUATIONS] else f" (in the essay {ESSAY_EVALUATIONS})"
        return f"best of {own} evaluations{there}"

    def on_record(self, member: Member) -> float:
        """What the essay would have reported of a member: its best evaluation of the first try."""
        return float(self.rates[member][:, 0].max())

    def reported(self, members: Sequence[Member]) -> FloatArray:
        """What the essay would report of a setting's members, (tries,)."""
        mean: FloatArray = np.mean([self.rates[member].max(axis=0) for member in members], axis=0)
        return mean

    def choices(self, member: Member) -> dict[str, int]:
        """A member's checkpoint, chosen in three ways.

        Returns:
            By way the evaluation that it chooses, counted from 0; the first of equals, as the
            essay's code does. The ways are `last`, `protocol`, the best by the essay's protocol on
            100 patients of the member's seed, and `exact`, the best by exact survival: the ceiling
            of any choice.
        """
        return {
            "last": len(member.steps) - 1,
            "protocol": int(self.rates[member][:, 0].argmax()),
            "exact": int(member.metrics["survival_exact"].argmax()),
        }


def carry_out(experiment: Experiment, *, tries: int) -> Protocol:
    """Carries out the essay's protocol on the grid and on policies that act at random.

    Args:
        experiment: Its members keep their seeds for patients, as in the essay.
        tries: How often.
    """
    mdp, random = experiment.mdp, experiment.references["random"]
    compared = [member for members in experiment.compared.values() for member in members]
    seeds = sorted({member.seed for member in compared})
    evaluations = max(len(member.steps) for member in compared)
    of_all_four = [random] * (len(REPORTED) * evaluations)
    alike, others = [], []
    told = f"Carrying out the essay's protocol {tries:,} times"
    with progress_bar() as progress:
        rates = {
            member: evaluation_rates(mdp, member.policies(), seed=member.seed, tries=tries)
            for member in progress.track(experiment.members, description=told)
        }
        for seed in progress.track(seeds, description=f"{told}, at random"):
            best = evaluation_rates(mdp, of_all_four, seed=seed, tries=tries)
            alike.append(best.reshape(len(REPORTED), evaluations, tries).max(axis=1))
            best = evaluation_rates(mdp, [random], seed=-1 - seed, tries=evaluations * tries)
            others.append(best.reshape(evaluations, tries).max(axis=0))
    return Protocol(rates, seeds, evaluations, np.stack(alike), np.stack(others))


def share_in_order(reported: Sequence[FloatArray]) -> float:
    """How often figures come out in strictly falling order, as the essay's did."""
    ordered = [first > second for first, second in itertools.pairwise(reported)]
    return float(np.all(ordered, axis=0).mean())

"""Finished runs put together: which members there are, on which data, and what is left out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import BoolArray, FloatArray, TabularMDP
from sepsis_rl.planning import PolicyValue, evaluate
from sepsis_rl.policies import Policy, clinician_policy, optimal_policy, random_policy
from sepsis_rl.report.likeness import (
    differences,
    family,
    grid_temperature,
    identity,
    order,
    temperature_sweeps,
)
from sepsis_rl.report.refusals import check_reportable, left_out, refuse_without
from sepsis_rl.runs.described import short_name
from sepsis_rl.runs.finished import read_run
from sepsis_rl.runs.history import Curve, Member, read_curve, read_members

T = TypeVar("T")
_LEFT_OUT: Final = "is left out of the essay's chapter"
ESSAY_ORDER: Final = ("CQL", "BC", "DQN")


def exact_value(mdp: TabularMDP, policy: Policy, *, gamma: float = 1.0) -> PolicyValue:
    """Solves for what a policy is worth; inadmissible actions have the mean of admissible ones."""
    return evaluate(true_dynamics(mdp), policy.probabilities, gamma=gamma)


@functools.lru_cache(maxsize=8)
def _references(mdp: TabularMDP) -> dict[str, Policy]:
    return {
        "random": random_policy(mdp),
        "clinician": clinician_policy(mdp),
        "optimum": optimal_policy(mdp),
    }


@dataclass
class Experiment:
    """All that a report is made from.

    Attributes:
        mdp: The decision process.
        data: Of the first usable run; `members` were trained on it.
        members: The grid, by algorithm, alpha and seed, all of one temperature; one at least.
        elsewhere: The same settings on other episodes of the same number, by data seed; maybe for
            fewer steps.
        variations: One thing varied: number of episodes, learning rate or network.
        sweeps: Members of two alphas or more and two temperatures or more, alike in all else but
            their seeds, a list for each such grid; some are in `members` as well.
        problems: What was left out and why, a sentence each.
    """

    mdp: TabularMDP
    data: OfflineDataModule
    members: list[Member] = field(default_factory=list)
    elsewhere: list[Member] = field(default_factory=list)
    variations: dict[str, list[Member]] = field(default_factory=dict)
    sweeps: list[list[Member]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def of(self, algorithm: str, alpha: float | None = None) -> list[Member]:
        """The grid's members of an algorithm, or of one alpha."""
        return [
            member
            for member in self.members
            if member.algorithm == algorithm and (alpha is None or member.alpha == alpha)
        ]

    @property
    def everywhere(self) -> list[Member]:
        """The grid's settings on all data sets."""
        return self.members + self.elsewhere

    @property
    def common_step(self) -> int:
        """The step up to which all data sets were trained on."""
        return min(int(member.steps[-1]) for member in self.everywhere)

    @property
    def by_alpha(self) -> dict[float, list[Member]]:
        """The grid's members that have Q values; DQN is alpha 0."""
        grid: dict[float, list[Member]] = {}
        for member in self.of("DQN") + self.of("CQL"):
            grid.setdefault(member.alpha, []).append(member)
        return grid

    @property
    def compared(self) -> dict[str, list[Member]]:
        """BC, DQN and CQL with the alpha closest to 0.5, in this order, without those missing."""
        own = self.of("CQL")
        closest = min((member.alpha for member in own), key=lambda a: abs(a - 0.5), default=None)
        groups = {"BC": self.of("BC"), "DQN": self.of("DQN"), "CQL": self.of("CQL", closest)}
        return {algorithm: members for algorithm, members in groups.items() if members}

    @property
    def references(self) -> Mapping[str, Policy]:
        """The policies that others are compared with: random, clinician and optimum."""
        return _references(self.mdp)

    @property
    def reference_survival(self) -> dict[str, float]:
        """Exact survival of the references."""
        return {name: self.exact(policy).survival for name, policy in self.references.items()}

    def exact(self, policy: Policy) -> PolicyValue:
        """What a policy is worth exactly."""
        return self._once(policy, lambda: exact_value(self.mdp, policy))

    def loss(self, member: Member) -> Curve:
        """The training loss as it was logged; empty if it was not."""
        return self._once((member, "loss"), lambda: read_curve(member, "train/loss"))

    def start_values(self, member: Member) -> FloatArray:
        """Exact values of the evaluated policies at the member's own γ, (evaluations,).

        Like Q of a state and an action, they leave the first step's reward undiscounted.
        """

        def solve() -> FloatArray:
            gamma = float(member.settings["gamma"])
            values = [exact_value(self.mdp, own, gamma=gamma).value for own in member.policies()]
            return np.array(values)

        return self._once((member, "start"), solve)

    def is_below(self, member: Member) -> BoolArray:
        """Whether the network's value of the start is a lower bound, (evaluations,)."""
        below: BoolArray = member.metrics["value_estimate"] <= self.start_values(member)
        return below

    def _once(self, key: Any, compute: Callable[[], T]) -> T:
        """Reads or solves a thing when it is first asked for."""
        if key not in self._known:
            self._known[key] = compute()
        known: T = self._known[key]
        return known


@dataclass(frozen=True)
class Finished:
    """What finished runs hold.

    Attributes:
        members: All of them, in the order of their runs.
        problems: Runs that cannot be used and members that have diverged, a sentence each.
    """

    members: Sequence[Member]
    problems: Sequence[str]


def read_finished(folders: Sequence[str | Path]) -> Finished:
    """Reads finished runs, of the simulator's patients or a hospital's own.

    Args:
        folders: Folders of runs, `runs/<name>/version_N`.

    Raises:
        InputError: No run is usable.
    """
    problems: list[str] = []
    found: list[Member] = []
    data: dict[str, OfflineDataModule] = {}
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        try:
            check_reportable(folder)
            run = read_run(folder)
            members, diverged = read_members(run)
            shared = data.setdefault(run.data.content_hash, run.data)
            found += [dataclasses.replace(member, data=shared) for member in members]
            problems += [f"{label} is left out: its network has diverged" for label in diverged]
        except InputError as error:
            problems.append(left_out(folder, error))
    refuse_without(found, problems)
    return Finished(found, problems)


def build_experiment(members: Sequence[Member]) -> Experiment:
    """Sorts members of finished runs; shares of a sweep join by themselves.

    The data of the first one is that of the grid, and its settings are what variations are told by;
    of several temperatures in it, the one that is closest to the essay's, 1.

    Args:
        members: Of runs on the simulator's patients, at least one.

    Returns:
        The experiment. What was made in another way than those before is in `problems`.
    """
    mdp = members[0].data.require_mdp("the essay's experiment")
    experiment = Experiment(mdp, members[0].data)
    _sort(members, experiment)
    return experiment


def read_experiment(folders: Sequence[str | Path]) -> Experiment:
    """Reads finished runs on the simulator's patients and sorts their members.

    Args:
        folders: Folders of runs, `runs/<name>/version_N`.

    Returns:
        The experiment; what cannot be used is in `problems` as well.

    Raises:
        InputError: No run is usable, or one has no simulator.
    """
    finished = read_finished(folders)
    experiment = build_experiment(finished.members)
    experiment.problems[:0] = finished.problems
    return experiment


def _sort(found: Sequence[Member], experiment: Experiment) -> None:
    """Gives each member its place in the experiment, or names it among the problems."""
    distinct = _without_doubles(found, experiment.problems)
    experiment.sweeps = temperature_sweeps(distinct)
    swept = [member for sweep in experiment.sweeps for member in sweep]
    temperature = grid_temperature(distinct)
    left_out: dict[tuple[str, str], list[Member]] = {}
    for member in distinct:
        base = next(other for other in distinct if family(other) == family(member))
        differs = differences(member, base, found[0].data, temperature)
        same_steps = member.steps[-1] == base.steps[-1]
        if not differs and same_steps:
            experiment.members.append(member)
        elif differs == ["data.seed"] and member.steps[-1] in base.steps:
            experiment.elsewhere.append(member)
        elif len(differs) == 1 and differs[0] in ("data.episodes", "learning_rate", "network"):
            experiment.variations.setdefault(differs[0], []).append(member)
        elif differs != ["temperature"] or not same_steps or member not in swept:
            what = _LEFT_OUT
            if member in swept:
                what = "is in the heat map of temperatures alone"
                differs = [name for name in differs if name != "temperature"]
            differs += [] if same_steps else [f"its {member.steps[-1]:,} steps"]
            said = f"{what}: it differs from {short_name(base.run)} in {', '.join(differs)}"
            left_out.setdefault((short_name(member.run), said), []).append(member)
    for (run, said), own in left_out.items():
        named = own[0].label if len(own) == 1 else f"{run}, {len(own)} members,"
        experiment.problems.append(f"{named} {said}")
    experiment.members.sort(key=order)
    experiment.elsewhere.sort(key=lambda m: (m.data.train.provenance.seed or 0, order(m)))


def _without_doubles(found: Sequence[Member], problems: list[str]) -> list[Member]:
    """The first of each that are the same, naming the others among the problems.

    A sweep of temperatures that has alpha 0 has it once for each of them, which is no problem.
    """
    at: dict[tuple[Any, ...], Member] = {}
    for member in found:
        same = at.setdefault(identity(member), member)
        if same is not member and same.run != member.run:
            problems.append(
                f"{member.label} {_LEFT_OUT}: {short_name(same.run)} holds the same member"
            )
    return list(at.values())

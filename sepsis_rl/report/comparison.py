"""Members of several runs side by side: what each is worth, and less than the best by records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple, cast

import numpy as np
from torch import Tensor

from sepsis_rl.baselines import common_baselines
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import progress_bar
from sepsis_rl.errors import InputError
from sepsis_rl.evaluation import PolicyScores, Stage, score_policies
from sepsis_rl.mdp import FloatArray, IntArray, Strategy
from sepsis_rl.metrics import Z_95
from sepsis_rl.ope import Episodes
from sepsis_rl.ope.supported_value import (
    PENALTY,
    SupportedValue,
    SupportedValues,
    resampled_values,
    supported_value_of,
)
from sepsis_rl.policies import Policy
from sepsis_rl.runs.checkpoints import rebuild_algorithm
from sepsis_rl.runs.described import METRICS, Description, run_labels, unfinished
from sepsis_rl.runs.finished import Run, read_run
from sepsis_rl.runs.patterns import WRONG_ENTRY, is_count, is_number, mismatch

RESAMPLES: Final = 40  # the standard deviation over them is known to a tenth of itself
_EVALUATIONS: Final = [{"step": is_count, "members": [{str: lambda v: v is None or is_number(v)}]}]


class Gap(NamedTuple):
    """How much more policies are worth than one of them, each float64 (policies,).

    Attributes:
        estimate: The differences.
        low: Lower end of their 95 % intervals.
        high: The upper end.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, eq=False)
class Entrant:
    """A member of a run.

    Attributes:
        policy: That of the last checkpoint, named by run and member.
        run: Label of the run; empty where there is one.
        member: Its name in the run; empty for a single one.
        steps: int64 (evaluations,).
        curve: float64 (evaluations,), exact survival of the policies that were evaluated in
            training; where no environment simulates the patients, their `ope/supported_value`.
    """

    policy: Policy
    run: str
    member: str
    steps: IntArray
    curve: FloatArray

    @property
    def setting(self) -> str:
        """Run and member without the seed."""
        parts = (part for part in self.member.split(",") if not part.startswith("seed="))
        return _named(self.run, ",".join(parts)) or self.policy.name


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that a comparison says. Figures stand for the entrants, then for the baselines.

    Attributes:
        runs: What the runs' folders say.
        labels: What the runs are called; an empty text for a single one.
        data: Their records.
        entrants: The members of all runs, in the order in which the runs were named.
        baselines: Policies that need no training.
        best: Which entrant is best by `supported`; the first of equals.
        supported: Values by training and held-out episodes.
        gap: Survival minus that of the best: in rollouts of the same patients, or without an
            environment `supported.value` on the same resampled episodes.
        scores: What the simulator says; None where there is none.
        patients: Number of simulated patients.
        problems: What was left out and why, a sentence each.
    """

    runs: Sequence[Description]
    labels: Sequence[str]
    data: OfflineDataModule
    entrants: Sequence[Entrant]
    baselines: Sequence[Policy]
    best: int
    supported: SupportedValues
    gap: Gap
    scores: PolicyScores | None
    patients: int
    problems: Sequence[str]

    @property
    def policies(self) -> list[Policy]:
        """Those of the entrants, then the baselines."""
        return [*(entrant.policy for entrant in self.entrants), *self.baselines]

    @property
    def curves_of(self) -> tuple[FloatArray, str]:
        """What the curves show, as figures of all policies, and its metric's name."""
        if self.scores is None:
            return self.supported.value, "supported_value"
        return self.scores.survival_exact.numpy(), "survival_exact"


def compare_policies(runs: Sequence[Description], *, patients: int, seed: int) -> Comparison:
    """Judges the members of runs, of which `describe_comparable` has said that they compare.

    Args:
        runs: What their folders say.
        patients: Number of simulated patients.
        seed: Seed of the patients, or of the resampled episodes.

    Raises:
        InputError: A run was trained on other data than its folder says, has gone on since it
            ended or has damaged files; or no member has a policy.
    """
    data = read_run(runs[0].folder).data
    model = supported_value_of(data.counts, data.held_out, data.mdp, PENALTY)
    labels = run_labels([run.folder for run in runs])
    entrants: list[Entrant] = []
    problems: list[str] = []
    with progress_bar() as progress:
        named = zip(runs, labels, strict=True)
        for run, label in progress.track(list(named), description="Reading runs"):
            _read_entrants(Run(run.folder, data), run, label, model, entrants, problems)
    if not entrants:
        raise InputError("no member of the runs has a policy: all have diverged")
    strategy = cast(Strategy, runs[0].strategy or "mean")  # any other is refused where it is used
    baselines = common_baselines(data.counts, data.mdp, strategy)
    policies = [*(entrant.policy for entrant in entrants), *baselines]
    supported = model.judge(policies)
    best = int(supported.value[: len(entrants)].argmax())
    scores = None
    if data.mdp is None:
        gap = _resampled_gap(policies, best, supported, data, seed)
    else:
        with progress_bar() as progress:
            progress.add_task("Treating patients", total=None)
            scores = score_policies(
                data.mdp,
                policies,
                supported=data.pair_counts > 0,
                patients=patients,
                seed=seed,
                stage=Stage.VALIDATE,
                strategy=strategy,
                reference=policies[best],
            )
        assert scores.difference is not None
        gap = Gap(*(part.numpy() for part in scores.difference))
    return Comparison(
        *(runs, labels, data, entrants, baselines, best, supported, gap, scores, patients, problems)
    )


def _read_entrants(
    run: Run,
    described: Description,
    label: str,
    model: SupportedValue,
    entrants: list[Entrant],
    problems: list[str],
) -> None:
    """Adds the members of a run, and the names of those that have diverged."""
    path, checkpoint = run.last_checkpoint()
    if checkpoint["global_step"] != described.result["step"]:
        told = unfinished(run.folder, checkpoint["global_step"])
        raise InputError(f"{described.name} cannot be compared: {told}")
    module = rebuild_algorithm(checkpoint, path)
    try:
        steps, curves = (
            _exact_curves(described)
            if run.data.mdp is not None
            else _supported_curves(checkpoint, model)
        )
        if len(curves) not in (0, len(module.members)):
            raise ValueError("they are of other members")
    except WRONG_ENTRY as error:
        raise InputError(
            f"the evaluations of {described.name} are damaged ({type(error).__name__}: {error})"
        ) from error
    if not len(curves):
        problems.append(f"{described.name} is left out of the curves: it kept no evaluation")
        curves = np.empty((len(module.members), 0))
    own = zip(module.members.names, module.labels, module.policies(), curves, strict=True)
    for member, otherwise, policy, curve in own:
        name = _named(label, member) or otherwise
        if policy is None:
            problems.append(f"{name} is left out: its network has diverged")
        else:
            entrants.append(Entrant(replace(policy, name=name), label, member, steps, curve))


def _exact_curves(run: Description) -> tuple[IntArray, FloatArray]:
    """Steps and exact survival, (members, evaluations), as `metrics.json` has them."""
    held: Any = run.result.get("evaluations", [])
    place = "evaluations" if not isinstance(held, list) else mismatch(held, _EVALUATIONS)
    if place is not None:
        raise ValueError(f"{METRICS}: {place}")
    rows = [[member["survival_exact"] for member in entry["members"]] for entry in held]
    steps = np.array([entry["step"] for entry in held], dtype=np.int64)
    return steps, np.array(rows, dtype=np.float64).T


def _supported_curves(
    checkpoint: dict[str, Any], model: SupportedValue
) -> tuple[IntArray, FloatArray]:
    """Steps and values of the policies that were evaluated, (members, evaluations)."""
    story = checkpoint.get("callbacks", {}).get("PolicyEvaluation", {})
    held: dict[int, Tensor] = story.get("policies", {})
    rows = [[_value_of(table.numpy(), model) for table in tables] for tables in held.values()]
    return np.array(list(held), dtype=np.int64), np.array(rows, dtype=np.float64).T


def _value_of(kept: IntArray | FloatArray, model: SupportedValue) -> float:
    """Value of a kept policy: actions, (n_states,), or probabilities, (n_states, n_actions)."""
    n_actions = model.counts.pairs.shape[1]
    table = np.eye(n_actions)[kept.astype(np.int64)] if kept.ndim == 1 else kept.astype(np.float64)
    if not table.any():
        return np.nan  # it has diverged
    return float(model.judge([Policy("evaluated", table)]).value[0])


def _resampled_gap(
    policies: Sequence[Policy],
    best: int,
    supported: SupportedValues,
    data: OfflineDataModule,
    seed: int,
) -> Gap:
    """Differences of values, with intervals over the same resampled episodes for all policies."""
    parts = [Episodes(own, data.n_states, data.n_actions) for own in (data.train, data.held_out)]
    with progress_bar() as progress:
        task = progress.add_task("Resampling episodes", total=RESAMPLES)
        advance = partial(progress.advance, task)
        values = resampled_values(policies, parts, resamples=RESAMPLES, seed=seed, advance=advance)
    estimate = supported.value - supported.value[best]
    reach = Z_95 * (values.value - values.value[:, [best]]).std(axis=0, ddof=1)
    return Gap(estimate, estimate - reach, estimate + reach)


def _named(run: str, member: str) -> str:
    """Run and member as people read them, which break where there is a space."""
    return f"{run} {member.replace('alpha=', 'α=').replace(',', ' ')}".strip()

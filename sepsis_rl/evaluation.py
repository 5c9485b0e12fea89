"""What policies are worth in the environment: exactly, and by rollouts that anybody can repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import Strategy, TabularMDP
from sepsis_rl.metrics import Interval, MemberMean, PairedDifference, SurvivalRate
from sepsis_rl.planning import PolicyValue, evaluate
from sepsis_rl.policies import Policy
from sepsis_rl.rollouts import Rollout, roll_out, roll_out_real


class Stage(IntEnum):
    """What an evaluation is for; each stage meets patients of its own."""

    VALIDATE = 1
    TEST = 2
    REPORT = 3
    EXPLORE = 4


@dataclass(frozen=True)
class PolicyScores:
    """Scores of several policies side by side; every field is (policies,).

    Attributes:
        survival_rate: Share of the simulated patients who survive, with its 95 % interval.
        difference: Survival minus the reference policy's on the same patients, with its paired
            95 % interval; None without a reference.
        episode_length: Mean episode length of the rollouts, in steps of 4 hours.
        survival_exact: Survival by solving the MDP; no sampling.
        length_exact: Expected episode length, in steps of 4 hours.
        clinician_agreement: Probability that a clinician takes the policy's action, in the states
            the policy visits.
        unsupported_rate: Share of the policy's decisions that the training data never has.
        inadmissible_rate: Share of the policy's decisions that are inadmissible.
        visits: Expected visits per episode, (policies, n_states, n_actions).
    """

    survival_rate: Interval
    difference: Interval | None
    episode_length: Tensor
    survival_exact: Tensor
    length_exact: Tensor
    clinician_agreement: Tensor
    unsupported_rate: Tensor
    inadmissible_rate: Tensor
    visits: NDArray[np.float64]

    def metrics(self) -> dict[str, Tensor]:
        """The scores under their metric names, without the stage."""
        return {
            "survival_rate": self.survival_rate.estimate,
            "survival_rate_low": self.survival_rate.low,
            "survival_rate_high": self.survival_rate.high,
            "survival_exact": self.survival_exact,
            "episode_length": self.episode_length,
            "clinician_agreement": self.clinician_agreement,
            "unsupported_rate": self.unsupported_rate,
            "inadmissible_rate": self.inadmissible_rate,
        }


def score_policies(
    mdp: TabularMDP,
    policies: Sequence[Policy],
    *,
    supported: NDArray[np.bool_],
    patients: int,
    seed: int,
    stage: Stage,
    strategy: Strategy = "mean",
    reference: Policy | None = None,
    real_environment: bool = False,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
) -> PolicyScores:
    """Scores policies on the same patients.

    With several processes each rolls out its share of the patients and the sums are added, so the
    figures are the same for any number of them.

    Args:
        mdp: The decision process.
        policies: The policies.
        supported: Whether the training data has a pair, (n_states, n_actions).
        patients: Number of patients.
        seed: With the stage, who the patients are.
        stage: What the evaluation is for.
        strategy: What an inadmissible action does.
        reference: Policy to compare with, or None.
        real_environment: Step through `gym.make` instead of the batched environment.
        rank: This process.
        world_size: Number of processes.
        device: Where the rollouts run.

    Returns:
        The scores, on the CPU and equal in all processes.
    """
    # First of all, because it refuses policies that the strategy does not accept.
    dynamics = true_dynamics(mdp, strategy)
    exact = [evaluate(dynamics, policy.probabilities) for policy in policies]

    survival, length, difference = _treat(
        treat=roll_out_real if real_environment else partial(roll_out, mdp, device=device),
        treating=[*policies, *([] if reference is None else [reference])],
        count=len(policies),
        share=torch.arange(rank, patients, world_size, device=device),
        address={"seed": seed, "stage": stage, "strategy": strategy},
    )
    return PolicyScores(
        survival_rate=survival,
        difference=difference,
        episode_length=length,
        survival_exact=_column([value.survival for value in exact]),
        length_exact=_column([value.expected_length for value in exact]),
        clinician_agreement=_visit_share(exact, mdp.clinician),
        unsupported_rate=_visit_share(exact, ~supported),
        inadmissible_rate=_visit_share(exact, ~mdp.admissible),
        visits=np.stack([value.visits for value in exact]),
    )


def _treat(
    treat: Callable[..., Rollout],
    treating: Sequence[Policy],
    count: int,
    share: Tensor,
    address: dict[str, Any],
) -> tuple[Interval, Tensor, Interval | None]:
    """Survival, mean length and paired difference over the patients of all processes.

    Args:
        treat: Rolls out policies.
        treating: The policies, and after them the reference if there is one.
        count: Number of policies without the reference.
        share: This process's patients, where processes exchange their sums; may be empty.
        address: What else says who the patients are, and what inadmissible actions do.
    """
    device = share.device
    survival, length = SurvivalRate(count).to(device), MemberMean(count).to(device)
    paired = PairedDifference(count).to(device)
    if len(share):
        rollout = treat(treating, patients=share, **address)
        survived, lengths = rollout.survived.to(device), rollout.length.to(device, torch.float64)
        survival.update(survived[:count])
        length.update(lengths[:count].mean(-1), len(share))
        if len(treating) > count:
            paired.update(survived[:count], survived[count])
    difference = _by_policy(paired.compute()) if len(treating) > count else None
    return _by_policy(survival.compute()), length.compute().cpu().reshape(-1), difference


def _visit_share(
    exact: list[PolicyValue], weight: NDArray[np.float64] | NDArray[np.bool_]
) -> Tensor:
    """Mean of a weight over each policy's own decisions, (policies,)."""
    return _column([float((v.visits * weight).sum() / v.visits.sum()) for v in exact])


def _by_policy(interval: Interval) -> Interval:
    """Back to (policies,): torchmetrics makes a scalar of a single element."""
    return Interval(*(part.cpu().reshape(-1) for part in interval))


def _column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)

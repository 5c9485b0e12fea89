"""What claims and figures are made from: each thing read, solved or simulated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepsis_rl.mdp import BoolArray, FloatArray, IntArray
from sepsis_rl.report.experiment import Experiment, exact_value
from sepsis_rl.report.protocol import Protocol
from sepsis_rl.runs.history import Curve, Member, read_curve


@dataclass(frozen=True, eq=False)
class StartValues:
    """What a network says that its policy is worth from the start, at each evaluation.

    Attributes:
        gamma: The discount that it was trained with.
        estimate: The network's value of the start, float64 (evaluations,).
        exact: Exact value of the same policies at `gamma`, float64 (evaluations,). Like Q of a
            state and an action, it leaves the first step's reward undiscounted.
    """

    gamma: float
    estimate: FloatArray
    exact: FloatArray

    @property
    def is_below(self) -> BoolArray:
        """Whether the estimate is a lower bound, (evaluations,)."""
        return self.estimate <= self.exact


@dataclass(frozen=True, eq=False)
class Evidence:
    """What claims and figures are made from.

    Attributes:
        experiment: The runs.
        protocol: The essay's protocol, carried out on the grid.
        losses: For each member of the grid whose loss was logged, the training loss.
        start_values: For each member of the grid that has Q values.
    """

    experiment: Experiment
    protocol: Protocol
    losses: Mapping[Member, Curve]
    start_values: Mapping[Member, StartValues]


def gather(experiment: Experiment, protocol: Protocol) -> Evidence:
    """Reads the curves and solves for the values that claims and figures need."""
    losses = {member: read_curve(member, "train/loss") for member in experiment.members}
    return Evidence(
        experiment=experiment,
        protocol=protocol,
        losses={member: curve for member, curve in losses.items() if len(curve.steps)},
        start_values={
            member: _start_values(experiment, member)
            for members in experiment.by_alpha.values()
            for member in members
        },
    )


def _start_values(experiment: Experiment, member: Member) -> StartValues:
    gamma = float(member.settings["gamma"])
    exact = [exact_value(experiment.mdp, policy, gamma=gamma).value for policy in member.policies()]
    return StartValues(gamma, member.metrics["value_estimate"], np.array(exact))


def identity(member: Member) -> dict[str, Any]:
    """The columns that tell a member from others."""
    return {"algorithm": member.algorithm, "alpha": member.alpha, "seed": member.seed}


def rows_by_step(
    member: Member, steps: IntArray, columns: Mapping[str, FloatArray], **constant: Any
) -> list[dict[str, Any]]:
    """Rows about what happened to a member.

    Args:
        member: The member.
        steps: Optimizer steps, (rows,).
        columns: By name, (rows,).
        constant: By name, the same in all rows.
    """
    lists = [column.tolist() for column in columns.values()]
    return [
        {**identity(member), **constant, "step": step, **dict(zip(columns, cells, strict=True))}
        for step, *cells in zip(steps.tolist(), *lists, strict=True)
    ]

"""The same patients under the clinician and under a policy: what is gained, lost and given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.evaluation import Stage
from sepsis_rl.mdp import BoolArray, DoseGrid, FloatArray, IntArray, TabularMDP
from sepsis_rl.metrics import Z_95, PairedDifference
from sepsis_rl.planning import state_values
from sepsis_rl.policies import Policy, clinician_policy
from sepsis_rl.report.figures.actions import sofa_strata
from sepsis_rl.rollouts import Rollout, roll_out

HOURS: Final = 4
"""Of a step."""
FEWEST: Final = 30
"""Fewer patients have no interval: a normal one would be too narrow."""


def treat(mdp: TabularMDP, policy: Policy, patients: int, seed: int) -> Rollout:
    """Treats the same patients twice, with the same draws: by the clinician, then by the policy.

    Args:
        mdp: The decision process.
        policy: The policy.
        patients: Number of patients.
        seed: Seed of all draws; they are no other stage's.

    Returns:
        (2, patients), with courses.
    """
    return roll_out(
        mdp,
        [clinician_policy(mdp), policy],
        patients=torch.arange(patients),
        seed=seed,
        stage=Stage.EXPLORE,
        courses=True,
    )


def summarize(mdp: TabularMDP, policy: Policy, pair: Rollout) -> dict[str, Any]:
    """Who gains, who loses, and what is given more or less often.

    Args:
        mdp: The decision process.
        policy: The policy.
        pair: As `treat` returns it.

    Returns:
        For the page: figures of all patients and by SOFA score of the first state, each with what
        it is under clinician and policy and their difference with its 95 % interval; and of the
        decisions by dose and by level.
    """
    assert pair.states is not None
    assert pair.actions is not None
    actions = pair.actions.numpy()
    counts = np.stack([count_actions(own, mdp.n_actions) for own in actions])
    _, vasopressor = mdp.dose_grid.levels(np.arange(mdp.n_actions))
    truth = true_dynamics(mdp)
    exact = [state_values(truth, own.probabilities) for own in (clinician_policy(mdp), policy)]
    figures = {
        "survival": pair.survived.numpy().astype(np.float64),
        "vasopressor_hours": HOURS * counts[:, :, vasopressor > 0].sum(axis=2),
        "hours": HOURS * pair.length.numpy().astype(np.float64),
    }
    first = pair.states[0, :, 0].numpy()
    groups = {"all patients": ~mdp.terminal, **sofa_strata(mdp)}
    return {
        "groups": [
            _group(name, states, mdp.start, exact, figures, states[first])
            for name, states in groups.items()
            if states[first].any()
        ],
        **decisions(counts[0], counts[1], mdp.dose_grid),
    }


def _group(
    name: str,
    states: BoolArray,
    start: FloatArray,
    exact: list[FloatArray],
    figures: Mapping[str, FloatArray],
    chosen: BoolArray,
) -> dict[str, Any]:
    """Figures of the patients who start in some states.

    Args:
        name: What the page calls them.
        states: (n_states,).
        start: Distribution of first states.
        exact: Survival from each state under clinician and policy, each (n_states,).
        figures: By name, (2, patients).
        chosen: (patients,).
    """
    survived = figures["survival"][:, chosen] > 0
    return {
        "name": name,
        "patients": int(chosen.sum()),
        "share": float(start[states].sum()),
        "exact": [float(np.average(own[states], weights=start[states])) for own in exact],
        "only_clinician": int((survived[0] & ~survived[1]).sum()),
        "only_policy": int((survived[1] & ~survived[0]).sum()),
        **{key: paired(*values[:, chosen]) for key, values in figures.items()},
    }


def paired(theirs: FloatArray, ours: FloatArray) -> dict[str, Any]:
    """Means of both, and of their difference with its interval, on the same patients (n,)."""
    metric = PairedDifference(1)
    metric.update(torch.tensor(ours)[None], torch.tensor(theirs))
    mean, low, high = (float(part) for part in metric.compute())
    return {
        "clinician": float(theirs.mean()),
        "policy": float(ours.mean()),
        "difference": mean,
        "interval": [low, high] if len(theirs) >= FEWEST else None,
    }


def count_actions(actions: IntArray, n_actions: int) -> FloatArray:
    """How often each patient gets each action, (patients, n_actions), of (patients, steps).

    An action of -1 is none.
    """
    patient, step = np.nonzero(actions >= 0)
    counts = np.zeros((len(actions), n_actions))
    np.add.at(counts, (patient, actions[patient, step]), 1.0)
    return counts


def decisions(theirs: FloatArray, ours: FloatArray, grid: DoseGrid | None) -> dict[str, Any]:
    """Shares of decisions by action and, where actions are doses, by level of each drug.

    Args:
        theirs: The clinician's, (patients, n_actions).
        ours: The policy's, on the same patients.
        grid: What an action is.
    """
    found = {"actions": share_differences(theirs, ours)}
    if grid is not None:
        levels = grid.levels(np.arange(theirs.shape[1]))
        for drug, level in zip(("iv_fluid", "vasopressor"), levels, strict=True):
            members = np.eye(level.max() + 1)[level]
            found[drug] = share_differences(theirs @ members, ours @ members)
    return found


def share_differences(theirs: FloatArray, ours: FloatArray) -> list[dict[str, Any]]:
    """Differences of two shares of decisions on the same patients, with 95 % intervals.

    A share is a ratio of two means over patients, those of the decisions of a kind and of all; the
    interval is that of its linearization (Cochran, 1977, "Sampling techniques", section 6.4).

    Args:
        theirs: Numbers of decisions of each kind, (patients, kinds).
        ours: Likewise.
    """
    shares, influences = [], []
    for counts in (theirs, ours):
        total = counts.sum(axis=1, keepdims=True)
        share = counts.sum(axis=0) / total.sum()
        shares.append(share)
        influences.append((counts - share * total) / total.mean())
    n, difference = len(theirs), shares[1] - shares[0]
    spread = Z_95 * (influences[1] - influences[0]).std(axis=0, ddof=1 if n > 1 else 0) / np.sqrt(n)
    return [
        {
            "clinician": float(shares[0][kind]),
            "policy": float(shares[1][kind]),
            "difference": float(difference[kind]),
            "interval": (
                [float(difference[kind] - spread[kind]), float(difference[kind] + spread[kind])]
                if n >= FEWEST
                else None
            ),
        }
        for kind in range(len(difference))
    ]


def courses(states: torch.Tensor, actions: torch.Tensor) -> list[list[int]]:
    """Courses of patients, each state, action, state, ..., state of the end.

    Args:
        states: (patients, steps + 1), -1 after the end.
        actions: (patients, steps), likewise.
    """
    woven = torch.full((len(states), states.shape[1] + actions.shape[1]), -1)
    woven[:, 0::2], woven[:, 1::2] = states, actions
    return [[number for number in row if number >= 0] for row in woven.tolist()]

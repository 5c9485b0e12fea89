"""What the page has of every state: records, doses, values, and where each dose leads."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.dynamics import Dynamics, true_dynamics
from sepsis_rl.explorer.meanings import features_of
from sepsis_rl.explorer.shown import ShownPolicy
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray, TabularMDP
from sepsis_rl.planning import evaluate, state_values
from sepsis_rl.policies import Policy, clinician_policy, optimal_policy
from sepsis_rl.report.figures.actions import sofa_strata

LARGEST: Final = 8
"""Next states of a dose that are listed one by one."""


def whole(values: Any, factor: float) -> list[Any]:
    """Numbers as integers in units of 1 / factor, which makes the page a quarter of its size."""
    rounded: list[Any] = np.rint(np.asarray(values) * factor).astype(np.int64).tolist()
    return rounded


def shown_states(data: OfflineDataModule) -> IntArray:
    """Which states the page has, (n,): all in which something is decided, or was in the records."""
    alive = data.pair_counts.any(axis=1) if data.mdp is None else ~data.mdp.terminal
    return np.flatnonzero(alive)


def records_by_state(data: OfflineDataModule) -> dict[str, Any]:
    """What is there without an environment: counts, and where decisions led in the records."""
    states, counts, pairs = shown_states(data), data.counts, data.pair_counts
    ended = counts.pairs.ravel() - counts.transitions.sum(axis=1)
    survived = np.minimum(counts.reward_sums.ravel(), ended)
    ends = sp.csr_array(np.stack([ended - survived, survived], axis=1))
    recorded = np.flatnonzero(pairs)
    rows = sp.csr_array(sp.hstack([counts.transitions, ends], format="csr")[recorded])
    rows.data = rows.data / np.repeat(pairs.ravel()[recorded], np.diff(rows.indptr))
    index = np.full(pairs.size, -1)
    index[recorded] = np.arange(len(recorded))
    return {
        "death": data.n_states,
        "survival": data.n_states + 1,
        "rows": leads_to(rows),
        "states": {
            "id": states.tolist(),
            "counts": pairs[states].tolist(),
            "visits": whole(pairs[states].sum(axis=1) / pairs.sum(), 1e6),
            "row": index.reshape(pairs.shape)[states].tolist(),
        },
    }


def leads_to(rows: sp.csr_array) -> list[list[int]]:
    """The largest shares of distributions, per mille.

    Args:
        rows: (n, n_states).

    Returns:
        For each row the number of states that are not listed, then state and share by turns.
    """
    found = []
    for begin, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        states, shares = rows.indices[begin:end], rows.data[begin:end]
        states, shares = states[shares > 0], shares[shares > 0]
        order = np.argsort(-shares, kind="stable")[:LARGEST]
        listed = np.column_stack([states[order], np.rint(1000 * shares[order])]).astype(int)
        found.append([len(states) - len(order), *listed.ravel().tolist()])
    return found


def truth_by_state(data: OfflineDataModule, mdp: TabularMDP) -> dict[str, Any]:
    """The same with what the environment knows: SOFA, clinicians, values, features."""
    states, truth = shown_states(data), true_dynamics(mdp)
    clinician, strata = clinician_policy(mdp), sofa_strata(mdp)
    visits = evaluate(truth, clinician.probabilities).visits.sum(axis=1)
    by_state = {
        "id": states.tolist(),
        "counts": data.pair_counts[states].tolist(),
        "sofa": whole(mdp.sofa_scores[states], 10),
        "stratum": np.stack([own[states] for own in strata.values()]).argmax(axis=0).tolist(),
        "clinician": whole(clinician.probabilities[states], 1000),
        "admissible": flags(mdp.admissible[states]),
        "row": mdp.row_index[states].tolist(),
        "visits": whole(visits[states] / visits.sum(), 1e6),
    }
    known = {"clinician": clinician, "optimum": optimal_policy(mdp)}
    return {
        "death": mdp.death_state,
        "survival": mdp.survival_state,
        "rows": leads_to(mdp.rows),
        "states": by_state,
        "strata": list(strata),
        "sofa": float(np.average(mdp.sofa_scores, weights=visits)),
        "values": {name: values(truth, mdp, own, states) for name, own in known.items()},
        "features": _features(mdp, states, visits),
    }


def flags(table: BoolArray) -> list[str]:
    """Rows of a mask as texts of 0 and 1."""
    return ["".join("01"[int(cell)] for cell in row) for row in table]


def values(truth: Dynamics, mdp: TabularMDP, policy: Policy, states: IntArray) -> dict[str, Any]:
    """Exact survival at the start; in units of 1e-4, from each state and after each row."""
    worth = state_values(truth, policy.probabilities)
    return {
        "start": float(mdp.start @ worth),
        "state": whole(worth[states], 1e4),
        "row": whole(mdp.rows @ (mdp.rewards + worth), 1e4),
    }


def _features(mdp: TabularMDP, states: IntArray, visits: FloatArray) -> list[dict[str, Any]]:
    """Values of each state, beside mean, 10th and 90th percentile of the clinician's visits."""
    found, weights = [], visits[states] / visits[states].sum()
    for feature, column in zip(features_of(mdp), mdp.state_vectors[states].T, strict=True):
        own = feature.read(column)
        order = np.argsort(own, kind="stable")
        reached = np.cumsum(weights[order])
        low, high = own[order][np.minimum(np.searchsorted(reached, (0.1, 0.9)), len(own) - 1)]
        mean = float(weights @ own)
        found.append(
            {
                "name": feature.name,
                "kind": feature.kind,
                "low": float(low),
                "high": float(high),
                "mean": mean,
                "spread": float(np.sqrt(weights @ (own - mean) ** 2)),
                "values": whole(own, 100),
            }
        )
    return found


def policy_by_state(
    data: OfflineDataModule, shown: ShownPolicy, mdp: TabularMDP | None
) -> dict[str, Any]:
    """Doses, Q, visits and values of a policy."""
    states, own = shown_states(data), shown.policy
    found: dict[str, Any] = {
        "name": shown.name,
        "origin": shown.origin,
        "supported_value": shown.supported_value,
        "choice": own.actions[states].tolist(),
        "q": None if shown.q is None else whole(shown.q[states], 1000),
    }
    if not own.is_deterministic:
        found["probabilities"] = whole(own.probabilities[states], 1000)
    if mdp is not None:
        truth = true_dynamics(mdp)
        visits = evaluate(truth, own.probabilities).visits.sum(axis=1)
        found["visits"] = whole(visits[states] / visits.sum(), 1e6)
        found["values"] = values(truth, mdp, own, states)
    return found

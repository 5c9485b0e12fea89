"""The clinician's page: where a policy differs from clinicians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sepsis_rl.mdp import load_icu_sepsis
from sepsis_rl.pages import Exhibit
from sepsis_rl.policies import clinician_mode_policy
from sepsis_rl.report.evidence import Evidence

SHOWN: Final = 20


def disagreements(evidence: Evidence) -> Exhibit | None:
    """The most visited states in which CQL's action is not the clinicians' most likely one.

    Of CQL with the alpha closest to 0.5 the first seed is taken.
    """
    experiment = evidence.experiment
    if "CQL" not in experiment.compared:
        return None
    member, mdp = experiment.compared["CQL"][0], experiment.mdp
    q, counts = experiment.scores(member), experiment.data.pair_counts
    visits = experiment.exact(member.policy).visits.sum(axis=1)
    ours, theirs = member.policy.actions, clinician_mode_policy(mdp).actions
    differs = np.flatnonzero((ours != theirs) & ~mdp.terminal)
    states = differs[np.argsort(-visits[differs], kind="stable")]
    columns = {
        "state": states,
        "sofa": mdp.sofa_scores[states],
        "share_of_visits": visits[states] / visits.sum(),
        "policy_action": ours[states],
        "clinician_action": theirs[states],
        "policy_count": counts[states, ours[states]],
        "clinician_count": counts[states, theirs[states]],
        "policy_q": q[states, ours[states]],
        "clinician_q": q[states, theirs[states]],
    }
    rows = [
        dict(zip(columns, cells, strict=True))
        for cells in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]
    shown = disagreements_shown(rows)
    return Exhibit(
        name="13-disagreements",
        title="Where does the policy disagree with clinicians?",
        text=f"{member.setting}, seed {member.seed}, differs from the clinicians' most likely "
        f"action in {len(rows)} states, {100 * columns['share_of_visits'].sum():.0f} % of its own "
        f"visits. Shown are the {len(shown)} most visited, with how often the training data have "
        "each action there and how much higher the network values its own. A gap of a few "
        "hundredths between values that rest on few rows is no evidence.",
        rows=rows,
        shown=shown,
    )


def disagreements_shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The first rows as they stand on a page."""
    name = load_icu_sepsis().dose_grid.name
    return [
        {
            "state": str(row["state"]),
            "SOFA": f"{row['sofa']:.1f}",
            "visits %": f"{100 * row['share_of_visits']:.2f}",
            "policy": name(row["policy_action"]),
            "in the data": str(row["policy_count"]),
            "clinicians": name(row["clinician_action"]),
            "in the data ": str(row["clinician_count"]),
            "Q gap": f"{row['policy_q'] - row['clinician_q']:+.3f}",
        }
        for row in rows[:SHOWN]
    ]

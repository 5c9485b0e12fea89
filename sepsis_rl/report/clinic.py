"""The clinician's page: what policies do for whom, and where they differ from clinicians."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import FloatArray, TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_mode_policy, optimal_policy
from sepsis_rl.report.actions import CLINICIAN, dose_levels, sofa_strata, tables_by_policy
from sepsis_rl.report.experiment import Experiment
from sepsis_rl.report.style import COLORS, Exhibit, legend_below, look, new_figure, tidy

_LOOKS: Mapping[str, dict[str, Any]] = {
    CLINICIAN: {"color": COLORS[0], "marker": "o"},
    "optimum": {"color": COLORS[6], "marker": "*"},
}


def by_sofa(experiment: Experiment) -> Exhibit | None:
    """Survival, doses and agreement by the severity in which patients arrive.

    Args:
        experiment: Its grid.
    """
    if not experiment.compared:
        return None
    mdp = experiment.mdp
    policies = {**tables_by_policy(experiment), "optimum": [optimal_policy(mdp).probabilities]}
    rows: list[dict[str, Any]] = [
        {
            "stratum": stratum,
            "share_of_patients": share,
            "policy": name,
            **_figures(experiment, of_stratum, tables),
        }
        for stratum, (share, of_stratum) in _by_start(mdp).items()
        for name, tables in policies.items()
    ]
    shown = [
        {
            "at the start": row["stratum"],
            "patients %": f"{100 * row['share_of_patients']:.1f}",
            "policy": row["policy"],
            "survival %": f"{100 * row['survival']:.1f}",
            "IV-fluid level": f"{row['iv_fluid_level']:.2f}",
            "vasopressor level": f"{row['vasopressor_level']:.2f}",
            "as clinicians %": f"{100 * row['agreement']:.1f}",
            "unsupported %": f"{100 * row['unsupported']:.1f}",
        }
        for row in rows
    ]
    figure = new_figure(12, 3.9)
    panels = figure.subplots(1, 3)
    for axes, (key, label, factor) in zip(
        panels,
        (
            ("survival", "exact survival, %", 100),
            ("iv_fluid_level", "mean IV-fluid level, 0 to 4", 1),
            ("vasopressor_level", "mean vasopressor level, 0 to 4", 1),
        ),
        strict=True,
    ):
        for number, name in enumerate(policies):
            own = [row for row in rows if row["policy"] == name]
            style = _LOOKS[name] if name in _LOOKS else look(name)
            axes.plot(
                np.arange(len(own)) + 0.12 * (number - (len(policies) - 1) / 2),
                [factor * row[key] for row in own],
                linestyle="",
                color=style["color"],
                marker=style["marker"],
                markersize=9 if name == "optimum" else 6,
                label=name,
            )
        axes.set_xticks(range(len(own)), [row["stratum"] for row in own])
        tidy(axes, "at the start", label)
    legend_below(figure)
    return Exhibit(
        name="12-by-sofa",
        title="Who gains, and by what treatment?",
        text="Patients by the SOFA score of their first state; means over seeds. Survival is "
        "exact. Doses, agreement (how likely a clinician is to take the policy's action) and "
        "unsupported decisions (never in the training data) are weighted by each policy's own "
        "visits. States were clustered with the same window's doses among their features, so part "
        "of the agreement is built in.",
        figure=figure,
        rows=rows,
        shown=shown,
    )


def _by_start(mdp: TabularMDP) -> dict[str, tuple[float, TabularMDP]]:
    """By stratum its share of the patients, and the process with those alone."""
    shares = {
        stratum: (float(mdp.start[states].sum()), states)
        for stratum, states in sofa_strata(mdp).items()
    }
    return {
        stratum: (share, dataclasses.replace(mdp, start=np.where(states, mdp.start, 0) / share))
        for stratum, (share, states) in shares.items()
        if share > 0
    }


def _figures(
    experiment: Experiment, mdp: TabularMDP, tables: Sequence[FloatArray]
) -> dict[str, float]:
    values = [evaluate(true_dynamics(mdp), table) for table in tables]
    visits = [value.visits for value in values]
    unsupported = experiment.data.pair_counts == 0
    doses = [dose_levels(mdp, table) for table in visits]
    return {
        "survival": float(np.mean([value.survival for value in values])),
        **{key: float(np.mean([dose[key] for dose in doses])) for key in doses[0]},
        "agreement": float(np.mean([(v * mdp.clinician).sum() / v.sum() for v in visits])),
        "unsupported": float(np.mean([v[unsupported].sum() / v.sum() for v in visits])),
    }


def disagreements(experiment: Experiment, count: int = 20) -> Exhibit | None:
    """The most visited states in which a policy's action is not the clinicians' most likely one.

    Args:
        experiment: Its grid; of CQL with the alpha closest to 0.5 the first seed is taken.
        count: How many states are shown; all are among the rows.
    """
    members = experiment.nearest(0.5)
    if not members:
        return None
    member, mdp = members[0], experiment.mdp
    table, q = member.tables()[-1], member.scores()
    counts = experiment.data.pair_counts
    visits = evaluate(true_dynamics(mdp), table).visits.sum(axis=1)
    ours, theirs = table.argmax(axis=1), clinician_mode_policy(mdp).actions
    differs = np.flatnonzero((ours != theirs) & ~mdp.terminal)
    order = differs[np.argsort(-visits[differs], kind="stable")]
    rows: list[dict[str, Any]] = [
        {
            "state": int(state),
            "sofa": float(mdp.sofa_scores[state]),
            "share_of_visits": float(visits[state] / visits.sum()),
            "policy_action": int(ours[state]),
            "clinician_action": int(theirs[state]),
            "policy_count": int(counts[state, ours[state]]),
            "clinician_count": int(counts[state, theirs[state]]),
            "policy_q": float(q[state, ours[state]]),
            "clinician_q": float(q[state, theirs[state]]),
        }
        for state in order
    ]
    shown = [
        {
            "state": str(row["state"]),
            "SOFA": f"{row['sofa']:.1f}",
            "visits %": f"{100 * row['share_of_visits']:.2f}",
            "policy": mdp.dose_grid.name(row["policy_action"]),
            "in the data": str(row["policy_count"]),
            "clinicians": mdp.dose_grid.name(row["clinician_action"]),
            "in the data ": str(row["clinician_count"]),
            "Q gap": f"{row['policy_q'] - row['clinician_q']:+.3f}",
        }
        for row in rows[:count]
    ]
    share = sum(row["share_of_visits"] for row in rows)
    return Exhibit(
        name="13-disagreements",
        title="Where does the policy disagree with clinicians?",
        text=f"{member.setting}, seed {member.seed}, differs from the clinicians' most likely "
        f"action in {len(rows)} states, {100 * share:.0f} % of its own visits. Shown are the "
        f"{len(shown)} most visited, with how often the training data have each action there and "
        "how much higher the network values its own. A gap of a few hundredths between values "
        "that rest on few rows is no evidence.",
        figure=None,
        rows=rows,
        shown=shown,
    )

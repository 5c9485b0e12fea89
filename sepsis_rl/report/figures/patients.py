"""The clinician's page: what policies do for whom, and where they differ from clinicians."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sepsis_rl.figures import WIDTH, label_axes, legend_below, new_figure, setting_style
from sepsis_rl.mdp import TabularMDP, load_icu_sepsis
from sepsis_rl.pages import Exhibit
from sepsis_rl.policies import Policy, clinician_mode_policy
from sepsis_rl.report.experiment import Experiment, exact_value
from sepsis_rl.report.figures.actions import CLINICIAN, compared_policies, sofa_strata

OPTIMUM: Final = "optimum"
_PANELS: Final = {
    "survival": "survival minus clinicians', points",
    "iv_fluid_level": "mean IV-fluid level",
    "vasopressor_level": "mean vasopressor level",
}


def by_sofa(experiment: Experiment) -> Exhibit:
    """Survival, doses and agreement by the SOFA score of the first state."""
    optimum = {OPTIMUM: [experiment.references[OPTIMUM]]}
    policies = {**compared_policies(experiment), **optimum}
    rows: list[dict[str, Any]] = [
        {
            "stratum": stratum,
            "share_of_patients": share,
            "policy": name,
            **_means_over_seeds(experiment, of_stratum, seeds),
        }
        for stratum, (share, of_stratum) in _by_start(experiment.mdp).items()
        for name, seeds in policies.items()
    ]
    return Exhibit(
        name="12-by-sofa",
        title="Who gains, and by what treatment?",
        text="Patients by the SOFA score of their first state; means over seeds. Survival is "
        "exact, in the picture as points above or below the clinicians'. Doses, agreement (how "
        "likely a clinician is to take the policy's action) and "
        "unsupported decisions (never in the training data) are weighted by each policy's own "
        "visits. States were clustered with the same window's doses among their features, so part "
        "of the agreement is built in.",
        figure=draw_by_sofa(pd.DataFrame(rows)),
        rows=rows,
    )


def draw_by_sofa(rows: pd.DataFrame) -> Figure:
    """Draws survival beside the clinicians' and doses, by the SOFA score of the first state.

    Args:
        rows: Those of the exhibit.
    """
    strata = list(rows["stratum"].unique())
    figure = new_figure(WIDTH, 3.4)
    panels = dict(zip(_PANELS, figure.subplots(1, 3), strict=True))
    names = [str(name) for name in rows["policy"].unique()]
    for key, axes in panels.items():
        cells = rows.pivot(index="stratum", columns="policy", values=key).loc[strata]
        if key == "survival":
            cells = 100 * cells.sub(cells[CLINICIAN], axis=0)
            axes.axhline(0, color=setting_style(CLINICIAN)["color"], linewidth=1)
            _leave_room(axes, cells)
        else:
            axes.set_ylim(-0.1, 4.1)
            axes.set_yticks(range(5))
        for number, name in enumerate(names):
            axes.plot(
                np.arange(len(strata)) + 0.12 * (number - (len(names) - 1) / 2),
                cells[name],
                **{**setting_style(name), "linestyle": ""},
                markersize=9 if name == OPTIMUM else 6,
                label=name,
            )
        axes.set_xticks(range(len(strata)), [stratum.removeprefix("SOFA ") for stratum in strata])
        axes.set_xlim(-0.6, len(strata) - 0.4)
        label_axes(axes, "SOFA at the start", _PANELS[key])
    legend_below(figure)
    return figure


def _leave_room(axes: Axes, cells: pd.DataFrame) -> None:
    """Ends the axis where policies do, with an optimum that would squeeze them written above."""
    others = cells.drop(columns=OPTIMUM)
    low, high, optimum = others.min(axis=None), others.max(axis=None), cells[OPTIMUM]
    room = max(0.08 * (high - low), 0.05)
    if optimum.max() - high <= high - low:
        axes.set_ylim(low - room, optimum.max() + room)
        return
    axes.set_ylim(low - room, high + 5 * room)
    color = setting_style(OPTIMUM)["color"]
    for place, value in enumerate(optimum):
        where = (place, high + 4.6 * room)
        axes.annotate(f"↑{value:+.0f}", where, ha="center", va="top", fontsize=8, color=color)


def by_sofa_shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows as they stand on a page."""
    return [
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


def _means_over_seeds(
    experiment: Experiment, mdp: TabularMDP, seeds: Sequence[Policy]
) -> dict[str, float]:
    values = [exact_value(mdp, policy) for policy in seeds]
    decisions = [value.visits / value.visits.sum() for value in values]
    fluids, vasopressors = mdp.dose_grid.levels(np.arange(mdp.n_actions))
    unsupported = experiment.data.pair_counts == 0
    return {
        "survival": float(np.mean([value.survival for value in values])),
        "iv_fluid_level": float(np.mean([own.sum(axis=0) @ fluids for own in decisions])),
        "vasopressor_level": float(np.mean([own.sum(axis=0) @ vasopressors for own in decisions])),
        "agreement": float(np.mean([(own * mdp.clinician).sum() for own in decisions])),
        "unsupported": float(np.mean([own[unsupported].sum() for own in decisions])),
    }


SHOWN: Final = 20


def disagreements(experiment: Experiment) -> Exhibit | None:
    """The most visited states in which CQL's action is not the clinicians' most likely one.

    Of CQL with the alpha closest to 0.5 the first seed is taken.
    """
    if "CQL" not in experiment.compared:
        return None
    member, mdp = experiment.compared["CQL"][0], experiment.mdp
    q, counts = member.scores, experiment.data.pair_counts
    visits = experiment.exact(member.policy).visits.sum(axis=1)
    ours, theirs = member.policy.actions, clinician_mode_policy(mdp).actions
    differs = np.flatnonzero((ours != theirs) & ~mdp.terminal)
    states = differs[np.argsort(-visits[differs], kind="stable")]
    if not len(states):
        return None
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
    return Exhibit(
        name="13-disagreements",
        title="Where does the policy disagree with clinicians?",
        text=f"{member.setting}, seed {member.seed}, differs from the clinicians' most likely "
        f"action in {len(states)} states, {100 * columns['share_of_visits'].sum():.0f} % of its "
        f"own visits. Shown are the {len(states[:SHOWN])} most visited, with how often the "
        "training data have each action there and how much higher the network values its own. A "
        "gap of a few hundredths between values that rest on few rows is no evidence.",
        rows=pd.DataFrame(columns).to_dict("records"),
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

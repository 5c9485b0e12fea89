"""The essay's figures 6 and 7: which doses policies give, and what Q says of the others."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sepsis_rl.figures import WIDTH, heat_map, label_axes, new_figure, setting_style
from sepsis_rl.mdp import BoolArray, FloatArray, IntArray, TabularMDP
from sepsis_rl.pages import Exhibit
from sepsis_rl.policies import Policy
from sepsis_rl.report.experiment import Experiment

CLINICIAN: Final = "clinician"


def sofa_strata(mdp: TabularMDP) -> dict[str, BoolArray]:
    """Patients' states by SOFA score: (n_states,) masks without terminal states."""
    sofa, alive = mdp.sofa_scores, ~mdp.terminal
    return {
        "SOFA < 5": alive & (sofa < 5),
        "SOFA 5–<8": alive & (sofa >= 5) & (sofa < 8),
        "SOFA 8–<11": alive & (sofa >= 8) & (sofa < 11),
        "SOFA ≥ 11": alive & (sofa >= 11),
    }


def compared_policies(experiment: Experiment) -> dict[str, list[Policy]]:
    """Policies side by side: the clinician's, then the last one of each seed of an algorithm."""
    learned = {
        members[0].setting: [member.policy for member in members]
        for members in experiment.compared.values()
    }
    return {CLINICIAN: [experiment.references[CLINICIAN]], **learned}


def action_distribution(experiment: Experiment) -> Exhibit:
    """Share of each action in the policies' decisions."""
    alive = ~experiment.mdp.terminal
    actions = np.arange(experiment.mdp.n_actions)
    fluids, vasopressors = experiment.mdp.dose_grid.levels(actions)
    parts, three = [], []
    for name, seeds in compared_policies(experiment).items():
        shares = np.stack([_shares(experiment.exact(policy).visits) for policy in seeds])
        by_state = np.mean([policy.probabilities[alive].mean(axis=0) for policy in seeds], axis=0)
        mean = shares.mean(axis=0)
        first = np.argsort(-mean)[:3]
        named = ", ".join(map(str, np.sort(first)))
        three.append(f"{name} {named} ({100 * mean[first].sum():.0f} %)")
        columns = {
            "policy": name,
            "action": actions,
            "iv_fluid_level": fluids,
            "vasopressor_level": vasopressors,
            "share_of_decisions": mean,
            "lowest_seed": shares.min(axis=0),
            "highest_seed": shares.max(axis=0),
            "share_of_states": by_state,
        }
        parts.append(pd.DataFrame(columns))
    rows = pd.concat(parts, ignore_index=True)
    return Exhibit(
        name="6-actions",
        title="Which doses does each policy give?",
        text="Shares of all decisions, by each policy's own visits; bars are means over seeds, "
        "whiskers the lowest and highest. The shaded actions 20 to 24 are the highest IV-fluid "
        "level; the essay takes them for the highest vasopressor level. The three most frequent "
        f"actions: {'; '.join(three)}.",
        figure=draw_actions(rows),
        rows=rows.to_dict("records"),
    )


def draw_actions(rows: pd.DataFrame) -> Figure:
    """Draws the share of each action, a panel for each policy.

    Args:
        rows: Those of the exhibit.
    """
    policies = dict(list(rows.groupby("policy", sort=False)))
    figure = new_figure(WIDTH, 1.35 * len(policies) + 0.8)
    panels = figure.subplots(len(policies), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, own) in zip(panels, policies.items(), strict=True):
        mean = own["share_of_decisions"]
        color = "0.35" if name == CLINICIAN else setting_style(str(name))["color"]
        errors = 100 * np.stack([mean - own["lowest_seed"], own["highest_seed"] - mean])
        errors = errors.clip(0)  # the mean of equal seeds may be off by a rounding
        axes.bar(own["action"], 100 * mean, yerr=errors, color=color, width=0.75, capsize=2)
        axes.axvspan(19.5, 24.5, color="0.9", zorder=0)
        axes.set_xlim(-0.7, len(own) - 0.3)
        label_axes(axes, "", "decisions, %", str(name))
    levels = own[["action", "iv_fluid_level", "vasopressor_level"]].itertuples(index=False)
    panels[-1].set_xticks(own["action"], [f"{a}\n{fluid}·{dose}" for a, fluid, dose in levels])
    panels[-1].tick_params(axis="x", labelsize=7)
    panels[-1].set_xlabel("action, below it IV-fluid level · vasopressor level", fontsize=9)
    return figure


def dose_grids(experiment: Experiment) -> Exhibit:
    """The same as grids of doses, for all decisions and by the severity of the state."""
    grid = experiment.mdp.dose_grid
    shape = (grid.n_iv_fluid_levels, grid.n_vasopressor_levels)
    strata = {"all decisions": ~experiment.mdp.terminal, **sofa_strata(experiment.mdp)}
    visits = {
        name: np.mean([experiment.exact(policy).visits for policy in policies], axis=0)
        for name, policies in compared_policies(experiment).items()
    }
    shares = {
        (name, stratum): _shares(own[states]).reshape(shape)
        for name, own in visits.items()
        for stratum, states in strata.items()
    }
    rows = [
        {
            "policy": name,
            "stratum": stratum,
            "iv_fluid_level": fluid,
            "vasopressor_level": vasopressor,
            "share": share[fluid, vasopressor],
        }
        for (name, stratum), share in shares.items()
        for fluid, vasopressor in np.ndindex(shape)
    ]
    return Exhibit(
        name="6b-dose-grids",
        title="Which doses, to how severe a state?",
        text="The same decisions on the grid of doses, in percent, means over seeds: all of them, "
        "then by the SOFA score of the state in which they are made. SOFA counts the vasopressors "
        "of the same window, so severity and dose are not independent.",
        figure=draw_dose_grids(pd.DataFrame(rows)),
        rows=rows,
    )


def draw_dose_grids(rows: pd.DataFrame) -> Figure:
    """Draws shares of doses, a row of grids for each policy.

    Args:
        rows: Those of the exhibit.
    """
    lines, columns = rows["policy"].unique(), rows["stratum"].unique()
    figure = new_figure(WIDTH, 1.5 * len(lines) + 0.9)
    panels = figure.subplots(len(lines), len(columns), sharex=True, sharey=True, squeeze=False)
    limits = (0.0, 100 * rows["share"].max())
    grids = dict(list(rows.groupby(["policy", "stratum"])))
    for (line, column), axes in np.ndenumerate(panels):
        cells = grids[lines[line], columns[column]]
        share = (
            100
            * cells.pivot(
                index="iv_fluid_level", columns="vasopressor_level", values="share"
            ).to_numpy()
        )
        image = heat_map(
            axes, share, limits=limits, written_from=0.5, digits=0, origin="lower", letters=7
        )
        axes.tick_params(labelsize=7)
        if line == 0:
            axes.set_title(columns[column], fontsize=9)
        if column == 0:
            axes.set_ylabel(f"{lines[line]}\nIV-fluid level", fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("vasopressor level", fontsize=8)
    bar = figure.colorbar(image, ax=panels, location="bottom", shrink=0.5, aspect=40)
    bar.set_label("share of decisions, %", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _shares(visits: FloatArray) -> FloatArray:
    """Shares of actions, (n_actions,), in visits (states, n_actions)."""
    shares: FloatArray = visits.sum(axis=0) / visits.sum()
    return shares


STATE: Final = 559
"""The state that the essay shows."""


def q_values(experiment: Experiment) -> Exhibit | None:
    """Q of all actions, in one state and over all states, beside what the data have."""
    groups = [own for algorithm, own in experiment.compared.items() if algorithm != "BC"]
    if not groups:
        return None
    alive = ~experiment.mdp.terminal
    counts = experiment.data.pair_counts
    in_state, in_all = counts[STATE], counts[alive].sum(axis=0)
    actions = np.arange(len(in_all))
    parts, said = [], []
    for members in groups:
        setting = members[0].setting
        q = np.stack([member.scores for member in members])
        mean, deviation = q[:, alive].mean(axis=1), q[:, alive].std(axis=1)
        for number, member in enumerate(members):
            columns = {
                "setting": setting,
                "seed": member.seed,
                "action": actions,
                f"q_of_state_{STATE}": q[number, STATE],
                f"count_in_state_{STATE}": in_state,
                "q_mean_over_states": mean[number],
                "q_sd_over_states": deviation[number],
                "count": in_all,
            }
            parts.append(pd.DataFrame(columns))
        seen, unseen = (q[:, pairs & alive[:, None]].mean() for pairs in (counts > 0, counts == 0))
        spread = q[:, alive].std(axis=2).mean()
        said.append(
            f"{setting}: mean Q of recorded pairs {seen:.3g}, of pairs never recorded "
            f"{unseen:.3g}, standard deviation over a state's actions {spread:.3g}."
        )
    rows = pd.concat(parts, ignore_index=True)
    return Exhibit(
        name="7-q-values",
        title="What does Q say of actions that are seldom taken?",
        text="Left one state, points are means over seeds and whiskers their range; right the "
        f"mean over all {alive.sum()} states, whiskers the standard deviation between states. Gray "
        "columns, on a scale of their own, are how often the training data have the action there. "
        f"Axes differ between rows. {' '.join(said)}",
        figure=draw_q_values(rows),
        rows=rows.to_dict("records"),
    )


def draw_q_values(rows: pd.DataFrame) -> Figure:
    """Draws Q of all actions, a row of panels for each setting.

    Args:
        rows: Those of the exhibit.
    """
    groups = dict(list(rows.groupby("setting", sort=False)))
    figure = new_figure(WIDTH, 2.3 * len(groups) + 0.6)
    panels = figure.subplots(len(groups), 2, sharex=True, squeeze=False)
    for (left, right), (setting, own) in zip(panels, groups.items(), strict=True):
        by_action = own.groupby("action")
        q = by_action[f"q_of_state_{STATE}"]
        counts = by_action[[f"count_in_state_{STATE}", "count"]].first().to_numpy().T
        _draw(left, str(setting), counts[0], q.mean(), q.min(), q.max())
        middle, reach = (by_action[f"q_{of}_over_states"].mean() for of in ("mean", "sd"))
        _draw(right, str(setting), counts[1], middle, middle - reach, middle + reach)
        label_axes(left, "", "Q", f"{setting}, state {STATE}")
        label_axes(right, "", "", f"{setting}, mean over all states")
    for axes in panels[-1]:
        axes.set_xticks(range(0, counts.shape[1], 5))
        axes.set_xlabel("action = 5 × IV-fluid level + vasopressor level", fontsize=8)
    return figure


def _draw(
    axes: Axes, setting: str, counts: IntArray, mean: pd.Series, low: pd.Series, high: pd.Series
) -> None:
    """Draws Q with whiskers over columns of how often the data have each action."""
    twin = axes.twinx()
    twin.bar(np.arange(len(counts)), counts, color="0.85", width=0.9)
    label_axes(twin)
    twin.grid(visible=False)
    twin.set_ylabel("rows of data", fontsize=8, color="0.4")
    twin.tick_params(labelsize=8, colors="0.4")
    # The columns stay behind the points.
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    style = {**setting_style(setting), "linestyle": ""}
    reach = np.stack([mean - low, high - mean]).clip(0)
    axes.errorbar(np.arange(len(mean)), mean, yerr=reach, **style, capsize=2, markersize=5)

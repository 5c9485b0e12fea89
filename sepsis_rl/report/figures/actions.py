"""The essay's figures 6 and 7: which doses policies give, and what Q says of the others."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sepsis_rl.figures import heat_map, label_axes, new_figure, setting_style
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
        "SOFA 5–8": alive & (sofa >= 5) & (sofa < 8),
        "SOFA 8–11": alive & (sofa >= 8) & (sofa < 11),
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
    policies = compared_policies(experiment)
    figure = new_figure(11, 1.55 * len(policies) + 1.1)
    panels = figure.subplots(len(policies), 1, sharex=True, sharey=True)
    rows, three = [], []
    actions = np.arange(experiment.mdp.n_actions)
    fluids, vasopressors = experiment.mdp.dose_grid.levels(actions)
    for axes, (name, seeds) in zip(panels, policies.items(), strict=True):
        shares = np.stack([_shares(experiment.exact(policy).visits) for policy in seeds])
        by_state = np.mean([policy.probabilities[alive].mean(axis=0) for policy in seeds], axis=0)
        mean, low, high = shares.mean(axis=0), shares.min(axis=0), shares.max(axis=0)
        color = "0.35" if name == CLINICIAN else setting_style(name)["color"]
        errors = 100 * np.stack([mean - low, high - mean])
        axes.bar(actions, 100 * mean, yerr=errors, color=color, width=0.75, capsize=2)
        axes.axvspan(19.5, 24.5, color="0.9", zorder=0)
        label_axes(axes, "", "decisions, %", name)
        first = np.argsort(-mean)[:3]
        named = ", ".join(map(str, np.sort(first)))
        three.append(f"{name} {named} ({100 * mean[first].sum():.0f} %)")
        columns = {
            "policy": name,
            "action": actions,
            "iv_fluid_level": fluids,
            "vasopressor_level": vasopressors,
            "share_of_decisions": mean,
            "lowest_seed": low,
            "highest_seed": high,
            "share_of_states": by_state,
        }
        rows += pd.DataFrame(columns).to_dict("records")
    doses = zip(actions, fluids, vasopressors, strict=True)
    panels[-1].set_xticks(actions, [f"{a}\n{fluid}·{dose}" for a, fluid, dose in doses])
    panels[-1].set_xlabel("action, below it IV-fluid level · vasopressor level", fontsize=9)
    return Exhibit(
        name="6-actions",
        title="Which doses does each policy give?",
        text="Shares of all decisions, by each policy's own visits; bars are means over seeds, "
        "whiskers the lowest and highest. The shaded actions 20 to 24 are the highest IV-fluid "
        "level; the essay takes them for the highest vasopressor level. The three most frequent "
        f"actions: {'; '.join(three)}.",
        figure=figure,
        rows=rows,
    )


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
    highest = 100 * max(share.max() for share in shares.values())
    figure = new_figure(2.5 * len(visits) + 1.2, 2.3 * len(strata) + 0.4)
    panels = figure.subplots(len(strata), len(visits), sharex=True, sharey=True, squeeze=False)
    for axes, ((name, stratum), share) in zip(panels.T.flat, shares.items(), strict=True):
        image = heat_map(
            axes, 100 * share, limits=(0, highest), written_from=0.5, digits=0, origin="lower"
        )
        axes.set_title(f"{name}\n{stratum}", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("vasopressor level", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("IV-fluid level", fontsize=9)
    figure.colorbar(image, ax=panels, label="share of decisions, %", shrink=0.5)
    return Exhibit(
        name="6b-dose-grids",
        title="Which doses, to how severe a state?",
        text="The same decisions on the grid of doses, in percent, means over seeds: all of them, "
        "then by the SOFA score of the state in which they are made. SOFA counts the vasopressors "
        "of the same window, so severity and dose are not independent.",
        figure=figure,
        rows=[
            {
                "policy": name,
                "stratum": stratum,
                "iv_fluid_level": fluid,
                "vasopressor_level": vasopressor,
                "share": share[fluid, vasopressor],
            }
            for (name, stratum), share in shares.items()
            for fluid, vasopressor in np.ndindex(shape)
        ],
    )


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
    figure = new_figure(11, 2.6 * len(groups) + 0.7)
    panels = figure.subplots(len(groups), 2, sharex=True, squeeze=False)
    rows: list[dict[str, Any]] = []
    said = []
    for (left, right), members in zip(panels, groups, strict=True):
        setting = members[0].setting
        q = np.stack([member.scores for member in members])
        own, mean, deviation = q[:, STATE], q[:, alive].mean(axis=1), q[:, alive].std(axis=1)
        _draw(left, setting, in_state, own.mean(axis=0), own.min(axis=0), own.max(axis=0))
        middle, reach = mean.mean(axis=0), deviation.mean(axis=0)
        _draw(right, setting, in_all, middle, middle - reach, middle + reach)
        label_axes(left, "", "Q", f"{setting}, state {STATE}")
        label_axes(right, "", "", f"{setting}, mean over {alive.sum()} states")
        for number, member in enumerate(members):
            columns = {
                "setting": setting,
                "seed": member.seed,
                "action": actions,
                f"q_of_state_{STATE}": own[number],
                f"count_in_state_{STATE}": in_state,
                "q_mean_over_states": mean[number],
                "q_sd_over_states": deviation[number],
                "count": in_all,
            }
            rows += pd.DataFrame(columns).to_dict("records")
        seen, unseen = (q[:, pairs & alive[:, None]].mean() for pairs in (counts > 0, counts == 0))
        spread = q[:, alive].std(axis=2).mean()
        said.append(
            f"{setting}: mean Q of recorded pairs {seen:.3g}, of pairs never recorded "
            f"{unseen:.3g}, standard deviation over a state's actions {spread:.3g}."
        )
    for axes in panels[-1]:
        axes.set_xticks(actions[::5])
        axes.set_xlabel("action = 5 × IV-fluid level + vasopressor level", fontsize=9)
    return Exhibit(
        name="7-q-values",
        title="What does Q say of actions that are seldom taken?",
        text="Left one state, points are means over seeds and whiskers their range; right the "
        "mean over all states, whiskers the standard deviation between states. Gray columns, on a "
        "scale of their own, are how often the training data have the action there. Axes differ "
        f"between rows. {' '.join(said)}",
        figure=figure,
        rows=rows,
    )


def _draw(
    axes: Axes, setting: str, counts: IntArray, mean: FloatArray, low: FloatArray, high: FloatArray
) -> None:
    """Draws Q with whiskers over columns of how often the data have each action."""
    twin = axes.twinx()
    twin.bar(np.arange(len(counts)), counts, color="0.85", width=0.9)
    twin.set_ylabel("rows of data", fontsize=8, color="0.4")
    twin.tick_params(labelsize=8, colors="0.4")
    # The columns stay behind the points.
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    style = {**setting_style(setting), "linestyle": ""}
    reach = np.stack([mean - low, high - mean])
    axes.errorbar(np.arange(len(mean)), mean, yerr=reach, **style, capsize=2, markersize=5)

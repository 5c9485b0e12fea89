"""The essay's figure 6: which doses policies give, and to whom."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import BoolArray, FloatArray, TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy
from sepsis_rl.report.experiment import Experiment
from sepsis_rl.report.style import Exhibit, look, new_figure, tidy

CLINICIAN = "clinician"


def sofa_strata(mdp: TabularMDP) -> dict[str, BoolArray]:
    """Patients' states by SOFA score: (n_states,) masks without terminal states."""
    sofa, alive = mdp.sofa_scores, ~mdp.terminal
    return {
        "SOFA < 5": alive & (sofa < 5),
        "SOFA 5–8": alive & (sofa >= 5) & (sofa < 8),
        "SOFA 8–11": alive & (sofa >= 8) & (sofa < 11),
        "SOFA ≥ 11": alive & (sofa >= 11),
    }


def tables_by_policy(experiment: Experiment) -> dict[str, list[FloatArray]]:
    """Policies side by side: the clinician's, then the last one of each seed of an algorithm."""
    learned = {
        setting: [member.tables()[-1] for member in members]
        for setting, members in experiment.compared.items()
    }
    return {CLINICIAN: [clinician_policy(experiment.mdp).probabilities], **learned}


def action_distribution(experiment: Experiment) -> Exhibit | None:
    """Share of each action in the policies' decisions.

    Args:
        experiment: Its grid.
    """
    if not experiment.compared:
        return None
    mdp = experiment.mdp
    alive = ~mdp.terminal
    policies = tables_by_policy(experiment)
    figure = new_figure(11, 1.55 * len(policies) + 1.1)
    panels = figure.subplots(len(policies), 1, sharex=True, sharey=True)
    rows, three = [], []
    actions = np.arange(mdp.n_actions)
    fluids, vasopressors = mdp.dose_grid.levels(actions)
    for axes, (name, tables) in zip(panels, policies.items(), strict=True):
        visited = np.stack([_shares(visits) for visits in _visits(mdp, tables)])
        by_state = np.stack([table[alive].mean(axis=0) for table in tables])
        mean = visited.mean(axis=0)
        color = "0.35" if name == CLINICIAN else look(name)["color"]
        errors = 100 * np.stack([mean - visited.min(axis=0), visited.max(axis=0) - mean])
        axes.bar(actions, 100 * mean, yerr=errors, color=color, width=0.75, capsize=2)
        axes.axvspan(19.5, 24.5, color="0.9", zorder=0)
        tidy(axes, "", "decisions, %", name)
        first = np.argsort(-mean)[:3]
        three.append(
            f"{name} {', '.join(map(str, np.sort(first)))} ({100 * mean[first].sum():.0f} %)"
        )
        rows += [
            {
                "policy": name,
                "action": int(action),
                "iv_fluid_level": int(fluids[action]),
                "vasopressor_level": int(vasopressors[action]),
                "share_of_decisions": float(mean[action]),
                "lowest_seed": float(visited[:, action].min()),
                "highest_seed": float(visited[:, action].max()),
                "share_of_states": float(by_state[:, action].mean()),
            }
            for action in actions
        ]
    panels[-1].set_xticks(
        actions, [f"{a}\n{f}·{v}" for a, f, v in zip(actions, fluids, vasopressors, strict=True)]
    )
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


def dose_grids(experiment: Experiment) -> Exhibit | None:
    """The same as grids of doses, for all decisions and by the severity of the state.

    Args:
        experiment: Its grid.
    """
    if not experiment.compared:
        return None
    mdp = experiment.mdp
    strata = {"all decisions": ~mdp.terminal, **sofa_strata(mdp)}
    policies = tables_by_policy(experiment)
    figure = new_figure(2.5 * len(policies) + 1.2, 2.3 * len(strata) + 0.4)
    panels = figure.subplots(len(strata), len(policies), sharex=True, sharey=True, squeeze=False)
    grid = mdp.dose_grid
    shape = (grid.n_iv_fluid_levels, grid.n_vasopressor_levels)
    rows = []
    visits = {name: np.mean(_visits(mdp, tables), axis=0) for name, tables in policies.items()}
    shares = {
        (stratum, name): _shares(own[states])
        for stratum, states in strata.items()
        for name, own in visits.items()
    }
    highest = 100 * max(share.max() for share in shares.values())
    for column, name in enumerate(policies):
        for row, stratum in enumerate(strata):
            axes = panels[row, column]
            share = shares[stratum, name]
            table = 100 * share.reshape(shape)
            image = axes.imshow(table, origin="lower", cmap="cividis", vmin=0, vmax=highest)
            for (fluid, vasopressor), value in np.ndenumerate(table):
                axes.text(
                    vasopressor,
                    fluid,
                    f"{value:.0f}" if value >= 0.5 else "",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if value < highest / 2 else "black",
                )
            axes.set_xticks(range(shape[1]))
            axes.set_yticks(range(shape[0]))
            axes.set_title(f"{name}\n{stratum}", fontsize=9)
            rows += [
                {
                    "policy": name,
                    "stratum": stratum,
                    "iv_fluid_level": fluid,
                    "vasopressor_level": vasopressor,
                    "share": float(share[grid.index(fluid, vasopressor)]),
                }
                for fluid, vasopressor in np.ndindex(shape)
            ]
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
        rows=rows,
    )


def _visits(mdp: TabularMDP, tables: list[FloatArray]) -> list[FloatArray]:
    return [evaluate(true_dynamics(mdp), table).visits for table in tables]


def _shares(visits: FloatArray) -> FloatArray:
    """Shares of actions, (n_actions,), in visits (states, n_actions)."""
    shares: FloatArray = visits.sum(axis=0) / visits.sum()
    return shares


def dose_levels(mdp: TabularMDP, visits: FloatArray) -> Mapping[str, float]:
    """Mean dose levels of decisions, visits (n_states, n_actions)."""
    fluids, vasopressors = mdp.dose_grid.levels(np.arange(mdp.n_actions))
    share = _shares(visits)
    return {
        "iv_fluid_level": float(share @ fluids),
        "vasopressor_level": float(share @ vasopressors),
    }

"""Who gains by a learned policy, by which doses, and whether its Q-values promise too much.

    python benchmarks/gains.py [--output docs/gains] [--seeds 10] [--essay-seeds 0] [--runs runs]

The policies are those of marks.py from 5,000 episodes, of the last checkpoint; runs that are not
there are trained. All figures are exact, from the simulator's tables; intervals are over data sets.
Writes sofa.csv, doses.csv and q.csv by data set, gains.png and q.png, and prints the tables.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from marks import learned
from matplotlib.axes import Axes

from sepsis_rl.display import progress_bar
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.figures import COLORS, MARKERS, label_axes, legend_below, new_figure
from sepsis_rl.mdp import FloatArray, TabularMDP, load_icu_sepsis
from sepsis_rl.planning import evaluate, state_values
from sepsis_rl.policies import clinician_policy, optimal_policy
from sepsis_rl.report.figures.actions import sofa_strata
from sepsis_rl.report.statistics import Difference, paired
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.described import FOLDER, LAST

EPISODES = 5000
CLINICIAN, OPTIMUM = "clinician", "optimum"
NAMES = ("CQL", "CQL, all actions", "essay's CQL")
LOOKS = dict(
    zip(
        (CLINICIAN, *NAMES, OPTIMUM),
        [(COLORS[i], MARKERS[i]) for i in (0, 4, 3, 5, 6)],
        strict=True,
    )
)
"""Color and marker of each policy."""


@dataclass(frozen=True)
class Learned:
    """A policy of one data set.

    Attributes:
        name: As marks.py has it.
        data_seed: Seed of the data set.
        probabilities: (n_states, n_actions).
        gamma: Discount that the network was trained with.
        q: (n_states,), the network's value of the policy's action.
    """

    name: str
    data_seed: int
    probabilities: FloatArray
    gamma: float
    q: FloatArray


def read(name: str, seed: int, runs: Path) -> Learned:
    """The policy and its Q-values in the last checkpoint of a run."""
    module = load_algorithm(learned(name, EPISODES, seed, runs) / FOLDER / LAST)
    (policy,) = module.policies()
    assert policy is not None, f"{name} has diverged on data seed {seed}"
    q = (policy.probabilities * module.all_scores()[0].double().numpy()).sum(axis=1)
    return Learned(name, seed, policy.probabilities, float(module.members.values("gamma")[0]), q)


def by_stratum(mdp: TabularMDP, values: FloatArray) -> dict[str, float]:
    """Mean value over first states, by their SOFA stratum; without strata that nobody starts in."""
    return {
        name: float(np.average(values[states], weights=mdp.start[states]))
        for name, states in sofa_strata(mdp).items()
        if mdp.start[states].any()
    }


def by_level(mdp: TabularMDP, visits: FloatArray) -> dict[str, float]:
    """Share of a policy's decisions by level of each drug."""
    decisions = visits.sum(axis=0) / visits.sum()
    fluids, vasopressors = mdp.dose_grid.levels(np.arange(mdp.n_actions))
    return {
        f"{drug} {level}": float(decisions[levels == level].sum())
        for drug, levels in (("IV fluid", fluids), ("vasopressor", vasopressors))
        for level in range(levels.max() + 1)
    }


def lower_bound(
    start: FloatArray, visits: FloatArray, q: FloatArray, exact: FloatArray, alive: FloatArray
) -> dict[str, float]:
    """Q against the exact value of the same policy.

    Args:
        start: (n_states,), distribution of first states.
        visits: (n_states,), the policy's expected visits.
        q: (n_states,), the network's value of the policy's action.
        exact: (n_states,), its exact value at the same discount.
        alive: (n_states,) bool, states in which something is decided.

    Returns:
        Means over first states, and the shares of states and of visits where Q is at most exact.
    """
    below = q <= exact
    return {
        "q_start": float(start @ q),
        "exact_start": float(start @ exact),
        "states_below": float(below[alive].mean()),
        "visits_below": float(np.average(below[alive], weights=visits[alive])),
    }


def judge(policies: list[Learned]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Survival by stratum, doses, Q at a glance, and Q minus exact with visits of each state."""
    mdp = load_icu_sepsis()
    truth, alive = true_dynamics(mdp), ~mdp.terminal
    references = [
        Learned(
            CLINICIAN, 0, clinician_policy(mdp).probabilities, 1.0, np.full(mdp.n_states, np.nan)
        ),
        Learned(OPTIMUM, 0, optimal_policy(mdp).probabilities, 1.0, np.full(mdp.n_states, np.nan)),
    ]
    sofa, doses, bounds, gaps = [], [], [], []
    for own in [*references, *policies]:
        key = {"policy": own.name, "data_seed": own.data_seed}
        visits = evaluate(truth, own.probabilities).visits
        survival = by_stratum(mdp, state_values(truth, own.probabilities))
        sofa += [{**key, "stratum": name, "survival_exact": v} for name, v in survival.items()]
        doses += [{**key, "dose": name, "share": v} for name, v in by_level(mdp, visits).items()]
        if own in policies:
            exact, seen = state_values(truth, own.probabilities, own.gamma), visits.sum(axis=1)
            bounds.append({**key, **lower_bound(mdp.start, seen, own.q, exact, alive)})
            gaps.append(pd.DataFrame({**key, "gap": own.q - exact, "visits": seen})[alive])
    return pd.DataFrame(sofa), pd.DataFrame(doses), pd.DataFrame(bounds), pd.concat(gaps)


def summarize(rows: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """Mean over data sets, its 95 % interval and their number, by policy and group."""

    def mean(values: pd.Series) -> pd.Series:
        alone = Difference(values.mean(), values.mean(), values.mean())  # a reference is one value
        whole = paired(values.to_numpy(), np.zeros(len(values))) if len(values) > 1 else alone
        return pd.Series({**whole._asdict(), "n": len(values)})

    return rows.groupby(["policy", *by], sort=False)[column].apply(mean).unstack()


def gains(sofa: pd.DataFrame) -> pd.DataFrame:
    """Survival minus the clinician's, by policy, data set and stratum."""
    clinician = sofa[sofa["policy"] == CLINICIAN].set_index("stratum")["survival_exact"]
    others = sofa[sofa["policy"] != CLINICIAN]
    return others.assign(gain=others["survival_exact"] - others["stratum"].map(clinician))


def as_tables(sofa: pd.DataFrame, doses: pd.DataFrame, bounds: pd.DataFrame) -> str:
    """The three tables in Markdown, in percent and points."""
    gained = summarize(gains(sofa), ["stratum"], "gain").apply(written, axis=1).unstack()
    shares = summarize(doses, ["dose"], "share").apply(written, axis=1, sign="")
    bounds = bounds.assign(gap=bounds["q_start"] - bounds["exact_start"])
    columns = {
        "q_start": "Q, %",
        "exact_start": "exact, %",
        "gap": "Q minus exact, points",
        "states_below": "states where Q is not above, %",
        "visits_below": "decisions where Q is not above, %",
    }
    of_q = pd.DataFrame(
        {
            label: summarize(bounds, [], name).apply(written, axis=1, sign="+" * (name == "gap"))
            for name, label in columns.items()
        }
    )
    tables = [
        gained[sofa["stratum"].unique()],
        shares.unstack("policy").loc[doses["dose"].unique(), doses["policy"].unique()],
        of_q,
    ]
    return "\n".join(in_markdown(table) for table in tables)


def written(row: pd.Series, sign: str = "+") -> str:
    mean, low, high = (f"{100 * row[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low}, {high})" if row["n"] > 1 else mean


def in_markdown(table: pd.DataFrame) -> str:
    """A table of texts; pandas' own needs one package more."""
    lines = [["", *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[name, *cells] for name, *cells in table.itertuples()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def draw_gains(sofa: pd.DataFrame, doses: pd.DataFrame) -> plt.Figure:
    """Gains by stratum, and shares of decisions by level of each drug."""
    figure = new_figure(12, 3.9)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    shares = summarize(doses, ["dose"], "share")
    strata, levels = list(sofa["stratum"].unique()), list(doses["dose"].unique())
    draw_groups(middle, shares, [name for name in levels if "fluid" in name])
    # Most decisions give none: beside them the levels would not show.
    draw_groups(right, shares, [name for name in levels if "vaso" in name][1:])
    draw_groups(left, summarize(gains(sofa), ["stratum"], "gain"), strata)
    for axes in (middle, right):
        axes.set_ylim(bottom=0)
    left.axhline(0, color="0.35", linewidth=0.9)
    label_axes(left, "first state", "exact survival minus the clinician's, points")
    label_axes(middle, "IV-fluid level", "decisions, %")
    label_axes(right, "vasopressor level (0, without any, is the rest)", "decisions, %")
    legend_below(figure)
    return figure


def draw_groups(axes: Axes, table: pd.DataFrame, groups: list[str]) -> None:
    """Means with their intervals, policies side by side in each group."""
    names = list(table.index.get_level_values(0).unique())
    for position, name in enumerate(names):
        own = 100 * table.loc[name].loc[groups, ["mean", "low", "high"]]
        color, marker = LOOKS[name]
        axes.errorbar(
            np.arange(len(groups)) + 0.13 * (position - (len(names) - 1) / 2),
            own["mean"],
            yerr=[own["mean"] - own["low"], own["high"] - own["mean"]],
            fmt=marker,
            color=color,
            markersize=5,
            capsize=2,
            label=name,
        )
    axes.set_xticks(
        range(len(groups)),
        [name.removeprefix("IV fluid ").removeprefix("vasopressor ") for name in groups],
    )


def draw_q(bounds: pd.DataFrame, gaps: pd.DataFrame) -> plt.Figure:
    """Q at the start against the exact value, and how far apart the two are over decisions."""
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    for name, own in bounds.groupby("policy", sort=False):
        color, marker = LOOKS[name]
        possible = own[own["q_start"] <= 1]
        if len(possible) < len(own):  # one of 2 would leave the others no room
            beyond = f"not shown: {name}, whose Q is {own['q_start'].mean():.2f}"
            place = {"xycoords": "axes fraction", "fontsize": 8, "ha": "right"}
            left.annotate(beyond, (0.97, 0.03), **place)
        left.plot(possible["exact_start"], possible["q_start"], marker, color=color, label=name)
        states = gaps[gaps["policy"] == name].sort_values("gap")
        share = 100 * states["visits"].cumsum() / states["visits"].sum()
        right.plot(states["gap"], share, color=color, label=name)
    low, high = left.get_xlim()
    look = {"color": "0.35", "linewidth": 0.9, "linestyle": (0, (4, 3))}
    left.axline((low, low), slope=1, **look, label="no difference")
    left.set_xlim(low, high)
    right.axvline(0, **look)
    right.set_xlim(-0.3, 0.3)
    label_axes(left, "exact value of the policy at its γ", "mean Q of the policy's first action")
    label_axes(
        right,
        "Q minus the exact value, probability of survival",
        "decisions with a smaller difference, %",
    )
    legend_below(figure)
    return figure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("docs/gains"))
    parser.add_argument("--seeds", type=int, default=10, help="data sets")
    parser.add_argument("--essay-seeds", type=int, default=0, help="of the essay's settings")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    wanted = [
        (name, seed)
        for name, seeds in zip(
            NAMES, (options.seeds, options.seeds, options.essay_seeds), strict=True
        )
        for seed in range(seeds)
    ]
    with progress_bar() as progress:
        tracked = progress.track(wanted, description="Reading policies")
        policies = [read(name, seed, options.runs) for name, seed in tracked]
    sofa, doses, bounds, gaps = judge(policies)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in (("sofa", sofa), ("doses", doses), ("q", bounds)):
        rows.to_csv(options.output / f"{name}.csv", index=False, float_format="%.6f")
    draw_gains(sofa, doses).savefig(options.output / "gains.png")
    draw_q(bounds, gaps).savefig(options.output / "q.png")
    print(as_tables(sofa, doses, bounds))

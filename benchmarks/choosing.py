"""What choosing a policy from records costs, by criterion, set of candidates and held-out episodes.

    python benchmarks/choosing.py [--output docs/choosing] [--seeds 20] [--essay-seeds 0]

On each data set of 5,000 episodes candidates are made: plans without a network, networks on all
records, plans on resampled episodes, and, if asked for, networks on the essay's batches of rows.
Each criterion chooses one of each set, by the training episodes and by 1,000, 5,000 or 20,000 that
were held out; exact survival says what the choice lost to the best, and chose nothing. Criteria and
sets were settled before the runs. What stands in choosing.csv is not measured again; delete its
rows after a change. Writes choosing.csv and choosing.png, and prints the table.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from candidates import (
    EPISODES,
    ON_ROWS,
    SETS,
    Candidate,
    networks,
    networks_on_rows,
    plans,
    resampled_plans,
)
from matplotlib.figure import Figure

from sepsis_rl.cli.quiet import quiet
from sepsis_rl.data import Transitions, collect
from sepsis_rl.display import progress_bar
from sepsis_rl.dynamics import Counts, true_dynamics
from sepsis_rl.figures import COLORS, label_axes, legend_below, new_figure
from sepsis_rl.mdp import FloatArray, TabularMDP, load_icu_sepsis
from sepsis_rl.ope import Episodes, OffPolicyOptions, evaluate_off_policy
from sepsis_rl.ope.criteria import regret, regret_of_chance
from sepsis_rl.ope.fitted_q import FittedQEvaluation
from sepsis_rl.ope.supported_value import SupportedValue, SupportedValues, alike, resampled_values
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy, clinician_policy

HELD_OUT = (1000, 5000, 20_000)
HELD_OUT_SEED = 1_000_000
"""Added to a data seed for its held-out episodes."""
FIRST_SEED = 200
"""Of the data. Criterion and sets were tried out on data seeds 0 and 100 to 102."""
COLUMNS = ["data_seed", "held_out", "candidates", "criterion", "regret"]
COLUMNS += ["value", "anchored", "anchored_sd", "survival_exact"]
"""The last four are of the policy that the criterion chose: what it was given, and its truth."""
CHANCE, CHOSEN = "chance", "supported value"
SAFEST, AMONG_BEST, RESAMPLES = "the safest of those alike", 10, 40
"""Looked for among so many, with 1,000 held-out episodes alone: it takes most of the time."""


def criteria(
    policies: list[Policy], train: Counts, held_out: Transitions, mdp: TabularMDP
) -> tuple[dict[str, FloatArray], SupportedValues]:
    """By name what each policy is given, of which the largest is chosen; and more of the first."""
    held = held_out.counts(mdp.n_states, mdp.n_actions)
    both = train + held
    known = SupportedValue(both, mdp).judge(policies)
    episodes = Episodes(held_out, mdp.n_states, mdp.n_actions)
    scores = evaluate_off_policy(
        policies, episodes, estimators=("fqe", "wis"), options=OffPolicyOptions(resamples=0)
    )
    fitted = FittedQEvaluation(both, gamma=1.0)
    values = {
        CHOSEN: known.value,
        "without the price": known.modeled,
        "training episodes alone": SupportedValue(train, mdp).judge(policies).value,
        "held-out episodes alone": SupportedValue(held, mdp).judge(policies).value,
        "without mask, doses and features": SupportedValue(both).judge(policies).value,
        "counts as they are": np.array([fitted.fit(p.probabilities).value[0] for p in policies]),
        "FQE": scores.estimates["fqe"],
        "WIS": scores.estimates["wis"],
    }
    # What cannot be estimated is not chosen.
    return {name: np.nan_to_num(v, nan=-np.inf) for name, v in values.items()}, known


def judge(
    candidates: list[Candidate], data: Transitions, seed: int, mdp: TabularMDP
) -> list[tuple[Any, ...]]:
    """A row for each number of held-out episodes, set and criterion."""
    truth, train = true_dynamics(mdp), data.counts(mdp.n_states, mdp.n_actions)
    policies = [candidate.policy for candidate in candidates]
    survival = np.array([evaluate(truth, policy.probabilities).survival for policy in policies])
    sets = {
        name: np.array([i for i, candidate in enumerate(candidates) if belongs(candidate.kind)])
        for name, belongs in SETS.items()
    }
    rows: list[tuple[Any, ...]] = []
    for size in HELD_OUT:
        held_out = collect(mdp, clinician_policy(mdp), episodes=size, seed=HELD_OUT_SEED + seed)
        given, known = criteria(policies, train, held_out, mdp)
        best = {
            name: own[np.argsort(-known.value[own], kind="stable")[:AMONG_BEST]]
            for name, own in sets.items()
            if len(own)
        }
        replicates = None
        if size == HELD_OUT[0]:
            resampled = np.unique(np.concatenate(list(best.values())))
            parts = [Episodes(part, mdp.n_states, mdp.n_actions) for part in (data, held_out)]
            replicates = resampled_values(
                [policies[i] for i in resampled], parts, mdp, resamples=RESAMPLES
            )
        for name, first in best.items():
            own = sets[name]
            lost = {
                criterion: regret(values[own], survival[own]) for criterion, values in given.items()
            }
            lost[CHANCE] = regret_of_chance(survival[own])
            spread = np.nan
            if replicates is not None:
                columns = np.searchsorted(resampled, first)
                close = first[alike(known.value[first], replicates.value[:, columns])]
                safest = close[known.rarity[close].argmin()]
                lost[SAFEST] = float(survival[own].max() - survival[safest])
                spread = float(replicates.anchored[:, columns[0]].std(ddof=1))
            chosen = first[0]
            about = (known.value[chosen], known.anchored[chosen], spread, survival[chosen])
            nothing = (np.nan,) * len(about)
            rows += [
                (seed, size, name, criterion, points, *(about if criterion == CHOSEN else nothing))
                for criterion, points in lost.items()
            ]
    return rows


def measure(
    known: pd.DataFrame, seeds: int, essay_seeds: int, runs: Path, table: Path
) -> pd.DataFrame:
    """The rows of all data sets; those of a new one are written when it is done."""
    mdp = load_icu_sepsis()
    wanted = [(FIRST_SEED + number, False) for number in range(seeds)]
    wanted += [(FIRST_SEED + number, True) for number in range(essay_seeds)]
    with progress_bar() as progress:
        for seed, on_rows in progress.track(wanted, description="Choosing from records"):
            own = known[known["data_seed"] == seed]
            if ((own["candidates"] == ON_ROWS) == on_rows).any():
                continue
            data = collect(mdp, clinician_policy(mdp), episodes=EPISODES, seed=seed)
            counts = data.counts(mdp.n_states, mdp.n_actions)
            candidates = (
                list(networks_on_rows(seed, runs))
                if on_rows
                else [*plans(counts, mdp), *networks(seed), *resampled_plans(data, mdp, seed)]
            )
            new = pd.DataFrame(judge(candidates, data, seed, mdp), columns=COLUMNS)
            known = pd.concat([known, new]) if len(known) else new
            known = known.sort_values("data_seed", kind="stable")
            known.to_csv(table, index=False, float_format="%.6f")
    return known


def as_table(rows: pd.DataFrame, size: int) -> str:
    """Mean regret and its standard error in points, in Markdown; in parentheses of chance's."""
    own = rows[rows["held_out"] == size]
    names = [name for name in SETS if name in set(own["candidates"])]
    lines = ["| points lost | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for criterion in own["criterion"].unique():
        cells = []
        for name in names:
            of_set = own[own["candidates"] == name].pivot(
                index="data_seed", columns="criterion", values="regret"
            )
            lost, chance = 100 * of_set[criterion], 100 * of_set[CHANCE].mean()
            share = "" if criterion == CHANCE else f" ({100 * lost.mean() / chance:.0f} %)"
            cells.append(f"{lost.mean():.2f} ± {lost.sem():.2f}{share}")
        lines.append(f"| {criterion} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def flattery(rows: pd.DataFrame, size: int) -> str:
    """How far what the choice is told to be worth is from its exact survival, in Markdown."""
    lines = ["| points above the truth | supported value | anchored | intervals hold |"]
    lines.append("|---|--:|--:|--:|")
    own = rows[(rows["held_out"] == size) & (rows["criterion"] == CHOSEN)]
    for name in SETS:
        chosen = own[own["candidates"] == name]
        if not len(chosen):
            continue
        over = chosen[["value", "anchored"]].sub(chosen["survival_exact"], axis=0)
        held = over["anchored"].abs() <= 1.96 * chosen["anchored_sd"]
        cells = [f"{100 * over[c].mean():+.2f} ± {100 * over[c].sem():.2f}" for c in over]
        lines.append(f"| {name} | {' | '.join(cells)} | {held.sum()} of {len(held)} |")
    return "\n".join(lines) + "\n"


def draw(rows: pd.DataFrame) -> Figure:
    """Mean regret of each criterion with two standard errors, a panel for each set."""
    names = [name for name in SETS if name in set(rows["candidates"])]
    shown = [name for name in [*rows["criterion"].unique()][::-1] if name != CHANCE]
    across = -(-len(names) // 2)
    figure = new_figure(2.5 * across + 2, 6.4)
    panels = figure.subplots(2, across, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(panels.flat, names, strict=False):
        own = rows[rows["candidates"] == name]
        chance = 100 * own.loc[own["criterion"] == CHANCE, "regret"].mean()
        axes.axvline(chance, color="0.35", linestyle=(0, (4, 3)), label="choosing blindly")
        axes.axvspan(0, chance / 5, color="0.92", label="a fifth of that", zorder=0)
        for place, (size, of_size) in enumerate(own.groupby("held_out")):
            lost = 100 * of_size.pivot(index="data_seed", columns="criterion", values="regret")
            lost = lost.reindex(columns=shown)
            axes.errorbar(
                lost.mean(),
                np.arange(len(shown)) + 0.24 * (1 - place),
                xerr=2 * lost.sem(),
                fmt="os^"[place],
                markersize=4.5,
                color=COLORS[place],
                label=f"{size:,} held-out episodes",
            )
        label_axes(axes, title=textwrap.fill(name, 24))
        axes.set_yticks(range(len(shown)), shown)
        axes.set_xlim(left=0)
    for axes in panels.flat[len(names) :]:
        axes.axis("off")
    for axes in panels[-1]:
        axes.set_xlabel("points of survival lost to the best", fontsize=9)
    legend_below(figure)
    return figure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("docs/choosing"))
    parser.add_argument("--seeds", type=int, default=20, help="data sets")
    parser.add_argument(
        "--essay-seeds", type=int, default=0, help="of them those with the essay's networks"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    return parser.parse_args()


if __name__ == "__main__":
    quiet()
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "choosing.csv"
    known = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=COLUMNS)
    rows = measure(known, options.seeds, options.essay_seeds, options.runs, table)
    draw(rows).savefig(options.output / "choosing.png")
    for size in HELD_OUT:
        print(f"{size:,} held-out episodes\n", as_table(rows, size), sep="\n")
    print(flattery(rows, HELD_OUT[0]))

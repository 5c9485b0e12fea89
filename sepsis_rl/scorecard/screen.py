"""A scorecard on the screen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, shown
from sepsis_rl.ope import ESTIMATORS
from sepsis_rl.ope.criteria import ESTIMATOR_LABELS
from sepsis_rl.scorecard.accuracy import KnownPolicy, Row
from sepsis_rl.scorecard.judging import EPSILON
from sepsis_rl.scorecard.kept import BEST_CASE


def print_scorecard(
    figures: Sequence[Row],
    among_runs: Sequence[Row],
    policies: Sequence[KnownPolicy],
    files: Sequence[Path],
) -> None:
    """Prints how well each rule does.

    Args:
        figures: By size and rule.
        among_runs: The same among the policies of the runs alone; may be empty.
        policies: All.
        files: Where the numbers are.
    """
    console = Console()
    named = [known for known in policies if known.is_candidate]
    best = max(named, key=lambda known: known.survival)
    worst = min(named, key=lambda known: known.survival)
    console.print(
        f"{BEST_CASE} {len(policies)} policies, of which {len(named)} can be chosen: from "
        f"{worst.policy.name} ({100 * worst.survival:.1f} %) to {best.policy.name} "
        f"({100 * best.survival:.1f} %); random and optimum cannot. What choosing costs depends on "
        "what there is to choose from.",
        highlight=False,
    )
    for episodes, group in itertools.groupby(figures, key=lambda row: row["episodes"]):
        rows = list(group)
        console.print(_table(rows))
        console.print(finding(rows), highlight=False)
        own = [row for row in among_runs if row["episodes"] == episodes]
        if own:
            learned = [known.survival for known in policies if known.is_of_a_run]
            console.print(
                f"Among the {len(learned)} policies of the runs alone, {100 * min(learned):.1f} to "
                f"{100 * max(learned):.1f} %: {finding(own)}",
                highlight=False,
            )
        console.print()
    console.print(
        "In points of survival: bias, RMSE and mean width of 95 % intervals of the estimates; "
        "regret, the best policy's survival minus that of the one chosen, with its standard error; "
        "95 % interval, over data sets, of regret minus that of choosing blindly. held: intervals "
        "that hold the truth, %. rank: Spearman's correlation with the truth. Deterministic "
        f"policies softened by {EPSILON:g}, no clip.\n",
        highlight=False,
        style="italic dim",
    )
    for path in files:
        console.print(shown(path), soft_wrap=True, highlight=False)
    console.print(NOT_FOR_CLINICAL_USE)


def _table(rows: Sequence[Row]) -> Table:
    first = rows[0]
    table = framed_table(
        f"{first['data_sets']} data sets of {first['episodes']:,} episodes",
        f"Median effective sample: {first['ess_median']:.0f} episodes.",
    )
    table.add_column("chosen by", no_wrap=True)
    for column in ("bias", "RMSE", "held", "width", "rank", "regret", "minus chance"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        low, high = (_points(row[f"minus_chance_{end}"], "+", 2) for end in ("low", "high"))
        correlation = row["rank_correlation"]
        table.add_row(
            ESTIMATOR_LABELS[row["rule"]],
            _points(row["bias"], "+"),
            _points(row["rmse"]),
            _points(row["coverage"], digits=0),
            _points(row["width"]),
            "" if math.isnan(correlation) else f"{correlation:+.2f}",
            f"{_points(row['regret'], digits=2)} ± {_points(row['regret_se'], digits=2)}",
            f"{low} to {high}",
            style="bold" if row["verdict"] == "better" else "",
            end_section=row["rule"] == ESTIMATORS[-1],
        )
    return table


def _points(value: float, sign: str = "", digits: int = 1) -> str:
    """A share in percent; none for what does not exist, short for what is beyond all measure."""
    if math.isnan(value):
        return ""
    points = 100 * value
    return f"{points:{sign}.{digits}f}" if abs(points) < 1000 else f"{points:{sign}.0e}"


def finding(rows: Sequence[Row]) -> str:
    """What the rules' verdicts come to at a number of episodes, in a sentence or two."""

    def named(verdict: str) -> str:
        return ", ".join(
            f"{ESTIMATOR_LABELS[row['rule']]} ({100 * row['regret']:.2f})"
            for row in sorted(rows, key=lambda row: row["regret"])
            if row["verdict"] == verdict
        )

    cost = 100 * rows[0]["chance_regret"]
    chance = f"choosing blindly, which costs {cost:.2f} points of survival"
    better, worse = named("better"), named("worse")
    found = f"these beat {chance}: {better}." if better else f"nothing beats {chance}."
    text = f"With {rows[0]['episodes']:,} episodes {found}"
    return f"{text} Worse than blind: {worse}." if worse else text

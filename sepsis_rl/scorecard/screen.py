"""A scorecard on the screen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, shown
from sepsis_rl.ope import ESTIMATORS
from sepsis_rl.scorecard.accuracy import KnownPolicy, Row
from sepsis_rl.scorecard.exhibits import BEST_CASE, UNITS, finding, rule_shown


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
    console = Console(markup=False)
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
    console.print(f"{UNITS}\n", highlight=False, style="italic dim")
    for path in files:
        console.print(shown(path), soft_wrap=True, highlight=False)
    console.print(NOT_FOR_CLINICAL_USE)


def _table(rows: Sequence[Row]) -> Table:
    first = rows[0]
    table = framed_table(
        f"{first['data_sets']} data sets of {first['episodes']:,} episodes",
        f"Median effective sample: {first['ess_median']:.0f} episodes.",
    )
    name, *others = rule_shown(first)
    table.add_column(name, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            *rule_shown(row).values(),
            style="bold" if row["verdict"] == "better" else "",
            end_section=row["rule"] == ESTIMATORS[-1],
        )
    return table

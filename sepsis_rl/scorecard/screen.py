"""A scorecard on the screen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table
from sepsis_rl.ope import ESTIMATORS
from sepsis_rl.ope.criteria import ESTIMATOR_LABELS
from sepsis_rl.scorecard.accuracy import VERDICTS, KnownPolicy, RuleFigures
from sepsis_rl.scorecard.judging import EPSILON
from sepsis_rl.scorecard.kept import BEST_CASE


def print_scorecard(
    figures: Sequence[RuleFigures],
    among_runs: Sequence[RuleFigures],
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
    for _, group in itertools.groupby(figures, key=lambda row: row.episodes):
        rows = list(group)
        console.print(_table(rows))
        console.print(finding(rows), highlight=False)
        own = [row for row in among_runs if row.episodes == rows[0].episodes]
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
        console.print(f"{path}", soft_wrap=True, highlight=False)
    console.print(NOT_FOR_CLINICAL_USE)


def _table(rows: Sequence[RuleFigures]) -> Table:
    first = rows[0]
    table = framed_table(
        f"{first.data_sets} data sets of {first.episodes:,} episodes",
        f"Median effective sample: {first.ess_median:.0f} episodes.",
    )
    table.add_column("chosen by", no_wrap=True)
    for column in ("bias", "RMSE", "held", "width", "rank", "regret", "minus chance"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        accuracy = row.accuracy
        table.add_row(
            ESTIMATOR_LABELS[row.rule],
            _points(accuracy.bias, "+"),
            _points(accuracy.rmse),
            _points(accuracy.coverage, digits=0),
            _points(accuracy.width),
            "" if math.isnan(row.rank_correlation) else f"{row.rank_correlation:+.2f}",
            f"{_points(row.regret, digits=2)} ± {_points(row.regret_se, digits=2)}",
            f"{_points(row.minus_chance_low, '+', 2)} to {_points(row.minus_chance_high, '+', 2)}",
            style="bold" if row.verdict == "better" else "",
            end_section=row.rule == ESTIMATORS[-1],
        )
    return table


def _points(value: float, sign: str = "", digits: int = 1) -> str:
    """A share in percent; none for what does not exist, short for what is beyond all measure."""
    if math.isnan(value):
        return ""
    points = 100 * value
    return f"{points:{sign}.{digits}f}" if abs(points) < 1000 else f"{points:{sign}.0e}"


def finding(rows: Sequence[RuleFigures]) -> str:
    """What the rules' verdicts come to at a number of episodes, in a sentence or two."""
    first = rows[0]
    named = {
        verdict: ", ".join(
            f"{ESTIMATOR_LABELS[row.rule]} ({100 * row.regret:.2f})"
            for row in sorted(rows, key=lambda row: row.regret)
            if row.verdict == verdict
        )
        for verdict in VERDICTS
    }
    chance = f"choosing blindly, which costs {100 * first.chance_regret:.2f} points of survival"
    text = f"With {first.episodes:,} episodes "
    if named["better"]:
        text += f"these beat {chance}: {named['better']}."
    else:
        text += f"nothing beats {chance}."
    return text + (f" Worse than blind: {named['worse']}." if named["worse"] else "")

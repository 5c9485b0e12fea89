"""A scorecard's parts as they stand on its page and on the screen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sepsis_rl.ope.criteria import ESTIMATOR_LABELS
from sepsis_rl.pages import Exhibit
from sepsis_rl.scorecard.accuracy import Row
from sepsis_rl.scorecard.figure import draw
from sepsis_rl.scorecard.judging import EPSILON

BEST_CASE: Final = (
    "The simulator is exactly Markov and nothing is hidden from the estimators: this is the best "
    "case."
)
UNITS: Final = (
    "In points of survival: bias, RMSE and mean width of 95 % intervals of the estimates; regret, "
    "the best policy's survival minus that of the one chosen, with its standard error; 95 % "
    "interval, over data sets, of regret minus that of choosing blindly. held: intervals that hold "
    "the truth, %. rank: Spearman's correlation with the truth. Deterministic policies softened by "
    f"{EPSILON:g}, no clip."
)
TITLE: Final = "Estimates from recorded data alone, held against the truth"


def exhibits(
    by_rule: Sequence[Row], by_policy: Sequence[Row], among_runs: Sequence[Row]
) -> list[Exhibit]:
    """The parts of the page.

    Args:
        by_rule: Rows of `summarize_rules` for all sizes.
        by_policy: Those of `summarize_policies`.
        among_runs: Those by rule among the policies of runs alone; may be empty.
    """
    data_sets = by_rule[0]["data_sets"]
    picture = Exhibit(
        name="scorecard-policies",
        title="The estimates of each policy",
        text=f"Each point is a policy: its mean estimate on {data_sets} data sets against its "
        "exact survival, with the middle 95 % of the estimates; on the line they are equal. "
        f"{BEST_CASE} Deterministic policies are softened by {EPSILON:g}, without a clip. Rows "
        "have axes of their own.",
        rows=by_policy,
        figure=draw(by_policy),
    )
    choosing = Exhibit(
        name="scorecard",
        title="How near do they come, and what does choosing by them cost?",
        text=UNITS,
        notes=_findings(by_rule),
        rows=by_rule,
    )
    learned = Exhibit(
        name="scorecard-runs",
        title="And among the policies of the runs alone?",
        text="Read like the first table.",
        notes=_findings(among_runs),
        rows=among_runs,
    )
    return [choosing, picture, learned] if among_runs else [choosing, picture]


def rules_shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rules as they stand on the page."""
    return [{"episodes": f"{row['episodes']:,}", **rule_shown(row)} for row in rows]


def rule_shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of `summarize_rules` as texts, by heading."""
    low, high = (_points(row[f"minus_chance_{end}"], "+", 2) for end in ("low", "high"))
    rank = _number(row["rank_correlation"])
    return {
        "chosen by": ESTIMATOR_LABELS[row["rule"]],
        "bias": _points(row["bias"], "+"),
        "RMSE": _points(row["rmse"]),
        "held": _points(row["coverage"], digits=0),
        "width": _points(row["width"]),
        "rank": "" if math.isnan(rank) else f"{rank:+.2f}",
        "regret": f"{_points(row['regret'], digits=2)} ± {_points(row['regret_se'], digits=2)}",
        "minus chance": f"{low} to {high}",
    }


SHOWN: Final = {"scorecard": rules_shown, "scorecard-runs": rules_shown}
"""By the name of an exhibit that stands on the page as a table, what makes it of its rows."""


def _points(value: Any, sign: str = "", digits: int = 1) -> str:
    """A share in percent; none for what does not exist, short for what is beyond all measure."""
    points = 100 * _number(value)
    if math.isnan(points):
        return ""
    return f"{points:{sign}.{digits}f}" if abs(points) < 1000 else f"{points:{sign}.0e}"


def _number(value: Any) -> float:
    """A cell's number; NaN for an empty one."""
    return math.nan if value in (None, "") else float(value)


def _findings(rows: Sequence[Row]) -> list[str]:
    """A finding for each number of episodes."""
    groups = itertools.groupby(rows, key=lambda row: row["episodes"])
    return [finding(list(group)) for _, group in groups]


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

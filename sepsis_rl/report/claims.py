"""What the essay claims, held against the truth and against its own protocol.

The thresholds were written down before the runs that decide were looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sepsis_rl.pages import Exhibit
from sepsis_rl.report import findings
from sepsis_rl.report.evidence import Evidence
from sepsis_rl.report.statistics import by_data_set

FEWEST_DATA_SETS: Final = 5

CLAIMS: Final[Sequence[tuple[str, str, Callable[[Evidence], findings.Finding]]]] = (
    (
        "CQL 86.0 > BC 84.0 > DQN 82.0 > random 81.7 %",
        "each of the three differences lies above 0 with its whole interval",
        findings.order,
    ),
    (
        "DQN's loss explodes, past 200 after 60,000 steps",
        "in every run the mean of the last ten points is above 1 and 100 times the smallest",
        findings.explosion,
    ),
    (
        "survival is an inverted U in α with its peak at 0.5",
        "0.5 has the highest mean, and its difference to the smallest and to the largest α lies "
        "above 0 with its whole paired-t interval over seeds",
        findings.peak,
    ),
    (
        "seeds spread less with larger α",
        "the pooled variance over seeds at α ≤ 0.1 is larger than that at α ≥ 2, p < 0.05 in a "
        "one-sided F test",
        findings.seed_spread,
    ),
    (
        "CQL concentrates on few actions: 0, 10 and 20",
        "in every run of α 0.5 its three most frequent actions, by its own visits, are 0, 10 and "
        "20, with a larger share than the clinicians' three",
        findings.concentration,
    ),
    (
        "on rare actions CQL's Q is negative, and DQN's flat, between 0 and 1",
        "in every run the mean of CQL's Q (α 0.5) over pairs never recorded is below 0, and DQN's "
        "lies in [0, 1] with a standard deviation over actions below 0.1",
        findings.rare_actions,
    ),
    ("the data cover 51.7 % of the state-action pairs", "within a point", findings.coverage),
    ("the optimum survives 88 %", "rounds to 88", findings.optimum),
    (
        "actions 20 to 24 are the high-vasopressor region",
        "their vasopressor level is 4, by the source of the environment's tables",
        findings.dose_region,
    ),
    (
        "CQL instead of DQN saves 1,600 lives a year among 20,000 admissions",
        "1,600 lies in the interval of the exact difference times 20,000, and 0 does not",
        findings.lives,
    ),
    (
        "CQL's Q is a lower bound of the true value",
        "at every evaluation of every run with α > 0 the network's value of the start is at most "
        "the exact value of its policy at the training γ",
        findings.lower_bound,
    ),
)


def claims(evidence: Evidence) -> Exhibit:
    """Holds the essay's claims against what the runs show."""
    rows = [
        {"claim": claim, "threshold": threshold, **examine(evidence)._asdict()}
        for claim, threshold, examine in CLAIMS
    ]
    experiment = evidence.experiment
    data_sets = len(by_data_set(experiment, []))
    few = f" Only {data_sets} of the {FEWEST_DATA_SETS} data sets are there."
    return Exhibit(
        name="0-claims",
        title="The essay's claims",
        text="Exact survival of the last checkpoints. A difference is a mean over data sets, each "
        f"the mean of its training seeds after {experiment.common_step:,} steps, with a 95 % "
        "paired-t interval over data sets. The last column was written down before the runs were "
        f"looked at.{few if data_sets < FEWEST_DATA_SETS else ''}",
        rows=rows,
        shown=claims_shown(rows),
    )


def claims_shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The claims as they stand on a page."""
    return [
        {
            "the essay": row["claim"],
            "is it true?": f"{row['verdict']}: {row['exact']}",
            "could its protocol show it?": row["protocol"],
            "counts as true": row["threshold"],
        }
        for row in rows
    ]

"""The essay's claims on the page: held against the truth and against its own protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sepsis_rl.pages import Exhibit
from sepsis_rl.report.experiment import Experiment
from sepsis_rl.report.findings import CLAIMS
from sepsis_rl.report.protocol import Protocol
from sepsis_rl.report.statistics import by_data_set

FEWEST_DATA_SETS: Final = 5


def claims(experiment: Experiment, protocol: Protocol) -> Exhibit:
    """Holds the essay's claims against what the runs show."""
    rows = [
        {"claim": claim, "threshold": threshold, **examine(experiment, protocol)._asdict()}
        for claim, threshold, examine in CLAIMS
    ]
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

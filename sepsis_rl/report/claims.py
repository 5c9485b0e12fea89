"""How a claim of the essay is entered, with the threshold that decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from sepsis_rl.report.experiment import Experiment
from sepsis_rl.report.protocol import Protocol

HOLDS, FAILS, UNDECIDED, NOT_EXAMINED = "holds", "does not hold", "not shown", "not examined"
"""Verdicts: `not shown` where an interval leaves it open, `not examined` without its runs."""
NO_ROLLOUTS: Final = "yes: it takes no rollouts"


class Finding(NamedTuple):
    """What became of a claim: verdict, numbers, and whether the essay's protocol could show it."""

    verdict: str
    exact: str
    protocol: str = NO_ROLLOUTS


Examination = Callable[[Experiment, Protocol], Finding]
CLAIMS: Final[list[tuple[str, str, Examination]]] = []
"""What the essay says, what counts as true, and what finds it out."""


def claim(text: str, threshold: str) -> Callable[[Examination], Examination]:
    """Enters what the essay says, and what counts as true, before the function that finds it out.

    The thresholds were written down before the runs that decide were looked at.
    """

    def enter(examine: Examination) -> Examination:
        CLAIMS.append((text, threshold, examine))
        return examine

    return enter

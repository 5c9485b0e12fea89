"""How a claim of the essay is entered, with the threshold that decides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Claim(NamedTuple):
    """A claim of the essay.

    Attributes:
        text: What the essay says.
        threshold: What counts as true.
        settings: Algorithms or settings that it is about.
        steps: How long they have to be trained for it.
        examine: Finds it out.
    """

    text: str
    threshold: str
    settings: Sequence[str]
    steps: int
    examine: Examination

    def missing(self, experiment: Experiment) -> str:
        """What the runs lack for it to be examined; empty where nothing is lacking."""
        lacking = []
        for setting in self.settings:
            own = [m for m in experiment.members if setting in (m.setting, m.algorithm)]
            reached = min((int(member.steps[-1]) for member in own), default=0)
            if not own:
                lacking.append(setting)
            elif reached < self.steps:
                lacking.append(f"{setting} trained for {self.steps:,} steps (here {reached:,})")
        return f"needs {', '.join(lacking)}" if lacking else ""


CLAIMS: Final[list[Claim]] = []
ESSAY_STEPS: Final = 50_000
"""The number that the essay's repository trains for."""


def claim(
    text: str, threshold: str, *settings: str, steps: int = ESSAY_STEPS
) -> Callable[[Examination], Examination]:
    """Enters what the essay says, and what counts as true, before the function that finds it out.

    The thresholds were written down before the runs that decide were looked at.
    """

    def enter(examine: Examination) -> Examination:
        CLAIMS.append(Claim(text, threshold, settings, steps, examine))
        return examine

    return enter

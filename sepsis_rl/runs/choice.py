"""What `lightning select` chose, and how it tells so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table
from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope import OffPolicyScores
from sepsis_rl.ope.criteria import (
    CRITERIA,
    ESTIMATOR_LABELS,
    Criterion,
    criterion_values,
    regret,
    regret_of_chance,
)
from sepsis_rl.ope.tables import (
    DOUBLY_ROBUST,
    FITTED_Q,
    SAMPLING,
    SUPPORTED,
    UNSEEN_AS_ZERO,
    USABLE,
    as_json,
    estimate_table,
    off_policy_table,
)
from sepsis_rl.runs.finished import Candidate

_ROWS_SHOWN: Final = 20
_NAMED: Final = 3
_FEW: Final = 50
_SAME: Final = 1e-9  # of values that differ by rounding alone


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen and why.

    Attributes:
        criterion: Estimate by which policies are compared; the largest is chosen.
        candidates: All policies that were compared; where several candidates have the very same
            one, the first of them.
        same: How many have it, (candidates,).
        scores: Their scores on the held-out episodes.
        order: Indices of the candidates, best first.
        alike: Those of the candidates that the records cannot tell from the best, which is the
            first, by resampled episodes; the best alone by other criteria than `supported_value`.
        anchored_sd: Standard deviation, over those resamples, of the anchored value of the best;
            None by other criteria.
        final: The score of the chosen one on the report's episodes.
        survival: Exact survival of all, float64 (candidates,), where the truth was asked for.
    """

    criterion: Criterion
    candidates: Sequence[Candidate]
    same: Sequence[int]
    scores: OffPolicyScores
    order: list[int]
    alike: list[int]
    anchored_sd: float | None
    final: OffPolicyScores
    survival: FloatArray | None

    @property
    def chosen(self) -> Candidate:
        """The best by the criterion; the first of equals."""
        return self.candidates[self.order[0]]

    @property
    def anchored(self) -> tuple[float, float, float] | None:
        """Anchored value of the best with its 95 % interval, as far as resampling tells."""
        if self.anchored_sd is None or self.scores.supported is None:
            return None
        value, reach = float(self.scores.supported.anchored[self.order[0]]), 1.96 * self.anchored_sd
        return value, value - reach, value + reach

    def regrets(self) -> dict[str, float]:
        """What each criterion's choice loses to the best candidate, and what chance loses."""
        assert self.survival is not None
        regrets: dict[str, float] = {
            criterion: regret(criterion_values(self.scores, criterion), self.survival)
            for criterion in CRITERIA
        }
        return {**regrets, "chance": regret_of_chance(self.survival)}


def show(choice: Choice) -> None:
    """Prints the candidates, the choice, how sure it is, and what it is worth."""
    console = Console(markup=False)
    console.print(_table(choice))
    told = " ".join(filter(None, (_anchored(choice), _told_apart(choice))))
    by = f"\nChosen by {ESTIMATOR_LABELS[choice.criterion]}: "
    chosen = Text.assemble(by, (choice.chosen.name, "bold"), f"\n{told}")
    console.print(chosen, highlight=False, soft_wrap=True)
    console.print()
    console.print(off_policy_table(choice.final, 1, "of the report, which chose nothing"))
    console.print()
    if choice.survival is not None:
        console.print(_truth_table(choice))
        console.print()


def _anchored(choice: Choice) -> str:
    """What all records say that the choice is worth."""
    if choice.anchored is None:
        return ""
    value, low, high = (100 * figure for figure in choice.anchored)
    return (
        f"By training and held-out episodes it is worth {value:.1f} % ({low:.1f}–{high:.1f}). "
        "That flatters, since they chose it: of a hundred such intervals some 60 hold the truth."
    )


def _told_apart(choice: Choice) -> str:
    """How sure the choice is; nothing where it was not looked for."""
    supported, others = choice.scores.supported, choice.alike[1:]
    found, episodes = choice.candidates, choice.scores.episodes
    if len(found) == 1:
        return "There was nothing to choose among: one policy."
    if episodes < _FEW:
        return f"Choosing by {episodes} held-out episodes is a guess; have {_FEW} or more."
    if supported is None or choice.criterion != "supported_value":
        return ""
    if np.ptp(supported.modeled) < _SAME:
        return "All policies are worth the same on these records; it keeps most to them."
    if not others:
        return "The records tell it from all others, on resampled episodes."
    named = ", ".join(found[index].name for index in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    nearest = min(choice.alike, key=lambda index: supported.rarity[index])
    which = "it" if nearest == choice.alike[0] else found[nearest].name
    return (
        f"The records cannot tell from it, on resampled episodes: {named}{more}. "
        f"Of these {which} keeps most to decisions that are often recorded."
    )


def as_content(choice: Choice, data: OfflineDataModule, path: Path) -> dict[str, Any]:
    """What is written to the file at `path`."""
    chosen, survival = choice.chosen, choice.survival
    content: dict[str, Any] = {
        "note": NOT_FOR_CLINICAL_USE,
        "criterion": choice.criterion,
        "chosen": {
            "name": chosen.name,
            "run": os.path.relpath(chosen.run, path.resolve().parent),
            "checkpoint": os.path.relpath(chosen.checkpoint, path.resolve().parent),
            "step": chosen.step,
            "member": chosen.member,
        },
        "alike": [choice.candidates[index].name for index in choice.alike],
        "anchored": choice.anchored,
        "report": {"content_hash": data.report.content_hash, **as_json(choice.final)},
        "select": {"content_hash": data.held_out.content_hash, **as_json(choice.scores)},
    }
    if survival is not None:
        names = (candidate.name for candidate in choice.candidates)
        exact = dict(zip(names, survival.tolist(), strict=True))
        content["truth"] = {"survival_exact": exact, "regret": choice.regrets()}
    return content


def _table(choice: Choice) -> Table:
    """All candidates, best first, or as many as a screen holds."""
    found, scores, survival = choice.candidates, choice.scores, choice.survival
    shown = choice.order[:_ROWS_SHOWN]
    names = {
        "run": [candidate.label for candidate in found],
        "step": [f"{candidate.step:,}" for candidate in found],
        "member": [candidate.member_name.replace(",", ", ") for candidate in found],
    }
    more = f"{len(found) - _ROWS_SHOWN} more are in the file. " if len(found) > _ROWS_SHOWN else ""
    several = {"same": [str(count) for count in choice.same]} if max(choice.same) > 1 else {}
    same = "same: candidates of this very policy. " if several else ""
    exact = {} if survival is None else {"exact %": [f"{100 * value:.2f}" for value in survival]}
    by_all = choice.criterion == "supported_value"
    headings = [SUPPORTED] if by_all else [UNSEEN_AS_ZERO, DOUBLY_ROBUST]
    return estimate_table(
        f"{len(found)} different policies on {scores.episodes:,} held-out episodes, best first by "
        f"{ESTIMATOR_LABELS[choice.criterion]}",
        scores,
        [*headings, FITTED_Q, SAMPLING, USABLE],
        names={heading: texts for heading, texts in names.items() if any(texts)},
        order=shown,
        emphasized=1,
        note=f"{more}{same}Of those whose decisions were recorded {100 * scores.recorded:.1f} % "
        "survived. ",
        beside={**several, **exact},
    )


def _truth_table(choice: Choice) -> Table:
    regrets, scores, found = choice.regrets(), choice.scores, choice.candidates
    chance = regrets["chance"]
    beaten = [criterion for criterion in CRITERIA if regrets[criterion] < chance]
    finding = (
        "That a criterion beats chance on one set of episodes is no proof that it does."
        if beaten
        else f"No criterion beats chance among these {len(found)} policies on "
        f"{scores.episodes:,} episodes: a finding about what such data can tell."
    )
    table = framed_table("What choosing costs: exact survival below the best policy's", finding)
    table.add_column("chosen by")
    table.add_column("policy")
    table.add_column("points", justify="right")
    table.add_column("against chance")
    for criterion in CRITERIA:
        chosen = found[int(criterion_values(scores, criterion).argmax())]
        against = "better" if criterion in beaten else "no better"
        table.add_row(
            ESTIMATOR_LABELS[criterion], chosen.name, f"{100 * regrets[criterion]:.2f}", against
        )
    table.add_section()
    table.add_row("chance", "any, on average", f"{100 * chance:.2f}", "")
    return table

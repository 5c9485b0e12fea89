"""The essay's claims beside what the runs show, as the first part of its chapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sepsis_rl.display import counted
from sepsis_rl.pages import Exhibit
from sepsis_rl.report.claims import NOT_EXAMINED, Finding
from sepsis_rl.report.experiment import Experiment
from sepsis_rl.report.findings import CLAIMS
from sepsis_rl.report.likeness import ESSAY_SETTINGS, plain
from sepsis_rl.report.own_runs import name_of
from sepsis_rl.report.protocol import Protocol
from sepsis_rl.report.statistics import by_data_set

FEWEST_DATA_SETS: Final = 5


def claims(experiment: Experiment, protocol: Protocol) -> Exhibit:
    """Holds the essay's claims against what the runs show."""
    rows = []
    for entry in CLAIMS:
        missing = entry.missing(experiment)
        found = Finding(NOT_EXAMINED, missing, "") if missing else None
        found = found or entry.examine(experiment, protocol)
        rows.append({"claim": entry.text, "threshold": entry.threshold, **found._asdict()})
    data_sets = len(by_data_set(experiment, []))
    few = f" Of the {FEWEST_DATA_SETS} data sets that this takes there are {data_sets} here."
    return Exhibit(
        name="0-claims",
        title="The essay's claims",
        text=f"{_about(experiment, protocol)} In the table, exact survival is that of the last "
        "checkpoints. A difference is a mean over data sets, each the mean of its training seeds "
        f"after {experiment.common_step:,} steps, with a 95 % paired-t interval over data sets. "
        "The last column was written down before the runs were looked at."
        f"{few if data_sets < FEWEST_DATA_SETS else ''}",
        rows=rows,
        notes=experiment.problems,
        chapter="The essay's experiment",
    )


def _about(experiment: Experiment, protocol: Protocol) -> str:
    """Which runs the chapter is about, and how they differ from the essay's."""
    steps = sorted({int(member.steps[-1]) for member in experiment.members})
    trained = " or ".join(f"{step:,}" for step in steps)
    settings = ", ".join(dict.fromkeys(member.setting for member in experiment.members))
    elsewhere = {member.data.content_hash for member in experiment.elsewhere}
    more = f", and on {counted(len(elsewhere), 'other data set')}" if elsewhere else ""
    tries = len(protocol.random_on_others[0])
    return (
        f"{counted(len(experiment.members), 'member')} ({settings}), trained for {trained} steps "
        f"on ICU-Sepsis ({name_of(experiment.data)}){more}. The "
        f"essay's protocol is simulated {counted(tries, 'time')}, with the "
        f"{protocol.best_of}.{_other_settings(experiment)}{_temperature(experiment)}"
    )


def _other_settings(experiment: Experiment) -> str:
    """A sentence where members are not of the essay's settings."""
    differ = {
        name: (value, ESSAY_SETTINGS[name])
        for member in experiment.members
        for name, value in member.settings.items()
        if name in ESSAY_SETTINGS.keys() - {"temperature"} and value != ESSAY_SETTINGS[name]
    }
    said = ", ".join(
        f"{name} {plain(value)} (there {plain(essay)})" for name, (value, essay) in differ.items()
    )
    return f" These are not the essay's settings: {said}." if said else ""


def _temperature(experiment: Experiment) -> str:
    """A sentence where it is not the essay's, or where another figure has others."""
    found = {member.temperature for member in experiment.members} - {None}
    if not found or (found == {1.0} and not experiment.sweeps):
        return ""
    (own,) = found  # a grid has one
    said = f" The conservative term has temperature {own:g}"
    said += "" if own == 1 else ", where the essay's has 1"
    return f"{said}{', in all figures but that of temperatures' * bool(experiment.sweeps)}."


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

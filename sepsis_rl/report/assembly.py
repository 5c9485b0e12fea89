"""`lightning report`: finished runs side by side, then the essay's claims and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from sepsis_rl.display import (
    NOT_FOR_CLINICAL_USE,
    counted,
    framed_table,
    progress_bar,
    shown,
    tell,
)
from sepsis_rl.pages import (
    CONTENTS,
    Exhibit,
    files_of,
    html_page,
    list_contents,
    markdown_page,
    save,
)
from sepsis_rl.report.experiment import Experiment, build_experiment, read_finished
from sepsis_rl.report.figures import actions, patients, survival, training
from sepsis_rl.report.figures.curves import curves
from sepsis_rl.report.figures.temperature import temperature_maps
from sepsis_rl.report.figures.variations import variations
from sepsis_rl.report.own_runs import name_of, runs_shown, runs_table
from sepsis_rl.report.protocol import Protocol, carry_out
from sepsis_rl.report.verdicts import claims, claims_shown
from sepsis_rl.runs.history import Member

PAGE: Final = "report.html"
MARKDOWN: Final = "report.md"
SHOWN: Final = {
    "runs": runs_shown,
    "0-claims": claims_shown,
    "4b-checkpoints": survival.checkpoints_shown,
    "12-by-sofa": patients.by_sofa_shown,
    "13-disagreements": patients.disagreements_shown,
}
"""By the name of an exhibit that stands on the page as a table, what makes it of its rows."""
TITLE: Final = "Finished runs and what their policies are worth"


def write_report(folders: Sequence[str | Path], output: Path, tries: int) -> None:
    """Does what `report.commands.report` says, which checks the options.

    Raises:
        InputError: No run is usable.
    """
    finished = read_finished(folders)
    members = [member for member in finished.members if member.has_truth]
    experiment = build_experiment(members) if members else None
    protocol = None if experiment is None else carry_out(experiment, tries=tries)
    with progress_bar() as progress:
        progress.add_task("Drawing", total=None)
        exhibits = draw(finished.members, experiment, protocol)
    files = {}
    with progress_bar() as progress:
        for exhibit in progress.track(exhibits, description="Writing"):
            files[exhibit.name] = files_of(exhibit)
            save(output, files[exhibit.name])
    about, problems = _about(finished.members), finished.problems
    text = "\n\n".join([about, *problems])
    save(output, {CONTENTS: list_contents(TITLE, text, exhibits, **_provenance(finished.members))})
    texts = {"title": TITLE, "about": about, "warning": NOT_FOR_CLINICAL_USE}
    page = html_page(exhibits, files, SHOWN, problems=problems, **texts)
    save(output, {MARKDOWN: markdown_page(output, SHOWN).encode(), PAGE: page})
    _print(exhibits, problems, output)


def draw(
    members: Sequence[Member], experiment: Experiment | None, protocol: Protocol | None
) -> list[Exhibit]:
    """Makes the exhibits that the runs suffice for, in the order of the page.

    Args:
        members: Of all runs.
        experiment: Those whose patients are simulated; None where there are none.
        protocol: Carried out on it.
    """
    references = {} if experiment is None else experiment.reference_survival
    made = [runs_table(members), curves(members, references)]
    if experiment is not None and protocol is not None:
        made += _chapter(experiment, protocol)
    return [exhibit for exhibit in made if exhibit is not None]


def _chapter(experiment: Experiment, protocol: Protocol) -> list[Exhibit | None]:
    """The essay's claims and figures."""
    return [
        claims(experiment, protocol),
        training.training_loss(experiment),
        training.survival_in_training(experiment),
        survival.alpha_sensitivity(experiment, protocol),
        temperature_maps(experiment),
        survival.algorithm_comparison(experiment, protocol),
        survival.checkpoint_choice(experiment, protocol),
        survival.seed_differences(experiment, protocol),
        actions.action_distribution(experiment),
        actions.dose_grids(experiment),
        actions.q_values(experiment),
        training.lower_bound(experiment),
        *variations(experiment),
        patients.by_sofa(experiment),
        patients.disagreements(experiment),
    ]


def _about(members: Sequence[Member]) -> str:
    """What the page is made from, in a sentence."""
    runs = {member.run for member in members}
    data = {member.data.content_hash: name_of(member.data) for member in members}
    return (
        f"{counted(len(members), 'policy', 'policies')} of {counted(len(runs), 'run')}, trained on "
        f"{'; '.join(data.values())}."
    )


def _provenance(members: Sequence[Member]) -> dict[str, Any]:
    """The runs behind the numbers, by folder the content hash of their data."""
    return {"runs": {str(shown(member.run)): member.data.content_hash for member in members}}


def _print(exhibits: Sequence[Exhibit], problems: Sequence[str], output: Path) -> None:
    console = Console(markup=False)
    rows = runs_shown(exhibits[0].rows)
    table = framed_table(exhibits[0].title, NOT_FOR_CLINICAL_USE)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("data", "run", "policy") else "right")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    console.print(table)
    for exhibit in exhibits:
        if exhibit.name == "0-claims":
            _print_claims(console, exhibit)
    for problem in problems:
        tell(problem)
    tell(str(output / PAGE))


def _print_claims(console: Console, found: Exhibit) -> None:
    table = framed_table(found.title, "")
    for column in ("the essay", "is it true?"):
        table.add_column(column, ratio=1)
    for row in claims_shown(found.rows):
        table.add_row(row["the essay"], row["is it true?"], end_section=True)
    console.print(table)
    for note in found.notes:
        tell(note)

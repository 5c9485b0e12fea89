"""`lightning report`: the essay's figures from finished runs, next to the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, progress_bar, shown
from sepsis_rl.pages import (
    CONTENTS,
    Exhibit,
    files_of,
    html_page,
    list_contents,
    markdown_page,
    save,
)
from sepsis_rl.report.experiment import Experiment, read_experiment
from sepsis_rl.report.figures import actions, patients, survival, training
from sepsis_rl.report.figures.temperature import temperature_maps
from sepsis_rl.report.figures.variations import variations
from sepsis_rl.report.findings import claims, claims_shown
from sepsis_rl.report.protocol import Protocol, carry_out

PAGE: Final = "report.html"
MARKDOWN: Final = "report.md"
SHOWN: Final = {
    "0-claims": claims_shown,
    "4b-checkpoints": survival.checkpoints_shown,
    "12-by-sofa": patients.by_sofa_shown,
    "13-disagreements": patients.disagreements_shown,
}
"""By the name of an exhibit that stands on the page as a table, what makes it of its rows."""
TITLE: Final = "Offline reinforcement learning for sepsis: the essay's experiment and the truth"


def write_report(folders: Sequence[str | Path], output: Path, tries: int) -> None:
    """Does what `report.commands.report` says, which checks the options.

    Raises:
        InputError: No run is usable.
    """
    experiment = read_experiment(folders)
    protocol = carry_out(experiment, tries=tries)
    with progress_bar() as progress:
        progress.add_task("Drawing", total=None)
        exhibits = draw(experiment, protocol)
    files = {}
    with progress_bar() as progress:
        for exhibit in progress.track(exhibits, description="Writing"):
            files[exhibit.name] = files_of(exhibit)
            save(output, files[exhibit.name])
    about, problems = _about(experiment, tries), experiment.problems
    save(output, {CONTENTS: list_contents(TITLE, "\n\n".join([about, *problems]), exhibits)})
    texts = {"title": TITLE, "about": about, "warning": NOT_FOR_CLINICAL_USE}
    page = html_page(exhibits, files, SHOWN, problems=problems, **texts)
    save(output, {MARKDOWN: markdown_page(output, SHOWN).encode(), PAGE: page})
    _print(exhibits[0], problems, output)


def draw(experiment: Experiment, protocol: Protocol) -> list[Exhibit]:
    """Makes the exhibits that the runs suffice for, in the order of the page."""
    made = [
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
    return [exhibit for exhibit in made if exhibit is not None]


def _about(experiment: Experiment, tries: int) -> str:
    data = experiment.data.train
    steps = sorted({int(member.steps[-1]) for member in experiment.members})
    trained = " or ".join(f"{step:,}" for step in steps)
    settings = ", ".join(dict.fromkeys(member.setting for member in experiment.members))
    elsewhere = {member.data.content_hash for member in experiment.elsewhere}
    more = f", and on {len(elsewhere)} other data sets" if elsewhere else ""
    return (
        f"{len(experiment.members)} members ({settings}), trained for "
        f"{trained} steps on {data.n_episodes:,} episodes of ICU-Sepsis (seed "
        f"{data.provenance.seed}){more}. Survival is 90-day survival; exact means solved from the "
        "simulator's own tables, without sampling. The essay's protocol is simulated "
        f"{tries:,} times.{_about_temperature(experiment)}"
    )


def _about_temperature(experiment: Experiment) -> str:
    """A sentence where it is not the essay's, or where another figure has others."""
    found = {member.temperature for member in experiment.members} - {None}
    if not found or (found == {1.0} and not experiment.sweeps):
        return ""
    (own,) = found  # a grid has one
    said = f" The conservative term has temperature {own:g}"
    said += "" if own == 1 else ", where the essay's has 1"
    return f"{said}{', in all figures but that of temperatures' * bool(experiment.sweeps)}."


def _print(found: Exhibit, problems: Sequence[str], output: Path) -> None:
    console = Console()
    table = framed_table("The essay's claims", NOT_FOR_CLINICAL_USE)
    for column in ("the essay", "is it true?"):
        table.add_column(column, ratio=1)
    for row in claims_shown(found.rows):
        table.add_row(row["the essay"], row["is it true?"], end_section=True)
    console.print(table)
    for problem in problems:
        console.print(problem, style="bold", soft_wrap=True, highlight=False)
    console.print(shown(output / PAGE), soft_wrap=True, highlight=False)

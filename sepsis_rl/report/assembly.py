"""`lightning report`: the essay's figures from finished runs, next to the truth."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from sepsis_rl.display import NOT_FOR_CLINICAL_USE, framed_table, progress_bar
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy, random_policy
from sepsis_rl.report.actions import action_distribution, dose_grids
from sepsis_rl.report.claims import claims
from sepsis_rl.report.clinic import by_sofa, disagreements
from sepsis_rl.report.comparison import (
    algorithm_comparison,
    alpha_sensitivity,
    checkpoint_choice,
    heat_map,
)
from sepsis_rl.report.curves import lower_bound, survival_in_training, training_loss
from sepsis_rl.report.experiment import Experiment, read_experiment
from sepsis_rl.report.page import render
from sepsis_rl.report.protocol import Protocol, carry_out, patients_to_treat
from sepsis_rl.report.style import Exhibit, picture
from sepsis_rl.report.values import q_values
from sepsis_rl.report.variations import variations

PAGE: Final = "report.html"


def write_report(folders: Sequence[str | Path], output: Path, *, tries: int) -> None:
    """Writes page, pictures and tables, and prints the essay's claims.

    Args:
        folders: Folders of runs, `runs/<name>/version_N`.
        output: Folder to write to; new or empty.
        tries: How often the essay's protocol is simulated.

    Raises:
        InputError: No run is usable, `output` is not empty, or `tries` is out of range.
    """
    if not 1 <= tries <= 1_000_000:
        raise InputError(f"--tries {tries} is out of range; accepted: 1 to 1,000,000")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output} exists already; give another name")
    experiment = read_experiment(folders)
    with progress_bar() as progress:
        task = progress.add_task(
            f"Carrying out the essay's protocol {tries:,} times",
            total=patients_to_treat(experiment, tries),
        )
        protocol = carry_out(
            experiment, tries=tries, advance=lambda count: progress.advance(task, count)
        )
        task = progress.add_task("Drawing", total=None)
        exhibits = _exhibits(experiment, protocol)
        progress.update(task, total=1, completed=1)
        task = progress.add_task("Writing", total=len(exhibits))
        images: dict[str, bytes] = {}
        files: dict[str, list[str]] = {}
        for exhibit in exhibits:
            written = _contents(exhibit)
            files[exhibit.name] = list(written)
            if exhibit.figure is not None:
                images[exhibit.name] = written[f"{exhibit.name}.png"]
            for name, content in written.items():
                with atomic_write(output / name) as file:
                    file.write(content)
            progress.advance(task)
    page = render(
        exhibits,
        images,
        files,
        title="Offline reinforcement learning for sepsis: the essay's experiment and the truth",
        about=_about(experiment, tries),
        warning=NOT_FOR_CLINICAL_USE,
        problems=experiment.problems,
        footer=NOT_FOR_CLINICAL_USE,
    )
    with atomic_write(output / PAGE) as file:
        file.write(page)
    _print(exhibits[0], experiment, output)


def _exhibits(experiment: Experiment, protocol: Protocol) -> list[Exhibit]:
    survival = _baselines(experiment.mdp)
    bound = lower_bound(experiment)
    made = [
        claims(experiment, protocol, bound),
        training_loss(experiment),
        survival_in_training(experiment, survival),
        alpha_sensitivity(experiment, protocol, survival),
        algorithm_comparison(experiment, protocol, survival),
        checkpoint_choice(experiment, protocol),
        heat_map(experiment, protocol),
        action_distribution(experiment),
        dose_grids(experiment),
        q_values(experiment),
        bound,
        *variations(experiment, survival),
        by_sofa(experiment),
        disagreements(experiment),
    ]
    return [exhibit for exhibit in made if exhibit is not None]


def _baselines(mdp: TabularMDP) -> dict[str, float]:
    policies = {
        "random": random_policy(mdp),
        "clinician": clinician_policy(mdp),
        "optimum": optimal_policy(mdp),
    }
    return {
        name: evaluate(true_dynamics(mdp), policy.probabilities).survival
        for name, policy in policies.items()
    }


def _contents(exhibit: Exhibit) -> dict[str, bytes]:
    """The files of an exhibit, by name."""
    contents = {f"{exhibit.name}.csv": _csv(exhibit.rows)}
    if exhibit.figure is not None:
        draw = picture(exhibit.figure, exhibit.name)
        contents |= {f"{exhibit.name}.{form}": draw(form) for form in ("png", "svg")}
    return contents


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    text.write(f"# {NOT_FOR_CLINICAL_USE}\n")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {
            name: f"{value:.9g}" if isinstance(value, float | np.floating) else value
            for name, value in row.items()
        }
        for row in rows
    )
    return text.getvalue().encode()


def _about(experiment: Experiment, tries: int) -> str:
    data = experiment.data.train
    steps = sorted({int(member.steps[-1]) for member in experiment.members})
    trained = " or ".join(f"{step:,}" for step in steps)
    elsewhere = {member.data.content_hash for member in experiment.elsewhere}
    more = f", and on {len(elsewhere)} other data sets" if elsewhere else ""
    return (
        f"{len(experiment.members)} members ({', '.join(experiment.settings)}), trained for "
        f"{trained} steps on {data.n_episodes:,} episodes of ICU-Sepsis (seed "
        f"{data.provenance.seed}){more}. Survival is 90-day survival; exact means solved from the "
        "simulator's own tables, without sampling. The essay's protocol is simulated "
        f"{tries:,} times."
    )


def _print(found: Exhibit, experiment: Experiment, output: Path) -> None:
    console = Console()
    table = framed_table("The essay's claims", NOT_FOR_CLINICAL_USE)
    for column in ("the essay", "is it true?"):
        table.add_column(column, ratio=1)
    for row in found.shown:
        table.add_row(row["the essay"], row["is it true?"], end_section=True)
    console.print(table)
    for problem in experiment.problems:
        console.print(problem, style="bold", soft_wrap=True, highlight=False)
    console.print(f"{output / PAGE}", soft_wrap=True, highlight=False)

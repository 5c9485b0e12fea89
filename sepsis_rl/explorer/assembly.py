"""`lightning explore`: the page of one policy or several, state by state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from jinja2 import Environment, PackageLoader, StrictUndefined

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, progress_bar, tell
from sepsis_rl.errors import InputError
from sepsis_rl.explorer.meanings import CENTERS, LEVELS
from sepsis_rl.explorer.patients import courses, decisions, summarize, treat
from sepsis_rl.explorer.shown import ShownPolicy, read_policies
from sepsis_rl.explorer.states import policy_by_state, records_by_state, truth_by_state
from sepsis_rl.files import atomic_write, refuse_existing
from sepsis_rl.mdp import FloatArray, TabularMDP

FOLLOWED: Final = 200
"""Patients whose courses are on the page."""
FEWEST_PATIENTS: Final = 100
MOST_PATIENTS: Final = 100_000
"""Their courses take some 800 MB."""


def explore(
    folders: Sequence[str | Path], output: Path, *, patients: int = 10_000, seed: int = 0
) -> None:
    """Writes a page on the policies of finished runs that share their records.

    Of each run the last checkpoint is shown; of several members the one that `lightning select`
    prefers.

    Args:
        folders: Folders of runs, `runs/<name>/version_N`.
        output: Page to write, .html; a file that is not there yet.
        patients: Number of simulated patients that clinician and policy both treat.
        seed: Seed of these patients.

    Raises:
        InputError: `output` exists, an option is out of range, a run cannot be used, or runs were
            trained on different records.
    """
    refuse_existing(output)
    if not FEWEST_PATIENTS <= patients <= MOST_PATIENTS:
        raise InputError(
            f"--patients {patients} is out of range; accepted: {FEWEST_PATIENTS} to "
            f"{MOST_PATIENTS:,}"
        )
    if seed < 0:
        raise InputError(f"--seed {seed} cannot be used: give an integer from 0 upward")
    with progress_bar() as progress:
        progress.add_task("Reading runs", total=None)
        data, shown, recorded = read_policies(folders)
    page = render(page_content(data, shown, recorded, patients, seed))
    with atomic_write(output) as file:
        file.write(page)
    for one in shown:
        tell(f"{one.name}: {one.origin}")
    tell(f"{output}\n{NOT_FOR_CLINICAL_USE}")


def page_content(
    data: OfflineDataModule,
    shown: Sequence[ShownPolicy],
    recorded: float,
    patients: int,
    seed: int,
) -> dict[str, Any]:
    """All that the page shows, as plain values.

    Args:
        data: The records of all runs.
        shown: The policies.
        recorded: Supported value of the recorded decisions.
        patients: Number of simulated patients.
        seed: Their seed.
    """
    mdp, train = data.mdp, data.train
    by_action = data.pair_counts.sum(axis=0)
    content: dict[str, Any] = {
        "warning": NOT_FOR_CLINICAL_USE,
        "truth": mdp is not None,
        "environment": "" if mdp is None else f"{mdp.environment_id} {mdp.environment_version}",
        "episodes": train.n_episodes,
        "records": len(train),
        "survived": float((train.returns() > 0).mean()),
        "supported_value": recorded,
        "patients": patients,
        "seed": seed,
        "actions": data.n_actions,
        "recorded_shares": (by_action / by_action.sum()).round(5).tolist(),
    }
    if mdp is None:
        content |= {**records_by_state(data), "grid": None, "notes": []}
    else:
        grid = [mdp.dose_grid.n_iv_fluid_levels, mdp.dose_grid.n_vasopressor_levels]
        content |= {**truth_by_state(data, mdp), "grid": grid, "notes": [LEVELS, CENTERS]}
    content["policies"] = []
    with progress_bar() as progress:
        for own in progress.track(shown, description="Treating patients"):
            found = policy_by_state(data, own, mdp)
            if mdp is None:
                found["summary"] = decisions(*_recorded_and_ours(data, own), None)
            else:
                content["courses"] = _treated(mdp, own, found, patients, seed)
            content["policies"].append(found)
    return content


def _treated(
    mdp: TabularMDP, shown: ShownPolicy, found: dict[str, Any], patients: int, seed: int
) -> list[list[int]]:
    """Adds a policy's summary and courses, and returns the clinician's of the same patients."""
    pair = treat(mdp, shown.policy, patients, seed)
    assert pair.states is not None
    assert pair.actions is not None
    found["summary"] = summarize(mdp, shown.policy, pair)
    theirs, found["courses"] = (
        courses(states[:FOLLOWED], actions[:FOLLOWED])
        for states, actions in zip(pair.states, pair.actions, strict=True)
    )
    return theirs


def _recorded_and_ours(
    data: OfflineDataModule, shown: ShownPolicy
) -> tuple[FloatArray, FloatArray]:
    """Decisions of each training episode, and those of the policy in the same states."""
    train = data.train
    _, episode = np.unique(train.episode, return_inverse=True)
    once = np.ones(len(train))
    theirs = sp.csr_array((once, (episode, train.action)), (train.n_episodes, data.n_actions))
    visits = sp.csr_array((once, (episode, train.observation)), (train.n_episodes, data.n_states))
    return theirs.toarray(), visits @ shown.policy.probabilities


def render(content: dict[str, Any]) -> bytes:
    """Makes the page: one file that asks no network for anything.

    Args:
        content: As `page_content` returns it. No text in it is taken for markup.
    """
    environment = Environment(
        loader=PackageLoader("sepsis_rl.explorer", "page"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("page.html").render(content=content).encode()

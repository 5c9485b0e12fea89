"""The policies of a page: of each run the last checkpoint, and of its members one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sepsis_rl.algorithms import DQN
from sepsis_rl.baselines import recorded_policy
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray
from sepsis_rl.ope.supported_value import PENALTY, supported_value_of
from sepsis_rl.policies import Policy
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.finished import Candidate, candidates, read_run

MOST_RUNS: Final = 20
"""More would make the page larger than 5 MB."""


@dataclass(frozen=True, eq=False)
class ShownPolicy:
    """A policy with what the page says of it.

    Attributes:
        name: What the page calls it.
        origin: Run, step and member, and how the member was chosen.
        policy: The policy.
        q: (n_states, n_actions), the network's values; None where its scores are no values.
        supported_value: What all records make it worth, less a price for what is rare in them.
    """

    name: str
    origin: str
    policy: Policy
    q: FloatArray | None
    supported_value: float


def read_policies(
    folders: Sequence[str | Path],
) -> tuple[OfflineDataModule, list[ShownPolicy], float]:
    """Reads runs of one data set.

    Of a run with several members the one is taken that the criterion of `lightning select`
    prefers, the supported value on training and held-out episodes.

    Args:
        folders: `runs/<name>/version_N`.

    Returns:
        The data, a policy for each run, and the supported value of the recorded decisions.

    Raises:
        InputError: There are no runs or too many, one cannot be read, all have diverged, or they
            were not trained on the same records.
    """
    distinct = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not 1 <= len(distinct) <= MOST_RUNS:
        raise InputError(
            f"explore was given {len(distinct)} runs; accepted: 1 to {MOST_RUNS}, such as "
            "lightning explore runs/cql/version_0 --output explorer.html"
        )
    runs = [read_run(folder) for folder in distinct]
    data = runs[0].data
    for run in runs[1:]:
        sizes = [(one.n_states, one.n_actions) for one in (run.data, data)]
        if sizes[0] != sizes[1] or run.data.content_hash != data.content_hash:
            raise InputError(
                f"{run.folder} and {runs[0].folder} were not trained on the same records "
                f"({_about(run.data)}; {_about(data)}); accepted are runs with the same settings "
                "of `data`"
            )
    found = candidates(runs, last=True)
    model = supported_value_of(data.counts, data.held_out, data.mdp, PENALTY)
    recorded, *values = model.judge(
        [recorded_policy(data.counts), *(candidate.policy for candidate in found)]
    ).value.tolist()
    shown = []
    for run in runs:
        own = [number for number, one in enumerate(found) if one.run == run.folder]
        if own:
            best = own[int(np.argmax([values[number] for number in own]))]
            shown.append(_show(found[best], len(own), values[best]))
    return data, shown, recorded


def _about(data: OfflineDataModule) -> str:
    return f"{data.train.n_episodes:,} episodes, {data.n_states:,} states, {data.n_actions} actions"


def _show(chosen: Candidate, members: int, value: float) -> ShownPolicy:
    """What the page has of a candidate, chosen among so many members."""
    module = load_algorithm(chosen.checkpoint)
    run = "/".join(chosen.run.parts[-2:])
    origin = f"{type(module).__name__}, run {run}, step {chosen.step:,}"
    if members > 1 or chosen.member_name:
        origin += (
            f", member {chosen.member} ({chosen.member_name}), which has the best supported value "
            f"of the run's {members}"
        )
    return ShownPolicy(
        name=chosen.label or run,
        origin=origin,
        policy=chosen.policy,
        q=(
            module.all_scores()[chosen.member].double().numpy() if isinstance(module, DQN) else None
        ),
        supported_value=value,
    )

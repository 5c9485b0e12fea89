"""Where recorded episodes come from: a file, or the simulator and its cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from sepsis_rl.data.collection import PolicyName, behavior_policy, collect
from sepsis_rl.data.rules import check_rules
from sepsis_rl.data.transitions import Transitions
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import TabularMDP, load_icu_sepsis
from sepsis_rl.randomness import uniform

SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")
"""Ends of the names of files that are read as tables."""

# A word of the split's address; the streams in randomness.py count from 1.
_SPLIT: Final = 0


def is_table(path: Path) -> bool:
    """Whether a file is read as a table, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_episodes(
    path: Path, columns: Mapping[str, str], mdp: TabularMDP | None, n_states: int, n_actions: int
) -> Transitions:
    """Reads a file of episodes and checks it against all that is known of its states.

    Args:
        path: A file of `Transitions.save`, a table as `read_table` takes it, or the folder of a
            Minari data set.
        columns: A table's names of the columns.
        mdp: The environment that the states are of; None for states of their own.
        n_states: Number of states.
        n_actions: Number of actions.

    Raises:
        InputError: The file cannot be read, breaks a rule, or is of another environment.
    """
    if is_table(path):
        from sepsis_rl.data.tables import read_table  # pandas, which takes half a second to import

        data = read_table(path, columns)
    elif columns:
        raise InputError(
            f"data.columns names the columns of a table (.csv, .csv.gz, .parquet); {path} has "
            "those of `lightning collect`"
        )
    elif path.is_dir():
        from sepsis_rl.data.minari_folders import read_minari

        data = read_minari(path)
    else:
        data = Transitions.load(path)
    if mdp is None:
        check_rules(data, n_states, n_actions, survival=True, where=path)
        return data
    origin, what = data.provenance, str(path)
    if is_table(path):
        what = f"{path} (of ICU-Sepsis, since data.n_states and data.n_actions are not given)"
    elif origin.environment_id != mdp.environment_id:
        raise InputError(
            f"{path}: it was recorded in {origin.environment_id}; accepted is "
            f"{mdp.environment_id}, or data.n_states and data.n_actions for states of its own"
        )
    elif origin.environment_version != mdp.environment_version:
        rank_zero_warn(
            f"{path} was recorded in version {origin.environment_version} of "
            f"{origin.environment_id}; installed is {mdp.environment_version}"
        )
    check_rules(data, n_states, n_actions, terminal=mdp.terminal, rewards=mdp.rewards, where=what)
    return data


def split_episodes(
    data: Transitions, shares: tuple[float, float], seed: int, where: Path
) -> tuple[Transitions, Transitions, Transitions]:
    """Sets shares of episodes aside, chosen at random.

    Args:
        data: The episodes.
        shares: To hold out, and to report from.
        seed: Of the choice.
        where: What an error calls the data.

    Returns:
        Training, held-out and report episodes.

    Raises:
        InputError: A part would be empty.
    """
    n = data.n_episodes
    n_held_out, n_report = (round(share * n) for share in shares)
    if min(n_held_out, n_report, n - n_held_out - n_report) < 1:
        raise InputError(
            f"data.held_out_share={shares[0]} and data.report_share={shares[1]} of the {n:,} "
            f"episodes of {where} hold out {n_held_out:,} and {n_report:,}; each part and the rest "
            "need one"
        )
    order = uniform(seed, _SPLIT, torch.arange(n)).argsort(stable=True).numpy()
    part = np.zeros(n, dtype=np.int64)
    part[order[:n_held_out]] = 1
    part[order[n_held_out : n_held_out + n_report]] = 2
    train, held_out, report = (data.select_episodes(part == index) for index in range(3))
    return train, held_out, report


class SimulatedEpisodes:
    """Episodes of ICU-Sepsis, simulated on first use and kept in a folder.

    Args:
        policy: Behavior policy.
        folder: Where the files are.
    """

    def __init__(self, policy: PolicyName, folder: Path) -> None:
        self.policy = policy
        self.folder = folder

    def path(self, episodes: int, seed: int) -> Path:
        """The file of so many episodes of a seed."""
        mdp = load_icu_sepsis()
        environment = mdp.environment_id.rsplit("/", 1)[-1].lower()
        name = f"{environment}_{mdp.environment_version}_{self.policy}"
        return self.folder / f"{name}_{episodes}-episodes_seed-{seed}.npz"

    def make(self, episodes: int, seed: int) -> None:
        """Simulates the episodes unless their file is there."""
        path, mdp = self.path(episodes, seed), load_icu_sepsis()
        if not path.exists():
            policy = behavior_policy(mdp, self.policy)
            # Another run may have written it meanwhile: the same bytes, so replacing is safe.
            collect(mdp, policy, episodes=episodes, seed=seed).save(path, overwrite=True)

    def read(self, episodes: int, seed: int) -> Transitions:
        """Reads the episodes; those without a file are simulated in memory.

        Raises:
            InputError: The file is damaged, or holds other episodes than its name promises.
        """
        path, mdp = self.path(episodes, seed), load_icu_sepsis()
        if not path.exists():
            return collect(mdp, behavior_policy(mdp, self.policy), episodes=episodes, seed=seed)
        data = read_episodes(path, {}, mdp, mdp.n_states, mdp.n_actions)
        name, held = behavior_policy(mdp, self.policy).name, data.provenance
        if (held.policy, held.episodes, held.seed) != (name, episodes, seed):
            raise InputError(
                f"{path}: its name promises {episodes:,} episodes of {name} with seed {seed}, and "
                f"it holds {data!r}; remove it, and it is collected again"
            )
        return data

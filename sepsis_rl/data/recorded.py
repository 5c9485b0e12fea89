"""The episodes of a run: to train on, to select by, to report from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sepsis_rl.data.collection import POLICIES, PolicyName
from sepsis_rl.data.records import SimulatedEpisodes, read_episodes, split_episodes
from sepsis_rl.data.transitions import Transitions
from sepsis_rl.dynamics import Counts
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray, TabularMDP, load_icu_sepsis

HELD_OUT_SEED_OFFSET: Final = 1_000_000
"""How far the seed of the held-out episodes lies from that of the training episodes."""
REPORT_SEED_OFFSET: Final = 2_000_000
"""How far the seed of the report's episodes lies from that of the training episodes."""


class RecordedEpisodes:
    """Recorded episodes in three disjoint sets: to train on, to select by, to report from.

    `train` is learned from. `held_out` judges what is learned (`val/loss`, `ope/...`), so a
    checkpoint, a member or a run may be chosen by it. `report` has chosen nothing: the figures that
    a run ends with come from it.

    Without a `path`, the sets are simulated on first use and cached, each with its own seed. With a
    `path`, shares of the file's episodes are set aside, never part of one.

    Records of other patients than the simulator's have states and actions of their own, numbered
    from 0: `n_states` and `n_actions` say how many, and rewards that are survival: 0, but 1 at the
    end of an episode that was survived. What needs the simulator's truth is then left out.

    Args:
        path: A file written by `lightning collect` or `Transitions.save`, a table (.csv, .csv.gz,
            .parquet) as `read_table` takes it, or the folder of a Minari data set; None simulates.
        columns: Names of a table's columns, such as {episode: stay_id, observation: cluster}, where
            they differ.
        n_states: Number of states, where they are not ICU-Sepsis's.
        n_actions: Number of actions, where they are not ICU-Sepsis's.
        policy: Behavior policy of the simulation.
        episodes: Simulated episodes to train on.
        seed: Seed of the simulated training episodes.
        held_out_episodes: Simulated episodes to hold out.
        held_out_seed: Seed of the simulated held-out episodes, or of the choice among a file's.
            None: `seed` + 1,000,000.
        held_out_share: Share of a file's episodes to hold out, between 0 and 1.
        report_episodes: Simulated episodes to report from.
        report_seed: Seed of the simulated report episodes. None: `seed` + 2,000,000. Those of a
            file are chosen along with the held-out ones.
        report_share: Share of a file's episodes to report from, between 0 and 1.
        cache_dir: Folder of the simulated episodes.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        path: str | None = None,
        columns: dict[str, str] | None = None,
        n_states: int | None = None,
        n_actions: int | None = None,
        policy: PolicyName = "clinician",
        episodes: int = 5000,
        seed: int = 42,
        held_out_episodes: int = 1000,
        held_out_seed: int | None = None,
        held_out_share: float = 0.2,
        report_episodes: int = 1000,
        report_seed: int | None = None,
        report_share: float = 0.2,
        cache_dir: str = "data",
    ) -> None:
        super().__init__()
        self.path = None if path is None else Path(path)
        self.columns: Mapping[str, str] = columns or {}
        self._sizes = _check_sizes(path, columns, n_states, n_actions)
        self.policy = policy
        self.episodes = episodes
        self.seed = seed
        self.held_out_episodes = held_out_episodes
        self.held_out_seed = seed + HELD_OUT_SEED_OFFSET if held_out_seed is None else held_out_seed
        self.held_out_share = held_out_share
        self.report_episodes = report_episodes
        self.report_seed = seed + REPORT_SEED_OFFSET if report_seed is None else report_seed
        self.report_share = report_share
        self.cache_dir = Path(cache_dir)
        self._simulator = SimulatedEpisodes(policy, self.cache_dir)
        self._episodes: tuple[Transitions, Transitions, Transitions] | None = None
        self._check_sets()

    def _check_sets(self) -> None:
        for name, least in (
            ("episodes", 1),
            ("seed", 0),
            ("held_out_episodes", 1),
            ("held_out_seed", 0),
            ("report_episodes", 1),
            ("report_seed", 0),
        ):
            if not least <= getattr(self, name) < 2**63:
                raise InputError(
                    f"data.{name}={getattr(self, name)} cannot be used: give an integer from "
                    f"{least} to 2**63 - 1"
                )
        shares = (self.held_out_share, self.report_share)
        for name, share in zip(("held_out_share", "report_share"), shares, strict=True):
            if not 0 < share < 1:
                raise InputError(
                    f"data.{name}={share} cannot be used: give a share above 0 and below 1"
                )
        if sum(shares) >= 1:
            raise InputError(
                f"data.held_out_share={shares[0]} and data.report_share={shares[1]} leave "
                "nothing to train on; together they are below 1"
            )
        if self.policy not in POLICIES:
            raise InputError(
                f"data.policy={self.policy} cannot be used: give one of {', '.join(POLICIES)}"
            )
        seeds = (self.seed, self.held_out_seed, self.report_seed)
        if self.path is None and len(set(seeds)) < 3:
            raise InputError(
                "data.seed={}, data.held_out_seed={} and data.report_seed={} must differ: two sets "
                "would be the same episodes".format(*seeds)
            )

    @property
    def mdp(self) -> TabularMDP | None:
        """Tables of the environment that the data were recorded in; None where there is none."""
        return load_icu_sepsis() if self._sizes is None else None

    def require_mdp(self, what: str) -> TabularMDP:
        """The environment's tables, for what cannot be done without them.

        Raises:
            InputError: The data are of states of their own.
        """
        if self.mdp is None:
            raise InputError(
                f"{what} needs the simulator, and {self.path} has states of its own "
                "(data.n_states), of which no truth is known"
            )
        return self.mdp

    @property
    def n_states(self) -> int:
        """Number of states."""
        return load_icu_sepsis().n_states if self._sizes is None else self._sizes[0]

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return load_icu_sepsis().n_actions if self._sizes is None else self._sizes[1]

    @property
    def start(self) -> FloatArray:
        """Distribution of first states, (n_states,): the environment's, or the training data's."""
        if self.mdp is not None:
            return self.mdp.start
        first = self.train.observation[self.train.step == 0]
        return np.bincount(first, minlength=self.n_states) / len(first)

    @property
    def train(self) -> Transitions:
        """Episodes to learn from."""
        return self._loaded[0]

    @property
    def held_out(self) -> Transitions:
        """Episodes that nothing learns from, to choose by."""
        return self._loaded[1]

    @property
    def report(self) -> Transitions:
        """Episodes that nothing learns from and nothing is chosen by."""
        return self._loaded[2]

    @cached_property
    def counts(self) -> Counts:
        """`train` added up: what dynamics are estimated from."""
        return self.train.counts(self.n_states, self.n_actions)

    @property
    def pair_counts(self) -> npt.NDArray[np.int64]:
        """How often each action was taken in each state in `train`, (n_states, n_actions)."""
        return self.counts.pairs.astype(np.int64)

    @property
    def content_hash(self) -> str:
        """SHA-256 over the columns of `train` and `held_out`, in hexadecimal."""
        both = f"{self.train.content_hash} {self.held_out.content_hash}"
        return hashlib.sha256(both.encode()).hexdigest()

    @property
    def _loaded(self) -> tuple[Transitions, Transitions, Transitions]:
        if self._episodes is None:
            raise RuntimeError("the data are not loaded yet; call prepare_data() and setup()")
        return self._episodes

    def make(self) -> None:
        """Writes simulated episodes that have no file yet.

        Raises:
            InputError: The cache cannot be written to.
        """
        if self.path is None:
            for episodes, seed in self._simulated:
                self._simulator.make(episodes, seed)

    def load(self) -> None:
        """Reads and checks the episodes, once, and writes nothing.

        Raises:
            InputError: The file is missing, they break a rule, or cannot be split as asked.
        """
        if self._episodes is None:
            self._episodes = self._read()

    @property
    def _simulated(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Number of episodes and seed: to train on, held out, to report from."""
        return (
            (self.episodes, self.seed),
            (self.held_out_episodes, self.held_out_seed),
            (self.report_episodes, self.report_seed),
        )

    def _read(self) -> tuple[Transitions, Transitions, Transitions]:
        if self.path is not None:
            if not (self.path.is_file() or (self.path / "metadata.json").is_file()):
                what = "it is no file" if self.path.exists() else "there is no such file"
                what = "it is a folder, and no Minari data set" if self.path.is_dir() else what
                raise InputError(f"data.path={self.path}: {what}")
            data = read_episodes(self.path, self.columns, self.mdp, self.n_states, self.n_actions)
            shares = (self.held_out_share, self.report_share)
            return split_episodes(data, shares, self.held_out_seed, self.path)
        train, held_out, report = (self._simulator.read(*which) for which in self._simulated)
        return train, held_out, report


def _check_sizes(
    path: str | None, columns: Mapping[str, str] | None, n_states: int | None, n_actions: int | None
) -> tuple[int, int] | None:
    """Numbers of states and actions of a table's own; None for ICU-Sepsis's."""
    for name, value, least in (("n_states", n_states, 1), ("n_actions", n_actions, 2)):
        if value is not None and not least <= value < 2**31:
            raise InputError(
                f"data.{name}={value} cannot be used: give an integer from {least} to 2**31 - 1"
            )
    if (n_states is None) != (n_actions is None):
        raise InputError(
            f"data.n_states={n_states} and data.n_actions={n_actions} cannot be used: give "
            "both, or for ICU-Sepsis neither"
        )
    if path is None and (n_states is not None or columns):
        raise InputError(
            "data.n_states, data.n_actions and data.columns describe a table: give data.path "
            "as well"
        )
    return None if n_states is None or n_actions is None else (n_states, n_actions)

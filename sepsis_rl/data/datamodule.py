"""Feeding transitions to a population: `OfflineDataModule`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from sepsis_rl.data.batches import (
    AddressedBatches,
    HeldOutBatches,
    TransitionTable,
    check_batch_size,
)
from sepsis_rl.data.collection import POLICIES, PolicyName, behavior_policy, collect
from sepsis_rl.data.tables import is_table, read_table
from sepsis_rl.data.transitions import Transitions
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray, TabularMDP, load_icu_sepsis
from sepsis_rl.randomness import uniform

HELD_OUT_SEED_OFFSET: Final = 1_000_000
"""How far the seed of the held-out episodes lies from that of the training episodes."""
REPORT_SEED_OFFSET: Final = 2_000_000
"""How far the seed of the report's episodes lies from that of the training episodes."""

# A word of the split's address; the streams in randomness.py count from 1.
_SPLIT = 0


class OfflineDataModule(pl.LightningDataModule):
    """Recorded episodes in three disjoint sets: to train on, to select by, to report from.

    `train` is learned from. `held_out` judges what is learned (`val/loss`, `ope/...`), so a
    checkpoint, a member or a run may be chosen by it. `report` has chosen nothing: the figures that
    a run ends with come from it.

    Without a `path`, the sets are simulated on first use and cached, each with its own seed. With a
    `path`, shares of the file's episodes are set aside, never part of one. The rows live on the
    training device and batches are gathered there; there are no worker processes.

    Records of other patients than the simulator's have states and actions of their own, numbered
    from 0: `n_states` and `n_actions` say how many, and rewards that are survival: 0, but 1 at the
    end of an episode that was survived. What needs the simulator's truth is then left out.

    Args:
        path: A file written by `lightning collect` or `Transitions.save`, or a table (.csv,
            .csv.gz, .parquet) as `read_table` takes it; None simulates.
        columns: A table's names of the columns, such as {episode: stay_id, observation: cluster},
            where they differ.
        n_states: Number of states, where they are not ICU-Sepsis's.
        n_actions: Number of actions, likewise.
        policy: Behavior policy of the simulation.
        episodes: Simulated episodes to train on.
        seed: Of the simulated training episodes.
        held_out_episodes: Simulated episodes to hold out.
        held_out_seed: Of the simulated held-out episodes, or of the choice of those of a file.
            None: `seed` + 1,000,000.
        held_out_share: Share of a file's episodes to hold out, between 0 and 1.
        report_episodes: Simulated episodes to report from.
        report_seed: Of those; None: `seed` + 2,000,000. The report's episodes of a file are chosen
            along with the held-out ones.
        report_share: Share of a file's episodes to report from, between 0 and 1.
        batch_size: Rows of a gradient step, over all devices.
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
        batch_size: int = 256,
        cache_dir: str = "data",
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("episodes", episodes, 1),
            ("seed", seed, 0),
            ("held_out_episodes", held_out_episodes, 1),
            ("held_out_seed", held_out_seed, 0),
            ("report_episodes", report_episodes, 1),
            ("report_seed", report_seed, 0),
            ("batch_size", batch_size, 1),
            ("n_states", n_states, 1),
            ("n_actions", n_actions, 2),
        ):
            if value is not None and value < least:
                raise InputError(
                    f"data.{name}={value} cannot be used: give an integer from {least} upward"
                )
        for name, share in (("held_out_share", held_out_share), ("report_share", report_share)):
            if not 0 < share < 1:
                raise InputError(
                    f"data.{name}={share} cannot be used: give a share above 0 and below 1"
                )
        if held_out_share + report_share >= 1:
            raise InputError(
                f"data.held_out_share={held_out_share} and data.report_share={report_share} leave "
                "nothing to train on; together they are below 1"
            )
        if policy not in POLICIES:
            raise InputError(
                f"data.policy={policy} cannot be used: give one of {', '.join(POLICIES)}"
            )
        if held_out_seed is None:
            held_out_seed = seed + HELD_OUT_SEED_OFFSET
        if report_seed is None:
            report_seed = seed + REPORT_SEED_OFFSET
        if path is None and len({seed, held_out_seed, report_seed}) < 3:
            raise InputError(
                f"data.seed={seed}, data.held_out_seed={held_out_seed} and data.report_seed="
                f"{report_seed} must differ: two sets would be the same episodes"
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
        self.path = None if path is None else Path(path)
        self.columns: Mapping[str, str] = columns or {}
        self._sizes = None if n_states is None or n_actions is None else (n_states, n_actions)
        self.policy = policy
        self.episodes = episodes
        self.seed = seed
        self.held_out_episodes = held_out_episodes
        self.held_out_seed = held_out_seed
        self.held_out_share = held_out_share
        self.report_episodes = report_episodes
        self.report_seed = report_seed
        self.report_share = report_share
        self.batch_size = batch_size
        self.cache_dir = Path(cache_dir)
        self._episodes: tuple[Transitions, Transitions, Transitions] | None = None

    # -- what there is after `setup` -----------------------------------------------------------

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

    @property
    def pair_counts(self) -> npt.NDArray[np.int64]:
        """How often each action was taken in each state in `train`, (n_states, n_actions)."""
        return self.train.pair_counts(self.n_states, self.n_actions)

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

    # -- Lightning's hooks ---------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Simulates what is not cached yet; Lightning calls it in one process of a machine.

        That process loads and checks the data at once: before `setup`, Lightning makes the folder
        of the run, which data that cannot be used should not leave behind.

        Raises:
            InputError: The file is missing or breaks a rule, or the cache folder cannot be written
                to.
        """
        if self.path is None:
            for episodes, seed in self._simulated:
                path = self._cache_path(episodes, seed)
                if not path.exists():
                    mdp = load_icu_sepsis()
                    policy = behavior_policy(mdp, self.policy)
                    data = collect(mdp, policy, episodes=episodes, seed=seed)
                    # Another run may have written it meanwhile: the same bytes, so replacing is
                    # safe.
                    data.save(path, overwrite=True)
        elif not self.path.is_file():
            raise InputError(f"data.path={self.path}: there is no such file")
        if self._episodes is None:
            self._episodes = self._load()

    def setup(self, stage: str | None = None) -> None:
        """Loads and checks the data and moves them to the training device.

        Raises:
            InputError: The data break a rule, or cannot be split as asked.
        """
        _, world_size, device = self._place()
        if stage == "fit":
            check_batch_size(self.batch_size, world_size)
        if self._episodes is None:
            self._episodes = self._load()
        if len(self.held_out) < world_size:
            raise InputError(
                f"{len(self.held_out)} held-out rows cannot be split over {world_size} processes; "
                "hold out more"
            )
        self._train_table = TransitionTable(self.train, device)
        self._held_out_table = TransitionTable(self.held_out, device)

    def train_dataloader(self) -> AddressedBatches:
        """Batches for the members of the module that is trained, from the trainer's step onward."""
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("train_dataloader needs a Trainer; without one use AddressedBatches")
        rank, world_size, _ = self._place()
        seeds = trainer.lightning_module.member_seeds
        assert isinstance(seeds, Tensor)
        return AddressedBatches(
            self._train_table,
            seeds,
            self.batch_size,
            # The step is read when the iteration begins, which is after a checkpoint is restored.
            # Counting batches here instead would count the one that Lightning reads ahead.
            first=lambda: trainer.global_step * trainer.accumulate_grad_batches,
            rank=rank,
            world_size=world_size,
        )

    def val_dataloader(self) -> HeldOutBatches:
        """The held-out rows."""
        rank, world_size, _ = self._place()
        return HeldOutBatches(self._held_out_table, rank, world_size)

    def test_dataloader(self) -> HeldOutBatches:
        """The held-out rows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Tensor:
        """All states in one batch: iterating over (1, n_states) yields it."""
        # A list would be taken for a list of loaders, and the tensor in it for a loader of scalars.
        _, _, device = self._place()
        return torch.arange(self.n_states, device=device).unsqueeze(0)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Batches are made on the device, so there is nothing to do."""
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Names the data for the checkpoint."""
        return {"content_hash": self.content_hash}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warns where the checkpoint was trained on other data."""
        if state_dict["content_hash"] != self.content_hash:
            rank_zero_warn(
                "the checkpoint was trained on other data than these: content hash "
                f"{state_dict['content_hash'][:12]} there, {self.content_hash[:12]} here "
                f"({self.train!r})"
            )

    # -- loading -------------------------------------------------------------------------------

    def _place(self) -> tuple[int, int, torch.device]:
        """This process, the number of processes, and the device of this one."""
        if self.trainer is None:
            return 0, 1, torch.device("cpu")
        trainer = self.trainer
        return trainer.global_rank, trainer.world_size, trainer.strategy.root_device

    @property
    def _simulated(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Number of episodes and seed: to train on, held out, to report from."""
        return (
            (self.episodes, self.seed),
            (self.held_out_episodes, self.held_out_seed),
            (self.report_episodes, self.report_seed),
        )

    def _cache_path(self, episodes: int, seed: int) -> Path:
        mdp = load_icu_sepsis()
        environment = mdp.environment_id.rsplit("/", 1)[-1].lower()
        name = f"{environment}_{mdp.environment_version}_{self.policy}"
        return self.cache_dir / f"{name}_{episodes}-episodes_seed-{seed}.npz"

    def _load(self) -> tuple[Transitions, Transitions, Transitions]:
        if self.path is not None:
            return self._split(self._read(self.path))
        train, held_out, report = (self._read_cached(*simulated) for simulated in self._simulated)
        return train, held_out, report

    def _read(self, path: Path) -> Transitions:
        if is_table(path):
            data = read_table(path, self.columns)
        elif self.columns:
            raise InputError(
                f"data.columns names the columns of a table (.csv, .csv.gz, .parquet); {path} has "
                "those of `lightning collect`"
            )
        else:
            data = Transitions.load(path)
        mdp, origin = self.mdp, data.provenance
        if mdp is None:
            data.validate(self.n_states, self.n_actions, survival=True, where=path)
            return data
        if is_table(path):
            what = f"{path} (of ICU-Sepsis, since data.n_states and data.n_actions are not given)"
        elif origin.environment_id != mdp.environment_id:
            raise InputError(
                f"{path}: it was recorded in {origin.environment_id}; accepted is "
                f"{mdp.environment_id}, or data.n_states and data.n_actions for states of its own"
            )
        else:
            what = str(path)
            if origin.environment_version != mdp.environment_version:
                rank_zero_warn(
                    f"{path} was recorded in version {origin.environment_version} of "
                    f"{origin.environment_id}; installed is {mdp.environment_version}"
                )
        data.validate(
            mdp.n_states, mdp.n_actions, terminal=mdp.terminal, rewards=mdp.rewards, where=what
        )
        return data

    def _read_cached(self, episodes: int, seed: int) -> Transitions:
        path = self._cache_path(episodes, seed)
        data = self._read(path)
        name = behavior_policy(load_icu_sepsis(), self.policy).name
        held = data.provenance
        if (held.policy, held.episodes, held.seed) != (name, episodes, seed):
            raise InputError(
                f"{path}: its name promises {episodes:,} episodes of {name} with seed {seed}, and "
                f"it holds {data!r}; remove it, and it is collected again"
            )
        return data

    def _split(self, data: Transitions) -> tuple[Transitions, Transitions, Transitions]:
        """Sets shares of a file's episodes aside, chosen by the held-out seed."""
        n = data.n_episodes
        n_held_out, n_report = round(self.held_out_share * n), round(self.report_share * n)
        if min(n_held_out, n_report, n - n_held_out - n_report) < 1:
            raise InputError(
                f"data.held_out_share={self.held_out_share} and data.report_share="
                f"{self.report_share} of the {n:,} episodes of {self.path} hold out {n_held_out:,} "
                f"and {n_report:,}; each part and the rest need one"
            )
        order = uniform(self.held_out_seed, _SPLIT, torch.arange(n)).argsort(stable=True).numpy()
        part = np.zeros(n, dtype=np.int64)
        part[order[:n_held_out]] = 1
        part[order[n_held_out : n_held_out + n_report]] = 2
        train, held_out, report = (data.select_episodes(part == index) for index in range(3))
        return train, held_out, report

"""Recorded transitions: the columns, the rules they keep, and their file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sepsis_rl.data.rules import check_rules
from sepsis_rl.dynamics import Counts, count_rows
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write, read_arrays

COLUMNS: Final[dict[str, np.dtype[Any]]] = {
    "episode": np.dtype(np.int64),
    "step": np.dtype(np.int64),
    "observation": np.dtype(np.int64),
    "action": np.dtype(np.int64),
    "reward": np.dtype(np.float32),
    "next_observation": np.dtype(np.int64),
    "terminated": np.dtype(np.bool_),
    "truncated": np.dtype(np.bool_),
}
"""The columns of a data set and their dtypes, in the order of the file."""


@dataclass(frozen=True)
class Provenance:
    """Where transitions come from.

    Attributes:
        environment_id: Environment whose states and actions the indices are, as gymnasium names it.
        environment_version: Version of the package that made the environment.
        policy: Name of the behavior policy.
        seed: Seed of the collection; None for records that were not simulated.
        episodes: Number of episodes.
        source: What was recorded, such as `simulated`, or the name of a hospital's table.
    """

    environment_id: str
    environment_version: str
    policy: str
    seed: int | None
    episodes: int
    source: str

    def to_dict(self) -> dict[str, str | int | None]:
        """The fields by name, as they stand in a file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Provenance:
        """Reads the fields back.

        Raises:
            InputError: A field is missing, unknown or of the wrong type.
        """
        accepted = {"seed": (int, type(None)), "episodes": (int,)}
        names = [field.name for field in dataclasses.fields(cls)]
        if set(fields) != set(names):
            raise InputError(f"provenance has {sorted(fields)}; it takes {sorted(names)}")
        for name in names:
            value = fields[name]
            if not isinstance(value, accepted.get(name, (str,))) or isinstance(value, bool):
                raise InputError(f"provenance: {name} is {value!r}, of the wrong type")
        return cls(**fields)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, repr=False)
class Transitions:
    """Transitions in episode order, as columns of one length.

    Integer columns of other widths and float64 rewards are converted. The arrays are read-only.
    The rules that the values keep are checked by `check_rules`, not here.

    Attributes:
        episode: int64 (n,), which episode a row belongs to; never decreasing.
        step: int64 (n,), counts from 0 within an episode, in steps of the environment.
        observation: int64 (n,), state index.
        action: int64 (n,), action index.
        reward: float32 (n,).
        next_observation: int64 (n,), state index.
        terminated: bool (n,), the episode ended in `next_observation`.
        truncated: bool (n,), the record stops there though the episode might have gone on.
        provenance: Where the rows come from.

    Raises:
        InputError: A column is not one-dimensional, of another length or of the wrong kind.
    """

    episode: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64]
    observation: npt.NDArray[np.int64]
    action: npt.NDArray[np.int64]
    reward: npt.NDArray[np.float32]
    next_observation: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    provenance: Provenance

    def __post_init__(self) -> None:
        """Converts the columns and makes them read-only."""
        shape = np.shape(self.episode)[:1]
        for name, dtype in COLUMNS.items():
            given = np.asarray(getattr(self, name))
            if not _is_convertible(given.dtype, dtype):
                raise InputError(f"column {name} is {given.dtype}; it takes {dtype}")
            if given.ndim != 1 or given.shape != shape:
                raise InputError(
                    f"column {name} has shape {given.shape}; columns have one dimension and one "
                    "length"
                )
            with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused later
                column = np.ascontiguousarray(given, dtype=dtype).view()
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.episode)

    def __repr__(self) -> str:
        """Size and origin in a line."""
        origin = self.provenance
        seed = "" if origin.seed is None else f", seed {origin.seed}"
        return (
            f"Transitions({len(self):,} rows, {self.n_episodes:,} episodes of {origin.policy} in "
            f"{origin.environment_id} {origin.environment_version}{seed}, {origin.source})"
        )

    # -- episodes ------------------------------------------------------------------------------

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """The first row of each episode."""
        is_first = np.ones(len(self), dtype=np.bool_)
        is_first[1:] = self.episode[1:] != self.episode[:-1]
        return np.flatnonzero(is_first)

    @property
    def n_episodes(self) -> int:
        """Number of episodes."""
        return len(self._starts)

    def returns(self) -> npt.NDArray[np.float64]:
        """Undiscounted sum of each episode's rewards, (n_episodes,)."""
        if len(self) == 0:
            return np.zeros(0)
        return np.add.reduceat(self.reward.astype(np.float64), self._starts)

    def select_episodes(self, episodes: npt.ArrayLike) -> Transitions:
        """Keeps whole episodes, in their order and with their ids.

        Args:
            episodes: Mask (n_episodes,) of bool, or the ids to keep.

        Returns:
            The chosen episodes.

        Raises:
            InputError: The mask has another length, or there is no episode of an id.
        """
        ids = self.episode[self._starts]
        chosen = np.asarray(episodes)
        if chosen.dtype == np.bool_:
            if chosen.shape != ids.shape:
                raise InputError(f"a mask of shape {chosen.shape} for {len(ids)} episodes")
            keep = chosen
        else:
            unknown = np.setdiff1d(chosen, ids)
            if unknown.size:
                raise InputError(f"there is no episode {unknown[0]} among {self!r}")
            keep = np.isin(ids, chosen)
        rows = np.repeat(keep, np.diff(self._starts, append=len(self)))
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return Transitions(
            **columns,
            provenance=dataclasses.replace(self.provenance, episodes=int(keep.sum())),
        )

    # -- counts --------------------------------------------------------------------------------

    def counts(self, n_states: int, n_actions: int) -> Counts:
        """Adds the transitions up: what dynamics are estimated from.

        Args:
            n_states: Number of states.
            n_actions: Number of actions.
        """
        return count_rows(
            observation=self.observation,
            action=self.action,
            reward=self.reward,
            next_observation=self.next_observation,
            terminated=self.terminated,
            is_first=self.step == 0,
            n_states=n_states,
            n_actions=n_actions,
        )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the columns, in hexadecimal; provenance is not part of it."""
        digest = hashlib.sha256()
        for name, dtype in COLUMNS.items():
            digest.update(f"{name} {dtype.name} {len(self)}\n".encode())
            digest.update(getattr(self, name).astype(dtype.newbyteorder("<"), copy=False).data)
        return digest.hexdigest()

    # -- files ---------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes a `.npz` file without pickle: the columns, provenance and content hash.

        The same transitions give the same bytes. The file is written beside its place and renamed,
        so a reader meets all of it or nothing.

        Args:
            path: Where to; folders are created.
            overwrite: Whether a file in that place is replaced.

        Raises:
            InputError: The place is taken, or cannot be written to.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists; give another name or remove it first")
        fields = {**self.provenance.to_dict(), "content_hash": self.content_hash}
        arrays = {name: getattr(self, name) for name in COLUMNS}
        arrays["provenance"] = np.array(json.dumps(fields, sort_keys=True))
        try:
            with atomic_write(path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> Transitions:
        """Reads what `save` wrote and checks every rule that needs no tables.

        Args:
            path: The file.

        Returns:
            The transitions.

        Raises:
            InputError: There is no such file, it cannot be read as a data set, or a rule is broken.
        """
        arrays = read_arrays(path, "a data set as `lightning collect` writes it")
        try:
            if set(arrays) != {*COLUMNS, "provenance"}:
                raise InputError(
                    f"it has {sorted(arrays)}; it takes {sorted([*COLUMNS, 'provenance'])}"
                )
            fields = json.loads(str(arrays.pop("provenance")))
            if not isinstance(fields, dict):
                raise InputError("provenance is a JSON object")
            content_hash = fields.pop("content_hash", None)
            transitions = cls(**arrays, provenance=Provenance.from_dict(fields))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path} cannot be read as a data set: its provenance is no JSON"
            ) from error
        check_rules(transitions, where=path)
        if transitions.content_hash != content_hash:
            raise InputError(f"{path}: its columns do not match its content hash; it is damaged")
        return transitions


def _is_convertible(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether a column keeps its meaning in the dtype wanted."""
    if wanted.kind == "i":
        return given.kind in "iu" and np.can_cast(given, wanted)
    return given.kind == wanted.kind

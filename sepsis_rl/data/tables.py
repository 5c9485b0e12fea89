"""Tables made elsewhere: a hospital's CSV or Parquet of discretized states as `Transitions`."""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from sepsis_rl.data.rules import name_rows
from sepsis_rl.data.transitions import COLUMNS, Provenance, Transitions
from sepsis_rl.display import tell
from sepsis_rl.errors import InputError
from sepsis_rl.files import refuse_beyond_memory

REQUIRED: Final = ("episode", "observation", "action", "reward")
"""Columns that a table must have; the others follow from them."""

_LARGEST = 2**53  # what a float of a table still tells apart


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> Transitions:
    """Reads a table with a row for each decision, the rows of an episode together and in order.

    What a table need not have is derived: `step` counts the rows of an episode, `next_observation`
    is the observation of the following row, and an episode ends, `terminated`, with its last row
    unless `truncated` says that it was cut off there. An episode's last `next_observation` may be
    missing. It is then the row's own observation, which a terminated row never uses; a row that was
    cut off there is left out, since nobody knows what its decision led to, and the row before it
    is the one that was cut off.

    Args:
        path: A CSV or Parquet file.
        columns: The table's name for each of this project's names, where they differ.

    Returns:
        The rows; episodes are numbered in their order, whatever the table calls them. The rules of
        `check_rules` are not checked here.

    Raises:
        InputError: The file cannot be read, lacks a column, or has a value of the wrong kind.
    """
    columns = columns or {}
    frame = _read(path, columns.get("episode", "episode"))
    names = _names(path, list(frame.columns), columns)
    given = {name: frame[column] for name, column in names.items()}
    if len(frame) == 0:
        raise InputError(f"{path}: it has no rows; a data set holds at least one episode")

    rows = _derived(given, path)
    return Transitions(
        **rows,
        provenance=Provenance(
            environment_id="table",
            environment_version="",
            policy="recorded",
            seed=None,
            episodes=len(np.unique(rows["episode"])),
            source=path.name,
        ),
    )


def _derived(given: Mapping[str, pd.Series], path: Path) -> dict[str, npt.NDArray[Any]]:
    """All columns of transitions, of those that a table has."""
    episode = _episodes(given["episode"], path)
    is_last = np.append(episode[1:] != episode[:-1], True)
    observation = _integers(given["observation"], path)
    if "step" in given:
        step = _integers(given["step"], path)
    else:
        starts = np.flatnonzero(np.append(True, is_last[:-1]))
        step = np.arange(len(episode)) - np.repeat(starts, np.diff(starts, append=len(episode)))
    ended = {
        name: _booleans(given[name], path) for name in ("terminated", "truncated") if name in given
    }
    terminated = ended.get("terminated", is_last & ~ended.get("truncated", ~is_last))
    truncated = ended.get("truncated", is_last & ~terminated)
    following, is_missing = _next_observation(given, observation, is_last, path)
    unknown = is_missing & truncated & ~terminated
    truncated |= np.append(unknown[1:], False) & ~is_last
    rows: dict[str, npt.NDArray[Any]] = {
        "episode": episode,
        "step": step,
        "observation": observation,
        "action": _integers(given["action"], path),
        "reward": _rewards(given["reward"], path),
        "next_observation": following,
        "terminated": terminated,
        "truncated": truncated,
    }
    if unknown.any():
        tell(
            f"Note: {path}: stays that were cut off without a next_observation: "
            f"{int(unknown.sum()):,}. The last decision of each is left out, since what it led to "
            "is not recorded",
            error=True,
        )
        rows = {name: column[~unknown] for name, column in rows.items()}
    return rows


def _next_observation(
    given: Mapping[str, pd.Series],
    observation: npt.NDArray[np.int64],
    is_last: npt.NDArray[np.bool_],
    path: Path,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The column, or else the next row's state; and which last rows have none but their own."""
    if "next_observation" not in given:
        return np.where(is_last, observation, np.roll(observation, -1)), is_last
    column = given["next_observation"]
    is_missing = is_last & np.asarray(column.isna())
    follows = column.astype(object).where(~is_missing, observation)
    return _integers(follows, path), is_missing


def _rewards(column: pd.Series[Any], path: Path) -> npt.NDArray[np.float32]:
    """The column as float32, which must not take a number beside 0 or 1 for it."""
    values = _numbers(column)
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused later
        rewards = values.astype(np.float32)
    beside = np.isin(rewards, (0, 1)) & (rewards != values)
    _refuse(beside, path, column, "is 0 or 1, and not a number beside it")
    return rewards


def _read(path: Path, episode: str) -> pd.DataFrame:
    """A table with text for names of columns."""
    try:
        refuse_beyond_memory(path, _unpacked_size(path))
        if path.name.lower().endswith(".parquet"):
            frame = pd.read_parquet(path)
            if any(name is not None for name in frame.index.names):
                frame = frame.reset_index(allow_duplicates=True)  # columns that pandas set aside
            header = frame.columns = frame.columns.map(str)
        else:
            header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[
                0
            ]
            with warnings.catch_warnings():
                # Where rows have more fields than the header has names.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                # Names of episodes are text: as numbers 1.1 and 1.10 would be one.
                frame = pd.read_csv(path, low_memory=False, index_col=False, dtype={episode: str})
    except pd.errors.ParserWarning as error:
        raise InputError(f"{path}: its rows have more fields than its header has names") from error
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{path}: Parquet needs pyarrow: pip install 'pyarrow>=16'") from error
    # What a damaged file can raise is the business of two parsers and a decompressor.
    except Exception as error:
        reason = textwrap.shorten(str(error), 300)  # a damaged name can be of any length
        raise InputError(f"{path} cannot be read as a table: {reason}") from error
    twice = [name for name in header[header.duplicated()] if name]
    if twice:  # pandas renames the second
        raise InputError(f"{path}: two columns are named {twice[0]}")
    return frame


def _unpacked_size(path: Path) -> int:
    """Bytes that a compressed table declares; 0 for others, which are as large as they are."""
    name = path.name.lower()
    if name.endswith(".gz"):  # its last four bytes, of sizes below 4 GiB
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(4), "little")
    if name.endswith(".parquet"):
        from pyarrow.parquet import read_metadata

        about = read_metadata(path)
        return sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    return 0


def _names(path: Path, there: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The table's name for each of this project's that it has."""
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise InputError(
            f"data.columns: there is no column {unknown[0]}; accepted: {', '.join(COLUMNS)}"
        )
    names = {name: columns.get(name, name) for name in COLUMNS}
    for name, column in names.items():
        if column not in there and (name in REQUIRED or name in columns):
            raise InputError(
                f"{path}: there is no column {column} for {name}; it has "
                f"{textwrap.shorten(', '.join(there) or 'none', 300)}. data.columns says which is "
                f"which, such as {{{name}: {textwrap.shorten(next(iter(there), 'its name'), 60)}}}"
            )
    found = {name: column for name, column in names.items() if column in there}
    for name, column in found.items():
        others = [other for other in found if found[other] == column and other != name]
        if others:
            raise InputError(f"data.columns: {name} and {others[0]} are both the column {column}")
    return found


def _episodes(column: pd.Series[Any], path: Path) -> npt.NDArray[np.int64]:
    try:
        codes, _ = pd.factorize(column)
    except TypeError as error:  # of lists, such as Parquet may hold
        raise InputError(f"{path}: column {column.name} is a number or a name: {error}") from error
    _refuse(codes < 0, path, column, "names the row's episode")
    return np.asarray(codes, dtype=np.int64)


def _integers(column: pd.Series[Any], path: Path) -> npt.NDArray[np.int64]:
    values = _numbers(column)
    with np.errstate(invalid="ignore"):
        whole = (np.abs(values) <= _LARGEST) & (values == np.floor(values))
    _refuse(~whole, path, column, "is a whole number")
    return values.astype(np.int64)


def _booleans(column: pd.Series[Any], path: Path) -> npt.NDArray[np.bool_]:
    values = _numbers(column)
    _refuse(~np.isin(values, (0, 1)), path, column, "is true or false, or 1 or 0")
    return np.asarray(values == 1)


def _numbers(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """The column's numbers, NaN for what is none."""
    if column.dtype.kind in "mM" or isinstance(
        column.dtype, pd.PeriodDtype
    ):  # of a time pandas would make its nanoseconds
        return np.full(len(column), np.nan)
    numbers = pd.to_numeric(column, errors="coerce")
    return np.asarray(numbers.to_numpy(np.float64, na_value=np.nan))


def _refuse(bad: npt.NDArray[np.bool_], path: Path, column: pd.Series[Any], rule: str) -> None:
    if bad.any():
        value = column.iloc[[bad.argmax()]]
        found = "an empty field" if value.isna().all() else textwrap.shorten(str(value.item()), 60)
        raise InputError(f"{path}: {name_rows(bad)}: column {column.name} {rule}, not {found}")

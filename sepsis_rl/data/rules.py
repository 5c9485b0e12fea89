"""The rules that recorded transitions keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from sepsis_rl.errors import InputError

if TYPE_CHECKING:
    from sepsis_rl.data.transitions import Transitions

_ROWS_SHOWN: Final = 5
Refuse = Callable[[npt.NDArray[np.bool_], str], None]
"""Raises `InputError` if a row is marked, with the rule that it breaks."""


def check_rules(
    rows: Transitions,
    n_states: int | None = None,
    n_actions: int | None = None,
    *,
    terminal: npt.NDArray[np.bool_] | None = None,
    rewards: npt.NDArray[np.floating[Any]] | None = None,
    survival: bool = False,
    where: str | Path = "transitions",
) -> None:
    """Checks the rules of a data set; each of the arguments adds one.

    Args:
        rows: The transitions.
        n_states: Observations lie below it.
        n_actions: Actions lie below it.
        terminal: bool (n_states,), the states in which an episode ends.
        rewards: (n_states,), the reward on entering a state.
        survival: An episode's return is its survival, 0 or 1, paid where it is terminated.
        where: What an error calls the data, such as the name of its file.

    Raises:
        InputError: A rule is broken. The message names `where`, the first bad rows and the rule.
    """
    if len(rows) == 0:
        raise InputError(f"{where}: it has no rows; a data set holds at least one episode")

    def refuse(bad: npt.NDArray[np.bool_], rule: str) -> None:
        if bad.any():
            raise InputError(f"{where}: {name_rows(bad)}: {rule}; {_first_row(rows, bad)}")

    for name, limit in (
        ("observation", n_states),
        ("next_observation", n_states),
        ("action", n_actions),
    ):
        column = getattr(rows, name)
        top = np.iinfo(np.int64).max if limit is None else limit - 1
        refuse((column < 0) | (column > top), f"{name} lies between 0 and {top}")
    refuse(~np.isfinite(rows.reward), "reward is a finite number")

    _check_episodes(rows, refuse)
    if terminal is not None:
        refuse(terminal[rows.observation], "observation is a state that is not terminal")
        refuse(
            rows.terminated != terminal[rows.next_observation],
            "terminated is true where next_observation is a terminal state, and only there",
        )
    if rewards is not None:
        entered = rewards.astype(np.float32)[rows.next_observation]
        refuse(rows.reward != entered, "reward is that of entering next_observation")
    if survival:
        # A row that is cut off goes on: what it pays would be expected of its next state again.
        odd = (rows.reward != 0) & ~(rows.terminated & (rows.reward == 1))
        refuse(odd, "reward is 0, or 1 where a stay that was survived is terminated")
    if rows.provenance.episodes != rows.n_episodes:
        raise InputError(
            f"{where}: its provenance says {rows.provenance.episodes:,} episodes and it holds "
            f"{rows.n_episodes:,}"
        )


def _check_episodes(rows: Transitions, refuse: Refuse) -> None:
    """Checks that rows make up whole episodes, one after the other."""
    # Differences of neighbors are compared, not computed: an id may be as large as int64 goes.
    same = rows.episode[1:] == rows.episode[:-1]
    is_last = np.append(~same, True)
    went_back = np.append(False, rows.episode[1:] < rows.episode[:-1])
    refuse(went_back, "rows stand in the order of their episodes, which do not come back")
    starts = np.flatnonzero(np.append(True, is_last[:-1]))
    expected = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
    refuse(rows.step != expected, "step counts 0, 1, 2, ... within its episode")
    ended = rows.terminated | rows.truncated
    refuse(ended & ~is_last, "an episode ends once, in its last row")
    refuse(~ended & is_last, "the last row of an episode is terminated or truncated")
    broken = np.append(same & (rows.next_observation[:-1] != rows.observation[1:]), False)
    refuse(broken, "next_observation is the observation of the row after it")


def name_rows(bad: npt.NDArray[np.bool_]) -> str:
    """The first of the marked rows, counted from 0, such as `row 3, 7`."""
    rows = np.flatnonzero(bad)
    shown = ", ".join(str(row) for row in rows[:_ROWS_SHOWN])
    more = f", ... ({rows.size:,} rows)" if rows.size > _ROWS_SHOWN else ""
    return f"row {shown}{more}"


def _first_row(rows: Transitions, bad: npt.NDArray[np.bool_]) -> str:
    """What the first of the marked rows holds."""
    first = int(bad.argmax())
    names = ("episode", "step", "observation", "action", "reward", "next_observation")
    values = [f"{name} {getattr(rows, name)[first]}" for name in names]
    values += [name for name in ("terminated", "truncated") if getattr(rows, name)[first]]
    return f"row {first} holds {', '.join(values)}"

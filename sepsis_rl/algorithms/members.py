"""A run is a population: the settings of its members."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sepsis_rl.errors import InputError

Scalars = Mapping[str, float | Sequence[float]]


@dataclass(frozen=True)
class Members:
    """The product of the listed settings, one row per member.

    Attributes:
        settings: For each member, the value of every scalar.
        names: For each member, the scalars that were given as lists, such as `alpha=0.5,seed=42`;
            empty for a single run.
    """

    settings: tuple[dict[str, float], ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of members."""
        return len(self.settings)

    def values(self, scalar: str) -> list[float]:
        """The values of one scalar, a member each."""
        return [setting[scalar] for setting in self.settings]


def expand_members(scalars: Scalars, share: str | None = None) -> Members:
    """Expands lists of values to their product, the last scalar varying fastest.

    Args:
        scalars: Name to value, or to a list of values.
        share: `k/n` takes every n-th member from the k-th on, so that n shares make up all.

    Returns:
        The members. Without any list it is one member with an empty name.

    Raises:
        InputError: A list is empty or names a value twice, or there is no such share.
    """
    listed = [name for name, value in scalars.items() if isinstance(value, Sequence)]
    axes: list[Sequence[float]] = []
    for name, value in scalars.items():
        axis = value if isinstance(value, Sequence) else [value]
        if not axis or len(set(axis)) < len(axis):
            raise InputError(
                f"model.{name}={list(axis)}: a list of settings holds at least one value "
                "and none of them twice"
            )
        axes.append(axis)
    settings = [dict(zip(scalars, values, strict=True)) for values in itertools.product(*axes)]
    names = [
        ",".join(f"{name}={_shortest(setting[name])}" for name in listed) for setting in settings
    ]
    mine = _slice_of(share, len(names))
    return Members(tuple(settings[mine]), tuple(names[mine]))


def _slice_of(share: str | None, members: int) -> slice:
    if share is None:
        return slice(None)
    match = re.fullmatch(r"(\d+)/(\d+)", str(share))
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= members:
        raise InputError(
            f"model.share={share} cannot be used: give k/n, such as 1/3, with k from 1 to n and n "
            f"at most the number of members, {members}"
        )
    return slice(int(match[1]) - 1, None, int(match[2]))


def _shortest(value: float) -> str:
    """A number as text that no other number shares."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)

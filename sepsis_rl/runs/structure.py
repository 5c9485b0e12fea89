"""What nested values consist of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_DEPTH: Final = 8  # a value that was read from a file may hold itself


def has_entries(value: Any, types: Mapping[str, type], optional: bool = False) -> bool:
    """Whether a value is a dictionary with entries of these types.

    Args:
        value: Anything.
        types: Name to type.
        optional: An entry may be missing.
    """
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) or (optional and name not in value)
        for name, kind in types.items()
    )


def is_plain(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a value consists of numbers, texts and None, in lists and under names.

    Args:
        value: Anything.
        depth: How far it may be nested.
    """
    if isinstance(value, dict):
        named = all(isinstance(name, str) for name in value)
        return named and depth > 0 and all(is_plain(part, depth - 1) for part in value.values())
    if isinstance(value, list | tuple):
        return depth > 0 and all(is_plain(part, depth - 1) for part in value)
    return value is None or isinstance(value, int | float | str)


def is_alike(value: Any, other: Any, loose: bool = False) -> bool:
    """Whether a value has the keys, types and shapes of another.

    Args:
        value: Anything.
        other: What it is compared with, nested dictionaries.
        loose: The other is of a beginning, when nothing may be known yet: None and an empty
            dictionary stand for all that comes later, and one number for any other.
    """
    if isinstance(other, dict):
        return (
            isinstance(value, dict)
            and (value.keys() == other.keys() or (loose and not other))
            and all(is_alike(value[name], part, loose) for name, part in other.items())
        )
    if loose and (other is None or isinstance(other, int | float)):
        return other is None or isinstance(value, int | float)
    same_shape = getattr(value, "shape", None) == getattr(other, "shape", None)
    return type(value) is type(other) and same_shape

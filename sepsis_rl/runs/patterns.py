"""Whether nested values are as they should be."""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Any, Final

from torch import Tensor

WRONG_ENTRY = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What values of another type or structure lead to where they are used."""

_DEPTH: Final = 8  # of plain values, which may hold themselves


def mismatch(value: Any, pattern: Any, place: str = "") -> str | None:
    """Finds where a nested value is not as a pattern has it.

    Args:
        value: Anything.
        pattern: A type; a function that says whether a value will do; a list of one pattern, for
            each item, or a tuple of a pattern for each; or a dictionary of patterns by key, in
            which a name with a question mark may be missing and a type stands for all other keys
            of it.
        place: Where the value stands.

    Returns:
        A place such as `.sepsis_rl.names.0`; None if there is none.
    """
    if isinstance(value, list) and isinstance(pattern, list | tuple):
        parts = {int: pattern[0]} if isinstance(pattern, list) else dict(enumerate(pattern))
        return mismatch(dict(enumerate(value)), parts, place)
    if isinstance(value, dict) and isinstance(pattern, dict):
        needed = [k for k in pattern if not isinstance(k, type) and not str(k).endswith("?")]
        for key in {**value, **dict.fromkeys(needed)}:
            part = pattern.get(key, pattern.get(f"{key}?", pattern.get(type(key))))
            if key not in value or part is None:
                return f"{place}.{key}"
            found = mismatch(value[key], part, f"{place}.{key}")
            if found is not None:
                return found
        return None
    try:
        is_type = isinstance(pattern, type | UnionType)
        fits = isinstance(value, pattern) if is_type else pattern(value)
    except WRONG_ENTRY:
        fits = False
    return None if fits else place


def exactly(value: Any) -> Callable[[Any], bool]:
    """A pattern for one value of one type."""
    return lambda held: type(held) is type(value) and bool(held == value)


def is_count(value: Any) -> bool:
    """Whether it is an integer from 0 on that tensors can hold."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """Whether it is a float, or an integer that tensors can hold."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def is_plain(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a value consists of numbers, texts and None, in lists and under names."""
    if isinstance(value, dict):
        value = [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return depth > 0 and all(is_plain(part, depth - 1) for part in value)
    return value is None or isinstance(value, str) or is_number(value)


def pattern_of(value: Any, loose: bool = False) -> Any:
    """A pattern for all that has the keys, the types and the shapes of another value.

    Args:
        value: Nested dictionaries.
        loose: It is of a beginning: None and an empty dictionary stand for whatever comes later,
            and a number for any other.
    """
    if isinstance(value, dict) and (value or not loose):
        return {name: pattern_of(part, loose) for name, part in value.items()}
    if isinstance(value, Tensor):
        return lambda held: isinstance(held, Tensor) and held.shape == value.shape
    if loose and (value is None or isinstance(value, int | float)):
        return object if value is None else is_number
    return is_count if type(value) is int else type(value)

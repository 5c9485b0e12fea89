"""The door for values: what an option may hold before anything is made of it.

The types of options are checked by the parser. Here is what no type says: what no option can mean,
and what Lightning's options may be, which it takes as they are and fails by later.
"""

from __future__ import annotations

import math
import os
import re
import string
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from sepsis_rl.errors import InputError

_LONGEST: Final = 4096  # of a path on Linux
_MOST_VALUES: Final = 10_000
_LARGEST: Final = 2**40  # of what is counted; beyond it products of two sizes overflow


def _from(least: float) -> Callable[[Any], bool]:
    """Whether a number is at least this; what is no number has been checked by its type."""
    return lambda value: not isinstance(value, int | float) or least <= value < math.inf


def _is_batches(value: Any) -> bool:
    """Whether it is a number of batches, or all; the data has no end to take a share of."""
    return not isinstance(value, float) or value == 1


def _is_template(value: Any) -> bool:
    try:
        list(string.Formatter().parse(str(value)))
    except ValueError:
        return False
    return True


LIMITS: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "checkpoint.filename": ("a name such as {step}", _is_template),
    "checkpoint.mode": ("min or max", ("min", "max").__contains__),
    "checkpoint.save_top_k": ("an integer from -1 upward", _from(-1)),
    **{name: ("a path", lambda value: value != "") for name in ("data.path", "output")},
    "trainer.accumulate_grad_batches": ("an integer from 1 upward", _from(1)),
    "trainer.check_val_every_n_epoch": ("an integer from 1 upward, or null", _from(1)),
    "trainer.gradient_clip_val": ("a number from 0 upward, or null", _from(0)),
    **{
        f"trainer.{name}": ("an integer from 0 upward, or null", _is_batches)
        for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches")
    },
    "trainer.log_every_n_steps": ("an integer from 0 upward", _from(0)),
    "trainer.logger.version": ("an integer from 0 upward, or null", _from(0)),
    "trainer.logger.save_dir": ("a folder", lambda value: value is not None),
    "trainer.max_steps": ("an integer from -1 upward", _from(-1)),
    "trainer.max_time": (
        "days, hours, minutes and seconds such as 00:01:30:00, or null",
        lambda value: value is None or re.fullmatch(r"\d+:\d+:\d+:\d+", str(value)) is not None,
    ),
    "trainer.num_nodes": ("an integer from 1 upward", _from(1)),
    "trainer.overfit_batches": ("an integer from 0 upward", lambda value: float(value) % 1 == 0),
    "trainer.strategy": (
        "auto, ddp or another one that starts the program again for each process",
        lambda value: "spawn" not in str(value) and "fork" not in str(value),
    ),
    "trainer.val_check_interval": ("an integer from 1 upward", _from(1)),
}
"""By the name of an option of Lightning's: what is accepted, and whether a value is."""


def check_values(config: Mapping[str, Any]) -> None:
    """Checks the values of a parsed config or command.

    Args:
        config: Names, or groups of them, to plain values.

    Raises:
        InputError: A value means nothing: it is an integer beyond all use, no number, a text with
            control characters or one that is too long; or it is beyond its option's limits.
    """
    for name, value in _values(config):
        largest = 2**63 if name.endswith("seed") else _LARGEST
        if isinstance(value, int) and not -largest <= value < largest:
            raise InputError(
                f"{name}={str(value)[:24]} cannot be used: give an integer below {largest:,}"
            )
        if isinstance(value, float) and math.isnan(value):
            raise InputError(f"{name}=nan cannot be used: give a number")
        text = str(value) if isinstance(value, str | os.PathLike) else ""
        if len(text) > _LONGEST:
            raise InputError(
                f"{name}={text[:20]}... cannot be used: it has {len(text):,} characters; give "
                f"{_LONGEST:,} at most"
            )
        if not text.isprintable():
            raise InputError(
                f"{name}={text!r} cannot be used: give a text without control characters"
            )
        accepted, holds = LIMITS.get(name, ("", _anything))
        if not holds(value):
            given = value if value != "" else repr("")
            raise InputError(f"{name}={given} cannot be used: give {accepted}")


def check_config(path: Path) -> None:
    """Checks that a file is a config, before the parser reads it.

    Args:
        path: A YAML file.

    Raises:
        InputError: It is no text, no mapping, or a small text that aliases make a huge config of.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        where = " ".join(str(error).split())[:200]
        raise InputError(f"it is no YAML text in UTF-8: {where}") from error
    if not isinstance(config, dict):
        raise InputError("it holds no settings; accepted: a config such as configs/cql.yaml")
    if _size(config, {}) > _MOST_VALUES:
        raise InputError(f"its aliases make more than {_MOST_VALUES:,} values of it")


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values there are, those behind an alias counted each time."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = _MOST_VALUES + 1  # an alias of what it is in has no end
        below = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in below)
    return known[id(value)]


def _anything(value: Any) -> bool:
    return True


def _values(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in nested mappings and lists, by option."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            # The settings of a class are called by its own name.
            yield from _values(value, name if key == "init_args" else f"{name}.{key}".strip("."))
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _values(value, name)
    else:
        yield name, config

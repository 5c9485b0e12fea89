"""What is wrong with a command, in a sentence."""

from __future__ import annotations

import difflib
import re
from argparse import SUPPRESS
from collections.abc import Iterable, Iterator
from typing import Any

from sepsis_rl.errors import InputError


def input_error_behind(error: BaseException | None) -> InputError | None:
    """The `InputError` that an exception was raised from or while handling, if there is one."""
    while error is not None:
        if isinstance(error, InputError):
            return error
        error = error.__cause__ or error.__context__
    return None


def logger_error_behind(error: BaseException) -> InputError | None:
    """What is wrong with a logger, if an exception says that it could not be made."""
    told = re.search(r"class_path 'lightning\.[\w.]*\.(\w+)':\s+(.+)", str(error))
    if told is None or not told[1].endswith("Logger"):
        return None
    install = re.search(r"pip install[^`]+", told[2])
    if install is None:
        return InputError(f"trainer.logger={told[1]} cannot be used: {told[2]}")
    return InputError(f"{told[1]} needs a package that is not installed: {install[0]}")


def explain(message: str, options: Iterable[str]) -> str:
    """Rewrites a message of jsonargparse as what, where and what is accepted.

    Args:
        message: The parser's message.
        options: Names of all options, such as `data.seed`.

    Returns:
        The message in one or two lines; one that is not understood is returned as it is,
        on one line.
    """
    unknown = re.search(r"[Oo]ption '([^']+)'|unrecognized arguments: --([^\s=]+)", message)
    if unknown is not None:
        return _unknown_option(unknown[1] or unknown[2], list(options))
    if re.search(r"arguments are required: (\w+\.)?model$", message):
        return "there is no model: give --config FILE, such as configs/cql.yaml"
    if re.search(r"arguments are required: runs$", message):
        return "the command needs runs, such as runs/sweep/version_0"
    config = re.search(r"^Unexpected config: ?(.*)|File does not exist: '(.*)'$", message)
    if config is not None:
        return f"--config {config[1] or config[2] or repr('')}: there is no such file"
    key = re.search(r'key "([^"]+)"', message)
    subtypes = re.search(r"Subtypes: \[(.*)\]", message)
    value = re.search(r"Given value: (.*)", message) or re.search(r"Got value: (.*)", message)
    expected = re.search(r"Expected an? (.*?)\. Got value", message)
    accepted = subtypes[1] if subtypes is not None else expected[1] if expected else None
    if key is None or value is None or accepted is None:
        return " ".join(message.split())
    return f"{key[1]}={value[1]} cannot be used; accepted: {_plain_types(accepted)}"


def option_names(parser: Any) -> Iterator[str]:
    """Names of the options of a parser and of the commands below it."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for below in action.choices.values():
                yield from option_names(below)
        elif action.option_strings and action.dest != SUPPRESS:
            yield action.dest


def _unknown_option(name: str, options: list[str]) -> str:
    last = name.rsplit(".", 1)[-1]
    by_last = {option.rsplit(".", 1)[-1]: option for option in reversed(options)}
    close = difflib.get_close_matches(last, by_last, n=3, cutoff=0.6)
    near = [by_last[match] for match in close] or difflib.get_close_matches(name, options, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"there is no option '{name}'.{hint} `lightning COMMAND --help` lists what is accepted"


def _plain_types(types: str) -> str:
    types = types.replace("typing.", "").replace("<class 'NoneType'>", "null")
    types = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", types)
    types = re.sub(r"Literal\[([^\]]*)\]", r"\1", types)
    return types.replace("OfflineAlgorithm", "CQL, DQN, BC or another OfflineAlgorithm")

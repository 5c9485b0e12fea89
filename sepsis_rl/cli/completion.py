"""`lightning --print_completion bash`: the script by which a shell completes commands and options.

A command makes its parser when it runs. Here each runs with `ASKED_FOR_PARSER` alone, upon which it
hands its parser over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import shtab
from jsonargparse import ArgumentParser

from sepsis_rl.errors import InputError

ASKED_FOR_PARSER: Final = "\0"  # which no command line can hold

_PATHS: Final = {"runs": shtab.DIRECTORY}
_PATHS.update(dict.fromkeys(("ckpt_path", "output", "data.path", "data.cache_dir"), shtab.FILE))


class HandedOver(Exception):
    """A command's parser, in place of what the command does.

    Args:
        parser: The parser.
    """

    def __init__(self, parser: ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def hand_over_if_asked(parser: ArgumentParser, words: list[str]) -> None:
    """Raises `HandedOver` if a command's words ask for its parser."""
    if ASKED_FOR_PARSER in words:
        raise HandedOver(parser)


def completion_script(
    words: list[str], commands: Iterable[str], run: Callable[[list[str]], Any]
) -> str:
    """The script for a shell.

    Args:
        words: The shell's name.
        commands: All commands.
        run: Runs one of them, with its options.

    Raises:
        InputError: There is no script for such a shell.
    """
    if len(words) != 1 or words[0] not in shtab.SUPPORTED_SHELLS:
        raise InputError(
            f"--print_completion {' '.join(words)}: accepted is one of "
            f"{', '.join(shtab.SUPPORTED_SHELLS)}"
        )
    program = ArgumentParser(prog="lightning", allow_abbrev=False)
    program.add_argument("--version", action="store_true")
    program.add_argument("--print_completion", choices=shtab.SUPPORTED_SHELLS)
    parsers = program.add_subcommands()
    for command in commands:
        try:
            run([command, ASKED_FOR_PARSER])
        except HandedOver as handed:
            for action in handed.parser._actions:
                if action.dest in _PATHS:
                    action.complete = _PATHS[action.dest]  # type: ignore[attr-defined]
            parsers.add_subcommand(command, handed.parser)
    return program.get_completion_script(f"shtab-{words[0]}")

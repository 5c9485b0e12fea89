"""The commands beside Lightning's: their options, and the functions that they call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from sepsis_rl.cli.completion import hand_over_if_asked
from sepsis_rl.cli.help import Option, options_of, print_options
from sepsis_rl.cli.limits import check_values
from sepsis_rl.cli.messages import explain, input_error_behind, option_names
from sepsis_rl.cli.quiet import quiet
from sepsis_rl.display import shown, tell
from sepsis_rl.errors import InputError


def run_command(command: str, words: list[str]) -> None:
    """Runs a command: `select`, `compare`, `report`, `scorecard`, `explore`, `collect`, `export`.

    Args:
        command: Its name.
        words: Its options.

    Raises:
        InputError: What was given cannot be used.
    """
    quiet()
    {
        "select": _select,
        "compare": _compare,
        "report": _report,
        "scorecard": _scorecard,
        "explore": _explore,
        "collect": _collect,
        "export": _export,
    }[command](words)


def _collect(words: list[str]) -> None:
    from sepsis_rl.cli.collecting import collect_into

    parser = _Parser("collect", "Simulate episodes into a file.")
    parser.add_function_arguments(collect_into)
    collect_into(**parser.read(words))


def _export(words: list[str]) -> None:
    from sepsis_rl.runs.members import commands_for, export_member

    parser = _Parser("export", "Take one member out of a sweep's checkpoint.")
    parser.add_function_arguments(export_member)
    options = parser.read(words)
    name, step = export_member(**options)
    tell(f"{shown(options.output)}: member {options.member}, {name}".removesuffix(", "))
    commands = commands_for(options.output, options.ckpt_path, name, step)
    for about, command in zip(("Scores it:", "Goes on:  "), commands, strict=False):
        tell(f"{about} {command}")


def _select(words: list[str]) -> None:
    from sepsis_rl.ope import OffPolicyOptions
    from sepsis_rl.runs.selection import select

    parser = _Parser(
        "select",
        "Choose among checkpoints, members and runs from recorded data alone: compared on the "
        "held-out episodes, told from the report's.",
    )
    parser.add_runs("+")
    parser.add_function_arguments(select, skip={"folders", "options"})
    parser.add_class_arguments(OffPolicyOptions)
    given = parser.read(words)
    options = {field.name: given.pop(field.name) for field in dataclasses.fields(OffPolicyOptions)}
    select(given.pop("runs"), options=OffPolicyOptions(**options), **given)


def _compare(words: list[str]) -> None:
    from sepsis_rl.report.commands import compare

    parser = _Parser(
        "compare",
        "Put the policies of runs side by side: what they are worth, how they differ from the best "
        "by records alone on the same patients, and in which settings the runs differ.",
    )
    parser.call_on_runs(compare, words)


def _report(words: list[str]) -> None:
    from sepsis_rl.report.commands import report

    parser = _Parser(
        "report",
        "Write a page about finished runs, with pictures and tables of every number behind them: "
        "each policy next to the truth where it is known, then the essay's claims and figures.",
    )
    parser.call_on_runs(report, words)


def _scorecard(words: list[str]) -> None:
    from sepsis_rl.scorecard.assembly import scorecard

    parser = _Parser(
        "scorecard",
        "Hold estimates from recorded data against policies of known value, on many simulated "
        "data sets: the runs' policies and built-in ones. Stopped, the same command goes on.",
    )
    parser.add_runs("*")
    parser.add_argument(
        "--episodes", type=str, default="1000,5000,20000", help="Sizes of the data sets."
    )
    parser.add_function_arguments(scorecard, skip={"runs", "episodes"})
    options = parser.read(words)
    sizes = options.pop("episodes")
    try:
        episodes = [int(size) for size in sizes.split(",")]
    except ValueError:
        episodes = [0]
    if not all(0 < size < 2**31 for size in episodes):
        raise InputError(f"--episodes {sizes} cannot be used: give sizes such as 1000,5000,20000")
    scorecard(options.pop("runs"), episodes=episodes, **options)


def _explore(words: list[str]) -> None:
    from sepsis_rl.explorer.assembly import explore

    parser = _Parser(
        "explore",
        "Write one page on the policies of runs that share their records: each state's doses, "
        "values and what follows, and the same patients under clinician and policy.",
    )
    parser.call_on_runs(explore, words)


class _Parser(ArgumentParser):
    """The parser of a command that is not Lightning's.

    Args:
        command: The command's name.
        description: What it does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"lightning {command}", description=description, allow_abbrev=False)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises one message, without a screen of usage."""
        raise input_error_behind(ex) or InputError(explain(message, option_names(self)))

    def read(self, words: list[str]) -> Namespace:
        """Parses the options; asked for help, prints it and ends the program.

        A switch is given by its name alone.
        """
        hand_over_if_asked(self, words)
        if not {"-h", "--help"}.isdisjoint(words):
            self.print_help()  # while it parses, jsonargparse does not know what is required
            self.exit()
        switches = {f"--{a.dest}" for a in self._actions if a.metavar == "{true,false}"}
        options = self.parse_args([f"{w}=true" if w in switches else w for w in words])
        check_values(options.as_dict())
        return options

    def call_on_runs(self, function: Callable[..., None], words: list[str]) -> None:
        """Calls a function on the folders of runs that are named, with its other options."""
        self.add_runs("+")
        self.add_function_arguments(function, skip={"folders"})
        options = self.read(words)
        function(options.pop("runs"), **options)

    def print_help(self, file: Any = None) -> None:
        """Prints the description, and all options with their defaults."""
        positional = [action for action in self._actions if not action.option_strings]
        words = [f"{action.dest.upper()}{' ...' if action.nargs else ''}" for action in positional]
        head = " ".join([str(self.prog), *words, "[OPTIONS]"])
        options = [
            Option(word, "", str(action.help))
            for word, action in zip(words, positional, strict=True)
        ]
        options += options_of(self).values()
        print_options(f"{head}\n\n{self.description}", [("", options)], "")

    def add_runs(self, nargs: str) -> None:
        """Adds the folders of runs that a command reads."""
        self.add_argument(
            "runs", type=str, nargs=nargs, help="Folders of runs, such as runs/sweep/version_0."
        )

"""What `--help` shows: options with their defaults, and a sentence on each.

Names, defaults and sentences are those of the parser, which reads them from signatures and
docstrings.
"""

from __future__ import annotations

import json
import re
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from rich.console import Console

_AS_YAML = {"None": "null", "True": "true", "False": "false"}


@dataclass(frozen=True)
class Option:
    """An option as it is shown.

    Args:
        name: With its dashes.
        default: As it would be written on the command line; empty for none.
        description: A sentence.
    """

    name: str
    default: str
    description: str


class SentenceFormatter(DefaultHelpFormatter):
    """Describes an option in one sentence, without its type: for the comments of a config."""

    def _get_help_string(self, action: Action) -> str:
        return describe(action)


def describe(action: Action) -> str:
    """The first sentence about an option, and what is accepted where that is a few words."""
    text = " ".join((action.help or "").split()).partition(" Default:")[0]
    text = text[:1].upper() + text[1:]
    text = re.sub(r":\w+:`~?(?:\w+\.)*([^`]*)`", r"\1", text).replace("`", "")
    text = re.sub(r"\b(None|True|False)\b", lambda match: _AS_YAML[match[1]], text)
    sentence = re.match(r".*?[.!?](?= [A-Z]|$)", text)
    text = sentence[0] if sentence else text
    choices = re.fullmatch(r"{(\w+(?:,\w+)+)}", str(action.metavar))
    accepted = choices[1].split(",") if choices else ["true"]
    if "true" not in accepted and not all(word in text for word in accepted):
        text += f" One of {', '.join(accepted)}."
    return text


def options_of(parser: ArgumentParser, defaults: Namespace | None = None) -> dict[str, Option]:
    """The options of a parser that hold a value, by key, in the parser's order.

    Args:
        parser: One of jsonargparse's.
        defaults: What stands in place of the parser's own defaults.
    """
    found = {}
    for action in parser._actions:
        if not action.option_strings or SUPPRESS in (action.dest, action.help, action.default):
            continue
        default = action.default if defaults is None else defaults.get(action.dest)
        if isinstance(default, Namespace | dict) and "class_path" not in default:
            continue  # a whole group at once
        description = describe(action) + (" Required." if action.required else "")
        found[action.dest] = Option(f"--{action.dest}", _written(default), description)
    return found


def merged(options: Mapping[str, Mapping[str, Option]]) -> list[Option]:
    """The options of several classes as one list; those that not all have name their classes.

    Args:
        options: Options by key, by the class's name.
    """
    found: dict[str, Option] = {}
    for own in options.values():
        for key, option in own.items():
            owners = [name for name, others in options.items() if key in others]
            if len(owners) < len(options):
                option = replace(option, description=f"{option.description} ({', '.join(owners)})")
            found.setdefault(key, option)
    return list(found.values())


def print_options(head: str, groups: Iterable[tuple[str, Iterable[Option]]], foot: str) -> None:
    """Prints a page of help.

    Args:
        head: What stands above the options.
        groups: Title and options of each group.
        foot: What stands below them.
    """
    console = Console(markup=False, highlight=False)
    for line in head.splitlines():
        console.print(textwrap.fill(line, console.width), soft_wrap=True)
    for title, options in groups:
        console.print(f"\n{title}".rstrip(), style="bold")
        left = {option: f"  {option.name} {option.default}".rstrip() for option in options}
        indent = max(map(len, left.values())) + 2
        for option, text in left.items():
            lines = textwrap.wrap(
                option.description, console.width - indent, break_on_hyphens=False
            )
            for line in lines or [""]:
                console.print(f"{text:{indent}}{line}", soft_wrap=True)
                text = ""
    if foot:
        console.print(f"\n{foot}", soft_wrap=True)


def _written(value: Any) -> str:
    """A default as it would be written on the command line."""
    if value is None:
        return ""
    if isinstance(value, Namespace | dict):
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str)

"""How people are told: how long something takes, how tables look, and the clinical warning."""

from __future__ import annotations

import os
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sepsis_rl.errors import printable

NOT_FOR_CLINICAL_USE = "Research software. Not for clinical use."


def tell(text: str, *, error: bool = False) -> None:
    """Prints a text as it is: nothing in it is markup, and no line of it is broken.

    Args:
        text: One line or more.
        error: It goes to stderr.
    """
    Console(stderr=error, markup=False, highlight=False).print(printable(text), soft_wrap=True)


def counted(count: int, one: str, several: str = "") -> str:
    """A number with its noun, whose plural is that with an s if none is given."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def shown(path: str | Path) -> str:
    """A path as the screen shows all of them: relative below the current folder, else absolute.

    Addresses such as `s3://...` are left as they are.
    """
    if "://" in str(path):
        return str(path)
    here, absolute = Path.cwd(), Path(os.path.abspath(path))
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def progress_bar() -> Progress:
    """A bar with the time remaining on a terminal's stderr, gone when done; else nothing."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def framed_table(title: str, caption: str) -> Table:
    """A table without columns yet, in the looks of all tables."""
    return Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )

"""How people are told: how long something takes, how tables look, and the clinical warning."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

NOT_FOR_CLINICAL_USE = "Research software. Not for clinical use."


def tell(text: str, *, error: bool = False) -> None:
    """Prints a text as it is: nothing in it is markup, and no line of it is broken.

    Args:
        text: One line or more.
        error: It goes to stderr.
    """
    Console(stderr=error, markup=False, highlight=False).print(text, soft_wrap=True)


def counted(count: int, one: str, several: str = "") -> str:
    """A number with its noun, whose plural is that with an s if none is given."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def shown(path: Path) -> Path:
    """A path as short as the current folder allows."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


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

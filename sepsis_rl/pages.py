"""What is shown to people: exhibits of text, picture and numbers, their files and their pages."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from sepsis_rl.display import NOT_FOR_CLINICAL_USE
from sepsis_rl.figures import picture
from sepsis_rl.files import as_csv, as_json, atomic_write

CONTENTS: Final = "contents.json"
"""File with title and text of a page and of each exhibit on it, and where its numbers come from."""

Rows = Sequence[Mapping[str, Any]]
Shown = Sequence[Mapping[str, str]]
Show = Mapping[str, Callable[[Rows], Shown]]
"""By the name of an exhibit that stands on the page as a table, what makes it of its rows."""


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A part of a page.

    Attributes:
        name: Stem of its files, such as `1-training-loss`.
        title: A line.
        text: What it shows and how to read it.
        rows: The numbers behind it, in full precision; all rows have the same columns.
        figure: The picture; None for a table alone.
        notes: Sentences of their own, each about one run or the like.
        chapter: Title of the chapter that begins with it; empty where none does.
    """

    name: str
    title: str
    text: str
    rows: Rows
    figure: Figure | None = None
    notes: Sequence[str] = ()
    chapter: str = ""


def files_of(exhibit: Exhibit) -> dict[str, bytes]:
    """Content by file name: the rows as CSV, the figure as PNG and SVG."""
    files = {f"{exhibit.name}.csv": as_csv(exhibit.rows)}
    return files | ({} if exhibit.figure is None else picture(exhibit.figure, exhibit.name))


def save(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files by name, each whole or not at all."""
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(content)


def list_contents(title: str, text: str, exhibits: Sequence[Exhibit], **provenance: Any) -> bytes:
    """The file `CONTENTS` of a page.

    Args:
        title: Of the page.
        text: Of the page.
        exhibits: Its parts, in their order.
        provenance: Where the numbers in the files beside it come from.
    """
    about: dict[str, Any] = {"note": NOT_FOR_CLINICAL_USE, "title": title, "text": text}
    parts = [
        {
            "name": one.name,
            "chapter": one.chapter,
            "title": one.title,
            "text": one.text,
            "notes": list(one.notes),
        }
        for one in exhibits
    ]
    return as_json({**about, **provenance, "exhibits": parts})


def html_page(
    exhibits: Sequence[Exhibit],
    files: Mapping[str, Mapping[str, bytes]],
    show: Show,
    **texts: Any,
) -> bytes:
    """Renders a page as one HTML file with everything in it.

    Args:
        exhibits: Its parts, in their order.
        files: By the name of an exhibit, its files, which lie beside the page.
        show: What stands on the page as a table.
        texts: `title`, `about`, `problems` and `warning`.

    Returns:
        The file's content. All text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("sepsis_rl", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.tests["number"] = lambda text: len(text) < 24 and re.match(r"[-+−]?\d", text)
    parts = [
        {
            "name": exhibit.name,
            "chapter": exhibit.chapter,
            "title": exhibit.title,
            "text": exhibit.text,
            "notes": exhibit.notes,
            "image": base64.b64encode(files[exhibit.name].get(f"{exhibit.name}.png", b"")).decode(),
            # The same size of letters in all pictures.
            "width": round(95 * exhibit.figure.get_figwidth()) if exhibit.figure else 0,
            "rows": show[exhibit.name](exhibit.rows) if exhibit.name in show else [],
            "files": list(files[exhibit.name]),
        }
        for exhibit in exhibits
    ]
    return environment.get_template("page.html").render(parts=parts, **texts).encode()


def markdown_page(folder: Path, show: Show, preface: str = "") -> str:
    """Renders a page as Markdown from the files that lie in its folder.

    Args:
        folder: With `CONTENTS`; a CSV or picture that is not there is left out.
        show: What stands on the page as a table.
        preface: Markdown between the page's own text and the first exhibit.
    """
    page = json.loads((folder / CONTENTS).read_text())
    parts = [
        f"# {_escaped(page['title'])}",
        NOT_FOR_CLINICAL_USE,
        _escaped(page["text"]),
        preface.strip(),
    ]
    has_chapters = any(exhibit["chapter"] for exhibit in page["exhibits"])
    for exhibit in page["exhibits"]:
        name, title = exhibit["name"], _escaped(exhibit["title"])
        numbers, image = folder / f"{name}.csv", folder / f"{name}.png"
        if exhibit["chapter"]:
            parts.append(f"## {_escaped(exhibit['chapter'])}")
        parts += [f"##{'#' * has_chapters} {title}", _escaped(exhibit["text"])]
        parts.append("\n".join(f"- {_escaped(note)}" for note in exhibit["notes"]))
        if image.is_file():
            parts.append(f"![{title}]({image.name})")
        if numbers.is_file():
            if name in show:
                parts.append(_markdown_table(show[name](_read_rows(numbers))))
            parts.append(f"Numbers: [{numbers.name}]({numbers.name})")
    return "\n\n".join(part for part in parts if part) + "\n"


def _read_rows(path: Path) -> list[dict[str, Any]]:
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""]).astype(object)
    rows: list[dict[str, Any]] = frame.where(frame.notna(), "").to_dict("records")
    return rows


def _markdown_table(rows: Shown) -> str:
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(
        "| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


def _escaped(text: str) -> str:
    """Text in which nothing is taken for HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")

"""The report's page: one HTML file with everything in it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sepsis_rl.report.style import Exhibit


def render(
    exhibits: Sequence[Exhibit],
    images: Mapping[str, bytes],
    files: Mapping[str, Sequence[str]],
    **texts: Any,
) -> bytes:
    """Renders the page.

    Args:
        exhibits: Its parts, in their order.
        images: By the name of an exhibit, its PNG.
        files: By the name of an exhibit, the files that lie beside the page.
        texts: `title`, `about`, `warning`, `problems` and `footer`.

    Returns:
        The file's content. All text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("sepsis_rl.report", "."), autoescape=True, undefined=StrictUndefined
    )
    parts = [
        {
            "name": exhibit.name,
            "title": exhibit.title,
            "text": exhibit.text,
            "image": base64.b64encode(images[exhibit.name]).decode()
            if exhibit.name in images
            else "",
            # The same size of letters in all pictures.
            "width": round(95 * exhibit.figure.get_figwidth()) if exhibit.figure else 0,
            "columns": list(exhibit.shown[0]) if exhibit.shown else [],
            "cells": [[_cell(text) for text in row.values()] for row in exhibit.shown],
            "files": files[exhibit.name],
        }
        for exhibit in exhibits
    ]
    return environment.get_template("page.html").render(parts=parts, **texts).encode()


def _cell(text: str) -> dict[str, Any]:
    return {"text": text, "number": bool(re.match(r"[-+−]?\d", text)) and len(text) < 24}

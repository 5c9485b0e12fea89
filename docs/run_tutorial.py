"""Runs the Python blocks of docs/tutorial.md and writes below each what it prints.

`python docs/run_tutorial.py` runs them in a temporary folder, replaces the outputs on the page, and
keeps the picture that they save.
"""

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent / "tutorial.md"
PICTURE = Path(__file__).parent / "images" / "tutorial.png"

_BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(\n```text\n.*?```\n)?", re.DOTALL)


def run(page: str, folder: Path) -> str:
    """Runs the blocks of a page in order, in one namespace.

    Args:
        page: Markdown.
        folder: Current folder of the blocks.

    Returns:
        The page with what each block printed below it.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}

    def run_block(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(folder):
            exec(compile(match["code"], PAGE.name, "exec"), namespace)
        block = f"```python\n{match['code']}```\n"
        return block + f"\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else block

    return _BLOCK.sub(run_block, page)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        PAGE.write_text(run(PAGE.read_text(), Path(name)))
        PICTURE.write_bytes((Path(name) / "survival.png").read_bytes())

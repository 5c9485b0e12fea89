"""Files that are whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file that takes its place only once it is written and on disk.

    It is written beside its destination, so that the final rename stays on one file system; an
    exception inside the block leaves nothing behind.

    Args:
        path: Destination; its folder is made if it is not there. An existing file is replaced.

    Yields:
        The open file.

    Raises:
        OSError: It cannot be written. A full disk's error, too, has the file's name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)  # mkstemp makes files that only their owner reads
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):  # what went wrong is worth more than that its trace stays
            os.unlink(beside)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)
        raise


def free_path(path: Path) -> Path:
    """The path itself, or the first of `name-1`, `name-2`, ... that is free."""
    candidate, number = path, 0
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def as_csv(rows: Sequence[Mapping[str, Any]], comment: str) -> bytes:
    """Content of a CSV file, which `pandas.read_csv(path, skiprows=1)` reads.

    Args:
        rows: Cells by column; all rows have the same columns. Floats are written with 9 significant
            digits; None and NaN leave a cell empty.
        comment: The first line, after `# `.

    Returns:
        The file, in UTF-8.
    """
    import pandas as pd  # takes longer to import than all else that writes files

    # Whole numbers stay whole beside empty cells.
    frame = pd.DataFrame(list(rows)).convert_dtypes()
    text = frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    return f"# {comment}\n{text}".encode()

"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
import tempfile
import textwrap
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from sepsis_rl.errors import InputError

# What reading a damaged or foreign archive can raise: numpy's format checks are ValueErrors (or
# what Python's tokenizer raises, for some headers), a bad archive or member one of the others (an
# encrypted one is a RuntimeError).
_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    MemoryError,
    LookupError,
    OverflowError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


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


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Makes a folder that takes its place only once all is in it.

    Args:
        path: Destination, where nothing is yet.

    Yields:
        A folder beside it, to be filled.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside:
        folder = Path(beside, path.name)
        folder.mkdir()
        yield folder
        folder.rename(path)


def as_json(content: Mapping[str, Any]) -> bytes:
    """Content of an indented JSON file."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # What UTF-8 has no bytes for, in a file's odd name, is written as JSON's own escape.
    return text.encode(errors="backslashreplace") + b"\n"


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes an indented JSON file with `atomic_write`."""
    with atomic_write(path) as file:
        file.write(as_json(content))


def refuse_existing(output: str | Path) -> None:
    """Raises `InputError` if the file that `--output` names is there already."""
    if Path(output).exists():
        raise InputError(f"--output {output} exists already; give another name")


def free_path(path: Path, *beside: str) -> Path:
    """The path itself, or the first of `name-1`, `name-2`, ... that is free.

    Args:
        path: The file.
        beside: Suffixes of files that are written along with it, whose names have to be free too.
    """
    candidate, number = path, 0
    while any(name.exists() for name in (candidate, *map(candidate.with_suffix, beside))):
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def read_arrays(path: str | Path, accepted: str) -> dict[str, npt.NDArray[Any]]:
    """Reads an `.npz` archive of arrays without ever unpickling.

    Args:
        path: The file.
        accepted: What the file should be, for the message, such as "a data set".

    Returns:
        The arrays by name.

    Raises:
        InputError: There is no such file, or it is no such archive.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    arrays: dict[str, Any] = {}
    try:
        reason = "it is no .npz file"
        if zipfile.is_zipfile(path):  # numpy would advise to unpickle anything else
            with zipfile.ZipFile(path) as members:
                refuse_beyond_memory(path, sum(one.file_size for one in members.infolist()))
            with path.open("rb") as file:
                archive = np.load(file, allow_pickle=False)
                arrays = {name: archive[name] for name in archive.files}
            foreign = [name for name in arrays if not isinstance(arrays[name], np.ndarray)]
            reason = f"{foreign[0]} is not an array" if foreign else ""  # but a member's bytes
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
    if reason:
        reason = textwrap.shorten(reason, 300)  # a damaged name can be of any length
        raise InputError(
            f"{path} cannot be read ({reason}); accepted: {accepted}, an .npz file without pickled "
            "objects"
        )
    return arrays


def refuse_beyond_memory(path: Path, size: int) -> None:
    """Refuses a file that says that it unpacks to more than half of this machine's memory.

    Args:
        path: The file.
        size: Bytes that it declares.

    Raises:
        InputError: It is too large.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory / 2:
        raise InputError(
            f"{path}: it unpacks to {size / 2**30:,.1f} GiB; accepted is half of this machine's "
            f"memory, {memory / 2**31:,.1f} GiB, at most"
        )


def as_csv(rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]) -> bytes:
    """Content of a CSV file, which `pandas.read_csv` reads as it is.

    Where the numbers come from stands in a `.json` beside it.

    Args:
        rows: Cells by column; all rows have the same columns. Or columns by name. Floats are
            written with 9 significant digits; None and NaN leave a cell empty.

    Returns:
        The file, in UTF-8.
    """
    import pandas as pd  # takes longer to import than all else that writes files

    # Whole numbers stay whole beside empty cells.
    frame = pd.DataFrame(rows if isinstance(rows, Mapping) else list(rows)).convert_dtypes()
    text: str = frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    return text.encode()

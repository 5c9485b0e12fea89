"""Files are whole or not there."""

import errno
import gzip
import json
import math
import os
import stat

import numpy as np
import pandas as pd
import pytest

from sepsis_rl.data.tables import read_table
from sepsis_rl.errors import InputError
from sepsis_rl.files import as_csv, as_json, atomic_folder, atomic_write, read_arrays


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_replaces_the_whole_file(tmp_path):
    """The old one stands until the end, and nothing of it is left after."""
    path = tmp_path / "file"
    path.write_bytes(b"the old one is longer")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"the old one is longer"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_folder_is_there_once_all_is_in_it(tmp_path):
    path = tmp_path / "new" / "folder"
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as beside:  # noqa: PT012
        (beside / "half").write_text("a")
        raise KeyboardInterrupt
    assert names(path.parent) == []
    with atomic_folder(path) as beside:
        (beside / "whole").write_text("a")
        assert not path.exists()
    assert names(path.parent) == ["folder"]
    assert names(path) == ["whole"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_leaves_what_was(tmp_path, error, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), atomic_write(path) as file:  # noqa: PT012
        file.write(b"half")
        file.flush()
        raise error
    assert names(tmp_path) == ([] if before is None else ["file"])
    assert before is None or path.read_bytes() == before


def test_a_destination_that_cannot_be_replaced_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file") as file:
        file.write(b"x")
    assert names(tmp_path) == ["file"]


def test_a_disk_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"no space.*file'"), atomic_write(tmp_path / "file") as file:
        file.write(b"x")
    assert names(tmp_path) == []


def test_it_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """Else a crash of the machine could leave an empty file under the name."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))
        )
    with atomic_write(tmp_path / "file") as file:
        file.write(b"x")
    assert calls[:2] == ["fsync", "replace"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_an_ordinary_file(tmp_path, umask, mode):
    """And the folder is made if need be."""
    previous = os.umask(umask)
    try:
        with atomic_write(str(tmp_path / "new" / "file")) as file:
            file.write(b"x")
        assert os.umask(umask) == umask  # and the umask is as it was
    finally:
        os.umask(previous)
    assert (tmp_path / "new" / "file").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == mode


def test_writers_at_once_do_not_mix(tmp_path):
    """The last to finish wins, whole."""
    path = tmp_path / "file"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first" * 1000)
        second.write(b"second" * 1000)
    assert path.read_bytes() == b"first" * 1000
    assert names(tmp_path) == ["file"]


def test_csv_of_rows():
    rows = [
        {"text": 'a, "b"', "whole": 4_294_967_295, "part": 1 / 3, "some": None, "flag": True},
        {"text": None, "whole": None, "part": math.nan, "some": 2e12, "flag": False},
    ]
    assert as_csv(rows).decode().splitlines() == [
        "text,whole,part,some,flag",
        '"a, ""b""",4294967295,0.333333333,,True',
        ",,,2000000000000,False",
    ]
    assert as_csv([{"state": 0}]) == b"state\n0\n"


@pytest.mark.parametrize("suffix", ["npz", "parquet", "csv.gz"])
def test_what_unpacks_beyond_memory_is_refused_unread(tmp_path, monkeypatch, suffix):
    """By what it declares; each is a megabyte of zeros, on a machine of half a megabyte."""
    path = tmp_path / f"zeros.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, episode=np.zeros(2**17, dtype=np.int64))
    elif suffix == "parquet":
        pd.DataFrame({"episode": np.arange(2**17)}).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(b"episode\n" + b"0000000\n" * 2**17))
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 2**10}.get(name, 2**9))
    with pytest.raises(InputError, match=rf"zeros.{suffix}: it unpacks to .* memory"):
        read_arrays(path, "a data set") if suffix == "npz" else read_table(path)


def test_json_of_any_text():
    text = {"setting": "α 0.5", "name": "odd \udc80"}
    assert "α 0.5".encode() in as_json(text)
    assert json.loads(as_json(text)) == text

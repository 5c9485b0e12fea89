"""Files are whole or not there."""

import errno
import json
import math
import os
import stat

import pytest

from sepsis_rl.files import as_csv, as_json, atomic_write


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


def test_json_of_any_text():
    text = {"setting": "α 0.5", "name": "odd \udc80"}
    assert "α 0.5".encode() in as_json(text)
    assert json.loads(as_json(text)) == text

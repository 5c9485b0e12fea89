"""What runs leave on the disk and on the screen, for the tests of all commands."""

import json
from pathlib import Path

import pytest

BASELINES = ["random", "clinician", "clinician's most likely", "tabular", "optimal"]
MEMBERS = ["alpha=0.1,seed=42", "alpha=0.1,seed=7", "alpha=1,seed=42", "alpha=1,seed=7"]


def files(folder):
    """Every file and empty folder below, with the random part of event files left out."""
    paths = [p for p in Path(folder).rglob("*") if p.is_file() or not any(p.iterdir())]
    names = [p.relative_to(folder).as_posix() for p in paths]
    return sorted(name.split(".tfevents.")[0] for name in names)


def read_json(path):
    """Strict JSON: no NaN."""
    return json.loads(Path(path).read_text(), parse_constant=pytest.fail)


def assert_refused(ran, *said):
    """Exit code 2 and one message, which says this."""
    assert ran.code == 2
    assert ran.err.startswith("lightning: error: ")
    assert ran.err.count("error:") == 1
    assert len(ran.err.splitlines()) == 1
    for text in ("Traceback", "usage:", "<class"):
        assert text not in ran.err
    for text in said:
        assert text in ran.err

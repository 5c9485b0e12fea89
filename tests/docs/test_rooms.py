"""The rooms of the package: what may import what, and the picture of it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def rooms() -> ModuleType:
    """The script that draws them."""
    spec = importlib.util.spec_from_file_location("draw_rooms", DOCS / "draw_rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_room_has_its_place(rooms: ModuleType) -> None:
    assert set(rooms.imports()) == set(rooms.ORDER)
    assert len(set(rooms.ORDER)) == len(rooms.ORDER)


def test_no_import_goes_against_the_order(rooms: ModuleType) -> None:
    place = {room: number for number, room in enumerate(rooms.ORDER)}
    against = [
        (room, other)
        for room, others in rooms.imports().items()
        for other in others
        if place[other] > place[room]
    ]
    assert against == []


@pytest.mark.parametrize(
    "line",
    [
        "from sepsis_rl.cli import main",
        "import sepsis_rl.cli.main",
        "from sepsis_rl import cli",
        "def late():\n    from sepsis_rl.cli.main import main",
    ],
)
def test_an_import_is_seen_however_it_is_written(
    line: str, rooms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sepsis_rl"
    (package / "cli").mkdir(parents=True)
    (package / "cli" / "main.py").write_text("import numpy\nfrom sepsis_rl.mdp import TabularMDP")
    (package / "mdp.py").write_text(line)
    monkeypatch.setattr(rooms, "PACKAGE", package)
    assert rooms.imports() == {"cli": {"mdp"}, "mdp": {"cli"}}


def test_what_follows_from_other_imports_is_left_out(rooms: ModuleType) -> None:
    graph = {"errors": set(), "mdp": {"errors"}, "dynamics": {"errors", "mdp"}}
    assert rooms.reduced(graph) == {"errors": set(), "mdp": {"errors"}, "dynamics": {"mdp"}}


def test_the_picture_is_drawn_from_these_imports(rooms: ModuleType) -> None:
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.draw(), (
        "the imports have changed: python docs/draw_rooms.py"
    )

"""What can be imported from `sepsis_rl` itself, and what that costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sepsis_rl

HEAVY = ("icu_sepsis", "jsonargparse", "lightning", "pandas", "rich", "scipy", "torch")


def run(script: str) -> str:
    """What a new interpreter prints."""
    words = [sys.executable, "-c", script]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys; before = set(sys.modules); import sepsis_rl; print(*dir(sepsis_rl))\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    shown, imported = (line.split() for line in run(script).splitlines())
    assert set(sepsis_rl.__all__) <= set(shown)
    assert {name.partition(".")[0] for name in imported}.isdisjoint(HEAVY)
    ours = [name for name in imported if name.startswith("sepsis_rl")]
    assert ours == ["sepsis_rl", "sepsis_rl.registration"]


def test_importing_the_package_takes_little_more_than_gymnasium() -> None:
    """Less than a tenth of a second more."""
    script = (
        "import time, gymnasium; t = time.process_time(); import sepsis_rl\n"
        "print(time.process_time() - t)"
    )
    assert min(float(run(script)) for _ in range(3)) < 0.1


@pytest.mark.parametrize("name", [name for name in sepsis_rl.__all__ if name != "__version__"])
def test_a_name_is_the_one_of_its_module(name: str) -> None:
    value = getattr(sepsis_rl, name)
    assert value.__name__ == name
    assert getattr(sys.modules[value.__module__], name) is value
    assert name in vars(sepsis_rl)  # the second time it is looked up like any other


def test_a_name_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="'sepsis_rl' has no attribute 'SAC'"):
        _ = sepsis_rl.SAC


def test_all_is_what_type_checkers_see() -> None:
    tree = ast.parse(Path(sepsis_rl.__file__).read_text(encoding="utf-8"))
    (seen,) = (
        node.body
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in seen if isinstance(node, ast.ImportFrom)]
    assert {
        alias.name: node.module.removeprefix("sepsis_rl.")
        for node in imports
        for alias in node.names
        if node.module is not None
    } == sepsis_rl._MODULE_OF
    assert {*sepsis_rl.__all__} == {"__version__", *sepsis_rl._MODULE_OF}

"""How people are told."""

import io
import sys

import pytest
from rich.console import Console

from sepsis_rl.display import framed_table, progress_bar, shown, tell


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_paths_are_relative_below_the_current_folder_and_else_absolute(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path, expected in {
        "runs/cql": "runs/cql",
        "./runs/../report": "report",
        tmp_path / "here" / "runs": "runs",
        "../elsewhere": str(tmp_path / "elsewhere"),
        tmp_path / "hereby": str(tmp_path / "hereby"),
        "s3://bucket/runs": "s3://bucket/runs",
    }.items():
        assert shown(path) == expected


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_is_shown_on_a_terminal_alone(monkeypatch, stream):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar() as progress:
        progress.advance(progress.add_task("Collecting", total=2), 1)
        progress.refresh()
    assert ("Collecting" in sys.stderr.getvalue()) == (stream is Terminal)


def test_a_framed_table_holds_title_rows_and_caption():
    table = framed_table("Survival", "4 hours.")
    table.add_column("policy")
    table.add_column("steps", justify="right")
    table.add_row("CQL", "9.24")
    console = Console(file=io.StringIO(), width=60)
    console.print(table)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    assert [line for line in lines if line and set(line) != {"─"}] == [
        "Survival",
        "policy  steps",
        "CQL      9.24",
        "4 hours.",
    ]


def test_what_is_told_is_printable_and_short(capsys):
    tell(f"a\x1b[31m\x00 [bold] {'x' * 1000} é\nnext")
    assert capsys.readouterr().out == f"a\\x1b[31m\\x00 [bold] {'x' * 60}... é\nnext\n"

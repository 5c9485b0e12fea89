"""Exhibits, their files and their pages."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sepsis_rl.pages import (
    CONTENTS,
    Exhibit,
    files_of,
    html_page,
    list_contents,
    markdown_page,
    save,
)

DOCS = Path(__file__).parents[1] / "docs"
ROWS = [{"name": "a|b", "value": 0.5}, {"name": "<i>", "value": None}, {"name": "NA", "value": 1}]


def show(rows):
    return [{"who": row["name"], "how much": str(row["value"])} for row in rows]


@pytest.fixture
def exhibits():
    figure = Figure(figsize=(1, 1))
    return [
        Exhibit("1-table", "A <table>", "x < 1 & y.", ROWS),
        Exhibit("2-picture", "A picture", "As drawn.", ROWS[:1], figure),
    ]


def test_files_of_an_exhibit(exhibits):
    table, picture = (files_of(exhibit) for exhibit in exhibits)
    assert table == {"1-table.csv": b"name,value\na|b,0.5\n<i>,\nNA,1\n"}
    assert picture.keys() == {"2-picture.csv", "2-picture.png", "2-picture.svg"}


def test_a_page_in_markdown(exhibits, tmp_path):
    for exhibit in exhibits:
        save(tmp_path, files_of(exhibit))
    save(tmp_path, {CONTENTS: list_contents("All", "About.\n\nIt <is>.", exhibits)})
    (tmp_path / "2-picture.csv").unlink()
    assert markdown_page(tmp_path, {"1-table": show}, "By hand.") == (
        "# All\n\nResearch software. Not for clinical use.\n\nAbout.\n\nIt &lt;is>.\n\nBy hand.\n\n"
        "## A &lt;table>\n\nx &lt; 1 &amp; y.\n\n"
        "| who | how much |\n| --- | --- |\n| a\\|b | 0.5 |\n| &lt;i> |  |\n| NA | 1.0 |\n\n"
        "Numbers: [1-table.csv](1-table.csv)\n\n"
        "## A picture\n\nAs drawn.\n\n![A picture](2-picture.png)\n"
    )


def test_a_page_in_html(exhibits):
    files = {exhibit.name: files_of(exhibit) for exhibit in exhibits}
    texts = {"title": "All", "about": "About.", "problems": ["<b>"], "warning": "Careful."}
    page = html_page(exhibits, files, {"1-table": show}, **texts).decode()
    assert "A &lt;table&gt;" in page
    assert "<b>" not in page
    assert page.count("data:image/png;base64,") == 1
    assert "width: 95px" in page
    assert '<td>a|b</td><td class="number">0.5</td>' in page


def test_chapters_and_notes(exhibits, tmp_path):
    first, second = exhibits
    second = dataclasses.replace(second, chapter="The <rest>", notes=["a <b>", "c"])
    save(tmp_path, {CONTENTS: list_contents("All", "About.", [first, second], seed=3)})
    content = json.loads((tmp_path / CONTENTS).read_text())
    assert (content["seed"], content["note"]) == (3, "Research software. Not for clinical use.")
    page = markdown_page(tmp_path, {})
    assert page.index("### A &lt;table>") < page.index("## The &lt;rest>\n\n### A picture")
    assert "- a &lt;b>\n- c" in page
    files = {exhibit.name: files_of(exhibit) for exhibit in exhibits}
    texts = {"title": "All", "about": "About.", "problems": [], "warning": "Careful."}
    page = html_page([first, second], files, {}, **texts).decode()
    assert '<h2 class="chapter">The &lt;rest&gt;</h2>' in page
    assert page.count("<h3>") == 2
    assert "<li>a &lt;b&gt;</li><li>c</li>" in page
    assert page.count("Careful.") == 3  # at the top, at the end and on every sheet of paper
    assert "<h3>" not in html_page(exhibits, files, {}, **texts).decode()


def test_the_committed_page_is_made_of_the_files_beside_it():
    """`python docs/make_essay_page.py` makes it anew."""
    made = runpy.run_path(str(DOCS / "make_essay_page.py"))["page"]()
    assert made == (DOCS / "essay" / "README.md").read_text()

"""`lightning report`: page, pictures and tables from finished runs."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reading import read_csv

from sepsis_rl.pages import markdown_page
from sepsis_rl.report.assembly import SHOWN

GRID = [f"runs/{name}/version_0" for name in ("bc", "dqn", "cql", "sweep")]


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.ids, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values["href"])
        if "id" in values:
            self.ids.append(values["id"])

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture
def report(runs, lightning):
    def make(*words, output="made"):
        ran = lightning.main("report", *words, "--output", output, "--tries", "2")
        assert (ran.code, ran.err) == (0, "")
        return ran.out, Path(output), Page(Path(output, "report.html").read_text())

    return make


def test_the_whole(report):
    out, folder, page = report(*GRID, "runs/nowhere/version_0")
    names = {path.name for path in folder.iterdir()}
    parts = ["0-claims", "1-training-loss", "2-survival-in-training", "3-alpha", "4-algorithms"]
    parts += ["4b-checkpoints", "5-heat-map", "6-actions", "6b-dose-grids", "7-q-values"]
    parts += ["8-lower-bound", "12-by-sofa", "13-disagreements"]
    assert page.ids == parts
    tables = {"0-claims", "4b-checkpoints", "13-disagreements"}
    assert names == {
        "report.html",
        "report.md",
        "contents.csv",
        *(f"{part}.csv" for part in parts),
        *(f"{part}.{form}" for part in parts if part not in tables for form in ("png", "svg")),
    }
    # One file: nothing on the page comes from elsewhere, and its links are its own.
    for image in page.images:
        assert image["src"].startswith("data:image/png;base64,")
        assert len(image["alt"]) > 50
    assert len(page.images) == 10
    assert {link for link in page.links if not link.startswith("#")} == names - {
        "report.html",
        "report.md",
        "contents.csv",
    }
    assert {link[1:] for link in page.links if link.startswith("#")} == set(parts)
    text = (folder / "report.html").read_text()
    assert not re.search(r"https?://", text)
    assert page.text.count("Not for clinical use.") >= 2
    assert "runs/nowhere/version_0 is left out" in page.text
    assert "runs/nowhere/version_0 is left out" in out
    assert "7 members (BC, DQN, CQL α=0.1, CQL α=0.5, CQL α=1)" in page.text
    assert "The essay's protocol is simulated 2 times" in page.text
    assert "made/report.html" in out
    assert "Not for clinical use" in out
    for part in parts:
        first, rows = read_csv(folder / f"{part}.csv")
        assert first.startswith("# ")
        assert "Not for clinical use" in first
        assert len({len(row) for row in rows}) == 1
        assert None not in {value for row in rows for value in row.values()}
    # The page in Markdown is made of the files that lie beside it.
    assert markdown_page(folder, SHOWN) == (folder / "report.md").read_text()
    for path in folder.glob("*.svg"):
        assert path.read_text().rstrip().endswith("</svg>")


@pytest.mark.slow
def test_the_same_runs_make_the_same_report(report):
    _, one, _ = report(GRID[1], output="one")
    _, two, _ = report(GRID[1], output="two")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_a_single_run(report):
    _, _, page = report(GRID[0])
    assert "4-algorithms" in page.ids
    assert not {"3-alpha", "5-heat-map", "7-q-values", "8-lower-bound"} & set(page.ids)
    assert "not examined" in page.text


@pytest.mark.slow
def test_names_from_outside_are_escaped(report, runs):
    name = '<img src="x">&'
    (runs / "bc").rename(runs / name)
    _, _, page = report(GRID[1], f"runs/{name}/version_7")
    assert f"runs/{name}/version_7 is left out" in page.text
    assert all(image["src"] != "x" for image in page.images)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["needs runs", "runs/sweep/version_0"]),
        (["runs/nowhere/version_0"], ["no run can be used", "is no run"]),
        ([GRID[0], "--tries=0"], ["--tries 0", "1 to 1,000,000"]),
        ([GRID[0], "--output=runs"], ["--output runs", "exists"]),
    ],
)
def test_what_is_refused(runs, lightning, words, said):
    before = sorted(Path(".").rglob("*"))
    ran = lightning.main("report", "--output=made", *words)
    assert ran.code == 2
    assert ran.out == ""
    for text in said:
        assert text in ran.err
    assert sorted(Path(".").rglob("*")) == before

"""`lightning report`: page, pictures and tables from finished runs."""

import re
from html import unescape
from pathlib import Path

import pytest
from reading import read_csv

from sepsis_rl.pages import markdown_page
from sepsis_rl.report.assembly import SHOWN, draw

GRID = [f"runs/{name}/version_0" for name in ("bc", "dqn", "cql", "sweep")]


@pytest.fixture
def report(runs, lightning):
    def make(*words, output="made"):
        ran = lightning.main("report", *words, "--output", output, "--tries", "2")
        assert ran.code == 0, ran.err
        # What a folder alone tells is said before anything is computed.
        assert ("nowhere" in ran.err) == ("runs/nowhere/version_0" in words)
        assert all(line.startswith("Note: ") for line in ran.err.splitlines())
        return ran.out, Path(output)

    return make


def test_the_whole(report):
    out, folder = report(*GRID, "runs/nowhere/version_0")
    page = (folder / "report.html").read_text()
    text = " ".join(unescape(re.sub(r"<[^>]*>", "", page)).split())
    names = {path.name for path in folder.iterdir()}
    parts = ["0-claims", "1-training-loss", "2-survival-in-training", "3-alpha", "4-algorithms"]
    parts += ["4b-checkpoints", "5-heat-map", "6-actions", "6b-dose-grids", "7-q-values"]
    parts += ["8-lower-bound", "12-by-sofa", "13-disagreements"]
    assert re.findall(r'id="([^"]*)"', page) == parts
    tables = {"0-claims", "4b-checkpoints", "13-disagreements"}
    about_all = {"report.html", "report.md", "contents.csv"}
    assert names == {
        *about_all,
        *(f"{part}.csv" for part in parts),
        *(f"{part}.{form}" for part in parts if part not in tables for form in ("png", "svg")),
    }
    # One file: nothing on the page comes from elsewhere, and its links are its own.
    images = re.findall(r'<img [^>]*src="data:image/png;base64,[^"]*" alt="([^"]*)">', page)
    assert len(images) == page.count("<img") == page.count("src=") == 10
    assert min(map(len, images)) > 50
    links = re.findall(r'href="([^"]*)"', page)
    assert set(links) == names - about_all | {f"#{part}" for part in parts}
    assert not re.search(r"https?://", page)
    assert text.count("Not for clinical use.") >= 2
    assert "runs/nowhere/version_0 is left out" in text
    assert "runs/nowhere/version_0 is left out" in out
    assert "7 members (BC, DQN, CQL α=0.1, CQL α=0.5, CQL α=1)" in text
    assert "The essay's protocol is simulated 2 times" in text
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
    _, one = report(GRID[1], output="one")
    _, two = report(GRID[1], output="two")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (["BC"], {"3-alpha", "5-heat-map", "7-q-values", "8-lower-bound", "13-disagreements"}),
        (["DQN"], {"3-alpha", "5-heat-map", "13-disagreements"}),
        (["CQL α=0.1"], {"3-alpha", "5-heat-map"}),
        (["CQL α=0.1", "CQL α=1"], set()),
    ],
)
def test_what_the_runs_do_not_have_is_not_drawn(
    experiment, only, protocol, drawn, settings, missing
):
    exhibits = {exhibit.name: exhibit for exhibit in draw(only(*settings), protocol)}
    everything = [exhibit.name for exhibit in draw(experiment, protocol)]
    assert list(exhibits) == [name for name in everything if name not in missing]
    for exhibit in exhibits.values():
        assert exhibit.figure is None or drawn(exhibit)
    policies = {row["policy"] for row in exhibits["12-by-sofa"].rows}
    assert policies - {"clinician", "optimum"} <= set(settings)


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

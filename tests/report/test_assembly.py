"""`lightning report`: page, pictures and tables from finished runs."""

import dataclasses
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sepsis_rl.baselines import tabular_policy
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.pages import markdown_page
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy
from sepsis_rl.report.assembly import SHOWN, draw
from sepsis_rl.report.figures.curves import curves
from sepsis_rl.report.own_runs import runs_shown, runs_table
from sepsis_rl.runs.history import read_curve

GRID = [f"runs/{name}/version_0" for name in ("bc", "dqn", "cql", "sweep")]


@pytest.fixture
def report(lightning):
    def make(*words, output="made"):
        ran = lightning.main("report", *words, "--output", output, "--tries", "2")
        assert ran.code == 0, ran.err
        # What a folder alone tells is said before anything is computed.
        assert ("nowhere" in ran.err) == ("runs/nowhere/version_0" in words)
        assert all(line.startswith("Note: ") for line in ran.err.splitlines())
        return ran.out, Path(output)

    return make


def test_the_whole(runs, report):
    out, folder = report(*GRID, "runs/nowhere/version_0")
    page = (folder / "report.html").read_text()
    text = " ".join(unescape(re.sub(r"<[^>]*>", "", page)).split())
    names = {path.name for path in folder.iterdir()}
    parts = [
        "runs",
        "curves",
        "0-claims",
        "1-training-loss",
        "2-survival-in-training",
        "3-alpha",
        "4-algorithms",
    ]
    parts += ["4b-checkpoints", "5-heat-map", "6-actions", "6b-dose-grids", "7-q-values"]
    parts += ["8-lower-bound", "12-by-sofa", "13-disagreements"]
    assert re.findall(r'id="([^"]*)"', page) == parts
    tables = {"runs", "0-claims", "4b-checkpoints", "13-disagreements"}
    about_all = {"report.html", "report.md", "contents.json"}
    assert names == {
        *about_all,
        *(f"{part}.csv" for part in parts),
        *(f"{part}.{form}" for part in parts if part not in tables for form in ("png", "svg")),
    }
    # One file: nothing on the page comes from elsewhere, and its links are its own.
    images = re.findall(r'<img [^>]*src="data:image/png;base64,[^"]*" alt="([^"]*)">', page)
    assert len(images) == page.count("<img") == page.count("src=") == 11
    assert min(map(len, images)) > 50
    links = re.findall(r'href="([^"]*)"', page)
    assert set(links) == names - about_all | {f"#{part}" for part in parts}
    assert not re.search(r"https?://", page)
    assert text.count("Not for clinical use.") >= 2
    assert "runs/nowhere/version_0 is left out" in text
    assert "runs/nowhere/version_0 is left out" in out
    assert "7 members (BC, DQN, CQL α=0.1, CQL α=0.5, CQL α=1)" in text
    assert "The essay's protocol is simulated 2 times, with the best of 3 evaluations" in text
    assert "made/report.html" in out
    assert "Not for clinical use" in out
    for part in parts:
        rows = pd.read_csv(folder / f"{part}.csv")  # as it is
        assert len(rows) > 0
        assert not any(str(name).startswith(("#", "Unnamed")) for name in rows.columns)
    about = json.loads((folder / "contents.json").read_text())
    assert "Not for clinical use" in about["note"]
    assert list(about["runs"]) == GRID
    assert [part["name"] for part in about["exhibits"]] == parts
    assert [part["name"] for part in about["exhibits"] if part["chapter"]] == ["0-claims"]
    # The page in Markdown is made of the files that lie beside it.
    assert markdown_page(folder, SHOWN) == (folder / "report.md").read_text()
    for path in folder.glob("*.svg"):
        assert path.read_text().rstrip().endswith("</svg>")


@pytest.mark.slow
def test_the_same_runs_make_the_same_report(runs, report):
    _, one = report(GRID[1], output="one")
    _, two = report(GRID[1], output="two")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


@pytest.fixture(scope="module")
def everything(experiment, protocol):
    """The names of all exhibits."""
    return [exhibit.name for exhibit in draw(experiment.members, experiment, protocol)]


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (["BC"], {"3-alpha", "5-heat-map", "7-q-values", "8-lower-bound", "13-disagreements"}),
        (["CQL α=0.1", "CQL α=1"], set()),
        pytest.param(
            ["DQN"], {"3-alpha", "5-heat-map", "13-disagreements"}, marks=pytest.mark.slow
        ),
        pytest.param(["CQL α=0.1"], {"3-alpha", "5-heat-map"}, marks=pytest.mark.slow),
    ],
)
def test_what_the_runs_do_not_have_is_not_drawn(
    everything, only, protocol, drawn, settings, missing
):
    some = only(*settings)
    exhibits = {exhibit.name: exhibit for exhibit in draw(some.members, some, protocol)}
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


def shown_on(page):
    """The text of a page."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


OWN = ("--data.path=stays.csv", "--data.n_states=12", "--data.n_actions=3")


@pytest.fixture
def own_run(lightning, tmp_path):
    """A run on a table of other patients."""
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(120), 3)
    last = np.tile([0, 0, 1], 120)
    stays = {
        "episode": episode,
        "observation": rng.integers(12, size=360),
        "action": rng.integers(3, size=360),
        "reward": last * rng.integers(2, size=360),
    }
    pd.DataFrame(stays).to_csv(tmp_path / "stays.csv", index=False)
    for kind in ("cql", "bc"):
        ran = lightning("fit", kind, *OWN, f"--trainer.logger.init_args.name=own-{kind}")
        assert ran.code == 0, ran.err
    return "runs/own-cql/version_0"


def test_records_of_ones_own(own_run, report):
    """Without a truth, and the page says so."""
    out, folder = report(own_run, "runs/own-bc/version_0")
    page = (folder / "report.html").read_text()
    assert re.findall(r'id="([^"]*)"', page) == ["runs", "curves"]
    text = shown_on(page)
    assert "No simulator knows the patients of stays.csv, 72 episodes" in text
    assert "exact %" not in text
    assert "optimum" not in out
    assert "essay" not in text
    rows = pd.read_csv(folder / "runs.csv")
    assert rows["survival_exact"].isna().all()
    assert list(rows["policy"])[2:] == ["clinicians, as recorded", "most recorded action"]
    metrics = json.loads(Path(own_run, "metrics.json").read_text())["fit"]["off_policy"]
    figures = metrics["policies"]
    expected = [figures["CQL"]["fqe"], metrics["recorded"]["estimate"]]
    assert rows["fqe"][[0, 2]].tolist() == pytest.approx(expected, rel=1e-8)
    assert rows["fqe"][3] == pytest.approx(figures["most recorded"]["fqe"], rel=1e-8)
    curves = pd.read_csv(folder / "curves.csv")
    assert set(curves["figure"]) == {"by records of stays.csv, 72 episodes"}
    assert sorted(curves["step"].unique()) == [4, 8, 10]


@pytest.mark.slow
def test_records_of_ones_own_beside_the_simulators(runs, own_run, report):
    _, folder = report(GRID[0], own_run)
    rows = pd.read_csv(folder / "runs.csv")
    assert list(rows["records"].unique()) == ["200 episodes, seed 42", "stays.csv, 72 episodes"]
    assert rows["survival_exact"].notna().sum() == 4  # BC, clinician, tabular and optimum
    claims = pd.read_csv(folder / "0-claims.csv")
    assert (claims["verdict"] == "not examined").sum() == 8
    assert shown_on((folder / "report.html").read_text()).count("data stays.csv") == 0


def test_what_runs_are_held_against(experiment, mdp):
    rows = {(row["run"], row["policy"]): row for row in runs_table(experiment.members).rows}
    assert len(rows) == 7 + 3
    for member in experiment.members:
        (row,) = [
            row
            for row in rows.values()
            if row["run"] == f"{member.run.parent.name}/version_0" and row["member"] == member.name
        ]
        assert row["survival_exact"] == member.survival
        assert (row["steps"], row["evaluations"]) == (10, 3)
        assert row["policy"].startswith(f"{member.setting}, ")
        judged = json.loads((member.run / "metrics.json").read_text())["fit"]["off_policy"]
        name = f"{'CQL' if member.algorithm == 'CQL' else member.algorithm} {member.name}".strip()
        assert row["fqe"] == judged["policies"][name]["fqe"]
    exact = {
        "clinician": clinician_policy(mdp),
        "tabular": tabular_policy(experiment.data.counts, mdp),
        "optimum": optimal_policy(mdp),
    }
    for name, policy in exact.items():
        value = evaluate(true_dynamics(mdp), policy.probabilities).survival
        assert rows["", name]["survival_exact"] == value
    shown = runs_shown(list(rows.values()))
    assert list(shown[0]) == ["policy", "exact %", "by records % (95 %)", "ESS", "steps", "run"]
    assert shown[-1]["exact %"] == "87.51"


def test_curves_of_the_runs(experiment):
    exhibit = curves(experiment.members, experiment.reference_survival)
    rows = pd.DataFrame(exhibit.rows)
    (member,) = experiment.of("CQL", 0.5)
    own = rows[rows["run"] == "cql/version_0"].groupby("figure")
    exact, by_records = own.get_group("exact"), own.get_group("by records")
    assert exact["step"].tolist() == by_records["step"].tolist() == member.steps.tolist()
    assert exact["value"].tolist() == member.metrics["survival_exact"].tolist()
    assert by_records["value"].tolist() == read_curve(member, "ope/supported_value").values.tolist()
    assert curves([dataclasses.replace(member, metrics={}, run=Path("none"))], {}) is None

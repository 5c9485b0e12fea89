"""`lightning compare`: members of runs side by side."""

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from reading import read_csv

from sepsis_rl.evaluation import Stage
from sepsis_rl.ope import Episodes
from sepsis_rl.ope.supported_value import resampled_values, supported_value_of
from sepsis_rl.report.comparison import compare_policies
from sepsis_rl.report.figures.compared_curves import curves
from sepsis_rl.report.refusals import describe_comparable
from sepsis_rl.rollouts import roll_out
from sepsis_rl.runs.checkpoints import load_algorithm

RUNS = [f"runs/{name}/version_0" for name in ("sweep", "cql", "bc")]
MEMBERS = [f"sweep α={alpha} seed={seed}" for alpha in ("0.1", "1") for seed in (42, 7)]
BASELINES = ["random", "clinician", "clinician's most likely", "tabular", "optimal"]


@pytest.fixture(scope="module")
def comparison(essay_runs):
    """A sweep, CQL and BC. Not to be changed."""
    return compare_policies(
        describe_comparable([essay_runs / run for run in RUNS]), patients=300, seed=3
    )


@pytest.fixture
def compare(runs, lightning, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *words: lightning.main("compare", *words, "--patients=200")


def change(run, name, edit):
    path = Path(run, name)
    content = json.loads(path.read_text())
    edit(content["fit"])
    path.write_text(json.dumps(content))


def test_the_members_of_all_runs_and_the_baselines(comparison, essay_runs):
    names = [policy.name for policy in comparison.policies]
    assert names == [*MEMBERS, "cql", "bc", *BASELINES]
    assert comparison.problems == []
    for entrant in comparison.entrants:
        folder = essay_runs / "runs" / entrant.run / "version_0"
        module = load_algorithm(folder / "checkpoints" / "last.ckpt")
        member = module.members.names.index(entrant.member)
        own = module.policies()[member].probabilities
        assert np.array_equal(entrant.policy.probabilities, own)
        fit = json.loads((folder / "metrics.json").read_text())["fit"]
        assert entrant.steps.tolist() == [entry["step"] for entry in fit["evaluations"]]
        exact = [entry["members"][member]["survival_exact"] for entry in fit["evaluations"]]
        assert entrant.curve.tolist() == exact
    assert comparison.scores is not None
    exact = comparison.scores.survival_exact
    assert exact[0] == pytest.approx(comparison.entrants[0].curve[-1])
    figures = fit["policies"]  # each run has the same baselines
    assert exact[6:].tolist() == pytest.approx([figures[n]["survival_exact"] for n in BASELINES])


def test_differences_are_paired_on_the_same_patients(comparison, mdp):
    """By hand: the mean of what becomes of each patient, less what the best policy makes of it."""
    rollout = roll_out(
        mdp, comparison.policies, patients=torch.arange(300), seed=3, stage=Stage.VALIDATE
    )
    survived = rollout.survived.double().numpy()
    gaps = survived - survived[comparison.best]
    reach = 1.959964 * gaps.std(axis=1, ddof=1) / np.sqrt(300)
    np.testing.assert_allclose(comparison.gap.estimate, gaps.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(comparison.gap.low, gaps.mean(axis=1) - reach, atol=1e-6)
    np.testing.assert_allclose(comparison.gap.high, gaps.mean(axis=1) + reach, atol=1e-6)
    assert comparison.gap.estimate[comparison.best] == 0
    assert (comparison.gap.low < comparison.gap.high).sum() == len(gaps) - 1


def test_the_best_is_so_by_records(comparison):
    data = comparison.data
    model = supported_value_of(data.counts, data.held_out, data.mdp, 0.005)
    values = model.judge(comparison.policies).value
    assert comparison.supported.value.tolist() == values.tolist()
    assert comparison.best == values[:6].argmax()


def test_the_figure_has_a_line_for_each_member(comparison, drawn):
    exhibit = curves(comparison)
    assert drawn(exhibit)
    (axes,) = exhibit.figure.axes
    labels = ["sweep α=0.1", "sweep α=0.1", "sweep α=1", "sweep α=1", "cql", "bc"]
    lines = axes.lines[:6]
    assert [line.get_label() for line in lines] == labels
    looks = [(line.get_color(), line.get_marker()) for line in lines]
    assert looks[0] == looks[1] != looks[2]  # seeds look alike
    for line, entrant in zip(lines, comparison.entrants, strict=True):
        assert line.get_xdata().tolist() == entrant.steps.tolist()
        assert line.get_ydata().tolist() == (100 * entrant.curve).tolist()
    references = [line.get_label().rpartition(" ")[0] for line in axes.lines[6:]]
    assert [text.split()[0] for text in references] == ["clinician", "tabular"]
    assert "optimum 87.5 %" in axes.texts[0].get_text()  # far above
    assert "differ in their seed" in exhibit.text


def test_screen_and_page(compare, runs):
    """At 80 columns; from the folders' own files, whatever has logged the curves."""
    for path in runs.rglob("events.out.*"):
        path.unlink()
    ran = compare(*RUNS, "--output=made")
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    for name in [*MEMBERS, "cql", "bc", "random", "tabular", "optimal"]:
        assert f"\n {name} " in ran.out
    assert "200 simulated patients" in ran.out
    assert "Not for clinical use" in ran.out
    assert re.search(r"model.alpha +\[0.1, 1.0\] +0.5 +–", ran.out)
    assert not re.search("model.tau|held_out|logger", ran.out)  # which are the same in all
    folder = Path("made")
    page = (folder / "compare.html").read_text()
    names = {path.name for path in folder.iterdir()}
    pictures = {"2-curves.png", "2-curves.svg"}
    tables = {"1-policies.csv", "2-curves.csv", "3-settings.csv"}
    assert names == {"compare.html", "contents.json", *pictures, *tables}
    assert page.count("<img") == 1
    text = " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())
    rows = read_csv(folder / "1-policies.csv")
    for row in rows:
        exact = 100 * float(row["survival_exact"])
        assert re.search(rf"{re.escape(row['policy'])}\W+{exact:.2f} ", text)
        assert re.search(rf"{re.escape(row['policy'][:11])}.* {exact:.2f} ", ran.out)
    assert [row["best"] for row in rows].count("True") == 1
    fit = json.loads(Path(RUNS[2], "metrics.json").read_text())["fit"]  # on the same patients
    rates = {name: own["survival_rate"] for name, own in fit["policies"].items()}
    assert {row["policy"]: float(row["survival_rate"]) for row in rows[6:]} == {
        name: rate for name, rate in rates.items() if name in BASELINES
    }
    assert float(rows[5]["survival_rate"]) == rates["BC"]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    again = compare(*RUNS, "--output=made")
    assert again.code == 2
    assert "--output made exists already" in again.err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_one_run_alone_and_one_named_twice(compare):
    alone = compare(RUNS[1])
    assert (alone.code, alone.err) == (0, "")
    assert "1 member of 1 run" in alone.out
    assert re.search(r"^ CQL .* the best", alone.out, re.MULTILINE)
    assert "Settings" not in alone.out
    twice = compare(RUNS[1], f"{RUNS[1]}/")
    assert twice.out == alone.out
    assert twice.err == "Note: runs/cql/version_0 is named twice and counts once\n"


def test_names_are_never_markup(compare, runs):
    """Nor formulas of a figure, nor lines that have no label."""
    name = "_[bold]$x^{<b>&"
    shutil.copytree(runs / "bc", runs / name)
    ran = compare(RUNS[2], f"runs/{name}/version_0", "--output=made")
    assert (ran.code, ran.err) == (0, "")
    assert f" {name} " in ran.out
    assert "The settings of the runs are the same." in ran.out
    page = Path("made/compare.html").read_text()
    assert "_[bold]$x^{&lt;b&gt;&amp;" in page
    assert "<b>" not in page


def test_a_member_that_has_diverged_is_left_out(compare, runs):
    path = runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for name, weight in checkpoint["state_dict"].items():
        if name.startswith("q_network"):
            weight[1] = torch.nan
    torch.save(checkpoint, path)
    ran = compare(RUNS[0], "--output=made")
    assert ran.code == 0, ran.err
    assert "\nα=0.1 seed=7 is left out: its network has diverged\n" in ran.out
    assert "3 members of 1 run" in ran.out


DAMAGE = {
    "none": lambda fit: fit.update(evaluations="none"),
    "of other members": lambda fit: [e["members"].pop() for e in fit["evaluations"]],
    "without survival": lambda fit: [e["members"][0].clear() for e in fit["evaluations"]],
    "texts": lambda fit: fit["evaluations"][0]["members"][0].update(survival_exact="much"),
}


@pytest.mark.parametrize("edit", DAMAGE.values(), ids=DAMAGE)
def test_damaged_evaluations_are_named(compare, edit):
    change(RUNS[0], "metrics.json", edit)
    ran = compare(*RUNS)
    assert ran.code == 2
    assert "the evaluations of runs/sweep/version_0 are damaged" in ran.err


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda fit: fit.update(step=8), "runs/cql/version_0 cannot be compared: it is unfinished"),
        (lambda fit: fit.update(inadmissible_actions="guess"), "'guess' is unknown"),
        (lambda fit: fit.pop("evaluations"), None),
    ],
)
def test_what_only_a_checkpoint_tells(compare, edit, said):
    change(RUNS[1], "metrics.json", edit)
    ran = compare(RUNS[1])
    assert ran.code == (2 if said else 0)
    assert said in ran.err if said else "left out of the curves: it kept no" in ran.out


def other(runs, name, old, new):
    """A copy of a run that has another text in one of its files."""
    made = Path(shutil.copytree(runs / "cql" / "version_0", runs / "other" / "version_0"))
    text = (made / name).read_text()
    assert old in text
    (made / name).write_text(text.replace(old, new))
    return made


OTHERS = {
    "data": ("config.yaml", "seed: 42\n  held", "seed: 5\n  held", "by data.seed (42 and 5)"),
    "states": ("config.yaml", "n_states: null", "n_states: 9", "by states and actions"),
    "strategy": ("metrics.json", '"mean"', '"terminate"', "mean in the first and terminate in"),
    "unfinished": ("metrics.json", '"fit"', '"test"', "version_0 cannot be compared: it is unfin"),
    "damaged": ("metrics.json", "{", "", "metrics.json is damaged"),
}


@pytest.mark.parametrize(("name", "old", "new", "said"), OTHERS.values(), ids=OTHERS)
def test_what_cannot_be_compared(compare, runs, name, old, new, said):
    other(runs, name, old, new)
    ran = compare(RUNS[1], "runs/other/version_0", "--output=made")
    assert ran.code == 2
    assert said in ran.err
    assert not Path("made").exists()


def test_refusals_import_no_pytorch(runs, tmp_path):
    """Nor Lightning, nor pandas: they take the time."""
    other(runs, "metrics.json", '"mean"', '"terminate"')
    words = [
        ["compare", RUNS[1], "runs/other/version_0"],
        ["compare", "runs/nowhere"],
        ["compare", RUNS[1], "--output=runs"],
        ["compare", RUNS[1], "--patients=0"],
        ["compare", RUNS[1], "--patient=0"],
        ["report", "runs/other/version_0", "runs/nowhere", "--output=made"],
        ["report", RUNS[1], "--output=runs"],
    ]
    code = f"""
import sys
from sepsis_rl.cli import main
assert [main(words) for words in {words}] == [2] * {len(words)}
print(*sorted(set(sys.modules) & {{"torch", "lightning", "pandas", "icu_sepsis"}}))"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "\n"), ran.stderr
    assert "no run can be used:\n  runs/other/version_0 is left out: inadmissible" in ran.stderr


# -- a hospital's own records ------------------------------------------------------------------


@pytest.fixture
def own(lightning, tmp_path):
    """Two runs on a table of 6 states and 3 actions, one of which has two members and samples."""
    rng = np.random.default_rng(0)
    rows = [
        f"{stay},{rng.integers(6)},{rng.integers(3)},{int(step == 2 and rng.random() < 0.7)}"
        for stay in range(60)
        for step in range(3)
    ]
    Path("stays.csv").write_text("\n".join(["episode,observation,action,reward", *rows]))
    table = ["--data.path=stays.csv", "--data.n_states=6", "--data.n_actions=3"]
    sampling = ["--model.sampled=true", "--model.seed=[1,2]"]
    for config, options in (("cql", []), ("bc", sampling)):
        assert lightning("fit", config, *table, *options).code == 0
    return ["runs/cql/version_0", "runs/bc/version_0"]


@pytest.mark.slow
def test_own_records(own, lightning):
    comparison = compare_policies(describe_comparable(own), patients=10, seed=4)
    names = ["cql", "bc seed=1", "bc seed=2", "random", "most recorded"]
    assert [policy.name for policy in comparison.policies] == names
    assert comparison.scores is None
    data, best = comparison.data, comparison.best
    parts = [Episodes(part, 6, 3) for part in (data.train, data.held_out)]
    values = resampled_values(comparison.policies, parts, resamples=40, seed=4).value
    reach = 1.959964 * (values - values[:, [best]]).std(axis=0, ddof=1)
    supported = comparison.supported.value
    estimate, low, high = comparison.gap
    np.testing.assert_allclose(estimate, supported - supported[best], atol=1e-12)
    np.testing.assert_allclose(high - estimate, reach, rtol=1e-6)
    np.testing.assert_allclose(estimate - low, reach, rtol=1e-6)
    for entrant, value in zip(comparison.entrants, supported, strict=False):
        assert entrant.steps.tolist() == [4, 8, 10]
        assert entrant.curve[-1] == pytest.approx(value, abs=1e-6)  # kept in half the digits
        assert entrant.run == "cql" or np.ptp(entrant.curve) > 0
    ran = lightning.main("compare", *own, "--output=made")
    assert (ran.code, ran.err) == (0, "")
    assert "No environment simulates these patients" in ran.out
    assert "exact %" not in ran.out
    page = Path("made/compare.html").read_text()
    assert "exact %" not in page
    assert "supported_value" in page
    Path("stays.csv").unlink()
    gone = lightning.main("compare", own[0])
    assert gone.code == 2
    assert "runs/cql/version_0 cannot be compared: data.path=stays.csv: there is no" in gone.err

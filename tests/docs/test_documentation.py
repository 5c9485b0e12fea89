"""README and the pages of `docs/`: what they name is there, and what they show runs."""

import dataclasses
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from sepsis_rl import OfflineDataModule, clinician_policy, collect
from sepsis_rl.dynamics import Counts
from sepsis_rl.mdp import TabularMDP

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)")
NAMED_FILE = re.compile(r"`((?:configs|docs|sepsis_rl|benchmarks)/[\w./-]+\.\w+)`")

NOT_RUN = {
    "make": "test_the_named_make_targets_exist; the commands of its recipes are run below",
    "docker": "nothing: it needs a daemon",
    "pip": "nothing: it needs a network; `make test` comes after an installation like it",
    "sbatch": "tests/scenarios/test_slurm.py",
}
"""First words of lines that need another program, a network or hours, and what tests them."""
SEVERAL_DEVICES = "--trainer.num_nodes"
"""Lines with this option are tested by tests/scenarios/test_distributed.py, here to be accepted."""
FIT_COMMANDS = ("fit", "validate", "test", "predict")
SMALL = {
    "collect": ["--episodes=20"],
    "explore": ["--patients=100"],
    "export": ["--member=1"],
    "compare": ["--patients=50"],
    "report": ["--tries=2"],
    "scorecard": ["--episodes=50", "--data_sets=2", "--resamples=2", "--processes=1"],
    "select": ["--resamples=5"],
}
"""What makes the other commands take seconds."""
MADE_BY_THE_READER = ("configs/stays.yaml",)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def shell_lines() -> list[tuple[str, str]]:
    """Every line of every `sh` block, with its page."""
    return [
        (name(page), line)
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]


COMMANDS = sorted(
    {
        shlex.join(shlex.split(line, comments=True))
        for _, line in shell_lines()
        if line.startswith("lightning ") and not line.startswith("lightning --")
    }
)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_named_files_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    missing = [file for file in NAMED_FILE.findall(text) if not (ROOT / file).exists()]
    assert set(missing) <= set(MADE_BY_THE_READER)


def test_every_page_is_in_the_site_and_in_the_readme() -> None:
    site, readme = (ROOT / "mkdocs.yml").read_text(), PAGES[0].read_text()
    for page in PAGES[1:]:
        assert page.name in site
        assert page.stem in ("api", "index") or f"docs/{page.name}" in readme


def test_the_readme_is_short_and_says_what_it_is_not_for() -> None:
    text = PAGES[0].read_text()
    assert len(text.splitlines()) <= 120
    assert "Not for clinical use." in "\n".join(text.splitlines()[:10])


def test_every_shell_line_is_run_or_excused() -> None:
    first_words = {line.split()[0] for _, line in shell_lines()}
    assert first_words <= {"lightning", *NOT_RUN}


def test_the_named_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        code = " ".join([*blocks(page, "sh"), *re.findall(r"`(make [^`]*)`", page.read_text())])
        for words in re.findall(r"\bmake ((?:[a-z-]+ ?)+)", code):
            assert words.split()[0] in targets, page


def test_every_command_is_named(lightning):
    listed = re.findall(r"^  ([a-z]+) ", lightning.main("--help").out, re.MULTILINE)
    assert {command.split()[1] for command in COMMANDS} == {*listed}
    assert all(f"`lightning {command}`" in PAGES[0].read_text() for command in listed)


def git(folder: Path, *words: str) -> str:
    ran = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return ran.stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's clone, in which git may have nothing to show in the end."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    shown = git(tmp_path, "status", "--porcelain").splitlines()
    assert [line for line in shown if not line.startswith("A  ")] == []


@pytest.fixture
def folder(lightning, runs, checkout):
    """A reader's clone with finished runs."""
    for ours, made in (("sweep", "essay-cql"), ("bc", "essay-bc")):
        shutil.copytree(runs / ours, runs / made)
    return checkout


SLOW = (
    "lightning fit --config configs/cql.yaml --model.actions supported --model.min_action_count 5",
    "lightning fit --config configs/cql.yaml --model.alpha '[0.01,0.05]' --model.seed '[1,2,3,4]'",
    "lightning fit --config configs/cql.yaml --model.alpha 0.1 --seed_everything 7 --data.seed 7",
    "lightning fit --config configs/cql.yaml --trainer.logger CSVLogger",
    "lightning fit --config configs/cql.yaml --trainer.max_steps 1000 --evaluation.patients 100000",
    "lightning fit --config configs/sweep.yaml --model.share 1/3",
    "lightning fit --config configs/sweep.yaml --model.share 2/3",
    "lightning fit --config configs/sweep.yaml --model.share 3/3",
    "lightning fit --config configs/sweep.yaml",
    "lightning report runs/essay-cql/version_0 runs/essay-bc/version_0 --output report",
    "lightning report runs/sweep/version_0 runs/bc/version_0 --output report",
    "lightning scorecard runs/cql/version_0 runs/sweep/version_0 --output card",
    "lightning select runs/cql/version_0 runs/sweep/version_0 --truth",
    "lightning select runs/sweep/version_0 runs/cql/version_0 --truth",
)
"""Commands of some seconds; other tests run each of them in another form."""


def test_the_slow_commands_are_still_shown() -> None:
    assert {*SLOW} <= {*COMMANDS}


@pytest.mark.parametrize(
    "line", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in COMMANDS]
)
def test_a_command_runs(line, lightning, folder):
    _, command, *options = shlex.split(line)
    if command not in FIT_COMMANDS:
        ran = lightning.main(command, *options, *SMALL[command])
    elif SEVERAL_DEVICES in options or "--print_config" in options:
        ran = lightning.main(command, *options, "--print_config")
        assert "class_path: sepsis_rl.algorithms." in ran.out
    else:
        if "episodes.npz" in options:
            assert lightning.main("collect", "--episodes=40", "--output=episodes.npz").code == 0
        if "records" in options:
            made = ("--output=records", "--format=minari", "--episodes=40")
            assert lightning.main("collect", *made).code == 0
        if "stays.csv" in options:
            header = "episode,observation,action,reward"
            (folder / "stays.csv").write_text("\n".join([header, *stays()]))
        before = {*folder.glob("runs/*/*/metrics.json")}
        # The finished runs have taken ten steps.
        ran = lightning.main(command, *options, *lightning.small, "--trainer.max_steps=12")
        made = {*folder.glob("runs/*/*/metrics.json")} - before
        assert len(made) == (command == "fit" and "--ckpt_path" not in options)
    assert ran.code == 0, ran.err


def stays():
    """Rows of 40 stays of three decisions: stay, state, action, and whether it was survived."""
    rng = np.random.default_rng(0)
    return [
        f"{stay},{rng.integers(300)},{rng.integers(9)},{int(step == 2 and stay % 2)}"
        for stay in range(40)
        for step in range(3)
    ]


def test_the_config_of_a_table_is_accepted(lightning, tmp_path):
    (config,) = blocks(ROOT / "docs" / "your-own-data.md", "yaml")
    header = "stay_id,cluster,dose,survived"
    (tmp_path / "stays.csv").write_text("\n".join([header, *stays()]))
    (tmp_path / "stays.yaml").write_text(config)
    ours = [option for option in lightning.small if "episodes" not in option]
    ran = lightning.main("fit", "--config=stays.yaml", *ours)
    assert ran.code == 0, ran.err
    assert (tmp_path / "runs" / "stays" / "version_0" / "metrics.json").is_file()


def test_the_readmes_results_without_a_network_are_those_of_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    survival = importlib.import_module("draw_survival").references()
    lines = [line.split(" | ") for line in PAGES[0].read_text().splitlines() if " | " in line]
    shown = {cells[0].removeprefix("| ").partition(":")[0]: cells[1] for cells in lines}
    for row, reference in (
        ("random", "random"),
        ("clinician", "clinician"),
        ("tabular", "tabular, same data"),
        ("optimal", "optimum"),
    ):
        assert shown[row] == f"{100 * survival[reference]:.2f}"


# -- Python ------------------------------------------------------------------------------------


def run_python(page: Path, **known: object) -> dict[str, object]:
    """Runs a page's Python with ten training steps, and returns its names."""
    text = re.sub(r"max_steps=\d+", "max_steps=10", "\n".join(blocks(page, "python")))
    names: dict[str, object] = dict(known)
    exec(compile(text, page, "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:`ModelCheckpoint")
def test_the_readmes_python_runs(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python(ROOT / "README.md")
    assert isinstance(names["data"], OfflineDataModule)
    assert 0.63 < float(capsys.readouterr().out.split()[-1]) < 0.876


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_tutorial_runs_and_says_what_comes_out(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run_python(ROOT / "docs" / "tutorial.md")
    survival = names["survival"]
    assert isinstance(survival, dict)
    shown = {key: f"{100 * value:.2f} %" for key, value in survival.items()}
    text = (ROOT / "docs" / "tutorial.md").read_text()
    assert all(shown[policy] in text for policy in ("clinician", "random", "optimal"))
    assert len(survival) == 6  # two members, each with a name of its own
    assert (checkout / "survival.png").stat().st_size > 10_000
    assert "optimal" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_tutorial_shows_its_own_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    page = (ROOT / "docs" / "tutorial.md").read_text().splitlines()
    ran = importlib.import_module("run_tutorial").run("\n".join(page), tmp_path).splitlines()
    learned = [line.startswith("CQL alpha") for line in page]
    assert sum(learned) == 4
    # Other processors round otherwise, and hundreds of steps make more of it.
    for shown, now, loosely in zip(page, ran, learned, strict=True):
        if not loosely:
            assert now == shown, "python docs/run_tutorial.py"
            continue
        assert now[:20] == shown[:20]
        percent = ([float(n) for n in re.findall(r"\d+\.\d+", line[20:])] for line in (now, shown))
        np.testing.assert_allclose(*percent, atol=4)


def test_the_python_of_off_policy_evaluation_runs(checkout: Path, mdp: TabularMDP) -> None:
    policy = clinician_policy(mdp)
    collect(mdp, policy, episodes=50, seed=1).save("episodes.npz")
    names = run_python(ROOT / "docs" / "off-policy-evaluation.md", table=policy.probabilities)
    assert names["scores"].interval("fqe").estimate.shape == (1,)


def test_counts_of_several_files_add_up_as_shown(checkout: Path, mdp: TabularMDP) -> None:
    policy = clinician_policy(mdp)
    parts = [collect(mdp, policy, episodes=30, seed=seed) for seed in (1, 2)]
    for number, part in enumerate(parts):
        part.save(f"records/part-{number}.npz")
    counts = run_python(ROOT / "docs" / "your-own-data.md")["counts"]
    assert isinstance(counts, Counts)
    assert counts.pairs.sum() == len(parts[0]) + len(parts[1])
    assert counts.n_episodes.tolist() == [60.0]


def test_the_python_of_safety_runs(checkout: Path, mdp: TabularMDP) -> None:
    probabilities = run_python(ROOT / "docs" / "safety.md")["policy"].probabilities
    assert probabilities.shape == (716, 25)
    assert ((probabilities > 0) & (probabilities < 1)).any()


class MDPDataset:
    """d3rlpy 2.8's, as far as its constructor is documented."""

    def __init__(
        self,
        observations,
        actions,
        rewards,
        terminals,
        timeouts=None,
        transition_picker=None,
        trajectory_slicer=None,
        action_space=None,
        action_size=None,
    ) -> None:
        assert observations.shape == (len(actions), 716)
        assert actions.max() < action_size == 25
        assert len(rewards) == len(actions)
        assert not (terminals & timeouts).any()  # which d3rlpy asserts as well
        self.states = observations.argmax(axis=1)
        self.ends = np.flatnonzero(terminals | timeouts)


def test_the_python_of_other_libraries_runs(
    checkout: Path,
    mdp: TabularMDP,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = collect(mdp, clinician_policy(mdp), episodes=50, seed=1)
    both = records.terminated & (records.episode == 3)  # an end in the last step that there is
    dataclasses.replace(records, truncated=both).save("episodes.npz")
    monkeypatch.setitem(sys.modules, "d3rlpy", ModuleType("d3rlpy"))
    stand_in = SimpleNamespace(MDPDataset=MDPDataset)
    monkeypatch.setitem(sys.modules, "d3rlpy.dataset", stand_in)  # type: ignore[arg-type]
    names = run_python(ROOT / "docs" / "fits-in.md")
    dataset = names["dataset"]
    assert isinstance(dataset, MDPDataset)
    np.testing.assert_array_equal(dataset.states, records.observation)
    np.testing.assert_array_equal(dataset.ends, np.flatnonzero(records.terminated))
    stays, survived = re.findall(r"[\d.]+", capsys.readouterr().out)[:2]
    assert int(stays) > 500
    assert 50 < float(survived) <= 100


def test_every_python_block_is_run() -> None:
    pages = {name(page) for page in PAGES if blocks(page, "python")}
    assert pages == {
        "README.md",
        "docs/tutorial.md",
        "docs/fits-in.md",
        "docs/off-policy-evaluation.md",
        "docs/safety.md",
        "docs/your-own-data.md",
    }

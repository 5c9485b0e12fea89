"""The commands beside Lightning's, and what all commands share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import assert_refused

import sepsis_rl
from sepsis_rl.cli.main import BEGINNING, OTHER_COMMANDS, TRAINING_COMMANDS
from sepsis_rl.data import Transitions
from sepsis_rl.runs.untrusted import read_checkpoint

CONFIGS = Path(__file__).parents[2] / "configs"
COMMANDS = [*TRAINING_COMMANDS, *OTHER_COMMANDS]


def run_in_a_process(folder, *words):
    """Runs Python with these words in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(sepsis_rl.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


# -- what all commands share -------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_command(lightning, words):
    ran = lightning.main(*words)
    assert (ran.code, ran.err) == (0, "")
    for command in COMMANDS:
        assert f"\n  {command} " in ran.out


def test_the_version(lightning):
    ran = lightning.main("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"sepsis-rl {sepsis_rl.__version__}\n", "")


OPTIONS = {
    **{
        command: [
            *("--config", "--seed_everything 42", "--ckpt_path", "--model.alpha 0.5", "(CQL)"),
            *("--model.tau 0.005", "(CQL, DQN)", "--model.sampled false", "(BC)", "--model.seed"),
            *("--model.embedding_dim 256", "--data.episodes 5000", "--evaluation.patients 10000"),
            *("--ope.epsilon 0.01", "--checkpoint.save_top_k 3", "--trainer.max_steps 100000"),
            *("--trainer.devices 1", "--trainer.logger.init_args.name run", "--help_all"),
        ]
        for command in TRAINING_COMMANDS
    },
    "select": ["RUNS", "--criterion supported_value", "--truth", "--epsilon", "--clip", "--output"],
    "compare": ["RUNS", "--output", "--patients 10000", "--seed 0"],
    "report": ["RUNS", "--output", "--tries 500"],
    "scorecard": ["RUNS", "--output", "--episodes 1000,5000,20000", "--data_sets 200", "--seed 0"],
    "explore": ["RUNS", "--output", "--patients 10000", "--seed 0"],
    "collect": ["--episodes 5000", "--seed 42", "--policy clinician", "--output"],
    "export": ["--ckpt_path", "--member", "--output"],
}
OPTIONS["predict"] += ["--member 0", "--output"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_lists_its_options_with_their_defaults(lightning, monkeypatch, command):
    """On 80 columns, and nothing is written twice."""
    monkeypatch.setenv("COLUMNS", "80")
    ran = lightning.main(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    for option in OPTIONS[command]:
        assert option in ran.out
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if line.startswith("  --")]
    assert len(names) == len(set(names))


def test_all_of_the_help_on_request(lightning):
    ran = lightning.main("fit", "--help_all")
    assert (ran.code, ran.err) == (0, "")
    for option in ("--trainer.detect_anomaly", "--model.alpha", "--model.sampled", "(type: int"):
        assert option in ran.out


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["nothing"]])
def test_nothing_is_imported_where_nothing_is_done(tmp_path, words):
    code = f"""
import sys
from sepsis_rl.cli import main
code = main({words})
print(*sorted(set(sys.modules) & {{"torch", "jsonargparse", "rich", "lightning"}}))
sys.exit(code)"""
    ran = run_in_a_process(tmp_path, "-c", code)
    assert ran.returncode == (2 if words == ["nothing"] else 0)
    assert ran.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("words", [["fit"], ["scorecard", "--output=card"], ["collect"]])
def test_a_command_says_that_it_has_begun_before_it_imports_anything(tmp_path, words):
    """Once, on the first process, whose number a launcher gives it."""
    code = f"""
import builtins, os, sys
from sepsis_rl.cli import main
original = builtins.__import__
def blocked(name, *arguments, **options):
    if name.partition(".")[0] in ("numpy", "torch", "jsonargparse", "rich", "lightning"):
        raise KeyboardInterrupt
    return original(name, *arguments, **options)
builtins.__import__ = blocked
codes = main({words})
os.environ["LOCAL_RANK"] = "1"
sys.exit(10 * main({words}) + codes)"""
    ran = run_in_a_process(tmp_path, "-c", code)
    assert (ran.stdout, ran.stderr) == ("", f"{BEGINNING}\n")
    assert ran.returncode == 11 * 130 % 256


@pytest.mark.slow
def test_pandas_is_not_imported_for_a_fit(tmp_path, small):
    """It takes half a second; torch may import it by itself."""
    code = f"""
import builtins, sys
original = builtins.__import__
def noted(name, globals=None, *arguments, **options):
    if name == "pandas" and (globals or {{}}).get("__name__", "").startswith("sepsis_rl"):
        raise AssertionError(globals["__name__"])
    return original(name, globals, *arguments, **options)
builtins.__import__ = noted
from sepsis_rl.cli import main
sys.exit(main(["fit", "--config={CONFIGS}/bc.yaml", *{list(small)}, "--trainer.max_steps=1"]))"""
    ran = run_in_a_process(tmp_path, "-c", code)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_the_module_is_the_command(tmp_path):
    """In a process of its own; `gym`'s notice does not reach the user."""
    words = ("-m", "sepsis_rl", "collect", "--episodes=5", "--output=a.npz")
    ran = run_in_a_process(tmp_path, *words)
    assert (ran.returncode, ran.stderr) == (0, f"{BEGINNING}\n")
    assert len(ran.stdout.splitlines()) == 1
    refused = run_in_a_process(tmp_path, *words)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"{BEGINNING}\nlightning: error: ")


# -- collect ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["clinician", "random", "epsilon_clinician"])
def test_collect_writes_a_data_set_that_fit_takes(lightning, policy):
    words = ["--episodes=40", "--seed=3", f"--policy={policy}"]
    ran = lightning.main("collect", *words, "--output=a.npz")
    assert (ran.code, ran.err) == (0, "")
    data = Transitions.load("a.npz")
    assert data.n_episodes == 40
    assert data.provenance.seed == 3
    for text in ("a.npz", "40 episodes", f"{len(data)} transitions"):
        assert text in ran.out
    assert lightning.main("collect", *words, "--output=b.npz").code == 0
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    assert lightning("fit", "cql", "--data.path=a.npz", "--trainer.max_steps=2").code == 0
    checkpoint = read_checkpoint("runs/cql/version_0/checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["output"]),
        (["--output=a.npz", "--episodes=0"], ["episodes", "0"]),
        (["--output=a.npz", "--episodes=many"], ["episodes", "many"]),
        (["--output=a.npz", "--seed=-1"], ["seed", "-1"]),
        (["--output=a.npz", "--policy=nurse"], ["policy", "nurse", "clinician"]),
        (["--output=a.npz", "--policy=epsilon_clinician", "--epsilon=2"], ["epsilon", "2"]),
        (["--output=a.npz", "--epsiodes=3"], ["epsiodes", "episodes"]),
        (["--output=a.npz", "extra"], ["extra"]),
        (["--output=taken.npz", "--episodes=5"], ["--output taken.npz exists"]),
    ],
)
def test_what_collect_refuses(lightning, tmp_path, words, said):
    Path("taken.npz").write_text("mine")
    assert_refused(lightning.main("collect", *words), *said)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.npz"]
    assert Path("taken.npz").read_text() == "mine"


# -- commands over runs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("report", [], ["output"]),
        ("report", ["--output=card"], ["needs runs", "runs/sweep/version_0"]),
        ("report", ["nowhere", "--output=card", "--tries=0"], ["--tries", "0", "1 to"]),
        ("report", ["nowhere", "--output=card", "--scorecard"], ["scorecard"]),
        ("select", [], ["needs runs"]),
        ("explore", ["--output=page.html"], ["needs runs", "runs/sweep/version_0"]),
        ("scorecard", [], ["output"]),
        ("scorecard", ["--output=card", "--episodes=few"], ["--episodes", "few", "1000,5000"]),
        ("scorecard", ["--output=card", "--data_sets=1"], ["--data_sets", "1", "2 to"]),
        ("scorecard", ["nowhere", "--output=card"], ["nowhere", "is no run"]),
    ],
)
def test_what_commands_over_runs_refuse(lightning, tmp_path, command, words, said):
    assert_refused(lightning.main(command, *words), *said)
    assert list(tmp_path.iterdir()) == []

"""The script that a shell completes `lightning` with, written and used as docs/usage.md says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import assert_refused

from sepsis_rl.cli.main import OTHER_COMMANDS, TRAINING_COMMANDS

ROOT = Path(__file__).parents[2]
COMPLETE = """
source "$1"; shift
COMP_WORDS=(lightning "$@") COMP_CWORD=$#
_shtab_lightning lightning "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """What the documented lines leave in a home folder."""
    home = tmp_path_factory.mktemp("home")
    (lines,) = re.findall(r"```bash\n(.*?)```", (ROOT / "docs/usage.md").read_text(), re.DOTALL)
    program = f'set -e; lightning() {{ {sys.executable} -m sepsis_rl "$@"; }}\n'
    subprocess.run(["bash", "-c", program + lines], env={**os.environ, "HOME": home}, check=True)
    (written,) = (path for path in home.rglob("completions/*") if path.is_file())
    assert written.name == "lightning"  # by which bash-completion finds it
    return written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ([""], [*TRAINING_COMMANDS, *OTHER_COMMANDS]),
        (["sc"], ["scorecard"]),
        (["--v"], ["--version"]),
        (["fit", "--data.see"], ["--data.seed"]),
        (["fit", "--config", "configs/sw"], ["configs/sweep.yaml"]),
        (["fit", "--config", "c.yaml", "--model.alph"], ["--model.alpha"]),
        (["fit", "--trainer.logger.na"], ["--trainer.logger.name"]),
        (["fit", "--model.actions", ""], ["all", "supported", "admissible"]),
        (["predict", "--mem"], ["--member"]),
        (["test", "--ckpt_path", "READ"], ["README.md"]),
        (["collect", "--format", ""], ["npz", "minari"]),
        (["report", "tests/da"], ["tests/data"]),
        (["select", "--tru"], ["--truth"]),
    ],
)
def test_bash_completes(script, words, completed):
    ran = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", script, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == completed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_reads_its_own(lightning, tmp_path):
    ran = lightning.main("--print_completion", "zsh")
    assert ran.out.startswith("#compdef lightning\n")
    (tmp_path / "_lightning").write_text(ran.out)
    assert subprocess.run(["zsh", "-n", tmp_path / "_lightning"], check=True).returncode == 0


def test_an_unknown_shell_is_refused(lightning):
    assert_refused(lightning.main("--print_completion", "cmd"), "cmd", "bash, zsh")
    assert_refused(lightning.main("--print_completion"), "bash, zsh")

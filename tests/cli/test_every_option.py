"""Every option of every command, given what it cannot be: one message or a result, no trace."""

import collections
import contextlib
import io
import shutil
import sys
import zlib
from pathlib import Path

import pytest
import yaml

from sepsis_rl.cli import completion, main
from sepsis_rl.cli.assembly import SepsisCLI
from sepsis_rl.cli.commands import run_command
from sepsis_rl.cli.main import OTHER_COMMANDS, TRAINING_COMMANDS

CONFIG = Path(__file__).parents[2] / "configs/cql.yaml"
ODD = {
    "null": "null",
    "nothing": "",
    "-1": "-1",
    "0": "0",
    "1.5": "1.5",
    "2**64": str(2**64),
    "nan": "nan",
    "inf": "inf",
    "text": "abc",
    "list": "[1, x]",
    "dict": "{a: 1}",
    "unicode": "ünï™",
    "control": "a\x00\x1b[31m",
    "long": "a" * 100_000,
}
RUNS = "runs/sweep/version_0"
CHECKPOINT = "runs/cql/version_0/checkpoints/last.ckpt"
COMPLETE = {
    "select": [RUNS, "--resamples=2"],
    "compare": [RUNS, "--patients=50"],
    "explore": [RUNS, "--output=e.html", "--patients=100"],
    "report": [RUNS, "--output=r", "--tries=1"],
    "scorecard": [
        RUNS,
        "--output=s",
        "--episodes=50",
        "--data_sets=2",
        "--resamples=2",
        "--processes=1",
    ],
    "collect": ["--episodes=5", "--output=c.npz"],
    "export": [f"--ckpt_path={RUNS}/checkpoints/last.ckpt", "--member=0", "--output=m.ckpt"],
}
"""Words that make a command run, and short."""
NOT_SWEPT = ("config", "help", "help_all", "print_config", "print_completion")


def options_of(command: str) -> list[str]:
    """From its own parser, so that a new one is here too."""
    if command in TRAINING_COMMANDS:
        out = io.StringIO()
        words = [command, f"--config={CONFIG}", "--print_config"]
        with (
            contextlib.redirect_stdout(out),
            contextlib.suppress(SystemExit),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "argv", ["lightning"])  # of which Lightning would warn
            SepsisCLI(words)
        return [*dict.fromkeys([*_flat(yaml.safe_load(out.getvalue())), "ckpt_path"])]
    with pytest.raises(completion.HandedOver) as handed:
        run_command(command, [completion.ASKED_FOR_PARSER])
    actions = handed.value.parser._actions
    return [action.dest for action in actions if action.option_strings]


def _flat(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif key != "class_path":
            yield f"{prefix}{key}".replace("model.init_args", "model")


def is_drawn(*case: str) -> bool:
    """One in two hundred and fifty, the same each time."""
    return zlib.crc32(" ".join(case).encode()) % 250 == 0


# Other data than the checkpoint's are warned of, and are a result.
pytestmark = pytest.mark.filterwarnings("ignore:the checkpoint was trained on other data")


@pytest.fixture
def wrong(finished_runs, tmp_path, small, count):
    """What goes wrong where an option is given what it cannot be; an empty text if nothing."""
    codes = collections.Counter()
    training = [f"--config={CONFIG}", *small, "--trainer.max_steps=2"]

    def wrong(command, option, odd):
        folder = tmp_path / str(codes.total())
        folder.mkdir()
        if command != "fit":  # such as select, which leaves its choice in the run's folder
            for name in ("cql", "sweep"):
                shutil.copytree(finished_runs / "runs" / name, folder / "runs" / name)
        before = set(folder.rglob("*"))
        words = [command, *COMPLETE.get(command, ())]
        if command == "fit":
            words += [*training, "--trainer.logger.init_args.save_dir=new"]
        elif command in TRAINING_COMMANDS:
            words += [*training, f"--ckpt_path={CHECKPOINT}"]
        err = io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = main([*words, f"--{option}={ODD[odd]}"])
            except Exception as error:
                code = f"{type(error).__name__}: {error}"
        codes[code] += 1
        left = sorted(str(path) for path in set(folder.rglob("*")) - before)
        shutil.rmtree(folder)
        return "" if code == 0 else _wrong_with(code, err.getvalue(), left, option, odd)

    yield wrong
    count(f"odd command lines: {codes.total():,}, {codes[2]:,} refused, {codes[0]:,} ran")


def _wrong_with(code, screen, left, option, odd):
    """What is wrong with how a command was refused."""
    if isinstance(code, str):
        return code
    message = screen.strip().splitlines()[-1]
    if code != 2 or "Traceback" in screen:
        return f"exit code {code}: {message}"
    if left:
        return f"leaves {left}"
    # Of a mapping its wrong key is named.
    names = [option.rsplit(".", 1)[-1], *(["checkpoint"] * (option == "ckpt_path"))]
    is_named = any(name in message for name in names) or (odd == "dict" and "'a'" in message)
    if not is_named or len(message) > 3000:
        return f"says {message}"
    return "" if message.isprintable() else f"prints {message!r}"


def assert_nothing_goes_wrong(wrong, cases):
    found = {case: told for case in cases if (told := wrong(*case))}
    assert not found, "\n".join(f"{case}: {told}" for case, told in found.items())


GROUPS = ("model", "data", "evaluation", "ope", "checkpoint", "trainer", "")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("command", TRAINING_COMMANDS)
def test_every_option_of_training(wrong, command, group):
    names = [name for name in options_of(command) if name not in NOT_SWEPT]
    own = [name for name in names if name.rpartition(".")[0].partition(".")[0] == group]
    assert own
    assert_nothing_goes_wrong(wrong, [(command, name, odd) for name in own for odd in ODD])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", OTHER_COMMANDS)
def test_every_option_of_the_other_commands(wrong, command):
    names = [name for name in options_of(command) if name not in NOT_SWEPT]
    assert names
    cases = [(command, name, odd) for name in names for odd in ODD]
    assert_nothing_goes_wrong(wrong, cases)


def test_some_options_of_all_commands(wrong):
    """Those of the two above that a hash draws."""
    cases = [
        (command, name, odd)
        for command in (*TRAINING_COMMANDS, *OTHER_COMMANDS)
        for name in options_of(command)
        for odd in ODD
        if name not in NOT_SWEPT and is_drawn(command, name, odd)
    ]
    assert len(cases) > 15
    assert_nothing_goes_wrong(wrong, cases)

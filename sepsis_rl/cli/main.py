"""The `lightning` command: which words lead where.

PyTorch and Lightning take seconds to import, so nothing of them is imported here: a command first
says that it has begun, and only then imports what it needs.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final

from sepsis_rl import __version__
from sepsis_rl.errors import InputError, LostProcessError, printable

TRAINING_COMMANDS: Final = {
    "fit": "train: lightning fit --config configs/cql.yaml\n"
    "go on: lightning fit --config configs/cql.yaml --ckpt_path last",
    "validate": "score a checkpoint: lightning validate --config C --ckpt_path P",
    "test": "the same on other patients, met by nothing before",
    "predict": "write a checkpoint's policy as policy.csv",
}
"""What `sepsis_rl.cli.training` runs."""

OTHER_COMMANDS: Final = {
    "select": "choose among checkpoints, members and runs from recorded data alone",
    "compare": "runs side by side: figures, paired differences, settings that differ",
    "report": "the essay's figures from finished runs, next to the exact truth",
    "scorecard": "how far to trust estimates from recorded data",
    "explore": "one page: what policies do state by state and patient by patient",
    "collect": "simulate episodes into a file",
    "export": "take one member out of a sweep's checkpoint",
}
"""What `sepsis_rl.cli.commands` runs."""

BEGINNING: Final = f"sepsis-rl {__version__}: loading PyTorch, which takes some seconds"
_HELP_OPTIONS = ("-h", "--help", "--help_all")
# Launchers and Lightning tell each process of a run which one it is.
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Words after the program's name; the command line's own by default.

    Returns:
        The exit code: 0; 2 for input that cannot be used; 1 for a file, memory or another process
        that failed; each after one message on stderr. 128 and the signal's number for a run that
        was stopped.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _dispatch(words)
    except InputError as error:
        return _fail(2, str(error))
    except OSError as error:
        file = error.filename
        named = f"{os.fsdecode(file) if isinstance(file, bytes) else file}: " if file else ""
        return _fail(1, f"{named}{error.strerror or error}")
    except LostProcessError as error:
        return _fail(1, str(error))
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        return _fail(
            1,
            f"there is not enough memory: {reason}. Fewer members at once (--model.share 1/2), a "
            "smaller network, batch or number of patients needs less",
        )
    except KeyboardInterrupt:  # before a fit could take it
        return 128 + signal.SIGINT
    except SystemExit as exit_:  # argparse's way to end --help
        return int(exit_.code or 0)
    return 0


def _dispatch(words: list[str]) -> None:
    command = words[0] if words else "--help"
    if command in _HELP_OPTIONS:
        print(_help(), end="")
    elif command == "--version":
        print(f"sepsis-rl {__version__}")
    elif command in TRAINING_COMMANDS or command in OTHER_COMMANDS:
        is_first_process = all(os.environ.get(name, "0") == "0" for name in _RANK_VARIABLES)
        if is_first_process and not set(words).intersection(_HELP_OPTIONS):
            print(BEGINNING, file=sys.stderr, flush=True)
        _run(words)
    elif command == "--print_completion":
        from sepsis_rl.cli.completion import completion_script

        print(completion_script(words[1:], [*TRAINING_COMMANDS, *OTHER_COMMANDS], _run))
    else:
        commands = ", ".join({**TRAINING_COMMANDS, **OTHER_COMMANDS})
        raise InputError(f"there is no command '{command}'; accepted: {commands}")


def _run(words: list[str]) -> None:
    if words[0] in TRAINING_COMMANDS:
        from sepsis_rl.cli.training import run

        run(words)
    else:
        from sepsis_rl.cli.commands import run_command

        run_command(words[0], words[1:])


def _help() -> str:
    lines = ["lightning COMMAND [OPTIONS]   (also: sepsis-rl, python -m sepsis_rl)", ""]
    for command, about in {**TRAINING_COMMANDS, **OTHER_COMMANDS}.items():
        first, *rest = about.split("\n")
        lines += [f"  {command:11}{first}", *(f"  {'':11}{line}" for line in rest)]
    lines += [
        "",
        "lightning COMMAND --help lists the options of a command.",
        "lightning --print_completion bash (or zsh, ...) writes a script that completes them.",
    ]
    return "\n".join(lines) + "\n"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Shows what is said, and not the line of code that says it."""
    print(f"lightning: warning: {printable(str(message))}", file=sys.stderr)


def _fail(code: int, message: str) -> int:
    print(f"lightning: error: {printable(message)}", file=sys.stderr)
    return code


def _is_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch's error on the CPU has no class of its own."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text

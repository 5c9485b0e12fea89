"""The `lightning` command: which words lead where.

Lightning takes seconds to import, so only the commands that need it do.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser
from rich.console import Console

from sepsis_rl.cli.messages import explain
from sepsis_rl.data.collection import PolicyName, behavior_policy, collect
from sepsis_rl.errors import InputError, LostProcessError
from sepsis_rl.mdp import load_icu_sepsis

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")

HELP = """\
[bold]lightning[/] COMMAND [OPTIONS]   (also: sepsis-rl, python -m sepsis_rl)

  [bold]fit[/]       train: lightning fit --config configs/cql.yaml
            go on:  lightning fit --config configs/cql.yaml --ckpt_path last
  [bold]validate[/]  score a checkpoint: lightning validate --config C --ckpt_path P
  [bold]test[/]      the same on other patients, met by nothing before
  [bold]predict[/]   write a checkpoint's policy as policy.csv
  [bold]select[/]    choose among checkpoints, members and runs from recorded data alone
  [bold]report[/]    the essay's figures from finished runs, next to the exact truth
            --scorecard: how far to trust estimates from recorded data
  [bold]collect[/]   simulate episodes into a file
  [bold]export[/]    take one member out of a sweep's checkpoint

lightning COMMAND --help lists the options of a command.
"""


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
        if not words or words[0] in ("-h", "--help"):
            Console(highlight=False).print(HELP, end="")
        elif words[0] == "collect":
            _collect(words[1:])
        elif words[0] == "export":
            _export(words[1:])
        elif words[0] == "select":
            _select(words[1:])
        elif words[0] == "report":
            _report(words[1:])
        elif words[0] in LIGHTNING_COMMANDS or words[0].startswith("-"):
            from sepsis_rl.cli.training import run

            run(words)
        else:
            commands = ", ".join([*LIGHTNING_COMMANDS, "select", "report", "collect", "export"])
            raise InputError(f"there is no command '{words[0]}'; accepted: {commands}")
    except InputError as error:
        print(f"lightning: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        named = f"{_name(error.filename)}: " if error.filename else ""
        print(f"lightning: error: {named}{error.strerror or error}", file=sys.stderr)
        return 1
    except LostProcessError as error:
        print(f"lightning: error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        print(
            f"lightning: error: there is not enough memory: {_first_line(error)}. Fewer members at "
            "once (--model.share 1/2), a smaller network, batch or number of patients needs less",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:  # before a fit could take it
        return 128 + signal.SIGINT
    except SystemExit as exit_:  # argparse's way to end --help
        return int(exit_.code or 0)
    return 0


def _is_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch's error on the CPU has no class of its own."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _name(file: str | bytes | int) -> str:
    return os.fsdecode(file) if isinstance(file, str | bytes) else str(file)


def _collect(words: list[str]) -> None:
    parser = _CommandParser(
        prog="lightning collect", allow_abbrev=False, description="Simulate episodes into a file."
    )
    parser.add_argument("--output", type=str, required=True, help="file to write, .npz")
    parser.add_argument("--episodes", type=int, default=5000, help="how many (default: 5000)")
    parser.add_argument("--seed", type=int, default=42, help="same seed, same bytes (default: 42)")
    parser.add_argument(
        "--policy", type=PolicyName, default="clinician", help="whose decisions are recorded"
    )
    parser.add_argument(
        "--epsilon", type=float, default=0.1, help="share of random actions of epsilon_clinician"
    )
    options = parser.parse_args(words)
    if Path(options.output).exists():
        raise InputError(f"--output {options.output} exists already; give another name")
    mdp = load_icu_sepsis()
    policy = behavior_policy(mdp, options.policy, epsilon=options.epsilon)
    data = collect(mdp, policy, episodes=options.episodes, seed=options.seed)
    data.save(options.output)
    survived = 100 * float((data.returns() > 0).mean())
    Console().print(
        f"{options.output}: {data.n_episodes:,} episodes, {len(data):,} transitions, "
        f"{survived:.1f} % survived",
        soft_wrap=True,
    )


def _export(words: list[str]) -> None:
    from sepsis_rl.runs.members import export_member

    parser = _CommandParser(
        prog="lightning export",
        allow_abbrev=False,
        description="Take one member out of a sweep's checkpoint.",
    )
    parser.add_argument("--ckpt_path", type=str, required=True, help="checkpoint of the sweep")
    parser.add_argument("--member", type=int, required=True, help="which one, counted from 0")
    parser.add_argument("--output", type=str, required=True, help="checkpoint to write")
    options = parser.parse_args(words)
    export_member(options.ckpt_path, options.member, options.output)
    Console().print(f"{options.output}: member {options.member}", soft_wrap=True)


def _select(words: list[str]) -> None:
    from sepsis_rl.cli.training import quiet
    from sepsis_rl.ope.criteria import Criterion
    from sepsis_rl.ope.options import OffPolicyOptions
    from sepsis_rl.runs.selection import select

    quiet()
    parser = _CommandParser(
        prog="lightning select",
        allow_abbrev=False,
        description="Choose among checkpoints, members and runs from recorded data alone: compared "
        "on the held-out episodes, told from the report's.",
    )
    parser.add_argument(
        "runs", type=str, nargs="+", help="folders of runs, such as runs/cql/version_0"
    )
    parser.add_argument(
        "--criterion", type=Criterion, default="fqe", help="what is largest for the chosen one"
    )
    parser.add_argument(
        "--truth",
        action="store_true",
        help="also print exact survival, and what each criterion and chance lose to the best",
    )
    parser.add_class_arguments(OffPolicyOptions)
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="file to write; by default selection.json in the folder that holds all runs, or "
        "selection-1.json and so on",
    )
    given = parser.parse_args(words).as_dict()
    names = [field.name for field in dataclasses.fields(OffPolicyOptions)]
    options = OffPolicyOptions(**{name: given.pop(name) for name in names})
    select(given.pop("runs"), options=options, **given)


def _report(words: list[str]) -> None:
    from sepsis_rl.cli.training import quiet

    quiet()
    parser = _CommandParser(
        prog="lightning report",
        allow_abbrev=False,
        description="Write the essay's figures from finished runs, next to the exact truth: a "
        "page, pictures, and tables of every number behind them. With --scorecard: hold estimates "
        "from recorded data against policies of known value, on many simulated data sets; "
        "stopped, the same command goes on.",
    )
    parser.add_argument(
        "runs", type=str, nargs="*", help="folders of runs, such as runs/sweep/version_0"
    )
    parser.add_argument("--output", type=str, required=True, help="folder to write to")
    parser.add_argument(
        "--tries",
        type=int,
        default=500,
        help="how often the essay's protocol is simulated (default: 500)",
    )
    parser.add_argument(
        "--scorecard",
        action="store_true",
        help="judge estimators on the runs' policies and built-in ones; for this alone:",
    )
    parser.add_argument(
        "--episodes",
        type=str,
        default="1000,5000,20000",
        help="sizes of the data sets (default: 1000,5000,20000)",
    )
    parser.add_argument(
        "--data_sets", type=int, default=200, help="how many of each size (default: 200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data sets")
    parser.add_argument(
        "--resamples", type=int, default=100, help="bootstrap resamples of an interval"
    )
    parser.add_argument(
        "--processes", type=int | None, default=None, help="side by side; all cores by default"
    )
    options = parser.parse_args(words)
    if not options.scorecard:
        from sepsis_rl.report.assembly import write_report

        if not options.runs:
            raise InputError("lightning report needs runs, such as runs/sweep/version_0")
        write_report(options.runs, Path(options.output), tries=options.tries)
        return
    try:
        episodes = [int(size) for size in options.episodes.split(",")]
    except ValueError as error:
        raise InputError(
            f"--episodes {options.episodes} cannot be used: give sizes such as 1000,5000,20000"
        ) from error
    from sepsis_rl.scorecard.assembly import scorecard

    scorecard(
        options.runs,
        Path(options.output),
        episodes=episodes,
        data_sets=options.data_sets,
        seed=options.seed,
        resamples=options.resamples,
        processes=options.processes,
    )


class _CommandParser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        names = [action.dest for action in self._actions]
        raise InputError(explain(message, names))


if __name__ == "__main__":
    sys.exit(main())

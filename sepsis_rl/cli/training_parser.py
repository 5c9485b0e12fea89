"""The parser of Lightning's commands: its help, and errors that are one message."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action
from pathlib import Path
from typing import Any, Final, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from sepsis_rl.cli.help import Option, SentenceFormatter, merged, options_of, print_options
from sepsis_rl.cli.limits import check_config
from sepsis_rl.cli.messages import explain, input_error_behind, option_names
from sepsis_rl.errors import InputError
from sepsis_rl.loggers import RunLogger
from sepsis_rl.runs.checkpoints import ALGORITHMS

SHOWN: Final = {
    "checkpoint": ("monitor", "mode", "save_top_k", "save_weights_only"),
    "trainer": (
        "max_steps",
        "val_check_interval",
        "log_every_n_steps",
        "gradient_clip_val",
        "accumulate_grad_batches",
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "precision",
    ),
}
"""Options of Lightning's classes that the short help shows; of other groups it shows all."""


class TrainingParser(LightningArgumentParser):
    """The parser of Lightning's commands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            *args,
            allow_abbrev=False,  # a typo is no abbreviation
            formatter_class=SentenceFormatter,
            **kwargs,
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises one message, without a screen of usage."""
        models = [key for options in _model_options().values() for key in options]
        raise input_error_behind(ex) or InputError(explain(message, [*models, *option_names(self)]))

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Reads a config that may come from anybody, and says in which file an error is."""
        try:
            check_config(Path(cfg_path))
            return super().parse_path(cfg_path, *args, **kwargs)
        except InputError as error:
            raise InputError(f"{cfg_path}: {error}") from error

    def dump(self, *args: Any, with_comments: bool = False, **kwargs: Any) -> str:
        """Writes a config; with comments, blank lines stand between groups alone."""
        text: str = super().dump(*args, with_comments=with_comments, **kwargs)
        return re.sub(r"\n\n(?= +#)", "\n", text) if with_comments else text

    def print_help(self, file: Any = None) -> None:
        """Prints the options that people use, with their defaults."""
        command = str(self.prog).split()[-1]
        groups: dict[str, list[Option]] = {
            "": [],
            "model (CQL, DQN or BC)": merged(_model_options()),
        }
        options = options_of(self, self.get_defaults())
        for key, option in options.items():
            group = key.rpartition(".")[0]
            if key != "model" and group not in SHOWN:
                groups.setdefault(group, []).append(option)
        for group, names in SHOWN.items():
            groups[group] = [options[f"{group}.{name}"] for name in names]
        groups["trainer"] += options_of(
            _class_parser(RunLogger, "trainer.logger.init_args")
        ).values()
        print_options(
            f"lightning {command} --config FILE [OPTIONS]\n\n{self.description}",
            groups.items(),
            f"lightning {command} --config FILE --print_config writes all settings as a config\n"
            f"lightning {command} --help_all shows every option of Lightning's",
        )

    def print_full_help(self) -> None:
        """Prints every option with its type and default, and the models' after them."""
        self.formatter_class = DefaultHelpFormatter
        super().print_help()
        for algorithm in ALGORITHMS.values():
            _class_parser(algorithm, "model").print_help()


class HelpAll(Action):
    """The option `--help_all`."""

    def __init__(self, option_strings: list[str], dest: str = SUPPRESS, **kwargs: Any) -> None:
        kwargs |= {"nargs": 0, "default": SUPPRESS, "help": "Show every option and exit."}
        super().__init__(option_strings, dest=SUPPRESS, **kwargs)

    def __call__(self, parser: Any, *args: Any) -> None:
        """Prints the full help and ends the program."""
        parser.print_full_help()
        parser.exit()


def _class_parser(cls: type, prefix: str) -> ArgumentParser:
    parser = ArgumentParser(prog=cls.__name__, add_help=False)
    parser.add_class_arguments(cls, prefix, fail_untyped=False)
    return parser


def _model_options() -> dict[str, dict[str, Option]]:
    """By algorithm, the options of its constructor by key."""
    return {name: options_of(_class_parser(cls, "model")) for name, cls in ALGORITHMS.items()}


def configs_first(words: list[str]) -> list[str]:
    """The words of a command line with its `--config FILE` first, which the others override.

    Args:
        words: The command, and its options in any order.
    """
    command, *options = words
    configs: list[str] = []
    others: list[str] = []
    while options:
        word = options.pop(0)
        found = configs if word == "--config" or word.startswith("--config=") else others
        found.append(word)
        if word == "--config" and options:
            configs.append(options.pop(0))
    return [command, *configs, *others]

"""Running Lightning's commands, and telling what went wrong in them."""

from __future__ import annotations

import re

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException
from torch.distributed import DistError

from sepsis_rl.cli.assembly import SepsisCLI
from sepsis_rl.cli.messages import input_error_behind, logger_error_behind
from sepsis_rl.cli.quiet import quiet
from sepsis_rl.errors import InputError, LostProcessError


def run(words: list[str]) -> None:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        words: The command and its options.

    Raises:
        InputError: What was given cannot be used.
        LostProcessError: Another process of the run ended.
    """
    quiet()
    try:
        SepsisCLI(words)
    except MisconfigurationException as error:
        raise InputError(str(error)) from error
    except OmegaConfBaseException as error:  # raised while ${...} is resolved
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    except ValueError as error:  # jsonargparse wraps what a constructor raises
        known = input_error_behind(error) or logger_error_behind(error)
        raise known or error from error.__cause__
    except RuntimeError as error:
        if not _is_of_processes(error):
            raise
        reason = re.sub(r"^\[[^\]]*\] ", "", str(error).splitlines()[0])  # a line of C++
        raise LostProcessError(
            f"another process of this run ended or cannot be reached any more: {reason}"
        ) from error


def _is_of_processes(error: RuntimeError) -> bool:
    """Whether it tells of another process; gloo's errors have no class of their own."""
    return isinstance(error, DistError) or re.search("gloo|Connection", str(error)) is not None

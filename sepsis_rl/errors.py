"""Exceptions that are not a fault of this program, and messages that quote what anybody wrote."""

import re


class InputError(ValueError):
    """A value, file or option that cannot be used.

    The message says what is wrong, where, and what is accepted. The command line prints it alone
    and exits with code 2; from Python it is an ordinary `ValueError`.
    """


class LostProcessError(RuntimeError):
    """A run on several processes lost one of them, and ends with exit code 1."""


def printable(text: str) -> str:
    """A message without control characters, in which no value is echoed at length.

    Args:
        text: It may quote what anybody has written.
    """
    seen = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return re.sub(r"\S{400,}", lambda found: f"{found[0][:60]}...", seen)

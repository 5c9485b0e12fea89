"""Exceptions that are not a fault of this program."""


class InputError(ValueError):
    """A value, file or option that cannot be used.

    The message says what is wrong, where, and what is accepted. The command line prints it alone
    and exits with code 2; from Python it is an ordinary `ValueError`.
    """


class LostProcessError(RuntimeError):
    """A run on several processes lost one of them, and ends with exit code 1."""

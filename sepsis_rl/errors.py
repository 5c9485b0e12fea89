"""The one exception that means "what was given is wrong", as opposed to a fault of this program."""


class InputError(ValueError):
    """A value, file or option that cannot be used.

    The message says what is wrong, where, and what is accepted. The command line prints it alone
    and exits with code 2; from Python it is an ordinary `ValueError`.
    """

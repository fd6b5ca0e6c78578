"""The one exception that means: the words or the input are wrong, not the program."""

from __future__ import annotations


class InputError(ValueError):
    """A user's input cannot be used.

    The message is one line that says what is wrong, where, and how to mend it. The command line prints it
    on stderr and exits with code 2; library callers catch it like any ``ValueError``.
    """

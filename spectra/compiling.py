"""Compiling functions with Numba: the machine code is kept on disk where there is a folder for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import TypeVar, cast

from numba import njit

logger = logging.getLogger("ionbed")

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function, signature: str | None = None, *, fastmath: bool | set[str] = False) -> Function:
    """Compile ``function``, which then releases Python's lock, and keep the machine code for the next process.

    Numba knows what it kept by the text of the function's own file: where a function calls one of another file, a
    change of that one is not seen.

    Parameters
    ----------
    function : callable
    signature : str, optional
        For which it is compiled at once; by default at the first call with each signature.
    fastmath : bool or set of str
        As of `numba.njit`.
    """
    try:
        made = njit(signature, cache=True, nogil=True, fastmath=fastmath)(function)
    except RuntimeError:  # neither beside the source nor at home is there a folder that may be written to
        _tell_that_nothing_is_kept()
        made = njit(signature, nogil=True, fastmath=fastmath)(function)
    return cast(Function, made)


@cache
def _tell_that_nothing_is_kept() -> None:
    logger.warning(
        "Numba has no folder to keep compiled code in, and every process compiles it anew, which takes some seconds; "
        "name one that can be written to: NUMBA_CACHE_DIR"
    )

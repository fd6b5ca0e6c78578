"""How one of several processes ends."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn


def end_process(code: int = 0) -> NoReturn:
    """End this process; one of several that `torchrun` started ends without Python's finalisation.

    A thread of gloo's that lets go of its last tensor meanwhile would abort the process
    (https://github.com/pytorch/pytorch/issues/190489), and with it a finished run. What is registered with `atexit`
    is done, and what was printed is written. A script of one's own that trains in several processes ends by this too.

    Parameters
    ----------
    code : int
        The exit code.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        raise SystemExit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)

"""Work that one process of a run does while the others wait, however long it takes, and errors that end all of them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from accelerate.utils import broadcast_object_list, gather_object

from ..errors import InputError
from .processes import process_state

T = TypeVar("T")

PULSE = 10.0
"""Seconds between signs of life of the process that works."""
PATIENCE = 900.0
"""Seconds without a sign of life after which the others give up; networked file systems show a sign late."""
FAILED = "failed"


def main_first(work: Callable[[], T], folder: Path) -> T:
    """Do ``work`` on the main process, then on all others, who wait for it without any limit of time.

    They watch for a file in ``folder``, which all must see: a collective would be given up by the backend after some
    minutes, and the first look at a large data set takes longer.

    Raises
    ------
    InputError
        By ``work``, in one process: that one raises it, the others leave quietly with the same exit code, 2.
    RuntimeError
        The main process has died or has failed with another error.
    """
    state = process_state()
    if state.num_processes == 1:
        return work()
    token, refused = _begun(folder)
    pulse, end = folder / f".working-{token}", folder / f".finished-{token}"
    if refused:
        raise_in_all(InputError(refused) if state.is_main_process else None)
    result: T | None = None
    error: InputError | None = None
    try:
        if state.is_main_process:
            with _signs_of_life(pulse, end):
                result = work()
        elif _finished(pulse, end):
            result = work()
    except InputError as caught:
        error = caught
    raise_in_all(error)
    if state.is_main_process:
        end.unlink(missing_ok=True)
    return result  # type: ignore[return-value]


def in_all(work: Callable[[], T]) -> T:
    """Do ``work`` on every process at once; if one refuses it, all end as in `main_first`, and none waits for it."""
    result: T | None = None
    error: InputError | None = None
    try:
        result = work()
    except InputError as caught:
        error = caught
    raise_in_all(error)
    return result  # type: ignore[return-value]


def from_main(work: Callable[[], T]) -> T:
    """Do ``work`` on the main process alone and return its answer on every one; an `InputError` ends all, as above."""
    answer = [in_all(lambda: work() if process_state().is_main_process else None)]
    broadcast_object_list(answer)
    return answer[0]  # type: ignore[return-value]


def raise_in_all(error: InputError | None) -> None:
    """End all processes if one has an error: the first that has one raises it, the others exit with code 2."""
    state = process_state()
    errors = gather_object([error is not None])
    if not any(errors):
        return
    if error is not None and errors.index(True) == state.process_index:
        raise error
    raise SystemExit(2)


def _begun(folder: Path) -> tuple[str, str]:
    """Return a token of this attempt (files of an earlier one mean nothing), and why there can be no folder."""
    told = [uuid.uuid4().hex, ""]
    try:
        if process_state().is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        told[1] = f"{folder}: cannot be made ({error.strerror}); choose another output"
    broadcast_object_list(told)
    return told[0], told[1]


@contextmanager
def _signs_of_life(pulse: Path, end: Path) -> Iterator[None]:
    """Touch ``pulse`` every now and then while the context lasts, and write ``end`` after it, however it ends."""
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(PULSE):
            with suppress(OSError):  # a full disk is for the work itself to tell
                pulse.write_text(str(time.time()))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    outcome = FAILED
    try:
        yield
        outcome = ""
    except InputError:
        outcome = "refused"
        raise
    finally:
        stopped.set()
        thread.join()
        partial = end.with_suffix(".partial")
        partial.write_text(outcome)
        partial.rename(end)
        pulse.unlink(missing_ok=True)


def _finished(pulse: Path, end: Path) -> bool:
    """Wait for the main process; return whether its work was done (else it was refused, and it says why)."""
    seen, since = None, time.monotonic()
    while not end.exists():
        time.sleep(0.1 if time.monotonic() - since < 2 else 1.0)
        stamp = pulse.stat().st_mtime if pulse.exists() else None
        if stamp != seen:
            seen, since = stamp, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise RuntimeError(f"the main process has given no sign of life in {pulse.parent} for {PATIENCE:.0f} s")
    outcome = end.read_text()
    if outcome == FAILED:
        raise RuntimeError("the main process has failed; its own error says why")
    return not outcome

"""Signals that ask a run to stop: it ends its step, saves a checkpoint and leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopSignal:
    """Turns signals into a request to stop after the step, within its context.

    SIGTERM and SIGUSR1 are what a cluster sends before it preempts a job or its time is up; SIGINT is Ctrl-C, of which
    a second one interrupts at once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self.name = ""
        """Of the signal that came to this process; empty where another process got it."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._request) for s in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        self.requested, self.name = True, signal.Signals(number).name


@contextmanager
def heeding(stop: StopSignal | None) -> Iterator[StopSignal]:
    """Yield ``stop``, which its owner has entered, or else a `StopSignal` of its own."""
    if stop is not None:
        yield stop
        return
    with StopSignal() as own:
        yield own

"""Progress of long work: a live line on a terminal, plain log lines of the same words elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.text import Text

logger = logging.getLogger("ionbed")

_SINGULAR = {"spectra": "spectrum", "queries": "query"}
"""Of words whose plural is another than theirs with an s."""
SECONDS_BETWEEN_LINES = 10.0
SHORTEST_WORK = 1.0
"""Seconds; of work that took less, no line is written."""


class Advance(Protocol):
    """Called with the number of further items done, and optionally a short status text that stays until the next."""

    def __call__(self, items: int, status: str = "") -> None:
        """Add ``items`` to the count."""


@dataclass
class _Work:
    """How far a piece of work is.

    Attributes
    ----------
    total : int or None
        Items in all; None where that is not known.
    done : int
        Items that were done when it started, or was resumed.
    started : float
        By `time.monotonic`, s.
    new : int
        Items done since.
    """

    total: int | None
    unit: str
    done: int
    started: float
    new: int = 0
    status: str = ""

    def advance(self, items: int, status: str = "") -> None:
        self.new += items
        self.status = status or self.status

    def seconds(self) -> float:
        return max(time.monotonic() - self.started, 1e-9)

    def words(self) -> str:
        """Return what there is to say: how much is done, how fast, what is left, and the status."""
        count, rate = self.done + self.new, self.new / self.seconds()
        whole = counted(count if self.total is None else self.total, self.unit)
        share = whole if self.total is None else f"{count:,} of {whole}"
        words = [share, f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"]
        if self.total is not None and rate > 0 and count < self.total:
            words.append(f"{as_clock((self.total - count) / rate)} left")
        return ", ".join([*words, *([self.status] if self.status else [])])


@contextmanager
def progress(label: str, total: int | None, *, unit: str = "spectra", done: int = 0) -> Iterator[Advance]:
    """Show the progress of ``total`` items (None where it is not known) on stderr; yield the `Advance` to call.

    On a terminal this is a live line; elsewhere one log line every ten seconds and one at the end of work that took a
    second. Both tell the rate and the time left, from the whole of this work. ``done`` is where a resumed work starts.
    """
    work = _Work(total, unit, done, started=time.monotonic())
    if sys.stderr.isatty():
        with _terminal_line(label, work) as advance:
            yield advance
        return
    last = time.monotonic()

    def advance_log(items: int, status: str = "") -> None:
        nonlocal last
        work.advance(items, status)
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info("%s: %s", label, work.words())

    yield advance_log
    if work.seconds() >= SHORTEST_WORK:
        logger.info("%s: %s", label, work.words())


@contextmanager
def unseen() -> Iterator[Advance]:
    """Yield an `Advance` that shows nothing, for where progress is not wanted."""

    def advance(items: int, status: str = "") -> None:
        pass

    yield advance


def counted(count: int, things: str) -> str:
    """Return a count in words: ``counted(2000, "spectra")`` is '2,000 spectra', one of them '1 spectrum'.

    Parameters
    ----------
    count : int
    things : str
        In the plural; of several words the last says what is counted.
    """
    if count == 1:
        first, space, last = things.rpartition(" ")
        things = first + space + (_SINGULAR.get(last) or last.removesuffix("s"))
    return f"{count:,} {things}"


def as_clock(seconds: float) -> str:
    """Return a time as 0:07:30, or 2 d 03:07 from a day on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24} d {hours % 24:02}:{minutes:02}" if hours >= 24 else f"{hours}:{minutes:02}:{rest:02}"


@contextmanager
def _terminal_line(label: str, work: _Work) -> Iterator[Advance]:
    from rich import progress as bars
    from rich.console import Console
    from rich.text import Text

    class Words(bars.ProgressColumn):
        """Asked for several times a second, so that the time left runs; folds where the terminal is narrow."""

        max_refresh = None

        def render(self, task: bars.Task) -> Text:
            return Text(work.words())

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(20), Words())
    with bars.Progress(*columns, console=Console(stderr=True)) as bar, _log_lines_above():
        task = bar.add_task(label, total=work.total, completed=work.done)

        def advance(items: int, status: str = "") -> None:
            work.advance(items, status)
            bar.update(task, completed=work.done + work.new)

        yield advance


@contextmanager
def _log_lines_above() -> Iterator[None]:
    """Let log handlers write where the live line makes room for them, to the present ``sys.stderr``."""
    handlers = [h for h in logger.handlers if isinstance(h, logging.StreamHandler) and h.stream is sys.__stderr__]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(sys.__stderr__)

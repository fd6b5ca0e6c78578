"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger("ionbed")

SECONDS_BETWEEN_LINES = 10.0
SHORTEST_WORK = 1.0
"""Seconds; of work that took less, no line is written."""


class Advance(Protocol):
    """Called with the number of further items done, and optionally a short status text."""

    def __call__(self, items: int, status: str = "") -> None:
        """Add ``items`` to the count."""


@contextmanager
def progress(label: str, total: int | None, *, unit: str = "spectra", done: int = 0) -> Iterator[Advance]:
    """Show the progress of ``total`` items (None where it is not known) on stderr; yield the `Advance` to call.

    On a terminal this is a live bar with rate and time left; elsewhere one log line every ten seconds and one at
    the end of work that took a second. ``done`` is where a resumed work starts.
    """
    if sys.stderr.isatty():
        with _terminal_bar(label, total, unit, done) as advance:
            yield advance
        return
    started, last, count, status_text = time.monotonic(), time.monotonic(), done, ""

    def line() -> str:
        rate = (count - done) / max(time.monotonic() - started, 1e-9)
        share = f"{count:,} of {total:,} {unit}" if total is not None else f"{count:,} {unit}"
        return f"{label}: {share}, {rate:,.0f} {unit}/s{', ' + status_text if status_text else ''}"

    def advance_log(items: int, status: str = "") -> None:
        nonlocal last, count, status_text
        count, status_text = count + items, status
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info(line())

    yield advance_log
    if time.monotonic() - started >= SHORTEST_WORK:
        logger.info(line())


@contextmanager
def unseen() -> Iterator[Advance]:
    """Yield an `Advance` that shows nothing, for where progress is not wanted."""

    def advance(items: int, status: str = "") -> None:
        pass

    yield advance


@contextmanager
def _terminal_bar(label: str, total: int | None, unit: str, done: int) -> Iterator[Advance]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(unit),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[status]}"),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done, status="")

        def advance(items: int, status: str = "") -> None:
            bar.update(task, advance=items, status=status)

        yield advance

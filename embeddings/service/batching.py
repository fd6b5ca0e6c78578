"""One thread that owns the model: requests that wait at the same time are searched together."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...errors import InputError
from ..queries import Query
from ..search_options import SearchOptions
from ..segments.damage import DamagedError
from .failures import RequestError, of_damage
from .index_state import IndexState
from .metrics import Metrics
from .searching import Answer, find

logger = logging.getLogger("ionbed")

_SECONDS_BETWEEN_LOOKS = 0.001
"""While a batch waits: whether what it waits for will come at all."""


@dataclass
class _Waiting:
    """Queries that wait for the model, and where their answers go."""

    state: IndexState
    queries: Sequence[Query]
    options: SearchOptions
    future: Future[list[Answer]] = field(default_factory=Future)


class Batcher:
    """Searches for many requests, one batch after the other, in a thread of its own.

    The first of the queries that wait opens a batch, and all that wait beside it join it, up to ``batch_spectra``.
    Where fewer wait than the last batch was for, more are waited for, up to ``batch_seconds``, and up to
    ``coming_seconds`` where a request is on its way (`expecting`): a batch has a cost of its own, which many share. So
    a request that comes alone is searched at once. Queries of one state of the index with equal options are embedded
    and searched in one go; the answers do not depend on which other queries were in the batch.

    Parameters
    ----------
    metrics : Metrics
    batch_spectra : int
    batch_seconds, coming_seconds : float
    queued_spectra : int
        That may wait; more are refused.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        batch_spectra: int,
        batch_seconds: float,
        coming_seconds: float,
        queued_spectra: int,
    ) -> None:
        self._metrics = metrics
        self._batch_spectra, self._queued_spectra = batch_spectra, queued_spectra
        self._batch_seconds, self._coming_seconds = batch_seconds, coming_seconds
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._num_waiting = self._num_coming = self._num_before = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="ionbed-model", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Finish what waits, for at most so long."""
        self._queue.put(None)
        self._thread.join(seconds)

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Tell, while a request is read, that it will soon ask for a search."""
        with self._lock:
            self._num_coming += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_coming -= 1

    async def search(
        self, state: IndexState, queries: Sequence[Query], options: SearchOptions, *, seconds: float
    ) -> list[Answer]:
        """Return the answers to queries in a state of the index; they wait their turn.

        Raises
        ------
        RequestError
            Too many wait already, or it took longer than ``seconds``.
        InputError
            The index cannot be searched with these options.
        """
        with self._lock:
            if self._num_waiting and self._num_waiting + len(queries) > self._queued_spectra:
                raise RequestError(503, f"{self._num_waiting} spectra wait already; try again later", retry_after=2)
            self._num_waiting += len(queries)
            self._metrics.waiting.set(self._num_waiting)
        waiting = _Waiting(state, queries, options)
        self._queue.put(waiting)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(waiting.future), seconds)
        except TimeoutError:
            raise RequestError(
                503, f"the search took longer than {seconds:g} s; try again later, or with fewer spectra", retry_after=5
            ) from None

    def _work(self) -> None:
        while self._answer(self._next_batch()):
            pass  # of a batch nothing is held while the next is waited for: its index may have been replaced

    def _answer(self, batch: Sequence[_Waiting]) -> bool:
        """Search a batch and tell who waits; return whether there was any."""
        by_options: dict[tuple[IndexState, SearchOptions], list[_Waiting]] = defaultdict(list)
        for waiting in batch:
            if waiting.future.set_running_or_notify_cancel():  # nobody waits any more for one that was cancelled
                by_options[waiting.state, waiting.options].append(waiting)
        told = [
            one for (state, options), together in by_options.items() for one in self._searched(state, options, together)
        ]
        with self._lock:  # before who waits is told, and may ask for more
            self._num_waiting -= sum(len(waiting.queries) for waiting in batch)
            self._metrics.waiting.set(self._num_waiting)
        for waiting, outcome in told:
            if isinstance(outcome, BaseException):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)
        return bool(batch)

    def _next_batch(self) -> list[_Waiting]:
        """Return what is searched next; nothing at the end."""
        first = self._queue.get()
        if first is None:
            return []
        batch, num_spectra = [first], len(first.queries)
        opened = time.monotonic()
        while num_spectra < self._batch_spectra:
            seconds = time.monotonic() - opened
            is_to_wait = (len(batch) < self._num_before and seconds < self._batch_seconds) or (
                self._num_coming > 0 and seconds < self._coming_seconds
            )
            try:
                following = self._queue.get(timeout=_SECONDS_BETWEEN_LOOKS if is_to_wait else 0.0)
            except queue.Empty:
                if is_to_wait:
                    continue
                break
            if following is None:
                self._queue.put(None)  # for the next turn, after this batch
                break
            batch.append(following)
            num_spectra += len(following.queries)
        self._num_before = len(batch)
        return batch

    def _searched(
        self, state: IndexState, options: SearchOptions, together: Sequence[_Waiting]
    ) -> list[tuple[_Waiting, list[Answer] | BaseException]]:
        """Search queries of equal options and return what becomes of each request."""
        queries = [query for waiting in together for query in waiting.queries]
        started = time.monotonic()
        try:
            answers = iter(find(state.index, queries, options))
        except Exception as error:
            if len(together) > 1:  # the fault of one of them is not that of the others
                return [outcome for waiting in together for outcome in self._searched(state, options, [waiting])]
            if isinstance(error, DamagedError):
                return [(together[0], of_damage(error))]
            if not isinstance(error, InputError):
                logger.exception("a search failed")
            return [(together[0], error)]
        self._metrics.batch(len(queries), time.monotonic() - started)
        return [(waiting, [next(answers) for _ in waiting.queries]) for waiting in together]

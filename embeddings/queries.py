"""The queries of a search, one after the other; a record that cannot be used has its place too, with the reason."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import numpy as np

from ..errors import InputError
from ..progress import progress as show_progress
from ..spectra.columns import SpectrumColumns
from ..spectra.deduplication import UniqueNames
from ..spectra.record import RawRecord
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .hits import EmbeddedQueries
from .index_folder import Embedder, checked_vectors, is_store

Result = TypeVar("Result")
Item = TypeVar("Item")
Embedded = TypeVar("Embedded")

QUERIES_AT_ONCE = 1024
EMBEDDED_AT_ONCE = 128
"""Where embedding is a step of its own: few, so that the last of a short file does not wait long."""

TURN_S = 0.0005
"""Seconds that a thread may keep the interpreter while another waits for it; Python's own are ten times as long. An
encoder waits after every operation, of which it has hundreds, while another thread reads or writes."""

_turns = threading.Lock()
_usual_turns: list[float] = []
"""One for each search that is going on: the first is what the last of them to end sets again."""

NO_PEAKS = "no usable peaks"
_NO_PEAKS_REASONS = frozenset({"no-peaks", "too-few-peaks"})


@dataclass(frozen=True, slots=True)
class Query:
    """A query, or why there is none.

    Attributes
    ----------
    query_id : str
    spectrum : Spectrum or None
        None where the record cannot be used.
    note : str
        Why it cannot be used; empty where it can.
    position : int or None
        1-based, of the record in its file; None for a spectrum of a store.
    """

    query_id: str
    spectrum: Spectrum | None
    note: str = ""
    position: int | None = None


def queries_of(path: str | os.PathLike[str]) -> tuple[Iterator[Query], int | None]:
    """Return the queries of a prepared store, or of anything that `ionbed.read` reads, and their number if known.

    Survey scans (MS1) are no queries and are left out.

    Raises
    ------
    InputError
        At the call: the path cannot be read.
    """
    if is_store(path):
        store = Store(path)
        return map(_query, store), len(store)
    return _queries_of_file(path), None


def refuse_without_peaks(spectra: Sequence[Spectrum]) -> None:
    """Raise `InputError` if a query has no peaks."""
    for spectrum in spectra:
        if not len(spectrum):
            raise InputError(f"query {spectrum.spectrum_id}: has no peaks; leave it out")


def embed_queries(model: Embedder, spectra: Sequence[Spectrum], dim: int, *, progress: bool = False) -> np.ndarray:
    """Return the embeddings of queries, float32 of shape (n_queries, dim).

    Raises
    ------
    InputError
        A spectrum has no peaks.
    """
    refuse_without_peaks(spectra)
    return _vectors_of(model, SpectrumColumns.from_spectra(spectra), dim, progress=progress)


def embedded_queries(
    model: Embedder, model_hash: str, spectra: Sequence[Spectrum], dim: int, *, progress: bool = False
) -> EmbeddedQueries:
    """Return queries with their embeddings and their peaks.

    Raises
    ------
    InputError
        A spectrum has no peaks.
    """
    refuse_without_peaks(spectra)
    columns = SpectrumColumns.from_spectra(spectra)
    vectors = _vectors_of(model, columns, dim, progress=progress)
    return EmbeddedQueries(vectors, columns.precursor_mz, columns.polarity, model_hash=model_hash, columns=columns)


def _vectors_of(model: Embedder, columns: SpectrumColumns, dim: int, *, progress: bool) -> np.ndarray:
    if not len(columns):
        return np.empty((0, dim), np.float32)
    return checked_vectors(model.embed(columns, progress=progress), len(columns), dim=dim)


@overload
def searched(
    queries: Iterator[Query], total: int | None, search: Callable[[list[Spectrum]], Iterator[Result]]
) -> Iterator[tuple[str, Query, Result | None]]: ...
@overload
def searched(
    queries: Iterator[Query],
    total: int | None,
    search: Callable[[Embedded], Iterator[Result]],
    embed: Callable[[list[Spectrum]], Embedded],
) -> Iterator[tuple[str, Query, Result | None]]: ...
def searched(
    queries: Iterator[Query],
    total: int | None,
    search: Callable[[Any], Iterator[Result]],
    embed: Callable[[list[Spectrum]], Any] | None = None,
) -> Iterator[tuple[str, Query, Result | None]]:
    """Search queries, a block at a time, and yield each with an id of its own and what was found for it.

    Reading, embedding, searching, and what the caller does with the results go on at once, each in a thread of its
    own and a block of queries ahead of the next. An error in any of them is raised here, after what was found before
    it; by then, and when the caller stops, the threads have ended.

    Parameters
    ----------
    queries, total
        As `queries_of` gives them.
    search : callable
        Called with spectra, or with what ``embed`` made of them; yields one result for each.
    embed : callable, optional
        Called with spectra.

    Yields
    ------
    query_id : str
        With ``#2``, ``#3``... where the file uses an id more than once.
    query : Query
    result : object or None
        None where the query has no spectrum.
    """
    names = UniqueNames()
    at_once = QUERIES_AT_ONCE if embed is None else EMBEDDED_AT_ONCE

    def blocks() -> Generator[tuple[list[Query], Any], None, None]:
        while block := list(itertools.islice(queries, at_once)):
            yield block, [query.spectrum for query in block if query.spectrum is not None]

    def embedded() -> Generator[tuple[list[Query], Any], None, None]:
        assert embed is not None, "asked only where it is given"
        for block, spectra in _one_ahead(blocks()):
            yield block, embed(spectra)

    def found() -> Generator[tuple[list[Query], list[Result]], None, None]:
        for block, asked in _one_ahead(blocks() if embed is None else embedded()):
            yield block, list(search(asked))

    with show_progress("search", total, unit="queries") as advance, _short_turns():
        for block, of_block in _one_ahead(found()):
            results = iter(of_block)
            for query in block:
                yield names.assign(query.query_id), query, None if query.spectrum is None else next(results)
            advance(len(block))


@contextmanager
def _short_turns() -> Iterator[None]:
    with _turns:
        _usual_turns.append(sys.getswitchinterval())
        sys.setswitchinterval(min(_usual_turns[0], TURN_S))
    try:
        yield
    finally:
        with _turns:
            usual = _usual_turns[0]
            _usual_turns.pop()
            if not _usual_turns:
                sys.setswitchinterval(usual)


def _one_ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """Yield items, each while the next one is made by a thread."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        try:
            while (item := coming.result()) is not None:
                coming = thread.submit(next, items, None)
                yield item
        finally:
            if coming.done():
                items.close()
            else:  # by the thread that is still within it: a second Ctrl-C does not wait for its end
                thread.submit(items.close)


def _queries_of_file(path: str | os.PathLike[str]) -> Iterator[Query]:
    from ..spectra.readers import read_records

    return (query for record in read_records(path) if (query := _query_of_record(record)) is not None)


def _query_of_record(record: RawRecord) -> Query | None:
    from ..spectra.harmonise import Dropped, harmonise

    result = harmonise(record)
    if not isinstance(result, Dropped):
        return _query(result, record.position)
    if result.reason == "ms-level":
        return None
    reason = NO_PEAKS if result.reason in _NO_PEAKS_REASONS else f"not usable: {result.reason}"
    query_id = record.native_id or f"{record.source_file}#{record.position}"
    return Query(query_id, None, f"{reason} ({result.detail})" if result.detail else reason, record.position)


def _query(spectrum: Spectrum, position: int | None = None) -> Query:
    if not len(spectrum):
        return Query(spectrum.spectrum_id, None, NO_PEAKS, position)
    return Query(spectrum.spectrum_id, spectrum, position=position)

"""Ranking library spectra by a fused score: all of a precursor window, or the best by embedding and by peaks of all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pyarrow.compute as pc

from ..errors import InputError
from ..spectra import kept_spectra
from ..spectra.columns import SpectrumColumns
from ..spectra.kept_spectra import KEPT_BYTES, KeptSpectra
from ..spectra.lookups import LookupOptions, PeakCleaner
from ..spectra.pair_features import ComparedSpectra
from ..spectra.preparation.workers import usable_cores
from .consensus import Structures, agreed, library_structures
from .fusion import BY, FusedScore, Fusion, sigmoid
from .nearest import Nearest
from .segments.library import Library
from .segments.numbers import ROWS_PER_BLOCK
from .windows import Windows

if TYPE_CHECKING:
    from ..spectra.peak_matching import PeakLists

OPEN_DEPTH = 1000
"""In an open search the fused score is worked out for so many library spectra by the cosine of the embeddings, and for
as many by hybrid entropy: what a look-up alone would have found is always among them."""

PAIRS_AT_ONCE = 1 << 18
"""Pairs that are scored together: 300 bytes each."""

ROWS_AT_ONCE = 1 << 15
"""Library spectra whose peaks and vectors are gathered together: some 60 MB with 20 peaks and 256 dimensions."""

INDEX_BYTES_PER_PEAK = 76
"""`ionbed.spectra.hybrid_index.BYTES_PER_PEAK_WHILE_BUILT`, which cannot be imported without numba."""

OPEN_BYTES_PER_SPECTRUM = 28
"""Rows, their places, polarities and precursors."""

SUMS_BYTES_PER_SPECTRUM = 16
"""Of each thread."""

BLOCKS_COUNTED = 16
"""Of a segment, in which peaks are counted for an estimate."""


class FusedSearch:
    """A library whose spectra are ranked by the fused score.

    Library peaks are cleaned when they are first needed and kept for later searches, at most `KEPT_BYTES` of them.

    Parameters
    ----------
    fusion : Fusion
    library : Library
        Its spectra of the other polarity are never ranked, nor those deleted.
    """

    def __init__(self, fusion: Fusion, library: Library) -> None:
        self._fusion, self._library = fusion, library
        self._kept = KeptSpectra(library.peaks, library.num_rows, fusion.lookups)
        self._indexing = threading.Lock()
        self._open: OpenLibrary | None = None

    def in_windows(
        self, queries: SpectrumColumns, vectors: np.ndarray, windows: Windows, k: int, allowed: np.ndarray | None
    ) -> Nearest:
        """Return the best ``k`` of each query's window; all of it is scored.

        Some rows are scored at a time, for all queries whose windows they are in: however wide the windows are, no more
        than `PAIRS_AT_ONCE` pairs and `ROWS_AT_ONCE` spectra are in memory beside those that are kept.

        Parameters
        ----------
        queries : SpectrumColumns of n_queries spectra
        vectors : float32 array of shape (n_queries, dim)
        windows : Windows
        k : int
        allowed : bool array of shape (n_rows,), or None
            Rows that may be hits; None where all may.
        """
        asked, best = self._compared(queries), _Best.empty(len(queries), k)
        for start, stop in zip(windows.start, windows.stop, strict=True):
            for first, last in _pieces(start, stop):
                query, row = _rows_of(start.clip(first), stop.clip(max=last))
                query, row = self._usable(queries, query, row, allowed)
                if len(query):
                    total = self._total(self._fusion.window, asked, vectors, query, row)
                    best.take_in(query, row, total, self._library.in_order)
        return best.nearest()

    def of_all(
        self,
        queries: SpectrumColumns,
        vectors: np.ndarray,
        nearest: Nearest,
        k: int,
        depth: int = OPEN_DEPTH,
        allowed: np.ndarray | None = None,
    ) -> Nearest:
        """Return the best ``k`` of the whole library, among the best ``depth`` by cosine and by hybrid entropy.

        They are ranked under the consensus of the hits, where the model has one.

        Parameters
        ----------
        nearest : Nearest
            The best rows by cosine.
        depth : int
        allowed : bool array of shape (n_rows,), optional
            Rows that may be hits; by default all.

        Raises
        ------
        InputError
            There is too little memory for an index of the peaks, at the first search.
        """
        library, result = self._open_library(), Nearest.empty(len(queries), k)
        asked = self._compared(queries)
        by_peaks = self._proposed(library, queries, asked, depth, allowed)
        by_cosine = np.where(nearest.rows < 0, -1, library.place[nearest.rows])[:, :depth]
        for begin in range(0, len(queries), max(1, ROWS_AT_ONCE // (2 * depth))):
            some = np.arange(begin, min(begin + max(1, ROWS_AT_ONCE // (2 * depth)), len(queries)))
            query, place = pairs_of(by_cosine[some], _side_by_side([by_peaks[number] for number in some]))
            query, row = self._usable(queries, query + begin, library.rows[place], allowed)
            place = library.place[row]
            total = self._total(self._fusion.open, asked, vectors, query, row)
            if self._fusion.consensus is not None:
                of_copy = asked.features(some, some, names=_features_of(self._fusion.open))
                copy_total = self._fusion.open.total(np.ones(len(some)), of_copy)
                of, fingerprints = library.structures.molecule[place], library.structures.fingerprints
                total = agreed(self._fusion.consensus, query - begin, total, copy_total, of, fingerprints)
            found = best_of(query - begin, place, total, len(some), k)
            result.rows[some] = np.where(found.rows < 0, -1, library.rows[found.rows])
            result.scores[some] = found.scores
        return result

    def _proposed(
        self,
        library: OpenLibrary,
        queries: SpectrumColumns,
        asked: ComparedSpectra,
        depth: int,
        allowed: np.ndarray | None,
    ) -> list[np.ndarray]:
        """Return the places of the spectra with the highest hybrid entropy, as `clearly_highest` chooses them.

        Where more than ``depth`` are equals and the highest, the first of them: those of one peak that all match.
        """
        eligible = None if allowed is None else allowed[library.rows]
        result: list[np.ndarray] = [np.empty(0, np.int64)] * len(queries)
        of_few: dict[int, np.ndarray | None] = {}
        for sign in np.unique(queries.polarity).tolist():
            usable = library.polarity * sign != -1
            usable = usable if eligible is None else usable & eligible
            of_few[sign] = np.flatnonzero(usable) if usable.sum() <= depth else None
        found = library.index.highest(asked.weighted.entropy_peaks, queries.polarity, depth, eligible)
        for begin in range(0, len(queries), max(1, ROWS_AT_ONCE // (2 * depth))):
            some = range(begin, min(begin + max(1, ROWS_AT_ONCE // (2 * depth)), len(queries)))
            doubtful = [found[number][1] for number in some]
            exact = self._hybrid_entropy(library, asked, np.array(some), doubtful)
            for number, unsure, scores in zip(some, doubtful, exact, strict=True):
                every = of_few[int(queries.polarity[number])]
                sure = found[number][0]
                if every is not None:
                    result[number] = every
                elif len(sure) + len(unsure) <= depth:  # the rest have 0
                    result[number] = np.concatenate([sure, unsure[scores > 0]])
                else:
                    left_out = -np.partition(-scores, depth - len(sure))[depth - len(sure)]
                    if not len(sure) and left_out > 0 and scores.max() == left_out:
                        result[number] = np.sort(unsure[scores == left_out])[:depth]
                    else:
                        result[number] = np.concatenate([sure, unsure[scores > left_out]])
        return result

    def _hybrid_entropy(
        self, library: OpenLibrary, asked: ComparedSpectra, queries: np.ndarray, places: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Return the exact scores of some queries with the spectra at ``places``."""
        counts = [len(some) for some in places]
        query, place = np.repeat(queries, counts), np.concatenate([*places, np.empty(0, np.int32)])
        scores = np.empty(len(place), np.float32)
        for pairs, needed, number in _by_rows(library.rows[place]):
            compared, kept = self._kept.compared(needed)
            hybrid = compared.hybrid_entropy
            scores[pairs] = hybrid.pair_scores(query[pairs], kept[number], of=asked.hybrid_entropy)
        return np.split(scores, np.cumsum(counts)[:-1])

    def _total(
        self, score: FusedScore, asked: ComparedSpectra, vectors: np.ndarray, query: np.ndarray, row: np.ndarray
    ) -> np.ndarray:
        """Return the weighted sums of terms of pairs."""
        from .pair_products import pair_products

        names, total = _features_of(score), np.empty(len(query))
        for pairs, needed, number in _by_rows(row):
            compared, kept = self._kept.compared(needed)
            features = compared.features(query[pairs], kept[number], of=asked, names=names)
            cosine = pair_products(vectors, self._library.vectors[needed], query[pairs], number)
            total[pairs] = score.total(cosine, features)
        return total

    def _compared(self, queries: SpectrumColumns) -> ComparedSpectra:
        return ComparedSpectra(queries, self._fusion.lookups, cleaner=PeakCleaner(self._fusion.lookups, most=0))

    def _open_library(self) -> OpenLibrary:
        with self._indexing:
            if self._open is None:
                refuse_open_search(self._library)
                self._open = OpenLibrary(self._library, self._kept, self._fusion.lookups)
            return self._open

    def _usable(
        self, queries: SpectrumColumns, query: np.ndarray, row: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        kept = self._library.polarity[row] * queries.polarity[query] != -1
        if allowed is not None:
            kept &= allowed[row]
        return query[kept], row[kept]


class OpenLibrary:
    """What an open search needs of a library beside its vectors: made at the first, and kept.

    Not written beside the index: to read the peaks again takes seconds for a million spectra, and a file of them would
    take as much room as the peaks themselves, and would have to be made anew with each change of the library.

    Attributes
    ----------
    rows : int64 array of shape (n,)
        All rows that are not deleted, in the order of one compacted segment.
    place : int64 array of shape (n_rows,)
        Where a row is among these.
    polarity : int8 array of shape (n,)
    index : HybridIndex
    """

    def __init__(self, library: Library, kept: KeptSpectra, options: LookupOptions) -> None:
        from ..spectra.hybrid_index import HybridIndex

        self._library = library
        self.rows = library.in_order(
            np.arange(library.num_rows) if library.live is None else np.flatnonzero(library.live)
        )
        self.place = np.full(library.num_rows, -1, np.int64)
        self.place[self.rows] = np.arange(len(self.rows))
        self.polarity = library.polarity[self.rows]

        def blocks() -> Iterator[tuple[PeakLists, np.ndarray]]:
            for begin in range(0, len(self.rows), ROWS_AT_ONCE):
                compared, place = kept.compared(self.rows[begin : begin + ROWS_AT_ONCE])
                yield compared.weighted.entropy_peaks, place

        self.index = HybridIndex(blocks(), library.precursor_mz[self.rows], self.polarity, options.tolerance_da)

    @cached_property
    def structures(self) -> Structures:
        """The molecules of the spectra."""
        return library_structures(*self._library.take(self.rows, ["inchikey", "smiles"]).columns)


def open_memory(library: Library) -> int:
    """Return an estimate of the memory that an open search by the fused score takes while its index is made, in bytes.

    Some blocks of each segment are read for their numbers of peaks. That of peaks after cleaning is no higher.
    """
    num_peaks = num_read = 0
    for segment in library.segments:
        blocks = -(-len(segment) // ROWS_PER_BLOCK)
        for number in np.unique(np.linspace(0, blocks - 1, min(blocks, BLOCKS_COUNTED)).astype(int)).tolist():
            lengths = pc.list_value_length(segment.table.batch(number, ["mz"]).column(0))
            num_peaks, num_read = num_peaks + (pc.sum(lengths).as_py() or 0), num_read + len(lengths)
    peaks = library.num_live * num_peaks / max(num_read, 1)
    kept = min(KEPT_BYTES, peaks * kept_spectra.BYTES_PER_PEAK + library.num_live * kept_spectra.BYTES_PER_SPECTRUM)
    of_spectrum = OPEN_BYTES_PER_SPECTRUM + SUMS_BYTES_PER_SPECTRUM * usable_cores()
    return int(1.5 * kept + peaks * INDEX_BYTES_PER_PEAK + library.num_live * of_spectrum)


def refuse_open_search(library: Library) -> None:
    """Raise `InputError` if there is too little memory for an open search by the fused score."""
    needed, available = open_memory(library), psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"an open search of {library.num_live:,} spectra by the fused score needs about {needed / 1e9:.1f} GB of "
            f"memory and {available / 1e9:.1f} GB are free; search by cosine, or within a precursor window"
        )


def highest(scores: np.ndarray, depth: int) -> np.ndarray:
    """Return the columns of the ``depth`` highest scores of each row, in no order, int64."""
    depth = min(depth, scores.shape[1])
    return np.argpartition(-scores, depth - 1, axis=1)[:, :depth]


def clearly_highest(scores: np.ndarray, depth: int) -> np.ndarray:
    """Return the columns of the ``depth`` highest scores of each row, -1 for those no higher than one left out.

    Which of equals would be among them would depend on their places: of a large library most share no peak with the
    query, and are not proposed for that. Where the highest scores of all are such equals, and above 0, they stay.

    Returns
    -------
    int64 array of shape (n, at most ``depth``)
    """
    if scores.shape[1] <= depth:
        return highest(scores, depth)
    columns = highest(scores, depth + 1)
    values = np.take_along_axis(scores, columns, axis=1)
    left_out = values.min(axis=1, keepdims=True)
    all_equal = (values.max(axis=1, keepdims=True) == left_out) & (left_out > 0)
    columns = np.where((values > left_out) | all_equal, columns, -1)
    # Of those that stay, all but one where all are equal.
    return np.take_along_axis(columns, np.argsort(-columns, axis=1, kind="stable")[:, :depth], axis=1)


def pairs_of(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct (row, column) pairs of proposals by row; -1 is none.

    Parameters
    ----------
    *columns : int64 arrays of shape (n, any)

    Returns
    -------
    row, column : int64 arrays of shape (n_pairs,)
        Ascending.
    """
    proposed = np.concatenate(columns, axis=1)
    width = max(1, int(proposed.max(initial=0)) + 1)
    row = np.repeat(np.arange(len(proposed)), proposed.shape[1])
    # As one number: NumPy sorts pairs much more slowly.
    pairs = np.unique((row * width + proposed.ravel())[proposed.ravel() >= 0])
    return pairs // width, pairs % width


def best_of(query: np.ndarray, row: np.ndarray, total: np.ndarray, num_queries: int, k: int) -> Nearest:
    """Return the ``k`` best pairs of each query and their scores, `sigmoid` of ``total``; equals by row.

    Parameters
    ----------
    query, row : int64 arrays of shape (n_pairs,)
    total : float64 array of shape (n_pairs,)
        From `FusedScore.total`.
    """
    result = Nearest.empty(num_queries, k)
    pair, rank = _ranked(query, row, total, k)
    result.rows[query[pair], rank] = row[pair]
    result.scores[query[pair], rank] = sigmoid(total[pair])
    return result


def _ranked(query: np.ndarray, row: np.ndarray, total: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``k`` best pairs of each query, and the rank of each from 0."""
    # As float32: what float64 adds is rounding error, by which copies of one spectrum would be ranked.
    order = np.lexsort((row, -total.astype(np.float32), query))
    sorted_query = query[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_query, sorted_query)
    return order[rank < k], rank[rank < k]


@dataclass(frozen=True, eq=False)
class _Best:
    """The best rows of each query so far and their totals, int64 and float64 of shape (n_queries, k); -1 is none."""

    rows: np.ndarray
    totals: np.ndarray

    @classmethod
    def empty(cls, num_queries: int, k: int) -> _Best:
        return cls(np.full((num_queries, k), -1, np.int64), np.full((num_queries, k), np.nan))

    def take_in(
        self, query: np.ndarray, row: np.ndarray, total: np.ndarray, in_order: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        """Rank further pairs among them; equals in the order that ``in_order`` gives to their rows."""
        k = self.rows.shape[1]
        touched = np.unique(query)
        before, rank = np.nonzero(self.rows[touched] >= 0)
        before = touched[before]
        query = np.concatenate([before, query])
        row = np.concatenate([self.rows[before, rank], row])
        total = np.concatenate([self.totals[before, rank], total])
        kept = _not_after(query, total, k)
        query, row, total = query[kept], row[kept], total[kept]
        pair, rank = _ranked(query, _places(in_order(np.unique(row)), row), total, k)
        self.rows[touched], self.totals[touched] = -1, np.nan
        self.rows[query[pair], rank], self.totals[query[pair], rank] = row[pair], total[pair]

    def nearest(self) -> Nearest:
        scores = np.full(self.rows.shape, np.nan, np.float32)
        found = self.rows >= 0
        scores[found] = sigmoid(self.totals[found])
        return Nearest(self.rows, scores)


def _not_after(query: np.ndarray, total: np.ndarray, k: int) -> np.ndarray:
    """Return the pairs of which no ``k`` others of their query are better, as float32; all that tie with the last."""
    values = total.astype(np.float32)
    order = np.lexsort((-values, query))
    of, values = query[order], values[order]
    begin = np.searchsorted(of, of)
    last = np.minimum(begin + k, np.searchsorted(of, of, "right")) - 1
    kept: np.ndarray = order[values >= values[last]]
    return kept


def _pieces(start: np.ndarray, stop: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield consecutive ranges of rows, each with no more pairs and rows in windows than are in memory at once.

    Parameters
    ----------
    start, stop : int64 arrays of shape (n_queries,)
        Windows of one segment.
    """
    start, stop = start[start < stop], stop[start < stop]
    ends = np.unique(np.concatenate([start, stop]))
    # Between two ends that follow one another each row is in as many windows as the others.
    inside = np.searchsorted(np.sort(start), ends, "right") - np.searchsorted(np.sort(stop), ends, "right")
    first: int | None = None
    rows = pairs = 0
    for begin, end, count in zip(ends[:-1].tolist(), ends[1:].tolist(), inside[:-1].tolist(), strict=True):
        while count and begin < end:
            first = begin if first is None else first
            fitting = min(end - begin, ROWS_AT_ONCE - rows, (PAIRS_AT_ONCE - pairs) // count)
            if fitting <= 0 and rows:
                yield first, begin
                first, rows, pairs = None, 0, 0
                continue
            fitting = max(fitting, 1)
            rows, pairs, begin = rows + fitting, pairs + fitting * count, begin + fitting
    if first is not None:
        yield first, int(ends[-1])


def _rows_of(start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the (query, row) pairs of windows, by query."""
    counts = np.maximum(stop - start, 0)
    query = np.repeat(np.arange(len(start)), counts)
    row = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(start, counts)
    return query, row


def _side_by_side(places: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays of different lengths as the rows of one, int64; -1 behind those that are shorter."""
    result = np.full((len(places), max(map(len, places), default=0)), -1, np.int64)
    for number, of_one in enumerate(places):
        result[number, : len(of_one)] = of_one
    return result


def _by_rows(row: np.ndarray) -> Iterator[tuple[slice | np.ndarray, np.ndarray, np.ndarray]]:
    """Yield pairs whose rows are gathered together: which, their different rows, and the place of each's row there."""
    needed, number = np.unique(row, return_inverse=True)
    if len(needed) <= ROWS_AT_ONCE:
        yield slice(None), needed, number
        return
    for begin in range(0, len(needed), ROWS_AT_ONCE):
        pairs = np.flatnonzero((number >= begin) & (number < begin + ROWS_AT_ONCE))
        yield pairs, needed[begin : begin + ROWS_AT_ONCE], number[pairs] - begin


def _features_of(score: FusedScore) -> frozenset[str]:
    """Return the features that the terms of a score are made of."""
    return frozenset(part for term in score.terms for part in term.split(BY))


def _places(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where ``wanted`` stand in ``rows``, which are all different and in any order."""
    order = np.argsort(rows, kind="stable")
    if not len(order):
        return np.zeros(wanted.shape, np.int64)
    places: np.ndarray = order[np.searchsorted(rows, wanted, sorter=order)]
    return places

"""Ranking library spectra by a fused score: all of a precursor window, or the best by embedding and by peaks of all."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..spectra.columns import SpectrumColumns
from ..spectra.lookups import PeakCleaner
from ..spectra.pair_features import ComparedSpectra
from .consensus import Structures, agreed, library_structures
from .fusion import Fusion, sigmoid
from .nearest import Nearest
from .segments.library import Library
from .windows import Windows

OPEN_DEPTH = 1000
"""In an open search the fused score is worked out for so many library spectra by the cosine of the embeddings, and for
as many by hybrid entropy: what a look-up alone would have found is always among them."""

PAIRS_AT_ONCE = 1 << 18
CANDIDATES_AT_ONCE = 1 << 22
"""Pairs of one pass over windows: wide ones of thousands of queries would not fit in memory together."""
SCORES_AT_ONCE = 1 << 24


class FusedSearch:
    """A library whose spectra are ranked by the fused score.

    Parameters
    ----------
    fusion : Fusion
    library : Library
        Its spectra of the other polarity are never ranked, nor those deleted.
    """

    def __init__(self, fusion: Fusion, library: Library) -> None:
        self._fusion, self._library = fusion, library
        self._cleaner = PeakCleaner(fusion.lookups)

    def in_windows(
        self, queries: SpectrumColumns, vectors: np.ndarray, windows: Windows, k: int, allowed: np.ndarray | None
    ) -> Nearest:
        """Return the best ``k`` of each query's window; all of it is scored.

        Parameters
        ----------
        queries : SpectrumColumns of n_queries spectra
        vectors : float32 array of shape (n_queries, dim)
        windows : Windows
        k : int
        allowed : bool array of shape (n_rows,), or None
            Rows that may be hits; None where all may.
        """
        counts = np.maximum(windows.stop - windows.start, 0)
        result = Nearest.empty(len(queries), k)
        for group in _groups(counts.sum(axis=0)):
            of_group = queries.take(group)
            query, row = _rows_of(windows.start[:, group], counts[:, group])
            query, row = self._usable(of_group, query, row, allowed)
            found = self._in_windows(of_group, vectors[group], query, row, k)
            result.rows[group], result.scores[group] = found.rows, found.scores
        return result

    def _in_windows(
        self, queries: SpectrumColumns, vectors: np.ndarray, query: np.ndarray, row: np.ndarray, k: int
    ) -> Nearest:
        needed = self._library.in_order(np.unique(row))
        place = _places(needed, row)
        compared = ComparedSpectra(self._library.peaks(needed), self._fusion.lookups, cleaner=self._cleaner)
        asked = ComparedSpectra(queries, self._fusion.lookups)
        total = np.empty(len(query))
        for part in _parts(len(query)):
            features = compared.features(query[part], place[part], of=asked)
            total[part] = self._fusion.window.total(self._cosine(vectors, query[part], row[part]), features)
        return _rows_at(needed, best_of(query, place, total, len(queries), k))

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
        """
        compared, rows = self._compared, self._rows  # cleaning and indexing a whole library takes a while, once
        library, polarity = np.arange(len(rows)), self._library.polarity[rows]
        asked = ComparedSpectra(queries, self._fusion.lookups)
        proposed = []
        for begin in range(0, len(queries), max(1, SCORES_AT_ONCE // len(library))):
            some = np.arange(begin, min(begin + max(1, SCORES_AT_ONCE // len(library)), len(queries)))
            scores = compared.hybrid_entropy.scores(some, library, of=asked.hybrid_entropy)
            scores[polarity[None, :] * queries.polarity[some, None] == -1] = -1.0
            if allowed is not None:
                scores[:, ~allowed[rows]] = -1.0
            proposed.append(clearly_highest(scores, depth))
        by_peaks = np.concatenate(proposed) if proposed else np.empty((0, 0), np.int64)
        by_cosine = np.where(nearest.rows < 0, -1, _places(rows, nearest.rows.clip(rows.min())))
        query, place = pairs_of(by_cosine[:, :depth], by_peaks)
        query, row = self._usable(queries, query, rows[place], allowed)
        place = _places(rows, row)
        total = np.empty(len(query))
        for part in _parts(len(query)):
            features = compared.features(query[part], place[part], of=asked)
            total[part] = self._fusion.open.total(self._cosine(vectors, query[part], row[part]), features)
        if self._fusion.consensus is not None:
            own = np.arange(len(queries))
            copy_total = self._fusion.open.total(np.ones(len(queries)), asked.features(own, own))
            of, fingerprints = self._structures.molecule[place], self._structures.fingerprints
            total = agreed(self._fusion.consensus, query, total, copy_total, of, fingerprints)
        return _rows_at(rows, best_of(query, place, total, len(queries), k))

    @cached_property
    def _rows(self) -> np.ndarray:
        """All rows that are not deleted, in the order of one compacted segment."""
        live = self._library.live
        return self._library.in_order(np.arange(self._library.num_rows) if live is None else np.flatnonzero(live))

    @cached_property
    def _compared(self) -> ComparedSpectra:
        compared = ComparedSpectra(self._library.peaks(self._rows), self._fusion.lookups, cleaner=self._cleaner)
        compared.hybrid_entropy.index_library(np.arange(len(self._rows)))
        return compared

    @cached_property
    def _structures(self) -> Structures:
        return library_structures(*self._library.take(self._rows, ["inchikey", "smiles"]).columns)

    def _usable(
        self, queries: SpectrumColumns, query: np.ndarray, row: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        kept = self._library.polarity[row] * queries.polarity[query] != -1
        if allowed is not None:
            kept &= allowed[row]
        return query[kept], row[kept]

    def _cosine(self, vectors: np.ndarray, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        products: np.ndarray = np.einsum("pd,pd->p", vectors[query], self._library.vectors[row], dtype=np.float64)
        return products


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
    # As float32: what float64 adds is rounding error, by which copies of one spectrum would be ranked.
    order = np.lexsort((row, -total.astype(np.float32), query))
    query = query[order]
    begins = np.searchsorted(query, np.arange(num_queries))
    rank = np.arange(len(query)) - begins[query]
    kept = rank < k
    result = Nearest.empty(num_queries, k)
    result.rows[query[kept], rank[kept]] = row[order][kept]
    result.scores[query[kept], rank[kept]] = sigmoid(total[order][kept])
    return result


def _rows_of(start: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the (query, row) pairs of windows, by query; arrays of shape (n_segments, n_queries)."""
    starts, numbers = start.T.ravel(), counts.T.ravel()
    query = np.repeat(np.repeat(np.arange(start.shape[1]), len(start)), numbers)
    row = np.arange(len(query)) - np.repeat(np.cumsum(numbers) - numbers, numbers) + np.repeat(starts, numbers)
    return query, row


def _places(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where ``wanted`` stand in ``rows``, which are all different and in any order."""
    order = np.argsort(rows, kind="stable")
    if not len(order):
        return np.zeros(wanted.shape, np.int64)
    places: np.ndarray = order[np.searchsorted(rows, wanted, sorter=order)]
    return places


def _rows_at(rows: np.ndarray, found: Nearest) -> Nearest:
    """Return what was found with rows in the place of places in ``rows``."""
    if not len(rows):
        return found
    return Nearest(np.where(found.rows < 0, -1, rows[found.rows]), found.scores)


def _groups(counts: np.ndarray) -> list[np.ndarray]:
    """Return the queries in groups of about `CANDIDATES_AT_ONCE`, or more where one alone has more."""
    if not len(counts):
        return []
    number = np.cumsum(counts) // CANDIDATES_AT_ONCE
    return np.split(np.arange(len(counts)), np.flatnonzero(np.diff(number)) + 1)


def _parts(count: int) -> list[slice]:
    return [slice(begin, begin + PAIRS_AT_ONCE) for begin in range(0, count, PAIRS_AT_ONCE)]

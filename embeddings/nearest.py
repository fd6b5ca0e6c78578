"""Exact nearest vectors, within a slice of rows per query or among all rows, with ties broken by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import faiss

PPM = 1e-6
WINDOW_SLACK = 1e-12
"""Relative widening of a precursor window: decimal m/z that lie exactly on its edge count as within it."""

MAX_SCORES_AT_ONCE = 1 << 24
MAX_ROWS_AT_ONCE = 1 << 16
MIN_QUERIES_FOR_PRODUCT = 4
FREE_SCORES_PER_GROUP = 1 << 10
"""A product of this many scores costs less than the two calls that it saves."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The best rows of each query, best first; equal scores in the order of the rows.

    Attributes
    ----------
    rows : int64 array of shape (n_queries, k)
        -1 where there are fewer than k.
    scores : float32 array of shape (n_queries, k)
        Inner products, NaN where there are fewer than k.
    """

    rows: np.ndarray
    scores: np.ndarray

    @classmethod
    def empty(cls, num_queries: int, k: int) -> Nearest:
        """Return the result of ``num_queries`` queries that find nothing."""
        return cls(np.full((num_queries, k), -1, np.int64), np.full((num_queries, k), np.nan, np.float32))


def precursor_windows(library_mz: np.ndarray, query_mz: np.ndarray, ppm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows ``start:stop`` of each query's precursor window.

    A library spectrum is within the window when ``|query - library| / library <= ppm * 1e-6``.

    Parameters
    ----------
    library_mz : float64 array of shape (n_library,)
        Ascending, in Da per charge.
    query_mz : float64 array of shape (n_queries,)
    ppm : float
        Half width of the window in ppm of the library's precursor m/z, more than 0 and less than 1e6.

    Returns
    -------
    start, stop : int64 arrays of shape (n_queries,)
    """
    tolerance = ppm * PPM + WINDOW_SLACK
    start = np.searchsorted(library_mz, query_mz / (1 + tolerance), side="left")
    stop = np.searchsorted(library_mz, query_mz / (1 - tolerance), side="right")
    return start.astype(np.int64), stop.astype(np.int64)


def nearest_in_windows(
    vectors: np.ndarray,
    polarity: np.ndarray,
    queries: np.ndarray,
    query_polarity: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    k: int,
) -> Nearest:
    """Return the best ``k`` of the rows ``start:stop`` of each query, leaving out the other polarity.

    Queries whose windows lie near each other are scored by one matrix product. A result does not depend on what
    else is searched with it: rows that a single-precision product leaves within its rounding error of the k-th are
    scored anew in double precision before they are ranked.

    Parameters
    ----------
    vectors : float32 array of shape (n_library, dim)
        Rows of unit length.
    polarity : int8 array of shape (n_library,)
        +1, -1, or 0 where unknown.
    queries : float32 array of shape (n_queries, dim)
        Rows of unit length.
    query_polarity : int8 array of shape (n_queries,)
    start, stop : int64 arrays of shape (n_queries,)
    k : int
    """
    result = Nearest.empty(len(queries), k)
    for group in _groups(start, stop):
        first, last = int(start[group].min()), int(stop[group].max())
        scores = _product(queries[group], vectors, first, last)
        for query, row_scores in zip(group, scores, strict=True):
            low, high = int(start[query]), int(stop[query])
            candidates = np.arange(low, high)
            candidate_scores = row_scores[low - first : high - first]
            compatible = _compatible(polarity[low:high], query_polarity[query])
            if not compatible.all():
                candidates, candidate_scores = candidates[compatible], candidate_scores[compatible]
            _rank(result, query, vectors, queries[query], candidates, candidate_scores, k)
    return result


def nearest_among(
    vectors: np.ndarray, query_vector: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best ``k`` of some rows for one query, and their scores; equal scores in the order of the rows.

    Parameters
    ----------
    vectors : float32 array of shape (n_library, dim)
        Rows of unit length.
    query_vector : float32 array of shape (dim,)
        Of unit length.
    rows : int64 array
    k : int

    Returns
    -------
    rows : int64 array of shape (min(k, len(rows)),)
    scores : float32 array of that shape
    """
    result = Nearest.empty(1, min(k, len(rows)))
    scores = np.empty(len(rows), np.float32)
    for block in range(0, len(rows), MAX_ROWS_AT_ONCE):
        part = slice(block, block + MAX_ROWS_AT_ONCE)
        scores[part] = vectors[rows[part]] @ query_vector
    _rank(result, 0, vectors, query_vector, rows, scores, k)
    return result.rows[0], result.scores[0]


def nearest_of_all(
    index: faiss.Index,
    vectors: np.ndarray,
    polarity: np.ndarray,
    queries: np.ndarray,
    query_polarity: np.ndarray,
    k: int,
) -> Nearest:
    """Return the best ``k`` of all rows of each query, leaving out the other polarity.

    FAISS proposes somewhat more than ``k`` rows. Where these do not settle the answer (many of the other polarity, or
    a tie at the last place) the query is scored against every row. See `nearest_in_windows` for the parameters.
    """
    num_rows = len(vectors)
    depth = 2 * k + 16
    result = Nearest.empty(len(queries), k)
    unsettled = []
    if depth >= num_rows:
        unsettled = list(range(len(queries)))
    elif len(queries):
        proposed_scores, proposed_rows = _propose(index, queries, depth)
        margin = _rounding_margin(vectors.shape[1])
        for query, (scores, rows) in enumerate(zip(proposed_scores, proposed_rows, strict=True)):
            compatible = _compatible(polarity[rows], query_polarity[query])
            kept_scores = scores[compatible]
            if len(kept_scores) < k or kept_scores[k - 1] - scores[-1] <= margin:
                unsettled.append(query)
            else:
                _rank(result, query, vectors, queries[query], rows[compatible], kept_scores, k)
    if unsettled:
        start, stop = np.zeros(len(unsettled), np.int64), np.full(len(unsettled), num_rows, np.int64)
        rest = nearest_in_windows(vectors, polarity, queries[unsettled], query_polarity[unsettled], start, stop, k)
        result.rows[unsettled], result.scores[unsettled] = rest.rows, rest.scores
    return result


def _propose(index: faiss.Index, queries: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return FAISS's scores and rows, (n_queries, depth) each.

    Left to itself FAISS scores up to some hundred queries one by one; from four on a matrix product is faster.
    """
    import faiss

    usual = faiss.cvar.distance_compute_blas_threshold
    if len(queries) >= MIN_QUERIES_FOR_PRODUCT:
        faiss.cvar.distance_compute_blas_threshold = 1
    try:
        scores, rows = index.search(np.ascontiguousarray(queries), depth)
    finally:
        faiss.cvar.distance_compute_blas_threshold = usual
    return scores, rows


def _compatible(library_polarity: np.ndarray, query_polarity: np.integer) -> np.ndarray:
    compatible: np.ndarray = library_polarity * query_polarity != -1
    return compatible


def _groups(start: np.ndarray, stop: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the queries with a window, in groups whose joint slice is not much more than their own windows."""
    order = np.argsort(start, kind="stable")
    order = order[stop[order] > start[order]]
    begin = 0
    while begin < len(order):
        first, last = int(start[order[begin]]), int(stop[order[begin]])
        own, end = last - first, begin + 1
        while end < len(order):
            last = max(last, int(stop[order[end]]))
            own += int(stop[order[end]] - start[order[end]])
            joint = (last - first) * (end - begin + 1)
            if joint > MAX_SCORES_AT_ONCE or joint > max(2 * own, FREE_SCORES_PER_GROUP):
                break
            end += 1
        yield order[begin:end]
        begin = end


def _product(queries: np.ndarray, vectors: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return ``queries @ vectors[first:last].T``, a block of rows at a time.

    NumPy copies what is not aligned, and vectors mapped from a FAISS file are not; a copy of them all is too much.
    """
    scores = np.empty((len(queries), last - first), np.float32)
    for block in range(first, last, MAX_ROWS_AT_ONCE):
        end = min(block + MAX_ROWS_AT_ONCE, last)
        scores[:, block - first : end - first] = queries @ vectors[block:end].T
    return scores


def _rounding_margin(dim: int) -> float:
    """Return a bound on the error of the difference of two single-precision inner products of unit vectors."""
    unit_roundoff = np.finfo(np.float32).eps / 2
    return float(4 * dim * unit_roundoff)


def _rank(
    result: Nearest,
    query: int,
    vectors: np.ndarray,
    query_vector: np.ndarray,
    candidates: np.ndarray,
    scores: np.ndarray,
    k: int,
) -> None:
    """Write the best ``k`` candidates of one query into ``result``; ``scores`` are theirs in single precision."""
    if len(scores) > k:
        last_place = np.partition(scores, len(scores) - k)[len(scores) - k]
        close = scores >= last_place - _rounding_margin(len(query_vector))
        candidates = candidates[close]
    exact = np.empty(len(candidates), np.float32)
    for block in range(0, len(candidates), MAX_ROWS_AT_ONCE):
        part = slice(block, block + MAX_ROWS_AT_ONCE)
        exact[part] = np.multiply(vectors[candidates[part]], query_vector, dtype=np.float64).sum(axis=1)
    best = np.lexsort((candidates, -exact))[:k]
    result.rows[query, : len(best)] = candidates[best]
    result.scores[query, : len(best)] = exact[best]

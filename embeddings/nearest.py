"""Exact nearest vectors, within a slice of rows per query or among all rows, with ties broken by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

PPM = 1e-6
WINDOW_SLACK = 1e-12
"""Relative widening of a precursor window: decimal m/z that lie exactly on its edge count as within it."""

MAX_SCORES_AT_ONCE = 1 << 23
MAX_ROWS_AT_ONCE = 1 << 16
MAX_PAIRS_AT_ONCE = 1 << 14
FREE_SCORES_PER_GROUP = 1 << 14
"""A product of this many scores costs less than the two calls that it saves."""

FEW_QUERIES = 16
"""So many queries are scored against an excluded row sooner than the allowed rows around it are copied together."""


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
    allowed: np.ndarray | None = None,
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
    allowed : bool array of shape (n_library,), optional
        Rows that may be hits; by default all.
    """
    result = Nearest.empty(len(queries), k)
    margin = _rounding_margin(vectors.shape[1])
    pending: list[tuple[np.ndarray, np.ndarray]] = []
    num_pending = 0
    for group in _groups(start, stop):
        first, last = int(start[group].min()), int(stop[group].max())
        scores = _product(queries[group], vectors, first, last)
        rows = np.arange(first, last)
        outside = (rows < start[group, None]) | (rows >= stop[group, None])
        outside |= ~_compatible(polarity[first:last], query_polarity[group, None])
        if allowed is not None:
            outside |= ~allowed[first:last]
        scores[outside] = -np.inf
        query, column = np.nonzero(_near_the_best(scores, k, margin) & ~outside)
        pending.append((group[query], rows[column]))
        num_pending += len(query)
        if num_pending > MAX_ROWS_AT_ONCE:
            _rank(result, vectors, queries, *map(np.concatenate, zip(*pending, strict=True)))
            pending, num_pending = [], 0
    if pending:
        _rank(result, vectors, queries, *map(np.concatenate, zip(*pending, strict=True)))
    return result


def nearest_of_all(
    vectors: np.ndarray,
    polarity: np.ndarray,
    queries: np.ndarray,
    query_polarity: np.ndarray,
    k: int,
    allowed: np.ndarray | None = None,
) -> Nearest:
    """Return the best ``k`` of all rows of each query, leaving out the other polarity.

    Somewhat more than ``k`` rows are proposed in single precision. Where these do not settle the answer (a tie at the
    last place) the query is scored against every row. See `nearest_in_windows` for the parameters.
    """
    result = Nearest.empty(len(queries), k)
    for group, usable in usable_rows(polarity, query_polarity, allowed):
        found = _nearest_usable(vectors, queries[group], usable, k)
        result.rows[group], result.scores[group] = found.rows, found.scores
    return result


def nearest_among(
    vectors: np.ndarray, query_vector: np.ndarray, rows: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best ``k`` of some rows for one query, and their scores; equal scores in the order of the rows.

    Parameters
    ----------
    vectors : float32 array of shape (n_library, dim)
        Rows of unit length.
    query_vector : float32 array of shape (dim,)
        Of unit length.
    rows : int64 array
        Each at most once.
    k : int
    allowed : bool array of shape (n_library,), optional
        Rows that may be hits; by default all.

    Returns
    -------
    rows : int64 array of shape (min(k, number of rows that may be hits),)
    scores : float32 array of that shape
    """
    if allowed is not None:
        rows = rows[allowed[rows]]
    found = nearest_of_proposed(vectors, query_vector[None], rows[None], min(k, len(rows)))
    return found.rows[0], found.scores[0]


def nearest_of_proposed(vectors: np.ndarray, queries: np.ndarray, proposed: np.ndarray, k: int) -> Nearest:
    """Return the best ``k`` of the rows proposed for each query.

    Parameters
    ----------
    vectors : float32 array of shape (n_library, dim)
        Rows of unit length.
    queries : float32 array of shape (n_queries, dim)
        Rows of unit length.
    proposed : int64 array of shape (n_queries, n_proposed)
        Each row at most once per query; -1 is none.
    k : int
    """
    result = Nearest.empty(len(queries), k)
    if not len(vectors) or not proposed.shape[1]:
        return result
    margin = _rounding_margin(vectors.shape[1])
    at_once = max(1, MAX_PAIRS_AT_ONCE // max(1, proposed.shape[1]))
    for begin in range(0, len(queries), at_once):
        rows = proposed[begin : begin + at_once]
        scores = np.full(rows.shape, -np.inf, np.float32)
        for left in range(0, rows.shape[1], MAX_ROWS_AT_ONCE):
            part = slice(left, left + MAX_ROWS_AT_ONCE)
            scores[:, part] = np.matmul(vectors[rows[:, part]], queries[begin : begin + at_once, :, None])[..., 0]
        none = rows < 0
        scores[none] = -np.inf
        query, column = np.nonzero(_near_the_best(scores, k, margin) & ~none)
        _rank(result, vectors, queries, begin + query, rows[query, column])
    return result


def highest_set(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return the ``k`` rows with the highest inner products with each query, in the order of the rows.

    Those that a single-precision product leaves within its rounding error of the k-th are compared in double
    precision, and equals by row: a result does not depend on the queries beside it.

    Parameters
    ----------
    vectors : float32 array of shape (n_rows, dim)
        Of unit length at most.
    queries : float32 array of shape (n_queries, dim)
        Of unit length.
    k : int
        No more than there are rows.

    Returns
    -------
    int64 array of shape (n_queries, k)
    """
    scores = queries @ vectors.T
    margin = np.float32(_rounding_margin(vectors.shape[1]))
    kth = np.partition(scores, -k, axis=1)[:, -k, None]
    is_chosen = scores >= kth - margin
    for query in np.flatnonzero(np.count_nonzero(is_chosen, axis=1) > k).tolist():
        is_settled = scores[query] > kth[query] + margin
        doubtful = np.flatnonzero(is_chosen[query] & ~is_settled)
        exact = (vectors[doubtful].astype(np.float64) * queries[query]).sum(axis=1)
        wanted = k - np.count_nonzero(is_settled)
        is_chosen[query, doubtful[np.lexsort((doubtful, -exact))[wanted:]]] = False
    return np.nonzero(is_chosen)[1].reshape(len(queries), k)


def merged(parts: Sequence[Nearest], k: int) -> Nearest:
    """Return the best ``k`` of what several searches found, one for each part of a library.

    Parameters
    ----------
    parts : one Nearest for each part
        Of the same queries; rows numbered over all parts, none of them in two.
    k : int
    """
    rows = np.concatenate([part.rows for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    order = np.lexsort((rows, np.where(rows < 0, np.inf, -scores)), axis=1)[:, :k]
    result = Nearest.empty(len(rows), k)
    result.rows[:, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
    result.scores[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
    return result


def usable_rows(
    polarity: np.ndarray, query_polarity: np.ndarray, allowed: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the queries of each polarity, and the rows that may be their hits.

    Yields
    ------
    group : int64 array
        Numbers of queries.
    usable : bool array of shape (n_library,)
    """
    for sign in np.unique(query_polarity):
        usable = _compatible(polarity, sign)
        yield np.flatnonzero(query_polarity == sign), usable if allowed is None else usable & allowed


def _nearest_usable(vectors: np.ndarray, queries: np.ndarray, usable: np.ndarray, k: int) -> Nearest:
    """Return the best ``k`` usable rows of each query."""
    depth = 2 * k + 16
    rows = np.full((len(queries), depth), -1, np.int64)
    scores = np.full((len(queries), depth), -np.inf, np.float32)
    for begin in range(0, len(vectors), MAX_ROWS_AT_ONCE):
        block = slice(begin, begin + MAX_ROWS_AT_ONCE)
        found_scores, found_rows = _propose(vectors[block], queries, usable[block], depth)
        scores = np.concatenate([scores, found_scores], axis=1)
        rows = np.concatenate([rows, found_rows + begin], axis=1)
        best = _highest(scores, depth)
        rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
    result = nearest_of_proposed(vectors, queries, rows, k)
    last = scores.min(axis=1)
    kth = np.partition(scores, depth - k, axis=1)[:, depth - k]
    # -inf: there are fewer rows than were asked for, and all of them are proposed.
    unsettled = np.flatnonzero((last > -np.inf) & (kth <= last + np.float32(_rounding_margin(vectors.shape[1]))))
    if len(unsettled):
        num = len(unsettled)
        start, stop = np.zeros(num, np.int64), np.full(num, len(vectors), np.int64)
        anyone, nobody = np.zeros(num, np.int8), np.zeros(len(vectors), np.int8)
        rest = nearest_in_windows(vectors, nobody, queries[unsettled], anyone, start, stop, k, usable)
        result.rows[unsettled], result.scores[unsettled] = rest.rows, rest.scores
    return result


def _propose(vectors: np.ndarray, queries: np.ndarray, usable: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best ``depth`` usable rows of a block, in single precision and in no order.

    Returns
    -------
    scores : float32 array of shape (n_queries, at most depth)
    rows : int64 array of that shape
    """
    rows = np.flatnonzero(usable)
    few = len(queries) < FEW_QUERIES
    if len(rows) == len(vectors) or (few and 4 * len(rows) > len(vectors)):
        candidates = vectors
    else:
        candidates = vectors[rows]
    depth = min(depth, len(rows))
    if not depth:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    if few:
        scores = queries @ candidates.T
        if len(candidates) > len(rows):
            scores[:, ~usable] = -np.inf
        found = _highest(scores, depth)
        scores = np.take_along_axis(scores, found, axis=1)
    else:
        import faiss

        scores, found = faiss.knn(queries, candidates, depth, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, found if len(candidates) == len(vectors) else rows[found]


def _highest(scores: np.ndarray, depth: int) -> np.ndarray:
    """Return the columns of the ``depth`` highest scores of each row, in no order."""
    return np.argpartition(scores, scores.shape[1] - depth, axis=1)[:, scores.shape[1] - depth :]


def _near_the_best(scores: np.ndarray, k: int, margin: float) -> np.ndarray:
    """Return which scores of each row are no more than ``margin`` below the ``k``-th, bool of the scores' shape."""
    if scores.shape[1] <= k:
        return np.ones(scores.shape, bool)
    kth = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
    near: np.ndarray = scores >= (kth - np.float32(margin))[:, None]
    return near


def _compatible(library_polarity: np.ndarray, query_polarity: np.ndarray | np.integer) -> np.ndarray:
    compatible: np.ndarray = library_polarity * query_polarity != -1
    return compatible


def _groups(start: np.ndarray, stop: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the queries with a window, in groups whose joint slice is not much more than their own windows."""
    order = np.argsort(start, kind="stable")
    order = order[stop[order] > start[order]]
    begins, ends = start[order].tolist(), stop[order].tolist()
    begin = 0
    while begin < len(order):
        first, last = begins[begin], ends[begin]
        own, end = last - first, begin + 1
        while end < len(order):
            last = max(last, ends[end])
            own += ends[end] - begins[end]
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


def _rank(result: Nearest, vectors: np.ndarray, queries: np.ndarray, query: np.ndarray, row: np.ndarray) -> None:
    """Write the best of the pairs (query, row) into ``result``, by scores in double precision; all pairs of a query."""
    exact = np.empty(len(query), np.float32)
    for begin in range(0, len(query), MAX_PAIRS_AT_ONCE):
        part = slice(begin, begin + MAX_PAIRS_AT_ONCE)
        exact[part] = np.multiply(vectors[row[part]], queries[query[part]], dtype=np.float64).sum(axis=1)
    order = np.lexsort((row, -exact, query))
    query, row, exact = query[order], row[order], exact[order]
    place = np.arange(len(query)) - np.searchsorted(query, query, side="left")
    kept = place < result.rows.shape[1]
    result.rows[query[kept], place[kept]] = row[kept]
    result.scores[query[kept], place[kept]] = exact[kept]

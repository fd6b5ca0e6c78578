"""Mutual k-nearest neighbours of unit vectors: the pairs of which each is among the nearest of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..progress import Advance
from .nearest import MAX_ROWS_AT_ONCE

ROWS_AT_ONCE = 4096
"""Rows of a tile: its scores are 64 MB."""

PAIRS_PER_NEIGHBOUR = 4
"""Pairs that are kept for each neighbour asked for, before those that cannot matter are thrown away."""

FEWEST_PAIRS = 1 << 20


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of rows, each once.

    Attributes
    ----------
    first, second : int64 arrays of shape (n_pairs,)
        ``first < second``, ascending.
    scores : float32 array of shape (n_pairs,)
    """

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.first)

    def take(self, chosen: np.ndarray) -> Pairs:
        """Return the chosen pairs; a mask or places of shape (any,)."""
        return Pairs(self.first[chosen], self.second[chosen], self.scores[chosen])


def nearest_pairs(
    vectors: np.ndarray,
    polarity: np.ndarray,
    k: int,
    min_score: float,
    *,
    tile: int = ROWS_AT_ONCE,
    advance: Advance | None = None,
) -> Pairs:
    """Return every pair that is among the ``k`` best of at least one of its two rows; exact, ties at the end included.

    All rows are compared in square tiles, each pair once; scores are never held but for one tile. What is kept of a
    tile are the pairs that reach ``min_score`` and what was the k-th best score of either row so far.

    Parameters
    ----------
    vectors : float32 array of shape (n, dim)
        Rows of unit length.
    polarity : int8 array of shape (n,)
        +1, -1, or 0 where unknown; two known ones that differ are no pair.
    k : int
        At least 1.
    min_score : float
        Least cosine of a pair.
    tile : int
        Rows and columns of a tile.
    advance : Advance, optional
        Called with the number of rows that are done.

    Returns
    -------
    Pairs
        With their scores in double precision, rounded: they do not depend on how the rows are ordered or cut in tiles.
    """
    count = len(vectors)
    # A single-precision product may be lower than the true one by this much; what that leaves open is settled below.
    margin = float(4 * vectors.shape[1] * np.finfo(np.float32).eps / 2)
    found = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    kth_best = np.full(count, np.float32(min_score - margin))
    waiting: list[Pairs] = [found]
    num_waiting = 0
    limit = max(PAIRS_PER_NEIGHBOUR * k * count, FEWEST_PAIRS)
    for rows, columns in _tiles(count, tile):
        pairs = _of_tile(vectors, polarity, rows, columns, kth_best, k, margin)
        waiting.append(pairs)
        num_waiting += len(pairs)
        if num_waiting > limit:
            waiting = [_kept(_joined(waiting), kth_best, k, margin)]
            num_waiting = len(waiting[0])
            limit = max(limit, 2 * num_waiting)  # ties may leave more than was asked for
        if columns.stop == count and advance is not None:
            advance(len(rows))  # a stripe is done; the first are the longest
    pairs = _kept(_joined(waiting), kth_best, k, margin)
    pairs = Pairs(pairs.first, pairs.second, exact_scores(vectors, pairs.first, pairs.second))
    pairs = pairs.take(pairs.scores >= np.float32(min_score))
    return pairs.take(np.lexsort((pairs.second, pairs.first)))


def listed_pairs(
    vectors: np.ndarray,
    nearest: Callable[[np.ndarray, int], np.ndarray],
    k: int,
    min_score: float,
    *,
    advance: Advance | None = None,
) -> Pairs:
    """Return the pairs that a search finds, each spectrum being a query once; what it misses is missing.

    A pair that is found from one side alone counts from both.

    Parameters
    ----------
    vectors : float32 array of shape (n, dim)
        Rows of unit length.
    nearest : callable
        Returns the nearest rows of some rows, at most k of each and -1 where there are fewer; a row may be its own.
    k : int
        At least 1.
    min_score : float
        Least cosine of a pair.
    advance : Advance, optional
        Called with the number of rows that are done.
    """
    keys = [np.empty(0, np.int64)]
    for begin in range(0, len(vectors), ROWS_AT_ONCE):
        rows = np.arange(begin, min(begin + ROWS_AT_ONCE, len(vectors)))
        found = nearest(rows, k + 1)
        row = np.repeat(rows, found.shape[1])
        other = found.ravel()
        is_pair = (other >= 0) & (other != row)
        row, other = row[is_pair], other[is_pair]
        keys.append(np.minimum(row, other) * len(vectors) + np.maximum(row, other))
        if advance is not None:
            advance(len(rows))
    first, second = np.divmod(np.unique(np.concatenate(keys)), max(1, len(vectors)))
    pairs = Pairs(first, second, exact_scores(vectors, first, second))
    return pairs.take(pairs.scores >= np.float32(min_score))


def mutual(pairs: Pairs, count: int, k: int, order: np.ndarray | None = None) -> Pairs:
    """Return the pairs of which each row is among the ``k`` best of the other.

    Parameters
    ----------
    pairs : Pairs
        All that are among the k best of at least one of their rows, at least.
    count : int
        Number of rows.
    k : int
    order : int64 array of shape (count,), optional
        A rank of each row: of equal scores the one with the lower rank is nearer. By default the row itself.
    """
    order = np.arange(count) if order is None else order
    node = np.concatenate([pairs.first, pairs.second])
    other = np.concatenate([pairs.second, pairs.first])
    scores = np.concatenate([pairs.scores, pairs.scores])
    is_near = _places(node, scores, order[other], count) < k
    return pairs.take(is_near[: len(pairs)] & is_near[len(pairs) :])


def exact_scores(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the inner products of pairs, summed in double precision and rounded, float32 of shape (n_pairs,)."""
    scores = np.empty(len(first), np.float32)
    for begin in range(0, len(first), MAX_ROWS_AT_ONCE):
        part = slice(begin, begin + MAX_ROWS_AT_ONCE)
        scores[part] = np.multiply(vectors[first[part]], vectors[second[part]], dtype=np.float64).sum(axis=1)
    return scores


def _tiles(count: int, tile: int) -> Iterator[tuple[range, range]]:
    """Yield the rows and columns of the tiles on and above the diagonal, a stripe after the other."""
    for top in range(0, count, tile):
        for left in range(top, count, tile):
            yield range(top, min(top + tile, count)), range(left, min(left + tile, count))


def _of_tile(
    vectors: np.ndarray,
    polarity: np.ndarray,
    rows: range,
    columns: range,
    kth_best: np.ndarray,
    k: int,
    margin: float,
) -> Pairs:
    """Return the pairs of a tile that may be among the ``k`` best of either row, and raise ``kth_best`` by them."""
    row, column = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
    scores = vectors[row] @ vectors[column].T
    if rows == columns:
        scores[np.tril_indices(len(rows))] = -np.inf  # each pair once, and none with itself
    if (polarity[row].min(initial=0) < 0 < polarity[column].max(initial=0)) or (
        polarity[column].min(initial=0) < 0 < polarity[row].max(initial=0)
    ):
        scores[np.multiply.outer(polarity[row], polarity[column]) == -1] = -np.inf
    lowest = min(kth_best[row].min(), kth_best[column].min())
    if np.count_nonzero(scores >= lowest) > 4 * k * (len(rows) + len(columns)):
        # Little is known of these rows yet. The k best of this tile alone bound what can be among the k best of all.
        for bound, best in ((kth_best[row], scores), (kth_best[column], scores.T)):
            if best.shape[1] > k:
                place = best.shape[1] - k
                np.maximum(bound, np.partition(best, place, axis=1)[:, place] - np.float32(margin), out=bound)
        lowest = min(kth_best[row].min(), kth_best[column].min())
    place = np.flatnonzero(scores >= lowest)
    near_row, near_column = np.divmod(place, len(columns))
    near = Pairs(near_row + rows.start, near_column + columns.start, scores.ravel()[place])
    return near.take(near.scores >= np.minimum(kth_best[near.first], kth_best[near.second]))


def _kept(pairs: Pairs, kth_best: np.ndarray, k: int, margin: float) -> Pairs:
    """Raise ``kth_best`` to the k-th best score of each row so far, and return the pairs that reach it on one side."""
    node = np.concatenate([pairs.first, pairs.second])
    scores = np.concatenate([pairs.scores, pairs.scores])
    is_last = _places(node, scores, node, len(kth_best)) == k - 1
    kth_best[node[is_last]] = np.maximum(kth_best[node[is_last]], scores[is_last] - np.float32(margin))
    return pairs.take(pairs.scores >= np.minimum(kth_best[pairs.first], kth_best[pairs.second]))


def _places(node: np.ndarray, scores: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """Return the place of each entry among those of its node, best first, from 0; equal scores by ``order``."""
    ranked = np.lexsort((order, -scores, node))
    begins = np.searchsorted(node[ranked], np.arange(count))
    places = np.empty(len(node), np.int64)
    places[ranked] = np.arange(len(node)) - begins[node[ranked]]
    return places


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "second", "scores")))

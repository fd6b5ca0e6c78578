"""Searching the rows of all segments by their vectors, as if they were one: windows, the whole library, and filters."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import approximate as kinds
from .nearest import Nearest, merged, nearest_in_windows, nearest_of_all
from .segments.approximate_rows import ApproximateRows
from .segments.library import Library
from .windows import Windows

if TYPE_CHECKING:
    from .filters import Filters

MASKS_KEPT = 8
"""Of filters: a byte for each row, and the time that it takes to read their columns."""


class LibrarySearch:
    """A library of which rows are searched by their vectors.

    Parameters
    ----------
    library : Library
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._approximate = [
            ApproximateRows(segment.folder, segment.entry) if "approximate" in segment.entry else None
            for segment in library.segments
        ]
        self._masks: dict[Filters, np.ndarray] = {}

    def nearest(
        self, vectors: np.ndarray, polarity: np.ndarray, windows: Windows | None, allowed: np.ndarray | None, k: int
    ) -> Nearest:
        """Return the best ``k`` by cosine, of the windows or of all rows (None), as if the library were one segment.

        Exact, but where a segment has an approximate index and so many of its rows may be hits that this is faster.

        Parameters
        ----------
        vectors : float32 array of shape (n_queries, dim)
            Rows of unit length.
        polarity : int8 array of shape (n_queries,)
        windows : Windows or None
        allowed : bool array of shape (n_rows,), or None
            From `allowed`.
        k : int
        """
        parts = []
        for number, (segment, approximate) in enumerate(zip(self._library.segments, self._approximate, strict=True)):
            first, stop = self._library.bounds[number : number + 2]
            of_segment = None if allowed is None else allowed[first:stop]
            # Taken by slices and by rows only, which is when they are read and compared with their checksums.
            rows_of_segment = cast("np.ndarray", segment.vectors)
            asked = (rows_of_segment, segment.polarity, vectors, polarity)
            within = None if windows is None else (windows.start[number] - first, windows.stop[number] - first)
            # For windows of few rows the approximate index need not even be read.
            if approximate is not None and (within is None or _are_wide(*within)):
                found = kinds.nearest_approximate(
                    approximate.index, approximate.settings, *asked, k, of_segment, windows=within
                )
            elif within is None:
                found = nearest_of_all(*asked, k, of_segment)
            else:
                found = nearest_in_windows(*asked, *within, k, of_segment)
            parts.append(Nearest(np.where(found.rows < 0, -1, found.rows + first), found.scores))
        return parts[0] if len(parts) == 1 else self._merged(parts, k)

    def allowed(self, filters: Filters | None) -> np.ndarray | None:
        """Return which rows may be hits, bool of shape (n_rows,): live, and past the filters; None where all may."""
        live = self._library.live
        if not filters:
            return live
        found = self._masks.get(filters)
        if found is None:
            mask = filters.mask(self._library.columns(filters.needs()))
            found = mask if live is None else mask & live
            if len(self._masks) >= MASKS_KEPT:
                self._masks.pop(next(iter(self._masks)), None)
            self._masks[filters] = found
        return found

    def num_within(self, windows: Windows | None, num_queries: int) -> np.ndarray:
        """Return how many live rows lie in the window of each query, int64 of shape (n_queries,)."""
        if windows is None:
            return np.full(num_queries, self._library.num_live, np.int64)
        if self._library.live is None:
            numbers: np.ndarray = (windows.stop - windows.start).sum(axis=0)
        else:
            numbers = (self._live_before[windows.stop] - self._live_before[windows.start]).sum(axis=0)
        return numbers

    def describe(self) -> list[dict[str, Any]]:
        """Return how each segment is searched openly: its kind, and the recall that was measured, for a person."""
        return [
            {
                "rows": len(segment),
                "kind": segment.entry["kind"],
                "recall_at_10": 1.0 if approximate is None else round(approximate.measured.recall, 4),
            }
            for segment, approximate in zip(self._library.segments, self._approximate, strict=True)
        ]

    @cached_property
    def _live_before(self) -> np.ndarray:
        assert self._library.live is not None, "asked only where rows are deleted"
        return np.concatenate([[0], np.cumsum(self._library.live)])

    def _merged(self, parts: list[Nearest], k: int) -> Nearest:
        """Return the best of several segments; equals by their order in one segment, which the rows do not follow."""
        rows = np.concatenate([part.rows for part in parts], axis=1)
        found = np.unique(rows[rows >= 0])
        if not len(found):
            return Nearest.empty(len(rows), k)
        ordered = self._library.in_order(found)
        place = np.empty(len(found), np.int64)
        place[np.searchsorted(found, ordered)] = np.arange(len(ordered))

        def placed(part: Nearest) -> Nearest:
            of_rows = place[np.searchsorted(found, part.rows.clip(found[0]))]
            return Nearest(np.where(part.rows < 0, -1, of_rows), part.scores)

        best = merged([placed(part) for part in parts], k)
        return Nearest(np.where(best.rows < 0, -1, ordered[best.rows]), best.scores)


def _are_wide(start: np.ndarray, stop: np.ndarray) -> bool:
    return int((stop - start).max(initial=0)) > kinds.FLAT_UP_TO

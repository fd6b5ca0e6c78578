"""Precursor windows of queries in a library of several segments: a slice of rows in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .nearest import WINDOW_SLACK, precursor_windows
from .segments.library import Library


@dataclass(frozen=True, eq=False)
class Windows:
    """The rows ``start[s, q]:stop[s, q]`` of each segment s for each query q.

    Attributes
    ----------
    start, stop : int64 arrays of shape (n_segments, n_queries)
        Numbered over all segments.
    """

    start: np.ndarray
    stop: np.ndarray


def windows_in(library: Library, query_mz: np.ndarray, ppm: float | None, da: float | None) -> Windows | None:
    """Return the rows within each query's precursor window, None where neither ``ppm`` nor ``da`` is given.

    Parameters
    ----------
    library : Library
    query_mz : float64 array of shape (n_queries,)
    ppm : float or None
        Half width in ppm of the library's precursor m/z; see `ionbed.embeddings.nearest.precursor_windows`.
    da : float or None
        Half width in Da per charge.
    """
    if ppm is None and da is None:
        return None
    found = []
    for segment, first in zip(library.segments, library.bounds, strict=False):
        if da is not None:
            start, stop = dalton_windows(segment.precursor_mz, query_mz, da)
        else:
            assert ppm is not None, "one of the two is given"
            start, stop = precursor_windows(segment.precursor_mz, query_mz, ppm)
        found.append((start + first, stop + first))
    return Windows(np.stack([start for start, _ in found]), np.stack([stop for _, stop in found]))


def dalton_windows(library_mz: np.ndarray, query_mz: np.ndarray, da: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows ``start:stop`` of each query's window: ``|query - library| <= da``.

    Parameters
    ----------
    library_mz : float64 array of shape (n_library,)
        Ascending, in Da per charge.
    query_mz : float64 array of shape (n_queries,)
    da : float

    Returns
    -------
    start, stop : int64 arrays of shape (n_queries,)
    """
    tolerance = da + WINDOW_SLACK * query_mz
    start = np.searchsorted(library_mz, query_mz - tolerance, side="left")
    stop = np.searchsorted(library_mz, query_mz + tolerance, side="right")
    return start.astype(np.int64), stop.astype(np.int64)

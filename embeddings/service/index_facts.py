"""What can be told of an index to who searches it: its scores, what can be filtered, and an example."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..index import Index
from ..structure_index import StructureIndex
from .failures import RequestError
from .searching import AnyIndex

FILTERED = ("adduct", "instrument_type", "license")
MOST_VALUES = 50
ROWS_LOOKED_AT = 20_000
"""Evenly over the library: what is rarer than one in these is not offered, though it can be asked for."""


def calibrated(index: AnyIndex) -> bool:
    """Return whether hits have probabilities."""
    return index.manifest.get("calibration") is not None


def filter_values(index: AnyIndex) -> dict[str, list[str]]:
    """Return the values of the columns that can be filtered, the most frequent first."""
    if isinstance(index, StructureIndex):
        return {}
    table = index.rows(some_rows(index, ROWS_LOOKED_AT), FILTERED)
    return {
        name: [value for value, _ in Counter(filter(None, table[name].to_pylist())).most_common(MOST_VALUES)]
        for name in FILTERED
    }


def some_rows(index: AnyIndex, most: int) -> np.ndarray:
    """Return up to ``most`` rows, evenly over those that were not deleted, int64."""
    rows = np.arange(len(index))
    if isinstance(index, Index) and len(index) < index.num_rows:
        rows = np.flatnonzero(index.live)
    return rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(np.int64))]


def refuse_missing_row(index: AnyIndex, row: int) -> None:
    """Raise `RequestError` if there is no such row, or what it held was deleted: it may have been withdrawn."""
    num_rows = index.num_rows if isinstance(index, Index) else len(index)
    if row >= num_rows:
        raise RequestError(404, f"there is no row {row}; the index has {num_rows:,}")
    if isinstance(index, Index) and index.library.live is not None and not index.library.live[row]:
        raise RequestError(404, f"row {row} was deleted")

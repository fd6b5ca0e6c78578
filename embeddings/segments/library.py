"""The rows of all segments as one library: numbered over all segments in order, taken by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import InputError
from ...spectra.columns import SpectrumColumns
from ...spectra.store import SCHEMA
from .numbers import ROWS_PER_BLOCK, JoinedVectors
from .runs import KEYS
from .segment import Segment
from .table import PLACE


class Library:
    """The rows of an index of spectra.

    Parameters
    ----------
    segments : list of Segment, one at least
    deleted : int64 array
        Rows that are no longer of the library.

    Attributes
    ----------
    bounds : int64 array of shape (n_segments + 1,)
        Segment i has the rows ``bounds[i]:bounds[i + 1]``.
    vectors : JoinedVectors of shape (n_rows, dim)
    live : bool array of shape (n_rows,), or None where every row is
    num_live : int
    """

    def __init__(self, segments: list[Segment], deleted: np.ndarray) -> None:
        self.segments = segments
        self.bounds = np.cumsum([0, *map(len, segments)])
        self.vectors = JoinedVectors([segment.vectors for segment in segments])
        self.live: np.ndarray | None = None
        if len(deleted):
            self.live = np.ones(self.num_rows, bool)
            self.live[deleted] = False
        self.num_live = self.num_rows if self.live is None else int(self.live.sum())

    @property
    def num_rows(self) -> int:
        """Number of rows, those deleted included."""
        return int(self.bounds[-1])

    @cached_property
    def precursor_mz(self) -> np.ndarray:
        """Float64 of shape (n_rows,); ascending within each segment."""
        return _joined([segment.precursor_mz for segment in self.segments])

    @cached_property
    def polarity(self) -> np.ndarray:
        """Int8 of shape (n_rows,): +1, -1, or 0 where unknown."""
        return _joined([segment.polarity for segment in self.segments])

    def take(self, rows: np.ndarray, names: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        """Return columns of rows (integers of shape (n,), in any order and number); only what is needed is read."""
        rows = np.asarray(rows, np.int64)
        if not len(rows):
            return pa.schema([SCHEMA.field(name) for name in names]).empty_table()
        if len(self.segments) == 1:
            return self.segments[0].table.take(rows, names)
        of_segment = np.searchsorted(self.bounds, rows, "right") - 1
        parts, place, total = [], np.empty(len(rows), np.int64), 0
        for number in np.unique(of_segment).tolist():
            here = of_segment == number
            parts.append(self.segments[number].table.take(rows[here] - self.bounds[number], names))
            place[here] = np.arange(total, total + len(parts[-1]))
            total += len(parts[-1])
        return pa.concat_tables(parts).combine_chunks().take(pa.array(place))

    def batches(self, names: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield columns of all rows, without a copy: the number of the first, and a batch."""
        for segment, first in zip(self.segments, self.bounds[:-1].tolist(), strict=True):
            for number in range(-(-len(segment) // ROWS_PER_BLOCK)):
                yield first + number * ROWS_PER_BLOCK, segment.table.batch(number, names)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return columns of all rows, those deleted included, without a copy."""
        return pa.Table.from_batches([batch for _, batch in self.batches(names)])

    def peaks(self, rows: np.ndarray) -> SpectrumColumns:
        """Return the numeric side of spectra, in the order of ``rows``."""
        return SpectrumColumns.from_table(self.take(rows, SpectrumColumns.TABLE_COLUMNS))

    def rows_where(self, name: str, values: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the live rows that have one of ``values`` in a column, ascending, int64."""
        # All batches in one call: each call makes a table of the values first, which may be millions.
        rows = np.flatnonzero(pc.is_in(self.columns([name]).column(0), value_set=values).to_numpy())
        return rows if self.live is None else rows[self.live[rows]]

    def rows_of_ids(self, ids: Iterable[str]) -> np.ndarray:
        """Return the live rows with these ids, ascending, int64.

        Raises
        ------
        InputError
            There is no live row of an id.
        """
        wanted = pa.array(list(dict.fromkeys(ids)), pa.string())
        rows = self.rows_where("spectrum_id", wanted)
        if len(rows) < len(wanted):
            found = self.take(rows, ["spectrum_id"])["spectrum_id"].combine_chunks()
            missing = wanted.filter(pc.invert(pc.is_in(wanted, value_set=found)))
            others = f", nor {len(missing) - 1:,} more of these" if len(missing) > 1 else ""
            raise InputError(f"the index has no spectrum {missing[0].as_py()}{others}; take out what is not in it")
        return rows

    def rows_with(self, values: Mapping[str, Any]) -> np.ndarray:
        """Return the live rows that have a value in each of some columns (None: where it is unknown), ascending, int64.

        Raises
        ------
        InputError
            There is no such column, or its values are no such thing, or no live row has them.
        """
        rows: np.ndarray | None = None
        for name, value in values.items():
            kind = SCHEMA.field(name).type if name in PLACE else None
            if kind is None or pa.types.is_list(kind):
                names = [field.name for field in SCHEMA if not pa.types.is_list(field.type)]
                raise InputError(f"there is no column '{name}' to delete by; there are {', '.join(names)}")
            of_value = self.rows_where(name, pa.array([_as(kind, name, value)], kind))
            rows = of_value if rows is None else np.intersect1d(rows, of_value)
        if rows is None or not len(rows):
            told = " and ".join(f"{name} {value}" for name, value in values.items())
            raise InputError(f"no spectrum of the index has {told or 'nothing to delete it by'}")
        return rows

    def in_order(self, rows: np.ndarray) -> np.ndarray:
        """Return different rows in the order that one compacted segment would have them: by precursor m/z, then id."""
        rows = np.sort(np.asarray(rows, np.int64))
        if len(self.segments) == 1 or not len(rows):
            return rows
        keys = pa.table({KEYS[0]: self.precursor_mz[rows], KEYS[1]: self.take(rows, KEYS[1:])[KEYS[1]]})
        order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in KEYS]).to_numpy()
        return rows[order]


def _as(kind: pa.DataType, name: str, value: Any) -> Any:
    """Return a value, perhaps written as text, as a column has it."""
    if value is None or pa.types.is_string(kind):
        return value
    try:
        if not pa.types.is_boolean(kind):
            return pa.scalar(value).cast(kind).as_py()
        return {"true": True, "false": False}[str(value).lower()]
    except (pa.ArrowException, KeyError):
        raise InputError(f"the column '{name}' holds values of the kind {kind}, not '{value}'") from None


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def told_of(library: Library) -> dict[str, Any]:
    """Return what the live rows of a library are, for a person: molecules, polarities, precursor range, licences."""
    table = library.columns(["inchikey", "predicted", "license", "polarity", "precursor_mz"])
    if library.live is not None:
        table = table.filter(pa.array(library.live))
    polarity = table["polarity"].fill_null(0).to_numpy()
    licenses = {entry["values"]: entry["counts"] for entry in pc.value_counts(table["license"]).to_pylist()}
    ends = pc.min_max(table["precursor_mz"]).as_py()
    return {
        "structures": pc.count_distinct(pc.utf8_slice_codeunits(table["inchikey"], 0, 14)).as_py(),
        "predicted_spectra": pc.sum(table["predicted"]).as_py(),
        "positive": int((polarity > 0).sum()),
        "negative": int((polarity < 0).sum()),
        "polarity_unknown": int((polarity == 0).sum()),
        "lowest_precursor_mz": ends["min"],
        "highest_precursor_mz": ends["max"],
        "licenses": dict(Counter({text or "unknown": n for text, n in licenses.items()}).most_common()),
    }

"""Spectra in precursor order without having them all in memory: sorted runs on disk, and the merge of runs.

An external merge sort (Knuth, The Art of Computer Programming 3, section 5.4): of each run a block of the result needs
one slice, read in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ...spectra.deduplication import UniqueNames
from ...spectra.store import SCHEMA
from .numbers import ROWS_PER_BLOCK

ROWS_PER_RUN = 1 << 17
"""Rows that are sorted in memory at once, at most: of spectra with 60 peaks some 80 MB."""

BYTES_PER_RUN = 1 << 29
"""Of spectra with thousands of peaks, fewer rows are sorted at once."""

MOST_BETWEEN = 16
"""Rows that are read for nothing between two that are wanted: of a library most of which was deleted, not all of it."""

KEYS = ("precursor_mz", "spectrum_id")


class Run(Protocol):
    """Rows that can be read slice by slice."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def slice(self, start: int, stop: int, names: Sequence[str]) -> pa.Table:
        """Return columns of the rows ``start:stop``."""


@dataclass(frozen=True)
class SpilledRun:
    """A sorted run in an Arrow file, mapped into memory."""

    table: pa.Table

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.table)

    def slice(self, start: int, stop: int, names: Sequence[str]) -> pa.Table:
        """Return columns of the rows ``start:stop``."""
        return self.table.select(list(names)).slice(start, stop - start)


@dataclass(frozen=True, eq=False)
class Sorted:
    """Runs and the order in which their rows make one library.

    Attributes
    ----------
    runs : sequence of Run
    order : int64 array of shape (n,)
        Rows, numbered over all runs, by precursor m/z and then by spectrum id.
    renamed : mapping of int to str
        Ids of the rows that do not keep their own.
    """

    runs: Sequence[Run]
    order: np.ndarray
    renamed: dict[int, str]


def spill(
    tables: Iterable[pa.Table],
    folder: Path,
    *,
    rows_per_run: int = ROWS_PER_RUN,
    bytes_per_run: int = BYTES_PER_RUN,
) -> list[SpilledRun]:
    """Write tables of `SCHEMA` as sorted runs into a folder, and return these mapped into memory."""
    runs: list[SpilledRun] = []
    waiting: list[pa.Table] = []

    def write() -> None:
        table = pa.concat_tables(waiting).combine_chunks()
        waiting.clear()
        path = folder / f"run-{len(runs):05}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_table(table.take(_order(table)), max_chunksize=ROWS_PER_BLOCK)
        runs.append(SpilledRun(pa.ipc.open_file(pa.memory_map(str(path))).read_all()))

    for table in tables:
        while len(table):
            room = rows_per_run - sum(map(len, waiting))
            waiting.append(table[:room])
            table = table[room:]
            if sum(map(len, waiting)) == rows_per_run or sum(part.nbytes for part in waiting) >= bytes_per_run:
                write()
    if waiting:
        write()
    return runs


def sorted_with_unique_ids(runs: Sequence[SpilledRun]) -> Sorted:
    """Return the order of the rows of runs; of rows with one id, all but the first get a number at the end of theirs.

    Which is the first follows from the precursors, not from the order of the input.
    """
    keys = pa.concat_tables([run.table.select(KEYS) for run in runs])
    order = _order(keys)
    renamed = _new_ids(keys["spectrum_id"], order)
    if renamed:
        ids = keys["spectrum_id"].to_pylist()
        for row, name in renamed.items():
            ids[row] = name
        order = _order(keys.set_column(1, SCHEMA.field("spectrum_id"), pa.array(ids, pa.string())))
    return Sorted(runs, order, renamed)


def blocks(rows: Sorted, names: Sequence[str] = tuple(SCHEMA.names)) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield the rows in order, `ROWS_PER_BLOCK` at a time: columns, and the numbers they had over all runs."""
    bounds = np.cumsum([0, *map(len, rows.runs)])
    for begin in range(0, len(rows.order), ROWS_PER_BLOCK):
        wanted = rows.order[begin : begin + ROWS_PER_BLOCK]
        of_run = np.searchsorted(bounds, wanted, "right") - 1
        pieces, place, total = [], np.empty(len(wanted), np.int64), 0
        for number in np.unique(of_run).tolist():
            here = of_run == number
            inside = wanted[here] - bounds[number]
            first, stop = _spans(inside)
            spans = zip(first.tolist(), stop.tolist(), strict=True)
            pieces += [rows.runs[number].slice(begin, end, names) for begin, end in spans]
            ends = total + np.cumsum(stop - first)
            span = np.searchsorted(first, inside, "right") - 1
            place[here] = inside - stop[span] + ends[span]
            total = int(ends[-1])
        table = pa.concat_tables(pieces).combine_chunks().take(pa.array(place))
        if rows.renamed and "spectrum_id" in names:
            ids = table["spectrum_id"].to_pylist()
            ids = [rows.renamed.get(row, name) for row, name in zip(wanted.tolist(), ids, strict=True)]
            column = list(names).index("spectrum_id")
            table = table.set_column(column, SCHEMA.field("spectrum_id"), pa.array(ids, pa.string()))
        yield table, wanted


def _spans(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slices ``first:stop`` that hold some rows and few others, in order, int64."""
    rows = np.sort(rows)
    gaps = np.flatnonzero(np.diff(rows) > MOST_BETWEEN)
    return rows[np.concatenate([[0], gaps + 1])], rows[np.concatenate([gaps, [len(rows) - 1]])] + 1


def _order(table: pa.Table) -> np.ndarray:
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in KEYS])
    return order.to_numpy().astype(np.int64)


def _new_ids(ids: pa.ChunkedArray, order: np.ndarray) -> dict[int, str]:
    """Return another id for each row whose id a row before it in ``order`` has.

    Ids are compared by 64-bit checksums first, so that tens of millions need no Python object each.
    """
    hashes = np.empty(len(ids), np.uint64)
    row = 0
    for chunk in ids.chunks:
        for name in chunk.to_pylist():
            hashes[row] = xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))
            row += 1
    by_hash = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[by_hash[1:]] == hashes[by_hash[:-1]])
    if not len(same):
        return {}
    suspects = np.unique(by_hash[np.concatenate([same, same + 1])])
    suspects = suspects[np.argsort(np.argsort(order, kind="stable")[suspects])]
    of_name = defaultdict(list)
    for number, name in zip(suspects.tolist(), ids.take(pa.array(suspects)).to_pylist(), strict=True):
        of_name[name].append(number)
    repeated = {name: rows for name, rows in of_name.items() if len(rows) > 1}
    names = UniqueNames()
    sorted_hashes = hashes[by_hash]
    for name in repeated:
        names.assign(name)
    renamed = {}
    for name, rows in repeated.items():
        for number in rows[1:]:
            while _is_among(new := names.assign(name), sorted_hashes):
                pass  # another row is called so from the beginning
            renamed[number] = new
    return renamed


def _is_among(name: str, sorted_hashes: np.ndarray) -> bool:
    found = np.uint64(xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")))
    place = int(np.searchsorted(sorted_hashes, found))
    return place < len(sorted_hashes) and bool(sorted_hashes[place] == found)

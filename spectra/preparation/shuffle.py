"""The second stage of `prepare`: what is equal, wherever it lies in the input, is brought together by a shuffle.

A round has a key for every row. Groups of parts are sorted by key, each into a run; then each range of keys is read
from all runs by one task, which sees all rows of every key in its range and decides which of them go. Every task holds
a bounded number of rows, whatever the size of the input, and its result depends on the input only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..columns import SpectrumColumns
from ..deduplication import UniqueNames
from ..grades import BELOW, Grade, GradeOptions, worse
from ..near_duplicates import NearDuplicateOptions, keep_in_bucket
from .parts import Parts, scratch_file

if TYPE_CHECKING:
    from .workers import Workers

SMALLEST_RANGE = 1 << 13
MOST_SMALL_RANGES = 32
ROWS_PER_RANGE = 1 << 20
"""A range of keys has about `SMALLEST_RANGE` rows, so that many workers share it; where that would be more than
`MOST_SMALL_RANGES` ranges, up to `ROWS_PER_RANGE`."""

MOST_PEAKS = 4_000_000
"""Peaks of the members of one bucket that are compared at once, which bounds their memory; what is more is taken in
turns, best first."""

GRADES_FILE = "grades.json"
_ENTRY = np.dtype([("key", "<u8"), ("check", "<u8"), ("row", "<i8"), ("peaks", "<u4"), ("grade", "<u1")])
GRADES: tuple[Grade, ...] = ("A", "B", "C", BELOW)
"""From the best to the worst; entries hold places in it."""


@dataclass(frozen=True)
class Decisions:
    """Rows that go, by reason, in files of sorted row numbers.

    Attributes
    ----------
    files : tuple of (reason, path)
        Each path is a ``.npy`` file, int64 of shape (n_dropped,), ascending.
    """

    files: tuple[tuple[str, Path], ...] = ()

    def and_then(self, reason: str, paths: Sequence[Path]) -> Decisions:
        """Return these decisions and those of a further round."""
        return Decisions((*self.files, *((reason, path) for path in paths)))

    def between(self, start: int, stop: int) -> list[tuple[str, np.ndarray]]:
        """Return reason and row numbers (ascending) of the rows in ``[start, stop)`` that go."""
        found = []
        for reason, path in self.files:
            rows = np.load(path, mmap_mode="r")
            span = slice(*np.searchsorted(rows, [start, stop]))
            if span.start < span.stop:
                found.append((reason, np.array(rows[span])))
        return found

    def kept(self, start: int, stop: int) -> np.ndarray:
        """Return whether each row in ``[start, stop)`` stays, bool of shape (stop - start,)."""
        stays = np.ones(stop - start, bool)
        for _, rows in self.between(start, stop):
            stays[rows - start] = False
        return stays


@dataclass(frozen=True)
class Round:
    """One shuffle.

    Attributes
    ----------
    name : str
        Of its files.
    reason : str
        Why rows go, in the list of dropped records.
    column : str
        Of a part: 'measurement_key', 'name_key' or 'buckets'.
    table : int
        Of 'buckets', which.
    near_duplicates : NearDuplicateOptions
    """

    name: str
    reason: str
    column: str
    table: int = 0
    near_duplicates: NearDuplicateOptions = field(default_factory=NearDuplicateOptions)


def shuffle(workers: Workers, parts: Parts, this: Round, before: Decisions) -> list[Path]:
    """Run one round on the rows that stayed in the rounds before; return the files of its decisions, in key order.

    Parameters
    ----------
    before : Decisions
        Of the rounds before.

    Returns
    -------
    list of Path
        For 'name_key' new ids (`new_names`), otherwise sorted rows that go.
    """
    groups = list(enumerate(parts.groups()))
    runs = list(workers.map(partial(_sort_group, parts=parts, this=this, before=before), groups))
    num_rows = int(parts.offsets[-1])
    num_ranges = max(1, min(MOST_SMALL_RANGES, num_rows // SMALLEST_RANGE), num_rows // ROWS_PER_RANGE)
    borders = [(i << 64) // num_ranges for i in range(num_ranges + 1)]
    decide = _rename if this.column == "name_key" else _decide
    ranges = [(number, *span) for number, span in enumerate(pairwise(borders))]
    return list(workers.map(partial(decide, runs=runs, parts=parts, this=this), ranges))


def drop_by_grade(workers: Workers, parts: Parts, options: GradeOptions) -> list[Path]:
    """Return the files of the rows whose grade, with their file's, is below what is asked."""
    return list(workers.map(partial(_below, parts=parts, options=options), list(enumerate(parts.groups()))))


def file_grades(parts: Parts) -> dict[str, Grade]:
    """Return the grade of every library of the input."""
    grades: dict[str, Grade] = json.loads((parts.folder / GRADES_FILE).read_text(encoding="utf-8"))
    return grades


def final_grades(table: pa.Table, by_library: dict[str, Grade]) -> np.ndarray:
    """Return for each row of a part the worse of its own grade and its library's, as places in `GRADES`: uint8 (n,)."""
    own, own_values = _encoded(table["grade"])
    library, names = _encoded(table["library"])
    of_both = [[GRADES.index(worse(grade, by_library[name])) for name in names] for grade in own_values]
    return np.array(of_both, np.uint8).reshape(len(own_values), len(names))[own, library]


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Any]]:
    """Return the values of a column as places in a list of those that occur."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def new_names(files: Sequence[Path], start: int, stop: int) -> dict[int, str]:
    """Return the ids given to rows in ``[start, stop)`` because theirs were taken."""
    names: dict[int, str] = {}
    for file in files:
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_file(source).read_all()
        rows = table["row"].to_numpy()
        first, last = np.searchsorted(rows, [start, stop])
        names.update(zip(rows[first:last].tolist(), table["name"].slice(first, last - first).to_pylist(), strict=True))
    return names


def _sort_group(numbered: tuple[int, range], *, parts: Parts, this: Round, before: Decisions) -> Path:
    number, group = numbered
    path = parts.folder / f"{this.name}-run-{number:06d}.npy"
    if path.exists():
        return path
    offsets = parts.offsets
    by_library = file_grades(parts) if this.column == "buckets" else {}
    entries = [
        _entries(table, this, first_row, by_library)
        for part in group
        for first_row, table in parts.batches(part, _columns_of(this))
        if len(table)
    ]
    merged = np.concatenate(entries) if entries else np.empty(0, _ENTRY)
    start = int(offsets[group.start])
    merged = merged[before.kept(start, int(offsets[group.stop]))[merged["row"] - start]]
    merged = merged[np.argsort(merged["key"], kind="stable")]
    _save(_keys_of(path), np.ascontiguousarray(merged["key"]))
    _save(path, merged)
    return path


def _keys_of(run: Path) -> Path:
    """Return the file of a run's keys alone, in which a range is found without reading the rest."""
    return run.with_name(run.name.replace("-run-", "-keys-"))


def _columns_of(this: Round) -> list[str]:
    return [this.column, "grade", "library", "mz"] if this.column == "buckets" else [this.column]


def _entries(table: pa.Table, this: Round, first_row: int, by_library: dict[str, Grade]) -> np.ndarray:
    entries = np.zeros(len(table), _ENTRY)
    entries["row"] = first_row + np.arange(len(table))
    column = table[this.column].combine_chunks()
    if this.column == "buckets":
        num_tables = len(column[0])
        entries["key"] = column.flatten().to_numpy().reshape(len(table), num_tables)[:, this.table]
        entries["peaks"] = pc.list_value_length(table["mz"]).to_numpy()
        entries["grade"] = final_grades(table, by_library)
        return entries
    words = np.frombuffer(b"".join(column.to_pylist()), "<u8").reshape(len(table), 2)
    entries["key"], entries["check"] = words[:, 0], words[:, 1]
    return entries


def _range_of(runs: Sequence[Path], first: int, stop: int) -> np.ndarray:
    """Return the entries with keys in ``[first, stop)``, sorted by key, check and row."""
    slices = []
    for path in runs:
        keys = np.load(_keys_of(path), mmap_mode="r")
        last = len(keys) if stop >= 1 << 64 else np.searchsorted(keys, np.uint64(stop))
        slices.append(np.array(np.load(path, mmap_mode="r")[np.searchsorted(keys, np.uint64(first)) : last]))
    entries = np.concatenate(slices)
    return entries[np.lexsort((entries["row"], entries["check"], entries["key"]))]


def _decide(span: tuple[int, int, int], *, runs: Sequence[Path], parts: Parts, this: Round) -> Path:
    number, first, stop = span
    path = parts.folder / f"{this.name}-dropped-{number:06d}.npy"
    if path.exists():
        return path
    entries = _range_of(runs, first, stop)
    if this.column == "buckets":
        goes = _goes_from_buckets(entries, parts, this.near_duplicates)
    else:
        same = (entries["key"][1:] == entries["key"][:-1]) & (entries["check"][1:] == entries["check"][:-1])
        goes = entries["row"][1:][same]
    _save(path, np.sort(goes))
    return path


def _goes_from_buckets(entries: np.ndarray, parts: Parts, options: NearDuplicateOptions) -> np.ndarray:
    assert options.keep is not None
    goes = [np.empty(0, np.int64)]
    for buckets in _together(_crowded_buckets(entries, options.keep)):
        rows = np.concatenate(buckets)
        tables = [table for _, table in _fetch(parts, rows, SpectrumColumns.TABLE_COLUMNS)]
        columns = SpectrumColumns.from_table(pa.concat_tables(tables).combine_chunks())
        places = np.empty(len(rows), np.int64)
        places[np.argsort(rows)] = np.arange(len(rows))
        start = 0
        for bucket in buckets:
            members = columns.take(places[start : start + len(bucket)])
            goes.append(bucket[~keep_in_bucket(members, options)])
            start += len(bucket)
    return np.concatenate(goes)


def _crowded_buckets(entries: np.ndarray, keep: int) -> Iterator[np.ndarray]:
    """Yield the entries of each bucket of more than ``keep`` members, the best first, then as they come."""
    entries = entries[np.lexsort((entries["row"], entries["grade"], entries["key"]))]
    changes = entries["key"][1:] != entries["key"][:-1]
    starts = [0, *(1 + np.flatnonzero(changes)).tolist()] if len(entries) else []
    for start, stop in pairwise([*starts, len(entries)]):
        if stop - start <= keep:
            continue
        bucket = entries[start:stop]
        turns = np.cumsum(bucket["peaks"], dtype=np.int64) // MOST_PEAKS
        for turn in np.split(bucket, 1 + np.flatnonzero(np.diff(turns))):
            if len(turn) > keep:
                yield turn


def _together(buckets: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield buckets some at a time, so that their spectra are fetched together."""
    group: list[np.ndarray] = []
    size = 0
    for bucket in buckets:
        num_peaks = int(bucket["peaks"].sum(dtype=np.int64))
        if group and size + num_peaks > MOST_PEAKS:
            yield [entries["row"] for entries in group]
            group, size = [], 0
        group.append(bucket)
        size += num_peaks
    if group:
        yield [entries["row"] for entries in group]


def _fetch(parts: Parts, rows: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yield the rows, ascending, part by part, with their columns."""
    rows, offsets = np.sort(rows), parts.offsets
    owners = np.searchsorted(offsets, rows, side="right") - 1
    for part in np.unique(owners):
        mine = rows[owners == part]
        yield mine, parts.take(int(part), mine, columns)


def _rename(span: tuple[int, int, int], *, runs: Sequence[Path], parts: Parts, this: Round) -> Path:
    """Give new ids where several rows have one; the key is the id's stem, so that what could be given is here too."""
    number, first, stop = span
    path = parts.folder / f"{this.name}-new-{number:06d}.arrow"
    if path.exists():
        return path
    entries = _range_of(runs, first, stop)
    same_key = entries["key"][1:] == entries["key"][:-1]
    is_taken = same_key & (entries["check"][1:] == entries["check"][:-1])
    contested = np.unique(entries["key"][1:][is_taken])
    rows = np.sort(entries["row"][np.isin(entries["key"], contested)])
    names, new_rows, new_ids = UniqueNames(), [], []
    for mine, table in _fetch(parts, rows, ["spectrum_id"]):
        for row, name in zip(mine.tolist(), table["spectrum_id"].to_pylist(), strict=True):
            given = names.assign(name)
            if given != name:
                new_rows.append(row)
                new_ids.append(given)
    table = pa.table({"row": pa.array(new_rows, pa.int64()), "name": pa.array(new_ids, pa.string())})
    with (
        scratch_file(path) as partial_file,
        pa.OSFile(str(partial_file), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return path


def _below(numbered: tuple[int, range], *, parts: Parts, options: GradeOptions) -> Path:
    number, group = numbered
    path = parts.folder / f"grade-dropped-{number:06d}.npy"
    if path.exists():
        return path
    by_library, goes = file_grades(parts), [np.empty(0, np.int64)]
    is_dropped = np.array([options.is_dropped(grade) for grade in GRADES])
    for part in group:
        for first, table in parts.batches(part, ["grade", "library"]):
            goes.append(first + np.flatnonzero(is_dropped[final_grades(table, by_library)]))
    _save(path, np.concatenate(goes))
    return path


def _save(path: Path, array: np.ndarray) -> None:
    written = io.BytesIO()  # into a file itself, NumPy would not say why it failed
    np.save(written, array)
    with scratch_file(path) as partial_file:
        partial_file.write_bytes(written.getbuffer())

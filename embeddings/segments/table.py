"""The table of a segment: every column of the store in an Arrow file that is mapped into memory and never read whole.

Record batches have `ROWS_PER_BLOCK` rows, so that a row's place follows from its number. Beside the file lie checksums
(`CHECKSUMS`): of each column of each batch, compared when it is first read, and of what describes the batch, compared
before Arrow interprets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...spectra.store import SCHEMA
from .damage import changed, checksum, rows_named
from .numbers import ROWS_PER_BLOCK

CHECKSUMS = np.dtype(
    [
        ("start", "<i8"),
        ("stop", "<i8"),
        ("description", "<u8"),
        ("columns", "<u8", (len(SCHEMA.names),)),
        ("vectors", "<u8"),
    ]
)
"""Of one block of rows: where its batch lies in the file, and the XXH3 of its description, columns and vectors."""

PLACE = {name: number for number, name in enumerate(SCHEMA.names)}


class TableWriter:
    """Writes batches of `ROWS_PER_BLOCK` rows (the last may have fewer) to an Arrow file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA)
        self._ends: list[int] = []

    def write(self, table: pa.Table) -> None:
        """Write a batch."""
        [batch] = table.combine_chunks().to_batches()
        self._writer.write_batch(batch)
        self._ends.append(self._sink.tell())

    def close(self) -> None:
        """End the file."""
        self._writer.close()
        self._sink.close()

    def checksums(self) -> tuple[np.ndarray, int]:
        """Return the checksums of the file that was closed: an array of `CHECKSUMS`, and that of head and foot.

        They are of what lies in the file, which is read once more.
        """
        found = np.zeros(len(self._ends), CHECKSUMS)
        content = _mapped(self._path)
        # The writer tells no place before the first batch: that is where the schema ends, after the eight magic bytes.
        found["start"], found["stop"] = [8 + len(_description(content, 8)), *self._ends[:-1]], self._ends
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(content)))
        for number, entry in enumerate(found):
            entry["description"] = checksum(_description(content, entry["start"]))
            batch = reader.get_batch(number)
            entry["columns"] = [_checksum_of_column(column) for column in batch.columns]
        return found, checksum(*_head_and_foot(content, found))


class MappedTable:
    """The rows of a segment, `SCHEMA`; what is read of them is compared with its checksum the first time.

    Parameters
    ----------
    path : Path
        As `TableWriter` writes it.
    num_rows : int
    checksums : array of `CHECKSUMS`
    head_and_foot : int
        As `TableWriter.checksums` gives it.

    Raises
    ------
    InputError
        The file is damaged; of a batch, when it is read.
    """

    def __init__(self, path: Path, num_rows: int, checksums: np.ndarray, head_and_foot: int) -> None:
        self._path, self._num_rows, self._checksums, self._head_and_foot = path, num_rows, checksums, head_and_foot
        self._content = _mapped(path)
        self._batches: dict[int, pa.RecordBatch] = {}
        self._is_checked = np.zeros((len(checksums), len(SCHEMA.names)), bool)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._num_rows

    def batch(self, number: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of a batch, without a copy."""
        batch = self._batches.get(number)
        if batch is None:
            batch = self._batches[number] = self._read(number)
        for name in names:
            place = PLACE[name]
            if not self._is_checked[number, place]:
                if _checksum_of_column(batch.column(place)) != int(self._checksums["columns"][number, place]):
                    raise changed(self._path, f"{name} of {self._rows_of(number)}")
                self._is_checked[number, place] = True
        return batch.select(list(names))

    def slice(self, start: int, stop: int, names: Sequence[str]) -> pa.Table:
        """Return the rows ``start:stop``, one at least, without a copy."""
        first, last = start // ROWS_PER_BLOCK, (stop - 1) // ROWS_PER_BLOCK
        table = pa.Table.from_batches([self.batch(number, names) for number in range(first, last + 1)])
        return table.slice(start - first * ROWS_PER_BLOCK, stop - start)

    def take(self, rows: np.ndarray, names: Sequence[str]) -> pa.Table:
        """Return rows in the order asked for; only their batches are touched."""
        numbers, of_row = np.unique(rows // ROWS_PER_BLOCK, return_inverse=True)
        order = np.argsort(of_row, kind="stable")
        ends = np.cumsum(np.bincount(of_row, minlength=len(numbers)))
        inside = (rows % ROWS_PER_BLOCK)[order]
        parts = [
            self.batch(number, names).take(pa.array(inside[begin:end]))
            for number, begin, end in zip(numbers.tolist(), [0, *ends[:-1]], ends, strict=True)
        ]
        schema = pa.schema([SCHEMA.field(name) for name in names])
        gathered = pa.Table.from_batches(parts, schema).combine_chunks()
        if len(numbers) < 2 and (order == np.arange(len(order))).all():
            return gathered
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return gathered.take(pa.array(place))

    @cached_property
    def _reader(self) -> pa.RecordBatchFileReader:
        if checksum(*_head_and_foot(self._content, self._checksums)) != self._head_and_foot:
            raise changed(self._path, "its schema or its footer")
        return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._content)))

    def _read(self, number: int) -> pa.RecordBatch:
        reader, entry = self._reader, self._checksums[number]
        if checksum(_description(self._content, entry["start"])) != int(entry["description"]):
            raise changed(self._path, f"the description of {self._rows_of(number)}")
        return reader.get_batch(number)

    def _rows_of(self, number: int) -> str:
        first = number * ROWS_PER_BLOCK
        return rows_named(first, min(ROWS_PER_BLOCK, self._num_rows - first))


def _mapped(path: Path) -> np.ndarray:
    return np.asarray(np.memmap(path, np.uint8, mode="r"))


def _head_and_foot(content: np.ndarray, checksums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return content[: checksums["start"][0]], content[checksums["stop"][-1] :]


def _description(content: np.ndarray, start: int) -> np.ndarray:
    """Return what stands before a batch's buffers: their number, lengths and places (Arrow's encapsulated message).

    Its length is the four bytes after the marker of continuation; damaged ones give another checksum.
    """
    length = int(content[start + 4 : start + 8].view("<u4")[0])
    return content[start : start + 8 + length]


def _checksum_of_column(column: pa.Array) -> int:
    return checksum(*(memoryview(buffer) for buffer in column.buffers() if buffer is not None))

"""Cut a stream of spectra into blocks at record borders, and parse a block: the two halves of every reader.

A `Block` pickles, so that one process can cut a file while others parse. What differs between the formats is a
`RecordFormat` (where a record starts, and what one record says) or, for files that have to be opened by their path, a
`TableFormat`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..record import RawRecord
from .text import parse_peak_lists

BLOCK_BYTES = 4 << 20
_RECORDS_AT_ONCE = 512
MS_LEVELS = range(2, 100)
"""The MS levels whose peaks are read by default: all but survey scans."""

_NONE = np.empty(0, np.float64)


class Parsed(NamedTuple):
    """What one record says, before it is told where it lies."""

    native_id: str
    fields: dict[str, str]
    mz: np.ndarray = _NONE
    intensity: np.ndarray = _NONE
    problem: str | None = None
    repairs: tuple[str, ...] = ()


class Pending(NamedTuple):
    """A record whose peaks can be parsed together with those of others.

    Attributes
    ----------
    body : str
        Its lines of peaks.
    finish : callable
        Given m/z and intensity, or None where ``body`` is still to be parsed, what the record says.
    """

    body: str
    finish: Callable[[tuple[np.ndarray, np.ndarray] | None], Parsed]


@dataclass(frozen=True)
class RecordFormat:
    """One file format.

    Attributes
    ----------
    name : str
        As users call it, for example 'MGF'.
    extensions : tuple of str
        Lower case, without dot or '.gz'.
    looks_like : callable
        Whether the first bytes of a file are of this format.
    starts : callable
        The offsets at which records start, ascending. Bytes before the first belong to the file, not to a record.
    parse_header : callable
        What the bytes before the first record say about all records.
    parse_record : callable
        One record: its bytes, the parsed header, the MS levels whose peaks are wanted, and whether it is the last of
        its file. Never raises on bad input.
    is_whole : callable or None
        Given the header, the last record's bytes and the number of records in the file, whether the file ends as it
        should. None where only the last record can tell.
    marks_ends : bool
        Whether a record that is cut short can be told from a whole one by its end.
    """

    name: str
    extensions: tuple[str, ...]
    looks_like: Callable[[bytes], bool]
    starts: Callable[[bytes], list[int]]
    parse_header: Callable[[bytes], Any]
    parse_record: Callable[[bytes, Any, Container[int], bool], Parsed | Pending]
    is_whole: Callable[[bytes, bytes, int], bool] | None = None
    marks_ends: bool = True


class UnreadableTableError(ValueError):
    """A file of a `TableFormat` cannot be read at all.

    Attributes
    ----------
    problem : str
        The reason code for its record: 'truncated' or 'unknown-format'.
    """

    def __init__(self, problem: str, message: str) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True)
class TableFormat:
    """One format of files with a spectrum in each row, which cannot be read as a stream.

    Attributes
    ----------
    name : str
        As users call it, for example 'Parquet'.
    extensions : tuple of str
        Lower case, without dot.
    looks_like : callable
        Whether the first bytes of a file are of this format.
    slices : callable
        The rows of the file at a path, in slices that are read one at a time. Raises `UnreadableTableError`, with a
        sentence that names no file, and `InputError` where the library that reads such files is not installed.
    parse_rows : callable
        The records of a slice of rows, given path, source file, slice, and the MS levels whose peaks are wanted. Gives
        one record for each row, whatever is wrong with it.
    """

    name: str
    extensions: tuple[str, ...]
    looks_like: Callable[[bytes], bool]
    slices: Callable[[Path], list[range]]
    parse_rows: Callable[[Path, str, range, Container[int]], Iterator[RawRecord]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole records of one file, in file order.

    Attributes
    ----------
    source_file : str
    position : int
        1-based position in the file of the first record in this piece.
    data : bytes
        Line ends are single line feeds, without a byte order mark.
    header : bytes
        What stands before the first record of the file.
    ends_file : bool
        Whether the last record of the file is in this piece.
    damaged : bool
        Whether the file could not be read further than this piece (a cut gzip stream, for example).
    path : Path or None
        Of a `TableFormat`: the file to open, of which this piece is ``num_rows`` rows; ``data`` is empty then.
    problem : str or None
        Why the file cannot be read, where the piece stands for a whole file that cannot.
    starts : tuple of int
        Where the records start in ``data``; empty where that is still to be found.
    """

    source_file: str
    position: int
    data: bytes = field(default=b"", repr=False)
    header: bytes = field(default=b"", repr=False)
    ends_file: bool = True
    damaged: bool = False
    path: Path | None = None
    num_rows: int = 0
    problem: str | None = None
    starts: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Block:
    """A few megabytes of records of one format: the unit of work that goes to another process.

    ``format`` is the name of a `RecordFormat` or `TableFormat`, or '' for files that should hold spectra and cannot be
    read.
    """

    format: str
    pieces: tuple[Piece, ...]


def cut(
    record_format: RecordFormat, source_file: str, chunks: Iterator[bytes], is_damaged: Callable[[], bool]
) -> Iterator[Piece]:
    """Yield the pieces of one file, each of about `BLOCK_BYTES`; the last one ``ends_file``.

    ``is_damaged`` is asked once, when ``chunks`` are at their end.
    """
    buffer, header, position = bytearray(), None, 1
    places: tuple[int, ...]
    wanted = BLOCK_BYTES
    for chunk in chunks:
        buffer += chunk
        if len(buffer) < wanted:
            continue
        data = bytes(buffer)
        starts = record_format.starts(data)
        if len(starts) < 2:
            wanted = 2 * len(buffer)  # one record larger than a block: look again when there is twice as much
            continue
        if header is None:
            header = data[: starts[0]]
        places = tuple(start - starts[0] for start in starts[:-1])
        yield Piece(source_file, position, data[starts[0] : starts[-1]], header, ends_file=False, starts=places)
        position += len(starts) - 1
        del buffer[: starts[-1]]
        wanted = BLOCK_BYTES
    data = bytes(buffer)
    places = ()
    if header is None:
        starts = record_format.starts(data)
        first = starts[0] if starts else len(data)
        header, data = data[:first], data[first:]
        places = tuple(start - first for start in starts)
    yield Piece(source_file, position, data, header, damaged=is_damaged(), starts=places)


def slice_table(table_format: TableFormat, source_file: str, path: Path) -> list[Piece]:
    """Return the pieces of one file of a `TableFormat`.

    Raises
    ------
    UnreadableTableError
        It is damaged, or not laid out as the format asks.
    """
    slices = [rows for rows in table_format.slices(path) if len(rows)]
    return [
        Piece(source_file, rows.start + 1, ends_file=rows is slices[-1], path=path, num_rows=len(rows))
        for rows in slices
    ]


def parse_table_piece(
    table_format: TableFormat, piece: Piece, ms_levels: Container[int] = MS_LEVELS
) -> Iterator[RawRecord]:
    """Yield the record of each row of a piece."""
    assert piece.path is not None
    rows = range(piece.position - 1, piece.position - 1 + piece.num_rows)
    yield from table_format.parse_rows(piece.path, piece.source_file, rows, ms_levels)


def parse_piece(
    record_format: RecordFormat, piece: Piece, ms_levels: Container[int] = MS_LEVELS
) -> Iterator[RawRecord]:
    """Yield every record of a piece; the last one of a file that is cut short has the problem 'truncated'."""
    source_file, position = piece.source_file, piece.position
    header = record_format.parse_header(piece.header)
    starts = piece.starts or record_format.starts(piece.data)
    problem, last = None, b""
    spans = list(pairwise([*starts, len(piece.data)]))
    for first in range(0, len(spans), _RECORDS_AT_ONCE):
        results: list[Parsed | Pending] = []
        for start, stop in spans[first : first + _RECORDS_AT_ONCE]:
            last = piece.data[start:stop]
            is_last = piece.ends_file and stop == len(piece.data)
            results.append(record_format.parse_record(last, header, ms_levels, is_last))
        for parsed in _finished(results):
            is_last = piece.ends_file and position == piece.position + len(spans) - 1
            if is_last and piece.damaged and not record_format.marks_ends and not last.endswith(b"\n"):
                parsed = Parsed(parsed.native_id, parsed.fields, problem="truncated")  # its last number may be cut
            problem = parsed.problem
            yield RawRecord(source_file, parsed.native_id, position, *parsed[1:])
            position += 1
    if not piece.ends_file or problem == "truncated":
        return
    is_whole = record_format.is_whole
    if piece.damaged or (is_whole is not None and not is_whole(piece.header, last, position - 1)):
        yield broken_record(source_file, position, "truncated")


def _finished(results: list[Parsed | Pending]) -> Iterator[Parsed]:
    peaks = iter(parse_peak_lists([result.body for result in results if isinstance(result, Pending)]))
    for result in results:
        yield result.finish(next(peaks)) if isinstance(result, Pending) else result


def broken_record(source_file: str, position: int, problem: str) -> RawRecord:
    """Return a record of which nothing is known but why it cannot be read."""
    return RawRecord(source_file, "", position, {}, _NONE, _NONE, problem)

"""From a path to records and spectra: blocks of many files, their records, and the lazy reader behind `ionbed.read`."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from ...progress import counted
from ..molecule_files import MOLECULE_SUFFIXES
from ..record import RawRecord
from ..spectrum import Spectrum
from .blocks import (
    BLOCK_BYTES,
    MS_LEVELS,
    Block,
    Piece,
    TableFormat,
    UnreadableTableError,
    broken_record,
    cut,
    parse_piece,
    parse_table_piece,
    slice_table,
)
from .sniffing import FORMATS, SourceFile, source_files

if TYPE_CHECKING:
    from ..cleaning import CleaningOptions

logger = logging.getLogger("ionbed")

_PACKED_TABLE = "is {} packed in an archive or a compressed file, where its rows cannot be reached; unpack it"


def read_blocks(path: str | os.PathLike[str]) -> Iterator[Block]:
    """Return the blocks of a file, a folder or an archive, in file order; each can be parsed by another process.

    Small files of one format, the records of MassBank for example, share a block. Files that are neither spectra nor
    named like spectra are left out and logged.

    Raises
    ------
    InputError
        At the call: the path is missing or empty, or nothing in it is of a known format; it is a single file of rows
        (Parquet, HDF5) that is damaged, packed, or laid out otherwise.
    """
    path = Path(path)
    sources = source_files(path)
    skipped: list[str] = []
    passed: list[Block] = []
    for source in sources:
        if source.format is not None:
            if isinstance(source.format, TableFormat) and source.name == path.name:
                _refuse_unreadable(source.format, source, path)
            return _blocks_of_path(path, chain([source], sources), passed, skipped)
        if unreadable := _pass_over(source, skipped):
            passed.append(Block("", (unreadable,)))
    raise InputError(_why_nothing(path, skipped + [block.pieces[0].source_file for block in passed]))


def blocks_of_files(files: Iterable[tuple[str, Path]], skipped: list[str]) -> Iterator[Block]:
    """Yield the blocks of files (or archives) given as (display name, path).

    The names of those that are neither spectra nor named like spectra are appended to ``skipped``.
    """
    return _blocks(chain.from_iterable(source_files(path, name) for name, path in files), skipped)


def parse_block(block: Block, *, ms_levels: Container[int] = MS_LEVELS) -> list[RawRecord]:
    """Return every record of a block, broken ones with their ``problem``.

    A record whose MS level is not in ``ms_levels`` has no peaks and no problem, so that a caller can count it.
    """
    records: list[RawRecord] = []
    for piece in block.pieces:
        if not block.format:
            records.append(broken_record(piece.source_file, piece.position, piece.problem or "unknown-format"))
            continue
        known = FORMATS[block.format]
        if isinstance(known, TableFormat):
            records.extend(parse_table_piece(known, piece, ms_levels))
        else:
            records.extend(parse_piece(known, piece, ms_levels))
    return records


def read_records(path: str | os.PathLike[str], *, ms_levels: Container[int] = MS_LEVELS) -> Iterator[RawRecord]:
    """Return every record of a file, a folder or an archive as written, lazily; see `parse_block`.

    Raises
    ------
    InputError
        At the call, as `read_blocks`.
    """
    blocks = read_blocks(path)
    return (record for block in blocks for record in parse_block(block, ms_levels=ms_levels))


def _blocks_of_path(
    path: Path, sources: Iterator[SourceFile], passed: list[Block], skipped: list[str]
) -> Iterator[Block]:
    yield from passed
    yield from _blocks(sources, skipped)
    if skipped:
        warn_of_skipped(str(path), skipped)


def warn_of_skipped(where: str, skipped: list[str]) -> None:
    """Say which files were left out because they are not spectra."""
    names = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
    are = "is no spectrum" if len(skipped) == 1 else "are not spectra"
    logger.warning("%s: left out %s that %s (%s)", where, counted(len(skipped), "files"), are, names)


def _blocks(sources: Iterator[SourceFile], skipped: list[str]) -> Iterator[Block]:
    waiting: list[Piece] = []
    waiting_bytes, waiting_format = 0, ""
    for source in sources:
        for name, piece in _pieces(source, skipped):
            size = len(piece.data) if piece.path is None else BLOCK_BYTES
            if waiting and (waiting_bytes + size > BLOCK_BYTES or waiting_format != name):
                yield Block(waiting_format, tuple(waiting))
                waiting, waiting_bytes = [], 0
            waiting.append(piece)
            waiting_bytes += size
            waiting_format = name
    if waiting:
        yield Block(waiting_format, tuple(waiting))


def _pieces(source: SourceFile, skipped: list[str]) -> Iterator[tuple[str, Piece]]:
    """Yield the pieces of one file, each with the name of its format, '' where it cannot be read."""
    known = source.format
    if isinstance(known, TableFormat):
        yield from _table_pieces(known, source)
    elif known is not None:
        for piece in cut(known, source.name, source.chunks(), source.found_damaged):
            yield known.name, piece
    elif unreadable := _pass_over(source, skipped):
        yield "", unreadable


def _table_pieces(known: TableFormat, source: SourceFile) -> list[tuple[str, Piece]]:
    if source.path is None:
        logger.warning("%s: %s", source.name, _PACKED_TABLE.format(known.name))
        return [("", Piece(source.name, 1, problem="packed-table"))]
    try:
        return [(known.name, piece) for piece in slice_table(known, source.name, source.path)]
    except UnreadableTableError as error:
        logger.warning("%s: %s", source.name, error)
        return [("", Piece(source.name, 1, problem=error.problem))]


def _refuse_unreadable(known: TableFormat, source: SourceFile, path: Path) -> None:
    """Raise `InputError` if the one file that is to be read cannot be."""
    if source.path is None:
        raise InputError(f"{path}: {_PACKED_TABLE.format(known.name)}")
    try:
        known.slices(path)
    except UnreadableTableError as error:
        raise InputError(f"{path}: {error}") from None


def _pass_over(source: SourceFile, skipped: list[str]) -> Piece | None:
    """Return what stands for a file that should hold spectra and cannot be read; take note of any other."""
    if source.problem or source.found_damaged():
        return Piece(source.name, 1, problem=source.problem or "truncated")
    if source.named_format is not None:
        return Piece(source.name, 1, problem="unknown-format")
    skipped.append(source.name)
    return None


def _why_nothing(path: Path, names: list[str]) -> str:
    known = ", ".join(FORMATS)
    if path.is_dir() or names != [path.name]:
        found = f"{counted(len(names), 'files')}, none of a known format" if names else "no files"
        return f"{path}: holds {found}; ionbed reads {known}"
    if path.stat().st_size == 0:
        return f"{path}: is empty; a file of spectra is needed ({known})"
    with path.open("rb") as stream:
        if stream.read(2) == b"PK":
            return f"{path}: is a damaged zip archive (its directory is missing); get it anew"
    if path.suffix.lower() in MOLECULE_SUFFIXES:
        return f"{path}: holds molecules, and spectra are needed; molecules to search in go to 'ionbed index build'"
    return f"{path}: is of no format that ionbed reads ({known}); convert it, or check that it is whole"


@dataclass
class ReadReport:
    """What became of the records read: ``read == kept + sum(dropped.values())``.

    Attributes
    ----------
    read, kept : int
    dropped : Counter of str
        Records that gave no spectrum, by reason.
    repaired : Counter of str
        What had to be mended, by kind; one record may count under several.
    """

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return one line: read, kept, dropped by reason, repaired by kind."""
        parts = [f"{self.read:,} read, {self.kept:,} kept"]
        for verb, counts in (("dropped", self.dropped), ("repaired", self.repaired)):
            parts += [f"{count:,} {verb} ({reason})" for reason, count in sorted(counts.items())]
        return ", ".join(parts)


class SpectrumReader:
    """A lazy, re-iterable sequence of cleaned spectra; `read` makes one.

    Attributes
    ----------
    path : Path
    report : ReadReport
        Of the last complete or current iteration.
    """

    def __init__(self, path: str | os.PathLike[str], *, options: CleaningOptions | None = None) -> None:
        from ..cleaning import CleaningOptions

        self.path = Path(path)
        self.options = options if options is not None else CleaningOptions()
        self.report = ReadReport()
        self._first_records: Iterator[RawRecord] | None = read_records(self.path)

    def __repr__(self) -> str:
        return f"SpectrumReader({str(self.path)!r}: {self.report})"

    def __iter__(self) -> Iterator[Spectrum]:
        """Yield every spectrum that can be used, and count the others in `report`."""
        from ..harmonise import Dropped, harmonise

        records, self._first_records = self._first_records or read_records(self.path), None
        report = self.report = ReadReport()
        for record in records:
            report.read += 1
            result = harmonise(record, self.options, report.repaired)
            if isinstance(result, Dropped):
                report.dropped[result.reason] += 1
            else:
                report.kept += 1
                yield result


def read(path: str | os.PathLike[str], *, options: CleaningOptions | None = None) -> SpectrumReader:
    """Return a lazy reader of the cleaned spectra in a file, a folder or an archive.

    Parameters
    ----------
    path : path-like
        A file in MGF, MSP, MassBank, GNPS json, MoNA json, MassSpecGym (table), mzSpecLib (text), mzML, mzXML, HDF5 (as
        GeMS) or Parquet, recognised by content; a folder; a store that ``ionbed prepare`` wrote; a ``.zip`` or ``.tar``
        archive, also inside another. Each may be compressed (gzip, bzip2, xz, zstandard), but for Parquet and HDF5,
        which are read where they lie.
    options : CleaningOptions, optional
        How peaks are cleaned.

    Raises
    ------
    InputError
        The path is missing or empty, or nothing in it is of a known format.
    """
    return SpectrumReader(path, options=options)

"""Read the tables of MassSpecGym, one spectrum a row, and the folds of that benchmark.

Versions 1.0 and 1.5 have the same columns; 1.5 writes the SMILES anew. Source: Bushuiev et al., MassSpecGym (NeurIPS
2024), and its data set card.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from ...errors import InputError
from .blocks import Parsed, Piece, RecordFormat
from .field_names import field_of, with_unit
from .text import BadPeakLineError, decode, is_wanted

_NOT_BLANK = re.compile(rb"[^\S\n]*\S")
_NEEDED = {"identifier", "mzs", "intensities"}
_MISSING = frozenset({"", "nan", "na", "n/a", "none", "null"})


def read_folds(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the fold ('train', 'val', 'test') of each spectrum of a MassSpecGym table, by its identifier.

    Rows without identifier or fold are left out; of several rows with one identifier the first counts.

    Parameters
    ----------
    path : path-like
        As for `ionbed.read`: the table, gzipped or in an archive or folder.

    Raises
    ------
    InputError
        The path is missing, or holds no MassSpecGym table with a column ``fold``.
    """
    from .reading import read_blocks  # which knows this format

    folds: dict[str, str] = {}
    has_folds = False
    for block in read_blocks(path):
        if block.format != MASSSPECGYM.name:
            continue
        for piece in block.pieces:
            columns = _parse_header(piece.header)
            has_folds = has_folds or "fold" in columns
            for row in _rows(piece, columns):
                identifier, fold = row.get("identifier", ""), row.get("fold", "")
                if identifier and fold.lower() not in _MISSING:
                    folds.setdefault(identifier, fold)
    if not has_folds:
        raise InputError(
            f"{Path(path)}: holds no MassSpecGym table with a column 'fold'; give the benchmark's own file"
        )
    return folds


def _rows(piece: Piece, columns: list[str]) -> Iterator[dict[str, str]]:
    starts = _starts(piece.data)
    for start, stop in zip(starts, [*starts[1:], len(piece.data)], strict=True):
        cells = _cells(decode(piece.data[start:stop])[0])
        if len(cells) == len(columns):
            yield dict(zip(columns, cells, strict=True))


def _looks_like(head: bytes) -> bool:
    return _is_header(head.lstrip(b"\n").partition(b"\n")[0])


def _is_header(line: bytes) -> bool:
    return line.count(b"\t") >= 2 and set(_parse_header(line)) >= _NEEDED


def _starts(data: bytes) -> list[int]:
    starts, start = [], 0
    while start < len(data):
        if _NOT_BLANK.match(data, start):
            starts.append(start)
        start = data.find(b"\n", start) + 1 or len(data)
    if starts and _is_header(data[starts[0] : starts[1] if len(starts) > 1 else None]):
        del starts[0]
    return starts


def _parse_header(header: bytes) -> list[str]:
    """Return the names of the columns in lower case."""
    return [cell.lower() for cell in _cells(decode(header)[0].strip("\n"))]


def _cells(line: str) -> list[str]:
    line = line.rstrip("\n")
    if '"' in line:
        try:
            return [cell.strip() for cell in next(csv.reader([line], delimiter="\t"), [])]
        except csv.Error:
            pass  # a stray quote: the cells are as they stand
    return [cell.strip() for cell in line.split("\t")]


def _parse_record(data: bytes, columns: list[str], ms_levels: Container[int], is_last: bool) -> Parsed:
    text, repairs = decode(data)
    cells = _cells(text)
    if len(cells) != len(columns):
        is_cut = is_last and len(cells) < len(columns) and not data.endswith(b"\n")
        return Parsed("", {}, problem="truncated" if is_cut else "malformed-row", repairs=repairs)
    row = {column: cell for column, cell in zip(columns, cells, strict=True) if cell.lower() not in _MISSING}
    native_id = row.get("identifier", "")
    fields: dict[str, str] = {}
    for column, cell in row.items():
        if name := field_of(column, "MassSpecGym"):
            fields.setdefault(name, with_unit(column, cell, "MassSpecGym"))
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields, repairs=repairs)
    if "mzs" not in row and "intensities" not in row:
        return Parsed(native_id, fields, problem="no-peaks", repairs=repairs)
    try:
        mz, intensity = _numbers(row.get("mzs", "")), _numbers(row.get("intensities", ""))
    except BadPeakLineError:
        return Parsed(native_id, fields, problem="bad-peak-line", repairs=repairs)
    if len(mz) != len(intensity):
        return Parsed(native_id, fields, problem="bad-peak-line", repairs=repairs)
    if not (np.isfinite(mz).all() and np.isfinite(intensity).all()):
        repairs += ("bad-peak",)
    return Parsed(native_id, fields, mz, intensity, None, repairs)


def _numbers(cell: str) -> np.ndarray:
    cell = cell.strip("[]() ").rstrip(",")
    if "_" in cell:  # float() takes '1_0' for 10
        raise BadPeakLineError(cell)
    try:
        return np.array(list(map(float, cell.split(","))), np.float64)
    except ValueError:
        raise BadPeakLineError(cell) from None


MASSSPECGYM = RecordFormat(
    name="MassSpecGym",
    extensions=(),  # a file named .tsv may be anything
    looks_like=_looks_like,
    starts=_starts,
    parse_header=_parse_header,
    parse_record=_parse_record,
    marks_ends=False,
)

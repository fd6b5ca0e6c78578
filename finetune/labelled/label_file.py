"""Labels from a table of the user's: read, joined with the spectra of a store, and what did not match counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...errors import InputError
from ...spectra.label_table import column_place, read_table
from ...spectra.molecules import is_inchikey, standardise

KEY_COLUMNS = {
    "spectrum_id": ("spectrum_id", "native_id"),
    "inchikey": ("inchikey",),
    "smiles": ("inchikey",),
    "name": ("name",),
}
"""Columns of the store that each key is looked up in; a SMILES is compared by the InChIKey of its structure."""

YES, NO = {"1", "yes", "true", "y", "t"}, {"0", "no", "false", "n", "f"}
UNKNOWN = {"", "na", "n/a", "nan", "none", "null", "?"}
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class LabelFile:
    """A table of labels: cells as written, by column.

    Attributes
    ----------
    path : Path
    key : str
        Column by which rows are joined with spectra.
    columns : tuple of str
        The columns with labels.
    rows : list of tuple
        Line number, key, and the cells of ``columns``.
    """

    path: Path
    key: str
    columns: tuple[str, ...]
    rows: list[tuple[int, str, tuple[str, ...]]] = field(repr=False)


@dataclass(frozen=True)
class Joined:
    """Which row of a label file each spectrum has.

    Attributes
    ----------
    row : int64 array of shape (n_spectra,)
        Place in ``LabelFile.rows``; -1 where there is none.
    counts : dict of str to int
        Rows and spectra by what became of them.
    notes : tuple of str
        Examples of what did not match, a sentence each.
    """

    row: np.ndarray
    counts: dict[str, int]
    notes: tuple[str, ...]


def read_label_file(path: Path, key: str, columns: Sequence[str]) -> LabelFile:
    """Read a CSV or TSV (maybe gzipped) with a header line.

    The delimiter is a tab, a semicolon or a comma: whichever the header line has most of.

    Parameters
    ----------
    key : str
        Column to join by; capital letters, blanks and underscores do not matter in names of columns.
    columns : sequence of str
        Columns with labels; all but the key where empty.

    Raises
    ------
    InputError
        The file is missing, empty or no table, or lacks a column.
    """
    header, rows = read_table(path)
    key_place = column_place(path, header, key)
    wanted = [column_place(path, header, name) for name in columns] or [n for n in range(len(header)) if n != key_place]
    if len(set(wanted)) < len(wanted):
        raise InputError(f"{path}: labels.columns names one column twice ({', '.join(columns)}); name each once")
    if not wanted:
        raise InputError(f"{path}: has no column but '{header[key_place]}'; add one with labels")
    named = tuple(header[place] for place in wanted)
    cut = [
        (line, cells[key_place], tuple(cells[place] for place in wanted))
        for line, cells in rows
    ]  # fmt: skip
    return LabelFile(Path(path), key, named, cut)


def join(labels: LabelFile, table: pa.Table) -> Joined:
    """Find the row of each spectrum.

    Two rows with one key are one where their labels agree; where they do not, neither counts. An id that records of
    several source files have, as scans 1, 2, 3 of every run, says of none which it is.

    Parameters
    ----------
    table : pyarrow.Table
        Of the store, with ``source_file`` and the columns that `KEY_COLUMNS` names for the key.

    Raises
    ------
    InputError
        No row matches any spectrum.
    """
    normal = _NORMAL[labels.key]
    counts: Counter[str] = Counter(rows=len(labels.rows))
    notes: list[str] = []
    place_of: dict[str, int] = {}
    conflicting: set[str] = set()
    for place, (line, text, cells) in enumerate(labels.rows):
        key = normal(text)
        if key is None:
            reason = "without a key" if not text else f"with an unreadable {labels.key}"
            counts[f"rows {reason}"] += 1
            _note(notes, counts[f"rows {reason}"], f"line {line} has no {labels.key} that can be read ({text!r})")
        elif key not in place_of:
            place_of[key] = place
        elif labels.rows[place_of[key]][2] == cells:
            counts["rows that repeat another"] += 1
        else:
            counts["rows that contradict another of their key"] += 1
            if key not in conflicting:
                _note(notes, len(conflicting) + 1, f"line {line} contradicts line {labels.rows[place_of[key]][0]}")
            conflicting.add(key)
    usable = {key: place for key, place in place_of.items() if key not in conflicting}
    row = np.full(len(table), -1, np.int64)
    for column in KEY_COLUMNS[labels.key]:  # the first column that matches counts
        cells_of = [None if cell is None else normal_of_store(labels.key, cell) for cell in table[column].to_pylist()]
        found = np.array([-1 if cell is None else usable.get(cell, -1) for cell in cells_of], np.int64)
        if column == "native_id":
            ambiguous = (row < 0) & (found >= 0) & _in_several_files(table)
            if ambiguous.any():
                counts["spectra whose id is that of records of several files"] = int(ambiguous.sum())
                example = table["native_id"][int(ambiguous.argmax())].as_py()
                notes.append(f"records of several files have the id {example!r}; use ids of the store (spectrum_id)")
            found[ambiguous] = -1
        row = np.where(row >= 0, row, found)
    matched = set(row[row >= 0].tolist())
    missing = [key for key, place in usable.items() if place not in matched]
    counts["rows that match no spectrum"] = len(missing)
    for number, key in enumerate(missing[:NUM_EXAMPLES], 1):
        _note(notes, number, f"no spectrum has the {labels.key} {labels.rows[usable[key]][1]!r}")
    counts["spectra with a row"] = int((row >= 0).sum())
    counts["spectra without a row"] = int((row < 0).sum())
    if not matched:
        example = next((cell for cell in table[KEY_COLUMNS[labels.key][0]].to_pylist() if cell), None)
        raise InputError(
            f"{labels.path}: none of its {len(labels.rows):,} rows matches a spectrum by {labels.key} (there: "
            f"{labels.rows[0][1]!r}; in the store: {example!r}); choose another labels.key, or mend the column"
        )
    return Joined(row, dict(counts), tuple(notes))


def _in_several_files(table: pa.Table) -> np.ndarray:
    """Return which spectra have an id (``native_id``) that spectra of other source files have too, bool of (n,)."""
    ids, files = table["native_id"].to_pylist(), table["source_file"].to_pylist()
    files_of: dict[str, set[str]] = {}
    for name, file in zip(ids, files, strict=True):
        files_of.setdefault(name, set()).add(file)
    return np.array([len(files_of[name]) > 1 for name in ids], bool)


def normal_of_store(key: str, cell: str) -> str | None:
    """Return what a cell of the store is compared by."""
    return cell[:14] if key in ("inchikey", "smiles") else _NORMAL[key](cell)


def _note(notes: list[str], number: int, sentence: str) -> None:
    if number <= NUM_EXAMPLES:
        notes.append(sentence)


def _as_written(text: str) -> str | None:
    return text or None


def _block(text: str) -> str | None:
    text = text.upper().removeprefix("INCHIKEY=")
    return text[:14] if is_inchikey(text) else None


def _block_of_structure(text: str) -> str | None:
    molecule = standardise(text) if text else None
    return molecule.inchikey[:14] if molecule else None


def _name(text: str) -> str | None:
    return " ".join(text.casefold().split()) or None


_NORMAL: Mapping[str, Callable[[str], str | None]] = {
    "spectrum_id": _as_written,
    "inchikey": _block,
    "smiles": _block_of_structure,
    "name": _name,
}

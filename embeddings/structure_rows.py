"""From entries of a file of molecules to the rows of an index of structures: one for each molecule, by mass."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from ..errors import InputError
from ..progress import progress as show_progress
from ..progress import unseen
from ..spectra.molecule_files import NamedStructure
from ..spectra.molecules import Molecule, balancing_anions, parent_molecule
from ..spectra.preparation.workers import open_workers

STRUCTURE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("smiles", pa.string()),
        ("inchikey", pa.string()),
        ("formula", pa.string()),
        ("mass", pa.float64()),
        ("charge", pa.int8()),
        ("anions", pa.int8()),
        ("entries", pa.int32()),
    ]
)
"""``id`` and ``name``: all that the merged entries have, between semicolons. The others are of the molecule as the
first of its entries draws it, without its salt; ``formula`` in Hill order, ``mass`` monoisotopic in Da, ``anions`` as
of `ionbed.spectra.molecules.balancing_anions`."""

DROPPED_SCHEMA = pa.schema([("position", pa.int64()), *((n, pa.string()) for n in ("id", "name", "smiles", "reason"))])

NO_STRUCTURE, UNREADABLE = "no-structure", "unreadable"
_BETWEEN = "; "
_PER_TASK = 256
_WORTH_PROCESSES = 16 * _PER_TASK
"""Processes take a second or two to start, in which one reads some thousands of structures."""


@dataclass
class _Entries:
    """The entries of one molecule."""

    molecule: Molecule
    ids: dict[str, None] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    number: int = 0

    def add(self, entry: NamedStructure) -> None:
        name = " ".join(entry.name.split())
        identifier = " ".join(entry.identifier.split()) or name or f"#{entry.position}"
        self.ids[identifier] = None
        if name:
            self.names[name] = None
        self.number += 1


def structure_rows(
    entries: Iterable[NamedStructure | str], *, workers: int | None = 1, progress: bool = False
) -> tuple[pa.Table, pa.Table, int]:
    """Return one row for each molecule, and the entries that gave none.

    Entries are one molecule if they have the first InChIKey block in common, whatever their stereochemistry, salt and
    protonation, and the same mass: with isotopes it is another row, for it is found at another mass.

    Parameters
    ----------
    entries : iterable of NamedStructure or str
        Of a file of molecules (`ionbed.spectra.molecule_files.read_molecules`), or SMILES or InChI.
    workers : int or None
        Processes; all cores where None.
    progress : bool
        Show the progress on stderr.

    Returns
    -------
    rows : pyarrow.Table
        Of `STRUCTURE_SCHEMA`, by mass, then by InChIKey.
    dropped : pyarrow.Table
        Of `DROPPED_SCHEMA`, in the order of the entries.
    num_read : int

    Raises
    ------
    InputError
        No entry has a structure that can be read, or there is one text in place of entries.
    """
    if isinstance(entries, str):  # whose letters would be read as structures
        raise InputError(
            f"{entries!r} is one text; give a list of SMILES, or what ionbed.spectra.molecule_files reads of a file"
        )
    named = [_named(entry, number) for number, entry in enumerate(entries, start=1)]
    found: dict[tuple[str, int], _Entries] = {}
    dropped: list[dict[str, object]] = []
    for entry, molecule in zip(named, _molecules(named, workers, progress), strict=True):
        if molecule is None:
            # The reader gives None where it could not read a structure that is there.
            reason = UNREADABLE if entry.smiles is None or entry.smiles.strip() else NO_STRUCTURE
            values = (entry.position, entry.identifier or None, entry.name or None, entry.smiles or None, reason)
            dropped.append(dict(zip(DROPPED_SCHEMA.names, values, strict=True)))
            continue
        key = molecule.inchikey[:14], round(molecule.exact_mass * 1000)
        if key not in found:
            found[key] = _Entries(molecule)
        found[key].add(entry)
    if not found:
        reasons = Counter(str(row["reason"]) for row in dropped)
        told = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items()) or "there are none"
        raise InputError(f"no structure to index ({told}); at least one SMILES that RDKit can read is needed")
    by_mass = sorted(found.values(), key=lambda row: (row.molecule.exact_mass, row.molecule.inchikey))
    rows = pa.Table.from_pylist([_row(row) for row in by_mass], STRUCTURE_SCHEMA)
    return rows, pa.Table.from_pylist(dropped, DROPPED_SCHEMA), len(named)


def write_dropped(dropped: pa.Table, path: Path) -> None:
    """Write the entries that gave no row as tab-separated text."""
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, dialect="excel-tab", lineterminator="\n")
        writer.writerow(dropped.column_names)
        writer.writerows(row.values() for row in dropped.to_pylist())


def read_dropped(path: Path) -> pa.Table:
    """Return what `write_dropped` wrote, of `DROPPED_SCHEMA`; raises OSError or ArrowException where it is damaged."""
    convert = pacsv.ConvertOptions(column_types=DROPPED_SCHEMA, strings_can_be_null=True, null_values=[""])
    return pacsv.read_csv(
        path, parse_options=pacsv.ParseOptions(delimiter="\t", newlines_in_values=True), convert_options=convert
    )


def _named(entry: NamedStructure | str, number: int) -> NamedStructure:
    return NamedStructure("", entry, number) if isinstance(entry, str) else entry


def _molecules(entries: Sequence[NamedStructure], workers: int | None, progress: bool) -> Iterator[Molecule | None]:
    parts = [[e.smiles for e in entries[i : i + _PER_TASK]] for i in range(0, len(entries), _PER_TASK)]
    bar = show_progress("read structures", len(entries), unit="structures") if progress else unseen()
    with bar as advance, open_workers(workers if len(entries) >= _WORTH_PROCESSES else 1, None) as processes:
        for part in processes.map(_parents, parts):
            advance(len(part))
            yield from part


def _parents(structures: Sequence[str | None]) -> list[Molecule | None]:
    return [parent_molecule(text) if text and text.strip() else None for text in structures]


def _row(row: _Entries) -> dict[str, object]:
    molecule = row.molecule
    return {
        "id": _BETWEEN.join(row.ids),
        "name": _BETWEEN.join(row.names) or None,
        "smiles": molecule.smiles,
        "inchikey": molecule.inchikey,
        "formula": molecule.formula,
        "mass": molecule.exact_mass,
        "charge": molecule.charge,
        "anions": balancing_anions(molecule.smiles),
        "entries": row.number,
    }

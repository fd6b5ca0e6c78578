"""Read names and structures from the files that chemists keep them in: .smi, .tsv, .csv, .sdf, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .molecules import is_formula, is_inchikey

if TYPE_CHECKING:
    from rdkit.Chem import Mol

_SMILES_HEADERS = {"smiles", "canonicalsmiles", "isomericsmiles", "structure"}
_ID_HEADERS = ("id", "identifier", "databaseid", "compoundid", "accession", "hmdbid", "chebiid", "pubchemcompoundcid")
_NAME_HEADERS = ("name", "compoundname", "compound", "genericname", "title", "id", "identifier")  # the best first
MOLECULE_SUFFIXES = {".smi", ".smiles", ".ism", ".sdf", ".mol"}
_TABLE_SUFFIXES = {".tsv", ".csv", ".txt"}
_ROWS_TO_JUDGE = 20


@dataclass(frozen=True)
class NamedStructure:
    """One entry of a file of molecules: what is written there, not yet interpreted.

    Attributes
    ----------
    name : str
        '' where the file gives none.
    smiles : str or None
        None where the file's own structure (an SDF record) cannot be read.
    position : int
        Line of a text file, or record of an SDF, from 1.
    identifier : str
        Of a database, where the file gives one besides the name; else ''.
    """

    name: str
    smiles: str | None
    position: int
    identifier: str = ""


def holds_molecules(path: Path) -> bool:
    """Return whether a file is one of molecules rather than of spectra, by its name; a table also by its first bytes.

    Raises
    ------
    InputError
        A table cannot be opened.
    """
    suffix = _suffix(path)
    if path.is_dir() or suffix not in MOLECULE_SUFFIXES | _TABLE_SUFFIXES:
        return False
    if suffix in MOLECULE_SUFFIXES or not path.is_file():
        return True
    from .readers.sniffing import source_files  # which knows the tables that hold spectra

    return all(source.format is None for source in source_files(path))


def read_molecules(path: Path) -> list[NamedStructure]:
    """Return the entries of a .smi, .tsv, .csv or .txt file (columns by header, else by what parses) or an .sdf file.

    Each may be gzipped, with ``.gz`` at the end of its name.

    Raises
    ------
    InputError
        The file is missing, empty, damaged or not text, or no column holds SMILES.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a .smi, .tsv, .csv or .sdf file of molecules")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; it should hold one molecule per line, as SMILES and name")
    data = _content(path)
    is_sdf = _suffix(path) in {".sdf", ".mol"}
    entries = list(_read_sdf(data)) if is_sdf else list(_read_text(path, data))
    if not entries:
        raise InputError(f"{path}: holds no molecules; it should hold one per line, as SMILES and name")
    return entries


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is a damaged gzip file ({error}); get it anew") from None


def _suffix(path: Path) -> str:
    """Return the ending of the name that tells the format, in lower case: '.tsv' of 'a.TSV.gz'."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _read_sdf(data: bytes) -> Iterator[NamedStructure]:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs(), io.BytesIO(data) as handle:
        supplier: Iterator[Mol | None] = iter(Chem.ForwardSDMolSupplier(handle))  # RDKit's stubs forget the None
        for position, mol in enumerate(supplier, start=1):
            if mol is None:
                yield NamedStructure("", None, position)
                continue
            name = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
            properties = {_header(key): mol.GetProp(key).strip() for key in mol.GetPropNames()}
            name = name or next((properties[key] for key in _NAME_HEADERS if key in properties), "")
            identifier = next((properties[key] for key in _ID_HEADERS if key in properties), "")
            yield NamedStructure(name, Chem.MolToSmiles(mol), position, identifier if identifier != name else "")


def _read_text(path: Path, data: bytes) -> Iterator[NamedStructure]:
    if b"\0" in data:
        raise InputError(f"{path}: is not a text file; name a .smi, .tsv, .csv or .sdf file of molecules")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    rows = [(number, cells) for number, cells in _rows(path, text) if any(cells)]
    if not rows:
        return
    headers = [_header(cell) for cell in rows[0][1]]
    smiles_column = next((i for i, header in enumerate(headers) if header in _SMILES_HEADERS), None)
    if smiles_column is not None:
        name_column = next((headers.index(header) for header in _NAME_HEADERS if header in headers), None)
        id_column = next((headers.index(header) for header in _ID_HEADERS if header in headers), None)
        rows = rows[1:]
    else:
        smiles_column = _column_that_parses(path, [cells for _, cells in rows[:_ROWS_TO_JUDGE]])
        width = max(len(cells) for _, cells in rows[:_ROWS_TO_JUDGE])
        name_column = next((i for i in range(width) if i != smiles_column), None)
        id_column = None
        if smiles_column >= 2 and not _describes_structure([cells[1] for _, cells in rows[:_ROWS_TO_JUDGE]]):
            id_column, name_column = 0, 1  # what comes before the structure says how it is called
    for number, cells in rows:
        smiles = cells[smiles_column] if smiles_column < len(cells) else ""
        name = cells[name_column] if name_column is not None and name_column < len(cells) else ""
        identifier = ""
        if id_column is not None and id_column != name_column and id_column < len(cells):
            identifier = cells[id_column]
        yield NamedStructure(name, smiles, number, identifier)


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells; .smi lines hold SMILES, blanks and a name, which may have blanks itself."""
    lines = text.splitlines()
    if _suffix(path) in {".smi", ".smiles", ".ism"} and not any("\t" in line for line in lines[:_ROWS_TO_JUDGE]):
        for number, line in enumerate(lines, start=1):
            if not line.startswith("#"):
                yield number, line.split(None, 1)
        return
    delimiter = "\t" if "\t" in lines[0] else ";" if ";" in lines[0] and "," not in lines[0] else ","
    reader = csv.reader(
        io.StringIO(text), delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    )
    try:
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is no table row ({error}); mend the file") from None


def _column_that_parses(path: Path, rows: Sequence[Sequence[str]]) -> int:
    from rdkit import Chem, rdBase

    counts: dict[int, int] = {}
    with rdBase.BlockLogs():
        for cells in rows:
            for column, cell in enumerate(cells):
                counts[column] = counts.get(column, 0) + (bool(cell) and Chem.MolFromSmiles(cell) is not None)
    column = max(counts, key=lambda c: (counts[c], -c))
    if not counts[column]:
        raise InputError(
            f"{path}: no column holds SMILES; name one 'smiles' in the first line, or give SMILES and name per line"
        )
    return column


def _describes_structure(cells: Sequence[str]) -> bool:
    """Whether a column holds InChI, InChIKeys or formulas, not names."""
    return all(cell.startswith("InChI=") or is_inchikey(cell) or is_formula(cell) for cell in cells if cell)


def _header(cell: str) -> str:
    return cell.strip().lower().replace("_", "").replace(" ", "").replace("-", "")

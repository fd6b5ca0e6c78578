"""Tables of the user's (CSV or TSV) that say something of spectra; structures from them, laid over records of files."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from .record import RawRecord

ID_COLUMNS = ("spectrumid", "nativeid", "id", "title", "featureid", "scans", "scan")
"""Names of the column with ids, without capital letters, blanks and underscores; the best first."""

FIELDS = (
    "smiles", "inchi", "inchikey", "formula", "name", "chemical_class", "adduct", "collision_energy", "instrument",
    "instrument_type", "laboratory", "license",
)  # fmt: skip
"""What a table may say of a record (`ionbed.spectra.record.FIELDS`)."""

IDENTITY, OF_MOLECULE = ("smiles", "inchi", "inchikey"), ("smiles", "inchi", "inchikey", "formula")
"""What names a molecule, and what a file says of one: nothing of it holds where the table names the molecule."""


def read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header of a CSV or TSV (maybe gzipped), and line number and cells of each row.

    The delimiter is a tab, a semicolon or a comma: whichever the header line has most of.

    Raises
    ------
    InputError
        The file is missing, is no text or no table, or has no row.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name a CSV or TSV with labels") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; save the table as CSV in UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); name a CSV or TSV with labels") from None
    first = text.split("\n", 1)[0]
    delimiter = max("\t;,", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not header:
                header = cells
            elif len(cells) != len(header):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(cells)} cells, the header {len(header)}; mend the line"
                )
            else:
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is no row of a table ({error}); mend the file") from None
    if not rows:
        raise InputError(f"{path}: holds no rows; it should have a header and a row for each spectrum or molecule")
    if len(folded := [folded_name(name) for name in header]) > len(set(folded)):
        twice = next(name for name, count in Counter(folded).items() if count > 1)
        raise InputError(f"{path}: has the column '{twice}' twice; rename one")
    return header, rows


def column_place(path: Path, header: Sequence[str], name: str) -> int:
    """Return the place of a column; capital letters, blanks, hyphens and underscores do not matter in its name."""
    folded = [folded_name(of) for of in header]
    if folded_name(name) not in folded:
        raise InputError(f"{path}: has no column '{name}'; it has {', '.join(header)}")
    return folded.index(folded_name(name))


def folded_name(name: str) -> str:
    """Return what two spellings of the name of a column share."""
    return "".join(name.lower().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True, eq=False)
class RecordLabels:
    """What a table says of records.

    Attributes
    ----------
    path : Path
    fields : dict of id to (number of the row from 0, fields by name)
    ignored : tuple of str
        Columns that say nothing that a record holds.
    """

    path: Path
    fields: Mapping[str, tuple[int, dict[str, str]]] = field(repr=False)
    ignored: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.fields)

    def laid_over(self, record: RawRecord) -> tuple[RawRecord, int]:
        """Return a record with what the table says in place of its own fields, and the number of the row (-1: none).

        Where the table names the molecule, nothing that the file says of its structure is left to speak against it.
        """
        row, fields = self.fields.get(record.native_id) or self.fields.get(
            f"{record.source_file}#{record.position}", (-1, {})
        )
        if not fields:
            return record, row
        own: Mapping[str, str] = record.fields
        if any(name in fields for name in IDENTITY):
            own = {name: text for name, text in own.items() if name not in OF_MOLECULE}
        return replace(record, fields={**own, **fields}), row


def read_record_labels(path: Path) -> RecordLabels:
    """Read a table with a column of ids (`ID_COLUMNS`) and columns of what is known of the records (`FIELDS`).

    Raises
    ------
    InputError
        As `read_table`; or a column is missing, or two rows say different things of one id.
    """
    path = Path(path)
    try:
        seen = path.stat()
    except OSError:
        return _read_record_labels(path, 0, 0)  # it says what is wrong
    return _read_record_labels(path, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=1)  # a worker reads many parts with one table, and may outlive a change of it
def _read_record_labels(path: Path, changed: int, size: int) -> RecordLabels:
    header, rows = read_table(path)
    folded = [folded_name(name) for name in header]
    key = next((folded.index(name) for name in ID_COLUMNS if name in folded), None)
    if key is None:
        raise InputError(f"{path}: has no column 'spectrum_id' (or id, title, native_id); it has {', '.join(header)}")
    known = {folded.index(folded_name(name)): name for name in FIELDS if folded_name(name) in folded}
    if not known:
        raise InputError(
            f"{path}: says nothing of molecules; add a column 'smiles' (or inchi, inchikey, formula, name)"
        )
    found: dict[str, tuple[int, dict[str, str]]] = {}
    line_of: dict[str, int] = {}
    for number, (line, cells) in enumerate(rows):
        if not (name := cells[key]):
            raise InputError(f"{path}: line {line} has no id in the column '{header[key]}'; mend the line")
        fields = {of: cells[place] for place, of in known.items() if cells[place]}
        if name in found and found[name][1] != fields:
            raise InputError(f"{path}: lines {line_of[name]} and {line} say different things of {name!r}; keep one")
        found.setdefault(name, (number, fields))
        line_of.setdefault(name, line)
    ignored = tuple(name for place, name in enumerate(header) if place != key and place not in known)
    return RecordLabels(path, found, ignored)

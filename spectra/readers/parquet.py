"""Read spectra from Parquet: shards that ``ionbed prepare`` wrote, and other files with a spectrum in each row."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..record import RawRecord
from .blocks import MS_LEVELS, TableFormat, UnreadableTableError, broken_record
from .field_names import ID_KEYS, field_of, normal_key, with_unit
from .text import is_wanted, ms_level

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..spectrum import Spectrum

_MARK = b"PAR1"
_ROWS_PER_SLICE = 8192
_SLICES_PER_GROUP = 16
_ROWS_PER_BATCH = 1024

_MZ = ("mz", "mzs", "mzarray", "mzvalues")
_INTENSITY = ("intensity", "intensities", "intensityarray", "intensityvalues")
_IDS = ("spectrumid", "nativeid", *ID_KEYS)
_NONE = np.empty(0, np.float64)


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise UnreadableTableError("truncated", f"is a damaged Parquet file ({reason}); get it anew") from None


def _slices(path: Path) -> list[range]:
    """Return slices of row groups: several small groups, or parts of a large one.

    A row group is read from its start, so that many small parts of a large one would take long.
    """
    with _open(path) as file:
        _Columns.of(file.schema_arrow)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    slices: list[range] = []
    start = stop = 0
    for size in sizes:
        if stop > start and stop + size - start > _ROWS_PER_SLICE:
            slices.append(range(start, stop))
            start = stop
        stop += size
        step = max(_ROWS_PER_SLICE, math.ceil(size / _SLICES_PER_GROUP))
        while stop - start > step:
            slices.append(range(start, start + step))
            start += step
    return [*slices, range(start, stop)] if stop > start else slices


class _Columns:
    """Which columns of a file hold what.

    Attributes
    ----------
    is_prepared : bool
        Whether the file has the store's schema, so that its rows need no harmonising.
    names : list of str
        The columns that are read.
    """

    def __init__(self, schema: pa.Schema, mz: str, intensity: str, fields: Mapping[str, str], native_id: str) -> None:
        from ..store import SCHEMA

        self.is_prepared = all(f.name in schema.names and schema.field(f.name).type == f.type for f in SCHEMA)
        self.mz, self.intensity, self.fields, self.native_id = mz, intensity, fields, native_id
        own = [mz, intensity, *fields, *([native_id] if native_id else [])]
        self.names = list(dict.fromkeys([*(SCHEMA.names if self.is_prepared else []), *own]))

    @classmethod
    def of(cls, schema: pa.Schema) -> _Columns:
        """Find the columns of a file.

        Raises
        ------
        UnreadableTableError
            It has no lists of m/z and intensity, or no precursor m/z.
        """
        import pyarrow as pa

        by_key: dict[str, str] = {}
        for name in schema.names:
            by_key.setdefault(normal_key(name), name)
        lists = {
            key: name
            for key, name in by_key.items()
            if pa.types.is_list(kind := schema.field(name).type)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        }
        mz = next((lists[key] for key in _MZ if key in lists), "")
        intensity = next((lists[key] for key in _INTENSITY if key in lists), "")
        fields = {name: field for name in by_key.values() if name not in lists.values() and (field := field_of(name))}
        found = {"mz": mz, "intensity": intensity, "precursor_mz": "precursor_mz" in fields.values()}
        if missing := [name for name, column in found.items() if not column]:
            raise UnreadableTableError(
                "unknown-format",
                f"is a Parquet file without the column {', '.join(missing)}; lists mz and intensity and a number "
                "precursor_mz are needed in each row",
            )
        return cls(schema, mz, intensity, fields, next((by_key[key] for key in _IDS if key in by_key), ""))


def _parse_rows(
    path: Path, source_file: str, rows: range, ms_levels: Container[int] = MS_LEVELS
) -> Iterator[RawRecord]:
    """Yield the records of ``rows``; what is damaged costs the rest of its row group."""
    import pyarrow as pa

    row = rows.start
    try:
        with _open(path) as file:
            columns = _Columns.of(file.schema_arrow)
            for group, start, stop in _row_groups(file, rows):
                try:
                    for table in _tables(file, group, start, rows, columns.names):
                        for record in _records(table, columns, source_file, row + 1, ms_levels):
                            row += 1
                            yield record
                except (OSError, ValueError, pa.ArrowException):
                    yield from _unreadable_rows(source_file, range(row, min(stop, rows.stop)))
                    row = min(stop, rows.stop)
    except UnreadableTableError:
        yield from _unreadable_rows(source_file, range(row, rows.stop))


def _unreadable_rows(source_file: str, rows: range) -> Iterator[RawRecord]:
    return (broken_record(source_file, row + 1, "bad-binary-array") for row in rows)


def _row_groups(file: pq.ParquetFile, rows: range) -> Iterator[tuple[int, int, int]]:
    """Yield number, first row and end of the row groups that ``rows`` touch."""
    start = 0
    for group in range(file.num_row_groups):
        stop = start + file.metadata.row_group(group).num_rows
        if start < rows.stop and stop > rows.start:
            yield group, start, stop
        start = stop


def _tables(file: pq.ParquetFile, group: int, start: int, rows: range, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the ``rows`` of one row group, which starts at row ``start``, in small tables."""
    import pyarrow as pa

    for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, row_groups=[group], columns=list(names)):
        wanted = batch[max(rows.start - start, 0) : max(rows.stop - start, 0)]
        if wanted.num_rows:
            table = pa.Table.from_batches([wanted])
            table.validate(full=True)  # a damaged page may well be decoded, to text that is none
            yield table
        start += batch.num_rows
        if start >= rows.stop:
            return


def _records(
    table: pa.Table, columns: _Columns, source_file: str, position: int, ms_levels: Container[int]
) -> Iterator[RawRecord]:
    if columns.is_prepared:
        prepared = _prepared_records(table, source_file, position, ms_levels)
        if prepared is not None:
            return prepared
    return _raw_records(table, columns, source_file, position, ms_levels)


def _prepared_records(
    table: pa.Table, source_file: str, position: int, ms_levels: Container[int]
) -> Iterator[RawRecord] | None:
    """Return the records of spectra as they are, None where a row is not what the store's schema promises."""
    from ..store import SCHEMA, spectra_from_table

    if any(table[f.name].null_count for f in SCHEMA if not f.nullable):
        return None
    try:
        spectra = list(spectra_from_table(table.select(SCHEMA.names)))
    except ValueError:  # m/z and intensity differ in length
        return None
    return (_prepared_record(s, source_file, position + row, ms_levels) for row, s in enumerate(spectra))


def _prepared_record(spectrum: Spectrum, source_file: str, position: int, ms_levels: Container[int]) -> RawRecord:
    fields = _fields_of_spectrum(spectrum)
    peaks = (_NONE, _NONE)
    if is_wanted(fields, ms_levels):
        peaks = (spectrum.mz.astype(np.float64), spectrum.intensity.astype(np.float64))
    return RawRecord(source_file, spectrum.spectrum_id, position, fields, *peaks, prepared=spectrum)


def _fields_of_spectrum(spectrum: Spectrum) -> dict[str, str]:
    values = {
        "precursor_mz": spectrum.precursor_mz,
        "charge": f"{spectrum.charge:+d}" if spectrum.charge is not None else None,
        "polarity": spectrum.polarity,
        "adduct": spectrum.adduct,
        "ms_level": spectrum.ms_level,
        "retention_time": None if spectrum.retention_time is None else f"{np.float32(spectrum.retention_time)!s} s",
        "collision_energy": spectrum.collision_energy_raw,
        "instrument": spectrum.instrument,
        "instrument_type": spectrum.instrument_type,
        "smiles": spectrum.smiles,
        "inchikey": spectrum.inchikey,
        "formula": spectrum.formula,
        "name": spectrum.name,
        "chemical_class": spectrum.chemical_class,
        "laboratory": spectrum.laboratory,
        "license": spectrum.license,
        "usi": spectrum.usi,
        "predicted": "true" if spectrum.predicted else None,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _raw_records(
    table: pa.Table, columns: _Columns, source_file: str, position: int, ms_levels: Container[int]
) -> Iterator[RawRecord]:
    texts = {name: _texts(table[name]) for name in dict.fromkeys([*columns.fields, columns.native_id]) if name}
    peaks = zip(table[columns.mz], table[columns.intensity], strict=True)
    for row, (mz, intensity) in enumerate(peaks):
        fields: dict[str, str] = {}
        for column, name in columns.fields.items():
            if value := texts[column][row]:
                fields.setdefault(name, _with_unit(column, name, value, table.schema.field(column).type))
        if "ms_level" in fields:
            fields["ms_level"] = ms_level(fields["ms_level"])
        native_id = texts[columns.native_id][row] if columns.native_id else ""
        here = (source_file, native_id, position + row, fields)
        if not is_wanted(fields, ms_levels):
            yield RawRecord(*here, _NONE, _NONE)
            continue
        arrays = [_numbers(value) for value in (mz, intensity)]
        if any(array is None for array in arrays) or len(arrays[0]) != len(arrays[1]):  # type: ignore[arg-type]
            yield RawRecord(*here, _NONE, _NONE, "bad-binary-array")
        else:
            yield RawRecord(*here, arrays[0], arrays[1], None if len(arrays[0]) else "no-peaks")  # type: ignore[arg-type]


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Return each value as text, '' where there is none."""
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        dtype = column.type.to_pandas_dtype()  # the shortest text of a float32 is not that of the same float64
        return ["" if v is None or not math.isfinite(v) else str(dtype(v)) for v in column.to_pylist()]
    if pa.types.is_boolean(column.type):
        return ["" if v is None else str(v).lower() for v in column.to_pylist()]
    return ["" if v is None else str(v).strip() for v in column.to_pylist()]


def _with_unit(column: str, name: str, value: str, kind: pa.DataType) -> str:
    """Return a value with its unit: a column of numbers holds collision energies in eV."""
    import pyarrow as pa

    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return f"{value} eV" if name == "collision_energy" and is_number else with_unit(column, value)


def _numbers(value: Any) -> np.ndarray | None:
    """Return a list of numbers as float64, None where it is missing or not one."""
    if not value.is_valid:
        return None
    try:
        array = value.values.to_numpy(zero_copy_only=False).astype(np.float64)
    except (ValueError, TypeError):
        return None
    return array if array.ndim == 1 else None


PARQUET = TableFormat(
    name="Parquet",
    extensions=("parquet",),
    looks_like=lambda head: head.startswith(_MARK),
    slices=_slices,
    parse_rows=_parse_rows,
)

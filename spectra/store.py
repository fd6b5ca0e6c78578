"""The store: prepared spectra as Parquet shards with one fixed schema, and the folder that holds them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import MANIFEST, read_manifest, sha256_of_file
from ..errors import InputError
from .columns import SpectrumColumns
from .matchms_spectra import as_spectra
from .spectrum import METADATA_FIELDS, Spectrum

_TEXT = pa.string()
SCHEMA = pa.schema(
    [
        pa.field("spectrum_id", _TEXT, nullable=False),
        pa.field("precursor_mz", pa.float64(), nullable=False),
        ("source_file", _TEXT),
        ("native_id", _TEXT),
        ("usi", _TEXT),
        ("charge", pa.int8()),
        ("polarity", pa.int8()),
        ("adduct", _TEXT),
        ("ms_level", pa.int8()),
        ("retention_time", pa.float32()),
        ("collision_energy", pa.float32()),
        ("collision_energy_raw", _TEXT),
        ("instrument_type", _TEXT),
        ("instrument", _TEXT),
        ("smiles", _TEXT),
        ("inchikey", _TEXT),
        ("formula", _TEXT),
        ("name", _TEXT),
        ("chemical_class", _TEXT),
        ("laboratory", _TEXT),
        ("license", _TEXT),
        ("grade", _TEXT),
        pa.field("predicted", pa.bool_(), nullable=False),
        pa.field("repairs", pa.list_(_TEXT), nullable=False),
        pa.field("flags", pa.list_(_TEXT), nullable=False),
        pa.field("mz", pa.list_(pa.float32()), nullable=False),
        pa.field("intensity", pa.list_(pa.float32()), nullable=False),
    ]
)
"""One row of the store. ``mz`` is ascending (Da per charge), ``intensity`` relative to the base peak (1.0)."""

SHARD_NAME = "spectra-{:05d}.parquet"


def table_from_spectra(spectra: Iterable[Spectrum]) -> pa.Table:
    """Return a table of `SCHEMA` with one row per spectrum; those of matchms go through `from_matchms`."""
    spectra = list(as_spectra(spectra))
    columns: dict[str, Any] = {name: [getattr(s, name) for s in spectra] for name in METADATA_FIELDS}
    peaks = SpectrumColumns.from_spectra(spectra)
    offsets = pa.array(peaks.offsets, pa.int32())
    columns["mz"] = pa.ListArray.from_arrays(offsets, pa.array(peaks.mz, pa.float32()))
    columns["intensity"] = pa.ListArray.from_arrays(offsets, pa.array(peaks.intensity, pa.float32()))
    return pa.table([pa.array(columns[f.name], f.type) if f.name in METADATA_FIELDS else columns[f.name]
                     for f in SCHEMA], schema=SCHEMA)  # fmt: skip


def spectra_from_table(table: pa.Table) -> Iterator[Spectrum]:
    """Yield one `Spectrum` per row of a table of `SCHEMA`."""
    names = [name for name in METADATA_FIELDS if name in table.column_names]
    for batch in table.to_batches(max_chunksize=4096):
        metadata = [batch.column(name).to_pylist() for name in names]
        for codes in ("repairs", "flags"):
            if codes in names:
                column = names.index(codes)
                metadata[column] = [tuple(values or ()) for values in metadata[column]]
        peaks = SpectrumColumns.from_table(pa.table({n: batch.column(n) for n in SpectrumColumns.TABLE_COLUMNS}))
        for row, values in enumerate(zip(*metadata, strict=True)):
            span = slice(peaks.offsets[row], peaks.offsets[row + 1])
            yield Spectrum(mz=peaks.mz[span], intensity=peaks.intensity[span], **dict(zip(names, values, strict=True)))


class Store:
    """A folder written by ``ionbed prepare``: Parquet shards and their manifest.

    Raises
    ------
    InputError
        The folder is missing, is not a store, or a shard is missing, truncated, or not as its manifest says; when
        spectra are read, that a shard is damaged. `Store.verify` finds any change of a shard.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, made_by="prepare")
        entries = _checked_entries(self.folder, self.manifest)
        self.shards = [self.folder / entry["file"] for entry in entries]
        for shard, entry in zip(self.shards, entries, strict=True):
            _compare_footer(shard, entry["spectra"])

    def __len__(self) -> int:
        """Return the number of spectra."""
        return sum(shard["spectra"] for shard in self.manifest["shards"])

    def __iter__(self) -> Iterator[Spectrum]:
        """Yield every spectrum, shard by shard."""
        for shard in self.shards:
            yield from spectra_from_table(_read_shard(shard, None))

    def verify(self) -> None:
        """Compare every byte of every shard with the manifest, by checksum.

        Raises
        ------
        InputError
            A shard was changed after the store was made, or the manifest has no checksum of it.
        """
        for shard, entry in zip(self.shards, self.manifest["shards"], strict=True):
            if "sha256" not in entry:
                raise InputError(f"{shard}: the manifest has no checksum of it; run 'ionbed prepare' again")
            if _sha256(shard) != entry["sha256"]:
                raise InputError(
                    f"{shard}: was changed after the store was made (its checksum differs); run 'ionbed prepare' again"
                )

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows, or only the named columns, as one table."""
        return pa.concat_tables([_read_shard(shard, columns) for shard in self.shards])

    def blocks(self, columns: Sequence[str], rows: range, size: int) -> Iterator[pa.Table]:
        """Yield consecutive rows as tables of ``size`` rows (the last has what is left); only what is needed is read.

        Parameters
        ----------
        columns : sequence of str
        rows : range
            A slice of the rows of the store.
        size : int
        """
        waiting: list[pa.Table] = []
        count = 0
        for table in self._row_groups(columns, rows):
            waiting, count = [*waiting, table], count + len(table)
            while count >= size:
                joined = pa.concat_tables(waiting)
                yield joined[:size]
                waiting, count = [joined[size:]], count - size
        if count:
            yield pa.concat_tables(waiting)

    def _row_groups(self, columns: Sequence[str], rows: range) -> Iterator[pa.Table]:
        start = 0
        for shard, entry in zip(self.shards, self.manifest["shards"], strict=True):
            if start + entry["spectra"] > rows.start and start < rows.stop:
                yield from _read_rows(shard, columns, range(max(rows.start - start, 0), rows.stop - start))
            start += entry["spectra"]

    def spectra(self, rows: np.ndarray | None = None) -> list[Spectrum]:
        """Return the spectra at ``rows`` (all where None), in that order."""
        table = self.table() if rows is None else self.table().take(pa.array(rows))
        return list(spectra_from_table(table))


def write_shard(table: pa.Table, path: Path) -> None:
    """Write one Parquet shard; the same table gives the same bytes."""
    pq.write_table(table, path, compression="zstd", row_group_size=8192)


def _checked_entries(folder: Path, manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the manifest's entries of the shards, if they are what 'ionbed prepare' writes."""
    entries = manifest.get("shards")
    is_whole = isinstance(entries, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("file"), str)
        and entry["file"] == Path(entry["file"]).name != ""
        and type(entry.get("spectra")) is int
        and entry["spectra"] >= 0
        for entry in entries
    )
    if not is_whole or not entries:
        raise InputError(f"{folder / MANIFEST}: is damaged (its list of shards); run 'ionbed prepare' again")
    return list(entries)


def _compare_footer(shard: Path, num_spectra: int) -> None:
    """Raise `InputError` unless the shard is there, ends as Parquet does, and has the rows and columns it should."""
    if not shard.is_file():
        raise InputError(f"{shard}: is missing though the manifest names it; run 'ionbed prepare' again")
    try:
        with pq.ParquetFile(shard) as file:
            num_rows, names = file.metadata.num_rows, set(file.schema_arrow.names)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(shard, error) from None
    if num_rows != num_spectra:
        raise InputError(
            f"{shard}: has {num_rows:,} spectra, not {num_spectra:,} as the manifest says; run 'ionbed prepare' again"
        )
    if missing := [name for name in SCHEMA.names if name not in names]:
        raise InputError(f"{shard}: has no column {', '.join(missing[:3])}; run 'ionbed prepare' again")


def _read_shard(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns), memory_map=True)
        table.validate(full=True)  # a damaged page may well be decoded, to text that is none
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from None
    return table


def _read_rows(path: Path, columns: Sequence[str], rows: range) -> Iterator[pa.Table]:
    """Yield a slice of the rows of a shard, one table for each row group that it touches."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if start < rows.stop and stop > rows.start:
                    table = file.read_row_group(group, columns=list(columns))
                    table.validate(full=True)
                    yield table[max(rows.start - start, 0) : rows.stop - start]
                start = stop
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def _sha256(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{path}: is damaged or cannot be read ({reason}); run 'ionbed prepare' again")

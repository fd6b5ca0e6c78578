"""Read spectra from HDF5 as the DreaMS project lays it out: GeMS, and what its converters write.

What libhdf5 does with a file happens in another process; see `ionbed.spectra.readers.hdf5_guard`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...errors import InputError
from ..record import RawRecord
from . import hdf5_guard, hdf5_rows
from .blocks import BLOCK_BYTES, MS_LEVELS, TableFormat, UnreadableTableError, broken_record
from .field_names import with_unit
from .hdf5_guard import ReadingEndedError
from .hdf5_rows import FIELD, INTENSITY, MZ, NATIVE_ID, RETENTION_TIME, RUN, SCAN
from .text import is_wanted, ms_level

logger = logging.getLogger("ionbed")

_MARK = b"\x89HDF\r\n\x1a\n"
_NONE = np.empty(0, np.float64)
_MOST_ENDED = 3
"""Slices of one file that end the process that reads them; after these the rest of the file is not tried."""

_ended: Counter[tuple[str, int]] = Counter()
"""By the path of a file, and when it was last changed."""


def _slices(path: Path) -> list[range]:
    """Return slices of a few megabytes of peaks, none of which divides a chunk."""
    if importlib.util.find_spec("h5py") is None:
        raise InputError(f"{path}: is HDF5, which needs h5py; install it with: pip install 'ionbed[hdf5]'")
    _ended.pop(_changed(path), None)  # a file that is read once more is tried as the first time
    try:
        shape = hdf5_guard.shape_of(path)
    except ReadingEndedError as error:
        raise hdf5_rows.damaged(error) from None
    wanted = max(1, BLOCK_BYTES // shape.row_bytes)
    step = max(1, wanted // shape.rows_per_chunk) * shape.rows_per_chunk
    return [range(start, min(start + step, shape.num_rows)) for start in range(0, shape.num_rows, step)]


def _parse_rows(
    path: Path, source_file: str, rows: range, ms_levels: Container[int] = MS_LEVELS
) -> Iterator[RawRecord]:
    if (batch := _columns(path, source_file, rows)) is None:
        for row in rows:
            yield broken_record(source_file, row + 1, "bad-binary-array")
    else:
        yield from _records(batch, source_file, rows, ms_levels)


def _columns(path: Path, source_file: str, rows: range) -> pa.RecordBatch | None:
    """Return the columns of a slice of rows, None where they cannot be read."""
    file = _changed(path)
    if _ended[file] >= _MOST_ENDED:
        return None
    try:
        return hdf5_guard.columns_of(path, rows)
    except UnreadableTableError:  # a chunk cannot be read
        return None
    except ReadingEndedError as error:
        _ended[file] += 1
        logger.warning(
            "%s: rows %d to %d cannot be read: the file is damaged (%s); get it anew%s",
            *(source_file, rows.start + 1, rows.stop, error),
            "; no more of it is tried" if _ended[file] >= _MOST_ENDED else "",
        )
        return None


def _changed(path: Path) -> tuple[str, int]:
    return str(path), path.stat().st_mtime_ns


def _records(batch: pa.RecordBatch, source_file: str, rows: range, ms_levels: Container[int]) -> Iterator[RawRecord]:
    texts = {
        name: batch[name].to_pylist()
        for name in batch.schema.names
        if name.startswith(FIELD) or name in (RUN, NATIVE_ID, SCAN)
    }
    fields_of = {name.removeprefix(FIELD): column for name, column in texts.items() if name.startswith(FIELD)}
    runs, ids, scans = (texts.get(name) for name in (RUN, NATIVE_ID, SCAN))
    retention_time_name = batch.schema.metadata[RETENTION_TIME].decode()
    stops = batch[MZ].offsets.to_numpy().tolist()
    is_whole = batch[MZ].is_valid().to_pylist()
    all_mz, all_intensity = (batch[name].values.to_numpy() for name in (MZ, INTENSITY))
    for place, row in enumerate(rows):
        if not is_whole[place]:
            yield broken_record(source_file, row + 1, "bad-binary-array")
            continue
        fields = _interpret(
            {name: column[place] for name, column in fields_of.items() if column[place]}, retention_time_name
        )
        native_id = ids[place] if ids else ""
        if not native_id and scans and scans[place]:
            native_id = f"scan={scans[place]}"
        name = f"{source_file}!{runs[place]}" if runs and runs[place] else source_file
        if not is_wanted(fields, ms_levels):
            yield RawRecord(name, native_id, row + 1, fields, _NONE, _NONE)
            continue
        span = slice(stops[place], stops[place + 1])
        peaks = (all_mz[span].copy(), all_intensity[span].copy())  # one record does not keep those of all
        yield RawRecord(name, native_id, row + 1, fields, *peaks, None if len(peaks[0]) else "no-peaks")


def _interpret(values: dict[str, str], retention_time_name: str) -> dict[str, str]:
    """Return the fields, without the numbers that stand for 'unknown' in files of this layout."""
    fields = dict(values)
    if "polarity" in fields:  # 1 positive, 0 negative, -1 unknown
        polarity = {"1": "positive", "0": "negative", "True": "positive", "False": "negative"}.get(fields["polarity"])
        fields.pop("polarity")
        if polarity:
            fields["polarity"] = polarity
    charge = fields.get("charge", "")
    if charge == "0" or (charge == "-1" and fields.get("polarity") != "negative"):
        del fields["charge"]  # -1 is also what unknown charges are filled with
    for name in ("retention_time", "collision_energy", "precursor_mz", "ms_level"):
        if fields.get(name, "").startswith("-") or (name != "retention_time" and _is_zero(fields.get(name, ""))):
            del fields[name]
    if "collision_energy" in fields:
        fields["collision_energy"] += " eV" if fields["collision_energy"].replace(".", "", 1).isdecimal() else ""
    if "retention_time" in fields:
        fields["retention_time"] = with_unit(retention_time_name, fields["retention_time"])
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    return fields


def _is_zero(text: str) -> bool:
    return bool(text) and not text.strip("0.")


HDF5 = TableFormat(
    name="HDF5",
    extensions=("hdf5", "h5"),
    looks_like=lambda head: head.startswith(_MARK),
    slices=_slices,
    parse_rows=_parse_rows,
)

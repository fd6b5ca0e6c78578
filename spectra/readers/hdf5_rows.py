"""What libhdf5 is asked for: how a file of GeMS or DreaMS is laid out, and the columns of a slice of its rows.

Row i of every dataset belongs to spectrum i. The datasets are those of the `MSData` class and of the converters in
https://github.com/pluskal-lab/DreaMS: ``spectrum`` of shape (n_spectra, 2, n_peaks), padded with zeros, beside
``precursor_mz``, ``charge``, ``RT`` and others; older files have ``spectra`` of shape (n_spectra, n_peaks, 2), or
``mzs`` and ``intensities`` in a group ``MSn data``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from .blocks import UnreadableTableError
from .field_names import field_of, normal_key

FIELD = "field:"
"""What the name of a column begins with that holds a field."""
RUN, NATIVE_ID, SCAN, MZ, INTENSITY = "run", "native_id", "scan", "mz", "intensity"
RETENTION_TIME = b"retention_time"
"""Where a batch's metadata say by what name the file calls the retention time: the name may hold its unit."""

_GROUPS = ("", "MSn data")
_SPECTRA = ("spectrum", "spectra")
_MZ, _INTENSITY = ("mzs", "mz"), ("intensities", "intensity")
_KEYS = {"positivepolarity": "polarity", "energy": "collision_energy", "instrumentname": "instrument"}
_RUN_KEYS = ("filename", "name")
_ID_KEYS = ("spectrumid", "identifier", "id")
_RAGGED_ROW_BYTES = 4096  # where each row has a length of its own, which is not looked up
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
"""What h5py raises of a damaged file, by where in it the damage is."""


@dataclass(frozen=True)
class _Layout:
    """Which datasets of an open file hold what.

    Attributes
    ----------
    num_rows : int
    rows_per_chunk : int
        Rows of the dataset of peaks that are stored, and compressed, together.
    row_bytes : int
        Of the peaks.
    spectrum : dataset or None
        m/z and intensity in one; else ``mz`` and ``intensity`` hold them.
    fields : mapping of str to dataset
        By field name.
    run, native_id, scan : datasets or None
        The run that a spectrum is of, its identifier, its number in the run.
    """

    num_rows: int
    rows_per_chunk: int
    row_bytes: int
    spectrum: Any
    mz: Any
    intensity: Any
    fields: Mapping[str, Any]
    run: Any
    native_id: Any
    scan: Any


class Shape(NamedTuple):
    """How much a file holds.

    Attributes
    ----------
    num_rows : int
    rows_per_chunk : int
        Rows of the peaks that are stored, and compressed, together.
    row_bytes : int
        Of the peaks.
    """

    num_rows: int
    rows_per_chunk: int
    row_bytes: int


def shape_of(path: Path) -> Shape:
    """Return how much a file holds.

    Raises
    ------
    UnreadableTableError
        It is damaged, or laid out otherwise.
    """
    try:
        with _open(path) as file:
            layout = _layout(file)
    except UnreadableTableError:
        raise
    except _DAMAGE as error:  # of what describes the datasets, which is first read here
        raise damaged(error) from None
    return Shape(layout.num_rows, layout.rows_per_chunk, layout.row_bytes)


def columns_of(path: Path, rows: range) -> pa.RecordBatch:
    """Return some rows of a file: text columns, '' where there is no value, and lists of ``mz`` and ``intensity``.

    The lists are float64, without the padding; null in a row whose m/z and intensities are not as many.

    Raises
    ------
    UnreadableTableError
        A chunk of them cannot be read.
    """
    span = slice(rows.start, rows.stop)
    try:
        with _open(path) as file:
            layout = _layout(file)
            texts = {FIELD + name: dataset for name, dataset in layout.fields.items()}
            texts |= {RUN: layout.run, NATIVE_ID: layout.native_id, SCAN: layout.scan}
            columns = {name: pa.array(_texts(d, span), pa.string()) for name, d in texts.items() if d is not None}
            columns[MZ], columns[INTENSITY] = _peaks(layout, span)
            called = layout.fields["retention_time"].name if "retention_time" in layout.fields else ""
    except UnreadableTableError:
        raise
    except _DAMAGE as error:
        raise UnreadableTableError("bad-binary-array", _reason(error)) from None
    batch = pa.RecordBatch.from_pydict(columns)
    return batch.replace_schema_metadata({RETENTION_TIME: called.encode()})


def damaged(error: Exception) -> UnreadableTableError:
    """Return what is told of a file that cannot be read at all."""
    return UnreadableTableError("truncated", f"is a damaged HDF5 file ({_reason(error)}); get it anew")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _open(path: Path) -> Any:
    import h5py

    return h5py.File(path, "r", locking=False)  # shared file systems may have no locks, and nothing is written


def _layout(file: Any) -> _Layout:
    import h5py

    for group_name in _GROUPS:
        group = file.get(group_name) if group_name else file
        if not isinstance(group, h5py.Group):
            continue
        names = [name for name in group if isinstance(name, str)]  # as bytes where they are not UTF-8, never ours
        datasets = {normal_key(k): d for k in names if isinstance(d := group.get(k), h5py.Dataset) and d.ndim}
        spectrum = next((datasets[k] for k in _SPECTRA if k in datasets), None)
        mz, intensity = (next((datasets[k] for k in keys if k in datasets), None) for keys in (_MZ, _INTENSITY))
        if spectrum is not None and spectrum.ndim == 3 and 2 in spectrum.shape[1:]:
            peaks = spectrum
        elif mz is not None and intensity is not None and _are_lists(mz) and mz.shape == intensity.shape:
            peaks, spectrum = mz, None
        else:
            continue
        num_rows = peaks.shape[0]
        datasets = {k: d for k, d in datasets.items() if d.shape == (num_rows,)}
        fields: dict[str, Any] = {}
        for key, dataset in datasets.items():
            if name := _KEYS.get(key) or field_of(key):
                fields.setdefault(name, dataset)
        if "precursor_mz" not in fields:
            break
        run = next((datasets[key] for key in _RUN_KEYS if key in datasets), None)
        if run is fields.get("name") and "smiles" not in fields:
            fields.pop("name", None)  # GeMS: the run that the spectrum is of
        elif run is fields.get("name"):
            run = None
        return _Layout(
            num_rows=num_rows,
            rows_per_chunk=peaks.chunks[0] if peaks.chunks else 1,
            row_bytes=_row_bytes(peaks) * (1 if spectrum is not None else 2),
            spectrum=spectrum,
            mz=mz,
            intensity=intensity,
            fields=fields,
            run=run,
            native_id=next((datasets[key] for key in _ID_KEYS if key in datasets), None),
            scan=datasets.get("scannumber"),
        )
    raise UnreadableTableError(
        "unknown-format",
        "is HDF5 without the datasets of GeMS; 'spectrum' of shape (n, 2, n_peaks) and 'precursor_mz' are needed",
    )


def _are_lists(dataset: Any) -> bool:
    import h5py

    return dataset.ndim == 2 or h5py.check_vlen_dtype(dataset.dtype) is not None


def _row_bytes(peaks: Any) -> int:
    if peaks.ndim == 1:
        return _RAGGED_ROW_BYTES
    return max(1, int(np.prod(peaks.shape[1:], dtype=np.int64)) * peaks.dtype.itemsize)


def _texts(dataset: Any, span: slice) -> list[str]:
    """Return the values as text, '' where there is none."""
    values = dataset[span]
    if values.dtype.kind in "OS":
        return [v.decode("utf-8", "replace").strip() if isinstance(v, bytes) else str(v).strip() for v in values]
    return ["" if v != v else str(v) for v in values]


def _peaks(layout: _Layout, span: slice) -> tuple[pa.Array, pa.Array]:
    if layout.spectrum is not None:
        spectra = layout.spectrum[span]
        mz, intensity = np.moveaxis(spectra, 1 if spectra.shape[1] == 2 else 2, 0)
    else:
        mz, intensity = layout.mz[span], layout.intensity[span]
    if mz.dtype.kind == "O" or intensity.dtype.kind == "O":
        return _ragged(mz, intensity)
    is_peak = (mz != 0) | (intensity != 0)  # the others are padding
    stops = np.concatenate([[0], np.cumsum(is_peak.sum(axis=1))]).astype(np.int32)
    return _lists(stops, mz[is_peak]), _lists(stops, intensity[is_peak])


def _ragged(mz: Any, intensity: Any) -> tuple[pa.Array, pa.Array]:
    """Return the lists of rows that each have a length of their own."""
    lists: list[tuple[np.ndarray, np.ndarray] | tuple[None, None]] = []
    for row_mz, row_intensity in zip(mz, intensity, strict=True):
        if len(row_mz) != len(row_intensity):
            lists.append((None, None))
            continue
        is_peak = (row_mz != 0) | (row_intensity != 0)
        lists.append((row_mz[is_peak], row_intensity[is_peak]))
    kind = pa.list_(pa.float64())
    return pa.array([mz for mz, _ in lists], kind), pa.array([intensity for _, intensity in lists], kind)


def _lists(stops: np.ndarray, values: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(stops), pa.array(values.astype(np.float64, copy=False)))

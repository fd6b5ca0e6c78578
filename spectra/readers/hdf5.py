"""Read spectra from HDF5 as the DreaMS project lays it out: GeMS, and what its converters write.

Row i of every dataset belongs to spectrum i. The datasets are those of the `MSData` class and of the converters in
https://github.com/pluskal-lab/DreaMS: ``spectrum`` of shape (n_spectra, 2, n_peaks), padded with zeros, beside
``precursor_mz``, ``charge``, ``RT`` and others; older files have ``spectra`` of shape (n_spectra, n_peaks, 2), or
``mzs`` and ``intensities`` in a group ``MSn data``.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..record import RawRecord
from .blocks import BLOCK_BYTES, MS_LEVELS, TableFormat, UnreadableTableError, broken_record
from .field_names import field_of, normal_key, with_unit
from .text import is_wanted, ms_level

_MARK = b"\x89HDF\r\n\x1a\n"
_GROUPS = ("", "MSn data")
_SPECTRA = ("spectrum", "spectra")
_MZ, _INTENSITY = ("mzs", "mz"), ("intensities", "intensity")
_KEYS = {"positivepolarity": "polarity", "energy": "collision_energy", "instrumentname": "instrument"}
_RUN_KEYS = ("filename", "name")
_ID_KEYS = ("spectrumid", "identifier", "id")
_RAGGED_ROW_BYTES = 4096  # where each row has a length of its own, which is not looked up
_NONE = np.empty(0, np.float64)
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)
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


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path}: is HDF5, which needs h5py; install it with: pip install 'ionbed[hdf5]'") from None
    try:
        return h5py.File(path, "r", locking=False)  # shared file systems may have no locks, and nothing is written
    except _DAMAGE as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> UnreadableTableError:
    reason = " ".join(str(error).split())[:120]
    return UnreadableTableError("truncated", f"is a damaged HDF5 file ({reason}); get it anew")


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


def _slices(path: Path) -> list[range]:
    """Return slices of a few megabytes of peaks, none of which divides a chunk."""
    try:
        with _open(path) as file:
            layout = _layout(file)
    except (InputError, UnreadableTableError):
        raise
    except _DAMAGE as error:  # of what describes the datasets, which is first read here
        raise _damaged(error) from None
    wanted = max(1, BLOCK_BYTES // layout.row_bytes)
    step = max(1, wanted // layout.rows_per_chunk) * layout.rows_per_chunk
    return [range(start, min(start + step, layout.num_rows)) for start in range(0, layout.num_rows, step)]


def _parse_rows(
    path: Path, source_file: str, rows: range, ms_levels: Container[int] = MS_LEVELS
) -> Iterator[RawRecord]:
    row = rows.start
    try:
        with _open(path) as file:
            layout = _layout(file)
            for record in _records(layout, source_file, rows, ms_levels):
                row += 1
                yield record
    except InputError:
        raise
    except _DAMAGE:  # a chunk cannot be read
        for position in range(row + 1, rows.stop + 1):
            yield broken_record(source_file, position, "bad-binary-array")


def _records(layout: _Layout, source_file: str, rows: range, ms_levels: Container[int]) -> Iterator[RawRecord]:
    span = slice(rows.start, rows.stop)
    texts = {name: _texts(dataset, span) for name, dataset in layout.fields.items()}
    runs, ids, scans = (
        None if dataset is None else _texts(dataset, span) for dataset in (layout.run, layout.native_id, layout.scan)
    )
    mz, intensity = _peaks(layout, span)
    for place, row in enumerate(rows):
        fields = _interpret({name: column[place] for name, column in texts.items() if column[place]}, layout)
        native_id = ids[place] if ids else ""
        if not native_id and scans and scans[place]:
            native_id = f"scan={scans[place]}"
        name = f"{source_file}!{runs[place]}" if runs and runs[place] else source_file
        if not is_wanted(fields, ms_levels):
            yield RawRecord(name, native_id, row + 1, fields, _NONE, _NONE)
            continue
        is_peak = (mz[place] != 0) | (intensity[place] != 0)  # the others are padding
        peaks = (mz[place][is_peak].astype(np.float64), intensity[place][is_peak].astype(np.float64))
        yield RawRecord(name, native_id, row + 1, fields, *peaks, None if len(peaks[0]) else "no-peaks")


def _peaks(layout: _Layout, span: slice) -> tuple[np.ndarray, np.ndarray]:
    if layout.spectrum is None:
        return layout.mz[span], layout.intensity[span]
    spectra = layout.spectrum[span]
    if spectra.shape[1] == 2:
        return spectra[:, 0, :], spectra[:, 1, :]
    return spectra[:, :, 0], spectra[:, :, 1]


def _texts(dataset: Any, span: slice) -> list[str]:
    """Return the values as text, '' where there is none."""
    values = dataset[span]
    if values.dtype.kind in "OS":
        return [v.decode("utf-8", "replace").strip() if isinstance(v, bytes) else str(v).strip() for v in values]
    return ["" if v != v else str(v) for v in values]


def _interpret(values: dict[str, str], layout: _Layout) -> dict[str, str]:
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
        fields["retention_time"] = with_unit(layout.fields["retention_time"].name, fields["retention_time"])
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

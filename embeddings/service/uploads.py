"""What a client sends becomes queries: a file, under a name of our own, or a list of peaks."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from anyio import to_thread
from fastapi import UploadFile

from ...spectra.readers.sniffing import FORMATS
from ...spectra.readers.unpacking import COMPRESSED_SUFFIXES
from ...spectra.record import RawRecord
from ..queries import Query, _query_of_record
from .failures import RequestError
from .models import SpectrumModel
from .settings import ServiceLimits

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz")
_SUFFIXES = {f".{extension}" for known in FORMATS.values() for extension in known.extensions} | set(ARCHIVE_SUFFIXES)
_COPY_BYTES = 1 << 20
SMALL_BYTES = 1 << 16
"""Copied or read in less time than the change to another thread takes while the model is at work."""


def safe_suffix(filename: str | None) -> str:
    """Return the suffix of a client's file name if ionbed knows it, such as '.mgf' or '.mzml.gz'; else '.txt'.

    Nothing else of the name is used: formats are told by content, the suffix only helps to say what is wrong.
    """
    name = (filename or "").lower()
    packed = next((suffix for suffix in COMPRESSED_SUFFIXES if name.endswith(suffix)), "")
    plain = Path(name.removesuffix(packed)).suffix
    return (plain if plain in _SUFFIXES else ".txt") + packed


@asynccontextmanager
async def kept_upload(upload: UploadFile, folder: Path) -> AsyncIterator[Path]:
    """Copy an upload to a new file in ``folder``, with a name of our own, and yield its path; it is removed again."""
    own = Path(tempfile.mkdtemp(dir=folder))
    is_small = upload.size is not None and upload.size <= SMALL_BYTES
    try:
        yield copy_upload(upload, own) if is_small else await to_thread.run_sync(copy_upload, upload, own)
    finally:
        _remove(own)


def _remove(folder: Path) -> None:
    """Remove a folder of a few files."""
    try:
        for name in os.listdir(folder):
            os.unlink(folder / name)
        os.rmdir(folder)
    except OSError:  # a process that was killed may have left more in it
        shutil.rmtree(folder, ignore_errors=True)


def copy_upload(upload: UploadFile, folder: Path) -> Path:
    """Copy an upload to a new file in ``folder``, with a name of our own, and return its path."""
    path = folder / f"upload{safe_suffix(upload.filename)}"
    with open(path, "xb") as target:
        shutil.copyfileobj(upload.file, target, _COPY_BYTES)
    return path


def query_of_peaks(request: SpectrumModel, limits: ServiceLimits, *, native_id: str = "query") -> Query:
    """Return the query of a peak list, cleaned as a file's would be.

    Raises
    ------
    RequestError
        It has more peaks than are taken, or none that can be used.
    """
    if len(request.peaks) > limits.peaks:
        raise RequestError(422, f"peaks: {len(request.peaks):,} are more than the {limits.peaks:,} that are taken")
    fields = {
        "precursor_mz": repr(request.precursor_mz),
        "charge": None
        if request.charge is None
        else f"{request.charge:+d}"
        if request.charge < 0
        else f"{request.charge}",
        "polarity": None if request.polarity is None else f"{request.polarity:+d}",
        "adduct": request.adduct,
        "collision_energy": None if request.collision_energy is None else f"{request.collision_energy!r} eV",
        "name": request.name,
    }
    peaks = np.array(request.peaks, np.float64)
    given = {name: text for name, text in fields.items() if text is not None}
    record = RawRecord("request", request.name or native_id, 1, given, peaks[:, 0], peaks[:, 1])
    query = _query_of_record(record)
    assert query is not None, "a record without an MS level is no survey scan"
    if query.spectrum is None:
        raise RequestError(422, f"peaks: {query.note}")
    return query


def check_spectra(queries: Sequence[Query], limits: ServiceLimits) -> list[Query]:
    """Return the queries; those with more peaks than are taken as queries with a note."""
    return [
        query
        if query.spectrum is None or len(query.spectrum) <= limits.peaks
        else dataclasses.replace(query, spectrum=None, note=f"has more than the {limits.peaks:,} peaks that are taken")
        for query in queries
    ]

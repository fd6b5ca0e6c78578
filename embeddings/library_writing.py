"""Writing the one segment of a new index: of spectra that are embedded, or of the rows that another index has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InputError
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .index_folder import Embedder
from .library_rows import embedded, gathered
from .segments.commits import new_manifest
from .segments.library import Library
from .segments.runs import Sorted, blocks
from .segments.segment import write_segment

FIRST_SEGMENT = "segments/1"


@dataclass(frozen=True)
class Appended:
    """What became of spectra that were appended.

    Attributes
    ----------
    read, kept : int
    dropped : mapping of str to int
        Spectra that are not in the index, by reason.
    replaced : int
        Spectra of the index that made room for others of the same id.
    """

    read: int
    kept: int
    dropped: Mapping[str, int]
    replaced: int


def write_library(
    folder: Path, model: Embedder, spectra: Iterable[Spectrum] | Store | pa.Table, *, progress: bool = False
) -> dict[str, Any]:
    """Embed a library, write it as the one segment of an index, and return the manifest, without its files.

    Raises
    ------
    InputError
        No spectrum with peaks is among them.
    """
    with gathered(spectra, folder, progress=progress) as found:
        if found.rows is None:
            raise InputError("no spectrum to index; at least one with a precursor m/z and peaks is needed")
        rows = embedded(found.rows, model, progress=progress)
        entry = _write_first(folder, rows, len(found.rows.order))
    manifest = new_manifest(model.model_hash(), entry["dim"])
    return {**manifest, "segments": [entry], "counts": found.counts}


def write_copy(folder: Path, library: Library) -> dict[str, Any]:
    """Write the rows of a library that are not deleted as one segment, and return the manifest's entry of it."""
    return _write_first(folder, compacted(library), library.num_live)


def compacted(library: Library) -> Iterable[tuple[pa.Table, np.ndarray]]:
    """Yield the rows that are not deleted, in order, with their vectors; for `write_segment`."""
    live = np.arange(library.num_rows) if library.live is None else np.flatnonzero(library.live)
    rows = Sorted([segment.table for segment in library.segments], library.in_order(live), {})
    return ((table, library.vectors[numbers]) for table, numbers in blocks(rows))


def added(counts: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts with further ones added to them, those by reason as well."""
    result = dict(counts)
    for name, value in further.items():
        if isinstance(value, Mapping):
            result[name] = dict(sorted(added(result.get(name, {}), value).items()))
        elif value or name in result:
            result[name] = result.get(name, 0) + value
    return result


def _write_first(folder: Path, rows: Iterable[tuple[pa.Table, np.ndarray]], num_rows: int) -> dict[str, Any]:
    segment = folder / FIRST_SEGMENT
    segment.mkdir(parents=True)
    return {"folder": FIRST_SEGMENT, **write_segment(segment, rows, num_rows)}

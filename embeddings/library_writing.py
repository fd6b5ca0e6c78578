"""Writing the one segment of a new index: of spectra that are embedded, or of the rows that another index has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.readers import SpectrumReader
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .build_estimate import BuildEstimate, weights_bytes
from .index_folder import Embedder
from .library_rows import Gathered, embedded, gathered, size_of
from .recall import WANTED_RECALL
from .segments.approximate_rows import KindWanted, kind_for, with_approximate
from .segments.commits import new_manifest
from .segments.library import Library
from .segments.runs import Sorted, blocks
from .segments.segment import write_segment

FIRST_SEGMENT = "segments/1"


def write_library(
    folder: Path,
    model: Embedder,
    spectra: Iterable[Spectrum] | Store | pa.Table,
    *,
    kind: KindWanted = "auto",
    recall: float = WANTED_RECALL,
    progress: bool = False,
) -> dict[str, Any]:
    """Embed a library, write it as the one segment of an index, and return the manifest, without its files.

    Raises
    ------
    InputError
        No spectrum with peaks is among them, or disk or memory has no room for the index, or it is too small for its
        kind.
    """
    with gathered(spectra, folder, progress=progress) as found:
        if found.rows is None:
            raise InputError("no spectrum to index; at least one with a precursor m/z and peaks is needed")
        estimate(found, model, kind).refuse_too_large(folder)
        rows = embedded(found.rows, model, progress=progress)
        entry = _write_first(folder, rows, len(found.rows.order))
    entry = with_approximate(folder / FIRST_SEGMENT, entry, kind, recall=recall)
    manifest = new_manifest(model.model_hash(), entry["dim"], {"kind": kind, "recall": recall})
    return {**manifest, "segments": [entry], "counts": found.counts}


def estimate(found: Gathered, model: Embedder, kind: KindWanted) -> BuildEstimate:
    """Return what an index of gathered spectra will take."""
    assert found.rows is not None, "asked only where there are spectra"
    table, _ = next(blocks(found.rows))
    return _estimate(len(found.rows.order), found.num_bytes, table, model, kind)


def estimate_of(source: Store | SpectrumReader, model: Embedder, kind: KindWanted) -> BuildEstimate:
    """Return what an index will take of a store, or of a file that is read through for it.

    Raises
    ------
    InputError
        There is no spectrum, or there are too few for the kind.
    """
    num_rows, num_bytes, table = size_of(source)
    return _estimate(num_rows, num_bytes, table, model, kind)


def write_copy(folder: Path, library: Library, open_search: Mapping[str, Any]) -> dict[str, Any]:
    """Write the rows of a library that are not deleted as one segment, and return the manifest's entry of it."""
    entry = _write_first(folder, compacted(library), library.num_live)
    return with_approximate(folder / FIRST_SEGMENT, entry, **open_search, is_part=True)


def compacted(library: Library) -> Iterable[tuple[pa.Table, np.ndarray]]:
    """Yield the rows that are not deleted, in order, with their vectors; for `write_segment`."""
    live = np.arange(library.num_rows) if library.live is None else np.flatnonzero(library.live)
    rows = Sorted([segment.table for segment in library.segments], library.in_order(live), {})
    return ((table, library.vectors[numbers]) for table, numbers in blocks(rows))


def _write_first(folder: Path, rows: Iterable[tuple[pa.Table, np.ndarray]], num_rows: int) -> dict[str, Any]:
    segment = folder / FIRST_SEGMENT
    segment.mkdir(parents=True)
    return {"folder": FIRST_SEGMENT, **write_segment(segment, rows, num_rows)}


def _estimate(num_rows: int, num_bytes: int, table: pa.Table, model: Embedder, kind: KindWanted) -> BuildEstimate:
    some = table.filter(pc.greater(pc.list_value_length(table["mz"]), 0))[:1]
    if not len(some):
        raise InputError("no spectrum to index; at least one with a precursor m/z and peaks is needed")
    dim = model.embed(SpectrumColumns.from_table(some)).shape[1]
    return BuildEstimate(num_rows, dim, num_bytes, kind_for(kind, num_rows, dim), weights_bytes(model))

"""The best library hit of each of many spectra that are embedded already, as columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..progress import progress
from .described_hits import DescribedSearch
from .embedded_input import EmbeddedSpectra
from .hits import EmbeddedQueries
from .index import Index

TOLD = {
    "library_id": pa.string(),
    "name": pa.string(),
    "formula": pa.string(),
    "smiles": pa.string(),
    "inchikey": pa.string(),
    "adduct": pa.string(),
    "score": pa.float32(),
    "probability": pa.float64(),
    "confidence": pa.string(),
    "precursor_error_ppm": pa.float64(),
    "matched_peaks": pa.int32(),
    "predicted": pa.bool_(),
}
"""What is told of a hit (`ionbed.embeddings.search.HitRow`); each is a column ``hit_...``."""

QUERIES_AT_ONCE = 2048


def library_hits(library: Index, spectra: EmbeddedSpectra, precursor_ppm: float) -> pa.Table:
    """Search each spectrum in a library within a precursor window and return its best hit, as `ionbed search` finds it.

    Parameters
    ----------
    library : Index
    spectra : EmbeddedSpectra of n spectra
        Embedded again where the library was built with another model.
    precursor_ppm : float

    Returns
    -------
    pyarrow.Table of n rows
        A column ``hit_...`` for each of `TOLD`, null where there is no hit.

    Raises
    ------
    InputError
        ``precursor_ppm`` is out of range, or the library is damaged.
    """
    columns, model_hash = spectra.columns(), library.manifest["model_hash"]
    search = DescribedSearch(library, 1, precursor_ppm, None, library.score_name(), None)
    found: dict[str, list[object]] = {name: [] for name in TOLD}
    with progress("library", len(spectra)) as advance:
        for begin in range(0, len(spectra), QUERIES_AT_ONCE):
            rows = np.arange(begin, min(begin + QUERIES_AT_ONCE, len(spectra)))
            peaks = columns.take(rows)
            if spectra.model_hash == model_hash:
                vectors = spectra.vectors[rows]
            else:
                vectors = library.model.embed(peaks)
            queries = EmbeddedQueries(vectors, peaks.precursor_mz, peaks.polarity, model_hash, peaks)
            for described in search.of_embedded(queries):
                best = described.hits[0] if described.hits else {}
                for name, values in found.items():
                    values.append(best.get(name))
            advance(len(rows))
    return pa.table({f"hit_{name}": pa.array(found[name], kind) for name, kind in TOLD.items()})

"""The best library hit of each of many spectra that are embedded already, as columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..progress import progress
from .embedded_input import EmbeddedSpectra
from .hits import EmbeddedQueries
from .index import Index

FROM_METADATA = ("name", "formula", "smiles", "inchikey", "adduct")
HIT_COLUMNS = ("hit_library_id", *(f"hit_{name}" for name in FROM_METADATA), "hit_score", "hit_precursor_error_ppm")

QUERIES_AT_ONCE = 2048


def library_hits(library: Index, spectra: EmbeddedSpectra, precursor_ppm: float) -> pa.Table:
    """Search each spectrum in a library, within a precursor window, and return its best hit.

    Parameters
    ----------
    library : Index
    spectra : EmbeddedSpectra of n spectra
        Embedded again where the library was built with another model.
    precursor_ppm : float

    Returns
    -------
    pyarrow.Table of n rows
        `HIT_COLUMNS`, null where there is no hit.

    Raises
    ------
    InputError
        ``precursor_ppm`` is out of range.
    """
    columns = spectra.columns()
    vectors, model_hash = spectra.vectors, library.manifest["model_hash"]
    if spectra.model_hash != model_hash:
        vectors = library.model.embed(columns, progress=True)
    tables = []
    with progress("library", len(spectra)) as advance:
        for begin in range(0, len(spectra), QUERIES_AT_ONCE):
            rows = np.arange(begin, min(begin + QUERIES_AT_ONCE, len(spectra)))
            queries = EmbeddedQueries(
                vectors[rows], columns.precursor_mz[rows], spectra.polarity[rows], model_hash=model_hash
            )
            hits = library.search(queries, 1, precursor_ppm)
            best = pa.array(hits.rows[:, 0], mask=hits.rows[:, 0] < 0)
            metadata = hits.library.take(best)
            columns_of = {
                "hit_library_id": metadata["spectrum_id"],
                **{f"hit_{name}": metadata[name] for name in FROM_METADATA},
                "hit_score": pa.array(hits.scores[:, 0], from_pandas=True),
                "hit_precursor_error_ppm": pa.array(hits.precursor_error_ppm[:, 0], from_pandas=True),
            }
            tables.append(pa.table(columns_of))
            advance(len(rows))
    return pa.concat_tables(tables)

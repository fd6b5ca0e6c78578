"""Spectra with their embeddings, of a saved index or of anything that is read: what networks and maps are made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..artifacts import MANIFEST, read_object_or_empty
from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.store import Store
from .hits import EmbeddedQueries
from .index import Index
from .index_folder import COMMAND, Embedder, is_store, kind_of

METADATA = (
    *("spectrum_id", "name", "precursor_mz", "charge", "polarity", "adduct", "retention_time", "collision_energy"),
    *("instrument_type", "formula", "smiles", "inchikey", "chemical_class", "laboratory", "license", "predicted"),
    *("source_file", "native_id", "usi"),
)
"""Columns of the store that are told of a spectrum."""


@dataclass(frozen=True, eq=False)
class EmbeddedSpectra:
    """Spectra in the order of precursor m/z and id, whatever the order that they were read in.

    Attributes
    ----------
    vectors : float32 array of shape (n_spectra, dim)
        Rows of unit length.
    polarity : int8 array of shape (n_spectra,)
        +1, -1, or 0 where unknown.
    metadata : pyarrow.Table of n_spectra rows
        `METADATA`.
    model : Embedder
        That made the vectors.
    model_hash : str
    num_without_peaks : int
        Spectra that were left out.
    columns : callable
        Returns the peaks and conditions of all spectra.
    nearest : callable
        Returns the nearest of given spectra (int64 of shape (n,)) as the index finds them in an open search, each
        itself among them: int64 of shape (n, k), -1 where there are fewer.
    """

    vectors: np.ndarray
    polarity: np.ndarray
    metadata: pa.Table
    model: Embedder
    model_hash: str
    num_without_peaks: int
    columns: Callable[[], SpectrumColumns]
    nearest: Callable[[np.ndarray, int], np.ndarray]

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.vectors)


def is_index(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a folder that 'ionbed index build' wrote."""
    return read_object_or_empty(Path(path) / MANIFEST).get("command") == COMMAND


def embedded_spectra(
    input: str | os.PathLike[str],
    load_model: Callable[[], Embedder] | None = None,
    *,
    check: Callable[[Embedder], object] | None = None,
) -> EmbeddedSpectra:
    """Return the spectra of a saved index with its vectors, or embed those of a store or of anything that is read.

    Parameters
    ----------
    input : path
    load_model : callable, optional
        Returns the model to embed with; of a saved index it must be the model of the index, and is not needed.
    check : callable, optional
        Called with the model before anything is embedded; raises where it will not do.

    Raises
    ------
    InputError
        The input cannot be read, is an index of structures, or holds no spectrum with peaks; or the model is not that
        of the index.
    """
    from ..spectra.readers import read

    if is_index(input):
        if kind_of(read_object_or_empty(Path(input) / MANIFEST)) == "structures":
            raise InputError(f"{input}: is an index of structures; name spectra, or an index of spectra")
        return of_index(Index.open(input, None if load_model is None else load_model()))
    source = Store(input) if is_store(input) else read(input)
    model = _load_default() if load_model is None else load_model()
    if check is not None:
        check(model)
    return of_index(Index.build(model, source, progress=True))


def of_index(index: Index) -> EmbeddedSpectra:
    """Return the spectra of an index, without those deleted from it."""
    rows = np.flatnonzero(index.live)
    table = index.rows(rows, METADATA)
    # Rows are in order within each segment; those of several, or of one alone, are put in order alike.
    ids = table["spectrum_id"].to_numpy()
    order = np.lexsort((ids, table["precursor_mz"].to_numpy()))
    is_ordered = bool((order == np.arange(len(order))).all())
    is_whole = is_ordered and len(rows) == index.num_rows
    rows = rows[order]
    vectors = np.asarray(index.vectors) if is_whole else index.vectors[rows]
    precursor_mz, polarity = index.precursor_mz[rows], index.polarity[rows]
    model_hash = index.manifest["model_hash"]

    def nearest(places: np.ndarray, k: int) -> np.ndarray:
        queries = EmbeddedQueries(vectors[places], precursor_mz[places], polarity[places], model_hash=model_hash)
        found = index.search(queries, k, None).rows
        place_of = np.full(index.num_rows, -1, np.int64)
        place_of[rows] = np.arange(len(rows))
        return np.where(found < 0, -1, place_of[found])

    return EmbeddedSpectra(
        vectors=vectors,
        polarity=polarity,
        metadata=table if is_ordered else table.take(pa.array(order)),
        model=index.model,
        model_hash=model_hash,
        num_without_peaks=index.manifest["counts"]["dropped"].get("no-peaks", 0),
        columns=lambda: SpectrumColumns.from_table(index.rows(rows, SpectrumColumns.TABLE_COLUMNS)),
        nearest=nearest,
    )


def _load_default() -> Embedder:
    from ..encoder.loading import load_model

    return load_model()

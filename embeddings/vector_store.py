"""What holds the vectors of a library, in a few words: the index of one machine by default, Milvus past it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from ..spectra.store import SCHEMA
from .embedded_before import EmbeddedBefore
from .hits import EmbeddedQueries, Hits
from .index import Index
from .index_folder import Embedder, checked_vectors

if TYPE_CHECKING:
    from .filters import Filters


class VectorStore(Protocol):
    """A library of vectors with their metadata. The ids of its spectra are unique.

    Attributes
    ----------
    model_hash : str
        Of the model that made the vectors; queries of another are refused.
    dim : int
        Numbers of a vector.
    """

    model_hash: str
    dim: int

    def __len__(self) -> int:
        """Return the number of spectra."""

    def add(self, rows: pa.Table, vectors: np.ndarray) -> None:
        """Add spectra; one whose id is there already takes the place of that one.

        Parameters
        ----------
        rows : pyarrow.Table of n rows
            Of the store's schema (`ionbed.spectra.store.SCHEMA`), each with peaks, no id twice.
        vectors : float32 array of shape (n, dim)
            Of unit length.

        Raises
        ------
        InputError
            A row has no peaks, an id stands twice, or the vectors do not fit.
        """

    def search(
        self,
        queries: EmbeddedQueries,
        k: int = 10,
        precursor_ppm: float | None = 10.0,
        *,
        precursor_da: float | None = None,
        filters: Filters | None = None,
    ) -> Hits:
        """Find the spectra nearest to each query, as `Index.search` does; its numbers of rows hold for these hits only.

        Raises
        ------
        InputError
            ``k`` or the window is out of range, or the queries are of another model.
        """

    def delete(self, ids: Iterable[str]) -> int:
        """Delete spectra and return their number.

        Raises
        ------
        InputError
            There is none of an id; then nothing is deleted.
        """

    def close(self) -> None:
        """Let go of files and connections."""


class IndexStore:
    """The default: a saved index on this machine, as a `VectorStore`.

    Parameters
    ----------
    index : Index
        Opened from a folder.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.model_hash: str = index.manifest["model_hash"]
        self.dim: int = index.manifest["embedding_dim"]

    @classmethod
    def create(cls, folder: str | os.PathLike[str], model: Embedder, rows: pa.Table, vectors: np.ndarray) -> IndexStore:
        """Write an index of rows; see `VectorStore.add`. It has one spectrum at least."""
        refuse_unfit(rows, vectors, None)
        index = Index.build(EmbeddedBefore(model, rows["spectrum_id"], vectors), rows)
        index.save(folder)
        return cls(Index.open(folder, model))

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: Embedder | None = None) -> IndexStore:
        """Open a saved index."""
        return cls(Index.open(folder, model))

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.index)

    def add(self, rows: pa.Table, vectors: np.ndarray) -> None:
        """See `VectorStore.add`; one commit."""
        refuse_unfit(rows, vectors, self.dim)
        if len(rows):
            assert self.index.folder is not None, "made by create or open"
            model = EmbeddedBefore(self.index.model, rows["spectrum_id"], vectors)
            Index.open(self.index.folder, model).append(rows, replace=True)
            self.index.refresh()

    def search(
        self,
        queries: EmbeddedQueries,
        k: int = 10,
        precursor_ppm: float | None = 10.0,
        *,
        precursor_da: float | None = None,
        filters: Filters | None = None,
    ) -> Hits:
        """See `VectorStore.search`."""
        return self.index.search(queries, k, precursor_ppm, precursor_da=precursor_da, filters=filters)

    def delete(self, ids: Iterable[str]) -> int:
        """See `VectorStore.delete`; the last spectrum cannot be deleted."""
        ids = list(ids)
        return self.index.delete(ids) if ids else 0

    def close(self) -> None:
        """See `VectorStore.close`; an index maps its files, and lets go of them when it is forgotten."""


def refuse_unfit(rows: pa.Table, vectors: np.ndarray, dim: int | None) -> None:
    """Raise `InputError` if rows and vectors cannot be added together; see `VectorStore.add`."""
    if missing := [name for name in SCHEMA.names if name not in rows.column_names]:
        raise InputError(f"the spectra have no column {', '.join(missing[:3])}; rows of the store's schema are needed")
    checked_vectors(vectors, len(rows), dim=dim)
    ids = rows["spectrum_id"]
    if pc.count_distinct(ids).as_py() != len(rows):
        counted = pc.value_counts(ids.combine_chunks())
        twice = next(entry["values"] for entry in counted.to_pylist() if entry["counts"] > 1)
        raise InputError(f"spectrum {twice}: stands twice among the spectra to add; give each an id of its own")
    empty = pc.equal(pc.list_value_length(rows["mz"]), 0)
    if pc.any(empty).as_py():
        raise InputError(f"spectrum {rows.filter(empty)['spectrum_id'][0].as_py()}: has no peaks; leave it out")

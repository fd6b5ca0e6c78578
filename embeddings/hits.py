"""What goes into a search and what comes out: embedded queries, and their hits by number and by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from ..spectra.columns import SpectrumColumns

ScoreName = Literal["cosine", "fused"]
"""By what hits are ranked: the cosine of the embeddings, or that and look-ups of the peaks in one."""

HIT_METADATA = (
    "spectrum_id",
    "name",
    "formula",
    "smiles",
    "inchikey",
    "adduct",
    "precursor_mz",
    "charge",
    "polarity",
    "collision_energy",
    "instrument_type",
    "license",
    "predicted",
    "source_file",
)
"""What a hit tells about its library spectrum; the index keeps every column of the store."""


@dataclass(frozen=True, eq=False)
class EmbeddedQueries:
    """Queries that were embedded before.

    Attributes
    ----------
    vectors : float32 array of shape (n_queries, dim)
        Rows of unit length, from the model of the index.
    precursor_mz : float64 array of shape (n_queries,)
    polarity : int8 array of shape (n_queries,)
        +1, -1, or 0 where unknown.
    model_hash : str
        Of the model that made the vectors (`IonbedModel.model_hash`).
    columns : SpectrumColumns or None
        Their peaks and conditions, which a fused score needs.
    """

    vectors: np.ndarray
    precursor_mz: np.ndarray
    polarity: np.ndarray
    model_hash: str
    columns: SpectrumColumns | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Hit:
    """One library spectrum found for one query.

    Attributes
    ----------
    rank : int
        From 1.
    row : int
        In the index; `Index.spectra` gives its peaks.
    score : float
        Cosine of the two embeddings, or the fused score (`ionbed.embeddings.fusion.Fusion`).
    precursor_error_ppm : float
        ``(query - library) / library * 1e6``.
    metadata : mapping of str to object
        Of the library spectrum, by the names of `HIT_METADATA`; None where unknown.
    """

    rank: int
    row: int
    score: float
    precursor_error_ppm: float
    metadata: Mapping[str, Any]


class TakesRows(Protocol):
    """A library of which columns of some rows can be taken."""

    def take(self, rows: np.ndarray, names: Sequence[str]) -> pa.Table:
        """Return columns of rows, in the order asked for."""


@dataclass(frozen=True, eq=False)
class Hits:
    """The hits of ``n_queries`` queries, best first; ``hits[i]`` lists those of query i by name.

    Attributes
    ----------
    rows : int64 array of shape (n_queries, k)
        Rows of the index, -1 where there are fewer than k hits.
    scores : float32 array of shape (n_queries, k)
        Cosine of the embeddings, or the fused score; NaN where there is no hit.
    precursor_error_ppm : float64 array of shape (n_queries, k)
        ``(query - library) / library * 1e6``, NaN where there is no hit.
    num_in_window : int64 array of shape (n_queries,)
        Library spectra within the precursor window, those of the other polarity included.
    score : 'cosine' or 'fused'
        What the scores are.
    library : TakesRows
        Of the index; only the rows that are hits are taken of it.
    """

    rows: np.ndarray
    scores: np.ndarray
    precursor_error_ppm: np.ndarray
    num_in_window: np.ndarray
    score: ScoreName
    library: TakesRows = field(repr=False)

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.rows)

    def __getitem__(self, query: int) -> list[Hit]:
        """Return the hits of one query by name."""
        rows = self.rows[query][self.rows[query] >= 0]
        scores, errors = self.scores[query].tolist(), self.precursor_error_ppm[query].tolist()
        metadata = self._metadata
        return [
            Hit(rank=place + 1, row=row, score=scores[place], precursor_error_ppm=errors[place], metadata=metadata[row])
            for place, row in enumerate(rows.tolist())
        ]

    def __iter__(self) -> Iterator[list[Hit]]:
        """Yield the hits of one query after the other."""
        return (self[query] for query in range(len(self)))

    @cached_property
    def _metadata(self) -> dict[int, Mapping[str, Any]]:
        """The metadata of all rows that are hits of any query; taken together, which is faster."""
        rows = np.unique(self.rows[self.rows >= 0])
        columns = [column.to_pylist() for column in self.library.take(rows, HIT_METADATA).columns]
        of_rows = zip(*columns, strict=True)
        return {
            row: dict(zip(HIT_METADATA, values, strict=True))
            for row, values in zip(rows.tolist(), of_rows, strict=True)
        }

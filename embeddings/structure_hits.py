"""What comes out of a search among structures: the hits of every query by number and by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from .nearest import Nearest
from .structure_candidates import Candidates

StructureScoreName = Literal["cosine", "predicted", "fused"]
"""By what structures are ranked: the inner product of the embeddings of spectrum and structure, the spectral entropy
similarity with their predicted spectra, or these and the cosine to the predicted spectra in one."""


@dataclass(frozen=True, slots=True)
class StructureHit:
    """One structure found for one query.

    Attributes
    ----------
    rank : int
        From 1.
    row : int
        In the index.
    score : float
        Higher is better; what it is `StructureHits.score` says.
    adduct : str or None
        As which the structure was compared with the precursor; None where the query states none and no mass was asked.
    mass_error_ppm : float or None
        ``(query - structure) / structure * 1e6`` of the m/z as that adduct.
    probability : float or None
        That it is the query's molecule, by the calibration that the index carries; None where it has none.
    metadata : mapping of str to object
        Of the structure, by the names of `ionbed.embeddings.structure_rows.STRUCTURE_SCHEMA`; None where unknown.
    """

    rank: int
    row: int
    score: float
    adduct: str | None
    mass_error_ppm: float | None
    probability: float | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class StructureHits:
    """The hits of ``n_queries`` queries, best first; ``hits[i]`` lists those of query i by name.

    Attributes
    ----------
    rows : int64 array of shape (n_queries, k)
        Rows of the index, -1 where there are fewer than k hits.
    scores : float32 array of shape (n_queries, k)
        NaN where there is no hit. Of 'cosine' from -1 to 1, of 'predicted' from 0 to 1, of 'fused' of no fixed range.
    mass_error_ppm : float64 array of shape (n_queries, k)
        NaN where there is no hit or no adduct.
    adducts : object array of str or None, of shape (n_queries, k)
    num_candidates : int64 array of shape (n_queries,)
        Structures that each query was compared with.
    notes : tuple of str
        Of each query: what was tried in place of an unknown adduct; why there is no candidate; else empty.
    score : 'cosine', 'predicted' or 'fused'
        What the scores are.
    probability : float64 array of shape (n_queries, k)
        That each hit is the query's molecule (`ionbed.embeddings.structure_calibration`); NaN where it is not known.
    structures : pyarrow.Table
        The rows of the index.
    """

    rows: np.ndarray
    scores: np.ndarray
    mass_error_ppm: np.ndarray
    adducts: np.ndarray
    num_candidates: np.ndarray
    notes: tuple[str, ...]
    score: StructureScoreName
    probability: np.ndarray
    structures: pa.Table = field(repr=False)

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.rows)

    def __getitem__(self, query: int) -> list[StructureHit]:
        """Return the hits of one query by name."""
        rows = self.rows[query][self.rows[query] >= 0]
        errors, chances = _known(self.mass_error_ppm[query]), _known(self.probability[query])
        scores, adducts = self.scores[query].tolist(), self.adducts[query].tolist()
        return [
            StructureHit(place + 1, row, scores[place], adducts[place], errors[place], chances[place], metadata)
            for place, (row, metadata) in enumerate(
                zip(rows.tolist(), self.structures.take(pa.array(rows)).to_pylist(), strict=True)
            )
        ]

    def __iter__(self) -> Iterator[list[StructureHit]]:
        """Yield the hits of one query after the other."""
        return (self[query] for query in range(len(self)))

    def first(self, k: int) -> StructureHits:
        """Return the best ``k`` hits of each query."""
        names = ("rows", "scores", "mass_error_ppm", "adducts", "probability")
        return replace(self, **{name: getattr(self, name)[:, :k] for name in names})


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best candidates of one query, and what is told of them."""

    candidates: Candidates
    rows: np.ndarray
    scores: np.ndarray
    num_candidates: int
    note: str


def gathered(
    ranked: Iterable[Ranked], num_queries: int, k: int, score: StructureScoreName, structures: pa.Table
) -> StructureHits:
    """Return the hits of ``num_queries`` queries that were ranked one after the other, without probabilities."""
    found = Nearest.empty(num_queries, k)
    errors, adducts = np.full(found.rows.shape, np.nan), np.full(found.rows.shape, None, object)
    num_candidates, notes = np.zeros(num_queries, np.int64), []
    for query, one in enumerate(ranked):
        place, num_hits = np.searchsorted(one.candidates.rows, one.rows), len(one.rows)
        names = [adduct.name for adduct in one.candidates.tried.adducts]
        found.rows[query, :num_hits], found.scores[query, :num_hits] = one.rows, one.scores
        errors[query, :num_hits] = one.candidates.error_ppm[place]
        adducts[query, :num_hits] = [None if n < 0 else names[n] for n in one.candidates.adduct[place].tolist()]
        num_candidates[query] = one.num_candidates
        notes.append(one.note)
    unknown = np.full(found.rows.shape, np.nan)
    return StructureHits(
        found.rows, found.scores, errors, adducts, num_candidates, tuple(notes), score, unknown, structures
    )


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]

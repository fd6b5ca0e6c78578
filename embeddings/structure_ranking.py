"""Ranking the structures of an index by their predicted spectra: by these alone, or with embeddings in one score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set

import numpy as np

from ..spectra.columns import SpectrumColumns
from ..spectra.lookups import LookupOptions, PeakCleaner
from .structure_candidates import Candidates
from .structure_fusion import PREDICTED_COSINE, PREDICTED_ENTROPY, STRUCTURE_COSINE, StructureFusion, StructureScore
from .structure_predicted import best_of_predictions, entropy_lookup
from .structure_spectra import StructureSpectra

CANDIDATES_AT_ONCE = 1 << 20
"""Pairs that are scored together: more, as of open searches of thousands of queries, would not fit in memory."""

PAIRS_AT_ONCE = 1 << 14
"""Whose embeddings are multiplied at once."""

STRUCTURES_AT_ONCE = 1 << 13
"""Whose predicted spectra are in memory together, some 30 kB each while they are compared: a group of queries may ask
for all of a database."""

SPECTRA_KEPT = 1 << 19
"""Whose cleaned peaks are kept for the queries that follow: some 0.5 GB."""

ALONE = StructureScore((PREDICTED_ENTROPY,), (1.0,), (0.0,), (1.0,))
"""The spectral entropy similarity as it is."""


class PredictedRanking:
    """Structures ranked by what their predicted spectra, and their embeddings, have in common with a query.

    Parameters
    ----------
    spectra : StructureSpectra
    structure_vectors : float32 array of shape (n_structures, dim)
        Embeddings of the structures; empty where the model was not trained with them.
    fusion : StructureFusion or None
        None to rank by the spectral entropy alone.
    """

    def __init__(
        self, spectra: StructureSpectra, structure_vectors: np.ndarray, fusion: StructureFusion | None
    ) -> None:
        self._spectra, self._structure_vectors = spectra, structure_vectors
        self._lookups = LookupOptions() if fusion is None else fusion.lookups
        self._score = ALONE if fusion is None else fusion.score
        self._cleaner = PeakCleaner(self._lookups, most=SPECTRA_KEPT)

    def ranked(
        self, queries: SpectrumColumns, vectors: np.ndarray, compared: Iterable[Candidates], k: int
    ) -> Iterator[tuple[Candidates, np.ndarray, np.ndarray]]:
        """Yield the candidates of each query, the best ``k`` of their rows and their scores; equals by row.

        Parameters
        ----------
        queries : SpectrumColumns of n_queries spectra
        vectors : float32 array of shape (n_queries, dim)
            Their embeddings; empty where the spectral entropy alone is asked for.
        compared : iterable of Candidates
            One for each query.
        k : int
        """
        first = 0
        for group in _groups(compared):
            counts = [len(candidates.rows) for candidates in group]
            row = np.concatenate([candidates.rows for candidates in group])
            query = first + np.repeat(np.arange(len(group)), counts)
            scores = self._scores(queries, vectors, query, row)
            for candidates, of_query in zip(group, np.split(scores, np.cumsum(counts)[:-1]), strict=True):
                # As float32: what float64 adds is rounding error, by which equal structures would be ranked.
                rounded = of_query.astype(np.float32)
                order = np.argsort(-rounded, kind="stable")[:k]  # rows are ascending
                yield candidates, candidates.rows[order], rounded[order]
            first += len(group)

    def _scores(self, queries: SpectrumColumns, vectors: np.ndarray, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return the score of each pair of a query and a structure; float64 of shape (n_pairs,)."""
        score = self._score
        needed = {term for term, weight in zip(score.terms, score.weights, strict=True) if weight}
        found: dict[str, np.ndarray] = {}
        if STRUCTURE_COSINE in needed:
            found[STRUCTURE_COSINE] = _products(vectors, self._structure_vectors, query, row)
        if needed & {PREDICTED_ENTROPY, PREDICTED_COSINE}:
            found |= self._to_predicted(needed, queries, vectors, query, row)
        nothing = np.zeros(len(row))
        return np.nan_to_num(score.total(np.column_stack([found.get(term, nothing) for term in score.terms])))

    def _to_predicted(
        self, needed: Set[str], queries: SpectrumColumns, vectors: np.ndarray, query: np.ndarray, row: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the terms that compare with predicted spectra, those that are needed."""
        structures, structure = np.unique(row, return_inverse=True)
        found = {term: np.full(len(row), np.nan) for term in needed & {PREDICTED_ENTROPY, PREDICTED_COSINE}}
        for begin in range(0, len(structures), STRUCTURES_AT_ONCE):
            block = structures[begin : begin + STRUCTURES_AT_ONCE]
            pairs = np.flatnonzero((structure >= begin) & (structure < begin + len(block)))
            of_block = self._to_block(needed, queries, vectors, query[pairs], block, structure[pairs] - begin)
            for term, values in of_block.items():
                found[term][pairs] = values
        if PREDICTED_ENTROPY in found:  # what has no predicted spectrum shares no peak; so it is in the fit
            found[PREDICTED_ENTROPY] = np.nan_to_num(found[PREDICTED_ENTROPY])
        return found

    def _to_block(
        self,
        needed: Set[str],
        queries: SpectrumColumns,
        vectors: np.ndarray,
        query: np.ndarray,
        structures: np.ndarray,
        structure: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Return the terms for some structures (rows, ascending), of which each pair names one by its place; or NaN."""
        predicted, owner, row_of_vector = self._spectra.of(structures)
        asked, place = np.unique(query, return_inverse=True)
        lookup = entropy_lookup(queries.take(asked), predicted, self._lookups, cleaner=self._cleaner)
        similarities: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
            PREDICTED_ENTROPY: lambda pair, spectrum: lookup.pair_scores(place[pair], len(asked) + spectrum),
            PREDICTED_COSINE: lambda pair, spectrum: _products(
                vectors, self._spectra.vectors, query[pair], row_of_vector[spectrum]
            ),
        }
        return {
            term: best_of_predictions(queries.polarity[query], structure, predicted.polarity, owner, similarity)
            for term, similarity in similarities.items()
            if term in needed
        }


def _groups(compared: Iterable[Candidates]) -> Iterator[Sequence[Candidates]]:
    """Yield the candidates of several queries at a time: of about `CANDIDATES_AT_ONCE`, or of one that has more."""
    group: list[Candidates] = []
    total = 0
    for candidates in compared:
        if group and total + len(candidates.rows) > CANDIDATES_AT_ONCE:
            yield group
            group, total = [], 0
        group.append(candidates)
        total += len(candidates.rows)
    if group:
        yield group


def _products(first: np.ndarray, second: np.ndarray, of_first: np.ndarray, of_second: np.ndarray) -> np.ndarray:
    """Return the inner product of each pair of rows, float64 of shape (n_pairs,)."""
    products = np.empty(len(of_first))
    for begin in range(0, len(of_first), PAIRS_AT_ONCE):
        part = slice(begin, begin + PAIRS_AT_ONCE)
        products[part] = np.einsum(
            "pd,pd->p", first[of_first[part]], second[of_second[part]].astype(np.float32), dtype=np.float64
        )
    return products

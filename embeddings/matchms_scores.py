"""The class behind `ionbed.as_matchms_similarity`; importing it imports matchms."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matchms.similarity.BaseSimilarity import BaseSimilarity
from sparsestack import StackedSparseArray

from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.matchms_spectra import from_matchms
from ..spectra.spectrum import Spectrum

if TYPE_CHECKING:
    import matchms

    from .index_folder import Embedder

MAX_REMEMBERED = 200_000
"""Embeddings that are kept: at 256 numbers each some 200 MB."""
SCORES_AT_ONCE = 16_000_000
"""Of a sparse array, in memory before the low ones go."""


class EmbeddingCosine(BaseSimilarity):  # type: ignore[misc]  # matchms has no types
    """Cosine of the embeddings of two spectra, -1 to 1; symmetric.

    Spectra are read as `ionbed.from_matchms` reads them, and each is embedded once: what is remembered is told by what
    the model sees of a spectrum, so that one which was changed in place is embedded anew.

    Attributes
    ----------
    model : IonbedModel
    min_score : float or None
        The least score that a sparse array keeps.
    """

    is_commutative = True
    score_datatype = np.float64

    def __init__(self, model: Embedder, *, min_score: float | None = None) -> None:
        self.model = model
        self.min_score = min_score
        self._remembered: dict[bytes, np.ndarray] = {}

    def pair(self, reference: matchms.Spectrum, query: matchms.Spectrum) -> np.ndarray:
        """Return the cosine of two spectra, a float64 array of no dimensions.

        Raises
        ------
        InputError
            A spectrum cannot be used: it has no precursor m/z, say, or no peaks are left.
        """
        first, second = self.embed([reference, query])
        return np.asarray(_cosines(first[None], second[None])[0, 0], dtype=self.score_datatype)

    def matrix(
        self,
        references: Sequence[matchms.Spectrum],
        queries: Sequence[matchms.Spectrum],
        array_type: str = "numpy",
        is_symmetric: bool = False,
        progress_bar: bool = True,
    ) -> np.ndarray | StackedSparseArray:
        """Return the cosines of all pairs.

        Parameters
        ----------
        references, queries : sequences of matchms.Spectrum
        array_type : 'numpy' or 'sparse'
            A float64 array of shape (n_references, n_queries), or a sparse one of the scores from ``min_score`` on.
        is_symmetric : bool
            Whether references and queries are the same; then these are not read twice.
        progress_bar : bool
            Show the progress of the embedding on stderr.

        Raises
        ------
        InputError
            A spectrum cannot be used.
        ValueError
            ``array_type`` is another, or the numbers differ though ``is_symmetric``.
        """
        if array_type not in ("numpy", "sparse"):
            raise ValueError("array_type must be 'numpy' or 'sparse'.")
        if is_symmetric and len(references) != len(queries):
            raise ValueError(f"{len(references)} references and {len(queries)} queries cannot be symmetric")
        rows = self.embed(references, progress=progress_bar)
        columns = rows if is_symmetric else self.embed(queries, progress=progress_bar)
        if array_type == "numpy":
            return _cosines(rows, columns)
        found = StackedSparseArray(len(rows), len(columns))
        found.add_sparse_data(*self._kept(rows, columns), "")
        return found

    def sparse_array(
        self,
        references: Sequence[matchms.Spectrum],
        queries: Sequence[matchms.Spectrum],
        idx_row: np.ndarray,
        idx_col: np.ndarray,
        is_symmetric: bool = False,
        progress_bar: bool = True,
    ) -> np.ndarray:
        """Return the cosines of some pairs, float64 of shape (n_pairs,); no other spectra are embedded.

        Parameters
        ----------
        references, queries : sequences of matchms.Spectrum
        idx_row, idx_col : integer arrays of shape (n_pairs,)
            Of the pairs, the places of reference and query.
        is_symmetric : bool
            Changes nothing.
        progress_bar : bool
            Show the progress of the embedding on stderr.
        """
        idx_row, idx_col = np.asarray(idx_row, np.int64), np.asarray(idx_col, np.int64)
        if idx_row.shape != idx_col.shape:
            raise ValueError(f"{len(idx_row)} rows and {len(idx_col)} columns; one of each is needed per pair")
        scores = np.empty(len(idx_row), self.score_datatype)
        needed_rows, row_of = np.unique(idx_row, return_inverse=True)
        needed_columns, column_of = np.unique(idx_col, return_inverse=True)
        rows = self.embed([references[place] for place in needed_rows], progress=progress_bar)
        columns = self.embed([queries[place] for place in needed_columns], progress=progress_bar)
        step = max(1, SCORES_AT_ONCE // max(rows.shape[1], 1))
        for start in range(0, len(scores), step):
            part = slice(start, start + step)
            scores[part] = np.einsum("ij,ij->i", rows[row_of[part]], columns[column_of[part]], dtype=np.float64)
        return scores

    def keep_score(self, score: np.ndarray) -> bool:
        """Return whether a sparse array keeps a score."""
        return bool(score != 0 if self.min_score is None else score >= self.min_score)

    def to_dict(self) -> dict[str, Any]:
        """Return what tells this similarity from others: its name, the model's hash, and the least score."""
        return {
            "__Similarity__": type(self).__name__,
            "model_hash": self.model.model_hash(),
            "min_score": self.min_score,
        }

    def embed(self, spectra: Sequence[matchms.Spectrum], *, progress: bool = False) -> np.ndarray:
        """Return unit vectors, float32 of shape (n_spectra, dim); what was embedded before is remembered.

        Raises
        ------
        InputError
            A spectrum cannot be used.
        """
        converted: dict[int, Spectrum] = {}
        for spectrum in spectra:  # an all-vs-all comparison may name one object many times
            if id(spectrum) not in converted:
                converted[id(spectrum)] = from_matchms(spectrum)
        keys = {place: _content(spectrum) for place, spectrum in converted.items()}
        missing = {key: converted[place] for place, key in keys.items() if key not in self._remembered}
        known = {key: self._remembered[key] for key in keys.values() if key not in missing}
        if missing:
            vectors = self.model.embed(list(missing.values()), progress=progress)
            known |= dict(zip(missing, vectors, strict=True))
            self._remember(dict(zip(missing, vectors, strict=True)))
        if not known:
            raise InputError("no spectra to compare; at least one is needed")
        return np.stack([known[keys[id(spectrum)]] for spectrum in spectra])

    def _remember(self, vectors: dict[bytes, np.ndarray]) -> None:
        self._remembered |= vectors
        for oldest in list(self._remembered)[: max(0, len(self._remembered) - MAX_REMEMBERED)]:
            del self._remembered[oldest]

    def _kept(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return places and values of the scores that a sparse array keeps, in the order of the rows."""
        found = []
        step = max(1, SCORES_AT_ONCE // len(columns))
        for start in range(0, len(rows), step):
            scores = _cosines(rows[start : start + step], columns)
            row, column = np.nonzero(scores if self.min_score is None else scores >= self.min_score)
            found.append((row + start, column, scores[row, column]))
        row, column, scores = map(np.concatenate, zip(*found, strict=True))
        return row, column, scores


def _cosines(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(rows @ columns.T, np.float64), -1, 1)  # single precision goes a little above


def _content(spectrum: Spectrum) -> bytes:
    """Return a hash over all that a model may see of a spectrum."""
    columns = SpectrumColumns.from_spectra([spectrum])
    digest = hashlib.sha256()
    for name in SpectrumColumns.TABLE_COLUMNS:
        values = getattr(columns, name)
        digest.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
        digest.update(b"|")
    return digest.digest()

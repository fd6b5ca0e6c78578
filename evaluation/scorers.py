"""What ranks spectra: the Scorer interface, chance, the precursor alone, and learned embeddings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ..progress import counted, progress
from ..spectra.columns import SpectrumColumns
from .metrics import comparable

Kind = Literal["reference", "blind", "look-up", "trained", "learned"]
"""Of a row: chance and oracles; rankers that see no peak; look-ups; networks trained here as baselines; models."""

logger = logging.getLogger("ionbed")

QUERIES_PER_CHUNK = 64
PAIRS_PER_CHUNK = 2**16


class Scorer(Protocol):
    """Scores pairs of spectra of the data by row number; higher is more alike.

    Attributes
    ----------
    label : str
        Row of the table.
    kind : Kind
        Trained and learned rows are compared with the best look-up and the best blind one.
    """

    label: str
    kind: Kind

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return float scores of shape (n_queries, n_library); NaN abstains.

        Parameters
        ----------
        queries, library : int64 arrays of rows of the data
        """
        ...


class PairScorer(Protocol):
    """A `Scorer` that takes listed pairs too, at no more cost than their number."""

    def pair_scores(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return float scores of shape (n_pairs,); NaN abstains.

        Parameters
        ----------
        first, second : int64 arrays of shape (n_pairs,)
            Rows of the data; the first is the query.
        """
        ...


class StructureScorer(Protocol):
    """Scores spectra against candidate structures; higher is better. Attributes as of `Scorer`."""

    label: str
    kind: Kind

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return float scores of shape (n_pairs,); NaN abstains.

        Parameters
        ----------
        query : int64 array of shape (n_pairs,)
            Rows of the data.
        molecule : int64 array of shape (n_pairs,)
            Rows of the `ionbed.evaluation.candidates.Candidates`.
        """
        ...


@runtime_checkable
class Weighted(Protocol):
    """A scorer that adds scores of others with weights that were fitted; results name them.

    Attributes
    ----------
    weights : mapping of str to float
        By the label of what is added.
    """

    weights: Mapping[str, float]


class Encoder(Protocol):
    """What a learned row needs of a model: `ionbed.load_model` returns one."""

    def embed(self, spectra: SpectrumColumns, *, progress: bool = False) -> np.ndarray:
        """Return unit vectors, float32 of shape (n_spectra, dim)."""
        ...


class Chance:
    """The same score for every pair. With ties in expectation this is drawing at random, exactly."""

    label = "random"
    kind: Kind = "reference"

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return zeros; see `Scorer`."""
        return np.zeros((len(queries), len(library)), np.float32)

    def pair_scores(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return zeros; see `PairScorer`."""
        return np.zeros(len(first), np.float32)

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return zeros; see `StructureScorer`."""
        return np.zeros(len(query))


class NearestNeighbourOracle:
    """The Tanimoto similarity of the two molecules: the most that any look-up could find, since it is told the truth.

    Parameters
    ----------
    molecule : int64 array of shape (n,)
        Of every row of the data.
    fingerprint : uint8 array of shape (m, n_bytes)
        Packed bits of every molecule.
    """

    label = "nearest-neighbour oracle"
    kind: Kind = "reference"

    def __init__(self, molecule: np.ndarray, fingerprint: np.ndarray) -> None:
        self._molecule, self._fingerprint = molecule, fingerprint

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return Tanimoto similarities; see `Scorer`."""
        from ..spectra.molecules import tanimoto_matrix

        first, of_query = np.unique(self._molecule[queries], return_inverse=True)
        second, of_library = np.unique(self._molecule[library], return_inverse=True)
        bits = (np.unpackbits(self._fingerprint[molecules], axis=1) for molecules in (first, second))
        similarity: np.ndarray = tanimoto_matrix(*bits)[np.ix_(of_query, of_library)]
        return similarity


class PrecursorOnly:
    """The smaller the difference of precursor m/z in ppm, the better: what is known without any fragment."""

    label = "precursor only"
    kind: Kind = "blind"

    def __init__(self, columns: SpectrumColumns) -> None:
        self._precursor_mz = columns.precursor_mz

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return minus the absolute difference in ppm of the query's precursor; see `Scorer`."""
        centre = self._precursor_mz[queries][:, None]
        difference: np.ndarray = np.abs(self._precursor_mz[library][None, :] - centre)
        difference *= -1e6 / centre
        return difference

    def pair_scores(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return minus the absolute difference in ppm of the first; see `PairScorer`."""
        centre = self._precursor_mz[first]
        difference: np.ndarray = np.abs(self._precursor_mz[second] - centre)
        difference *= -1e6 / centre
        return difference


class Learned:
    """The inner product of unit embeddings.

    Parameters
    ----------
    label : str
    rows : int64 array of shape (n,)
        Rows of the data, ascending, each once.
    vectors : float32 array of shape (n, dim)
        Unit embeddings of those rows.
    """

    kind: Kind = "learned"

    def __init__(self, label: str, rows: np.ndarray, vectors: np.ndarray) -> None:
        if vectors.ndim != 2 or len(vectors) != len(rows):
            raise ValueError(f"{label}: {len(rows)} spectra have embeddings of shape {vectors.shape}")
        self.label, self._rows, self._vectors = label, rows, vectors

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return inner products; see `Scorer`."""
        products: np.ndarray = self.vectors_of(queries) @ self.vectors_of(library).T
        return products

    def pair_scores(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return inner products; see `PairScorer`."""
        return np.einsum("pd,pd->p", self.vectors_of(first), self.vectors_of(second))

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of rows, int64 of shape (n,); float32 of shape (n, dim)."""
        return self._vectors[np.searchsorted(self._rows, rows)]


class Embedder:
    """Embeds spectra of the data, each once, however many scorers are made of them.

    Parameters
    ----------
    label : str
    model : Encoder
    """

    def __init__(self, label: str, model: Encoder) -> None:
        self._label, self._model = label, model
        self._columns: SpectrumColumns | None = None
        self._rows, self._vectors = np.empty(0, np.int64), np.empty((0, 0), np.float32)

    def __call__(self, columns: SpectrumColumns, rows: np.ndarray) -> Learned:
        """Return a scorer of ``rows`` (int64, of any order) of ``columns``, all spectra of the data."""
        return Learned(self._label, *self.vectors(columns, rows))

    def vectors(self, columns: SpectrumColumns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows that were embedded so far, ``rows`` among them, ascending, and their embeddings."""
        if columns is not self._columns:
            # Audits append altered spectra to the data: what stands before them is embedded already.
            num_shared = 0 if self._columns is None else _num_shared(self._columns, columns)
            kept = self._rows < num_shared
            self._columns, self._rows, self._vectors = columns, self._rows[kept], self._vectors[kept]
        missing = np.setdiff1d(rows, self._rows)
        if len(missing):
            logger.info("embedding %s with '%s'", counted(len(missing), "spectra"), self._label)
            found = np.asarray(self._model.embed(columns.take(missing), progress=True), np.float32)
            if found.ndim != 2 or len(found) != len(missing):
                raise ValueError(f"{self._label}: embed gave shape {found.shape} for {len(missing)} spectra")
            merged = np.concatenate([self._rows, missing])
            order = np.argsort(merged)
            self._vectors = np.concatenate([self._vectors, found])[order] if len(self._rows) else found
            self._rows = merged[order]
        return self._rows, self._vectors


def _num_shared(first: SpectrumColumns, second: SpectrumColumns) -> int:
    """Return how many spectra at the head of both are the same, peaks and conditions."""
    num = min(len(first), len(second))
    num = _common_head(first.offsets[: num + 1], second.offsets[: num + 1]) - 1
    for name in ("precursor_mz", "polarity", "charge", "collision_energy", "adduct", "instrument_type"):
        num = _common_head(getattr(first, name)[:num], getattr(second, name)[:num])
    num_peaks = int(first.offsets[num])
    for name in ("mz", "intensity"):
        num_peaks = _common_head(getattr(first, name)[:num_peaks], getattr(second, name)[:num_peaks])
    return int(np.searchsorted(first.offsets[: num + 1], num_peaks, side="right")) - 1


def _common_head(first: np.ndarray, second: np.ndarray) -> int:
    """Return the length of the equal beginning of two arrays of one length; unknown equals unknown."""
    differs = first != second
    if first.dtype.kind == "f":
        differs &= ~(np.isnan(first) & np.isnan(second))
    return int(differs.argmax()) if differs.any() else len(first)


def score_pairs(
    scorer: Scorer, first: np.ndarray, second: np.ndarray, precursor_mz: np.ndarray, *, label: str
) -> np.ndarray:
    """Score listed pairs: as such where the scorer can, else in blocks of neighbouring precursors.

    Parameters
    ----------
    first, second : int64 arrays of shape (n_pairs,)
        Rows of the data.
    precursor_mz : float64 array
        Of all rows of the data.
    label : str
        Shown with the progress.

    Returns
    -------
    float64 array of shape (n_pairs,)
        As `ionbed.evaluation.metrics.comparable` makes them.
    """
    results = np.empty(len(first), np.float64)
    if hasattr(scorer, "pair_scores"):  # a `PairScorer`
        with progress(label, len(first), unit="pairs") as advance:
            for begin in range(0, len(first), PAIRS_PER_CHUNK):
                part = slice(begin, begin + PAIRS_PER_CHUNK)
                results[part] = comparable(scorer.pair_scores(first[part], second[part]))
                advance(len(results[part]))
        return results
    rows = np.unique(first)
    rows = rows[np.argsort(precursor_mz[rows], kind="stable")]
    block_of_row = np.empty(len(precursor_mz), np.int64)
    block_of_row[rows] = np.arange(len(rows)) // QUERIES_PER_CHUNK
    block = block_of_row[first]
    order = np.argsort(block, kind="stable")
    with progress(label, len(first), unit="pairs") as advance:
        for members in np.split(order, np.flatnonzero(np.diff(block[order])) + 1) if len(order) else []:
            queries, query = np.unique(first[members], return_inverse=True)
            library, candidate = np.unique(second[members], return_inverse=True)
            results[members] = comparable(scorer.scores(queries, library)[query, candidate])
            advance(len(members))
    return results


def rows_needed(*groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return the distinct rows in any of the arrays, int64, ascending."""
    arrays = [np.asarray(rows, np.int64) for group in groups for rows in group]
    return np.unique(np.concatenate([np.empty(0, np.int64), *arrays]))

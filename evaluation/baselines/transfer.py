"""Analogue transfer: candidate structures ranked by a search for spectra, through the molecules that it finds.

On a split by structure no spectrum of the true molecule is in the library, and a look-up of it cannot answer. What it
finds are relatives, and a candidate that resembles them is the better guess. Whoever claims to read structures out of
spectra has to do better than this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from ...progress import progress
from ..candidates import Candidates
from ..dataset import EvaluationData
from ..entries import Build, Entry
from ..metrics import comparable
from ..outcomes import tanimoto_pairs
from ..scorers import Kind, Scorer, StructureScorer

QUERIES_PER_CHUNK = 64


@dataclass(frozen=True)
class TransferOptions:
    """Choices of analogue transfer; the defaults did best for the look-ups on validation molecules of MassBank.

    Attributes
    ----------
    neighbours : int
        Molecules of the library that a candidate is compared with: those of the best hits.
    power : float
        Of the score of a hit in its weight; 0 weighs all alike.
    library_fold : 'train' or 'validation'
        Fold whose spectra are searched.
    """

    neighbours: int = 5
    power: float = 4.0
    library_fold: Literal["train", "validation"] = "train"

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"'neighbours' is {self.neighbours}; it must be at least 1")
        if self.power < 0:
            raise ValueError(f"'power' is {self.power}; it must be at least 0")


def transfer_entries(entries: Sequence[Entry], options: TransferOptions = TransferOptions()) -> list[Entry]:
    """Return a row for structures from each row for spectra, of the same kind and with the same knowledge.

    Every entry must make a scorer of spectra.
    """
    return [
        Entry(
            transfer_label(entry.label),
            entry.kind,
            tuple(_transferred(build, entry, options) for build in entry.builds),
            entry.known,
            entry.trained_on,
            entry.exposure,
        )
        for entry in entries
    ]


def transfer_label(label: str) -> str:
    """Return the label of the row that analogue transfer makes of the row ``label``."""
    return f"{label}, analogue transfer"


class AnalogueTransfer:
    """Scores a candidate by its similarity to the molecules of the best hits of a search.

    The spectra of the library are ranked by ``scorer``, each of its molecules by its best spectrum. With the ``k`` best
    molecules n_1 ... n_k, their scores s_1 ... s_k, and the Tanimoto similarity T of Morgan fingerprints, a candidate c
    gets

        sum_i w_i T(c, n_i) / sum_i w_i,   w_i = max(s_i, 0) ** power

    which lies from 0 to 1. A query without any hit above 0 gives no score. Only spectra of the query's polarity are
    searched.

    Parameters
    ----------
    scorer : Scorer
    """

    def __init__(
        self,
        label: str,
        kind: Kind,
        scorer: Scorer,
        data: EvaluationData,
        candidates: Candidates,
        options: TransferOptions,
    ) -> None:
        self.label, self.kind = label, kind
        self._scorer, self._data, self._options = scorer, data, options
        self._fingerprint = candidates.fingerprint
        library = data.rows_in(options.library_fold)
        library = library[np.argsort(data.molecule[library], kind="stable")]
        self._library = {
            polarity: library[data.columns.polarity[library] == polarity]
            for polarity in np.unique(data.columns.polarity).tolist()
        }
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return similarities from 0 to 1; see `ionbed.evaluation.scorers.StructureScorer`."""
        if not len(query):
            return np.empty(0)
        self._search(np.unique(query))
        # A molecule may be there with many spectra; it is compared once.
        pairs, place = np.unique(np.stack([query, molecule]), axis=1, return_inverse=True)
        rows, row_of_pair = np.unique(pairs[0], return_inverse=True)
        neighbours = np.stack([self._found[row][0] for row in rows.tolist()])
        weights = np.stack([self._found[row][1] for row in rows.tolist()])
        total = np.zeros(pairs.shape[1])
        for column in range(neighbours.shape[1]):
            weight = weights[row_of_pair, column]
            counted = np.flatnonzero(weight > 0)
            total[counted] += weight[counted] * tanimoto_pairs(
                self._fingerprint, pairs[1][counted], neighbours[row_of_pair[counted], column]
            )
        whole = weights.sum(axis=1)[row_of_pair]
        scores = np.divide(total, whole, out=np.full(len(total), np.nan), where=whole > 0)
        result: np.ndarray = scores[place.reshape(-1)]
        return result

    def _search(self, queries: np.ndarray) -> None:
        """Find the neighbours of the queries that have none yet."""
        new = np.array([row for row in queries.tolist() if row not in self._found], np.int64)
        if not len(new):
            return
        with progress(self.label, len(new), unit="queries") as advance:
            for polarity, library in self._library.items():
                of_polarity = new[self._data.columns.polarity[new] == polarity]
                starts = np.flatnonzero(np.diff(self._data.molecule[library], prepend=-1))
                for begin in range(0, len(of_polarity), QUERIES_PER_CHUNK):
                    chunk = of_polarity[begin : begin + QUERIES_PER_CHUNK]
                    self._found.update(zip(chunk.tolist(), self._best(chunk, library, starts), strict=True))
                    advance(len(chunk))

    def _best(
        self, queries: np.ndarray, library: np.ndarray, starts: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the neighbours of each query and their weights, both of shape (neighbours,); weight 0 is no hit."""
        k = self._options.neighbours
        neighbours, weights = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k))
        if len(library):
            # An abstention, NaN, is no maximum; what is left to round are molecules instead of spectra.
            best = comparable(np.fmax.reduceat(self._scorer.scores(queries, library), starts, axis=1))
            # Of equal molecules those with the lower number, in the order of their InChIKeys, which says nothing.
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]
            hit = np.maximum(np.take_along_axis(best, order, axis=1), 0.0)
            width = order.shape[1]
            neighbours[:, :width] = self._data.molecule[library[starts]][order]
            weights[:, :width] = np.where(hit > 0, hit**self._options.power, 0.0)
        return list(zip(neighbours, weights, strict=True))


def _transferred(build: Build, entry: Entry, options: TransferOptions) -> Build:
    def built(data: EvaluationData, candidates: Candidates, rows: np.ndarray) -> StructureScorer:
        searched = np.union1d(rows, data.rows_in(options.library_fold))
        scorer = build(data, candidates, searched)
        if not hasattr(scorer, "scores"):
            raise ValueError(f"'{entry.label}' scores no spectra; analogue transfer needs a search for spectra")
        return AnalogueTransfer(
            transfer_label(entry.label), entry.kind, cast(Scorer, scorer), data, candidates, options
        )

    return built

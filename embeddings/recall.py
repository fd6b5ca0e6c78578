"""How far an approximate search has to look to find what an exact one finds, and how much of that it then finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .approximate import MEASURED_K, AnnKind, AnnSettings, nearest_approximate
from .nearest import Nearest, nearest_of_all

if TYPE_CHECKING:
    import faiss

WANTED_RECALL = 0.99
RECALL_QUERIES = 2000
DEPTHS: Mapping[str, tuple[int, ...]] = {
    "hnsw": (20, 40, 80),
    "ivf-sq8": (20, 40, 80),
    "ivf-pq": (50, 100, 200, 400, 800),
}
"""Candidates that are ranked exactly for ten hits, the least first."""
MAX_EFFORT = 1024
EFFORTS = tuple(sorted({round(2 ** (step / 2)) for step in range(21)}))
"""Lists or breadths that are tried, the least first; up to `MAX_EFFORT`."""


@dataclass(frozen=True)
class MeasuredRecall:
    """What a search with `AnnSettings` finds of the ten nearest rows, measured with rows of the library as queries.

    Attributes
    ----------
    settings : AnnSettings
    wanted : float
        Recall that the settings were chosen to reach.
    tuning : float
        Mean recall@10 of the half of the queries that the settings were chosen with.
    recall : float
        Mean recall@10 of the other half.
    hardest_decile : float
        The same of the tenth of that half whose nearest rows are least similar to them.
    num_queries : int
        In each half.
    """

    settings: AnnSettings
    wanted: float
    tuning: float
    recall: float
    hardest_decile: float
    num_queries: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MeasuredRecall:
        """Make it from what `to_dict` gave."""
        return cls(**{**values, "settings": AnnSettings(**values["settings"])})


def measure_recall(
    index: faiss.Index,
    kind: AnnKind,
    vectors: np.ndarray,
    polarity: np.ndarray,
    *,
    wanted: float = WANTED_RECALL,
    num_queries: int = RECALL_QUERIES,
    seed: int = 0,
) -> MeasuredRecall:
    """Choose how an index is searched, and measure how much of an exact search it finds.

    Rows of the library are the queries, each with itself left out, and with its own polarity; other spectra of its
    molecule stay. With one half of them the least settings are chosen whose mean recall@10 reaches ``wanted``
    by one standard error; the recall is that of the other half. A row that scores as high as the tenth of the exact
    search counts as found, whichever of several equals it is.

    Parameters
    ----------
    index : faiss.Index
        From `build_ann`.
    kind : AnnKind
    vectors : float32 array of shape (n_rows, dim)
        Rows of unit length.
    polarity : int8 array of shape (n_rows,)
        +1, -1, or 0 where unknown.
    wanted : float
        Above 0 and below 1. Where no settings reach it, those that come nearest are kept.
    num_queries : int
        Of both halves together, at least 20; fewer where the library has fewer rows.
    seed : int
        Chooses the queries.

    Raises
    ------
    InputError
        ``wanted`` is out of range.
    """
    check_wanted(wanted)
    rows = np.random.default_rng(seed).permutation(len(vectors))[:num_queries]
    halves = [_Questions.of(vectors, polarity, half) for half in np.array_split(rows, 2)]
    settings = _least_settings(index, kind, halves[0], wanted)
    tuning, reported = (half.recall(index, settings) for half in halves)
    hardest = np.argsort(halves[1].best, kind="stable")[: max(1, len(reported) // 10)]
    return MeasuredRecall(
        settings=settings,
        wanted=wanted,
        tuning=float(tuning.mean()),
        recall=float(reported.mean()),
        hardest_decile=float(reported[hardest].mean()),
        num_queries=len(reported),
    )


def check_wanted(wanted: float) -> None:
    """Raise `InputError` if the wanted recall is out of range."""
    if not 0 < wanted < 1:
        raise InputError(f"the wanted recall is {wanted}; it must be more than 0 and less than 1 (flat is exact)")


@dataclass(frozen=True, eq=False)
class _Questions:
    """Rows of a library as queries, and the scores of the rows nearest to each."""

    vectors: np.ndarray
    polarity: np.ndarray
    rows: np.ndarray
    best: np.ndarray
    tenth: np.ndarray
    num_others: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, polarity: np.ndarray, rows: np.ndarray) -> _Questions:
        queries = np.ascontiguousarray(vectors[rows])
        exact = nearest_of_all(vectors, polarity, queries, polarity[rows], MEASURED_K + 1)
        scores = _scores_of_others(exact, rows)
        others = (scores > -np.inf).sum(axis=1)
        last = scores[np.arange(len(rows)), np.maximum(others - 1, 0)]
        return cls(vectors, polarity, rows, scores[:, 0], last, others)

    def recall(self, index: faiss.Index, settings: AnnSettings) -> np.ndarray:
        """Return the recall of each query that has any other row to find."""
        queries, signs = np.ascontiguousarray(self.vectors[self.rows]), self.polarity[self.rows]
        found = nearest_approximate(index, settings, self.vectors, self.polarity, queries, signs, MEASURED_K + 1)
        as_good = (_scores_of_others(found, self.rows) >= self.tenth[:, None]).sum(axis=1)
        recall: np.ndarray = as_good / np.maximum(self.num_others, 1)
        return np.where(self.num_others > 0, recall, 1.0)


def _scores_of_others(found: Nearest, own: np.ndarray) -> np.ndarray:
    """Return the ten best scores of rows other than ``own``, -inf where there are fewer."""
    scores = np.where((found.rows < 0) | (found.rows == own[:, None]), -np.inf, found.scores)
    best: np.ndarray = -np.sort(-scores, axis=1)[:, :MEASURED_K]
    return best


def _least_settings(index: faiss.Index, kind: AnnKind, questions: _Questions, wanted: float) -> AnnSettings:
    """Return the settings of the least depth and, with it, the least effort that reach the wanted recall.

    Of what may be missed, at most half is left to the depth, so that the effort need not be boundless.
    """
    for depth in DEPTHS[kind]:
        if questions.recall(index, AnnSettings(kind, MAX_EFFORT, depth)).mean() >= (1 + wanted) / 2:
            break
    # A graph is never walked less broadly than candidates are wanted.
    for effort in (effort for effort in EFFORTS if kind != "hnsw" or effort >= depth):
        recall = questions.recall(index, AnnSettings(kind, effort, depth))
        if recall.mean() - recall.std() / math.sqrt(len(recall)) >= wanted:
            break
    return AnnSettings(kind, effort, depth)

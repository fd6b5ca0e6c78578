"""What is compared with what, for each kind of task: queries, and the pools of candidates that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .dataset import EvaluationData
from .task_files import TaskKind

SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER = "same molecule", "same molecule, any partner"
LIBRARY_SEARCH, OPEN_WORLD_SEARCH, ANALOGUE_SEARCH = "library search", "open-world search", "analogue search"
RETRIEVAL_BY_MASS, RETRIEVAL_BY_FORMULA = "retrieval by mass", "retrieval by formula"
RETRIEVAL_FROM_LISTS = "retrieval from lists"

KIND_OF: Mapping[str, TaskKind] = {
    SAME_MOLECULE: "pairs",
    SAME_MOLECULE_ANY_PARTNER: "pairs",
    LIBRARY_SEARCH: "library",
    OPEN_WORLD_SEARCH: "open",
    ANALOGUE_SEARCH: "analogue",
    RETRIEVAL_BY_MASS: "retrieval",
    RETRIEVAL_BY_FORMULA: "retrieval",
    RETRIEVAL_FROM_LISTS: "retrieval",
}
"""Every question that can be asked, in the order of the report."""

MAIN_METRIC: Mapping[TaskKind, str] = {
    "pairs": "ROC AUC",
    "library": "hit@1",
    "open": "hit@1",
    "analogue": "Tanimoto@1",
    "retrieval": "hit@1",
}
"""The metric by which a verdict is put into words."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """What is compared with what: rows of the data, and the pools that queries share.

    Attributes
    ----------
    queries : int64 array of shape (n_queries,)
    pool_of_query : int64 array of shape (n_queries,)
    pool, candidate : int64 arrays of shape (n_candidates,)
        Pool, and row of the data (retrieval: molecule of the data), of every candidate.
    counts : dict of str to number
    """

    queries: np.ndarray
    pool_of_query: np.ndarray
    pool: np.ndarray
    candidate: np.ndarray
    counts: dict[str, float]


def other_laboratory(data: EvaluationData, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return whether the laboratories of two rows are both known and differ, bool of the shape of ``first``."""
    own, other = data.laboratory[first], data.laboratory[second]
    differ: np.ndarray = (own >= 0) & (other >= 0) & (own != other)
    return differ

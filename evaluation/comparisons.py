"""What is compared with what, for each kind of task: queries, and the pools of candidates that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .dataset import EvaluationData
from .task_files import TaskKind
from .tasks import (
    LibrarySearchTask,
    analogue_search_task,
    draw_per_molecule,
    library_search_task,
    same_molecule_task,
)

if TYPE_CHECKING:
    from .run import EvaluationConfig


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


def _library(data: EvaluationData, config: EvaluationConfig) -> Comparisons:
    task = library_search_task(data, config.fold, config.library_search, seed=config.seed)
    return _own_pools(task, task.counts)


def _own_pools(task: LibrarySearchTask, counts: dict[str, float]) -> Comparisons:
    return Comparisons(task.queries, np.arange(len(task.queries)), task.query, task.library, counts)


def _open(data: EvaluationData, config: EvaluationConfig) -> Comparisons:
    """Take the molecule away from the candidates of half of the molecules' queries."""
    task = library_search_task(data, config.fold, config.library_search, seed=config.seed)
    molecule = data.molecule[task.queries]
    distinct = np.unique(molecule)
    drawn = np.random.default_rng(config.seed).permutation(distinct)[: len(distinct) // 2]
    is_unanswerable = np.isin(molecule, drawn)
    is_true = data.molecule[task.library] == molecule[task.query]
    kept = ~(is_unanswerable[task.query] & is_true)
    counts = {
        "queries": len(task.queries),
        "of these without an answer": int(is_unanswerable.sum()),
        "molecules": len(distinct),
    }
    return Comparisons(task.queries, np.arange(len(task.queries)), task.query[kept], task.library[kept], dict(counts))


def _analogue(data: EvaluationData, config: EvaluationConfig) -> Comparisons:
    task = analogue_search_task(data, config.fold, config.analogue_search, seed=config.seed)
    empty = [np.empty(0, np.int64)]
    return Comparisons(
        np.concatenate([*empty, *task.queries]),
        np.concatenate([*empty, *(np.full(len(rows), i) for i, rows in enumerate(task.queries))]),
        np.concatenate([*empty, *(np.full(len(rows), i) for i, rows in enumerate(task.libraries))]),
        np.concatenate([*empty, *task.libraries]),
        task.counts,
    )


def _pairs(data: EvaluationData, config: EvaluationConfig) -> Comparisons:
    task = same_molecule_task(data, config.fold, config.same_molecule, seed=config.seed)
    queries, pool = np.unique(task.first, return_inverse=True)
    return Comparisons(queries, np.arange(len(queries)), pool, task.second, task.counts)


def _retrieval(data: EvaluationData, config: EvaluationConfig) -> Comparisons:
    """Every molecule of the store of nearly the same mass is a candidate, whatever its fold."""
    from ..spectra.molecules import standardise

    standard = [standardise(smiles) for smiles in data.smiles]
    mass = np.array([np.nan if molecule is None else molecule.exact_mass for molecule in standard])
    by_mass = np.argsort(mass, kind="stable")  # those that RDKit cannot read (NaN) come last
    ordered = mass[by_mass]
    rows = data.rows_in(config.fold)
    rows = rows[~np.isnan(mass[data.molecule[rows]])]
    relative = config.library_search.precursor_ppm * 1e-6
    centre = mass[data.molecule[rows]]
    starts = np.searchsorted(ordered, centre * (1 - relative), side="left")
    stops = np.searchsorted(ordered, centre * (1 + relative), side="right")
    single = stops - starts < 2
    queries = draw_per_molecule(
        rows[~single], data.molecule, limit=config.library_search.max_queries_per_molecule, seed=config.seed
    )
    place = np.searchsorted(rows, queries)
    sizes = stops[place] - starts[place]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    counts = {
        "queries": len(queries),
        "molecules": len(np.unique(data.molecule[queries])),
        "mean candidates": float(sizes.mean()) if len(sizes) else 0.0,
        "spectra with one candidate only, left out": int(single.sum()),
    }
    return Comparisons(
        queries,
        np.arange(len(queries)),
        np.repeat(np.arange(len(queries)), sizes),
        by_mass[np.repeat(starts[place], sizes) + within],
        counts,
    )


COMPARISONS: Mapping[TaskKind, Callable[[EvaluationData, EvaluationConfig], Comparisons]] = {
    "library": _library,
    "open": _open,
    "analogue": _analogue,
    "retrieval": _retrieval,
    "pairs": _pairs,
}

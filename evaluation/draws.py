"""How the queries and the candidates of each question are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .candidates import Candidates
from .comparisons import (
    ANALOGUE_SEARCH,
    LIBRARY_SEARCH,
    OPEN_WORLD_SEARCH,
    RETRIEVAL_BY_FORMULA,
    RETRIEVAL_BY_MASS,
    RETRIEVAL_FROM_LISTS,
    SAME_MOLECULE,
    SAME_MOLECULE_ANY_PARTNER,
    Comparisons,
)
from .dataset import EvaluationData
from .retrieval import By, retrieval_comparisons
from .task_files import TaskKind
from .tasks import (
    LibrarySearchTask,
    Partners,
    analogue_search_task,
    library_search_task,
    same_molecule_task,
)

if TYPE_CHECKING:
    from .run import EvaluationConfig


def _library(data: EvaluationData, molecules: Candidates, config: EvaluationConfig) -> Comparisons:
    task = library_search_task(data, config.fold, config.library_search, seed=config.seed)
    return _own_pools(task, task.counts)


def _own_pools(task: LibrarySearchTask, counts: dict[str, float]) -> Comparisons:
    return Comparisons(task.queries, np.arange(len(task.queries)), task.query, task.library, counts)


def _open(data: EvaluationData, molecules: Candidates, config: EvaluationConfig) -> Comparisons:
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


def _analogue(data: EvaluationData, molecules: Candidates, config: EvaluationConfig) -> Comparisons:
    task = analogue_search_task(data, config.fold, config.analogue_search, seed=config.seed)
    empty = [np.empty(0, np.int64)]
    return Comparisons(
        np.concatenate([*empty, *task.queries]),
        np.concatenate([*empty, *(np.full(len(rows), i) for i, rows in enumerate(task.queries))]),
        np.concatenate([*empty, *(np.full(len(rows), i) for i, rows in enumerate(task.libraries))]),
        np.concatenate([*empty, *task.libraries]),
        task.counts,
    )


def _pairs(data: EvaluationData, molecules: Candidates, config: EvaluationConfig, *, partners: Partners) -> Comparisons:
    task = same_molecule_task(data, config.fold, config.same_molecule, seed=config.seed, partners=partners)
    queries, pool = np.unique(task.first, return_inverse=True)
    return Comparisons(queries, np.arange(len(queries)), pool, task.second, task.counts)


def _retrieval(data: EvaluationData, molecules: Candidates, config: EvaluationConfig, *, by: By) -> Comparisons:
    options = replace(config.retrieval, by=by)
    return retrieval_comparisons(data, molecules, config.fold, options, seed=config.seed)


COMPARISONS: Mapping[str, Callable[[EvaluationData, Candidates, EvaluationConfig], Comparisons]] = {
    SAME_MOLECULE: partial(_pairs, partners="fold"),
    SAME_MOLECULE_ANY_PARTNER: partial(_pairs, partners="all"),
    LIBRARY_SEARCH: _library,
    OPEN_WORLD_SEARCH: _open,
    ANALOGUE_SEARCH: _analogue,
    RETRIEVAL_BY_MASS: partial(_retrieval, by="mass"),
    RETRIEVAL_BY_FORMULA: partial(_retrieval, by="formula"),
    RETRIEVAL_FROM_LISTS: partial(_retrieval, by="lists"),
}
"""How the queries and candidates of each question are drawn."""


def question_of(kind: TaskKind, by: By) -> str:
    """Return the name of the question that a task of ``kind`` asks; ``by`` matters for 'retrieval' only."""
    if kind == "retrieval":
        return {"mass": RETRIEVAL_BY_MASS, "formula": RETRIEVAL_BY_FORMULA, "lists": RETRIEVAL_FROM_LISTS}[by]
    return {
        "library": LIBRARY_SEARCH,
        "open": OPEN_WORLD_SEARCH,
        "analogue": ANALOGUE_SEARCH,
        "pairs": SAME_MOLECULE,
    }[kind]

"""The questions of an evaluation, each a task in memory, and the answers of a scorer to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from ..progress import progress
from .candidates import Candidates
from .comparisons import KIND_OF, Comparisons, other_laboratory
from .dataset import EvaluationData
from .draws import COMPARISONS
from .metrics import comparable
from .predictions import PredictionManifest, Predictions, prediction_counts
from .scorers import Scorer, StructureScorer, score_pairs
from .strata import query_strata
from .task_files import HITS, Task, TaskKind

if TYPE_CHECKING:
    from .run import EvaluationConfig

HITS_KEPT = 50
"""Molecules per query that are kept of an analogue search, beside all that tie with the first."""
QUERIES_PER_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Question:
    """One question of an evaluation.

    Attributes
    ----------
    name : str
        One of `KIND_OF`.
    kind : TaskKind
    found : Comparisons
        Candidate i of the task is ``found.candidate[i]``: a row of the data, or of the `Candidates` for 'retrieval'.
    task : Task
        The same for judging.
    """

    name: str
    kind: TaskKind
    found: Comparisons = field(repr=False)
    task: Task = field(repr=False)


def ask(
    name: str,
    data: EvaluationData,
    molecules: Candidates,
    config: EvaluationConfig,
    nearest_train: np.ndarray | None = None,
) -> Question | None:
    """Draw the queries and candidates of a question; None where the data hold nothing to ask.

    ``nearest_train`` is a stratum; see `ionbed.evaluation.query_properties.nearest_train_tanimoto`.
    """
    kind = KIND_OF[name]
    found = COMPARISONS[name](data, molecules, config)
    if not len(found.queries):
        return None
    if kind == "pairs":
        first = data.molecule[owner_of_pool(found)[found.pool]]
        same = first == data.molecule[found.candidate]
        if same.all() or not same.any():  # there is nothing to tell apart
            return None
    return Question(name, kind, found, task_of(data, molecules, found, kind, nearest_train))


def task_of(
    data: EvaluationData,
    molecules: Candidates,
    found: Comparisons,
    kind: TaskKind,
    nearest_train: np.ndarray | None = None,
) -> Task:
    """Return the task in memory; what `ionbed.evaluation.make_task` writes into a folder, unsorted."""
    strata = query_strata(data, found, kind, nearest_train)
    if kind == "retrieval":
        candidate_id, candidate_molecule = molecules.block[found.candidate], found.candidate
    else:
        candidate_id, candidate_molecule = data.spectrum_id[found.candidate], data.molecule[found.candidate]
    between = None
    if kind == "pairs":
        between = other_laboratory(data, owner_of_pool(found)[found.pool], found.candidate)
    query_id = data.spectrum_id[found.queries]
    return Task(
        header={
            "kind": kind,
            "hits": list(HITS),
            "counts": found.counts,
            "strata": list(strata),
            "hash": _digest(query_id, found, candidate_id),
        },
        query_id=pa.array(query_id, pa.string()),
        query_pool=found.pool_of_query,
        query_molecule=data.molecule[found.queries],
        candidate_id=pa.array(candidate_id, pa.string()),
        candidate_pool=found.pool,
        candidate_molecule=candidate_molecule,
        molecule=molecules.block,
        fingerprint=None if kind == "pairs" else molecules.fingerprint,
        strata=strata,
        other_laboratory=between,
        smiles=molecules.smiles,
    )


def owner_of_pool(found: Comparisons) -> np.ndarray:
    """Return the row of the data whose candidates each pool holds, where every query has a pool of its own."""
    owner = np.full(int(found.pool_of_query.max()) + 1, -1, np.int64)
    owner[found.pool_of_query] = found.queries
    return owner


def can_answer(kind: TaskKind, scorer: Scorer | StructureScorer) -> bool:
    """Return whether ``scorer`` can answer a question of ``kind``.

    Who scores structures can also rank spectra, by their molecules; but not in an analogue search, in which the place
    of the library's molecules has no meaning without the query's spectrum, nor pairs.
    """
    if hasattr(scorer, "scores"):
        return kind != "retrieval" or hasattr(scorer, "score_structures")
    return kind in ("retrieval", "library", "open")


def answer(question: Question, data: EvaluationData, scorer: Scorer | StructureScorer) -> Predictions:
    """Return the scores of ``scorer`` as any other tool would give them.

    Of an analogue search only the best `HITS_KEPT` molecules of each query are kept, with all that tie with the first,
    each by the first of its spectra that has its best score.
    """
    found, label = question.found, f"{question.name}: {scorer.label}"
    if question.kind == "analogue":
        query, candidate, score = _best_of_pools(question, scorer)
    else:
        query_of_pool = np.full(int(found.pool_of_query.max()) + 1, -1, np.int64)
        query_of_pool[found.pool_of_query] = np.arange(len(found.queries))
        query, candidate = query_of_pool[found.pool], np.arange(len(found.candidate))
        rows = found.queries[query]
        if question.kind == "retrieval" or not hasattr(scorer, "scores"):
            assert hasattr(scorer, "score_structures")
            score = comparable(scorer.score_structures(rows, question.task.candidate_molecule))
        else:
            score = score_pairs(cast(Scorer, scorer), rows, found.candidate, data.columns.precursor_mz, label=label)
    return checked(question, scorer.label, query, candidate, score)


def checked(question: Question, label: str, query: np.ndarray, candidate: np.ndarray, score: np.ndarray) -> Predictions:
    """Return scores as `Predictions`; ``query`` and ``candidate`` are places in the task, without repetition."""
    counts = prediction_counts(question.task, query, score)
    return Predictions(PredictionManifest(label, (), ()), query, candidate, score, counts)


def _best_of_pools(question: Question, scorer: Scorer | StructureScorer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert hasattr(scorer, "scores")
    found = question.found
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    with progress(f"{question.name}: {scorer.label}", len(found.queries), unit="queries") as advance:
        for pool in np.unique(found.pool_of_query):
            places = np.flatnonzero(found.pool == pool)
            places = places[np.argsort(question.task.candidate_molecule[places], kind="stable")]
            library = found.candidate[places]
            starts = np.flatnonzero(np.diff(question.task.candidate_molecule[places], prepend=-1))
            members = np.flatnonzero(found.pool_of_query == pool)
            for begin in range(0, len(members), QUERIES_PER_CHUNK):
                chunk = members[begin : begin + QUERIES_PER_CHUNK]
                scores = scorer.scores(found.queries[chunk], library)
                best = comparable(np.fmax.reduceat(scores, starts, axis=1))  # an abstention, NaN, is no maximum
                rows, columns = np.nonzero(_worth_keeping(best))
                kept = best[rows, columns]
                parts.append((chunk[rows], places[_first_with(kept, scores, rows, columns, starts)], kept))
                advance(len(chunk))
    query, candidate, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return query, candidate, score


def _first_with(
    value: np.ndarray, scores: np.ndarray, rows: np.ndarray, columns: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Return, for each kept (row, molecule), the first of the molecule's columns of ``scores`` that has ``value``."""
    stops = np.append(starts[1:], scores.shape[1])
    first = starts[columns]
    open_ = np.flatnonzero(comparable(scores[rows, first]) != value)
    while len(open_):  # as often as a molecule has spectra, for ever fewer
        first[open_] += 1
        assert (first[open_] < stops[columns[open_]]).all()
        open_ = open_[comparable(scores[rows[open_], first[open_]]) != value[open_]]
    return first


def _worth_keeping(scores: np.ndarray) -> np.ndarray:
    """Return which scores are above the last place that is kept, or tie with the first of their query."""
    last = scores.shape[1] - HITS_KEPT
    # Not the ties of the last place: they would be many for nothing.
    floor = np.partition(scores, last, axis=1)[:, last, None] if last > 0 else -np.inf
    kept: np.ndarray = ((scores > floor) | (scores == scores.max(axis=1, keepdims=True))) & ~np.isneginf(scores)
    return kept


def _digest(query_id: np.ndarray, found: Comparisons, candidate_id: np.ndarray) -> str:
    """Return a SHA-256 of who is compared with whom, whatever the numbers of the rows."""
    digest = hashlib.sha256()
    for values in (query_id, candidate_id):
        digest.update("\n".join(values).encode())
    for numbers in (found.pool_of_query, found.pool):
        digest.update(np.ascontiguousarray(numbers, np.int64).tobytes())
    return digest.hexdigest()

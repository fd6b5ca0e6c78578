"""Ranked lists of candidates in the form of MassSpecGym's own tools: written from predictions, read as predictions.

Their table of a test has a row for each spectrum: ``identifier``, ``sorted_candidate_smiles`` (the best first, as the
benchmark's file of candidates writes them) and ``sorted_scores`` (massspecgym 1.3, ``RetrievalMassSpecGymModel``;
Bushuiev et al. 2024, arXiv:2410.23326). They pickle it; here it is Parquet, since to read a pickle is to run it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InputError
from .candidates import Candidates
from .comparisons import Comparisons
from .dataset import EvaluationData
from .predictions import (
    Predictions,
    candidate_places,
    checked_manifest,
    prediction_counts,
    read_predictions,
)
from .structure_cache import structures_of
from .task_files import Task

logger = logging.getLogger("ionbed")

LISTED = "listed"
"""File of a task that was made from a benchmark's lists: its candidates as the lists write them."""

RANKED = "ranked-lists.parquet"
"""Name of the file that `ionbed score` writes."""

IDENTIFIER, CANDIDATES, SCORES = "identifier", "sorted_candidate_smiles", "sorted_scores"
LISTED_SCHEMA = pa.schema([("query_id", pa.string()), ("smiles", pa.string()), ("candidate_id", pa.string())])

LEAST_KNOWN = 0.5
"""Share of the candidates of a table that the lists of a task must hold: fewer are the lists of something else."""


def listed_candidates(data: EvaluationData, molecules: Candidates, found: Comparisons) -> pa.Table:
    """Return the lists of all queries as `LISTED_SCHEMA`, by query and SMILES; no id where RDKit cannot read it."""
    query_id: list[str] = []
    smiles: list[str] = []
    rows = [np.empty(0, np.int64)]
    for name, query in zip(data.spectrum_id[found.queries], found.queries, strict=True):
        listed = molecules.listed[int(data.molecule[query])]
        query_id += [name] * len(listed.smiles)
        smiles += listed.smiles
        rows.append(listed.row)
    row = np.concatenate(rows)
    ids = molecules.block[row]
    ids[row < 0] = None
    return pa.table([pa.array(query_id), pa.array(smiles), pa.array(ids, pa.string())], schema=LISTED_SCHEMA)


def read_answers(
    path: str | os.PathLike[str], task: Task, folder: str | os.PathLike[str], *, cache: Path | None = None
) -> Predictions:
    """Read predictions for ``task``: rows (query, candidate, score), or ranked lists of MassSpecGym's form.

    Parameters
    ----------
    folder : path
        Of the task, which must be made from a benchmark's lists for the second form.
    cache : Path or None
        Folder in which is kept what RDKit reads of SMILES that are written otherwise than in the task's lists.

    Raises
    ------
    InputError
        As of `read_predictions`; or the lists do not fit the task.
    """
    path = Path(path)
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise InputError(
            f"{path}: is a pickle, which can run anything as it is read; where you trust it, write it as Parquet: "
            f"python -c \"import pandas; pandas.read_pickle('{path.name}').to_parquet('{path.stem}.parquet')\""
        )
    if not _is_ranked_lists(path):
        return read_predictions(path, task)
    return _read_ranked_lists(path, task, Path(folder), cache)


def write_ranked_lists(path: Path, predictions: Predictions, task: Task, folder: str | os.PathLike[str]) -> None:
    """Write predictions for a task that was made from lists, every candidate of every query, the best first.

    Candidates without a score come last, with NaN. Of equal scores the order is that of the SMILES, which says nothing.

    Raises
    ------
    InputError
        The task was not made from lists.
    """
    listed = pq.read_table(require_lists(folder), schema=LISTED_SCHEMA)
    query = np.asarray(pc.index_in(listed["query_id"], value_set=task.query_id), np.int64)
    place = candidate_places(task, query, listed["candidate_id"])
    num_candidates = max(len(task.candidate_id), 1)
    keys = predictions.query * num_candidates + predictions.candidate
    order = np.argsort(keys, kind="stable")
    own = query * num_candidates + place
    at = np.minimum(np.searchsorted(keys[order], own), max(len(keys) - 1, 0))
    is_scored = (place >= 0) & (keys[order][at] == own) if len(keys) else np.zeros(len(own), bool)
    score = np.full(len(own), -np.inf)
    score[is_scored] = predictions.score[order][at[is_scored]]
    # The lists are in the order of their SMILES, and the sort keeps it where scores are equal.
    by_score = np.lexsort((-score, query))
    starts = np.append(np.flatnonzero(np.diff(query[by_score], prepend=-1)), len(query)).astype(np.int32)
    score = np.where(np.isneginf(score), np.nan, score)[by_score]
    table = pa.table(
        {
            IDENTIFIER: task.query_id.take(pa.array(query[by_score][starts[:-1]])),
            SCORES: pa.ListArray.from_arrays(starts, pa.array(score, pa.float64())),
            CANDIDATES: pa.ListArray.from_arrays(starts, listed["smiles"].combine_chunks().take(pa.array(by_score))),
        }
    )
    pq.write_table(table, path, compression="zstd")


def _is_ranked_lists(path: Path) -> bool:
    try:
        return {IDENTIFIER, CANDIDATES} <= set(pq.read_schema(path).names)
    except (OSError, pa.ArrowInvalid):
        return False  # and whoever reads it next says what is wrong


def require_lists(folder: str | os.PathLike[str]) -> Path:
    """Return the file of lists of a task; raises `InputError` where the task was not made from lists."""
    path = Path(folder) / f"{LISTED}.parquet"
    if not path.is_file():
        raise InputError(
            f"{folder}: was not made from a benchmark's lists of candidates; make the task with "
            "--set retrieval.by=lists --set retrieval.lists=FILE.json"
        )
    return path


def _read_ranked_lists(path: Path, task: Task, folder: Path, cache: Path | None) -> Predictions:
    manifest = checked_manifest(path, task)
    listed = pq.read_table(require_lists(folder), schema=LISTED_SCHEMA)
    identifier, query_of_row, smiles, score = _flattened(path, task)
    known = query_of_row >= 0
    if not known.any():
        raise InputError(
            f"{path}: none of its {len(identifier):,} spectra is asked about in {folder}; their identifiers must be "
            "those of the benchmark's table"
        )
    unique = pc.unique(smiles)
    code = np.asarray(pc.index_in(smiles, value_set=unique), np.int64)
    place = _listed_places(task, listed, query_of_row, code, unique)
    place = _places_by_structure(task, query_of_row, code, unique, place, cache)
    num_asked, num_unlisted = int(known.sum()), int(np.sum(place[known] == _UNLISTED))
    if num_asked - num_unlisted < LEAST_KNOWN * num_asked:
        raise InputError(
            f"{path}: {num_unlisted:,} of its {num_asked:,} candidates are not in the lists of their queries; name the "
            "task that was made from the lists that were ranked (mass or formula, 1.0 or 1.5)"
        )
    usable = place >= 0
    query, candidate, score = query_of_row[usable], place[usable], score[usable]
    # A molecule that is listed with several SMILES counts by the best of them.
    best = np.lexsort((-score, candidate, query))
    first = np.ones(len(best), bool)
    first[1:] = (np.diff(query[best]) != 0) | (np.diff(candidate[best]) != 0)
    best = best[first]
    query, candidate, score = query[best], candidate[best], score[best]
    counts = prediction_counts(task, query, score)
    num_left_out = len(identifier) - len(np.unique(query_of_row[known]))
    logger.info(
        "%s: %s of its %s spectra are asked about in the task; %s candidates are not in the lists of their queries",
        path,
        f"{len(identifier) - num_left_out:,}",
        f"{len(identifier):,}",
        f"{num_unlisted:,}",
    )
    return Predictions(manifest, query, candidate, score, counts)


_UNLISTED, _UNREADABLE = -1, -2


def _flattened(path: Path, task: Task) -> tuple[pa.Array, np.ndarray, pa.Array, np.ndarray]:
    """Return the identifiers, and for every candidate: its query (-1: not asked), SMILES, and score (-inf: none)."""
    table = pq.read_table(path).combine_chunks()
    identifier = _text(table, IDENTIFIER, path)
    counts = pc.value_counts(identifier)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise InputError(f"{path}: the identifier '{twice[0]['values'].as_py()}' is there twice; give each one list")
    lists = _lists(table, CANDIDATES, path)
    length = np.asarray(pc.list_value_length(lists).fill_null(0), np.int64)
    smiles = pc.list_flatten(lists).cast(pa.string())
    query = np.asarray(pc.index_in(identifier, value_set=task.query_id).fill_null(-1), np.int64)
    if SCORES not in table.column_names:
        logger.warning(
            "%s: has no column '%s': what ties cannot be known, and the order is taken at its word", path, SCORES
        )
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return identifier, np.repeat(query, length), smiles, -within.astype(np.float64)
    scores = _lists(table, SCORES, path)
    if len(wrong := np.flatnonzero(np.asarray(pc.list_value_length(scores).fill_null(0), np.int64) != length)):
        name = identifier[int(wrong[0])].as_py()
        raise InputError(f"{path}: '{name}' has not as many scores as candidates; give each candidate one, or NaN")
    try:
        score = np.asarray(pc.list_flatten(scores).cast(pa.float64()).fill_null(float("nan")), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(
            f"{path}: the column '{SCORES}' is {table[SCORES].type}; it must be lists of numbers"
        ) from None
    if len(infinite := np.flatnonzero(np.isposinf(score))):
        name = np.repeat(np.asarray(identifier), length)[int(infinite[0])]
        raise InputError(f"{path}: '{name}' has an infinite score; give numbers, or NaN where the tool abstains")
    return identifier, np.repeat(query, length), smiles, np.where(np.isnan(score), -np.inf, score)


def _text(table: pa.Table, name: str, path: Path) -> pa.Array:
    try:
        column = table[name].combine_chunks().cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(f"{path}: the column '{name}' is {table[name].type}; it must be text") from None
    array: pa.Array = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    return array


def _lists(table: pa.Table, name: str, path: Path) -> pa.Array:
    column = table[name].combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise InputError(f"{path}: the column '{name}' is {column.type}; it must be lists, the best candidate first")
    return column


def _listed_places(task: Task, listed: pa.Table, query: np.ndarray, code: np.ndarray, unique: pa.Array) -> np.ndarray:
    """Return the candidate of each (query, SMILES) as the lists have it, `_UNLISTED` or `_UNREADABLE`."""
    place = np.full(len(query), _UNLISTED)
    of_listed = np.asarray(pc.index_in(listed["smiles"], value_set=unique).fill_null(-1), np.int64)
    query_of_listed = np.asarray(pc.index_in(listed["query_id"], value_set=task.query_id), np.int64)
    named = of_listed >= 0
    if not named.any():
        return place
    keys = query_of_listed[named] * len(unique) + of_listed[named]
    found = candidate_places(task, query_of_listed[named], listed["candidate_id"].filter(pa.array(named)))
    found = np.where(found < 0, _UNREADABLE, found)
    order = np.argsort(keys, kind="stable")
    own = np.where(query < 0, -1, query * len(unique) + code)
    at = order[np.minimum(np.searchsorted(keys[order], own), len(keys) - 1)]
    return np.where(keys[at] == own, found[at], place)


def _places_by_structure(
    task: Task, query: np.ndarray, code: np.ndarray, unique: pa.Array, place: np.ndarray, cache: Path | None
) -> np.ndarray:
    """Return the candidates of SMILES that the lists write in another way, by what RDKit reads; else ``place``."""
    rows = np.flatnonzero((place == _UNLISTED) & (query >= 0))
    if not len(rows):
        return place
    codes, of_row = np.unique(code[rows], return_inverse=True)
    read = structures_of(unique.take(pa.array(codes)).to_pylist(), cache, label="structures that are written otherwise")
    ids = read["block"].combine_chunks()
    if task.smiles is not None:  # drawn in two ways, it may have two blocks and one structure
        drawn = pc.index_in(read["smiles"], value_set=pa.array(task.smiles, pa.string()))
        known = pc.is_in(ids, value_set=task.candidate_id)
        ids = pc.if_else(known, ids, pa.array(task.molecule, pa.string()).take(drawn.combine_chunks()))
    found = candidate_places(task, query[rows], ids.take(pa.array(of_row)))
    result = place.copy()
    result[rows] = found
    return result

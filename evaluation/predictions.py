"""The scores of any tool for a task, as a Parquet file with a manifest beside it, and the checks they must pass."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from ..configs.loading import load_config
from ..errors import InputError
from .task_files import Task

COLUMNS = ("query_id", "candidate_id", "score")
MANIFEST_ENDINGS = (".yaml", ".yml", ".json")
KNOWN = ("precursor_mz", "adduct", "formula", "collision_energy", "instrument", "retention_time", "truth")
"""What a tool may say that it was given beside the peaks; 'truth' marks a deliberate oracle."""


@dataclass(frozen=True)
class Corpus:
    """Data that a tool was trained on.

    Attributes
    ----------
    name : str
    split : str or None
        Hash of the split that was held to, as ``task.json`` names it; None where nothing was held out.
    folds : tuple of str
        Folds of that split that were trained on.
    """

    name: str
    split: str | None = None
    folds: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictionManifest:
    """What must be known of a tool before its numbers mean anything.

    Attributes
    ----------
    name : str
    known : tuple of str
        What the tool was given for each query beside the peaks; any of `KNOWN`.
    trained_on : tuple of Corpus
        Empty for a tool without training.
    version : str
    task : str or None
        Hash of the task that was answered; checked where given.
    scores : 'similarity' or 'probability'
        Only of probabilities can calibration be asked.
    """

    name: str
    known: tuple[str, ...]
    trained_on: tuple[Corpus, ...]
    version: str = ""
    task: str | None = None
    scores: Literal["similarity", "probability"] = "similarity"

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("'name' is empty; name the tool")
        if unknown := [word for word in self.known if word not in KNOWN]:
            raise ValueError(f"'known' holds '{unknown[0]}'; it may hold {', '.join(KNOWN)}")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Checked scores as numbers of the task.

    Attributes
    ----------
    manifest : PredictionManifest
    query, candidate : int64 arrays of shape (n,)
        Rows of the task's queries and candidates.
    score : float64 array of shape (n,)
        Minus infinity where the tool abstained (NaN or null).
    counts : dict of str to int
        Rows, rows without a score, queries without any score, candidates without a score.
    """

    manifest: PredictionManifest
    query: np.ndarray
    candidate: np.ndarray
    score: np.ndarray
    counts: dict[str, int]


def read_predictions(path: str | os.PathLike[str], task: Task) -> Predictions:
    """Read ``path`` and the manifest beside it, and match them to ``task``.

    The order of the rows has no influence. A candidate without a row, or whose score is NaN, is an abstention.

    Raises
    ------
    InputError
        A file or column is missing, the manifest names another task, a score is no finite number, an id is unknown,
        or a row is there twice.
    """
    path = Path(path)
    _require_parquet(path)
    manifest = checked_manifest(path, task)
    table = _read(path)
    query = pc.index_in(table["query_id"], value_set=task.query_id)
    _require_known(query, table, path, "query", "queries.parquet")
    wanted = pc.index_in(table["candidate_id"], value_set=pc.unique(task.candidate_id))
    _require_known(wanted, table, path, "candidate", "candidates.parquet")
    row_query = np.asarray(query, np.int64)
    candidate = candidate_places(task, row_query, table["candidate_id"])
    if len(outside := np.flatnonzero(candidate < 0)):
        row = int(outside[0])
        raise InputError(
            f"{path}: row {row:,}: '{table['candidate_id'][row]}' is not a candidate of the query "
            f"'{table['query_id'][row]}'; score only the candidates of the query's pool"
        )
    both = np.stack([row_query, candidate])
    by_key = np.lexsort(both)
    if len(twice := np.flatnonzero((np.diff(both[:, by_key], axis=1) == 0).all(axis=0))):
        row = int(by_key[twice[0]])
        raise InputError(
            f"{path}: the candidate '{table['candidate_id'][row]}' of the query '{table['query_id'][row]}' is there "
            "twice; give each one score"
        )
    score = _scores(table, path)
    return Predictions(manifest, row_query, candidate, score, prediction_counts(task, row_query, score))


def candidate_places(task: Task, query: np.ndarray, candidate_id: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the place of each candidate among those of ``task``; -1 where the query's pool does not hold it.

    Parameters
    ----------
    query : int64 array of shape (n,)
        Rows of the task's queries.
    candidate_id : pyarrow.Array of str, of shape (n,)
    """
    distinct = pc.unique(task.candidate_id)

    def keys(pool: np.ndarray, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """One number for each (pool, candidate id), by which a row finds its candidate; -1 for an unknown id."""
        code = np.asarray(pc.index_in(ids, value_set=distinct).fill_null(-1), np.int64)
        return np.where(code < 0, -1, pool * len(distinct) + code)

    known = keys(task.candidate_pool, task.candidate_id)
    order = np.argsort(known, kind="stable")
    own = keys(task.query_pool[query], candidate_id)
    if not len(known):
        return np.full(len(own), -1, np.int64)
    place = order[np.minimum(np.searchsorted(known[order], own), len(known) - 1)]
    return np.where(known[place] == own, place, -1)


def prediction_counts(task: Task, query: np.ndarray, score: np.ndarray) -> dict[str, int]:
    """Return how much of ``task`` the rows (query, score) of a tool answer; see `Predictions`.

    ``query`` and ``score`` have shape (n,).
    """
    scored = ~np.isneginf(score)
    num_candidates = np.bincount(task.candidate_pool, minlength=int(task.query_pool.max(initial=-1)) + 1)
    return {
        "rows": len(score),
        "rows without a score": int(np.sum(~scored)),
        "queries": len(task.query_id),
        "queries without any score": len(task.query_id) - len(np.unique(query[scored])),
        "candidates without a score": int(num_candidates[task.query_pool].sum() - np.sum(scored)),
    }


def checked_manifest(path: Path, task: Task) -> PredictionManifest:
    """Return the manifest beside ``path``; raises as `read_prediction_manifest`, and where it names another task."""
    manifest = read_prediction_manifest(path)
    if manifest.task is not None and manifest.task != task.hash:
        raise InputError(
            f"{path}: answers another task (its manifest says {manifest.task[:12]}, this task is {task.hash[:12]}); "
            "score it with its own task"
        )
    return manifest


def read_prediction_manifest(path: Path) -> PredictionManifest:
    """Return the manifest that lies beside the predictions ``path``, under the same name.

    Raises
    ------
    InputError
        There is none, there are two, or a key is missing, unknown or wrong.
    """
    found = [manifest for ending in MANIFEST_ENDINGS if (manifest := path.with_suffix(ending)).is_file()]
    if not found:
        raise InputError(
            f"{path}: has no manifest beside it; write {path.with_suffix('.yaml').name} with 'name: my tool', "
            "'known: [precursor_mz]' and 'trained_on: []' (docs/score.md)"
        )
    if len(found) > 1:
        raise InputError(f"{path}: has two manifests, {found[0].name} and {found[1].name}; keep one")
    return load_config(PredictionManifest, found[0])


def write_predictions(path: Path, table: pa.Table, manifest: PredictionManifest) -> None:
    """Write rows (query_id, candidate_id, score) and the manifest beside them, as `read_predictions` reads both."""
    pq.write_table(table.select(COLUMNS), path, compression="zstd")
    path.with_suffix(".yaml").write_text(yaml.safe_dump(_plain(manifest), sort_keys=False), encoding="utf-8")


def _plain(manifest: PredictionManifest) -> dict[str, Any]:
    tree = asdict(manifest)
    tree["known"] = list(manifest.known)
    tree["trained_on"] = [{**corpus, "folds": list(corpus["folds"])} for corpus in tree["trained_on"]]
    return tree


def _require_parquet(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; it should be Parquet with the columns {', '.join(COLUMNS)}")
    if path.suffix in MANIFEST_ENDINGS:
        raise InputError(f"{path}: is no Parquet file by its name; name the predictions, and the manifest beside them")


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path}: is not Parquet ({str(error).splitlines()[0][:100]}); write it with pyarrow"
        ) from None
    for name in COLUMNS:
        if name not in table.column_names:
            raise InputError(f"{path}: has no column '{name}'; it must hold {', '.join(COLUMNS)}")
    for name in COLUMNS[:2]:
        if table[name].null_count:
            raise InputError(f"{path}: the column '{name}' has empty values; every row needs its ids")
        try:
            column = table[name].cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError(f"{path}: the column '{name}' is {table[name].type}; it must be text") from None
        table = table.set_column(table.column_names.index(name), name, column.combine_chunks())
    return table


def _scores(table: pa.Table, path: Path) -> np.ndarray:
    column = table["score"]
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise InputError(f"{path}: the column 'score' is {kind}; it must be numbers (NaN where the tool abstains)")
    score = np.asarray(column.cast(pa.float64()).fill_null(float("nan")), np.float64)
    if len(infinite := np.flatnonzero(np.isinf(score))):
        raise InputError(
            f"{path}: row {int(infinite[0]):,}: the score is infinite; give a number, or NaN where the tool abstains"
        )
    return np.where(np.isnan(score), -np.inf, score)


def _require_known(rows: pa.ChunkedArray, table: pa.Table, path: Path, what: str, where: str) -> None:
    if rows.null_count:
        row = int(np.flatnonzero(np.asarray(pc.is_null(rows)))[0])
        value = table[f"{what}_id"][row].as_py()
        raise InputError(f"{path}: row {row:,}: unknown {what} '{value}'; take the ids from the task's {where}")

"""A task as a folder that any program can read: queries, candidates and truth as Parquet, and a hash over them all.

``task.json`` says what is asked. ``queries.parquet``, ``candidates.parquet``, ``molecules.parquet`` and
``spectra.parquet`` are for the tool; ``truth.parquet`` is for the one who scores it. docs/score.md lists the columns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..artifacts import sha256_of_file, sha256_of_json
from ..errors import InputError

TaskKind = Literal["library", "open", "analogue", "retrieval", "pairs"]
KINDS: tuple[TaskKind, ...] = get_args(TaskKind)

HEADER = "task.json"
HITS = (1, 5, 10, 20)
FORMAT = 1
"""Of the folder; a reader refuses what is newer."""

_TEXT = pa.string()
SCHEMAS = {
    "queries": pa.schema([("query_id", _TEXT), ("pool", _TEXT)]),
    "candidates": pa.schema([("pool", _TEXT), ("candidate_id", _TEXT), ("molecule", _TEXT)]),
    "molecules": pa.schema([("molecule", _TEXT), ("smiles", _TEXT), ("fingerprint", pa.binary())]),
    "truth": pa.schema([("spectrum_id", _TEXT), ("molecule", _TEXT)]),
}
"""Columns that must be there; ``queries`` has one more for each stratum, or ``truth`` where it gives something away."""


@dataclass(frozen=True, eq=False)
class Task:
    """A task in memory: ids, and whole numbers that stand for pools and molecules.

    Attributes
    ----------
    header : dict
        The content of ``task.json``.
    query_id : pyarrow.Array of str, of shape (n_queries,)
    query_pool, query_molecule : int64 arrays of shape (n_queries,)
        The candidates' pool and the true molecule of each query.
    candidate_id : pyarrow.Array of str, of shape (n_candidates,)
    candidate_pool, candidate_molecule : int64 arrays of shape (n_candidates,)
    molecule : object array of str, of shape (n_molecules,)
        Sorted.
    fingerprint : uint8 array of shape (n_molecules, n_bytes), or None
        Packed bits; None where the task has none (pairs).
    strata : dict of str to object array of shape (n_queries,)
    other_laboratory : bool array of shape (n_candidates,), or None
        Pairs only: whether both laboratories are known and differ.
    smiles : object array of str, of shape (n_molecules,), or None
        None where the task has none (pairs), or where a molecule has none.
    unit : int64 array of shape (n_molecules,), or None
        Group of molecules that is resampled as a whole (see `ionbed.evaluation.resampling`); None: each alone.
    """

    header: dict[str, Any]
    query_id: pa.Array = field(repr=False)
    query_pool: np.ndarray = field(repr=False)
    query_molecule: np.ndarray = field(repr=False)
    candidate_id: pa.Array = field(repr=False)
    candidate_pool: np.ndarray = field(repr=False)
    candidate_molecule: np.ndarray = field(repr=False)
    molecule: np.ndarray = field(repr=False)
    fingerprint: np.ndarray | None = field(repr=False)
    strata: dict[str, np.ndarray] = field(repr=False)
    other_laboratory: np.ndarray | None = field(repr=False, default=None)
    smiles: np.ndarray | None = field(repr=False, default=None)
    unit: np.ndarray | None = field(repr=False, default=None)

    @property
    def kind(self) -> TaskKind:
        """What is asked; one of `KINDS`."""
        kind: TaskKind = self.header["kind"]
        return kind

    @property
    def hash(self) -> str:
        """SHA-256 over the question and every file."""
        return str(self.header["hash"])

    @property
    def hits(self) -> tuple[int, ...]:
        """The k of hit@k."""
        return tuple(self.header["hits"])


def write_task(folder: Path, header: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Write a task folder and return its header with hashes.

    Parameters
    ----------
    folder : Path
        Exists.
    header : mapping
        Must hold ``kind``; ``hits`` and ``strata`` are filled in where they are missing.
    tables : mapping of file name without ending to table
        Those of `SCHEMAS`, and ``spectra``.
    """
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    files = {f"{name}.parquet": sha256_of_file(folder / f"{name}.parquet") for name in sorted(tables)}
    whole = {"format": FORMAT, "hits": list(HITS), "strata": [], "counts": {}, **header, "files": files}
    whole["hash"] = sha256_of_json(whole)
    (folder / HEADER).write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return whole


def load_task(folder: str | os.PathLike[str]) -> Task:
    """Read a task folder and check every byte of it against its hash.

    Raises
    ------
    InputError
        It is missing or damaged, was changed after it was made, or contradicts itself.
    """
    folder = Path(folder)
    header = _read_header(folder)
    tables = {name: _read_table(folder, name, schema) for name, schema in SCHEMAS.items()}
    queries, candidates, molecules, truth = (tables[name] for name in SCHEMAS)
    _require_unique(queries["query_id"], folder / "queries.parquet", "query")
    _require_unique(truth["spectrum_id"], folder / "truth.parquet", "spectrum")
    _require_unique(molecules["molecule"], folder / "molecules.parquet", "molecule")

    repeated = candidates.group_by(["pool", "candidate_id"]).aggregate([([], "count_all")])
    if len(repeated) < len(candidates):
        where = repeated.filter(pc.greater(repeated["count_all"], 1)).slice(0, 1).to_pylist()[0]
        raise InputError(
            f"{folder / 'candidates.parquet'}: the candidate '{where['candidate_id']}' is twice in the pool "
            f"'{where['pool']}'; make the task anew"
        )
    query_truth = _look_up(queries["query_id"], truth, folder, "query")
    if header["kind"] == "pairs":  # the candidates are spectra whose molecules are the answer
        candidate_truth = _look_up(candidates["candidate_id"], truth, folder, "candidate")
    else:
        candidate_truth = candidates["molecule"]
        if candidate_truth.null_count:
            raise InputError(f"{folder / 'candidates.parquet'}: a candidate has no molecule; make the task anew")
    blocks = np.unique(np.concatenate([_objects(query_truth), _objects(candidate_truth)]).astype(str))
    pools = pc.unique(candidates["pool"])
    query_pool = pc.index_in(queries["pool"], value_set=pools)
    # A pool that holds no candidates is allowed: its queries are abstentions of every tool.
    numbered = np.asarray(query_pool.fill_null(len(pools)), np.int64)
    return Task(
        header=header,
        query_id=_one_chunk(queries["query_id"]),
        query_pool=numbered,
        query_molecule=np.searchsorted(blocks, _objects(query_truth).astype(str)),
        candidate_id=_one_chunk(candidates["candidate_id"]),
        candidate_pool=np.asarray(pc.index_in(candidates["pool"], value_set=pools), np.int64),
        candidate_molecule=np.searchsorted(blocks, _objects(candidate_truth).astype(str)),
        molecule=blocks.astype(object),
        fingerprint=_fingerprints(blocks, molecules, folder),
        strata={name: _stratum(name, queries, truth, folder) for name in header["strata"]},
        other_laboratory=_other_laboratory(queries, candidates, truth) if header["kind"] == "pairs" else None,
        smiles=_smiles(blocks, molecules),
    )


def task_spectra(folder: str | os.PathLike[str]) -> pa.Table | None:
    """Return ``spectra.parquet`` of a task, what a tool is shown of queries and candidates; None where it has none.

    Raises
    ------
    InputError
        It cannot be read, or its ids are missing.
    """
    path = Path(folder) / "spectra.parquet"
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); get the task anew") from None
    ids = _column(table, "spectrum_id", path).cast(_TEXT)
    return table.set_column(table.column_names.index("spectrum_id"), "spectrum_id", ids)


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: is no task (it has no {HEADER}); 'ionbed task' makes one") from None
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({' '.join(str(error).split())[:100]}); get the task anew") from None
    if (
        not isinstance(header, dict)
        or not {"kind", "hits", "files", "hash", "format", "strata", "counts"} <= header.keys()
    ):
        raise InputError(f"{path}: is no header of a task; 'ionbed task' makes one")
    if header["format"] != FORMAT:
        raise InputError(f"{path}: is of format {header['format']}, this version reads {FORMAT}; update ionbed")
    if header["kind"] not in KINDS:
        raise InputError(f"{path}: the kind is '{header['kind']}'; it must be one of {', '.join(KINDS)}")
    if not all(type(k) is int and k > 0 for k in header["hits"]):
        raise InputError(f"{path}: 'hits' is {header['hits']}; it must hold whole numbers above 0")
    if sha256_of_json({key: value for key, value in header.items() if key != "hash"}) != header["hash"]:
        raise InputError(f"{path}: was changed after the task was made (its hash does not match); get the task anew")
    for name, stated in header["files"].items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: is missing; get the task anew")
        if sha256_of_file(folder / name) != stated:
            raise InputError(
                f"{folder / name}: was changed after the task was made (its hash does not match); get the task anew"
            )
    return header


def _read_table(folder: Path, name: str, schema: pa.Schema) -> pa.Table:
    path = folder / f"{name}.parquet"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); get the task anew") from None
    for field_ in schema:
        column = _column(table, field_.name, path)
        try:  # other programs write text as large_string or as a dictionary
            cast = column.cast(field_.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError(
                f"{path}: the column '{field_.name}' is {column.type}, not {field_.type}; make the task anew"
            ) from None
        table = table.set_column(table.column_names.index(field_.name), field_.name, cast)
    return table


def _column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InputError(f"{path}: has no column '{name}'; get the task anew")
    return table[name]


def _stratum(name: str, queries: pa.Table, truth: pa.Table, folder: Path) -> np.ndarray:
    """Return a stratum of the queries; what tells something of the answer stands beside it, in the truth."""
    if name in queries.column_names or name not in truth.column_names:
        return _objects(_column(queries, name, folder / "queries.parquet"))
    return _objects(truth[name].take(pc.index_in(queries["query_id"], value_set=truth["spectrum_id"])))


def _look_up(ids: pa.ChunkedArray, truth: pa.Table, folder: Path, what: str) -> pa.ChunkedArray:
    rows = pc.index_in(ids, value_set=truth["spectrum_id"])
    if rows.null_count:
        missing = ids.filter(pc.is_null(rows))[0].as_py()
        raise InputError(f"{folder / 'truth.parquet'}: has no row for the {what} '{missing}'; make the task anew")
    return truth["molecule"].take(rows)


def _fingerprints(blocks: np.ndarray, molecules: pa.Table, folder: Path) -> np.ndarray | None:
    if not len(molecules):
        return None
    rows = pc.index_in(pa.array(blocks.tolist(), _TEXT), value_set=molecules["molecule"])
    if rows.null_count:
        missing = blocks[np.asarray(pc.is_null(rows))][0]
        raise InputError(f"{folder / 'molecules.parquet'}: has no row for the molecule '{missing}'; make the task anew")
    packed = molecules["fingerprint"].take(rows).to_pylist()
    if len({len(value or b"") for value in packed}) > 1:
        raise InputError(f"{folder / 'molecules.parquet'}: the fingerprints differ in length; make the task anew")
    return np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), -1)


def _smiles(blocks: np.ndarray, molecules: pa.Table) -> np.ndarray | None:
    rows = pc.index_in(pa.array(blocks.tolist(), _TEXT), value_set=molecules["molecule"])
    smiles = molecules["smiles"].take(rows)
    return None if smiles.null_count or not len(smiles) else _objects(smiles)


def _require_unique(column: pa.ChunkedArray, path: Path, what: str) -> None:
    counts = pc.value_counts(column)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise InputError(f"{path}: the {what} '{twice[0]['values'].as_py()}' is there twice; make the task anew")


def _other_laboratory(queries: pa.Table, candidates: pa.Table, truth: pa.Table) -> np.ndarray | None:
    """Return whether the laboratories of both spectra of each pair are known and differ; None where none are named."""
    if "laboratory" not in truth.column_names:
        return None

    def laboratory(ids: pa.ChunkedArray) -> pa.ChunkedArray:
        return truth["laboratory"].take(pc.index_in(ids, value_set=truth["spectrum_id"]))

    first = laboratory(queries["query_id"]).take(pc.index_in(candidates["pool"], value_set=queries["pool"]))
    return np.asarray(pc.not_equal(first, laboratory(candidates["candidate_id"])).fill_null(False), bool)


def _objects(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), object)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    chunk = column.combine_chunks()
    return pa.concat_arrays(chunk.chunks) if isinstance(chunk, pa.ChunkedArray) else chunk

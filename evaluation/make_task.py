"""`ionbed task`: write a task of the evaluation as a folder that any program can answer."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifacts import atomic_folder, refuse_existing, refuse_input_as_output, write_manifest
from ..configs.loading import to_tree
from ..errors import InputError
from ..spectra.split import MOLECULES, Split
from ..spectra.store import Store
from .candidates import Candidates
from .comparisons import Comparisons
from .dataset import EvaluationData, load_evaluation_data
from .draws import question_of
from .entries import Entry
from .judged import CHANCE
from .predictions import PredictionManifest, Predictions, write_predictions
from .provenance import exposure, training_stages
from .query_properties import nearest_train_tanimoto
from .question import Question, answer, ask, can_answer
from .ranked_lists import LISTED, listed_candidates
from .rows import table_rows
from .run import EvaluationConfig, load_models, question_molecules, require_files
from .strata import TRUTH_STRATA
from .task_files import SCHEMAS, TaskKind, write_task

logger = logging.getLogger("ionbed")

BASELINES = "baselines"
SPECTRUM_COLUMNS = [
    "spectrum_id", "precursor_mz", "polarity", "charge", "adduct", "collision_energy", "instrument_type", "mz",
    "intensity",
]  # fmt: skip
"""Of the store, that a task shows to the tool: nothing that names the molecule or the laboratory."""


def make_task(
    config: EvaluationConfig,
    kind: TaskKind,
    out: str | os.PathLike[str],
    *,
    baselines: bool = False,
    only: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a task folder from the store and split of an evaluation, and return its header.

    Parameters
    ----------
    config : EvaluationConfig
        The queries and candidates are those of ``ionbed evaluate``: of 'pairs' those of 'same molecule', of 'retrieval'
        those that ``config.retrieval.by`` names.
    baselines : bool
        Also write the scores of all rows of ``ionbed evaluate`` but chance as predictions, into ``baselines``; of
        several trainings those of the first.
    only : sequence of str
        Labels of the rows whose scores are written; all where it is empty.

    Raises
    ------
    InputError
        ``out`` is taken, an input is missing or unusable, the task would be empty, or baselines are asked for that
        cannot be had.
    """
    refuse_existing(out, overwrite=overwrite)
    refuse_input_as_output(out, *config.inputs())
    name = question_of(kind, config.retrieval.by)
    require_files(config, [name])
    split = Split.load(config.split)
    if kind == "analogue" and MOLECULES in split.shares:
        raise InputError(
            f"{config.split}: its folds share molecules, and an analogue search asks for molecules that the library "
            "does not hold; make a split that shares none (docs/splits.md)"
        )
    data = load_evaluation_data(Store(config.dataset), split)
    molecules = question_molecules(data, config, [name])
    nearest_train = nearest_train_tanimoto(data, molecules.fingerprint)
    question = ask(name, data, molecules, config, nearest_train)
    if question is None:
        raise InputError(f"{config.dataset}: nothing to ask of this kind in the fold '{config.fold}'; use more spectra")
    found, strata = question.found, question.task.strata
    num_candidates = len(np.unique(found.candidate)) if kind == "retrieval" else 0
    rows = _only(_rows(data, molecules, split, config, num_candidates), kind, only) if baselines else []
    header = {
        "kind": kind,
        "fold": config.fold,
        "split": {"kind": split.kind, "seed": split.seed, "hash": split.hash, "shares": list(split.shares)},
        "seed": config.seed,
        **_window(kind, config),
        "license": _licenses(data, found, kind),
        "counts": found.counts,
        "strata": list(strata),
    }
    with atomic_folder(out, overwrite=overwrite) as folder:
        tables = task_tables(data, molecules, found, kind, strata)
        if kind == "retrieval" and config.retrieval.by == "lists":
            tables[LISTED] = listed_candidates(data, molecules, found)
        whole = write_task(folder, header, tables)
        if baselines:
            _write_baselines(folder / BASELINES, question, data, molecules, rows, whole["hash"])
        write_manifest(folder, {"command": "task", "config": to_tree(config), "task": whole})
    return whole


def _window(kind: TaskKind, config: EvaluationConfig) -> dict[str, Any]:
    """Return what the candidates of a query have in common with it, as the header says it."""
    if kind == "retrieval":
        window = config.retrieval.precursor_ppm if config.retrieval.by == "mass" else None
        return {"by": config.retrieval.by, "precursor_ppm": window}
    if kind == "pairs":
        return {"precursor_ppm": config.same_molecule.precursor_ppm}
    return {"precursor_ppm": None if kind == "analogue" else config.library_search.precursor_ppm}


def task_tables(
    data: EvaluationData,
    molecules: Candidates,
    found: Comparisons,
    kind: TaskKind,
    strata: Mapping[str, np.ndarray],
) -> dict[str, pa.Table]:
    """Return the tables of a task folder, by file name; ``strata`` are those of the queries (see `query_strata`)."""
    candidate_molecule = found.candidate if kind == "retrieval" else data.molecule[found.candidate]
    blocks = molecules.block
    candidate_id = blocks[found.candidate] if kind == "retrieval" else data.spectrum_id[found.candidate]
    queries = {
        "query_id": data.spectrum_id[found.queries],
        "pool": _pool_names(found),
        **{name: labels for name, labels in strata.items() if name not in TRUTH_STRATA},
    }
    names = np.empty(int(found.pool_of_query.max()) + 1, object)
    names[found.pool_of_query] = queries["pool"]
    # Sorted by id: the place of a candidate says nothing.
    order = np.lexsort((candidate_id.astype(str), names[found.pool].astype(str)))
    candidates = {
        "pool": names[found.pool][order],
        "candidate_id": candidate_id[order],
        "molecule": [None] * len(order) if kind == "pairs" else blocks[candidate_molecule[order]],
    }
    spectra = found.queries if kind == "retrieval" else np.union1d(found.queries, found.candidate)
    spectra = spectra[np.argsort(data.spectrum_id[spectra].astype(str), kind="stable")]
    answered = spectra if kind == "pairs" else np.sort(found.queries)
    tables = {
        "queries": queries,
        "candidates": candidates,
        "truth": {
            "spectrum_id": data.spectrum_id[answered],
            "molecule": blocks[data.molecule[answered]],
            **_of_rows({name: strata[name] for name in TRUTH_STRATA if name in strata}, found.queries, answered),
            # Of both spectra of a pair: pairs of one laboratory are more often of one molecule.
            "laboratory": np.array(data.table["laboratory"].to_pylist(), object)[answered],
        },
        "molecules": {"molecule": [], "smiles": [], "fingerprint": []},
    }
    if kind != "pairs":
        rows = np.union1d(data.molecule[found.queries], candidate_molecule)
        tables["molecules"] = {
            "molecule": blocks[rows],
            "smiles": molecules.smiles[rows],
            "fingerprint": [bits.tobytes() for bits in molecules.fingerprint[rows]],
        }
    return {
        **{
            name: pa.table({column: pa.array(values, _column_type(name, column)) for column, values in columns.items()})
            for name, columns in tables.items()
        },
        "spectra": data.table.take(pa.array(spectra)).select(SPECTRUM_COLUMNS),
    }


def prediction_table(question: Question, predictions: Predictions) -> pa.Table:
    """Return scores as rows (query_id, candidate_id, score)."""
    score = predictions.score
    return pa.table(
        {
            "query_id": question.task.query_id.take(pa.array(predictions.query)),
            "candidate_id": question.task.candidate_id.take(pa.array(predictions.candidate)),
            "score": np.where(np.isneginf(score), np.nan, score),
        }
    )


def _write_baselines(
    folder: Path, question: Question, data: EvaluationData, molecules: Candidates, rows: Sequence[Entry], task_hash: str
) -> None:
    """Write the scores of every row that can answer; of several trainings the first."""
    folder.mkdir()
    spectra = question.found.queries if question.kind == "retrieval" else question.found.candidate
    needed = np.union1d(question.found.queries, spectra)
    for entry in rows:
        scorer = entry.builds[0](data, molecules, needed)
        if can_answer(question.kind, scorer):
            manifest = PredictionManifest(entry.label, entry.known, entry.trained_on, task=task_hash)
            table = prediction_table(question, answer(question, data, scorer))
            write_predictions(_free_name(folder, entry.label), table, manifest)


def _only(rows: Sequence[Entry], kind: TaskKind, labels: Sequence[str]) -> list[Entry]:
    """Return the rows that answer questions of ``kind``, those of ``labels`` where there are any."""
    found = [entry for entry in rows if kind in entry.kinds and entry.label != CHANCE]
    known = [entry.label for entry in found]
    if unknown := [label for label in labels if label not in known]:
        raise InputError(
            f"--only {unknown[0]}: no row of this kind of task has that label; there are {', '.join(known)}"
        )
    return [entry for entry in found if not labels or entry.label in labels]


def _free_name(folder: Path, label: str) -> Path:
    """Return the file for the scores of a row; 'a b' and 'a/b' are two rows."""
    stem = re.sub(r"[^\w.-]+", "-", label)
    names = (f"{stem}.parquet" if number == 1 else f"{stem}-{number}.parquet" for number in itertools.count(1))
    return next(folder / name for name in names if not (folder / name).exists())


def _rows(
    data: EvaluationData, molecules: Candidates, split: Split, config: EvaluationConfig, num_candidates: int
) -> list[Entry]:
    # One training of each network and model, as one is written.
    networks = replace(config.trained_baselines, trainings=min(config.trained_baselines.trainings, 1))
    firsts: dict[str, str | tuple[str, ...]] = {label: config.sources(label)[0] for label in config.models}
    config = replace(config, trained_baselines=networks, models=firsts)
    models = load_models(config)
    exposed = {label: exposure(training_stages(of[0]), split, config.fold) for label, of in models.items()}
    return table_rows(data, molecules, models, exposed, config, split_hash=split.hash, num_candidates=num_candidates)


def _of_rows(columns: Mapping[str, np.ndarray], queries: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return columns of the queries as columns of ``rows``; None in a row that is no query."""
    place = {row: number for number, row in enumerate(queries.tolist())}
    found = {name: np.full(len(rows), None, object) for name in columns}
    for number, row in enumerate(rows.tolist()):
        if row in place:
            for name, labels in columns.items():
                found[name][number] = labels[place[row]]
    return found


def _pool_names(found: Comparisons) -> np.ndarray:
    return np.array([f"pool-{number:06d}" for number in found.pool_of_query], object)


def _licenses(data: EvaluationData, found: Comparisons, kind: TaskKind) -> dict[str, int]:
    """Return how many of the spectra in the task stand under each licence."""
    rows = found.queries if kind == "retrieval" else np.union1d(found.queries, found.candidate)
    names, counts = np.unique(
        [value or "not stated" for value in data.table["license"].take(pa.array(rows)).to_pylist()],
        return_counts=True,
    )
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _column_type(name: str, column: str) -> pa.DataType:
    schema = SCHEMAS[name]
    return schema.field(column).type if column in schema.names else pa.string()

"""`ionbed task`: write a task of the evaluation as a folder that any program can answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifacts import atomic_folder, refuse_existing, refuse_input_as_output, write_manifest
from ..configs.loading import to_tree
from ..errors import InputError
from ..spectra.split import MOLECULES, Split
from ..spectra.store import Store
from .baselines.lookups import lookup_scorers, require_lookups
from .comparisons import COMPARISONS, Comparisons, other_laboratory
from .dataset import EvaluationData, load_evaluation_data
from .metrics import comparable
from .predictions import Corpus, PredictionManifest, write_predictions
from .provenance import training_stages
from .run import EvaluationConfig
from .scorers import Learned, PrecursorOnly, Scorer, rows_needed, score_pairs
from .strata import query_strata
from .task_files import SCHEMAS, TaskKind, write_task

logger = logging.getLogger("ionbed")

BASELINES = "baselines"
HITS_KEPT = 50
"""Candidates per query that are written for an analogue search, beside all that tie with the first."""
QUERIES_PER_CHUNK = 64
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
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a task folder from the store and split of an evaluation, and return its header.

    Parameters
    ----------
    config : EvaluationConfig
        The queries and candidates of 'library', 'analogue' and 'pairs' are those of ``ionbed evaluate``. 'open' takes
        the true molecule away from the candidates of every second molecule's queries. 'retrieval' has structures as
        candidates: the molecules of the store whose mass is that of the query's molecule, within the window of the
        library search.
    baselines : bool
        Also write the scores of the look-ups, and of the models of ``config``, as predictions, into ``baselines``.

    Raises
    ------
    InputError
        ``out`` is taken, an input is missing or unusable, the task would be empty, or baselines are asked for that
        cannot be had.
    """
    refuse_existing(out, overwrite=overwrite)
    refuse_input_as_output(out, config.dataset, config.split)
    if baselines and kind == "retrieval":
        raise InputError(
            "the look-ups compare spectra, and the candidates of 'retrieval' are structures; leave out --baselines"
        )
    if baselines:
        require_lookups()
    split = Split.load(config.split)
    if kind == "analogue" and MOLECULES in split.shares:
        raise InputError(
            f"{config.split}: its folds share molecules, and an analogue search asks for molecules that the library "
            "does not hold; make a split that shares none (docs/splits.md)"
        )
    data = load_evaluation_data(Store(config.dataset), split)
    found = COMPARISONS[kind](data, config)
    if not len(found.queries):
        raise InputError(f"{config.dataset}: nothing to ask of this kind in the fold '{config.fold}'; use more spectra")
    header = {
        "kind": kind,
        "fold": config.fold,
        "split": {"kind": split.kind, "seed": split.seed, "hash": split.hash, "shares": list(split.shares)},
        "seed": config.seed,
        "precursor_ppm": config.library_search.precursor_ppm,
        "license": _licenses(data, found, kind),
        "counts": found.counts,
        "strata": [] if kind == "pairs" else list(query_strata(data, found, kind)),
    }
    with atomic_folder(out, overwrite=overwrite) as folder:
        whole = write_task(folder, header, task_tables(data, found, kind))
        if baselines:
            (folder / BASELINES).mkdir()
            for scorer, manifest in _baselines(data, found, config, whole["hash"]):
                name = scorer.label.replace(" ", "-").replace("/", "-")
                write_predictions(folder / BASELINES / f"{name}.parquet", predict(data, found, kind, scorer), manifest)
        write_manifest(folder, {"command": "task", "config": to_tree(config), "task": whole})
    return whole


def task_tables(data: EvaluationData, found: Comparisons, kind: TaskKind) -> dict[str, pa.Table]:
    """Return the tables of a task folder, by file name."""
    candidate_molecule = found.candidate if kind == "retrieval" else data.molecule[found.candidate]
    candidate_id = data.inchikey_block[found.candidate] if kind == "retrieval" else data.spectrum_id[found.candidate]
    blocks = data.inchikey_block.astype(object)
    queries = {
        "query_id": data.spectrum_id[found.queries],
        "pool": _pool_names(found),
        **({} if kind == "pairs" else query_strata(data, found, kind)),
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
    if kind == "pairs":
        owner = found.queries[np.argsort(found.pool_of_query)]
        candidates["other_laboratory"] = other_laboratory(data, owner[found.pool], found.candidate)[order]
    spectra = found.queries if kind == "retrieval" else np.union1d(found.queries, found.candidate)
    spectra = spectra[np.argsort(data.spectrum_id[spectra].astype(str), kind="stable")]
    answered = spectra if kind == "pairs" else np.sort(found.queries)
    tables = {
        "queries": queries,
        "candidates": candidates,
        "truth": {"spectrum_id": data.spectrum_id[answered], "molecule": blocks[data.molecule[answered]]},
        "molecules": {"molecule": [], "smiles": [], "fingerprint": []},
    }
    if kind != "pairs":
        molecules = np.union1d(data.molecule[found.queries], candidate_molecule)
        tables["molecules"] = _molecule_columns(data, molecules)
    return {
        **{
            name: pa.table({column: pa.array(values, _column_type(name, column)) for column, values in columns.items()})
            for name, columns in tables.items()
        },
        "spectra": data.table.take(pa.array(spectra)).select(SPECTRUM_COLUMNS),
    }


def predict(data: EvaluationData, found: Comparisons, kind: TaskKind, scorer: Scorer) -> pa.Table:
    """Return the scores of one of our own scorers as rows (query_id, candidate_id, score); for all but retrieval.

    Of an analogue search only the best `HITS_KEPT` of each query are kept, with all that tie with the first.
    """
    if kind == "analogue":
        query, candidate, score = _best_of_pools(data, found, scorer)
    else:
        owner = np.empty(int(found.pool_of_query.max()) + 1, np.int64)
        owner[found.pool_of_query] = found.queries
        query, candidate = owner[found.pool], found.candidate
        score = score_pairs(scorer, query, candidate, data.columns.precursor_mz, label=f"{kind}: {scorer.label}")
    return pa.table(
        {
            "query_id": pa.array(data.spectrum_id[query], pa.string()),
            "candidate_id": pa.array(data.spectrum_id[candidate], pa.string()),
            "score": np.where(np.isneginf(score), np.nan, score),
        }
    )


def _best_of_pools(
    data: EvaluationData, found: Comparisons, scorer: Scorer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for pool in np.unique(found.pool_of_query):
        library = found.candidate[found.pool == pool]
        queries = found.queries[found.pool_of_query == pool]
        for begin in range(0, len(queries), QUERIES_PER_CHUNK):
            chunk = queries[begin : begin + QUERIES_PER_CHUNK]
            scores = comparable(scorer.scores(chunk, library))
            last = len(library) - HITS_KEPT
            floor = np.partition(scores, last, axis=1)[:, last, None] if last > 0 else -np.inf
            # Above the last place, or tied with the first; and the ties of the last place would be many for nothing.
            kept = ((scores > floor) | (scores == scores.max(axis=1, keepdims=True))) & ~np.isneginf(scores)
            rows, columns = np.nonzero(kept)
            parts.append((chunk[rows], library[columns], scores[rows, columns]))
    query, candidate, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return query, candidate, score


def _baselines(
    data: EvaluationData, found: Comparisons, config: EvaluationConfig, task_hash: str
) -> Sequence[tuple[Scorer, PredictionManifest]]:
    from ..encoder.loading import load_model

    scorers: list[Scorer] = [PrecursorOnly(data.columns), *lookup_scorers(data.columns, config.lookups)]
    rows = [(scorer, PredictionManifest(scorer.label, ("precursor_mz",), (), task=task_hash)) for scorer in scorers]
    labels = {scorer.label for scorer in scorers}
    needed = rows_needed([found.queries, found.candidate])
    for label, source in config.models.items():
        if label in labels:
            raise InputError(f"models: '{label}' is the label of a row that is always there; choose another")
        model = load_model(source)
        logger.info("embedding %s spectra with '%s'", f"{len(needed):,}", label)
        stages = training_stages(model) or [{"command": "of unknown origin"}]
        corpora = tuple(
            Corpus(str(stage.get("command", "training")), stage.get("split"), tuple(stage.get("folds") or ()))
            for stage in stages
        )
        manifest = PredictionManifest(label, ("precursor_mz",), corpora, task=task_hash)
        rows.append((Learned(label, model, data.columns, needed), manifest))
    return rows


def _pool_names(found: Comparisons) -> np.ndarray:
    return np.array([f"pool-{number:06d}" for number in found.pool_of_query], object)


def _molecule_columns(data: EvaluationData, molecules: np.ndarray) -> dict[str, Any]:
    from rdkit import Chem, rdBase

    from ..spectra.molecules import morgan_fingerprints

    smiles = list(data.smiles[molecules])
    packed = np.packbits(morgan_fingerprints(smiles, radius=2, bits=2048), axis=1)
    with rdBase.BlockLogs():
        # Written by one program and without stereochemistry: the style of a SMILES must not tell where it is from.
        flat = [Chem.MolToSmiles(Chem.MolFromSmiles(text), isomericSmiles=False) for text in smiles]
    return {
        "molecule": data.inchikey_block[molecules].astype(object),
        "smiles": flat,
        "fingerprint": [row.tobytes() for row in packed],
    }


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
    if column == "other_laboratory":
        return pa.bool_()
    return schema.field(column).type if column in schema.names else pa.string()

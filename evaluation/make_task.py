"""`ionbed task`: write a task of the evaluation as a folder that any program can answer."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifacts import atomic_folder, refuse_existing, refuse_input_as_output, write_manifest
from ..configs.loading import to_tree
from ..errors import InputError
from ..spectra.split import MOLECULES, Split
from ..spectra.store import Store
from .baselines.lookups import lookup_scorers, require_lookups
from .dataset import EvaluationData, load_evaluation_data
from .metrics import comparable
from .predictions import Corpus, PredictionManifest, write_predictions
from .provenance import training_stages
from .run import EvaluationConfig
from .scorers import Learned, PrecursorOnly, Scorer, rows_needed, score_pairs
from .task_files import SCHEMAS, TaskKind, write_task
from .tasks import (
    LibrarySearchTask,
    analogue_search_task,
    draw_per_molecule,
    library_search_task,
    same_molecule_task,
)

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

ENERGY_EDGES, MZ_EDGES, PEAK_EDGES = (10.0, 20.0, 30.0, 40.0, 60.0), (200.0, 300.0, 400.0, 600.0), (5, 10, 20, 50)
POOL_EDGES = (2, 5, 10, 20, 50, 100)


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
    found = _COMPARISONS[kind](data, config)
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
        "strata": [] if kind == "pairs" else list(_strata(data, found, kind)),
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
        **({} if kind == "pairs" else _strata(data, found, kind)),
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


_COMPARISONS: Mapping[TaskKind, Callable[[EvaluationData, EvaluationConfig], Comparisons]] = {
    "library": _library,
    "open": _open,
    "analogue": _analogue,
    "retrieval": _retrieval,
    "pairs": _pairs,
}


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


def _strata(data: EvaluationData, found: Comparisons, kind: TaskKind) -> dict[str, np.ndarray]:
    """Return what the queries are told apart by; object arrays of str or None, of shape (n_queries,)."""
    columns = data.columns
    rows = found.queries
    molecule = found.candidate if kind == "retrieval" else data.molecule[found.candidate]
    distinct = np.unique(np.stack([found.pool, molecule]), axis=1)[0]
    size = np.bincount(distinct, minlength=int(found.pool_of_query.max()) + 1)[found.pool_of_query]
    polarity = np.where(columns.polarity[rows] > 0, "positive", "negative")
    return {
        "polarity": polarity.astype(object),
        "adduct": columns.adduct[rows],
        "instrument_type": columns.instrument_type[rows],
        "collision_energy": binned(columns.collision_energy[rows], ENERGY_EDGES, "eV"),
        "precursor_mz": binned(columns.precursor_mz[rows], MZ_EDGES, "Da"),
        "num_peaks": binned(columns.num_peaks[rows], PEAK_EDGES, "peaks"),
        "pool_size": binned(size, POOL_EDGES, "molecules"),
    }


def binned(values: np.ndarray, edges: Sequence[float], unit: str) -> np.ndarray:
    """Return the range that each value is in, as text ('20 to 30 eV', its lower end included); None for NaN."""
    labels = [
        f"below {edges[0]:g} {unit}",
        *(f"{low:g} to {high:g} {unit}" for low, high in itertools.pairwise(edges)),
        f"{edges[-1]:g} {unit} and more",
    ]
    values = np.asarray(values, np.float64)
    place = np.searchsorted(np.asarray(edges, np.float64), values, side="right")
    found = np.array(labels, object)[place]
    found[np.isnan(values)] = None
    return found


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

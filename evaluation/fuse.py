"""`ionbed fuse`: fit how a model's cosine is fused with look-ups, on molecules that the model was not trained with."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import atomic_folder, refuse_existing, refuse_input_as_output, write_manifest
from ..embeddings.fused_search import highest, pairs_of
from ..embeddings.fusion import EMBEDDING_COSINE, OPEN_TERMS, WINDOW_TERMS, Fusion, term_columns
from ..encoder.loading import load_model
from ..errors import InputError
from ..progress import progress
from ..spectra.lookups import LookupOptions, require_lookups
from ..spectra.pair_features import FEATURES, ComparedSpectra
from ..spectra.split import MOLECULES, Split
from ..spectra.store import Store
from .candidates import candidate_molecules
from .dataset import EvaluationData, load_evaluation_data
from .fusion_fit import FitPairs, best_targets, cross_validated, fit_probability, fit_ranking
from .metrics import comparable, roc_auc
from .outcomes import tanimoto_pairs
from .provenance import check_exposure
from .scorers import Embedder, Encoder
from .tasks import AnalogueSearchOptions, SameMoleculeOptions, analogue_search_task, same_molecule_task

logger = logging.getLogger("ionbed")

FOLD = "validation"
"""Whose molecules are the queries: held out from training, and not those that an evaluation asks about."""

LEAST_MOLECULES = 20
"""Fewer say nothing of a dozen weights."""

SINGLE = (EMBEDDING_COSINE, *FEATURES[:4])
"""Scores that stand beside the fused one: the cosine and the look-ups."""

QUERIES_PER_CHUNK = 64


@dataclass(frozen=True)
class FuseOptions:
    """How a fusion is fitted.

    Attributes
    ----------
    depth : int
        Candidates of each query of the open search that are compared: the best by the cosine and by hybrid entropy.
    ridge : float
        Penalty on the squared weights of standardised terms.
    folds : int
        Of the cross-validation that says what the fit gives.
    allow_other_split : bool
        Whether to go on with a model that may have been trained with the molecules of the validation fold.
    cache : Path or None
        Folder in which fingerprints are kept.
    workers : int or None
        Threads and processes; all cores where None.
    seed : int
        Of the draws of pairs, of queries, and of the parts of the cross-validation.
    """

    depth: int = 200
    ridge: float = 1e-3
    folds: int = 5
    allow_other_split: bool = False
    cache: Path | None = None
    workers: int | None = None
    seed: int = 0
    lookups: LookupOptions = field(default_factory=LookupOptions)

    def __post_init__(self) -> None:
        if self.depth < 1 or self.folds < 2 or self.ridge < 0:
            raise ValueError(f"depth ({self.depth}), folds ({self.folds}) and ridge ({self.ridge}) must be at least 1, "
                             "2 and 0")  # fmt: skip


def fuse(
    model: str | os.PathLike[str] | None,
    store: str | os.PathLike[str],
    split: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: FuseOptions = FuseOptions(),
    *,
    overwrite: bool = False,
) -> Fusion:
    """Fit the fused score of a model and write the model with it, as a folder.

    Embeddings and the model's hash stay what they were.

    Parameters
    ----------
    model : path or hub id, or None
        None for the checkpoint that ships with the package.
    store, split : path
        The split is the one that the model was trained with; its fold 'validation' holds the queries.
    out : path

    Raises
    ------
    InputError
        ``out`` is taken, an input is missing or unusable, the model may have been trained with the molecules of the
        fold, or the fold holds too little.
    """
    refuse_existing(out, overwrite=overwrite)
    refuse_input_as_output(out, store, split, *([] if model is None else [model]))
    require_lookups()
    folds = Split.load(split)
    if MOLECULES in folds.shares:
        raise InputError(f"{split}: its folds share molecules; make a split that shares none (docs/splits.md)")
    encoder = load_model(model)
    check_exposure("model", str(model or "default"), encoder, folds, FOLD, allow=options.allow_other_split)
    shelf = Store(store)
    data = load_evaluation_data(shelf, folds)
    num_molecules = len(np.unique(data.molecule[data.rows_in(FOLD)]))
    if num_molecules < LEAST_MOLECULES:
        raise InputError(
            f"{split}: its fold '{FOLD}' holds {num_molecules} molecules of {store}; at least {LEAST_MOLECULES} are "
            "needed to fit a fused score: make a split with a larger one"
        )
    window, open_, figures = fit(data, encoder, options)
    fusion = Fusion(
        encoder.model_hash(),
        options.lookups,
        window,
        open_,
        {
            "store": [shard["sha256"] for shard in shelf.manifest["shards"]],
            "split": folds.hash,
            "fold": FOLD,
            "molecules": num_molecules,
            "seed": options.seed,
            **figures,
        },
    )
    encoder.config.fusion = fusion.to_tree()
    with atomic_folder(out, overwrite=overwrite) as folder:
        encoder.save_pretrained(folder)
        write_manifest(folder, {"command": "fuse", "model": str(model or "default"), "fusion": fusion.to_tree()})
    for question, found in figures.items():
        logger.info("%s", _in_words(question, found))
        best = max(found["scores"][name] for name in SINGLE[1:])
        if found["fused"] < best:
            logger.warning("%s: the fused score falls under the best look-up; search without it", question)
    return fusion


def fit(data: EvaluationData, encoder: Encoder, options: FuseOptions) -> tuple[Any, Any, dict[str, Any]]:
    """Return the score within a window, that of an open search, and what they give in cross-validation.

    Raises
    ------
    InputError
        The fold holds no pairs of both kinds, or no query of an open search.
    """
    embedder = Embedder("model", encoder)
    pairs, singles = _window_pairs(data, embedder, options)
    window = fit_probability(pairs, options.ridge)
    scores = cross_validated(pairs, fit_probability, options.ridge, options.folds, options.seed)
    positive = pairs.target > 0.5
    figures: dict[str, Any] = {
        "same molecule": {
            "metric": "ROC AUC",
            "pairs": len(positive),
            "pairs of one molecule": int(positive.sum()),
            "fused": roc_auc(comparable(scores), positive),
            "scores": {name: roc_auc(comparable(values), positive) for name, values in singles.items()},
        }
    }
    pairs, singles = _open_pairs(data, embedder, options)
    try:
        open_ = fit_ranking(pairs, options.ridge)
        scores = cross_validated(pairs, fit_ranking, options.ridge, options.folds, options.seed)
    except ValueError as error:
        raise InputError(
            f"the open search cannot be fitted: {error}; train the model longer, or use more spectra"
        ) from None
    figures["analogue search"] = {
        "metric": "Tanimoto@1",
        "queries": len(np.unique(pairs.query)),
        "fused": float(best_targets(comparable(scores), pairs).mean()),
        "scores": {name: float(best_targets(comparable(values), pairs).mean()) for name, values in singles.items()},
    }
    return window, open_, figures


def _window_pairs(
    data: EvaluationData, embedder: Embedder, options: FuseOptions
) -> tuple[FitPairs, dict[str, np.ndarray]]:
    """Return the pairs of the task 'same molecule, any partner' of the fold, and what single scores say of them."""
    task = same_molecule_task(data, FOLD, SameMoleculeOptions(), seed=options.seed, partners="all")
    same = data.molecule[task.first] == data.molecule[task.second]
    if not same.any() or same.all():
        raise InputError(
            f"the fold '{FOLD}' has no pairs of spectra of one precursor window of either kind, one molecule and two; "
            "use more spectra"
        )
    rows = np.union1d(task.first, task.second)
    compared = ComparedSpectra(data.columns, options.lookups, rows=rows, workers=options.workers)
    cosine = embedder(data.columns, rows).pair_scores(task.first, task.second)
    is_query = data.fold[task.first] == FOLD
    query = np.where(is_query, task.first, task.second)
    features = compared.features(task.first, task.second)
    return _fit_pairs(data, WINDOW_TERMS, cosine, features, same.astype(np.float64), query)


def _open_pairs(
    data: EvaluationData, embedder: Embedder, options: FuseOptions
) -> tuple[FitPairs, dict[str, np.ndarray]]:
    """Return the best candidates, by cosine and by peaks, of the queries of the task 'analogue search' of the fold."""
    task = analogue_search_task(data, FOLD, AnalogueSearchOptions(), seed=options.seed)
    if not task.queries:
        raise InputError(f"the fold '{FOLD}' has no query of a polarity of the fold 'train'; use more spectra")
    rows = np.unique(np.concatenate([*task.queries, *task.libraries]))
    compared = ComparedSpectra(data.columns, options.lookups, rows=rows, workers=options.workers)
    learned = embedder(data.columns, rows)
    found = []
    with progress("candidates of the open search", sum(map(len, task.queries)), unit="queries") as advance:
        for queries, library in zip(task.queries, task.libraries, strict=True):
            compared.hybrid_entropy.index_library(library)
            for begin in range(0, len(queries), QUERIES_PER_CHUNK):
                chunk = queries[begin : begin + QUERIES_PER_CHUNK]
                by_cosine = highest(learned.scores(chunk, library), options.depth)
                by_peaks = highest(compared.hybrid_entropy.scores(chunk, library), options.depth)
                query, column = pairs_of(by_cosine, by_peaks)
                found.append(np.stack([chunk[query], library[column]]))
                advance(len(chunk))
    query, candidate = np.concatenate(found, axis=1)
    molecules = candidate_molecules(data, (), options.cache, workers=options.workers)
    target = tanimoto_pairs(molecules.fingerprint, data.molecule[query], data.molecule[candidate])
    features = compared.features(query, candidate)
    return _fit_pairs(data, OPEN_TERMS, learned.pair_scores(query, candidate), features, target, query)


def _fit_pairs(
    data: EvaluationData,
    terms: tuple[str, ...],
    cosine: np.ndarray,
    features: np.ndarray,
    target: np.ndarray,
    query: np.ndarray,
) -> tuple[FitPairs, dict[str, np.ndarray]]:
    values = np.column_stack(term_columns(terms, cosine, features))
    energy = features[:, [FEATURES.index("energy difference"), FEATURES.index("energy unknown")]]
    pairs = FitPairs(terms, values, np.asarray(target, np.float64), query, data.molecule[query], energy)
    return pairs, dict(zip(SINGLE, term_columns(SINGLE, cosine, features), strict=True))


def _in_words(question: str, figures: dict[str, Any]) -> str:
    others = ", ".join(f"{name} {value:.3f}" for name, value in figures["scores"].items())
    return f"{question}: {figures['metric']} {figures['fused']:.3f} in cross-validation ({others})"

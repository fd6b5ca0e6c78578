"""`ionbed fuse`: fit how a model's cosine is fused with look-ups, on molecules that the model was not trained with."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..artifacts import atomic_folder, describe_input, refuse_existing, refuse_input_as_output, write_manifest
from ..embeddings.consensus import Consensus
from ..embeddings.fused_search import OPEN_DEPTH, highest, pairs_of
from ..embeddings.fusion import (
    EMBEDDING_COSINE,
    OPEN_TERMS,
    WINDOW_TERMS,
    FusedScore,
    Fusion,
    term_columns,
    without_embedding,
)
from ..embeddings.structure_fusion import RECORD, StructureFusion
from ..encoder.loading import load_model
from ..errors import InputError
from ..finetune.labelled.model import HEAD, HEAD_WEIGHTS
from ..pretrain.card import CARD
from ..progress import progress
from ..spectra.lookups import LookupOptions
from ..spectra.molecule_files import read_molecules
from ..spectra.pair_features import FEATURES, ComparedSpectra
from ..spectra.split import MOLECULES, Split
from ..spectra.store import Store
from .baselines.lookup_record import require_evaluation_packages
from .candidates import candidate_molecules
from .consensus_fit import FittedConsensus, OpenCandidates, fit_consensus, pays
from .dataset import EvaluationData, load_evaluation_data
from .fuse_structures import fit_structures
from .fusion_fit import Fit, FitPairs, best_targets, cross_validated, fit_expected, fit_probability, fold_scores
from .metrics import comparable, roc_auc
from .outcomes import tanimoto_pairs
from .provenance import check_exposure
from .scorers import Embedder, Encoder
from .tasks import AnalogueSearchOptions, SameMoleculeOptions, analogue_search_task, same_molecule_task

if TYPE_CHECKING:
    from ..encoder.modeling_ionbed import IonbedModel

logger = logging.getLogger("ionbed")

FOLD = "validation"
"""Whose molecules are the queries: held out from training, and not those that an evaluation asks about."""

LIBRARY_FOLD = "train"
"""Whose spectra the queries are compared with, beside each other."""

LEAST_MOLECULES = 20
"""Fewer say nothing of a dozen weights."""

SINGLE = (EMBEDDING_COSINE, *FEATURES[:4])
"""Scores that stand beside the fused one: the cosine and the look-ups."""

RIDGES = (1e-4, 1e-2, 1.0, 100.0)
"""Penalties on what a score has beyond a look-up; with the highest it is the look-up. Cross-validation chooses."""

QUERIES_PER_MOLECULE = 6
"""Of the open search: more than an evaluation asks, since weights profit from every spectrum of a molecule."""

QUERIES_PER_CHUNK = 64


class Fitted(NamedTuple):
    """The scores of a `Fusion`, under its names."""

    window: FusedScore
    open: FusedScore
    window_lookups: FusedScore
    open_lookups: FusedScore
    consensus: Consensus | None
    consensus_lookups: Consensus | None


@dataclass(frozen=True)
class FuseOptions:
    """How a fusion is fitted.

    Attributes
    ----------
    depth : int
        Candidates of each query of the open search that are compared: so many of the best by the cosine and by hybrid
        entropy, and as many drawn from the rest of those that a search scores.
    folds : int
        Of the cross-validation that chooses among `RIDGES` and says what the fit gives.
    allow_other_split : bool
        Whether to go on with a model that may have been trained with the molecules of the validation fold.
    cache : Path or None
        Folder in which fingerprints are kept.
    structures : Path or None
        A file of molecules, with whose help scores of structures are weighed too; None weighs those of spectra only.
    workers : int or None
        Threads and processes; all cores where None.
    seed : int
        Of the draws of pairs, of queries, and of the parts of the cross-validation.
    """

    depth: int = 150
    folds: int = 5
    allow_other_split: bool = False
    cache: Path | None = None
    structures: Path | None = None
    workers: int | None = None
    seed: int = 0
    lookups: LookupOptions = field(default_factory=LookupOptions)

    def __post_init__(self) -> None:
        if self.depth < 1 or self.folds < 2:
            raise ValueError(f"'depth' is {self.depth} and 'folds' {self.folds}; they must be at least 1 and 2")


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

    Embeddings and the model's hash stay what they were; its card, and a head for labels, are written with it.

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
    further = [path for path in (model, options.structures) if path is not None]
    refuse_input_as_output(out, store, split, *further)
    require_evaluation_packages()
    if options.structures is not None:
        read_molecules(options.structures)  # a missing or useless file is told at once
    folds = Split.load(split)
    if MOLECULES in folds.shares:
        raise InputError(f"{split}: its folds share molecules; make a split that shares none (docs/splits.md)")
    encoder = load_model(model)
    source = str(model or "default")
    allow = options.allow_other_split
    exposure = check_exposure("model", source, encoder, folds, FOLD, allow=allow, option="--allow-other-split")
    if exposure:
        logger.warning("%s: %s; the weights may trust its cosine too much", source, exposure)
    shelf = Store(store)
    data = load_evaluation_data(shelf, folds)
    num_molecules = len(np.unique(data.molecule[data.rows_in(FOLD)]))
    if num_molecules < LEAST_MOLECULES:
        raise InputError(
            f"{split}: its fold '{FOLD}' holds {num_molecules} molecules of {store}; at least {LEAST_MOLECULES} are "
            "needed to fit a fused score: make a split with a larger one"
        )
    fitted_on = {
        "store": [shard.get("sha256") for shard in shelf.manifest["shards"]],
        "split": folds.hash,
        "fold": FOLD,
        "exposure": exposure,
        "seed": options.seed,
    }
    known = (encoder.config.fusion or {}).get(RECORD)  # of the same weights
    if options.structures is not None:
        known = _of_structures(data, encoder, options.structures, options, fitted_on)
    scores, figures = fit(data, encoder, options)
    fitted = {**fitted_on, "molecules": num_molecules, **figures}
    fusion = Fusion(encoder.model_hash(), options.lookups, **scores._asdict(), fitted=fitted)
    tree = {**fusion.to_tree(), **({} if known is None else {RECORD: known})}
    encoder.config.fusion = tree
    with atomic_folder(out, overwrite=overwrite) as folder:
        encoder.save_pretrained(folder)
        for name in (CARD, HEAD, HEAD_WEIGHTS):  # of the same weights
            if (Path(source) / name).is_file():
                shutil.copyfile(Path(source) / name, folder / name)
        write_manifest(folder, {"command": "fuse", "model": source, "fusion": tree})
    for question, found in figures.items():
        logger.info("%s", _in_words(question, found))
        best = max(found["scores"][name] for name in SINGLE[1:])
        if found["fused"] < best:
            logger.warning("%s: the fused score falls under the best look-up; search without it", question)
    return fusion


def _of_structures(
    data: EvaluationData,
    encoder: IonbedModel,
    structures: Path,
    options: FuseOptions,
    fitted_on: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the record of a `StructureFusion`, and say what it gives.

    The record outlives a later fit without structures, so it names what it was fitted on itself.
    """
    score, figures = fit_structures(
        data,
        encoder,
        structures,
        lookups=options.lookups,
        folds=options.folds,
        cache=options.cache,
        workers=options.workers,
        seed=options.seed,
    )
    best = max(figures["scores"], key=figures["scores"].__getitem__)
    others = ", ".join(
        f"{name} {value:.3f}" for name, value in {**figures["scores"], "guessing": figures["random"]}.items()
    )
    logger.info("structures: hit@1 %.3f in cross-validation (%s)", figures["fused"], others)
    if figures["fused"] < figures["scores"][best]:
        logger.warning("structures: the fused score falls under '%s' alone", best)
    file = {"name": structures.name, "sha256": describe_input(structures)["sha256"]}
    fitted = {**fitted_on, **figures, "structures": file}
    return StructureFusion(encoder.model_hash(), options.lookups, score, fitted).to_tree()


def fit(data: EvaluationData, encoder: Encoder, options: FuseOptions) -> tuple[Fitted, dict[str, Any]]:
    """Return the scores of a `Fusion`, and what they give in cross-validation.

    Spectra of the fold 'test' take no part: a pair with one of them is a pair that an evaluation may ask about.

    Raises
    ------
    InputError
        The fold holds no pairs of both kinds (also without a part of the molecules, as in the cross-validation), or no
        query of an open search.
    """
    data = data.take(np.flatnonzero(np.isin(data.fold, (FOLD, LIBRARY_FOLD))))
    embedder = Embedder("model", encoder)
    pairs, singles = _window_pairs(data, embedder, options)
    positive = pairs.target > 0.5
    found: dict[str, Any] = {}
    try:
        (window, _), (window_alone, _), figures = _fitted(
            pairs, fit_probability, options, singles, lambda scores: roc_auc(scores, positive)
        )
    except ValueError as error:
        raise InputError(f"the score within a window cannot be fitted: {error}; use more spectra") from None
    counts = {"metric": "ROC AUC", "pairs": len(positive), "pairs of one molecule": int(positive.sum())}
    found["same molecule"] = {**counts, **figures}
    pairs, singles, candidates = _open_pairs(data, embedder, options)
    try:
        (open_, ridge), (open_alone, ridge_alone), figures = _fitted(
            pairs, fit_expected, options, singles, lambda scores: best_targets(scores, pairs).mean()
        )
        both = _consensus(pairs, candidates, ridge, options)
        alone = _consensus(pairs.only(open_alone.terms), candidates, ridge_alone, options)
        gain = (both.target - both.without + alone.target - alone.without) / 2
        # Both or neither: what the model adds is the difference of the two.
        if not pays(gain, candidates.copies.group):
            both, alone = both.off(), alone.off()
    except ValueError as error:
        raise InputError(f"an open search cannot be fitted: {error}; use more spectra") from None
    found["analogue search"] = {
        "metric": "Tanimoto@1",
        "queries": len(np.unique(pairs.query)),
        **figures,
        "fused": float(both.target.mean()),
        "look-ups fused": float(alone.target.mean()),
        "without consensus": {"fused": float(both.without.mean()), "look-ups fused": float(alone.without.mean())},
    }
    scores = Fitted(window, open_, window_alone, open_alone, both.consensus, alone.consensus)
    return scores, found


def _consensus(pairs: FitPairs, candidates: OpenCandidates, ridge: float, options: FuseOptions) -> FittedConsensus:
    candidates = replace(candidates, copies=candidates.copies.only(pairs.terms))
    return fit_consensus(pairs, candidates, *fold_scores(pairs, fit_expected, ridge, options.folds, options.seed))


def _fitted(
    pairs: FitPairs,
    method: Fit,
    options: FuseOptions,
    singles: dict[str, np.ndarray],
    measure: Callable[[np.ndarray], float],
) -> tuple[tuple[FusedScore, float], tuple[FusedScore, float], dict[str, Any]]:
    """Return the score with and without the embeddings, each with its ridge, and what they and single scores give."""
    fitted, figures = [], []
    for part in (pairs, pairs.only(without_embedding(pairs.terms))):
        tried = {}
        for ridge in RIDGES:
            held_out = cross_validated(part, method, ridge, options.folds, options.seed)
            tried[ridge] = float(measure(comparable(held_out)))
        best = max(RIDGES, key=lambda ridge: (tried[ridge], ridge))
        fitted.append((method(part, best), best))
        figures.append(tried[best])
    found = {name: float(measure(comparable(values))) for name, values in singles.items()}
    both, alone = fitted
    return both, alone, {"fused": figures[0], "look-ups fused": figures[1], "ridge": both[1], "scores": found}


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
) -> tuple[FitPairs, dict[str, np.ndarray], OpenCandidates]:
    """Return the best candidates, by cosine and by peaks, of the queries of the task 'analogue search' of the fold.

    With them come what single scores say of them, and what a consensus needs beside.
    """
    drawn = AnalogueSearchOptions(max_queries_per_molecule=QUERIES_PER_MOLECULE)
    task = analogue_search_task(data, FOLD, drawn, seed=options.seed)
    if not task.queries:
        raise InputError(f"the fold '{FOLD}' has no query of a polarity of the fold 'train'; use more spectra")
    rows = np.unique(np.concatenate([*task.queries, *task.libraries]))
    compared = ComparedSpectra(data.columns, options.lookups, rows=rows, workers=options.workers)
    learned = embedder(data.columns, rows)
    found, rng = [], np.random.default_rng(options.seed)
    with progress("candidates of the open search", sum(map(len, task.queries)), unit="queries") as advance:
        for queries, library in zip(task.queries, task.libraries, strict=True):
            compared.hybrid_entropy.index_library(library)
            for begin in range(0, len(queries), QUERIES_PER_CHUNK):
                chunk = queries[begin : begin + QUERIES_PER_CHUNK]
                by_cosine = _proposed(learned.scores(chunk, library), options.depth, rng)
                by_peaks = _proposed(compared.hybrid_entropy.scores(chunk, library), options.depth, rng)
                query, column = pairs_of(by_cosine, by_peaks)
                found.append(np.stack([chunk[query], library[column]]))
                advance(len(chunk))
    query, candidate = np.concatenate(found, axis=1)
    molecules = candidate_molecules(data, (), options.cache, workers=options.workers)
    target = tanimoto_pairs(molecules.fingerprint, data.molecule[query], data.molecule[candidate])
    features = compared.features(query, candidate)
    cosine = learned.pair_scores(query, candidate)
    pairs, singles = _fit_pairs(data, OPEN_TERMS, cosine, features, target, query)
    own = np.unique(query)
    copies, _ = _fit_pairs(data, OPEN_TERMS, np.ones(len(own)), compared.features(own, own), np.ones(len(own)), own)
    return pairs, singles, OpenCandidates(data.molecule[candidate], molecules.fingerprint, copies)


def _proposed(scores: np.ndarray, depth: int, rng: np.random.Generator) -> np.ndarray:
    """Return the columns of the ``depth`` highest of each row, and as many drawn from the rest that a search scores.

    Weights that have never seen the further ones may rank some of them first.
    """
    columns = highest(scores, OPEN_DEPTH)
    columns = np.take_along_axis(columns, np.argsort(-np.take_along_axis(scores, columns, 1), axis=1), 1)
    return np.concatenate([columns[:, :depth], rng.permuted(columns[:, depth:], axis=1)[:, :depth]], axis=1)


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
    plain = figures.get("without consensus", {})

    def said(name: str) -> str:
        return f"{figures[name]:.3f}" + (f" [{plain[name]:.3f} without consensus]" if name in plain else "")

    return (
        f"{question}: {figures['metric']} {said('fused')} in cross-validation (look-ups fused without the model "
        f"{said('look-ups fused')}; {others})"
    )

"""`ionbed fuse --structures`: fit how the scores by which an index of structures can rank are added up."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..embeddings.structure_fusion import PREDICTED_COSINE, PREDICTED_ENTROPY, STRUCTURE_COSINE, StructureScore
from ..errors import InputError
from ..spectra.lookups import LookupOptions
from .baselines.predicted_spectra import PredictedLibrary, predicted_spectra_entry
from .candidates import candidate_molecules
from .dataset import EvaluationData
from .metrics import comparable
from .predicted_cosine import predicted_cosine_entry
from .ranking import score_molecules, true_ranks
from .retrieval import RetrievalOptions, retrieval_comparisons
from .rows import model_entry
from .scorers import Encoder, StructureScorer
from .structure_fit import cross_validated_totals, fit_structure_score
from .structures_and_transfer import FITTED_ON, LEAST_MOLECULES, QUERIES_PER_MOLECULE, some_queries

logger = logging.getLogger("ionbed")

MOST_CANDIDATES = 3000
"""Whose spectra are predicted, all queries together, some 50 ms each: more would hardly move three weights."""


def fit_structures(
    data: EvaluationData,
    encoder: Encoder,
    structures: Path,
    *,
    lookups: LookupOptions,
    folds: int,
    cache: Path | None,
    workers: int | None,
    seed: int,
) -> tuple[StructureScore, dict[str, Any]]:
    """Return the score of `ionbed.embeddings.structure_fusion.TERMS`, and what it and they give in cross-validation.

    The queries are measured spectra of the fold `FITTED_ON`, their candidates the molecules of the same mass in
    ``structures`` and in the data.

    Parameters
    ----------
    structures : Path
        A file of molecules; see `ionbed.spectra.molecule_files.read_molecules`.
    lookups : LookupOptions
    folds : int
        Of the cross-validation, over molecules.
    cache : Path or None
        Folder in which predicted spectra, embeddings and fingerprints are kept.
    workers : int or None
        Threads and processes; all cores where None.
    seed : int
        Of the draws of queries and folds.

    Raises
    ------
    InputError
        The file cannot be read, or gives candidates to fewer than `LEAST_MOLECULES` molecules.
    """
    # Of a predicted query the same rules would predict the candidate again.
    is_measured = ~data.table["predicted"].to_numpy()
    data = data.take(np.flatnonzero((data.fold == FITTED_ON) & is_measured))
    molecules = candidate_molecules(data, (structures,), cache, workers=workers)
    options = RetrievalOptions(max_queries_per_molecule=QUERIES_PER_MOLECULE)
    found = retrieval_comparisons(data, molecules, FITTED_ON, options, seed)
    found = some_queries(found, data, MOST_CANDIDATES, seed)
    group = data.molecule[found.queries]
    num_molecules = len(np.unique(group))
    if num_molecules < LEAST_MOLECULES:
        raise InputError(
            f"{structures}: gives candidates of the same mass to {num_molecules} molecules of the fold '{FITTED_ON}'; "
            f"at least {LEAST_MOLECULES} are needed to weigh scores of structures: name a file with more molecules"
        )
    entry = model_entry("model", [encoder], None, cache=cache, workers=workers)
    library = PredictedLibrary(cache, workers)
    entries = {
        PREDICTED_ENTROPY: predicted_spectra_entry(library, lookups, workers=workers),
        PREDICTED_COSINE: predicted_cosine_entry(entry, [encoder], library, cache),
        **({STRUCTURE_COSINE: entry} if "retrieval" in entry.kinds else {}),
    }
    rows = found.queries[found.pool]
    scorers = [cast(StructureScorer, made.builds[0](data, molecules, found.queries)) for made in entries.values()]
    values = np.column_stack([scorer.score_structures(rows, found.candidate) for scorer in scorers])
    is_true = found.candidate == group[found.pool]
    terms = tuple(entries)
    score = fit_structure_score(terms, values, found.pool, is_true, group)
    totals = cross_validated_totals(terms, values, found.pool, is_true, group, folds=folds, seed=seed)

    def hit_at_1(scores: np.ndarray) -> float:
        """Return the share of queries whose own molecule comes first, molecules counting alike."""
        ranked = score_molecules(found.pool, found.candidate, comparable(scores))
        hits = true_ranks(ranked, group, np.bincount(found.pool)).hits(1)
        of_molecule = np.unique(group, return_inverse=True)[1]
        return float((np.bincount(of_molecule, hits) / np.bincount(of_molecule)).mean())

    return score, {
        "metric": "hit@1",
        "queries": len(group),
        "molecules": num_molecules,
        "candidates": len(np.unique(found.candidate)),
        "fused": hit_at_1(totals),
        "random": hit_at_1(np.zeros(len(totals))),
        "scores": {term: hit_at_1(values[:, place]) for place, term in enumerate(terms)},
    }

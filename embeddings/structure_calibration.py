"""How probable it is that a structure of a database is the query's: what it is worked out from, and what is told of it.

As for spectra (`ionbed.embeddings.calibration`), a logistic function that was fitted to queries of known molecules
(`ionbed.embeddings.structure_calibration_fit`) is kept in the manifest of the index, one for each way of searching.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..artifacts import sha256_of_json
from .calibration import DEPTH, Calibration, Candidates, Curve, Terms, best_of_molecules, leads, shared_out
from .structure_fusion import StructureFusion
from .structure_hits import StructureScoreName

TERMS = Terms(("score", "lead", "arrears", "share", "candidates", "only candidate", "peaks of the query"), 4)
"""Lead and arrears are the score minus that of the best other structure, above and below 0; 0 where there is no other.
They are bounded by `MOST_UNITS`, so that one high score does not stand for more than was seen. The share is the
logarithm of the softmax, in `UNITS` of the score, among the best `DEPTH` candidates: of many that are as good, each is
less probable. Candidates and peaks are ``log(1 + n)``. The first four never count against a hit."""

UNITS: Mapping[StructureScoreName, float] = {"cosine": 0.1, "predicted": 0.1, "fused": 1.0}
"""The fused score is fitted as one whose exponentials are as the odds; the others are from 0 to 1."""

MOST_UNITS = 2.0
"""Towards which a lead grows, in `UNITS`: there it is worth no more."""

OPEN = "hits of an open search have none, for nearly all are of another mass; search within a window or by formula"
"""Why an open search of structures has no probabilities."""


def way_of(score: StructureScoreName, precursor_ppm: float | None, formula: str | None) -> str | None:
    """Return the name of a way of searching structures that may be calibrated; None for an open search."""
    if formula is not None:
        return f"{score} by formula"
    return None if precursor_ppm is None else f"{score} within a window"


def candidates_of(
    molecule: np.ndarray,
    rows: np.ndarray,
    scores: np.ndarray,
    num_candidates: np.ndarray,
    num_peaks: np.ndarray,
    score: StructureScoreName,
) -> Candidates:
    """Return the molecules among the hits of queries, with the terms of their probability.

    Parameters
    ----------
    molecule : int64 array of shape (n_structures,)
        Of each row of the index, a number that rows of one first InChIKey block share.
    rows : int64 array of shape (n_queries, k)
        Hits, best first; -1 for none.
    scores : float array of shape (n_queries, k)
    num_candidates : int array of shape (n_queries,)
        Structures that each query was compared with.
    num_peaks : int array of shape (n_queries,)
    score : 'cosine', 'predicted' or 'fused'
    """
    of_hit_row = np.where(rows >= 0, molecule[np.maximum(rows, 0)], -1)
    query, rank, of_hit = best_of_molecules(of_hit_row)
    known = np.nan_to_num(scores.astype(np.float64))
    value = known[query, rank]
    is_only = np.bincount(query, minlength=len(rows))[query] == 1
    most = MOST_UNITS * UNITS[score]
    lead = np.where(is_only, 0.0, most * np.tanh(leads(of_hit_row, known, rows, query, rank) / most))
    is_counted = np.zeros(rows.shape, bool)
    is_counted[query, rank] = rank < DEPTH
    in_units = np.where(is_counted, known / UNITS[score], -np.inf)
    total = np.logaddexp.reduce(in_units, axis=1, initial=-np.inf)[query]
    terms = np.column_stack(
        [
            value,
            np.maximum(lead, 0.0),
            np.minimum(lead, 0.0),
            np.minimum(value / UNITS[score] - total, 0.0),
            np.log1p(num_candidates[query]),
            is_only,
            np.log1p(num_peaks[query]),
        ]
    )
    return Candidates(query, rank, terms, of_hit)


def probabilities(
    curve: Curve,
    molecule: np.ndarray,
    rows: np.ndarray,
    scores: np.ndarray,
    num_candidates: np.ndarray,
    num_peaks: np.ndarray,
    score: StructureScoreName,
) -> np.ndarray:
    """Return the probability of each hit, float64 of shape (n_queries, k), NaN for none.

    Those of all molecules of a query add up to 1 at most. Parameters are those of `candidates_of`; at least the best
    `DEPTH` hits are to be given.
    """
    return shared_out(curve, candidates_of(molecule, rows, scores, num_candidates, num_peaks, score))


def ranked_as(score: StructureScoreName, fusion: StructureFusion | None) -> str:
    """Return what tells a score from others of the same name: of a fused one, a hash of its weights."""
    if score != "fused" or fusion is None:
        return score
    return sha256_of_json({"score": asdict(fusion.score), "lookups": asdict(fusion.lookups)})


def structure_calibration(manifest: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration in the manifest of an index of structures, None without one or with that of another.

    Raises
    ------
    InputError
        It is damaged or of another version.
    """
    tree = manifest.get("calibration")
    if tree is None:
        return None
    found = Calibration.from_tree(tree, TERMS)
    made_for = (found.record.get("model_hash"), found.record.get("structures"))
    return found if made_for == (manifest["model_hash"], manifest["counts"]["kept"]) else None


def structure_curve(
    manifest: Mapping[str, Any],
    score: StructureScoreName,
    precursor_ppm: float | None,
    formula: str | None,
    fusion: StructureFusion | None,
) -> Curve | None:
    """Return what gives the hits of a search their probabilities, None where an index carries nothing for it.

    What was fitted to a fused score of other weights than those of ``fusion`` is not used.

    Raises
    ------
    InputError
        As `structure_calibration`.
    """
    calibration, way = structure_calibration(manifest), way_of(score, precursor_ppm, formula)
    curve = None if calibration is None or way is None else calibration.curves.get(way)
    return curve if curve is not None and curve.record.get("ranked_as") == ranked_as(score, fusion) else None


def why_no_probability(index: object, precursor_ppm: float | None, formula: str | None) -> str:
    """Return in a line why the hits of a search have no probability, and how to get one."""
    if precursor_ppm is None and formula is None:
        return f"{index}: no probabilities: {OPEN}"
    return (
        f"{index}: hits have no probability; to fit it to your spectra of known molecules: ionbed index calibrate "
        f"{index} KNOWN_SPECTRA --split SPLIT"
    )


def calibration_told(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return how the probabilities of an index of structures were fitted and how well they held, in words by name.

    Raises
    ------
    InputError
        As `structure_calibration`.
    """
    calibration = structure_calibration(manifest)
    if calibration is None:
        return {"probabilities": "none: ionbed index calibrate fits them to your spectra of known molecules"}
    record = calibration.record
    told = {
        "probabilities": f"fitted {record['made']} to {record['from']}, {record['held']:.0%} of whose molecules the "
        f"database has; model trained on these molecules: {record['trained_on']}; they hold where it has half of the "
        "queries' molecules"
    }
    for name, curve in calibration.curves.items():
        of, best = curve.record, curve.record["held_out_best"]
        told[name] = (
            f"{of['queries']:,} queries, {of['molecules']:,} molecules; first hits of molecules left out of the fit: "
            f"Brier score {best['brier']:.3f} (base rate alone: {best['brier_of_base_rate']:.3f}), calibration error "
            f"{best['ece']:.3f}"
        )
    if record["fused_on"]:
        told["weights of the fused score"] = (
            f"fitted to the fold of {record['fused_on']:,} of these molecules: its probabilities may be a little high"
        )
    for name in record["without"]:
        told[name] = "none: too few of the queries' molecules were found, or had another found in their place"
    return told | {"open": OPEN}

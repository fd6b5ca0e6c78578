"""Fitting the probabilities of hits: to library spectra as queries, or to a user's own queries of known molecules."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..spectra.spectrum import Spectrum
from ..spectra.split import Split
from .annotation import SAME_ION_PPM
from .calibration import (
    COLUMNS,
    DEPTH,
    OF_SPECTRA,
    Calibration,
    Candidates,
    Curve,
    Terms,
    candidates,
    candidates_told,
    way,
)
from .calibration_queries import (
    FEWEST_MOLECULES,
    MOST_QUERIES,
    WINDOW_PPM,
    Asked,
    blocks_of,
    is_same_ion,
    library_queries,
    rows_by,
)
from .hits import EmbeddedQueries, ScoreName
from .index import Index
from .windows import windows_in

logger = logging.getLogger("ionbed")

MOST_FUSED_OPEN_QUERIES = 300
"""A fused search of the whole library takes some 10 ms for each query."""

MOST_ROWS_FOR_FUSED_OPEN = 200_000
"""In larger libraries the fused open search is calibrated by `ionbed index calibrate` alone: it reads all peaks."""

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
FOLDS = 5
BINS = 10
MOST_LEFT_OUT = 2000
"""Rows of one molecule; a query whose molecule has more is not used."""


def calibrate_from_library(index: Index, *, seed: int = 0) -> Calibration | None:
    """Return a calibration from spectra of the library as queries, None where it has too few molecules for one.

    Of each molecule that is drawn one spectrum is a query, of those that a window search could find again: the
    library has another spectrum of the same ion. For half of the queries the molecule is left out of the library. For
    the others the spectrum itself is, and all that its laboratory measured of the molecule: a user's queries are of
    another laboratory than the library. Where too few molecules were measured by two, nothing but the spectrum is left
    out, which flatters.

    Parameters
    ----------
    index : Index
    seed : int
        Of the draw.
    """
    asked = library_queries(index, np.random.default_rng(seed))
    if asked is None:
        return None
    # Whether the model was trained on the molecules of a library, the library does not say.
    return _calibration(index, asked, {"from": "library", "trained_on": "not known"}, ways_of(index))


def calibrate_from_queries(
    index: Index,
    spectra: Iterable[Spectrum],
    *,
    source: str = "queries",
    trained_on: str = "not known",
    seed: int = 0,
    progress: bool = False,
) -> Calibration:
    """Return a calibration from a user's own queries of known molecules, which is to be preferred.

    Every query of whose molecule the library has the same ion is asked as it is, and once more with its molecule left
    out; any other is asked with its molecule left out. In the fit both kinds count for as much. Library spectra of the
    same id as a query are left out: the query would find itself.

    Parameters
    ----------
    index : Index
    spectra : iterable of Spectrum
        Those without peaks or InChIKey are left out.
    source : str
        Of the queries, for the record.
    trained_on : str
        Whether the model was trained on their molecules, for the record.
    seed : int
        Of the folds.
    progress : bool
        Show the progress of embedding on stderr.

    Raises
    ------
    InputError
        Too few of them have an InChIKey, or too few molecules are in the library.
    """
    labelled = [spectrum for spectrum in spectra if spectrum.inchikey and len(spectrum)]
    molecule = np.array([(spectrum.inchikey or "")[:14] for spectrum in labelled], object)
    rows_of = rows_by(blocks_of(index), sorted(set(molecule.tolist())))
    in_library = {key for key in molecule.tolist() if len(rows_of[key])}
    if len(in_library) < FEWEST_MOLECULES:
        raise InputError(
            f"{source}: holds {len(in_library)} molecules that the library has, by InChIKey; {FEWEST_MOLECULES} are "
            "needed to calibrate, so give more queries, or keep the calibration by the library"
        )
    ids = [spectrum.spectrum_id for spectrum in labelled]
    own = rows_by(index.library.columns(["spectrum_id"])["spectrum_id"], sorted(set(ids)))
    embedded = index.embed(labelled, progress=progress)
    without = [rows_of[key] for key in molecule.tolist()]
    ions = zip(embedded.precursor_mz.tolist(), embedded.polarity.tolist(), strict=True)
    remains = [
        is_same_ion(index, np.setdiff1d(rows, own[name]), mz, polarity).any()
        for rows, name, (mz, polarity) in zip(without, ids, ions, strict=True)
    ]
    present = np.flatnonzero(remains)
    places = np.concatenate([present, np.arange(len(labelled))])
    left_out = [own[ids[place]] for place in present.tolist()]
    left_out += [np.union1d(rows, own[name]) for rows, name in zip(without, ids, strict=True)]
    vectors, columns = embedded.vectors[places], embedded.columns
    assert columns is not None, "Index.embed keeps the peaks"
    queries = EmbeddedQueries(
        vectors, embedded.precursor_mz[places], embedded.polarity[places], embedded.model_hash, columns.take(places)
    )
    asked = Asked(queries, molecule[places], left_out, np.arange(len(places)) < len(present), "own")
    record = {"from": source, "trained_on": trained_on}
    found = _calibration(index, asked, record, ways_of(index, all_of_them=True), seed=seed)
    assert found is not None, "there are enough molecules"
    return found


def seen_by(model: object, spectra: Iterable[Spectrum], split: Split) -> str:
    """Return in words whether a model was trained on the molecules of some spectra, by the split of its training.

    Parameters
    ----------
    model : object
        As `ionbed.load_model` gives it.
    spectra : iterable of Spectrum
    split : Split
        Whose hash is looked for in the model's record of training.
    """
    folds = trained_folds(model, split)
    if folds is None:
        return "not known"
    molecules = {spectrum.inchikey[:14] for spectrum in spectra if spectrum.inchikey}
    seen = sum(split.folds.get(key) in folds for key in molecules)
    return "no" if not seen else f"yes, on {seen:,} of {len(molecules):,} molecules"


def trained_folds(model: object, split: Split) -> set[str] | None:
    """Return the folds of a split of molecules that a model was trained on, None where its record does not name it."""
    training: Sequence[Mapping[str, Any]] = getattr(getattr(model, "config", None), "training", None) or ()
    if not training or any(stage.get("split") != split.hash for stage in training) or split.unit != "molecule":
        return None
    return {fold for stage in training for fold in stage["folds"]}


def _calibration(
    index: Index,
    asked: Asked,
    record: Mapping[str, Any],
    ways: Sequence[tuple[ScoreName, bool]],
    *,
    seed: int = 0,
) -> Calibration | None:
    curves = {}
    usable = np.array([len(rows) <= MOST_LEFT_OUT for rows in asked.left_out], bool)
    asked = asked.take(np.flatnonzero(usable))
    rng = np.random.default_rng(seed)
    for score, is_window in ways:
        most = MOST_FUSED_OPEN_QUERIES if score == "fused" and not is_window else MOST_QUERIES
        part = asked.take(np.sort(rng.permutation(len(asked.molecule))[:most]))
        sides = [len(set(part.molecule[part.is_present == side])) for side in (True, False)]
        if min(sides) < FEWEST_MOLECULES:
            continue
        curves[way(score, is_window)] = fit_curve(index, part, score, is_window, rng)
    if not curves:
        return None
    made = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Calibration(curves, {**record, "made": made, "library_spectra": len(index)})


def ways_of(index: Index, *, all_of_them: bool = False) -> list[tuple[ScoreName, bool]]:
    """Return the ways of searching that an index can be calibrated for: score, and whether within a window."""
    ways: list[tuple[ScoreName, bool]] = [("cosine", True), ("cosine", False)]
    try:
        if index.score_name() == "fused":
            ways.append(("fused", True))
            if all_of_them or len(index) <= MOST_ROWS_FOR_FUSED_OPEN:
                ways.append(("fused", False))
    except InputError as error:
        logger.info("the fused score is not calibrated: %s", error)
    return ways


def fit_curve(index: Index, asked: Asked, score: ScoreName, is_window: bool, rng: np.random.Generator) -> Curve:
    """Return the probabilities of one way of searching, fitted to queries; ``rng`` puts molecules into folds."""
    found, is_right = found_for(index, asked, score, is_window)
    record = {"laboratories": asked.laboratories}
    return fitted_curve(found, is_right, asked.molecule, _weights(asked.is_present), rng, record)


def fitted_curve(
    found: Candidates,
    is_right: np.ndarray,
    molecule: np.ndarray,
    weight: np.ndarray,
    rng: np.random.Generator,
    record: Mapping[str, Any],
    terms: Terms = OF_SPECTRA,
) -> Curve:
    """Return a logistic function with the ridge that is best in cross-validation over molecules, and how well it held.

    Parameters
    ----------
    found : Candidates
        The molecules among the hits of queries.
    is_right : bool array of shape (n,)
        Whether each is the query's.
    molecule : object array of str, of shape (n_queries,)
        Of the queries, by which they are put into folds.
    weight : float64 array of shape (n_queries,)
        How much each query counts.
    rng : numpy.random.Generator
        Puts molecules into folds.
    record : mapping
        What else is to be kept of how it was fitted.
    terms : Terms
        Of ``found``.
    """
    names, number = np.unique(molecule.astype(str), return_inverse=True)
    weight = weight[found.query]
    fold = rng.permutation(len(names))[number] % FOLDS
    ridge, held_out = _cross_fitted(found.terms, is_right, weight, fold[found.query], terms)
    weights, intercept = fit(found.terms, is_right, weight, ridge, terms)
    is_best = found.rank == 0
    record = {
        "queries": len(molecule),
        "molecules": len(names),
        **record,
        "present": 0.5,
        "ridge": ridge,
        "held_out": quality(held_out, is_right, weight),
        "held_out_best": quality(held_out[is_best], is_right[is_best], weight[is_best]),
    }
    return Curve(tuple(weights.tolist()), float(intercept), record, terms)


def found_for(index: Index, asked: Asked, score: ScoreName, is_window: bool) -> tuple[Candidates, np.ndarray]:
    """Return the molecules found without what is left out, and which are the query's, bool of their number."""
    rows, scores, num_candidates = hits_without(index, asked, score, is_window)
    found = np.unique(rows[rows >= 0])
    table = index.rows(found, COLUMNS)
    of = candidates(asked.queries, rows, scores, num_candidates, found, table, SAME_ION_PPM)
    keys = index.rows(rows[of.query, of.rank], ["inchikey"])["inchikey"].to_pylist()
    return of, np.array([key[:14] for key in keys], object) == asked.molecule[of.query]


def hits_without(
    index: Index, asked: Asked, score: ScoreName, is_window: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best `DEPTH` hits of each query as if what is left out for it were not in the library.

    Returns
    -------
    rows : int64 array of shape (n_queries, DEPTH)
        -1 where there are fewer.
    scores : float64 array of shape (n_queries, DEPTH)
    num_candidates : int64 array of shape (n_queries,)
        As `candidates_told` has it.
    """
    ppm = WINDOW_PPM if is_window else None
    live = index.live
    left_out = [rows[live[rows]] for rows in asked.left_out]
    depth = DEPTH + max((len(rows) for rows in left_out), default=0)
    hits = index.search(asked.queries, depth, ppm, score)
    rows = np.full((len(hits), DEPTH), -1, np.int64)
    scores = np.full((len(hits), DEPTH), np.nan)
    windows = windows_in(index.library, asked.queries.precursor_mz, ppm, None)
    num_candidates = candidates_told(hits.num_in_window, is_window=is_window)
    for query, without in enumerate(left_out):
        kept = (hits.rows[query] >= 0) & ~np.isin(hits.rows[query], without)
        places = np.flatnonzero(kept)[:DEPTH]
        rows[query, : len(places)], scores[query, : len(places)] = hits.rows[query, places], hits.scores[query, places]
        if windows is not None:
            spans = windows.start[:, query], windows.stop[:, query]
            within = (without[:, None] >= spans[0]) & (without[:, None] < spans[1])
            num_candidates[query] -= within.sum()
    return rows, scores, num_candidates


def fit(
    terms: np.ndarray, is_right: np.ndarray, weight: np.ndarray, ridge: float, of: Terms = OF_SPECTRA
) -> tuple[np.ndarray, float]:
    """Return the weights of a logistic function and its intercept; those of rising terms are not below 0.

    Newton's method on standardised terms with a ridge on the weights; where a step would take a weight below 0 that
    must not be, it is held at 0 and the step is taken among the others (Bertsekas, SIAM J. Control Optim. 20 (1982)
    221-246).

    Parameters
    ----------
    terms : float64 array of shape (n, n_terms)
    is_right : bool array of shape (n,)
    weight : float64 array of shape (n,)
        How much each counts.
    ridge : float
        Above 0.
    of : Terms
        Their names, and which of them rise.
    """
    centre, spread = terms.mean(axis=0), terms.std(axis=0)
    is_constant = spread < 1e-9
    spread = np.where(is_constant, 1.0, spread)
    design = np.column_stack([np.ones(len(terms)), np.where(is_constant, 0.0, (terms - centre) / spread)])
    share = weight / weight.sum()
    bounded = np.arange(len(of.names) + 1) <= of.num_rising
    bounded[0] = False
    penalty = np.array([0.0, *np.full(terms.shape[1], 2 * ridge)])
    penalty[0] = 1e-9

    def loss(at: np.ndarray) -> float:
        total = design @ at
        return float((share * (np.logaddexp(0.0, total) - is_right * total)).sum() + (penalty * at**2).sum() / 2)

    at = np.zeros(design.shape[1])
    for _ in range(100):
        chance = np.exp(-np.logaddexp(0.0, -(design @ at)))
        gradient = design.T @ (share * (chance - is_right)) + penalty * at
        free = ~(bounded & (at <= 0) & (gradient > 0))
        curvature = (design * (share * chance * (1 - chance))[:, None]).T @ design + np.diag(penalty)
        step = np.zeros(len(at))
        step[free] = -np.linalg.solve(curvature[np.ix_(free, free)] + 1e-12 * np.eye(free.sum()), gradient[free])
        here, length = loss(at), 1.0
        while length > 1e-10:
            new = np.where(bounded, np.maximum(at + length * step, 0.0), at + length * step)
            if loss(new) <= here - 1e-4 * float(gradient @ (at - new)):
                break
            length /= 2
        else:
            break
        moved, at = float(np.abs(new - at).max()), new
        if moved < 1e-8:
            break
    weights = at[1:] / spread
    return weights, float(at[0] - weights @ np.where(is_constant, 0.0, centre))


def _cross_fitted(
    terms: np.ndarray, is_right: np.ndarray, weight: np.ndarray, fold: np.ndarray, of: Terms
) -> tuple[float, np.ndarray]:
    """Return the ridge that is best in cross-validation, and the probabilities of the folds that were left out."""
    results = []
    for ridge in RIDGES:
        held_out = np.empty(len(terms))
        for number in np.unique(fold):
            here = fold == number
            weights, intercept = fit(terms[~here], is_right[~here], weight[~here], ridge, of)
            held_out[here] = Curve(tuple(weights.tolist()), intercept, terms=of)(terms[here])
        results.append((_log_loss(held_out, is_right, weight), ridge, held_out))
    _, ridge, held_out = min(results, key=lambda result: result[0])
    return ridge, held_out


def _log_loss(probability: np.ndarray, is_right: np.ndarray, weight: np.ndarray) -> float:
    of_outcome = np.clip(np.where(is_right, probability, 1 - probability), 1e-12, None)
    return float(-(weight * np.log(of_outcome)).sum() / weight.sum())


def quality(probability: np.ndarray, is_right: np.ndarray, weight: np.ndarray | None = None) -> dict[str, Any]:
    """Return how well probabilities hold: Brier score, expected calibration error, and the table of reliability.

    Parameters
    ----------
    probability : float array of shape (n,)
    is_right : bool array of shape (n,)
    weight : float array of shape (n,), optional

    Returns
    -------
    dict
        ``pairs``; ``base_rate``: share that is right; ``brier`` and ``brier_of_base_rate``; ``ece``: mean distance
        between probability and share right over `BINS` bins of equal width; ``reliability``: of each bin that holds
        any, the mean probability, the share that is right, and their number.
    """
    weight = np.ones(len(probability)) if weight is None else weight
    share = weight / weight.sum()
    base = float((share * is_right).sum())
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    table, error = [], 0.0
    for number in np.unique(bins).tolist():
        here = bins == number
        mass = share[here].sum()
        said, is_so = float((share * probability)[here].sum() / mass), float((share * is_right)[here].sum() / mass)
        error += mass * abs(said - is_so)
        table.append([round(said, 4), round(is_so, 4), int(here.sum())])
    return {
        "pairs": len(probability),
        "base_rate": round(base, 4),
        "brier": round(float((share * (probability - is_right) ** 2).sum()), 4),
        "brier_of_base_rate": round(base * (1 - base), 4),
        "ece": round(float(error), 4),
        "reliability": table,
    }


def _weights(is_present: np.ndarray) -> np.ndarray:
    """Return weights by which queries whose molecule is in the library count as much as the others."""
    share = is_present.mean()
    return np.where(is_present, 0.5 / max(share, 1e-12), 0.5 / max(1 - share, 1e-12))

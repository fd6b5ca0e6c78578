"""Fitting the probabilities of structures to a user's spectra of known molecules."""

from __future__ import annotations

import datetime
import itertools
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from ..progress import counted
from ..spectra.spectrum import Spectrum
from ..spectra.split import Split
from .calibration import DEPTH, Calibration, Candidates, Curve
from .calibration_fit import fitted_curve, seen_by, trained_folds
from .calibration_queries import FEWEST_MOLECULES, MOST_QUERIES, WINDOW_PPM
from .queries import queries_of
from .search_options import scores_of
from .structure_calibration import TERMS, candidates_of, ranked_as, way_of
from .structure_candidates import OWN_FORMULA
from .structure_fusion import StructureFusion
from .structure_hits import StructureScoreName
from .structure_index import StructureIndex

logger = logging.getLogger("ionbed")

WAYS: tuple[tuple[float | None, str | None], ...] = ((WINDOW_PPM, None), (None, OWN_FORMULA))
"""Of searching: within how many ppm, and by which formula."""

MOST_OF_A_MOLECULE = 4
"""Spectra of one molecule that are asked, so that no molecule is all that is fitted to."""


@dataclass(frozen=True, eq=False)
class AskedStructures:
    """Queries of known molecules, as they are asked of an index of structures.

    Attributes
    ----------
    spectra : sequence of Spectrum
    molecule : object array of str, of shape (n,)
        First InChIKey block.
    left_out : list of int64 arrays
        Rows of the index that are taken not to be in it, ascending.
    is_present : bool array of shape (n,)
        Whether the index has the molecule then.
    """

    spectra: Sequence[Spectrum]
    molecule: np.ndarray
    left_out: list[np.ndarray]
    is_present: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """How much each counts, float64 of shape (n,): present molecules as much as absent ones, and each for as much.

        Half of an unknown's molecules are taken to be in the database: the convention for libraries of spectra too.
        """
        weight = np.empty(len(self.molecule))
        for is_present in (True, False):
            here = self.is_present == is_present
            names, of, counts = np.unique(self.molecule[here].astype(str), return_inverse=True, return_counts=True)
            weight[here] = 0.5 / (max(len(names), 1) * counts[of])
        return weight


def calibrate(
    folder: str | os.PathLike[str],
    queries: str | os.PathLike[str] | None,
    *,
    split: str | os.PathLike[str] | None = None,
) -> Calibration:
    """Fit the probabilities of a saved index of structures, and keep them in it; see `calibrate_structures`.

    Raises
    ------
    InputError
        No queries are named, or they, the index or the split cannot be read, or as that does.
    """
    if queries is None:
        raise InputError(
            f"{folder}: holds structures, and no spectra to be calibrated by; name a file of spectra of known molecules"
        )
    index, trained_with = StructureIndex.open(folder), None if split is None else Split.load(split)
    spectra = (query.spectrum for query in queries_of(queries)[0] if query.spectrum is not None)
    found = calibrate_structures(index, spectra, source=Path(queries).name, split=trained_with)
    index.write_entry("calibration", found.to_tree())
    return found


def calibrate_structures(
    index: StructureIndex,
    spectra: Iterable[Spectrum],
    *,
    source: str = "queries",
    split: Split | None = None,
    seed: int = 0,
) -> Calibration:
    """Return the probabilities of an index of structures, fitted to spectra of known molecules.

    Every query whose molecule the index has is asked as it is, and once more with the molecule left out of the index;
    any other is asked as it is, as one of an absent molecule. Both kinds count for as much in the fit.

    Parameters
    ----------
    index : StructureIndex
    spectra : iterable of Spectrum
        Those without peaks or InChIKey, and predicted ones, are left out.
    source : str
        Of the queries, for the record.
    split : Split, optional
        That the model was trained with: molecules that it was trained on are then left out.
    seed : int
        Of the draw of queries and of the folds.

    Raises
    ------
    InputError
        Too few of their molecules are in the index, or the model was trained on too many of them.
    """
    rng = np.random.default_rng(seed)
    folds = None if split is None else trained_folds(index.model, split)
    is_trained = () if split is None or folds is None else {key for key, fold in split.folds.items() if fold in folds}
    known, trained = _some_of_each(spectra, is_trained, rng)
    rows_of = _rows_of(index, known)
    if len(rows_of) < FEWEST_MOLECULES:
        seen = f" (besides {counted(trained, 'spectra')} of molecules that the model was trained on)" if trained else ""
        raise InputError(
            f"{source}: holds {len(rows_of):,} molecules that the index has, by InChIKey of measured spectra{seen}; "
            f"{FEWEST_MOLECULES} are needed to calibrate, so give more spectra of known molecules"
        )
    drawn = _drawn(known, rows_of, rng)
    asked = asked_of(index, drawn)
    curves, without = {}, []
    for score in scores_of(index):
        for ppm, formula in WAYS:
            name, curve = way_of(score, ppm, formula), fit_structure_curve(index, asked, score, ppm, formula, rng)
            assert name is not None, "neither is an open search"
            if curve is None:
                without.append(name)
            else:
                curves[name] = curve
    if not curves:
        raise InputError(
            f"{source}: of {len(rows_of):,} molecules that the index has, fewer than {FEWEST_MOLECULES} are found by "
            "mass or by formula, or would have another found in their place; state adducts and precursor m/z of the "
            "spectra, or give more"
        )
    trained_on = "not known" if split is None else seen_by(index.model, drawn, split)
    if trained_on == "not known":
        logger.warning(
            "%s: whether the model was trained on these molecules is not known; where it was, the probabilities are "
            "too high. Name the split of its training: --split", source,
        )  # fmt: skip
    record = {
        "from": source,
        "trained_on": trained_on,
        "fused_on": _of_fusion(index.fusion, asked.molecule.tolist(), split),
        "without": without,
        "held": len(rows_of) / len(known),
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "model_hash": index.manifest["model_hash"],
        "structures": len(index),
    }
    return Calibration(curves, record)


def asked_of(index: StructureIndex, spectra: Sequence[Spectrum]) -> AskedStructures:
    """Return queries of known molecules as they are asked: all, and before them those whose molecule the index has.

    The former are asked without the rows of their molecule, the latter as they are.
    """
    molecule = np.array([(s.inchikey or "")[:14] for s in spectra], object)
    rows_of = _rows_of(index, set(molecule.tolist()))
    present = np.flatnonzero([key in rows_of for key in molecule.tolist()])
    nothing = np.empty(0, np.int64)
    places = np.concatenate([present, np.arange(len(spectra))])
    left_out = [nothing] * len(present) + [rows_of.get(key, nothing) for key in molecule.tolist()]
    return AskedStructures(
        [spectra[place] for place in places.tolist()], molecule[places], left_out, np.arange(len(places)) < len(present)
    )


def found_structures(
    index: StructureIndex, asked: AskedStructures, score: StructureScoreName, ppm: float | None, formula: str | None
) -> tuple[Candidates, np.ndarray]:
    """Return the molecules found without what is left out, and which are the query's, bool of their number."""
    depth = DEPTH + max((len(rows) for rows in asked.left_out), default=0)
    hits = index.search(asked.spectra, depth, ppm, formula=formula, score=score)
    rows, scores = np.full((len(hits), DEPTH), -1, np.int64), np.full((len(hits), DEPTH), np.nan)
    num_candidates = hits.num_candidates.copy()
    compared = index.candidates(asked.spectra, ppm, formula)
    for query, (without, candidates) in enumerate(zip(asked.left_out, compared, strict=True)):
        places = np.flatnonzero((hits.rows[query] >= 0) & ~np.isin(hits.rows[query], without))[:DEPTH]
        rows[query, : len(places)], scores[query, : len(places)] = hits.rows[query, places], hits.scores[query, places]
        num_candidates[query] -= np.isin(without, candidates.rows).sum()
    num_peaks = np.array([len(spectrum) for spectrum in asked.spectra], np.int64)
    found = candidates_of(index.molecule, rows, scores, num_candidates, num_peaks, score)
    blocks = index.blocks.take(rows[found.query, found.rank]).to_pylist()
    return found, np.array(blocks, object) == asked.molecule[found.query]


def fit_structure_curve(
    index: StructureIndex,
    asked: AskedStructures,
    score: StructureScoreName,
    ppm: float | None,
    formula: str | None,
    rng: np.random.Generator,
) -> Curve | None:
    """Return the probabilities of one way of searching, fitted to queries.

    None where too few molecules are found, or too few of those that are left out have something else found for them:
    without these every hit of the right mass would be sure.
    """
    found, is_right = found_structures(index, asked, score, ppm, formula)
    is_left_out = ~asked.is_present[found.query]
    if any(len(set(asked.molecule[found.query[of]].tolist())) < FEWEST_MOLECULES for of in (is_right, is_left_out)):
        return None
    record = {"ranked_as": ranked_as(score, index.fusion)}
    return fitted_curve(found, is_right, asked.molecule, asked.weight, rng, record, TERMS)


def _of_fusion(fusion: StructureFusion | None, molecules: Iterable[str], split: Split | None) -> int:
    """Return how many molecules are of the fold that the fused score was fitted to: it looks better by them."""
    if fusion is None or split is None or fusion.fitted.get("split") != split.hash:
        return 0
    return sum(split.folds.get(key) == fusion.fitted.get("fold") for key in set(molecules))


def _rows_of(index: StructureIndex, molecules: Collection[str]) -> dict[str, np.ndarray]:
    """Return the rows of those molecules that the index has, ascending."""
    wanted = pc.is_in(index.blocks, value_set=pa.array(sorted(molecules), pa.string())).to_numpy(zero_copy_only=False)
    found: dict[str, list[int]] = {}
    for row in np.flatnonzero(wanted).tolist():
        found.setdefault(index.blocks[row].as_py(), []).append(row)
    return {key: np.array(rows, np.int64) for key, rows in found.items()}


def _some_of_each(
    spectra: Iterable[Spectrum], is_trained: Collection[str], rng: np.random.Generator
) -> tuple[dict[str, list[Spectrum]], int]:
    """Return `MOST_OF_A_MOLECULE` measured spectra by chance of each molecule that is not left out, and how many were.

    No more are in memory at once (Vitter, ACM Trans. Math. Softw. 11 (1985) 37-57, algorithm R).
    """
    found: dict[str, list[Spectrum]] = {}
    counts: Counter[str] = Counter()
    trained = 0
    for spectrum in spectra:
        key = (spectrum.inchikey or "")[:14]
        if not key or not len(spectrum) or spectrum.predicted:
            continue
        if key in is_trained:
            trained += 1
            continue
        counts[key] += 1
        of_molecule = found.setdefault(key, [])
        if len(of_molecule) < MOST_OF_A_MOLECULE:
            of_molecule.append(spectrum)
        elif (place := int(rng.integers(counts[key]))) < MOST_OF_A_MOLECULE:
            of_molecule[place] = spectrum
    return found, trained


def _drawn(known: Mapping[str, Sequence[Spectrum]], held: Collection[str], rng: np.random.Generator) -> list[Spectrum]:
    """Return `MOST_QUERIES` spectra by chance, of as many molecules as can be; if need be, half of them in the index.

    The first of each molecule come first, then the second ones.
    """
    keys = sorted(known)
    keys = [keys[place] for place in rng.permutation(len(keys)).tolist()]
    absent = [key for key in keys if key not in held]
    present = [key for key in keys if key in held][: max(MOST_QUERIES // 2, MOST_QUERIES - len(absent))]
    chosen = present + absent[: MOST_QUERIES - len(present)]
    rounds = (known[key][number] for number in range(MOST_OF_A_MOLECULE) for key in chosen if number < len(known[key]))
    return list(itertools.islice(rounds, MOST_QUERIES))

"""What a hit tells besides its score: matched peaks, difference of the masses, how far to trust it, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..spectra.columns import SpectrumColumns
from ..spectra.measured_ranges import outside_of, united
from .hit_table import LIKELY
from .mass_differences import likely_differences, mass_differences
from .peak_matches import match_peaks

SAME_ION_PPM = 10.0
"""In an open search a hit is an analogue where the precursors, and the masses of the molecules, differ by more."""

UNLIKELY = 0.1
"""Below this probability a library match counts as no candidate; from `LIKELY` on as a probable structure."""

FEW_PEAKS = 3
"""With fewer, a spectrum has hardly anything that another molecule could not have."""

LEVEL_2A = "level 2a: probable structure (library match)"
LEVEL_2A_AT_BEST = "level 2a at best: library match, its probability is not known"
LEVEL_3 = "level 3: tentative candidate (library match)"
LEVEL_3_PREDICTED = "level 3: tentative candidate (predicted spectrum)"
LEVEL_3_ANALOGUE = "level 3 at best: analogue (another mass)"
LEVEL_3_STRUCTURE = "level 3: tentative candidate (structure database)"
LEVEL_4 = "level 4: formula only (library match without a structure)"
LEVEL_5 = "level 5: exact mass only (not likely this molecule)"
LEVEL_5_NAMELESS = "level 5: exact mass only (library match without a structure)"


@dataclass(frozen=True, eq=False)
class Annotations:
    """What is told of ``n_hits`` hits.

    Attributes
    ----------
    matched_peaks : int64 array of shape (n_hits,)
        Matched as they are or shifted by the difference of the precursors (`ionbed.embeddings.peak_matches`).
    mass_difference : float64 array of shape (n_hits,)
        In Da, the query's molecule minus the hit's; NaN where the charge of either is unknown.
    difference_formula : list of str
        A likely formula of it, or nothing.
    is_same_mass : bool array of shape (n_hits,)
        Whether the precursors, or the masses of the molecules, agree within `SAME_ION_PPM`.
    """

    matched_peaks: np.ndarray
    mass_difference: np.ndarray
    difference_formula: list[str]
    is_same_mass: np.ndarray


ANNOTATED_COLUMNS = tuple(dict.fromkeys((*SpectrumColumns.TABLE_COLUMNS, "formula")))
"""Of the library spectra, what `annotate` reads."""


def annotate(queries: SpectrumColumns, query: np.ndarray, library: pa.Table, place: np.ndarray) -> Annotations:
    """Return what is told of listed hits.

    Parameters
    ----------
    queries : SpectrumColumns
    query : int64 array of shape (n_hits,)
        The query of each hit.
    library : pyarrow.Table
        `ANNOTATED_COLUMNS` of the library spectra that are hits, each once.
    place : int64 array of shape (n_hits,)
        The row of each hit in it.
    """
    found = SpectrumColumns.from_table(library)
    matched = match_peaks(queries, found, query, place).counts(len(query))
    query_mz, hit_mz = queries.precursor_mz[query], found.precursor_mz[place]
    difference = mass_differences(
        query_mz, queries.charge[query].astype(np.int64), queries.adduct[query],
        hit_mz, found.charge[place].astype(np.int64), found.adduct[place],
    )  # fmt: skip
    formulas = np.array(library["formula"].to_pylist(), object)[place]
    is_same_ion = np.abs(query_mz - hit_mz) <= SAME_ION_PPM * 1e-6 * hit_mz
    is_same_molecule = np.abs(difference) <= SAME_ION_PPM * 1e-6 * hit_mz
    is_same_mass = is_same_ion | is_same_molecule  # NaN agrees with nothing
    likely = likely_differences(np.where(is_same_mass, np.nan, difference), formulas.tolist())
    return Annotations(matched, difference, likely, is_same_mass)


def confidence(
    *, is_same_mass: bool, has_structure: bool, has_formula: bool, predicted: bool, probability: float | None
) -> str:
    """Return how far a hit may be trusted, in the levels of Schymanski et al. (Environ. Sci. Technol. 48 (2014) 2097).

    Level 1 asks for a reference standard measured on the same instrument, level 2b for evidence that no spectrum
    holds: no search gives them. Level 2a is a library spectrum that leaves no doubt.

    Parameters
    ----------
    is_same_mass : bool
        Whether the hit may be the query's molecule at all; an analogue is not.
    has_structure, has_formula : bool
        Of the library spectrum.
    predicted : bool
        Whether a program predicted the library spectrum.
    probability : float or None
        That the hit's molecule is the query's.
    """
    if not is_same_mass:
        return LEVEL_3_ANALOGUE
    if not has_structure:
        return LEVEL_4 if has_formula else LEVEL_5_NAMELESS
    if probability is not None and probability < UNLIKELY:
        return LEVEL_5
    if predicted:
        return LEVEL_3_PREDICTED
    if probability is None:
        return LEVEL_2A_AT_BEST
    return LEVEL_2A if probability >= LIKELY else LEVEL_3


def warnings_of(queries: SpectrumColumns, model: object) -> list[str]:
    """Return in what each query lies outside of what a model was trained on, or can compare; empty where in nothing.

    Parameters
    ----------
    queries : SpectrumColumns
    model : object
        As `ionbed.load_model` gives it; what it does not know of its training is not looked at.
    """
    config = getattr(model, "config", None)
    training: Sequence[Mapping[str, Any]] = getattr(config, "training", None) or ()
    found = outside_of(queries, united(stage["ranges"] for stage in training if stage.get("ranges")))
    max_peaks = getattr(config, "max_peaks", None)
    counts = queries.num_peaks
    for row in np.flatnonzero(counts < FEW_PEAKS).tolist():
        found[row].append("1 peak only" if counts[row] == 1 else f"{counts[row]} peaks only")
    if max_peaks is not None:
        for row in np.flatnonzero(counts > max_peaks).tolist():
            found[row].append(f"of {counts[row]} peaks the model reads the {max_peaks} most intense")
    for row in np.flatnonzero(queries.polarity == 0).tolist():
        found[row].append("polarity unknown: compared with spectra of both")
    return ["; ".join(words) for words in found]

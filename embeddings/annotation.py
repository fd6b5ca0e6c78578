"""What a hit tells besides its score: matched peaks, difference of the masses, how far to trust it, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..spectra.columns import SpectrumColumns
from ..spectra.measured_ranges import outside_of, united
from .mass_differences import likely_differences, molecule_masses
from .peak_matches import match_peaks

SAME_ION_PPM = 10.0
"""In an open search a hit is an analogue where the precursors, and the masses of the molecules, differ by more."""

NEAR_DA = 0.5
"""Within a window a hit is an analogue where the precursors differ by more Da per charge, however wide the window; and
in any search, where the molecules differ by more although the precursors do not: their adducts are not the same."""

LIKELY = 0.9
"""The probability from which on a library match may be a probable structure."""

UNLIKELY = 0.1
"""Below this probability a library match counts as no candidate."""

FEW_PEAKS = 3
"""With fewer, a spectrum, or a match, has hardly anything that another molecule could not have."""

LEVEL_2A = "level 2a: probable structure (library match; like isomers are not excluded)"
LEVEL_3 = "level 3: tentative candidate (library match)"
LEVEL_3_FEW_PEAKS = f"level 3: tentative candidate (library match of fewer than {FEW_PEAKS} peaks)"
LEVEL_3_NEAR = f"level 3: tentative candidate (library match; precursors more than {SAME_ION_PPM:g} ppm apart)"
LEVEL_3_FLATTERED = "level 3: tentative candidate (library match; probability not tested across laboratories)"
LEVEL_3_AT_BEST = "level 3 at best: library match, its probability is not known"
LEVEL_3_PREDICTED = "level 3: tentative candidate (predicted spectrum)"
LEVEL_3_PREDICTED_AT_BEST = "level 3 at best: predicted spectrum, its probability is not known"
LEVEL_3_ANALOGUE = "level 3 at best: analogue (another mass)"
LEVEL_3_STRUCTURE = "level 3: tentative candidate (structure database)"
LEVEL_3_ANY_MASS = "level 3 at best: structure database, the masses were not compared"
LEVEL_4 = "level 4 at best: formula only (library match without a structure)"
LEVEL_5 = "level 5: exact mass only (not likely this molecule)"
LEVEL_5_ANALOGUE = "level 5: exact mass only (analogue without a structure)"
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
        Whether the hit may be the query's molecule: the masses of the molecules agree within `SAME_ION_PPM`, or the
        precursors do (within a window: within `NEAR_DA`) and no adduct or charge says otherwise.
    is_same_ion : bool array of shape (n_hits,)
        Of these, those whose precursors agree within `SAME_ION_PPM`.
    """

    matched_peaks: np.ndarray
    mass_difference: np.ndarray
    difference_formula: list[str]
    is_same_mass: np.ndarray
    is_same_ion: np.ndarray


ANNOTATED_COLUMNS = tuple(dict.fromkeys((*SpectrumColumns.TABLE_COLUMNS, "formula")))
"""Of the library spectra, what `annotate` reads."""


def annotate(
    queries: SpectrumColumns, query: np.ndarray, library: pa.Table, place: np.ndarray, *, is_window: bool
) -> Annotations:
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
    is_window : bool
        Whether they were found within a precursor window.
    """
    found = SpectrumColumns.from_table(library)
    matched = match_peaks(queries, found, query, place).counts(len(query))
    query_mz, hit_mz = queries.precursor_mz[query], found.precursor_mz[place]
    query_charge, hit_charge = queries.charge[query].astype(np.int64), found.charge[place].astype(np.int64)
    masses = molecule_masses(query_mz, query_charge, queries.adduct[query], hit_mz, hit_charge, found.adduct[place])
    difference = masses[0] - masses[1]
    formulas = np.array(library["formula"].to_pylist(), object)[place]
    apart = np.abs(query_mz - hit_mz)
    charges = np.maximum(np.abs(query_charge), np.abs(hit_charge))
    is_other_ion = np.abs(difference) > NEAR_DA + charges * apart  # NaN is more than nothing
    is_same_ion = (apart <= SAME_ION_PPM * 1e-6 * hit_mz) & ~is_other_ion
    is_near = (apart <= NEAR_DA) & ~is_other_ion & is_window
    is_same_molecule = np.abs(difference) <= SAME_ION_PPM * 1e-6 * np.maximum(*masses)
    is_same_mass = is_same_ion | is_near | is_same_molecule  # NaN agrees with nothing
    likely = likely_differences(np.where(is_same_mass, np.nan, difference), formulas.tolist())
    return Annotations(matched, difference, likely, is_same_mass, is_same_ion)


def confidence(
    *,
    is_same_mass: bool,
    is_same_ion: bool,
    has_structure: bool,
    has_formula: bool,
    predicted: bool,
    probability: float | None,
    is_flattered: bool,
    matched_peaks: int,
) -> str:
    """Return how far a hit may be trusted, in the levels of Schymanski et al. (Environ. Sci. Technol. 48 (2014) 2097).

    Level 1 asks for a reference standard measured on the same instrument, level 2b for evidence that no spectrum
    holds: no search gives them. Level 2a asks for a match of spectrum and structure without ambiguity. No score shows
    that there is no isomer of the same spectrum, so it is given only where everything that a search sees is for it: a
    measured spectrum of the same ion, enough matched peaks, and a probability that was fitted to other laboratories'
    spectra or to the user's.

    Parameters
    ----------
    is_same_mass : bool
        Whether the hit may be the query's molecule at all; an analogue is not.
    is_same_ion : bool
        Whether the precursors agree as well (`Annotations`).
    has_structure, has_formula : bool
        Of the library spectrum.
    predicted : bool
        Whether a program predicted the library spectrum.
    probability : float or None
        That the hit's molecule is the query's.
    is_flattered : bool
        Whether the probabilities were fitted to hits of the queries' own laboratories.
    matched_peaks : int
    """
    if not is_same_mass:
        return LEVEL_3_ANALOGUE if has_structure else LEVEL_5_ANALOGUE
    if not has_structure:
        return LEVEL_4 if has_formula else LEVEL_5_NAMELESS
    if probability is not None and probability < UNLIKELY:
        return LEVEL_5
    if probability is None:
        return LEVEL_3_PREDICTED_AT_BEST if predicted else LEVEL_3_AT_BEST
    if predicted:
        return LEVEL_3_PREDICTED
    if probability < LIKELY:
        return LEVEL_3
    if not is_same_ion:
        return LEVEL_3_NEAR
    if matched_peaks < FEW_PEAKS:
        return LEVEL_3_FEW_PEAKS
    return LEVEL_3_FLATTERED if is_flattered else LEVEL_2A


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

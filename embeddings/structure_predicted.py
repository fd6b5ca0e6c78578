"""Comparing spectra with the predicted spectra of structures: a structure is as good as the best of its predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..spectra.columns import SpectrumColumns
from ..spectra.lookups import ENTROPY, Lookup, LookupOptions, PeakCleaner, weighted_peaks

PAIRS_AT_ONCE = 2**14


def best_of_predictions(
    query_polarity: np.ndarray,
    structure: np.ndarray,
    polarity: np.ndarray,
    owner: np.ndarray,
    similarity: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return, for each pair of a query and a structure, the best similarity over the structure's predicted spectra.

    Only spectra of the query's polarity are compared, whatever its adduct; with a query of unknown polarity all are.

    Parameters
    ----------
    query_polarity : int array of shape (n_pairs,)
        Of the query of each pair: +1, -1, or 0 where unknown.
    structure : int64 array of shape (n_pairs,)
    polarity : int array of shape (n_spectra,)
        Of each predicted spectrum.
    owner : int64 array of shape (n_spectra,)
        The structure of each predicted spectrum, ascending.
    similarity : function
        From pairs and predicted spectra, int64 arrays of shape (n,), to similarities of shape (n,).

    Returns
    -------
    float64 array of shape (n_pairs,)
        NaN where the structure has no such spectrum.
    """
    best = np.full(len(structure), np.nan)
    for sign in np.unique(query_polarity).tolist():
        spectra = np.flatnonzero(polarity == sign) if sign else np.arange(len(polarity))
        of_sign = np.flatnonzero(query_polarity == sign)
        start = np.searchsorted(owner[spectra], structure[of_sign], "left")
        count = np.searchsorted(owner[spectra], structure[of_sign], "right") - start
        has_any = np.flatnonzero(count)
        for begin in range(0, len(has_any), PAIRS_AT_ONCE):
            chunk = has_any[begin : begin + PAIRS_AT_ONCE]
            number = count[chunk]
            bounds = np.cumsum(number) - number
            place = np.arange(number.sum()) + np.repeat(start[chunk] - bounds, number)
            found = similarity(np.repeat(of_sign[chunk], number), spectra[place])
            best[of_sign[chunk]] = np.maximum.reduceat(found, bounds)
    return best


def entropy_lookup(
    queries: SpectrumColumns,
    predicted: SpectrumColumns,
    options: LookupOptions,
    *,
    cleaner: PeakCleaner | None = None,
    workers: int | None = 1,
) -> Lookup:
    """Return the spectral entropy similarity of spectra: first the queries, then the predicted ones, by their number.

    Parameters
    ----------
    queries : SpectrumColumns
    predicted : SpectrumColumns
    options : LookupOptions
    cleaner : PeakCleaner, optional
        Of these options; it need not clean again what it has cleaned.
    workers : int or None
        Threads; all cores where None.
    """
    cleaner = cleaner or PeakCleaner(options)
    cleaned = [*cleaner(queries), *cleaner(predicted)]
    precursor_mz = np.concatenate([queries.precursor_mz, predicted.precursor_mz])
    return Lookup(ENTROPY, weighted_peaks(ENTROPY, cleaned, precursor_mz, options), options, workers=workers)

"""Predicting the spectra of structures, and comparing with them: the best of its predictions speaks for a structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from ..progress import progress as show_progress
from ..progress import unseen
from ..spectra.columns import SpectrumColumns
from ..spectra.lookups import ENTROPY, Lookup, LookupOptions, PeakCleaner, weighted_peaks
from ..spectra.preparation.workers import open_workers
from ..spectra.simulate import simulate_spectra
from ..spectra.store import table_from_spectra

MOLECULES_PER_TASK = 16
WORTH_PROCESSES = 256
PAIRS_AT_ONCE = 2**14


def predicted_table(smiles: Sequence[str], *, workers: int | None, progress: bool = True) -> pa.Table:
    """Return the predicted spectra of molecules, in their order; ``name`` is the place of each one's molecule.

    Molecules that cannot be predicted have none: salts, several charges, labelled isotopes.

    Parameters
    ----------
    smiles : sequence of str
        At least one.
    workers : int or None
        Processes, where there are many molecules; all cores where None.
    progress : bool
        Show the progress on stderr.

    Returns
    -------
    pyarrow.Table
        Of `ionbed.spectra.store.SCHEMA`.
    """
    parts = [(start, smiles[start : start + MOLECULES_PER_TASK]) for start in range(0, len(smiles), MOLECULES_PER_TASK)]
    tables = []
    bar = show_progress("predicted spectra", len(smiles), unit="molecules") if progress else unseen()
    with (
        bar as advance,
        open_workers(workers if len(smiles) >= WORTH_PROCESSES else 1, None) as processes,
    ):
        for part, table in zip(parts, processes.map(_predict_all, parts), strict=True):
            tables.append(table)
            advance(len(part[1]))
    return pa.concat_tables(tables)


def owners_of(predicted: pa.Table) -> np.ndarray:
    """Return the place of the molecule of each spectrum of `predicted_table`, int64 of shape (n,), ascending."""
    return np.array([int(name) for name in predicted["name"].to_pylist()], np.int64)


def _predict_all(part: tuple[int, Sequence[str]]) -> pa.Table:
    first, smiles = part
    return table_from_spectra(list(simulate_spectra((str(first + i), text) for i, text in enumerate(smiles))))


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

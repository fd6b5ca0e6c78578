"""The look-ups a learned score has to beat, as rows of the tables."""

from __future__ import annotations

import numpy as np

from ...spectra.columns import SpectrumColumns
from ...spectra.lookups import LABELS, Lookup, LookupOptions, PeakCleaner, weighted_peaks
from ..candidates import Candidates
from ..dataset import EvaluationData
from ..entries import Build, Entry
from ..scorers import Kind, Scorer


class LookupScorer(Lookup):
    """A look-up as a row: a `Scorer` and `PairScorer`."""

    kind: Kind = "look-up"


def lookup_scorers(
    columns: SpectrumColumns, options: LookupOptions, *, cleaner: PeakCleaner | None = None, workers: int | None = None
) -> list[LookupScorer]:
    """Return the four look-ups over all spectra of the data, in the order of the table.

    Parameters
    ----------
    columns : SpectrumColumns
    options : LookupOptions
    cleaner : PeakCleaner, optional
        One made with the same options, where spectra may have been cleaned before.
    workers : int, optional
        Threads; default all cores. The scores do not depend on it.
    """
    cleaned = (PeakCleaner(options) if cleaner is None else cleaner)(columns)
    return [
        LookupScorer(label, weighted_peaks(label, cleaned, columns.precursor_mz, options), options, workers=workers)
        for label in LABELS
    ]


def lookup_entries(options: LookupOptions, *, workers: int | None = None) -> list[Entry]:
    """Return the rows of the four look-ups; all of them, however often they are built, clean a spectrum once."""
    cleaner = PeakCleaner(options)

    def build(label: str) -> Build:
        def scorer(data: EvaluationData, candidates: Candidates, rows: np.ndarray) -> Scorer:
            precursor_mz = data.columns.precursor_mz
            peaks = weighted_peaks(label, cleaner(data.columns, rows), precursor_mz, options)
            return LookupScorer(label, peaks, options, rows=rows, workers=workers)

        return scorer

    # Cleaning removes the precursor's peak, so every one of them is given the precursor m/z.
    return [Entry(label, "look-up", (build(label),), ("precursor_mz",)) for label in LABELS]

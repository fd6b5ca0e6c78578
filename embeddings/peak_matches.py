"""Which peaks of a query match which of a library spectrum, as they are or shifted by the difference of the precursors.

In NumPy, for all hits of many queries at once: a search needs no compiler. The scores of the look-ups have loops of
their own (`ionbed.spectra.peak_matching`) over peaks that are merged before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..spectra.columns import SpectrumColumns
from ..spectra.spectrum import Spectrum

TOLERANCE_DA = 0.02
"""Two peaks match within this many Da."""

NOISE_CUTOFF = 0.01
"""Peaks below this share of the base peak are not matched: among many weak ones, some agree by chance."""

REMOVE_PRECURSOR_DA = 1.6
"""Nor are peaks above the precursor m/z minus this: the surviving precursor matches wherever the precursors do."""

_APART = 1e5
"""Da between the peaks of one pair of spectra and those of the next, laid on one axis; more than any m/z."""


@dataclass(frozen=True, eq=False)
class PeakMatches:
    """Matched peaks of listed pairs of spectra; each peak of a pair at most once.

    Attributes
    ----------
    pair : int64 array of shape (n_matches,)
        Place in the list of pairs.
    query_peak, library_peak : int64 arrays of shape (n_matches,)
        Places of the peaks within their spectra.
    is_shifted : bool array of shape (n_matches,)
        Whether the peaks match with the difference of the precursors between them: equal neutral losses.
    """

    pair: np.ndarray
    query_peak: np.ndarray
    library_peak: np.ndarray
    is_shifted: np.ndarray

    def __len__(self) -> int:
        """Return the number of matches."""
        return len(self.pair)

    def counts(self, num_pairs: int) -> np.ndarray:
        """Return the number of matches of each pair, int64 of shape (num_pairs,)."""
        return np.bincount(self.pair, minlength=num_pairs)


def match_peaks(
    queries: SpectrumColumns,
    library: SpectrumColumns,
    first: np.ndarray,
    second: np.ndarray,
    *,
    tolerance_da: float = TOLERANCE_DA,
) -> PeakMatches:
    """Match the peaks of listed pairs.

    Two peaks match where each is the nearest of the other, within the tolerance; a tie goes to the lower m/z. First
    peaks are matched as they are; of those that are left, where the precursors differ by more than the tolerance, such
    whose neutral losses agree (as in the hybrid search of Li and Fiehn, Nat. Methods 20 (2023) 1475-1478).

    Parameters
    ----------
    queries, library : SpectrumColumns
    first, second : int64 arrays of shape (n_pairs,)
        Spectra of ``queries`` and of ``library``.
    tolerance_da : float
    """
    asked, found = _LaidOut(queries, first), _LaidOut(library, second)
    shift = queries.precursor_mz[first] - library.precursor_mz[second]
    a, b = _mutual_nearest(asked, found, np.zeros(len(first)), tolerance_da)
    is_of_another = np.abs(shift) > tolerance_da
    own = asked.take(np.setdiff1d(np.flatnonzero(is_of_another[asked.pair]), a, assume_unique=True))
    other = found.take(np.setdiff1d(np.flatnonzero(is_of_another[found.pair]), b, assume_unique=True))
    c, d = _mutual_nearest(own, other, shift, tolerance_da)
    query_place = np.concatenate([a, own.place[c]])
    library_place = np.concatenate([b, other.place[d]])
    is_shifted = np.repeat([False, True], [len(a), len(c)])
    order = np.argsort(query_place, kind="stable")
    query_place, library_place = query_place[order], library_place[order]
    return PeakMatches(asked.pair[query_place], asked.peak[query_place], found.peak[library_place], is_shifted[order])


def matches_of(query: Spectrum, hit: Spectrum, *, tolerance_da: float = TOLERANCE_DA) -> PeakMatches:
    """Match the peaks of two spectra; see `match_peaks`."""
    pair = np.zeros(1, np.int64)
    columns = SpectrumColumns.from_spectra([query]), SpectrumColumns.from_spectra([hit])
    return match_peaks(*columns, pair, pair, tolerance_da=tolerance_da)


def usable_peaks(columns: SpectrumColumns) -> np.ndarray:
    """Return how many peaks of each spectrum can match, int64 of shape (n_spectra,)."""
    spectrum, _ = columns.peak_places()
    usable = _is_usable(columns.mz, columns.intensity, columns.precursor_mz[spectrum])
    return np.bincount(spectrum[usable], minlength=len(columns))


def _is_usable(mz: np.ndarray, intensity: np.ndarray, precursor_mz: np.ndarray) -> np.ndarray:
    usable: np.ndarray = (intensity >= NOISE_CUTOFF) & (mz.astype(np.float64) <= precursor_mz - REMOVE_PRECURSOR_DA)
    return usable


class _LaidOut:
    """Peaks of listed spectra that are to be matched, the spectra of one list after the other.

    Attributes
    ----------
    mz : float64 array of shape (n_peaks,)
    pair : int64 array of shape (n_peaks,)
        The place of the spectrum in the list.
    peak : int64 array of shape (n_peaks,)
        The place of the peak in the spectrum.
    place : int64 array of shape (n_peaks,)
        Its place here when they were laid out.
    """

    def __init__(self, columns: SpectrumColumns, rows: np.ndarray) -> None:
        counts = columns.num_peaks[rows]
        pair = np.repeat(np.arange(len(rows)), counts)
        peak = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        flat = peak + np.repeat(columns.offsets[rows], counts)
        mz = columns.mz[flat].astype(np.float64)
        kept = _is_usable(mz, columns.intensity[flat], columns.precursor_mz[rows][pair])
        self.mz, self.pair, self.peak = mz[kept], pair[kept], peak[kept]
        self.place = np.arange(len(self.mz))

    def take(self, places: np.ndarray) -> _LaidOut:
        """Return some of the peaks."""
        part = object.__new__(_LaidOut)
        part.mz, part.pair = self.mz[places], self.pair[places]
        part.peak, part.place = self.peak[places], self.place[places]
        return part


def _mutual_nearest(
    first: _LaidOut, second: _LaidOut, shift: np.ndarray, tolerance_da: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of matching peaks in both; ``shift`` (of each pair) is added to the m/z of the second."""
    moved = second.mz + shift[second.pair]
    nearest, away = _nearest(moved, second.pair, first.mz, first.pair)
    candidates = np.flatnonzero(away <= tolerance_da)
    of = nearest[candidates]
    back, _ = _nearest(first.mz, first.pair, moved[of], second.pair[of])
    is_mutual = back == candidates
    return candidates[is_mutual], of[is_mutual]


def _nearest(
    mz: np.ndarray, pair: np.ndarray, asked_mz: np.ndarray, asked_pair: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the peak of the same pair that is nearest to each one asked for, and how far it is in Da.

    Both lists ascend by pair, then by m/z. Of two as near it is the lower; infinitely far where the pair has none.
    """
    if not len(mz):
        return np.zeros(len(asked_mz), np.int64), np.full(len(asked_mz), np.inf)
    right = np.searchsorted(mz + _APART * pair, asked_mz + _APART * asked_pair)
    left = (right - 1).clip(0)
    right = right.clip(max=len(mz) - 1)
    # On one axis m/z are rounded, by where their pair lies on it: distances are those of the m/z themselves.
    below, above = (
        np.where(pair[place] == asked_pair, np.abs(mz[place] - asked_mz), np.inf) for place in (left, right)
    )
    is_below = below <= above
    return np.where(is_below, left, right), np.where(is_below, below, above)

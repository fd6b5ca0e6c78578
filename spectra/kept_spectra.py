"""Spectra of a library, cleaned and weighted once for many searches, as many as a bound of memory allows."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from .columns import SpectrumColumns
from .lookups import LookupOptions, PeakCleaner
from .pair_features import ComparedSpectra, WeightedSpectra

KEPT_BYTES = 1 << 30
"""Of memory for the cleaned peaks of one library: those of 1.5 million spectra with 20 peaks each."""

BYTES_PER_PEAK = 28
"""An m/z in single precision, and two weights and an entropy term in double precision."""

BYTES_PER_SPECTRUM = 40

ROWS_READ_AT_ONCE = 1 << 13


class KeptSpectra:
    """Cleans spectra when they are first asked for, and keeps them.

    Where there is no room for those that come, all that were kept are forgotten: what is kept is one array after the
    other without gaps, and searches that follow one another ask for the same neighbours of their queries again.

    Parameters
    ----------
    read : function of an int64 array of rows
        Gives the spectra of these rows.
    num_rows : int
    options : LookupOptions
    most_bytes : int
        That are kept. More are in use where the rows of one call need more.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], SpectrumColumns],
        num_rows: int,
        options: LookupOptions,
        *,
        most_bytes: int = KEPT_BYTES,
    ) -> None:
        self._read, self._options, self._most_bytes = read, options, most_bytes
        self._lock = threading.Lock()
        self._place = np.full(num_rows, -1, np.int32)
        self._arrays = _Arrays()

    def compared(self, rows: np.ndarray) -> tuple[ComparedSpectra, np.ndarray]:
        """Return spectra that can be compared, and where among them those of ``rows`` are.

        Parameters
        ----------
        rows : int64 array of shape (n,)
            All different.

        Returns
        -------
        compared : ComparedSpectra
        place : int64 array of shape (n,)
        """
        # What was returned before stays as it is: arrays only grow behind it, or are replaced by others.
        with self._lock:
            missing = np.sort(rows[self._place[rows] < 0])
            for begin in range(0, len(missing), ROWS_READ_AT_ONCE):
                some = missing[begin : begin + ROWS_READ_AT_ONCE]
                weighted = self._weighted(some)
                if self._arrays.bytes + _bytes(weighted) > self._most_bytes:
                    return self._anew(rows)
                begin_kept = len(self._arrays)
                self._arrays.append(weighted)  # first: where there is no memory for them, they have no place
                self._place[some] = begin_kept + np.arange(len(some))
            return ComparedSpectra(self._arrays.weighted(), self._options), self._place[rows].astype(np.int64)

    def _anew(self, rows: np.ndarray) -> tuple[ComparedSpectra, np.ndarray]:
        """Forget all, and keep ``rows`` if there is room for them."""
        self._place[:] = -1
        self._arrays, arrays = _Arrays(), _Arrays()
        for begin in range(0, len(rows), ROWS_READ_AT_ONCE):
            arrays.append(self._weighted(rows[begin : begin + ROWS_READ_AT_ONCE]))
        if arrays.bytes <= self._most_bytes:
            self._arrays = arrays
            self._place[rows] = np.arange(len(rows))
        return ComparedSpectra(arrays.weighted(), self._options), np.arange(len(rows))

    def _weighted(self, rows: np.ndarray) -> WeightedSpectra:
        columns = self._read(rows)
        return WeightedSpectra.of(columns, PeakCleaner(self._options, most=0)(columns), self._options)


class _Arrays:
    """The arrays of `WeightedSpectra`, to which spectra can be appended; they are never changed where they are read."""

    def __init__(self) -> None:
        self._offsets = np.zeros(1, np.int64)
        self._of_peaks = [np.empty(0, dtype) for dtype in (np.float32, np.float64, np.float64, np.float64)]
        self._of_spectra = [np.empty(0) for _ in range(4)]
        self._num_spectra = self._num_peaks = 0

    def __len__(self) -> int:
        return self._num_spectra

    @property
    def bytes(self) -> int:
        return self._num_peaks * BYTES_PER_PEAK + self._num_spectra * BYTES_PER_SPECTRUM

    def append(self, new: WeightedSpectra) -> None:
        by_entropy, by_cosine = new.entropy_peaks, new.cosine_peaks
        spectra, peaks = self._num_spectra + len(new), self._num_peaks + len(by_entropy.mz)
        self._offsets = _grown(self._offsets, self._num_spectra + 1, spectra + 1)
        self._offsets[self._num_spectra + 1 : spectra + 1] = by_entropy.offsets[1:] + self._num_peaks
        for place, values in enumerate((by_entropy.mz, by_entropy.weight, by_entropy.self_term, by_cosine.weight)):
            array = self._of_peaks[place] = _grown(self._of_peaks[place], self._num_peaks, peaks)
            array[self._num_peaks : peaks] = values
        for place, values in enumerate((by_cosine.norm, by_entropy.precursor_mz, new.entropy, new.energy)):
            array = self._of_spectra[place] = _grown(self._of_spectra[place], self._num_spectra, spectra)
            array[self._num_spectra : spectra] = values
        self._num_spectra, self._num_peaks = spectra, peaks

    def weighted(self) -> WeightedSpectra:
        from .peak_matching import PeakLists

        offsets = self._offsets[: self._num_spectra + 1]
        mz, by_entropy, self_term, by_cosine = (array[: self._num_peaks] for array in self._of_peaks)
        norm, precursor_mz, entropy, energy = (array[: self._num_spectra] for array in self._of_spectra)
        return WeightedSpectra(
            PeakLists(offsets, mz, by_entropy, self_term, np.empty(0), precursor_mz),
            PeakLists(offsets, mz, by_cosine, np.empty(0), norm, precursor_mz),
            entropy,
            energy,
        )


def _bytes(weighted: WeightedSpectra) -> int:
    return len(weighted.entropy_peaks.mz) * BYTES_PER_PEAK + len(weighted) * BYTES_PER_SPECTRUM


def _grown(array: np.ndarray, used: int, needed: int) -> np.ndarray:
    """Return ``array``, or a copy of what is used of it that has room for what is needed and half as much again."""
    if needed <= len(array):
        return array
    larger = np.empty(needed + needed // 2, array.dtype)
    larger[:used] = array[:used]
    return larger

"""Look-ups of spectra by their peaks: cosine, modified cosine, spectral entropy and its hybrid form.

Peaks are cleaned by ms_entropy. The scores are those of matchms (`CosineGreedy`, `ModifiedCosineGreedy`) and of
ms_entropy (`calculate_entropy_similarity`, `FlashEntropySearch.hybrid_search`), worked out by the compiled loops of
`peak_matching`, which take listed pairs as well as whole libraries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .columns import SpectrumColumns
from .preparation.workers import usable_cores

if TYPE_CHECKING:
    from .peak_matching import PeakIndex, PeakLists

COSINE, MODIFIED_COSINE = "cosine", "modified cosine"
ENTROPY, HYBRID_ENTROPY = "spectral entropy", "hybrid entropy"
LABELS = (COSINE, MODIFIED_COSINE, ENTROPY, HYBRID_ENTROPY)

PAIRS_PER_PART = 4096
"""Listed pairs that one thread takes at a time."""

QUERIES_WORTH_INDEXING = 16
"""With fewer queries than this, every pair is scored by itself: sorting the library's peaks would take longer."""


@dataclass(frozen=True)
class LookupOptions:
    """How every look-up cleans peaks and matches them. Order: precursor, merging, noise.

    Attributes
    ----------
    tolerance_da : float
        Two peaks match within this many Da.
    remove_precursor_da : float
        Peaks above the precursor m/z minus this are removed (Li and Fiehn, 2023). The hybrid search needs it: a
        peak at or above the precursor has no neutral loss.
    merge_da : float
        Peaks closer than this are merged into their centroid, so that no two can match one.
    noise_cutoff : float
        Peaks below this share of the highest are removed.
    cosine_intensity_power : float
        Intensities are raised to this power before a cosine (0.5: square root). The entropy has its own weighting.
    """

    tolerance_da: float = 0.02
    remove_precursor_da: float = 1.6
    merge_da: float = 0.05
    noise_cutoff: float = 0.01
    cosine_intensity_power: float = 0.5

    def __post_init__(self) -> None:
        if self.tolerance_da <= 0:
            raise ValueError(f"'tolerance_da' is {self.tolerance_da}; it must be above 0")
        if self.merge_da <= 2 * self.tolerance_da:
            raise ValueError(
                f"'merge_da' is {self.merge_da}; it must be above twice 'tolerance_da' ({self.tolerance_da}), "
                "or one peak could match two"
            )
        if self.remove_precursor_da <= self.tolerance_da:
            raise ValueError(
                f"'remove_precursor_da' is {self.remove_precursor_da}; it must be above 'tolerance_da' "
                f"({self.tolerance_da}), or the hybrid search would meet negative neutral losses"
            )
        if not 0 <= self.noise_cutoff < 1:
            raise ValueError(f"'noise_cutoff' is {self.noise_cutoff}; it must be at least 0 and below 1")
        if self.cosine_intensity_power <= 0:
            raise ValueError(f"'cosine_intensity_power' is {self.cosine_intensity_power}; it must be above 0")


class PeakCleaner:
    """Cleans spectra, each of them once: a spectrum is known by its peaks and precursor m/z, not by its row.

    Parameters
    ----------
    options : LookupOptions
    most : int, optional
        Spectra whose cleaned peaks are kept, the first that come; later ones are cleaned whenever they are asked for.
        Default all: some kB each.
    """

    def __init__(self, options: LookupOptions, *, most: int | None = None) -> None:
        self._options, self._most = options, most
        self._cleaned: dict[bytes, np.ndarray] = {}

    def __call__(self, columns: SpectrumColumns, rows: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the cleaned peaks of every spectrum, and no peaks for those that are not in ``rows``.

        Parameters
        ----------
        columns : SpectrumColumns
        rows : int array, optional
            The spectra to clean; default all.

        Returns
        -------
        list of float32 arrays of shape (n_peaks, 2)
            m/z ascending, and intensity with sum 1; no row where nothing is left.
        """
        results = [np.empty((0, 2), np.float32)] * len(columns)
        offsets, precursors = columns.offsets.tolist(), columns.precursor_mz
        for row in range(len(columns)) if rows is None else np.unique(rows).tolist():
            span = slice(offsets[row], offsets[row + 1])
            mz, intensity, precursor_mz = columns.mz[span], columns.intensity[span], precursors[row]
            if self._most == 0:
                results[row] = self._clean(mz, intensity, float(precursor_mz))
                continue
            key = hashlib.blake2b(mz.tobytes(), digest_size=16)
            key.update(intensity.tobytes())
            key.update(precursor_mz.tobytes())
            found = self._cleaned.get(key.digest())
            if found is None:
                found = self._clean(mz, intensity, float(precursor_mz))
                if self._most is None or len(self._cleaned) < self._most:
                    self._cleaned[key.digest()] = found
            results[row] = found
        return results

    def _clean(self, mz: np.ndarray, intensity: np.ndarray, precursor_mz: float) -> np.ndarray:
        from ms_entropy import clean_spectrum

        cleaned: np.ndarray = clean_spectrum(
            np.column_stack([mz, intensity]),
            min_mz=-1,
            max_mz=max(precursor_mz - self._options.remove_precursor_da, 1e-3),
            noise_threshold=self._options.noise_cutoff,
            min_ms2_difference_in_da=self._options.merge_da,
            max_peak_num=-1,
            normalize_intensity=True,
        )
        return cleaned


def clean_peaks(columns: SpectrumColumns, options: LookupOptions) -> list[np.ndarray]:
    """Return each spectrum's peaks after cleaning, as `PeakCleaner` returns them."""
    return PeakCleaner(options)(columns)


def weighted_peaks(
    label: str, cleaned: list[np.ndarray], precursor_mz: np.ndarray, options: LookupOptions
) -> PeakLists:
    """Return cleaned peaks with the weights of one look-up.

    Parameters
    ----------
    label : str
        One of `LABELS`.
    cleaned : list of arrays
        From `PeakCleaner`, one per spectrum of the data.
    precursor_mz : float64 array of shape (n,)
    options : LookupOptions
    """
    from .peak_matching import PeakLists

    counts = np.array([len(peaks) for peaks in cleaned], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    joined = np.concatenate([np.empty((0, 2), np.float32), *cleaned])
    mz, intensity = np.ascontiguousarray(joined[:, 0]), joined[:, 1].astype(np.float64)
    spectrum = np.repeat(np.arange(len(cleaned)), counts)
    precursor_mz = np.ascontiguousarray(precursor_mz, np.float64)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(spectrum, weights=values, minlength=len(cleaned))

    if label in (COSINE, MODIFIED_COSINE):
        weight = intensity**options.cosine_intensity_power
        return PeakLists(offsets, mz, weight, np.empty(0), np.sqrt(sums(weight**2)), precursor_mz)
    # Li et al. 2021: where the entropy is below 3 (nats), intensities are raised to 0.25 + 0.25 * entropy.
    entropy = -sums(intensity * np.log(intensity))
    weight = intensity ** np.where(entropy < 3, 0.25 + 0.25 * entropy, 1.0)[spectrum]
    weight /= np.where(entropy < 3, sums(weight), 1.0)[spectrum]
    return PeakLists(offsets, mz, weight, weight * np.log2(weight), np.empty(0), precursor_mz)


class Lookup:
    """One look-up over spectra whose peaks are cleaned and weighted.

    Parameters
    ----------
    label : str
        One of `LABELS`.
    peaks : PeakLists
        From `weighted_peaks`, for the same label.
    options : LookupOptions
    rows : int array, optional
        The spectra that were cleaned; default all. To score another raises ValueError.
    workers : int, optional
        Threads; default all cores. The scores do not depend on it.
    """

    def __init__(
        self,
        label: str,
        peaks: PeakLists,
        options: LookupOptions,
        *,
        rows: np.ndarray | None = None,
        workers: int | None = None,
    ) -> None:
        self.label = label
        self._is_entropy = label in (ENTROPY, HYBRID_ENTROPY)
        self._is_shifted = label in (MODIFIED_COSINE, HYBRID_ENTROPY)
        self._peaks, self._options, self._tolerance = peaks, options, options.tolerance_da
        self._workers = usable_cores() if workers is None else workers
        self._indexed: tuple[np.ndarray, PeakIndex, PeakIndex | None] | None = None
        self._is_cleaned = np.full(len(peaks.precursor_mz), rows is None)
        if rows is not None:
            self._is_cleaned[rows] = True

    def scores(self, queries: np.ndarray, library: np.ndarray, *, of: Lookup | None = None) -> np.ndarray:
        """Return the scores of every query with every library spectrum; the index of the last library is kept.

        Parameters
        ----------
        queries, library : int64 arrays of spectra
        of : Lookup, optional
            The same look-up over other spectra, where the queries are among those.

        Returns
        -------
        float32 array of shape (n_queries, n_library)
            From 0 to 1.
        """
        from .peak_matching import score_library, score_library_shifted

        asked = self if of is None else of
        queries, library = asked._checked(queries), self._checked(library)
        if len(queries) < QUERIES_WORTH_INDEXING and not self._has_index(library):
            listed = self.pair_scores(np.repeat(queries, len(library)), np.tile(library, len(queries)), of=of)
            return listed.reshape(len(queries), len(library))
        fragments, losses = self._index(library)
        results = np.empty((len(queries), len(library)), np.float32)

        def part(begin: int, end: int) -> None:
            wanted, written, peaks = queries[begin:end], results[begin:end], (asked._peaks, self._peaks)
            if losses is None:
                score_library(self._is_entropy, *peaks, fragments, wanted, library, self._tolerance, written)
            else:
                score_library_shifted(
                    self._is_entropy, *peaks, fragments, losses, wanted, library, self._tolerance, written
                )

        run_in_threads(part, len(queries), max(1, -(-len(queries) // self._workers)), self._workers)
        return results

    def pair_scores(self, first: np.ndarray, second: np.ndarray, *, of: Lookup | None = None) -> np.ndarray:
        """Return the scores of listed pairs, float32 of shape (n_pairs,); ``first`` are spectra of ``of``, if given."""
        from .peak_matching import score_listed

        asked = self if of is None else of
        first, second = asked._checked(first), self._checked(second)
        results = np.empty(len(first), np.float32)

        def part(begin: int, end: int) -> None:
            score_listed(
                self._is_entropy, self._is_shifted, asked._peaks, self._peaks, first[begin:end], second[begin:end],
                self._tolerance, results[begin:end],
            )  # fmt: skip

        run_in_threads(part, len(first), PAIRS_PER_PART, self._workers)
        return results

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        if not self._is_cleaned[rows].all():
            raise ValueError(f"'{self.label}' was made for other spectra; it would take their peaks for none")
        return rows

    def index_library(self, library: np.ndarray) -> None:
        """Make the index of a library, which is kept until that of another is made."""
        self._index(self._checked(library))

    def _has_index(self, library: np.ndarray) -> bool:
        return self._indexed is not None and np.array_equal(self._indexed[0], library)

    def _index(self, library: np.ndarray) -> tuple[PeakIndex, PeakIndex | None]:
        from .peak_matching import build_index

        if self._indexed is None or not self._has_index(library):
            losses = build_index(self._peaks, library, losses=True) if self._is_shifted else None
            self._indexed = library, build_index(self._peaks, library, losses=False), losses
        return self._indexed[1:]


def run_in_threads(part: Callable[[int, int], None], count: int, size: int, workers: int) -> None:
    """Call ``part(begin, end)`` for all of ``count``, ``size`` at a time; compiled loops hold no lock of Python's."""
    begins = range(0, count, size)
    if workers == 1 or len(begins) < 2:
        for begin in begins:
            part(begin, min(begin + size, count))
        return
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(part, begin, min(begin + size, count)) for begin in begins]:
            done.result()

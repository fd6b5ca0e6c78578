"""The look-ups a learned score has to beat: cosine, modified cosine, spectral entropy and its hybrid form.

Cosines come from matchms (`FlashSimilarity`, greedy assignment of peaks), entropies from ms_entropy
(`FlashEntropySearch`). Both see the same cleaned peaks.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...errors import InputError
from ...spectra.columns import SpectrumColumns
from ..scorers import Kind, Scorer


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


def lookup_scorers(columns: SpectrumColumns, options: LookupOptions) -> list[Scorer]:
    """Return the four look-ups over all spectra of the data, in the order of the table.

    Raises
    ------
    InputError
        matchms or ms_entropy is not installed.
    """
    require_lookups()
    peaks = clean_peaks(columns, options)
    return [
        FlashCosine("cosine", "fragment", peaks, columns.precursor_mz, options),
        FlashCosine("modified cosine", "hybrid", peaks, columns.precursor_mz, options),
        FlashEntropy("spectral entropy", "open", peaks, columns.precursor_mz, options),
        FlashEntropy("hybrid entropy", "hybrid", peaks, columns.precursor_mz, options),
    ]


def require_lookups() -> None:
    """Raise `InputError` where matchms or ms_entropy is not installed."""
    try:
        with warnings.catch_warnings():  # what matchms imports for formats that are not read here
            warnings.filterwarnings("ignore", message="hdf5plugin is missing")
            import matchms
        import ms_entropy  # noqa: F401
    except ImportError as error:
        raise InputError(f"the look-ups need {error.name}; install it with: pip install 'ionbed[evaluate]'") from None
    # matchms announces every spectrum that has no peaks left; here that is counted, not announced.
    logging.getLogger(matchms.__name__).setLevel(logging.ERROR)


def clean_peaks(columns: SpectrumColumns, options: LookupOptions) -> list[np.ndarray]:
    """Return each spectrum's peaks after cleaning.

    Returns
    -------
    list of float32 arrays of shape (n_peaks, 2)
        m/z ascending, and intensity with sum 1; no row where nothing is left.
    """
    from ms_entropy import clean_spectrum

    cleaned = []
    for row, precursor_mz in enumerate(columns.precursor_mz):
        span = slice(columns.offsets[row], columns.offsets[row + 1])
        cleaned.append(
            clean_spectrum(
                np.column_stack([columns.mz[span], columns.intensity[span]]),
                min_mz=-1,
                max_mz=max(float(precursor_mz) - options.remove_precursor_da, 1e-3),
                noise_threshold=options.noise_cutoff,
                min_ms2_difference_in_da=options.merge_da,
                max_peak_num=-1,
                normalize_intensity=True,
            )
        )
    return cleaned


class FlashCosine:
    """Cosine by matchms: 'fragment' is the greedy cosine, 'hybrid' the modified greedy cosine.

    Parameters
    ----------
    peaks : list of arrays
        From `clean_peaks`, one per spectrum of the data.
    precursor_mz : float64 array of shape (n,)
    """

    kind: Kind = "look-up"

    def __init__(
        self,
        label: str,
        mode: Literal["fragment", "hybrid"],
        peaks: list[np.ndarray],
        precursor_mz: np.ndarray,
        options: LookupOptions,
    ) -> None:
        from matchms.similarity import FlashSimilarity

        self.label = label
        self._peaks, self._precursor_mz = peaks, precursor_mz
        self._power = options.cosine_intensity_power
        # Peaks arrive clean: matchms must not clean them a second time in its own way.
        self._similarity = FlashSimilarity(
            score_type="cosine",
            matching_mode=mode,
            tolerance=options.tolerance_da,
            remove_precursor=False,
            noise_cutoff=0.0,
            normalize_to_half=False,
            merge_within=0.0,
        )

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return cosines from 0 to 1; see `Scorer`."""
        references = [self._spectrum(row) for row in queries]
        searched = [self._spectrum(row) for row in library]
        with contextlib.redirect_stderr(io.StringIO()):  # matchms draws a bar of its own for every call
            return np.asarray(self._similarity.matrix(references, searched, n_jobs=1), np.float32)

    def _spectrum(self, row: int) -> Any:
        from matchms import Spectrum

        mz, intensity = self._peaks[row].astype(np.float64).T
        return Spectrum(
            mz=np.ascontiguousarray(mz),
            intensities=intensity**self._power,
            metadata={"precursor_mz": float(self._precursor_mz[row])},
            metadata_harmonization=False,
        )


class FlashEntropy:
    """Spectral entropy similarity by ms_entropy: 'open' matches fragments, 'hybrid' fragments or neutral losses.

    Parameters as for `FlashCosine`. Li and Fiehn, Nat. Methods 20 (2023) 1475-1478.
    """

    kind: Kind = "look-up"

    def __init__(
        self,
        label: str,
        mode: Literal["open", "hybrid"],
        peaks: list[np.ndarray],
        precursor_mz: np.ndarray,
        options: LookupOptions,
    ) -> None:
        self.label = label
        self._mode = mode
        self._peaks, self._precursor_mz = peaks, precursor_mz
        self._tolerance = options.tolerance_da
        self._indexed: tuple[np.ndarray, Any, np.ndarray] | None = None

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return similarities from 0 to 1; see `Scorer`."""
        search, columns = self._index(library)
        results = np.zeros((len(queries), len(library)), np.float32)
        if not len(columns):
            return results
        for row, query in enumerate(queries):
            peaks = self._peaks[query]
            if self._mode == "open":
                found = search.open_search(peaks, self._tolerance)
            else:
                found = search.hybrid_search(float(self._precursor_mz[query]), peaks, self._tolerance)
            results[row, columns] = found
        return results

    def _index(self, library: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return the index of the library's spectra, and the library position of each indexed spectrum."""
        from ms_entropy import FlashEntropySearch

        if self._indexed is not None and np.array_equal(self._indexed[0], library):
            return self._indexed[1:]
        # The default step of 0.0001 Da would make tables of 15 million entries for every small library.
        search = FlashEntropySearch(max_ms2_tolerance_in_da=self._tolerance, mz_index_step=0.01)
        spectra = [
            {"precursor_mz": float(self._precursor_mz[row]), "peaks": self._peaks[row], "position": position}
            for position, row in enumerate(library)
            if len(self._peaks[row])
        ]
        # The index is in precursor order, and without the empty spectra.
        indexed = search.build_index(spectra, clean_spectra=False) if spectra else []
        columns = np.array([spectrum["position"] for spectrum in indexed], np.int64)
        self._indexed = (library, search, columns)
        return search, columns

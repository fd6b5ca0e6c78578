"""What two spectra have in common beside one score: matched peaks and their weight, entropies, collision energies.

The numbers from which a fused score is made (`ionbed.embeddings.fusion`). None names a molecule or a laboratory, and
all are the same whichever of the two spectra is the query.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .columns import SpectrumColumns
from .lookups import (
    COSINE,
    HYBRID_ENTROPY,
    PAIRS_PER_PART,
    Lookup,
    LookupOptions,
    PeakCleaner,
    run_in_threads,
    weighted_peaks,
)
from .preparation.workers import usable_cores

LARGEST_ENERGY_DIFFERENCE = 100.0
"""In eV; greater ones are as this."""

COMMON_DIFFERENCES = (
    *("H2", "CH2", "C2H4", "C3H6", "C4H8", "C5H8", "C2H2", "C6H4"),
    *("O", "O2", "H2O", "CH2O", "C2H4O", "CO", "CO2", "C2H2O", "C3H2O3", "C7H4O", "C7H4O4", "C9H6O2", "C9H6O3"),
    *("C6H10O5", "C6H10O4", "C5H8O4", "C6H8O6", "SO3", "HPO3", "NH", "NH3", "C2H3NO"),
    *("F-H", "Cl-H", "Br-H", "CF3-H", "Cl-F", "O-CH2", "O-NH", "N-CH", "S-O"),
)
"""Formulas by which two molecules of one kind often differ: chain lengths, double bonds and rings, substituents, acyl
groups, sugars, conjugates, and exchanges (``Cl-H``: chlorine for hydrogen)."""

COMMON_TOLERANCE_DA = 0.005
"""A difference of two precursors is a common one within this many Da: some error of measured values, and few others."""

FEATURES = (
    "spectral entropy",
    "hybrid entropy",
    "cosine",
    "modified cosine",
    "matched peaks",
    "shifted matches",
    "lower matched weight",
    "higher matched weight",
    "lower shifted weight",
    "higher shifted weight",
    "lower entropy",
    "entropy difference",
    "fewer peaks",
    "energy difference",
    "energy unknown",
    "precursor difference",
    "same precursor",
    "dissimilarity",
    "common difference",
)
"""Columns of `pair_features`, in order.

The four scores are those of the look-ups. Counts are ``log(1 + n)`` of peaks after cleaning; a shifted match is one of
fragments whose neutral losses agree. Weights are the shares of a spectrum's weighted intensity (that of the entropy)
in matched peaks, the lower and the higher of the two spectra. Entropies are in nats. The energy difference is
``log(1 + |a - b|)`` of the collision energies in eV, at most that of `LARGEST_ENERGY_DIFFERENCE`, and 0 where one is
unknown; 'energy unknown' is then 1. The precursor difference is ``log(1 + |a - b|)`` in Da; 'same precursor' is 1
within the tolerance of the peaks. The dissimilarity is 1 - the square of the spectral entropy similarity. 'common
difference' is 1 where the precursors differ by the mass of one of `COMMON_DIFFERENCES`, or not at all.
"""


class ComparedSpectra:
    """Spectra whose peaks are cleaned and weighted, to be compared pair by pair.

    Parameters
    ----------
    columns : SpectrumColumns of n spectra
    options : LookupOptions
    rows : int array, optional
        The spectra to clean; default all. To compare another raises ValueError.
    cleaner : PeakCleaner, optional
        One made with the same options, where spectra may have been cleaned before.
    workers : int, optional
        Threads; default all cores. The numbers do not depend on it.

    Attributes
    ----------
    hybrid_entropy : Lookup
        The look-up by which candidates are proposed in an open search.
    """

    def __init__(
        self,
        columns: SpectrumColumns,
        options: LookupOptions,
        *,
        rows: np.ndarray | None = None,
        cleaner: PeakCleaner | None = None,
        workers: int | None = None,
    ) -> None:
        self._options, self._workers = options, usable_cores() if workers is None else workers
        cleaned = (PeakCleaner(options) if cleaner is None else cleaner)(columns, rows)
        self._entropy_peaks = weighted_peaks(HYBRID_ENTROPY, cleaned, columns.precursor_mz, options)
        self._cosine_peaks = weighted_peaks(COSINE, cleaned, columns.precursor_mz, options)
        self.hybrid_entropy = Lookup(HYBRID_ENTROPY, self._entropy_peaks, options, rows=rows, workers=self._workers)
        self._entropy = spectral_entropies(cleaned)
        self._energy = np.asarray(columns.collision_energy, np.float64)
        self._is_cleaned = np.full(len(columns), rows is None)
        if rows is not None:
            self._is_cleaned[rows] = True

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self._energy)

    def features(self, first: np.ndarray, second: np.ndarray, *, of: ComparedSpectra | None = None) -> np.ndarray:
        """Return the `FEATURES` of listed pairs.

        Parameters
        ----------
        first, second : int64 arrays of shape (n_pairs,)
            Spectra.
        of : ComparedSpectra, optional
            Made with the same options, where the first of each pair is one of those: queries need not be copied to a
            library.

        Returns
        -------
        float64 array of shape (n_pairs, 19)
        """
        from .peak_matching import match_counts, score_listed

        asked = self if of is None else of
        first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
        if not (asked._is_cleaned[first].all() and self._is_cleaned[second].all()):
            raise ValueError("a spectrum is compared whose peaks were not cleaned; it would be taken for an empty one")
        tolerance = self._options.tolerance_da
        peaks = {
            True: (asked._entropy_peaks, self._entropy_peaks),
            False: (asked._cosine_peaks, self._cosine_peaks),
        }
        scores = np.empty((4, len(first)), np.float32)
        counts = np.empty((len(first), 6), np.float64)

        def part(begin: int, end: int) -> None:
            pairs = first[begin:end], second[begin:end]
            for place, (is_entropy, is_shifted) in enumerate(
                ((True, False), (True, True), (False, False), (False, True))
            ):
                score_listed(is_entropy, is_shifted, *peaks[is_entropy], *pairs, tolerance, scores[place, begin:end])
            match_counts(*peaks[True], *pairs, tolerance, counts[begin:end])

        run_in_threads(part, len(first), PAIRS_PER_PART, self._workers)
        num_peaks = [
            of.offsets[rows + 1] - of.offsets[rows] for of, rows in zip(peaks[True], (first, second), strict=True)
        ]
        entropy = asked._entropy[first], self._entropy[second]
        energy_difference = np.abs(asked._energy[first] - self._energy[second])
        precursor_mz = asked._entropy_peaks.precursor_mz[first], self._entropy_peaks.precursor_mz[second]
        precursor_difference = np.abs(precursor_mz[0] - precursor_mz[1])
        return np.column_stack(
            [
                *scores.astype(np.float64),
                np.log1p(counts[:, 0]),
                np.log1p(counts[:, 3]),
                np.minimum(counts[:, 1], counts[:, 2]),
                np.maximum(counts[:, 1], counts[:, 2]),
                np.minimum(counts[:, 4], counts[:, 5]),
                np.maximum(counts[:, 4], counts[:, 5]),
                np.minimum(*entropy),
                np.abs(entropy[0] - entropy[1]),
                np.log1p(np.minimum(*num_peaks)),
                np.log1p(np.minimum(np.nan_to_num(energy_difference, nan=0.0), LARGEST_ENERGY_DIFFERENCE)),
                np.isnan(energy_difference),
                np.log1p(precursor_difference),
                precursor_difference <= tolerance,
                1.0 - scores[0].astype(np.float64) ** 2,
                is_common_difference(precursor_difference),
            ]
        )


def is_common_difference(precursor_difference: np.ndarray) -> np.ndarray:
    """Return which differences of precursors (Da, not negative) are 0 or those of `COMMON_DIFFERENCES`, bool."""
    masses = _common_masses()
    place = np.searchsorted(masses, precursor_difference).clip(1, len(masses) - 1)
    away = np.minimum(np.abs(precursor_difference - masses[place - 1]), np.abs(precursor_difference - masses[place]))
    near: np.ndarray = away <= COMMON_TOLERANCE_DA
    return near


@cache
def _common_masses() -> np.ndarray:
    """Return 0 and the masses of `COMMON_DIFFERENCES` in Da, ascending."""
    from .molecules import formula_mass_and_charge

    def mass(formula: str) -> float:
        found = formula_mass_and_charge(formula)
        assert found is not None, formula
        return found[0]

    parts = [difference.split("-") for difference in COMMON_DIFFERENCES]
    return np.sort([0.0, *(abs(mass(first) - sum(map(mass, second))) for first, *second in parts)])


def spectral_entropies(cleaned: list[np.ndarray]) -> np.ndarray:
    """Return the entropy of the intensities of each spectrum in nats, 0 for one without peaks; float64 of shape (n,).

    Parameters
    ----------
    cleaned : list of arrays of shape (n_peaks, 2)
        From `PeakCleaner`.
    """
    counts = np.array([len(peaks) for peaks in cleaned], np.int64)
    intensity = np.concatenate([np.empty(0), *(peaks[:, 1] for peaks in cleaned)]).astype(np.float64)
    spectrum = np.repeat(np.arange(len(cleaned)), counts)
    return -np.bincount(spectrum, weights=intensity * np.log(intensity), minlength=len(cleaned))

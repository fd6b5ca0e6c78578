"""What two spectra have in common beside one score: matched peaks and their weight, entropies, collision energies.

The numbers from which a fused score is made (`ionbed.embeddings.fusion`). None names a molecule or a laboratory, and
all are the same whichever of the two spectra is the query.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from .peak_matching import PeakLists

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


SHIFTED = frozenset(
    {
        "hybrid entropy",
        "modified cosine",
        "shifted matches",
        "lower shifted weight",
        "higher shifted weight",
    }
)
"""Features for which fragments are matched shifted by the difference of the precursors, too."""


@dataclass(frozen=True, eq=False)
class WeightedSpectra:
    """Spectra whose peaks are cleaned and weighted, as arrays.

    Attributes
    ----------
    entropy_peaks, cosine_peaks : PeakLists
        The same peaks with the weights of either.
    entropy : float64 array of shape (n,)
        From `spectral_entropies`.
    energy : float64 array of shape (n,)
        Collision energy in eV, NaN where unknown.
    """

    entropy_peaks: PeakLists
    cosine_peaks: PeakLists
    entropy: np.ndarray
    energy: np.ndarray

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.energy)

    @classmethod
    def of(cls, columns: SpectrumColumns, cleaned: list[np.ndarray], options: LookupOptions) -> WeightedSpectra:
        """Weight peaks that `PeakCleaner` gave."""
        return cls(
            weighted_peaks(HYBRID_ENTROPY, cleaned, columns.precursor_mz, options),
            weighted_peaks(COSINE, cleaned, columns.precursor_mz, options),
            spectral_entropies(cleaned),
            np.asarray(columns.collision_energy, np.float64),
        )


class ComparedSpectra:
    """Spectra whose peaks are cleaned and weighted, to be compared pair by pair.

    Parameters
    ----------
    columns : SpectrumColumns of n spectra, or WeightedSpectra
        Cleaned already in the second case, with the same options.
    options : LookupOptions
    rows : int array, optional
        The spectra to clean; default all. To compare another raises ValueError.
    cleaner : PeakCleaner, optional
        One made with the same options, where spectra may have been cleaned before.
    workers : int, optional
        Threads; default all cores. The numbers do not depend on it.
    """

    def __init__(
        self,
        columns: SpectrumColumns | WeightedSpectra,
        options: LookupOptions,
        *,
        rows: np.ndarray | None = None,
        cleaner: PeakCleaner | None = None,
        workers: int | None = None,
    ) -> None:
        self._options, self._workers = options, usable_cores() if workers is None else workers
        if isinstance(columns, SpectrumColumns):
            cleaned = (PeakCleaner(options) if cleaner is None else cleaner)(columns, rows)
            columns = WeightedSpectra.of(columns, cleaned, options)
        self.weighted, self._rows = columns, rows
        self._is_cleaned: np.ndarray | None = None
        if rows is not None:
            self._is_cleaned = np.zeros(len(columns), bool)
            self._is_cleaned[rows] = True

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.weighted)

    @cached_property
    def hybrid_entropy(self) -> Lookup:
        """The look-up by which candidates are proposed in an open search."""
        peaks = self.weighted.entropy_peaks
        return Lookup(HYBRID_ENTROPY, peaks, self._options, rows=self._rows, workers=self._workers)

    def features(
        self,
        first: np.ndarray,
        second: np.ndarray,
        *,
        of: ComparedSpectra | None = None,
        names: Collection[str] = FEATURES,
    ) -> np.ndarray:
        """Return the `FEATURES` of listed pairs.

        Parameters
        ----------
        first, second : int64 arrays of shape (n_pairs,)
            Spectra.
        of : ComparedSpectra, optional
            Made with the same options, where the first of each pair is one of those: queries need not be copied to a
            library.
        names : collection of str
            Features that are needed; the columns of others are NaN.

        Returns
        -------
        float64 array of shape (n_pairs, 19)
        """
        from .peak_matching import compare_listed

        asked = self if of is None else of
        first, second = np.ascontiguousarray(first, np.int64), np.ascontiguousarray(second, np.int64)
        if not (asked._are_cleaned(first) and self._are_cleaned(second)):
            raise ValueError("a spectrum is compared whose peaks were not cleaned; it would be taken for an empty one")
        tolerance, own, other = self._options.tolerance_da, asked.weighted, self.weighted
        with_shifted = not SHIFTED.isdisjoint(names)
        scores = np.full((4, len(first)), np.nan, np.float32)
        counts = np.full((6, len(first)), np.nan)

        def part(begin: int, end: int) -> None:
            compare_listed(
                own.entropy_peaks, other.entropy_peaks, own.cosine_peaks, other.cosine_peaks, first, second, begin, end,
                tolerance, with_shifted, scores, counts,
            )  # fmt: skip

        run_in_threads(part, len(first), PAIRS_PER_PART, self._workers)
        num_peaks = [
            peaks.offsets[rows + 1] - peaks.offsets[rows]
            for peaks, rows in ((own.entropy_peaks, first), (other.entropy_peaks, second))
        ]
        entropy = own.entropy[first], other.entropy[second]
        energy_difference = np.abs(own.energy[first] - other.energy[second])
        precursor_difference = np.abs(own.entropy_peaks.precursor_mz[first] - other.entropy_peaks.precursor_mz[second])
        values: dict[str, Callable[[], np.ndarray]] = {
            "spectral entropy": lambda: scores[0],
            "hybrid entropy": lambda: scores[1],
            "cosine": lambda: scores[2],
            "modified cosine": lambda: scores[3],
            "matched peaks": lambda: np.log1p(counts[0]),
            "shifted matches": lambda: np.log1p(counts[3]),
            "lower matched weight": lambda: np.minimum(counts[1], counts[2]),
            "higher matched weight": lambda: np.maximum(counts[1], counts[2]),
            "lower shifted weight": lambda: np.minimum(counts[4], counts[5]),
            "higher shifted weight": lambda: np.maximum(counts[4], counts[5]),
            "lower entropy": lambda: np.minimum(*entropy),
            "entropy difference": lambda: np.abs(entropy[0] - entropy[1]),
            "fewer peaks": lambda: np.log1p(np.minimum(*num_peaks)),
            "energy difference": lambda: np.log1p(
                np.minimum(np.nan_to_num(energy_difference, nan=0.0), LARGEST_ENERGY_DIFFERENCE)
            ),
            "energy unknown": lambda: np.isnan(energy_difference),
            "precursor difference": lambda: np.log1p(precursor_difference),
            "same precursor": lambda: precursor_difference <= tolerance,
            "dissimilarity": lambda: 1.0 - scores[0].astype(np.float64) ** 2,
            "common difference": lambda: is_common_difference(precursor_difference),
        }
        columns = np.empty((len(FEATURES), len(first)))  # each column in one piece, as it is written and read
        for place, name in enumerate(FEATURES):
            columns[place] = values[name]() if name in names else np.nan
        return columns.T

    def _are_cleaned(self, rows: np.ndarray) -> bool:
        return self._is_cleaned is None or bool(self._is_cleaned[rows].all())


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

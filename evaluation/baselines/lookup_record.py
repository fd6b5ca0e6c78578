"""What the look-ups do to spectra and how they score them, in words, checked against the published programs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ...spectra.columns import SpectrumColumns
from ...spectra.lookups import (
    COSINE,
    ENTROPY,
    HYBRID_ENTROPY,
    LABELS,
    MODIFIED_COSINE,
    LookupOptions,
    PeakCleaner,
)
from .lookups import lookup_scorers

PAIRS_CHECKED = 200
NEIGHBOURS = 20
"""Half of the checked pairs are of spectra that lie within so many places by precursor m/z."""

LARGEST_ROUNDING = 1e-5
LARGEST_SHARE_APART = 0.02
"""Pairs that may differ by more than rounding: at the very edge of the tolerance, the last digit of an m/z decides."""


@dataclass(frozen=True)
class Agreement:
    """How the scores of one look-up compare with those of the published program on the same cleaned peaks.

    Attributes
    ----------
    against : str
        The function and its version.
    pairs : int
        Compared.
    apart : int
        Of these, how many differ by more than `LARGEST_ROUNDING`.
    largest_difference : float
    """

    against: str
    pairs: int
    apart: int
    largest_difference: float


@dataclass(frozen=True)
class LookupRecord:
    """Everything that a look-up's score depends on, as it stands in ``results.json``.

    Attributes
    ----------
    steps : tuple of str
        What happens to every spectrum, in this order.
    scores : dict of label to str
        What is then computed, by its published name.
    options : dict of str to float
        The numbers in ``steps``, as set.
    versions : dict of str to str
        Of the programs that take part.
    agreement : dict of label to Agreement
    """

    steps: tuple[str, ...]
    scores: dict[str, str]
    options: dict[str, float]
    versions: dict[str, str]
    agreement: dict[str, Agreement]


def require_evaluation_packages() -> None:
    """Raise `InputError` where what the look-ups are checked against, or the solver of the fits, is not installed."""
    for name in ("matchms", "scipy"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"an evaluation needs {name}; install it with: pip install 'ionbed[evaluate]'")


def lookup_record(columns: SpectrumColumns, options: LookupOptions, *, seed: int = 0) -> LookupRecord:
    """Return the record of the look-ups, checked against matchms and ms_entropy on pairs of these very spectra.

    Parameters
    ----------
    columns : SpectrumColumns
        The spectra from which the pairs are drawn.
    options : LookupOptions
    seed : int
        Of the draw.

    Raises
    ------
    InputError
        matchms is not installed, or a look-up does not agree with it or with ms_entropy.
    """
    require_evaluation_packages()
    return LookupRecord(
        preprocessing_steps(options),
        _definitions(options),
        asdict(options),
        {name: importlib.metadata.version(name) for name in ("ms_entropy", "matchms", "numba")},
        _agreement(columns, options, np.random.default_rng(seed)),
    )


def preprocessing_steps(options: LookupOptions) -> tuple[str, ...]:
    """Return what `PeakCleaner` does, one sentence a step; the order is that of ms_entropy's ``clean_spectrum``."""
    return (
        "peaks without intensity are removed",
        f"peaks above precursor m/z - {options.remove_precursor_da:g} Da are removed: the precursor and its isotopes",
        f"peaks closer than {options.merge_da:g} Da are merged into their centroid, the highest first, "
        "and their intensities added",
        f"peaks below {options.noise_cutoff:.3g} of the highest that is left are removed",
        "intensities are divided by their sum",
        f"cosines: intensities are raised to the power {options.cosine_intensity_power:g}",
        "entropies: where the spectral entropy S (nats) is below 3, intensities are raised to the power 0.25 + 0.25 S "
        "and divided by their sum",
        f"two peaks match within {options.tolerance_da:g} Da; after merging, none can match two",
    )


def _definitions(options: LookupOptions) -> dict[str, str]:
    return {
        COSINE: "sum of the products of matching peaks, divided by the lengths of both (CosineGreedy)",
        MODIFIED_COSINE: "the same, where peaks also match shifted by the difference of the precursors; each peak "
        "once, the largest product first (Watrous et al. 2012; ModifiedCosineGreedy)",
        ENTROPY: "spectral entropy similarity (Li et al. 2021), the 'open search' of Li and Fiehn 2023; among "
        "candidates of one precursor window it is their 'identity search'",
        HYBRID_ENTROPY: "the 'hybrid search' of Li and Fiehn 2023: fragments first, then of the peaks that are left "
        "those whose neutral losses match",
    }


def _agreement(columns: SpectrumColumns, options: LookupOptions, rng: np.random.Generator) -> dict[str, Agreement]:
    cleaner = PeakCleaner(options)
    rows = np.sort(rng.permutation(len(columns))[: 10 * PAIRS_CHECKED])
    sample = columns.take(rows)
    peaks = cleaner(sample)
    first, second = _pairs(sample.precursor_mz, np.array([len(found) > 0 for found in peaks]), rng)
    results = {}
    for scorer in lookup_scorers(sample, options, cleaner=cleaner, workers=1):
        against, published = _published(scorer.label, peaks, sample.precursor_mz, options)
        expected = np.array([published(a, b) for a, b in zip(first, second, strict=True)])
        difference = np.abs(scorer.pair_scores(first, second) - expected)
        apart = int(np.sum(difference > LARGEST_ROUNDING))
        largest = float(difference.max(initial=0.0))
        if apart > LARGEST_SHARE_APART * len(first):
            raise InputError(
                f"the look-up '{scorer.label}' is not that of {against}: {apart} of {len(first)} pairs of these "
                f"spectra differ, by up to {largest:.3g}; install the versions of constraints.txt, or report it"
            )
        results[scorer.label] = Agreement(against, len(first), apart, largest)
    assert tuple(results) == LABELS
    return results


def _pairs(precursor_mz: np.ndarray, has_peaks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of spectra that have peaks, every second of similar precursor m/z."""
    usable = np.flatnonzero(has_peaks)
    usable = usable[np.argsort(precursor_mz[usable], kind="stable")]
    if not len(usable):
        return usable, usable
    place = rng.integers(0, len(usable), PAIRS_CHECKED)
    near = np.minimum(place + rng.integers(0, NEIGHBOURS, PAIRS_CHECKED), len(usable) - 1)
    far = rng.integers(0, len(usable), PAIRS_CHECKED)
    return usable[place], usable[np.where(np.arange(PAIRS_CHECKED) % 2 == 0, near, far)]


def _published(
    label: str, peaks: list[np.ndarray], precursor_mz: np.ndarray, options: LookupOptions
) -> tuple[str, Callable[[int, int], float]]:
    """Return the name of the published function, and it for two spectra that have peaks."""
    import ms_entropy

    with warnings.catch_warnings():  # what matchms imports for formats that are not read here
        warnings.filterwarnings("ignore", message="hdf5plugin is missing")
        import matchms
        from matchms.similarity import CosineGreedy, FlashSimilarity, ModifiedCosineGreedy

    version = f"matchms {importlib.metadata.version('matchms')}"

    def spectrum(row: int, power: float) -> Any:
        mz, intensity = peaks[row].astype(np.float64).T
        return matchms.Spectrum(
            mz=np.ascontiguousarray(mz),
            intensities=intensity**power,
            metadata={"precursor_mz": float(precursor_mz[row])},
            metadata_harmonization=False,
        )

    if label == ENTROPY:
        name = f"calculate_entropy_similarity of ms_entropy {importlib.metadata.version('ms_entropy')}"
        return name, lambda a, b: float(
            ms_entropy.calculate_entropy_similarity(
                peaks[a], peaks[b], ms2_tolerance_in_da=options.tolerance_da, clean_spectra=False
            )
        )
    if label == HYBRID_ENTROPY:
        # Not ms_entropy's own, which on a library of one spectrum takes some empty ranges for matches.
        flash = FlashSimilarity(matching_mode="hybrid", tolerance=options.tolerance_da, noise_cutoff=0.0)

        def hybrid(a: int, b: int) -> float:
            with contextlib.redirect_stderr(io.StringIO()):  # it draws a progress bar for every call
                return float(flash.matrix([spectrum(a, 1.0)], [spectrum(b, 1.0)], n_jobs=1)[0, 0])

        return f"FlashSimilarity (hybrid) of {version}", hybrid
    greedy = (CosineGreedy if label == COSINE else ModifiedCosineGreedy)(tolerance=options.tolerance_da)
    power = options.cosine_intensity_power
    return f"{type(greedy).__name__} of {version}", lambda a, b: float(
        greedy.pair(spectrum(a, power), spectrum(b, power))["score"]
    )

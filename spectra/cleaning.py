"""Cleaning of peak lists: what is dropped, merged and scaled, each by a parameter that the manifest records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PROFILE_CHOICES = ("drop", "centroid")


@dataclass(frozen=True)
class CleaningOptions:
    """How `clean_peaks` cleans; the defaults keep whatever may be signal.

    Attributes
    ----------
    merge_tolerance : float
        In Da. Peaks within this span of one another are one peak written twice (an Orbitrap at resolution 100,000 just
        separates 0.001 Da at m/z 100). 0 merges equal m/z only.
    min_relative_intensity : float
        Peaks below this share of the base peak are dropped. 0.001 is the least that libraries with whole numbers and a
        base peak of 999 can write.
    max_peaks : int
        The most intense peaks that are kept.
    margin_above_precursor : float or None
        In Da. Peaks above the heaviest possible fragment (m/z of the precursor times its charges) plus this margin are
        dropped; the margin leaves room for isotopes and for ions that take up water in the collision cell. Nothing is
        dropped where the charge is not known, nor where None.
    min_peaks : int
        A spectrum with fewer peaks after all this is dropped. 1 keeps spectra of stable ions, which have one peak.
    profile : str
        What becomes of a spectrum that nobody centroided: 'drop', or 'centroid' (`ionbed.spectra.centroiding`), which
        keeps it with centroids of our making in place of the vendor's.
    """

    merge_tolerance: float = 0.001
    min_relative_intensity: float = 0.001
    max_peaks: int = 512
    margin_above_precursor: float | None = None
    min_peaks: int = 1
    profile: str = "drop"

    def __post_init__(self) -> None:
        if not 0.0 <= self.merge_tolerance <= 1.0:
            raise ValueError(f"merge_tolerance is {self.merge_tolerance}; it must lie between 0 and 1 Da")
        if not 0.0 <= self.min_relative_intensity < 1.0:
            raise ValueError(
                f"min_relative_intensity is {self.min_relative_intensity}; it must be at least 0 and below 1"
            )
        if self.margin_above_precursor is not None and not self.margin_above_precursor >= 0.0:
            raise ValueError(f"margin_above_precursor is {self.margin_above_precursor}; it must be 0 or more, or null")
        if not 1 <= self.min_peaks <= self.max_peaks:
            raise ValueError(
                f"min_peaks is {self.min_peaks}; it must be at least 1 and at most max_peaks ({self.max_peaks})"
            )
        if self.profile not in PROFILE_CHOICES:
            raise ValueError(f"profile is {self.profile!r}; it must be one of {', '.join(PROFILE_CHOICES)}")


DEFAULT_CLEANING = CleaningOptions()

_SMALLEST_SHARE = 1e-37
"""Numbers from here on are normal in float32."""
_FLOAT32_STEP, _LARGEST_MZ_OF_STEP = 0.0005, 4096.0
"""Below this m/z neighbouring float32 differ by less than half the step."""
_LARGEST_PLAIN_MZ = 1e30


def clean_peaks(
    mz: np.ndarray,
    intensity: np.ndarray,
    *,
    precursor_mz: float | None = None,
    charge: int | None = None,
    options: CleaningOptions = DEFAULT_CLEANING,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cleaned peaks of one centroided spectrum.

    Drops peaks whose m/z or intensity is not finite or not positive, merges duplicates (summed intensity, mean m/z
    weighted by intensity), drops what `CleaningOptions` says, and scales the base peak to 1.0. May return no peak at
    all; ``min_peaks`` is for the caller to check.

    Parameters
    ----------
    mz, intensity : arrays of shape (n_peaks,)
        In any order and scale; m/z in Da per charge.
    precursor_mz : float or None
    charge : int or None
        Of the precursor, for ``margin_above_precursor``.

    Returns
    -------
    mz, intensity : float32 arrays of shape (n_kept,)
        m/z strictly ascending; the largest intensity is exactly 1.0.
    """
    mz = np.asarray(mz, np.float64)
    intensity = np.asarray(intensity, np.float64)
    heaviest = np.inf
    if options.margin_above_precursor is not None and precursor_mz is not None and charge:
        heaviest = precursor_mz * abs(charge) + options.margin_above_precursor
    if _needs_no_mending(mz, intensity, heaviest, options.merge_tolerance):
        largest = np.maximum.reduce(intensity)
        smallest = np.minimum.reduce(intensity) / largest
        intensity = intensity / largest
        # Peaks that are further apart than floats of this size stay apart in float32.
        is_distinct = options.merge_tolerance >= _FLOAT32_STEP and mz[-1] < _LARGEST_MZ_OF_STEP
    else:
        mz, intensity = _mended(mz, intensity, heaviest, options.merge_tolerance)
        if not len(mz):
            return np.empty(0, np.float32), np.empty(0, np.float32)
        smallest, is_distinct = intensity.min(), False
    if smallest < options.min_relative_intensity:
        keep = intensity >= options.min_relative_intensity
        mz, intensity = mz[keep], intensity[keep]
    if len(mz) > options.max_peaks:
        strongest = np.sort(np.argsort(-intensity, kind="stable")[: options.max_peaks])
        mz, intensity = mz[strongest], intensity[strongest]
    rounded_mz = mz.astype(np.float32)
    if not is_distinct and not (rounded_mz[1:] > rounded_mz[:-1]).all():  # distinct m/z can round to one float32
        mz, intensity = _merge(rounded_mz.astype(np.float64), intensity, 0.0)
        rounded_mz = mz.astype(np.float32)
        intensity = intensity / intensity.max()
    rounded = intensity.astype(np.float32)
    if options.min_relative_intensity < _SMALLEST_SHARE:
        visible = rounded > 0  # a share below the float32 range is nothing
        return rounded_mz[visible], rounded[visible]
    return rounded_mz, rounded


def _needs_no_mending(mz: np.ndarray, intensity: np.ndarray, heaviest: float, merge_tolerance: float) -> bool:
    """Whether all peaks are usable, ascending, and further apart than ``merge_tolerance``: most spectra are so."""
    if not len(mz):
        return False
    return bool(
        np.minimum.reduce(mz) > _SMALLEST_SHARE
        and np.maximum.reduce(mz) <= min(heaviest, _LARGEST_PLAIN_MZ)
        and (len(mz) == 1 or np.minimum.reduce(mz[1:] - mz[:-1]) > merge_tolerance)
        and np.minimum.reduce(intensity) > 0
        and np.maximum.reduce(intensity) < np.inf
    )


def _mended(
    mz: np.ndarray, intensity: np.ndarray, heaviest: float, merge_tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the usable peaks, ascending and merged; the largest intensity is 1.0."""
    with np.errstate(over="ignore", under="ignore"):
        rounded_mz = mz.astype(np.float32)
    usable = (rounded_mz > 0) & (intensity > 0) & np.isfinite(rounded_mz) & np.isfinite(intensity) & (mz <= heaviest)
    mz, intensity = mz[usable], intensity[usable]
    if not len(mz):
        return mz, intensity
    intensity = intensity / intensity.max()
    order = np.lexsort((intensity, mz))
    mz, intensity = _merge(mz[order], intensity[order], merge_tolerance)
    return mz, intensity / intensity.max()


def looks_like_profile(mz: np.ndarray, intensity: np.ndarray) -> bool:
    """Whether the peaks are points of a profile that nobody centroided, though no field of the record says so.

    Two signs together: at least 40% of the points lie evenly spaced between two neighbours (gaps below 0.25 Da that
    differ by less than a third), and a neighbour of the base peak reaches a quarter of its intensity. The first alone
    would also catch the side lobes of a Fourier transform around a sharp peak. Fewer than 10 points are no profile.
    """
    if len(mz) < 10:
        return False
    gaps = mz[1:] - mz[:-1]
    if not np.minimum.reduce(gaps) >= 0:
        order = np.argsort(mz, kind="stable")
        mz, intensity = mz[order], intensity[order]
        gaps = mz[1:] - mz[:-1]
    if np.count_nonzero(gaps < 0.25) < 0.4 * len(mz):
        return False
    left, right = gaps[:-1], gaps[1:]
    even = (left > 0) & (left < 0.25) & (right < 0.25) & (3 * right < 4 * left) & (3 * left < 4 * right)
    if even.sum() < 0.4 * len(mz):
        return False
    base = int(np.argmax(intensity))
    near = [i for i in (base - 1, base + 1) if 0 <= i < len(mz) and gaps[min(i, base)] < 0.25]
    return any(intensity[i] >= 0.25 * intensity[base] for i in near)


def _merge(mz: np.ndarray, intensity: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Merge ascending peaks within ``tolerance`` of the first of their group, so that no chain grows longer."""
    near = mz[1:] - mz[:-1] <= tolerance
    if not near.any():
        return mz, intensity
    starts = [0]
    first = mz[0]
    for peak in range(1, len(mz)):
        if not near[peak - 1] or mz[peak] - first > tolerance:
            starts.append(peak)
            first = mz[peak]
    total = np.add.reduceat(intensity, starts)
    if tolerance == 0.0:
        return mz[starts], total
    return np.add.reduceat(mz * intensity, starts) / total, total

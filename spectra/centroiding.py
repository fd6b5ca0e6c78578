"""Centroid spectra that were kept as profiles: one peak for every hill that stands out of its surroundings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_GAP = 2.5
"""Points further apart than this many times the narrowest spacing near by have lost what was between them: zeros."""
_GAP_REACH = 4
_WIDEST_SPACING = 0.25
"""In Da. Points further apart than this are peaks of their own; no profile is that coarse."""
_DEEPEST_VALLEY = 0.8
"""Two maxima are two peaks where the valley between them is below this share of the lower one; equal Gaussians come to
that at 1.15 times their full width at half maximum."""
_BASELINE_POINTS = 200
"""An unbroken stretch at least this long carries a baseline; shorter ones were cut out of it by the instrument."""
_NOISE_FACTOR = 3.0
_MIN_HILL_POINTS = 3
_FIT_REACH = 6
_FOOT_WIDTHS, _FOOT_SHARE = 2.0, 0.05
"""Hills this near to another (in its full widths at half maximum) and below this share of it are ripples of its foot or
the side lobes of a Fourier transform."""


def centroid(mz: np.ndarray, intensity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one peak for every hill of a profile spectrum.

    A hill is a local maximum with at least three points above zero around it; zeros that a converter left out are put
    back where points are missing. Maxima without a clear valley between them are one hill, and a hill has to stand out
    of the baseline (block-wise median and median absolute deviation) wherever there is one. The centre is the apex of a
    Gaussian fitted by linear least squares to the logarithms of the points above half height, weighted by squared
    intensity, which is exact on a noiseless Gaussian whatever the spacing of the points (Guo, IEEE Signal Processing
    Magazine 28(5), 2011: 134-137); where no Gaussian fits, the centre of mass of those points.

    Parameters
    ----------
    mz, intensity : arrays of shape (n_points,)
        In any order; m/z in Da per charge. Points that are not finite or not positive in m/z are left out, negative
        intensities count as 0.

    Returns
    -------
    mz, intensity : float64 arrays of shape (n_peaks,)
        m/z ascending; the height of the fitted Gaussian. Empty where no hill is found, as in a spectrum that has been
        centroided already.
    """
    mz, intensity = _with_zeros(mz, intensity)
    apexes, starts, stops = _hills(intensity)
    if not len(apexes):
        return np.empty(0), np.empty(0)
    centre, height, width = _fit(mz, intensity, apexes, starts, stops)
    is_ripple = np.zeros(len(centre), bool)
    for shift in range(1, min(_FIT_REACH, len(centre))):
        near = centre[shift:] - centre[:-shift]
        left, right = slice(None, -shift), slice(shift, None)
        is_ripple[right] |= (near < _FOOT_WIDTHS * width[left]) & (height[right] < _FOOT_SHARE * height[left])
        is_ripple[left] |= (near < _FOOT_WIDTHS * width[right]) & (height[left] < _FOOT_SHARE * height[right])
    return centre[~is_ripple], height[~is_ripple]


def _with_zeros(mz: np.ndarray, intensity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points by m/z, a zero at either end and on both sides of every gap."""
    mz, intensity = np.asarray(mz, np.float64), np.asarray(intensity, np.float64)
    usable = np.isfinite(mz) & (mz > 0) & np.isfinite(intensity)
    mz, intensity = mz[usable], np.maximum(intensity[usable], 0.0)
    mz, place = np.unique(mz, return_inverse=True)
    intensity = np.bincount(place, intensity, len(mz))
    if len(mz) < _MIN_HILL_POINTS:
        return np.empty(0), np.empty(0)
    spacing = np.diff(mz)
    padded = np.pad(spacing, _GAP_REACH, constant_values=np.inf)
    narrowest = np.lib.stride_tricks.sliding_window_view(padded, 2 * _GAP_REACH + 1).min(axis=1)
    gaps = np.flatnonzero((spacing > _GAP * narrowest) | (spacing > _WIDEST_SPACING))
    step = np.minimum(narrowest, spacing / 3)[gaps]
    places = np.repeat(gaps + 1, 2)
    mz = np.insert(mz, places, np.ravel([mz[gaps] + step, mz[gaps + 1] - step], "F"))
    ends = [mz[0] - spacing[0]], [mz[-1] + spacing[-1]]
    return np.concatenate([ends[0], mz, ends[1]]), np.pad(np.insert(intensity, places, 0.0), 1)


def _hills(intensity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return apex, first and one-past-last point of every hill."""
    if not len(intensity):
        none = np.empty(0, np.int64)
        return none, none, none
    # A flat top (a saturated detector) is one maximum: compare runs of equal points, not points.
    run_starts = np.flatnonzero(np.r_[True, np.diff(intensity) != 0])
    run_stops = np.r_[run_starts[1:], len(intensity)]
    heights = intensity[run_starts]
    tops = 1 + np.flatnonzero((heights[1:-1] > heights[:-2]) & (heights[1:-1] > heights[2:]))
    apexes = (run_starts[tops] + run_stops[tops] - 1) // 2
    baseline, noise = _baseline(intensity)
    apexes = apexes[intensity[apexes] > (baseline + _NOISE_FACTOR * noise)[apexes]]
    while len(apexes) > 1:
        valleys = np.minimum.reduceat(intensity, np.ravel([apexes[:-1], apexes[1:]], "F"))[::2]
        lower = np.minimum(intensity[apexes[:-1]], intensity[apexes[1:]])
        shallow = (valleys > _DEEPEST_VALLEY * lower) | (lower - valleys < _NOISE_FACTOR * noise[apexes[:-1]])
        if not shallow.any():
            break
        left_is_lower = intensity[apexes[:-1]] < intensity[apexes[1:]]
        merged = np.zeros(len(apexes), bool)
        merged[:-1] |= shallow & left_is_lower
        merged[1:] |= shallow & ~left_is_lower
        apexes = apexes[~merged]
    if not len(apexes):
        return apexes, apexes, apexes
    borders = [0]
    borders += [a + int(np.argmin(intensity[a:b])) for a, b in pairwise(apexes.tolist())]
    starts, stops = np.array(borders), np.array([*[b + 1 for b in borders[1:]], len(intensity)])
    zeros = np.flatnonzero(intensity == 0)
    starts = np.maximum(starts, zeros[np.searchsorted(zeros, apexes) - 1])
    stops = np.minimum(stops, zeros[np.searchsorted(zeros, apexes)] + 1)
    positive = np.r_[0, np.cumsum(intensity > 0)]
    wide = positive[stops] - positive[starts] >= _MIN_HILL_POINTS
    return apexes[wide], starts[wide], stops[wide]


def _baseline(intensity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return baseline and noise at every point: 0 but in long stretches without a zero, block by block."""
    baseline, noise = np.zeros(len(intensity)), np.zeros(len(intensity))
    zeros = np.flatnonzero(intensity == 0)
    for start, stop in zip(zeros[:-1] + 1, zeros[1:], strict=True):
        num_blocks = (stop - start) // _BASELINE_POINTS
        if num_blocks:
            for block in np.array_split(np.arange(start, stop), num_blocks):
                median = np.median(intensity[block])
                baseline[block] = median
                noise[block] = 1.4826 * np.median(np.abs(intensity[block] - median))
    return baseline, noise


def _fit(
    mz: np.ndarray, intensity: np.ndarray, apexes: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centre, height and full width at half maximum of every hill, from its points above half height."""
    offsets = np.arange(-_FIT_REACH, _FIT_REACH + 1)
    points = np.clip(apexes[:, None] + offsets, 0, len(mz) - 1)
    height = intensity[apexes]
    share = intensity[points] / height[:, None]
    inside = (points == apexes[:, None] + offsets) & (points >= starts[:, None]) & (points < stops[:, None])
    inside &= (share >= 0.5) | (np.abs(offsets) <= 1)
    for step in range(1, _FIT_REACH + 1):  # unbroken from the apex outwards
        inside[:, _FIT_REACH + step] &= inside[:, _FIT_REACH + step - 1]
        inside[:, _FIT_REACH - step] &= inside[:, _FIT_REACH - step + 1]
    inside &= share > 0
    share = np.where(inside, share, 0.0)
    distance = np.where(inside, mz[points] - mz[apexes][:, None], 0.0)
    reach = np.abs(distance).max(axis=1)
    mass_centre = mz[apexes] + (share * distance).sum(axis=1) / share.sum(axis=1)

    x = distance / np.where(reach > 0, reach, 1.0)[:, None]
    y = np.log(np.where(inside, share, 1.0))
    weight = share**2
    moments = np.stack([(weight * x**power).sum(axis=1) for power in range(5)], axis=1)
    matrix = moments[:, np.arange(3)[:, None] + np.arange(3)]
    right = np.stack([(weight * y * x**power).sum(axis=1) for power in range(3)], axis=1)
    solvable = (inside.sum(axis=1) >= 3) & (np.abs(np.linalg.det(matrix)) > 1e-12)
    matrix[~solvable] = np.eye(3)
    constant, slope, curvature = np.linalg.solve(matrix, right[..., None])[..., 0].T
    is_hill = solvable & (curvature < 0)
    curvature = np.where(is_hill, curvature, -1.0)
    apex = -slope / (2 * curvature)
    log_height = constant - slope**2 / (4 * curvature)
    is_hill &= (np.abs(apex) <= 1) & (np.abs(log_height) < np.log(1.5))
    return (
        np.where(is_hill, mz[apexes] + apex * reach, mass_centre),
        np.where(is_hill, height * np.exp(np.where(is_hill, log_height, 0.0)), height),
        np.where(is_hill, reach * np.sqrt(-4 * np.log(2) / curvature), 0.0),
    )

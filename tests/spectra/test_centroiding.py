"""Centroids of made-up profiles whose centres are known: error in ppm, neighbours, gaps, noise, what is no hill."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.centroiding import centroid
from ionbed.spectra.cleaning import CleaningOptions
from ionbed.spectra.harmonise import Dropped, harmonise
from ionbed.spectra.record import RawRecord
from ionbed.spectra.spectrum import Spectrum


def profile(centres, heights, resolution=20_000, points_per_width=5.0, floor=0.0, reach=0.5):
    """Return Gaussians on a grid of even resolution, within ``reach`` Da of their centres; no point below ``floor``."""
    step = 1 / resolution / points_per_width
    near = [np.arange(np.log(centre - reach) // step, np.log(centre + reach) // step) for centre in centres]
    mz = np.exp(np.unique(np.concatenate(near)) * step)
    intensity = np.zeros(len(mz))
    for centre, height in zip(centres, heights, strict=True):
        intensity += height * np.exp(-4 * np.log(2) * ((mz - centre) / (centre / resolution)) ** 2)
    return mz, np.where(intensity > floor, intensity, 0.0)


def around_hills(mz, intensity, margin):
    """Leave out zeros that are further than ``margin`` points from a hill, as converters do."""
    near = np.convolve(intensity > 0, np.ones(2 * margin + 1), "same") > 0
    return mz[near], intensity[near]


def ppm(found, true):
    return np.abs(found - true) / true * 1e6


CENTRES = np.array([80.0123, 150.4567, 151.4601, 312.25, 312.5, 640.7, 899.9])
HEIGHTS = np.array([1e3, 5e5, 6e4, 2e4, 3e4, 1e6, 4e3])


@pytest.mark.parametrize("resolution", [5_000, 20_000, 120_000])
@pytest.mark.parametrize("points_per_width", [2.5, 4.0, 9.0])
@pytest.mark.parametrize("margin", [0, 1, 4, None])
def test_hills_without_noise_are_found_exactly(resolution, points_per_width, margin):
    mz, intensity = profile(CENTRES, HEIGHTS, resolution, points_per_width, floor=10.0)
    if margin is not None:
        mz, intensity = around_hills(mz, intensity, margin)
    found, heights = centroid(mz, intensity)
    assert len(found) == len(CENTRES)
    assert ppm(found, CENTRES).max() < 0.01
    np.testing.assert_allclose(heights, HEIGHTS, rtol=1e-3)


@pytest.mark.parametrize(("resolution", "bound"), [(5_000, 5.0), (20_000, 1.5), (120_000, 0.25)])
def test_counting_noise_moves_a_hill_of_a_thousand_ions_little(resolution, bound):
    rng = np.random.default_rng(0)
    centres = np.arange(100.0, 800.0, 7.013)
    mz, intensity = profile(centres, np.full(len(centres), 300.0), resolution)  # some 1,600 ions in all
    found, heights = centroid(mz, rng.poisson(intensity).astype(float))
    nearest = np.array([found[np.argmin(np.abs(found - centre))] for centre in centres])
    assert np.sqrt(np.mean(ppm(nearest, centres) ** 2)) < bound
    assert len(found) <= 1.05 * len(centres)
    assert abs(np.median(heights[heights > 100]) / 300 - 1) < 0.05


@pytest.mark.parametrize(
    ("separation", "second", "count"),
    [(0.6, 1.0, 1), (1.0, 1.0, 1), (1.3, 1.0, 2), (2.0, 1.0, 2), (2.0, 0.2, 2), (0.8, 0.2, 1)],
)
def test_overlapping_hills(separation, second, count):
    width = 500.0 / 20_000
    centres = np.array([500.0, 500.0 + separation * width])
    found, _ = centroid(*profile(centres, [1000.0, 1000.0 * second], points_per_width=8))
    assert len(found) == count
    if count == 2:  # each leans on the other
        assert np.abs(found - centres).max() < 0.12 * width
    elif second == 1.0:
        assert found[0] == pytest.approx(centres.mean(), abs=0.1 * width)


def test_a_baseline_with_noise_gives_few_peaks_and_hides_no_hill():
    rng = np.random.default_rng(1)
    centres = np.array([200.1, 350.2, 500.3])
    mz, intensity = profile(centres, [2000.0, 400.0, 4000.0], 10_000, 6, reach=80.0)
    found, heights = centroid(mz, intensity + 50 + rng.normal(0, 10, len(mz)))
    strongest = np.sort(found[np.argsort(-heights)[:3]])
    assert ppm(strongest, centres).max() < 5
    assert len(found) < 0.005 * len(mz)
    assert np.sort(heights)[:-3].max() < 50 + 6 * 10  # six standard deviations of the noise above its baseline


def test_a_flat_top_is_one_peak_in_its_middle():
    mz, intensity = profile([300.0], [1000.0], points_per_width=12)
    found, heights = centroid(mz, np.minimum(intensity, 600.0))
    assert len(found) == 1
    assert ppm(found, 300.0)[0] < 1e6 / 20_000 / 12  # one point
    assert heights[0] == pytest.approx(600.0, rel=0.05)


def test_side_lobes_of_a_fourier_transform_are_no_peaks():
    mz, intensity = profile([300.0, 300.0 * (1 + 1.6 / 20_000), 300.0 * (1 - 1.6 / 20_000)], [1000.0, 30.0, 30.0])
    found, _ = centroid(mz, intensity)
    assert ppm(found, 300.0).tolist() == pytest.approx([0.0], abs=0.5)


def test_what_is_centroided_already_has_no_hill():
    rng = np.random.default_rng(0)
    assert len(centroid(np.arange(50.0, 500.0, 13.7), rng.uniform(1, 100, 33))[0]) == 0
    for few in ([], [100.0], [100.0, 100.01]):
        assert len(centroid(np.array(few), np.ones(len(few)))[0]) == 0


def test_order_does_not_matter_and_points_that_are_no_numbers_are_left_out():
    mz, intensity = profile(CENTRES, HEIGHTS, floor=10.0)
    expected = centroid(mz, intensity)
    shuffled = np.random.default_rng(0).permutation(len(mz))
    spoiled = np.append(mz[shuffled], [np.nan, -3.0, 500.0]), np.append(intensity[shuffled], [9.0, 9.0, np.nan])
    for result, wanted in zip(centroid(*spoiled), expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@given(st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), max_size=60))
def test_any_points_give_finite_ascending_peaks(points):
    mz, intensity = np.array(points, np.float64).reshape(-1, 2).T
    found, heights = centroid(mz, intensity)
    assert np.isfinite(found).all()
    assert np.isfinite(heights).all()
    assert (np.diff(found) >= 0).all()
    assert (heights > 0).all()


@given(st.lists(st.integers(0, 5), min_size=3, max_size=80))
def test_every_centre_lies_within_the_points(counts):
    mz = 100 + 0.01 * np.arange(len(counts))
    found, _ = centroid(mz, np.array(counts, float))
    assert ((found > mz[0] - 0.01) & (found < mz[-1] + 0.01)).all()
    assert len(found) <= len(counts) / 2


@pytest.mark.parametrize("said", [True, False])
def test_a_profile_is_dropped_or_centroided_by_choice(said):
    fields = {"precursor_mz": "900.0"} | ({"spectrum_representation": "profile"} if said else {})
    mz, intensity = around_hills(*profile(CENTRES, HEIGHTS, floor=10.0), 1)
    record = RawRecord("run.mzML", "scan=1", 1, fields, mz, intensity)
    dropped = harmonise(record)
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "profile"
    repaired: Counter[str] = Counter()
    kept = harmonise(record, CleaningOptions(profile="centroid", min_relative_intensity=0.0), repaired)
    assert isinstance(kept, Spectrum)
    assert repaired == {"centroided": 1}
    np.testing.assert_allclose(kept.mz, CENTRES, rtol=1e-7)
    np.testing.assert_allclose(kept.intensity, HEIGHTS / HEIGHTS.max(), rtol=1e-3)


def test_a_spectrum_called_a_profile_that_has_no_hills_is_dropped():
    record = RawRecord(
        "a.mzML", "1", 1, {"precursor_mz": "300", "spectrum_representation": "profile"}, CENTRES, HEIGHTS
    )
    assert harmonise(record, CleaningOptions(profile="centroid")) == Dropped(
        "profile", "the file says that it is not centroided"
    )
    with pytest.raises(ValueError, match="must be one of drop, centroid"):
        CleaningOptions(profile="keep")

"""Cleaning: what every cleaned spectrum fulfils, and each parameter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ionbed.spectra.cleaning import CleaningOptions, clean_peaks, looks_like_profile

ALL = CleaningOptions(merge_tolerance=0.0, min_relative_intensity=0.0)


@given(st.data(), st.integers(0, 60), st.sampled_from([0.0, 0.001, 0.5]), st.integers(1, 20))
def test_cleaned_peaks_ascend_and_have_one_as_base_peak(
    data: st.DataObject, n: int, tolerance: float, top: int
) -> None:
    mz = data.draw(hnp.arrays(np.float64, n, elements=st.floats(-10, 2000) | st.sampled_from([np.nan, np.inf, 1e300])))
    intensity = data.draw(hnp.arrays(np.float64, n, elements=st.floats(width=64)))
    options = CleaningOptions(merge_tolerance=tolerance, max_peaks=top)
    clean_mz, clean_intensity = clean_peaks(mz, intensity, options=options)
    assert clean_mz.dtype == clean_intensity.dtype == np.float32
    assert len(clean_mz) == len(clean_intensity) <= top
    assert (np.diff(clean_mz) > 0).all()
    assert (clean_intensity > 0).all()
    if len(clean_mz):
        assert clean_intensity.max() == 1.0
    usable = (mz > 1e-30) & (mz < 1e30) & (intensity > 0) & (intensity < np.inf)
    if usable.any():
        assert len(clean_mz)


@given(
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0.0, 0.0), (0.001, 0.001), (0.5, 0.1)]),
    st.sampled_from([None, 1.5]),
)
def test_peaks_that_need_no_mending_come_out_as_those_that_do(
    n: int, seed: int, limits: tuple[float, float], margin: float | None
) -> None:
    """Ascending peaks take a short way; the same ones shuffled, with a zero among them, must give the same bytes."""
    rng = np.random.default_rng(seed)
    mz, intensity = np.sort(rng.uniform(50, 500, n)), rng.lognormal(0, 3, n)
    options = CleaningOptions(limits[0], limits[1], max_peaks=20, margin_above_precursor=margin)
    ion = {"precursor_mz": 400.0, "charge": 1}
    shuffle = rng.permutation(n)
    mended = clean_peaks(np.append(mz[shuffle], 77.0), np.append(intensity[shuffle], 0.0), **ion, options=options)
    for short, long in zip(clean_peaks(mz, intensity, **ion, options=options), mended, strict=True):
        assert short.tobytes() == long.tobytes()


def test_order_and_scale_of_the_input_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    mz, intensity = rng.uniform(50, 500, 80), rng.uniform(1, 1000, 80)
    shuffle = rng.permutation(80)
    expected = clean_peaks(mz, intensity)
    for got, want in zip(clean_peaks(mz[shuffle], 8 * intensity[shuffle]), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_unusable_peaks_go() -> None:
    mz, intensity = clean_peaks(
        np.array([100, np.nan, 110, 120, -5, 0, 130, np.inf]), np.array([5, 5, 0, -3, 9, 9, 10, 9.0]), options=ALL
    )
    assert mz.tolist() == [100, 130]
    assert intensity.tolist() == [0.5, 1.0]


def test_duplicates_merge_to_their_weighted_mean() -> None:
    mz, intensity = clean_peaks(np.array([100.0, 100.0008, 200.0]), np.array([1.0, 3.0, 8.0]))
    assert mz == pytest.approx([100.0006, 200.0], abs=1e-5)
    assert intensity.tolist() == [0.5, 1.0]


def test_a_chain_of_near_peaks_does_not_become_one() -> None:
    mz, _ = clean_peaks(100 + 0.0008 * np.arange(10), np.ones(10))
    assert len(mz) == 5


def test_peaks_that_one_float32_cannot_tell_apart_merge() -> None:
    mz, intensity = clean_peaks(np.array([1000.0, 1000.00001, 1200.0]), np.array([1.0, 1.0, 4.0]), options=ALL)
    assert mz.tolist() == [1000.0, 1200.0]
    assert intensity.tolist() == [0.5, 1.0]


def test_floor_and_number_of_peaks() -> None:
    mz = np.arange(1, 101, dtype=float)
    intensity = mz.copy()
    assert len(clean_peaks(mz, intensity, options=CleaningOptions(min_relative_intensity=0.5))[0]) == 51
    assert clean_peaks(mz, intensity, options=CleaningOptions(max_peaks=3))[0].tolist() == [98, 99, 100]


@pytest.mark.parametrize(
    ("charge", "kept"), [(1, [100.0, 251.0]), (2, [100.0, 251.0, 400.0]), (None, [100.0, 251.0, 400.0, 700.0])]
)
def test_peaks_above_the_heaviest_fragment(charge: int | None, kept: list[float]) -> None:
    mz, _ = clean_peaks(
        np.array([100.0, 251.0, 400.0, 700.0]),
        np.ones(4),
        precursor_mz=250.0,
        charge=charge,
        options=CleaningOptions(margin_above_precursor=2.0),
    )
    assert mz.tolist() == kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"merge_tolerance": -1.0},
        {"merge_tolerance": float("nan")},
        {"min_relative_intensity": 1.0},
        {"min_peaks": 0},
        {"max_peaks": 0},
        {"min_peaks": 9, "max_peaks": 8},
        {"margin_above_precursor": -1.0},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CleaningOptions(**wrong)  # type: ignore[arg-type]


def hills(spacing: float, centres: list[float]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.arange(-5, 6)
    mz = np.concatenate([c + spacing * offsets for c in centres])
    return mz, np.tile(np.exp(-(offsets**2) / 8.0), len(centres))


@pytest.mark.parametrize("spacing", [0.1, 0.002])
def test_profile_is_recognised(spacing: float) -> None:
    mz, intensity = hills(spacing, [100.0, 150.0, 300.0])
    assert looks_like_profile(mz, intensity)
    assert looks_like_profile(mz[::-1], intensity[::-1])


def test_centroids_are_not_profile() -> None:
    rng = np.random.default_rng(0)
    assert not looks_like_profile(np.arange(50.0, 100.0), rng.uniform(size=50))  # unit resolution, every mass a peak
    assert not looks_like_profile(np.sort(rng.uniform(50, 500, 400)), rng.uniform(size=400))
    assert not looks_like_profile(*(half[:5] for half in hills(0.1, [100.0])))
    side_lobes = 132.1 + 0.001 * np.arange(-8, 9)
    assert not looks_like_profile(side_lobes, np.where(np.arange(-8, 9) == 0, 1.0, 0.01))

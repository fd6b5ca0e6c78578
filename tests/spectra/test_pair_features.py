"""What two spectra have in common: by hand, from either side, and the same whatever else is compared with them."""

from __future__ import annotations

import numpy as np
import pytest

from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.lookups import LABELS, Lookup, LookupOptions, clean_peaks, weighted_peaks
from ionbed.spectra.pair_features import COMMON_DIFFERENCES, FEATURES, ComparedSpectra, _common_masses
from ionbed.spectra.peak_matching import _descending
from ionbed.spectra.spectrum import Spectrum

OPTIONS = LookupOptions()


def spectrum(name: str, precursor_mz: float, peaks: dict[float, float], energy: float | None = None) -> Spectrum:
    mz, intensity = np.array(sorted(peaks.items()), np.float32).T
    return Spectrum(
        name, precursor_mz, mz=mz, intensity=intensity / intensity.max(), polarity=1, collision_energy=energy
    )


def crowd(count: int) -> list[Spectrum]:
    rng = np.random.default_rng(3)
    fragments = rng.uniform(50, 150, 15)
    return [
        spectrum(
            str(number),
            float(rng.uniform(200, 300)),
            {float(mz): float(rng.uniform(0.05, 1)) for mz in rng.choice(fragments, int(rng.integers(1, 10)), False)},
            float(rng.choice([10.0, 40.0, np.nan])) if number % 3 else None,
        )
        for number in range(count)
    ]


def named(row: np.ndarray) -> dict[str, float]:
    return dict(zip(FEATURES, row.tolist(), strict=True))


def test_two_spectra_by_hand() -> None:
    # 80 matches as a fragment, 120 and 134.0157 by their loss of 100; every intensity is the same.
    first = spectrum("a", 220.0, {80.0: 1, 120.0: 1}, 10.0)
    second = spectrum("b", 234.0157, {80.0: 1, 134.0157: 1, 60.0: 1, 70.0: 1}, 40.0)
    compared = ComparedSpectra(SpectrumColumns.from_spectra([first, second]), OPTIONS)
    found = named(compared.features(np.array([0]), np.array([1]))[0])
    assert found["matched peaks"] == pytest.approx(np.log(2))
    assert found["shifted matches"] == pytest.approx(np.log(2))
    assert found["lower matched weight"] == found["lower shifted weight"] == pytest.approx(1 / 4)
    assert found["higher matched weight"] == found["higher shifted weight"] == pytest.approx(1 / 2)
    assert found["lower entropy"] == pytest.approx(np.log(2))
    assert found["entropy difference"] == pytest.approx(np.log(2))
    assert found["fewer peaks"] == pytest.approx(np.log(3))
    assert found["energy difference"] == pytest.approx(np.log(31)) and found["energy unknown"] == 0
    assert found["precursor difference"] == pytest.approx(np.log(15.0157)) and found["same precursor"] == 0
    assert found["cosine"] == pytest.approx(1 / np.sqrt(8))
    assert found["dissimilarity"] == pytest.approx(1 - found["spectral entropy"] ** 2) and found["dissimilarity"] < 1


@pytest.mark.parametrize(
    ("difference", "is_common"),
    [(0.0, 1), (0.004, 1), (0.03, 0), (14.01565, 1), (14.0190, 1), (14.0257, 0), (162.05282, 1), (33.96103, 1),
     (0.98402, 1), (7.5, 0), (191.2, 0), (500.0, 0)],
)  # fmt: skip
def test_a_common_difference_is_that_of_a_substituent_or_none(difference, is_common) -> None:
    for sign in (1, -1):
        spectra = [spectrum("a", 600.0, {80.0: 1}), spectrum("b", 600.0 + sign * difference, {80.0: 1})]
        found = named(ComparedSpectra(SpectrumColumns.from_spectra(spectra), OPTIONS).features([0], [1])[0])
        assert found["common difference"] == is_common


def test_every_common_difference_has_a_mass_of_its_own() -> None:
    masses = _common_masses()
    assert (
        len(masses) == 1 + len(COMMON_DIFFERENCES) and masses[0] == 0 and masses[1] == pytest.approx(0.98402, abs=1e-4)
    )
    assert (np.diff(masses) > 1e-3).all() and masses[-1] == pytest.approx(176.03209, abs=1e-4)


def test_an_unknown_energy_is_said_and_no_difference() -> None:
    spectra = [spectrum("a", 220.0, {80.0: 1}, 10.0), spectrum("b", 220.01, {80.0: 1})]
    found = named(ComparedSpectra(SpectrumColumns.from_spectra(spectra), OPTIONS).features([0], [1])[0])
    assert (found["energy difference"], found["energy unknown"], found["same precursor"]) == (0, 1, 1)


def test_either_spectrum_may_be_the_query_and_the_scores_are_those_of_the_lookups() -> None:
    columns = SpectrumColumns.from_spectra(crowd(25))
    first, second = (places.ravel() for places in np.indices((25, 25)))
    compared = ComparedSpectra(columns, OPTIONS, workers=2)
    found = compared.features(first, second)
    np.testing.assert_allclose(found, compared.features(second, first), atol=1e-6)
    assert np.isfinite(found).all() and (found.std(axis=0) > 0).all()
    cleaned = clean_peaks(columns, OPTIONS)
    for label in LABELS:
        lookup = Lookup(label, weighted_peaks(label, cleaned, columns.precursor_mz, OPTIONS), OPTIONS)
        np.testing.assert_array_equal(found[:, FEATURES.index(label)], lookup.pair_scores(first, second))


def test_queries_are_compared_with_a_library_as_if_they_were_of_it() -> None:
    spectra = crowd(40)
    library, queries = SpectrumColumns.from_spectra(spectra[:30]), SpectrumColumns.from_spectra(spectra[30:])
    compared = ComparedSpectra(library, OPTIONS)
    compared.hybrid_entropy.index_library(np.arange(30))
    asked, whole = ComparedSpectra(queries, OPTIONS), ComparedSpectra(SpectrumColumns.from_spectra(spectra), OPTIONS)
    first, second = np.repeat(np.arange(10), 30), np.tile(np.arange(30), 10)
    expected = whole.features(first + 30, second)
    np.testing.assert_array_equal(compared.features(first, second, of=asked), expected)
    hybrid = expected[:, FEATURES.index("hybrid entropy")]
    lookup = compared.hybrid_entropy
    np.testing.assert_array_equal(lookup.pair_scores(first, second, of=asked.hybrid_entropy), hybrid)
    scores = lookup.scores(np.arange(10), np.arange(30), of=asked.hybrid_entropy)
    np.testing.assert_allclose(scores.ravel(), hybrid, atol=1e-6)
    assert (scores > 0.1).any()
    # Without an index, and by the other kinds of look-up, whose loops are their own.
    fresh = ComparedSpectra(library, OPTIONS).hybrid_entropy.scores(
        np.arange(10), np.arange(30), of=asked.hybrid_entropy
    )
    np.testing.assert_allclose(fresh, scores, atol=1e-6)
    for label in LABELS:
        of_library, of_queries = (
            Lookup(label, weighted_peaks(label, clean_peaks(of, OPTIONS), of.precursor_mz, OPTIONS), OPTIONS)
            for of in (library, queries)
        )
        of_library.index_library(np.arange(30))
        found = of_library.scores(np.arange(10), np.arange(30), of=of_queries)
        np.testing.assert_allclose(found.ravel(), expected[:, FEATURES.index(label)], atol=1e-6)


def test_what_was_not_cleaned_is_not_compared() -> None:
    compared = ComparedSpectra(SpectrumColumns.from_spectra(crowd(4)), OPTIONS, rows=np.array([0, 2]))
    compared.features([0], [2])
    with pytest.raises(ValueError, match="not cleaned"):
        compared.features([0], [1])
    asked = ComparedSpectra(SpectrumColumns.from_spectra(crowd(2)), OPTIONS, rows=np.array([0]))
    compared.hybrid_entropy.scores(np.array([0]), np.array([0, 2]), of=asked.hybrid_entropy)
    for first, second in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="made for other spectra"):
            compared.hybrid_entropy.scores(np.array([first]), np.array([second]), of=asked.hybrid_entropy)
        with pytest.raises(ValueError, match="not cleaned"):
            compared.features([first], [second], of=asked)


def test_only_the_features_asked_for_are_worked_out() -> None:
    compared = ComparedSpectra(SpectrumColumns.from_spectra(crowd(12)), OPTIONS)
    first, second = (places.ravel() for places in np.indices((12, 12)))
    every = compared.features(first, second)
    for names in (("spectral entropy", "energy difference"), ("modified cosine",), ("higher shifted weight",)):
        found = compared.features(first, second, names=names)
        for place, name in enumerate(FEATURES):
            if name in names:
                np.testing.assert_array_equal(found[:, place], every[:, place])
            else:
                assert np.isnan(found[:, place]).all()


@pytest.mark.parametrize("count", [0, 1, 9, 64, 65, 150])
def test_the_largest_product_comes_first_and_of_equals_the_last(count) -> None:
    rng = np.random.default_rng(count)
    products, order = rng.integers(0, 12, 200) / 4, np.empty(200, np.int64)
    _descending(products, count, order)
    np.testing.assert_array_equal(order[:count], np.argsort(products[:count], kind="stable")[::-1])

"""Near-duplicates: keys say the same of a spectrum wherever it stands; what goes is alike to enough of what stays."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import matchms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matchms.similarity import CosineGreedy

from ionbed.spectra import near_duplicates
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.near_duplicates import (
    NearDuplicateOptions,
    bucket_keys,
    conditions_of,
    keep_in_bucket,
    similarities,
    unit_vectors,
)
from ionbed.spectra.spectrum import Spectrum

TOLERANCE = NearDuplicateOptions().fragment_tolerance
CAFFEINE = Spectrum(
    "a",
    195.0877,
    np.array([42.034, 69.045, 110.071, 138.066, 195.088], np.float32),
    np.array([0.02, 0.03, 0.2, 1.0, 0.6], np.float32),
    charge=1,
    polarity=1,
    adduct="[M+H]+",
    collision_energy=30.0,
    collision_energy_raw="30 eV",
    instrument_type="LC-ESI-QFT",
    inchikey="RYYVLZVUVIJVGH-UHFFFAOYSA-N",
    formula="C8H10N4O2",
    name="Caffeine",
    laboratory="Eawag",
)

KEYS_OF_CAFFEINE = ["d76d51a2ac2fed90", "121db24ccf9bd16c", "4dcc336e044e0951", "17101081067493e0"]


def random_spectrum(rng: np.random.Generator, num_peaks: int, precursor_mz: float = 500.0) -> Spectrum:
    mz = np.sort(rng.uniform(40, 900, num_peaks)).astype(np.float32)
    intensity = rng.lognormal(sigma=1.5, size=num_peaks)
    return Spectrum("s", precursor_mz, mz, (intensity / intensity.max()).astype(np.float32), polarity=1)


def measured_again(rng: np.random.Generator, spectrum: Spectrum, noise: float) -> Spectrum:
    """Return the spectrum with intensities off by a log-normal factor, m/z by 1 mDa and the precursor by 1 ppm."""
    mz = np.sort(spectrum.mz + rng.normal(0, 0.001, len(spectrum)))
    intensity = spectrum.intensity * np.exp(rng.normal(0, noise, len(spectrum)))
    return replace(
        spectrum,
        precursor_mz=spectrum.precursor_mz * (1 + 1e-6 * rng.normal()),
        mz=mz.astype(np.float32),
        intensity=(intensity / intensity.max()).astype(np.float32),
    )


def keys_of(*spectra: Spectrum, **options: Any) -> np.ndarray:
    conditions = [conditions_of(spectrum) for spectrum in spectra]
    return bucket_keys(SpectrumColumns.from_spectra(spectra), conditions, NearDuplicateOptions(**options))


@pytest.mark.parametrize(
    "wrong", [{"keep": 0}, {"similarity": 0.0}, {"similarity": 1.1}, {"fragment_tolerance": 0.0}, {"precursor_ppm": -1},
              {"tables": 0}, {"bits": 33}],
)  # fmt: skip
def test_impossible_options_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NearDuplicateOptions(**wrong)


def test_a_spectrum_has_the_same_keys_alone_and_in_any_batch() -> None:
    rng = np.random.default_rng(0)
    spectra = [random_spectrum(rng, int(rng.integers(1, 90)), rng.uniform(90, 1500)) for _ in range(1100)]
    together = keys_of(*spectra)
    assert np.array_equal(keys_of(*spectra[::-1])[::-1], together)
    for row in (0, 1, 511, 512, 700, 1099):
        assert np.array_equal(keys_of(spectra[row])[0], together[row])
    crowded = replace(random_spectrum(rng, 6000), intensity=np.ones(6000, np.float32))  # its sums need float64
    assert np.array_equal(keys_of(spectra[0], crowded)[0], together[0])
    assert np.array_equal(keys_of(crowded)[0], keys_of(spectra[0], crowded)[1])


def test_keys_are_the_same_on_every_machine_and_in_every_run() -> None:
    assert [f"{key:016x}" for key in keys_of(CAFFEINE)[0]] == KEYS_OF_CAFFEINE


def test_no_spectra_have_no_keys() -> None:
    assert keys_of().shape == (0, NearDuplicateOptions().tables)


def test_each_spectrum_needs_its_conditions() -> None:
    with pytest.raises(ValueError, match="1 conditions for 2 spectra"):
        bucket_keys(SpectrumColumns.from_spectra([CAFFEINE, CAFFEINE]), [b""])


@pytest.mark.parametrize("noise", [0.15, 0.3])
def test_spectra_measured_again_meet_as_often_as_theory_says(noise: float) -> None:
    rng = np.random.default_rng(1)
    firsts = [random_spectrum(rng, int(n)) for n in rng.integers(5, 60, 1500)]
    seconds = [replace(measured_again(rng, first, noise), precursor_mz=first.precursor_mz) for first in firsts]
    options = NearDuplicateOptions()
    meets = keys_of(*firsts) == keys_of(*seconds)
    cosines = pair_cosines(firsts, seconds)
    expected = (1 - np.arccos(np.minimum(cosines, 1.0)) / np.pi) ** options.bits
    assert abs(meets.mean() - expected.mean()) < 0.03
    assert meets[cosines >= options.similarity].any(axis=1).mean() > 0.95


def test_unlike_spectra_seldom_meet() -> None:
    rng = np.random.default_rng(2)
    keys = keys_of(*[random_spectrum(rng, 40) for _ in range(400)])
    i, j = np.triu_indices(400, 1)
    assert (keys[i] == keys[j]).mean() < 2 * 0.65**6  # their bins overlap by chance: some 65% of the signs agree


@given(st.floats(50, 2000), st.floats(0, 10))
def test_precursors_within_the_tolerance_share_half_of_the_tables(mz: float, ppm: float) -> None:
    one, other = replace(CAFFEINE, precursor_mz=mz), replace(CAFFEINE, precursor_mz=mz * (1 + ppm * 1e-6))
    shared = keys_of(one)[0] == keys_of(other)[0]
    assert shared.sum() >= 2


@given(st.floats(50, 2000), st.floats(41, 1e5))
def test_precursors_far_apart_share_no_table(mz: float, ppm: float) -> None:
    one, other = replace(CAFFEINE, precursor_mz=mz), replace(CAFFEINE, precursor_mz=mz * (1 + ppm * 1e-6))
    assert not (keys_of(one)[0] == keys_of(other)[0]).any()


def test_a_peak_that_crosses_the_border_of_a_bin_changes_no_key() -> None:
    def single_peak(mz: float) -> Spectrum:
        return replace(CAFFEINE, mz=np.array([60.0, mz], np.float32), intensity=np.array([1.0, 0.5], np.float32))

    assert np.array_equal(keys_of(single_peak(137.9999)), keys_of(single_peak(138.0001)))


@pytest.mark.parametrize(
    "change",
    [{"charge": 2}, {"charge": None}, {"polarity": -1}, {"adduct": "[M+Na]+"}, {"ms_level": 3}, {"predicted": True},
     {"instrument_type": "LC-ESI-QTOF"}, {"laboratory": "UFZ"}, {"inchikey": None, "name": "Theobromine"},
     {"inchikey": "YAPQBXQYLJRXSA-UHFFFAOYSA-N"}, {"collision_energy": 31.0}, {"collision_energy": None},
     {"collision_energy_raw": "20,30,40 (stepped)"}],
)  # fmt: skip
def test_other_conditions_or_molecules_never_meet(change: dict[str, Any]) -> None:
    assert not (keys_of(CAFFEINE)[0] == keys_of(replace(CAFFEINE, **change))[0]).any()


@pytest.mark.parametrize(
    "change",
    [{"spectrum_id": "b"}, {"source_file": "b"}, {"retention_time": 60.0}, {"instrument": "Q Exactive"},
     {"name": "1,3,7-Trimethylxanthine"}, {"inchikey": "RYYVLZVUVIJVGH-FAKEFAKESA-N"}, {"collision_energy_raw": "30V"},
     {"collision_energy": 30.0003}],
)  # fmt: skip
def test_what_does_not_matter_does_not_part(change: dict[str, Any]) -> None:
    assert np.array_equal(keys_of(CAFFEINE), keys_of(replace(CAFFEINE, **change)))


def test_where_no_molecule_is_known_laboratories_do_not_part() -> None:
    unlabelled = replace(CAFFEINE, inchikey=None, formula=None, name=None)
    assert conditions_of(unlabelled) == conditions_of(replace(unlabelled, laboratory="UFZ"))
    assert conditions_of(unlabelled) != conditions_of(CAFFEINE)


def test_an_energy_without_a_value_is_told_by_its_text() -> None:
    low = replace(CAFFEINE, collision_energy=None, collision_energy_raw="low ")
    assert conditions_of(low) == conditions_of(replace(low, collision_energy_raw="Low"))
    assert conditions_of(low) != conditions_of(replace(low, collision_energy_raw="high"))


def test_unit_vectors_have_norm_one_and_no_two_peaks_that_one_could_match() -> None:
    rng = np.random.default_rng(3)
    spectra = [random_spectrum(rng, n) for n in (1, 2, 30, 3000)]
    vectors = unit_vectors(SpectrumColumns.from_spectra(spectra), TOLERANCE)
    assert vectors.num_peaks[3] < 3000
    for start, stop in pairwise(vectors.offsets):
        assert np.sum(vectors.intensity[start:stop].astype(float) ** 2) == pytest.approx(1.0, abs=1e-6)
        assert (np.diff(vectors.mz[start:stop].astype(float)) > 2 * TOLERANCE - 1e-4).all()


def test_peaks_close_together_become_their_weighted_mean() -> None:
    spectrum = replace(CAFFEINE, mz=np.array([100.0, 100.016, 200.0], np.float32),
                       intensity=np.array([0.75, 0.25, 1.0], np.float32))  # fmt: skip
    vectors = unit_vectors(SpectrumColumns.from_spectra([spectrum]), TOLERANCE)
    assert vectors.mz == pytest.approx([100.004, 200.0], abs=1e-4)
    assert vectors.intensity == pytest.approx([0.5**0.5] * 2)


def test_similarity_is_that_of_matchms() -> None:
    rng = np.random.default_rng(4)
    firsts = [random_spectrum(rng, int(n)) for n in rng.integers(1, 50, 40)]
    spectra = firsts + [measured_again(rng, first, 0.5) for first in firsts]
    vectors = unit_vectors(SpectrumColumns.from_spectra(spectra), TOLERANCE)
    theirs = [
        matchms.Spectrum(vectors.mz[start:stop].astype(float), vectors.intensity[start:stop].astype(float))
        for start, stop in pairwise(vectors.offsets)
    ]
    cosine = CosineGreedy(tolerance=TOLERANCE)  # on square roots
    ours = similarities(vectors.take(np.arange(40)), vectors, TOLERANCE)
    for i in range(40):
        for j in (i, i + 40, (i + 7) % 40):
            assert ours[i, j] == pytest.approx(float(cosine.pair(theirs[i], theirs[j])["score"]), abs=1e-6)


@st.composite
def buckets(draw: st.DrawFn) -> SpectrumColumns:
    """Draw spectra of a few compounds, each measured again with noise around what still counts as alike."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    compounds = [random_spectrum(rng, draw(st.integers(1, 12))) for _ in range(draw(st.integers(1, 3)))]
    noise = draw(st.sampled_from([0.0, 0.3, 0.8]))
    spread = draw(st.sampled_from([0.0, 8e-6]))  # of the precursor
    members = []
    for _ in range(draw(st.integers(0, 40))):
        spectrum = measured_again(rng, compounds[rng.integers(len(compounds))], noise)
        members.append(replace(spectrum, precursor_mz=spectrum.precursor_mz * (1 + spread * rng.normal())))
    return SpectrumColumns.from_spectra(members)


def brute_force(columns: SpectrumColumns, options: NearDuplicateOptions) -> np.ndarray:
    assert options.keep is not None
    alike = brute_force_alike(columns, options)
    stays = np.zeros(len(columns), bool)
    for row in range(len(columns)):
        stays[row] = sum(bool(alike[row, other] and stays[other]) for other in range(row)) < options.keep
    return stays


def brute_force_alike(columns: SpectrumColumns, options: NearDuplicateOptions) -> np.ndarray:
    vectors = unit_vectors(columns, options.fragment_tolerance)
    peaks = [list(zip(vectors.mz[a:b].tolist(), vectors.intensity[a:b].tolist(), strict=True))
             for a, b in pairwise(vectors.offsets)]  # fmt: skip
    alike = np.zeros((len(columns), len(columns)), bool)
    for i, first in enumerate(peaks):
        for j, second in enumerate(peaks):
            cosine = sum(v * w for x, v in first for y, w in second if abs(x - y) <= options.fragment_tolerance)
            a, b = columns.precursor_mz[[i, j]]
            near = abs(a - b) <= max(a, b) * options.precursor_ppm * 1e-6
            alike[i, j] = near and cosine >= options.similarity - 1e-6
    return alike


@settings(max_examples=60, deadline=None)
@given(buckets(), st.integers(1, 4), st.sampled_from([0.7, 0.95]))
def test_what_stays_is_what_a_plain_loop_keeps(columns: SpectrumColumns, keep: int, similarity: float) -> None:
    options = NearDuplicateOptions(keep=keep, similarity=similarity)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # so small that every bucket is several blocks, and a block several parts
        patch.setattr(near_duplicates, "_BLOCK_SPECTRA", 5)
        patch.setattr(near_duplicates, "_BLOCK_MATCHES", 40)
        stays = keep_in_bucket(columns, options)
    assert stays.tolist() == brute_force(columns, options).tolist()
    assert np.array_equal(keep_in_bucket(columns, options), stays)


@settings(max_examples=40, deadline=None)
@given(buckets(), st.integers(1, 4))
def test_whatever_goes_is_alike_to_enough_of_what_stays(columns: SpectrumColumns, keep: int) -> None:
    options = NearDuplicateOptions(keep=keep, similarity=0.8)
    with pytest.MonkeyPatch.context() as patch:  # a bound on the comparisons may keep more, never fewer than it should
        patch.setattr(near_duplicates, "_BLOCK_SPECTRA", 5)
        patch.setattr(near_duplicates, "MOST_COMPARED", keep + 1)
        stays = keep_in_bucket(columns, options)
    alike = brute_force_alike(columns, options)
    assert (alike[~stays][:, stays].sum(axis=1) >= keep).all()


def test_of_equal_spectra_the_first_stay() -> None:
    stays = keep_in_bucket(SpectrumColumns.from_spectra([CAFFEINE] * 3000), NearDuplicateOptions(similarity=1.0))
    assert np.flatnonzero(stays).tolist() == list(range(10))


def test_null_keeps_all() -> None:
    assert keep_in_bucket(SpectrumColumns.from_spectra([CAFFEINE] * 30), NearDuplicateOptions(keep=None)).all()


def test_a_few_spectra_are_not_even_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "unit_vectors", None)
    assert keep_in_bucket(SpectrumColumns.from_spectra([CAFFEINE] * 10)).all()


def test_spectra_without_peaks_are_alike_to_none() -> None:
    empty = replace(CAFFEINE, mz=np.empty(0, np.float32), intensity=np.empty(0, np.float32))
    options = NearDuplicateOptions(keep=1)
    assert keep_in_bucket(SpectrumColumns.from_spectra([empty, empty]), options).all()
    bucket = SpectrumColumns.from_spectra([empty, CAFFEINE, CAFFEINE])
    assert keep_in_bucket(bucket, options).tolist() == [True, True, False]
    assert keys_of(empty, CAFFEINE).shape == (2, NearDuplicateOptions().tables)


def pair_cosines(firsts: list[Spectrum], seconds: list[Spectrum]) -> np.ndarray:
    a, b = (unit_vectors(SpectrumColumns.from_spectra(spectra), TOLERANCE) for spectra in (firsts, seconds))
    blocks = [np.arange(start, min(start + 100, len(firsts))) for start in range(0, len(firsts), 100)]
    return np.concatenate([np.diag(similarities(a.take(rows), b.take(rows), TOLERANCE)) for rows in blocks])

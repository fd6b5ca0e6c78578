"""Matched peaks: one to one, the same whatever stands beside a pair, and all that an independent matcher finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.embeddings.peak_matches import NOISE_CUTOFF, REMOVE_PRECURSOR_DA, TOLERANCE_DA, match_peaks, matches_of
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum


def spectrum(precursor_mz, peaks):
    mz, intensity = np.array(sorted(peaks.items()), np.float32).reshape(-1, 2).T
    return Spectrum("s", precursor_mz, mz=mz, intensity=intensity)


grid = st.dictionaries(
    st.integers(1_000, 1_200).map(lambda number: number / 20), st.sampled_from([1.0, 0.5, 0.02, 0.004]), max_size=25
)
spectra = st.builds(spectrum, st.sampled_from([58.0, 60.003, 60.01, 61.0, 75.515, 200.0]), grid)


def pairs_of(query, hit):
    matches = matches_of(query, hit)
    return list(
        zip(matches.query_peak.tolist(), matches.library_peak.tolist(), matches.is_shifted.tolist(), strict=True)
    )


@given(spectra, spectra)
def test_every_match_is_one_and_none_is_left_out(query, hit):
    """Where two peaks of one spectrum lie further apart than twice the tolerance, so that none is wanted twice."""
    found = pairs_of(query, hit)
    shift = query.precursor_mz - hit.precursor_mz
    assert len({a for a, _, _ in found}) == len({b for _, b, _ in found}) == len(found)
    for a, b, is_shifted in found:
        assert abs(float(query.mz[a]) - float(hit.mz[b]) - (shift if is_shifted else 0)) <= TOLERANCE_DA
        assert not is_shifted or abs(shift) > TOLERANCE_DA
    used = {a for a, _, _ in found}, {b for _, b, _ in found}
    for a in range(len(query)):
        for b in range(len(hit)):
            if a in used[0] or b in used[1] or not (usable(query, a) and usable(hit, b)):
                continue
            away = [abs(float(query.mz[a]) - float(hit.mz[b]))]
            away += [abs(float(query.mz[a]) - float(hit.mz[b]) - shift)] if abs(shift) > TOLERANCE_DA else []
            assert min(away) > TOLERANCE_DA


def usable(spectrum, peak):
    is_seen = spectrum.intensity[peak] >= NOISE_CUTOFF
    return is_seen and float(spectrum.mz[peak]) <= spectrum.precursor_mz - REMOVE_PRECURSOR_DA


@given(spectra, spectra)
def test_as_many_match_either_way_round(query, hit):
    assert len(matches_of(query, hit)) == len(matches_of(hit, query))


@given(st.lists(st.tuples(spectra, spectra), min_size=1, max_size=6), st.integers(0, 5_000))
def test_a_pair_has_the_same_matches_whatever_stands_beside_it(pairs, ahead):
    queries, hits = (SpectrumColumns.from_spectra(list(side)) for side in zip(*pairs, strict=True))
    repeated = np.concatenate([np.zeros(ahead, np.int64), np.arange(len(pairs))])
    together = match_peaks(queries, hits, repeated, repeated)
    for number, (query, hit) in enumerate(pairs):
        here = together.pair == ahead + number
        listed = together.query_peak[here], together.library_peak[here], together.is_shifted[here]
        assert list(zip(*(part.tolist() for part in listed), strict=True)) == pairs_of(query, hit)
    counts = together.counts(len(repeated))
    assert counts[ahead:].tolist() == [len(matches_of(query, hit)) for query, hit in pairs]


def test_fragments_and_neutral_losses_of_an_analogue():
    hit = spectrum(200.0, {50.0: 1.0, 80.0: 0.5, 120.0: 0.6, 150.0: 0.005, 199.9: 1.0})
    query = spectrum(214.0157, {50.01: 0.4, 94.0157: 0.5, 120.03: 0.5, 164.0157: 1.0, 213.95: 1.0})
    assert pairs_of(query, hit) == [(0, 0, False), (1, 1, True)]  # no noise, no precursor, nothing 0.03 Da away


def test_the_loops_of_the_look_ups_count_the_same_where_no_peak_can_match_twice():
    from ionbed.spectra.lookups import LookupOptions
    from ionbed.spectra.pair_features import FEATURES, ComparedSpectra

    rng = np.random.default_rng(3)
    made = []
    for _ in range(40):
        mz = np.unique(rng.choice(np.arange(50, 90, 0.5), 20) + rng.uniform(-0.03, 0.03))
        mz = mz[np.diff(mz, prepend=0) > 0.2]
        made.append(spectrum(100.0, dict(zip(mz.tolist(), rng.uniform(0.1, 1, len(mz)).tolist(), strict=True))))
    columns = SpectrumColumns.from_spectra(made)
    first, second = np.triu_indices(len(made), 1)
    features = ComparedSpectra(columns, LookupOptions(tolerance_da=TOLERANCE_DA)).features(first, second)
    counts = np.expm1(features[:, FEATURES.index("matched peaks")]).round().astype(int)
    assert match_peaks(columns, columns, first, second).counts(len(first)).tolist() == counts.tolist()
    assert counts.max() > 3


@pytest.mark.parametrize("peaks", [{}, {55.0: 1.0}])
def test_no_peaks_match_nothing(peaks):
    assert len(matches_of(spectrum(100.0, {}), spectrum(100.0, peaks))) == 0


crowded = st.builds(
    spectrum,
    st.sampled_from([58.0, 60.003]),
    st.dictionaries(st.integers(0, 60).map(lambda number: 50 + number / 250), st.just(1.0), min_size=1, max_size=20),
)


@given(crowded, crowded)
def test_no_peak_matches_twice_where_many_are_near(query, hit):
    found = pairs_of(query, hit)
    assert len({a for a, _, _ in found}) == len({b for _, b, _ in found}) == len(found)
    assert [a for a, _, _ in found] == sorted(a for a, _, _ in found)


def test_of_two_near_peaks_the_nearer_matches():
    hit = spectrum(200.0, {50.011: 1.0})
    assert pairs_of(spectrum(200.0, {50.0: 1.0, 50.01: 1.0}), hit) == [(1, 0, False)]
    assert pairs_of(hit, spectrum(200.0, {50.0: 1.0, 50.01: 1.0})) == [(0, 1, False)]

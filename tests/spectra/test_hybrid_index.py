"""The spectra of the highest hybrid entropy, beside the exact scores of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.hybrid_index import HybridIndex
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.pair_features import ComparedSpectra
from ionbed.spectra.spectrum import Spectrum

OPTIONS = LookupOptions()


def crowd(seed: int, count: int) -> SpectrumColumns:
    """Spectra whose peaks and neutral losses often match, some at the very edge of the tolerance, and some copies."""
    rng = np.random.default_rng(seed)
    spectra = []
    for number in range(count):
        precursor_mz = 200.0 + rng.choice([0.0, 0.01, 14.0, 14.02, 28.03, 1500.25])
        grid = rng.choice(np.arange(50, 190, 2), rng.integers(0, 15), replace=False)
        mz = np.unique(grid + rng.choice([0.0, 0.01, 0.02, 0.020001, 14.0, 14.01], len(grid)))
        if precursor_mz > 1000:
            mz = mz + rng.choice([0.0, 1300.25])
        intensity = rng.choice([0.05, 0.5, 1.0], len(mz)) if number % 3 else rng.uniform(0.001, 1, len(mz))
        spectra.append(Spectrum(f"s{number}", precursor_mz, mz.astype(np.float32), intensity.astype(np.float32)))
    spectra += spectra[: count // 5]
    return SpectrumColumns.from_spectra(spectra)


def index_of(compared: ComparedSpectra, group: np.ndarray) -> HybridIndex:
    peaks = compared.weighted.entropy_peaks
    blocks = [(peaks, np.arange(begin, min(begin + 17, len(group)))) for begin in range(0, len(group), 17)]
    return HybridIndex(blocks, peaks.precursor_mz, group, OPTIONS.tolerance_da)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("depth", [1, 5, 30, 1000])
def test_none_of_the_highest_is_missed_and_none_is_too_many(seed, depth) -> None:
    columns, asked = crowd(seed, 100), crowd(seed + 50, 12)
    compared, queries = ComparedSpectra(columns, OPTIONS), ComparedSpectra(asked, OPTIONS)
    rng = np.random.default_rng(seed)
    group, of_query = rng.integers(-1, 2, len(columns)), rng.integers(-1, 2, len(asked))
    eligible = None if seed % 2 else rng.random(len(columns)) < 0.7
    first, second = (places.ravel() for places in np.indices((len(asked), len(columns))))
    scores = compared.hybrid_entropy.pair_scores(first, second, of=queries.hybrid_entropy).reshape(len(asked), -1)
    usable = of_query[:, None] * group != -1
    usable = usable if eligible is None else usable & eligible
    found = index_of(compared, group).highest(queries.weighted.entropy_peaks, of_query, depth, eligible)
    assert len(found) == len(asked)
    num_sure = 0
    for number, (sure, unsure) in enumerate(found):
        assert len(set(sure.tolist()) | set(unsure.tolist())) == len(sure) + len(unsure)
        assert usable[number, sure].all() and usable[number, unsure].all()
        of_usable = np.where(usable[number], scores[number], 0)
        last = np.sort(of_usable)[::-1][min(depth, len(of_usable) - 1)] if depth < len(of_usable) else 0.0
        among = np.flatnonzero(of_usable > last)
        assert set(sure.tolist()) <= set(among.tolist())
        at_the_edge = np.flatnonzero((of_usable >= last) & (of_usable > 0))
        assert set(at_the_edge.tolist()) <= set(sure.tolist()) | set(unsure.tolist())
        num_sure += len(sure)
    assert num_sure > 0 or depth == 1


@pytest.mark.parametrize("jitter", [1e-8, 1e-7, 1e-6])
def test_scores_that_differ_by_less_than_the_rounding_are_left_to_the_exact_ones(jitter) -> None:
    rng = np.random.default_rng(1)
    mz, intensity = np.arange(50.0, 170.0, 3, np.float32), rng.uniform(0.1, 1, 40)
    made = [
        Spectrum(str(number), 200.0, mz, (intensity * (1 + jitter * rng.standard_normal(40))).astype(np.float32))
        for number in range(80)
    ]
    weaker = [Spectrum(str(number), 200.0, mz + 2.0 * (mz > 160), made[number].intensity) for number in range(20)]
    compared = ComparedSpectra(SpectrumColumns.from_spectra([*made, *weaker]), OPTIONS)
    asked = Spectrum("q", 200.0, mz, rng.uniform(0.1, 1, 40).astype(np.float32))
    queries = ComparedSpectra(SpectrumColumns.from_spectra([asked]), OPTIONS)
    scores = compared.hybrid_entropy.pair_scores(np.zeros(100, int), np.arange(100), of=queries.hybrid_entropy)
    index = index_of(compared, np.zeros(100, np.int8))
    for depth in (10, 40, 79):
        [(sure, unsure)] = index.highest(queries.weighted.entropy_peaks, np.zeros(1, np.int8), depth)
        last = np.sort(scores)[::-1][depth]
        assert set(sure.tolist()) <= set(np.flatnonzero(scores > last).tolist())
        assert set(np.flatnonzero(scores >= last).tolist()) <= set(sure.tolist()) | set(unsure.tolist())
        assert len(sure) + len(unsure) <= 80


def test_a_match_that_hardly_counts_is_one() -> None:
    options = replace(OPTIONS, noise_cutoff=0.0)
    rng = np.random.default_rng(2)
    made = [
        Spectrum(str(number), 200.0, np.array([60.0, 90.0], np.float32), np.array([tiny, 1.0], np.float32))
        for number, tiny in enumerate(10.0 ** rng.uniform(-37, -4, 60))
    ]
    asked = [Spectrum(str(n), 200.0, np.array([60.0, 100.0]), np.array([n / 40, 1.0])) for n in range(1, 40)]
    compared, queries = (ComparedSpectra(SpectrumColumns.from_spectra(of), options) for of in (made, asked))
    found = index_of(compared, np.zeros(60, np.int8)).highest(
        queries.weighted.entropy_peaks, np.zeros(39, np.int8), 1000
    )
    assert all(len(sure) + len(unsure) == 60 for sure, unsure in found)


@pytest.mark.parametrize("mz", [5000.0, 1e6, 1e9, 1e20])
def test_any_mz_that_a_file_may_state_is_looked_for(mz) -> None:
    made = [Spectrum(str(n), 2 * mz + n, np.array([mz * (1 + n)]), np.ones(1)) for n in range(2)]
    compared = ComparedSpectra(SpectrumColumns.from_spectra(made), OPTIONS)
    [(sure, unsure)] = index_of(compared, np.zeros(2, np.int8)).highest(
        ComparedSpectra(SpectrumColumns.from_spectra(made[:1]), OPTIONS).weighted.entropy_peaks, np.zeros(1, np.int8), 5
    )
    assert [*sure, *unsure] == [0]


def test_an_index_of_nothing_and_a_query_without_peaks_find_nothing() -> None:
    columns = crowd(0, 20)
    compared, group = ComparedSpectra(columns, OPTIONS), np.zeros(len(columns), np.int8)
    empty = ComparedSpectra(SpectrumColumns.from_spectra([Spectrum("e", 200.0, np.empty(0), np.empty(0))]), OPTIONS)
    [(sure, unsure)] = index_of(compared, group).highest(empty.weighted.entropy_peaks, np.zeros(1, np.int8), 5)
    assert not len(sure) and not len(unsure)
    index = index_of(empty, np.zeros(1, np.int8))
    found = index.highest(compared.weighted.entropy_peaks, group, 5)
    assert [len(part) for one in found for part in one] == [0] * 2 * len(columns)

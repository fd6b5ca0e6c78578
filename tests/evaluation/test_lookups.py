"""The look-ups against independent implementations: greedy cosines of matchms, pairwise entropy of ms_entropy."""

from __future__ import annotations

from types import SimpleNamespace

import matchms
import ms_entropy
import numpy as np
import pytest
from matchms.similarity import CosineGreedy, FlashSimilarity, ModifiedCosineGreedy

from ionbed.evaluation.baselines.lookups import LookupOptions, clean_peaks, lookup_scorers
from ionbed.spectra.columns import SpectrumColumns

OPTIONS = LookupOptions()


@pytest.fixture
def columns(build: SimpleNamespace) -> SpectrumColumns:
    """Real-like spectra: crowded, weak and strong peaks, losses in common, doublets, a precursor peak, one empty."""
    rng = np.random.default_rng(0)
    losses, fragments = np.array([17.0265, 18.0106, 27.9949, 43.9898, 46.0055]), rng.uniform(50, 160, 12)
    spectra = []
    for number in range(30):
        precursor = float(rng.uniform(180, 420))
        mz = np.concatenate(
            [
                rng.choice(fragments, 6, replace=False) + rng.normal(0, 0.004, 6),
                precursor - rng.choice(losses, 3, replace=False) + rng.normal(0, 0.004, 3),
                rng.uniform(50, precursor - 5, int(rng.integers(1, 40))),
                [precursor, precursor + 1.003],
            ]
        )
        mz = np.sort(np.append(mz, mz[2] + 0.012))  # a doublet that the tolerance cannot tell apart
        intensity = rng.lognormal(0, 1.5, len(mz))
        spectra.append(build.spectrum(number, 0, precursor_mz=precursor, mz=mz, intensity=intensity / intensity.max()))
    spectra.append(build.spectrum(30, 0, precursor_mz=100.0, mz=(100.0,), intensity=(1.0,)))  # precursor only
    return SpectrumColumns.from_spectra(spectra)


def all_scores(columns: SpectrumColumns, label: str) -> np.ndarray:
    scorer = next(s for s in lookup_scorers(columns, OPTIONS) if s.label == label)
    rows = np.arange(len(columns))
    return scorer.scores(rows, rows)


@pytest.mark.parametrize(
    ("label", "independent"), [("cosine", CosineGreedy), ("modified cosine", ModifiedCosineGreedy)]
)
def test_flash_cosines_are_the_greedy_cosines(columns: SpectrumColumns, label: str, independent: type) -> None:
    spectra = [
        matchms.Spectrum(
            peaks[:, 0].astype(float), peaks[:, 1].astype(float) ** 0.5, metadata={"precursor_mz": float(precursor)}
        )
        for peaks, precursor in zip(clean_peaks(columns, OPTIONS), columns.precursor_mz, strict=True)
    ]
    pairwise = independent(tolerance=OPTIONS.tolerance_da)
    expected = [[float(pairwise.pair(a, b)["score"]) if len(a.peaks) and len(b.peaks) else 0.0 for b in spectra]
                for a in spectra]  # fmt: skip
    found = all_scores(columns, label)
    assert found == pytest.approx(np.array(expected), abs=2e-6)
    assert (found > 0.05).mean() > 0.2  # there is something to agree on


def test_flash_entropy_is_the_pairwise_entropy_and_that_of_matchms(columns: SpectrumColumns) -> None:
    peaks = clean_peaks(columns, OPTIONS)
    found = all_scores(columns, "spectral entropy")
    pairwise = [
        [ms_entropy.calculate_entropy_similarity(a, b, ms2_tolerance_in_da=OPTIONS.tolerance_da, clean_spectra=False)
         for b in peaks] for a in peaks
    ]  # fmt: skip
    assert found == pytest.approx(np.array(pairwise), abs=2e-5)
    spectra = [
        matchms.Spectrum(p[:, 0].astype(float), p[:, 1].astype(float), metadata={"precursor_mz": float(m)})
        for p, m in zip(peaks, columns.precursor_mz, strict=True)
    ]
    flash = FlashSimilarity(tolerance=OPTIONS.tolerance_da, noise_cutoff=0.0)
    assert found == pytest.approx(flash.matrix(spectra, spectra, n_jobs=1), abs=2e-5)
    assert np.diag(found)[:-1] == pytest.approx(1.0, abs=1e-5)


def test_hybrid_entropy_is_that_of_matchms_and_sees_shared_losses(columns: SpectrumColumns) -> None:
    peaks = clean_peaks(columns, OPTIONS)
    spectra = [
        matchms.Spectrum(p[:, 0].astype(float), p[:, 1].astype(float), metadata={"precursor_mz": float(m)})
        for p, m in zip(peaks, columns.precursor_mz, strict=True)
    ]
    flash = FlashSimilarity(matching_mode="hybrid", tolerance=OPTIONS.tolerance_da, noise_cutoff=0.0)
    found = all_scores(columns, "hybrid entropy")
    assert found == pytest.approx(flash.matrix(spectra, spectra, n_jobs=1), abs=2e-5)
    assert (found > all_scores(columns, "spectral entropy") + 0.01).mean() > 0.2


def test_cleaning_removes_the_precursor_merges_doublets_and_cuts_noise(build: SimpleNamespace) -> None:
    spectrum = build.spectrum(
        0, 0, precursor_mz=200.0, mz=(50.0, 100.0, 100.02, 150.0, 198.5, 200.0), intensity=(0.001, 0.2, 0.2, 0.4, 1, 1)
    )
    (peaks,) = clean_peaks(SpectrumColumns.from_spectra([spectrum]), OPTIONS)
    assert peaks[:, 0] == pytest.approx([100.01, 150.0], abs=1e-3)
    assert peaks[:, 1] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tolerance_da", 0.0),
        ("merge_da", 0.04),
        ("remove_precursor_da", 0.02),
        ("noise_cutoff", 1.0),
        ("cosine_intensity_power", 0.0),
    ],
)
def test_options_that_would_falsify_a_score_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        LookupOptions(**{key: value})


def test_scoring_a_part_of_the_library_gives_the_same_scores(columns: SpectrumColumns) -> None:
    rng = np.random.default_rng(0)
    queries, library = rng.permutation(len(columns))[:7], rng.permutation(len(columns))[:11]
    for scorer in lookup_scorers(columns, OPTIONS):
        whole = scorer.scores(np.arange(len(columns)), np.arange(len(columns)))
        assert scorer.scores(queries, library) == pytest.approx(whole[np.ix_(queries, library)], abs=1e-6)

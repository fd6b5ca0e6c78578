"""The look-ups against the published programs: plain greedy cosines of matchms, pairwise entropy of ms_entropy."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import matchms
import ms_entropy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matchms.similarity import CosineGreedy, FlashSimilarity, ModifiedCosineGreedy

from ionbed.errors import InputError
from ionbed.evaluation.baselines import lookup_record as record_module
from ionbed.evaluation.baselines.lookup_record import lookup_record
from ionbed.evaluation.baselines.lookups import lookup_entries, lookup_scorers
from ionbed.evaluation.scorers import Chance, Learned, PrecursorOnly, score_pairs
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.lookups import (
    COSINE,
    ENTROPY,
    HYBRID_ENTROPY,
    LABELS,
    MODIFIED_COSINE,
    LookupOptions,
    PeakCleaner,
    clean_peaks,
)
from ionbed.spectra.spectrum import Spectrum

DATA = os.environ.get("IONBED_DATA", "")
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


def published(columns: SpectrumColumns, label: str) -> np.ndarray:
    """All against all by the published program, in its plain form where it has one; 0 where a spectrum is empty."""
    peaks = clean_peaks(columns, OPTIONS)
    power = OPTIONS.cosine_intensity_power if label in (COSINE, MODIFIED_COSINE) else 1.0
    spectra = [
        matchms.Spectrum(
            p[:, 0].astype(float), p[:, 1].astype(float) ** power, metadata={"precursor_mz": float(precursor)}
        )
        for p, precursor in zip(peaks, columns.precursor_mz, strict=True)
    ]
    if label == ENTROPY:
        tolerance = {"ms2_tolerance_in_da": OPTIONS.tolerance_da, "clean_spectra": False}
        return np.array([[ms_entropy.calculate_entropy_similarity(a, b, **tolerance) for b in peaks] for a in peaks])
    if label == HYBRID_ENTROPY:
        flash = FlashSimilarity(matching_mode="hybrid", tolerance=OPTIONS.tolerance_da, noise_cutoff=0.0)
        with contextlib.redirect_stderr(io.StringIO()):
            return np.array(flash.matrix(spectra, spectra, n_jobs=1))
    greedy = (CosineGreedy if label == COSINE else ModifiedCosineGreedy)(tolerance=OPTIONS.tolerance_da)
    return np.array(
        [[float(greedy.pair(a, b)["score"]) if len(a.peaks) and len(b.peaks) else 0.0 for b in spectra]
         for a in spectra]
    )  # fmt: skip


def assert_published(columns: SpectrumColumns, tolerance: float = 2e-6) -> None:
    """Every look-up, pair by pair and through its index, is what the published program gives."""
    rows = np.arange(len(columns))
    first, second = np.repeat(rows, len(rows)), np.tile(rows, len(rows))
    for scorer in lookup_scorers(columns, OPTIONS):
        expected = published(columns, scorer.label)
        listed = scorer.pair_scores(first, second).reshape(len(rows), len(rows))
        np.testing.assert_allclose(listed, expected, atol=tolerance, err_msg=scorer.label)
        indexed = scorer.scores(np.resize(rows, len(rows) + 20), rows)[: len(rows)]  # enough queries for an index
        np.testing.assert_allclose(indexed, listed, atol=1e-7, err_msg=scorer.label)


def test_every_lookup_is_the_published_one_with_and_without_an_index(columns: SpectrumColumns) -> None:
    assert_published(columns)
    scores = {scorer.label: scorer.scores(np.arange(30), np.arange(31)) for scorer in lookup_scorers(columns, OPTIONS)}
    assert tuple(scores) == LABELS
    assert all((found > 0.05).mean() > 0.2 for found in scores.values())  # there is something to agree on
    assert (scores[MODIFIED_COSINE] > scores[COSINE] + 0.01).mean() > 0.2
    assert (scores[HYBRID_ENTROPY] > scores[ENTROPY] + 0.01).mean() > 0.2
    assert all(np.diag(found[:, :30]) == pytest.approx(1.0, abs=1e-6) for found in scores.values())
    assert all(not found[:, 30].any() for found in scores.values())


@st.composite
def crowded_spectra(draw: st.DrawFn) -> list[tuple[float, dict[int, int]]]:
    """Spectra on a grid of 0.04 Da: peaks and losses meet by chance, several want the same one, intensities tie.

    The tolerance lies between the lines of the grid, where rounding cannot decide.
    """
    places = st.dictionaries(st.integers(1500, 1560), st.integers(1, 4), min_size=1, max_size=12)
    return draw(st.lists(st.tuples(st.integers(1610, 1625).map(lambda place: 0.04 * place), places), min_size=2,
                         max_size=5))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(crowded_spectra())
def test_every_lookup_is_the_published_one_where_peaks_compete(drawn: list[tuple[float, dict[int, int]]]) -> None:
    made = []
    for number, (precursor, peaks) in enumerate(drawn):
        mz = np.array(sorted(peaks), np.float64) * 0.04
        intensity = np.array([peaks[place] for place in sorted(peaks)], np.float64)
        made.append(Spectrum(str(number), precursor, mz.astype(np.float32), (intensity / 4).astype(np.float32)))
    assert_published(SpectrumColumns.from_spectra(made))


def test_the_modified_cosine_gives_a_contested_peak_to_the_larger_product(build: SimpleNamespace) -> None:
    # The query's 100 is the library's 100 as a fragment (weak), and its 110 when shifted by -10 (strong).
    query = build.spectrum(0, 0, precursor_mz=200.0, mz=(100.0, 150.0), intensity=(1.0, 0.2))
    other = build.spectrum(1, 0, precursor_mz=210.0, mz=(100.0, 110.0), intensity=(0.1, 1.0))
    columns = SpectrumColumns.from_spectra([query, other])
    scores = {s.label: float(s.pair_scores([0], [1])[0]) for s in lookup_scorers(columns, OPTIONS)}
    lengths = np.sqrt(1.2 * 1.1)
    assert scores[COSINE] == pytest.approx(np.sqrt(1.0 * 0.1) / lengths)
    assert scores[MODIFIED_COSINE] == pytest.approx(1.0 / lengths)
    assert scores[HYBRID_ENTROPY] == pytest.approx(scores[ENTROPY])  # which prefers the fragment, however weak


def test_precursors_within_the_tolerance_shift_no_fragment_of_the_modified_cosine(build: SimpleNamespace) -> None:
    # 0.03 Da apart, 0.015 Da with the shift: matchms takes precursors this close for one, the hybrid search does not.
    query = build.spectrum(0, 0, precursor_mz=200.0, mz=(100.0,), intensity=(1.0,))
    other = build.spectrum(1, 0, precursor_mz=200.015, mz=(100.03,), intensity=(1.0,))
    columns = SpectrumColumns.from_spectra([query, other])
    assert_published(columns)
    scores = {s.label: float(s.pair_scores([0], [1])[0]) for s in lookup_scorers(columns, OPTIONS)}
    assert scores == pytest.approx({COSINE: 0.0, MODIFIED_COSINE: 0.0, ENTROPY: 0.0, HYBRID_ENTROPY: 1.0})


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="IONBED_DATA does not name the folder of real data")
def test_every_lookup_is_the_published_one_on_real_spectra() -> None:
    from ionbed.spectra.harmonise import harmonise
    from ionbed.spectra.readers import read_records

    records = itertools.islice(read_records(Path(DATA) / "massbank-records.tar.gz"), 400)
    spectra = [found for found in map(harmonise, records) if isinstance(found, Spectrum)][:150]
    assert len(spectra) > 100
    assert_published(SpectrumColumns.from_spectra(spectra), tolerance=1e-5)


def test_cleaning_removes_the_precursor_merges_doublets_and_cuts_noise(build: SimpleNamespace) -> None:
    spectrum = build.spectrum(
        0, 0, precursor_mz=200.0, mz=(50.0, 100.0, 100.02, 150.0, 198.5, 200.0), intensity=(0.001, 0.2, 0.2, 0.4, 1, 1)
    )
    (peaks,) = clean_peaks(SpectrumColumns.from_spectra([spectrum]), OPTIONS)
    assert peaks[:, 0] == pytest.approx([100.01, 150.0], abs=1e-3)
    assert peaks[:, 1] == pytest.approx([0.5, 0.5])


def test_a_spectrum_is_cleaned_once_and_again_where_its_peaks_or_precursor_changed(
    columns: SpectrumColumns, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    plain = ms_entropy.clean_spectrum
    monkeypatch.setattr(ms_entropy, "clean_spectrum", lambda *a, **k: calls.append(1) or plain(*a, **k))
    cleaner = PeakCleaner(OPTIONS)
    few = cleaner(columns, np.array([3, 1, 3]))
    assert len(calls) == 2
    assert [len(peaks) > 0 for peaks in few[:5]] == [False, True, False, True, False]
    everything = cleaner(columns)
    assert len(calls) == len(columns)
    assert np.array_equal(everything[3], few[3])
    reordered = columns.take(np.arange(len(columns))[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(cleaner(reordered), everything[::-1], strict=True))
    assert len(calls) == len(columns)
    altered = columns.take(np.array([0, 1, 2]))
    altered.precursor_mz[0] = 120.0  # more is beyond the precursor now
    altered.intensity[altered.offsets[1]] *= 0.5
    changed = cleaner(altered)
    assert len(calls) == len(columns) + 2
    assert len(changed[0]) < len(everything[0])
    assert np.array_equal(changed[2], everything[2])


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


@pytest.mark.parametrize("num_queries", [0, 7, 31])  # by pairs, and by index
def test_a_part_of_the_library_and_any_number_of_workers_give_the_same_scores(
    columns: SpectrumColumns, num_queries: int
) -> None:
    rng = np.random.default_rng(0)
    queries, library = rng.permutation(len(columns))[:num_queries], rng.permutation(len(columns))[:11]
    for alone, together in zip(
        lookup_scorers(columns, OPTIONS, workers=1), lookup_scorers(columns, OPTIONS, workers=3), strict=True
    ):
        whole = alone.scores(np.arange(len(columns)), np.arange(len(columns)))
        for scorer in (alone, together):
            part = scorer.scores(queries, library)
            assert np.array_equal(part, whole[np.ix_(queries, library)])
            assert np.array_equal(scorer.scores(queries, library[::-1]), part[:, ::-1])  # another index
            assert scorer.scores(queries, library[:0]).shape == (num_queries, 0)
    many = rng.integers(0, len(columns), (2, 20_000))
    assert np.array_equal(together.pair_scores(*many), alone.pair_scores(*many))
    assert np.array_equal(together.pair_scores(*many), whole[many[0], many[1]])


def test_listed_pairs_get_the_scores_that_a_whole_library_gets(columns: SpectrumColumns) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, len(columns), (2, 500))
    vectors = rng.normal(size=(len(columns), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scorers = [
        Chance(),
        PrecursorOnly(columns),
        Learned("made up", np.arange(len(columns)), vectors),
        *lookup_scorers(columns, OPTIONS),
    ]
    for scorer in scorers:

        class OnlyMatrices:
            label, kind, scores = scorer.label, scorer.kind, scorer.scores

        quick = score_pairs(scorer, first, second, columns.precursor_mz, label="pairs")
        blocks = score_pairs(OnlyMatrices(), first, second, columns.precursor_mz, label="blocks")
        assert quick == pytest.approx(blocks, abs=1.1e-6)
        assert len(np.unique(quick)) > 100 or scorer.label == "random"


def test_entries_share_what_was_cleaned_and_follow_the_data(
    columns: SpectrumColumns, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    plain = ms_entropy.clean_spectrum
    monkeypatch.setattr(ms_entropy, "clean_spectrum", lambda *a, **k: calls.append(1) or plain(*a, **k))
    entries = lookup_entries(OPTIONS, workers=1)
    assert [(entry.label, entry.kind, entry.known) for entry in entries] == [
        (label, "look-up", ("precursor_mz",)) for label in LABELS
    ]
    rows = np.arange(10)
    direct = {scorer.label: scorer for scorer in lookup_scorers(columns, OPTIONS)}
    calls.clear()
    for entry in entries:
        scorer = entry.builds[0](SimpleNamespace(columns=columns), None, rows)
        assert np.array_equal(scorer.scores(rows, rows), direct[entry.label].scores(rows, rows))
        with pytest.raises(ValueError, match=f"'{entry.label}' was made for other spectra"):
            scorer.scores(rows, rows + 1)
        with pytest.raises(ValueError, match="was made for other spectra"):
            scorer.pair_scores(rows + 1, rows)
    assert len(calls) == len(rows)
    backwards = columns.take(np.arange(len(columns))[::-1])
    scorer = entries[0].builds[0](SimpleNamespace(columns=backwards), None, rows)
    assert np.array_equal(scorer.scores(rows, rows), direct[COSINE].scores(30 - rows, 30 - rows))


def test_the_record_tells_every_step_and_how_well_the_published_programs_agree(columns: SpectrumColumns) -> None:
    options = LookupOptions(tolerance_da=0.011, remove_precursor_da=1.7, merge_da=0.033, noise_cutoff=0.007)
    record = lookup_record(columns, options)
    told = " ".join(record.steps)
    assert all(number in told for number in ("0.011 Da", "1.7 Da", "0.033 Da", "0.007", "0.5"))
    assert tuple(record.scores) == tuple(record.agreement) == LABELS
    for found in record.agreement.values():
        assert (found.pairs, found.apart) == (record_module.PAIRS_CHECKED, 0)
        assert 0 < found.largest_difference < 1e-5
    assert record.versions["matchms"] in record.agreement[COSINE].against


@pytest.mark.parametrize("label", LABELS)
def test_a_lookup_that_is_not_the_published_one_is_refused(
    columns: SpectrumColumns, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = record_module._published

    def other(asked: str, peaks: list[np.ndarray], precursor_mz: np.ndarray, options: LookupOptions) -> object:
        shifted = [p + np.array([[0.01, 0.0]], np.float32) if i % 2 else p for i, p in enumerate(peaks)]
        return plain(asked, shifted if asked == label else peaks, precursor_mz, options)

    monkeypatch.setattr(record_module, "_published", other)
    with pytest.raises(InputError, match=f"'{label}' is not that of .* pairs of these spectra differ"):
        lookup_record(columns, OPTIONS)


def test_a_program_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = record_module.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matchms" else found(name))
    with pytest.raises(InputError, match=r"needs matchms; install it with: pip install 'ionbed\[evaluate\]'"):
        record_module.require_evaluation_packages()

"""Searching by a fused score: all of a window, the best of a library by either score, and what is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ionbed import InputError
from ionbed.embeddings import fused_search
from ionbed.embeddings import index as index_module
from ionbed.embeddings.consensus import Consensus, agreed, library_structures
from ionbed.embeddings.filters import Filters
from ionbed.embeddings.fused_search import (
    FusedSearch,
    _pieces,
    _rows_of,
    best_of,
    clearly_highest,
    highest,
    pairs_of,
)
from ionbed.embeddings.fusion import EMBEDDING_COSINE, OPEN_TERMS, WINDOW_TERMS, FusedScore, Fusion, sigmoid
from ionbed.embeddings.index import Index
from ionbed.embeddings.search import find
from ionbed.embeddings.search_options import SearchOptions
from ionbed.spectra import hybrid_index, kept_spectra
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.kept_spectra import KeptSpectra
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.pair_features import ComparedSpectra
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.writers import write_mgf

from .conftest import CountSketchModel

OPTIONS = LookupOptions()
MIXED = Fusion(
    "",
    OPTIONS,
    FusedScore(WINDOW_TERMS, tuple(np.linspace(1, -1, len(WINDOW_TERMS)).tolist()), 0.1),
    FusedScore(OPEN_TERMS, tuple(np.linspace(1, -0.5, len(OPEN_TERMS)).tolist()), 0.1),
    *2 * [FusedScore(("cosine",), (1.0,), 0.0)],
)


def fused_model(fusion: Fusion) -> CountSketchModel:
    model = CountSketchModel()
    model.config = SimpleNamespace(fusion=replace(fusion, model_hash=model.model_hash()).to_tree())
    return model


def only(term: str) -> Fusion:
    return replace(MIXED, open=FusedScore((term,), (4.0,), 0.0))


@pytest.fixture
def queries(library: list[Spectrum]) -> list[Spectrum]:
    """Seven noisy copies of library spectra; polarity known and unknown."""
    rng = np.random.default_rng(1)
    return [
        replace(
            spectrum,
            spectrum_id=f"query-{number}",
            mz=spectrum.mz[: max(1, len(spectrum.mz) - 2)],
            intensity=rng.uniform(0.1, 1, max(1, len(spectrum.mz) - 2)).astype(np.float32),
            polarity=(1, -1, None)[number % 3],
            collision_energy=(20.0, 60.0, None)[number % 3],
        )
        for number, spectrum in enumerate(library[:7])
    ]


def brute_force(index: Index, queries: list[Spectrum], score: FusedScore) -> np.ndarray:
    """Every query with every library spectrum, one by one."""
    library = index.spectra(np.arange(len(index)))
    compared = ComparedSpectra(SpectrumColumns.from_spectra([*library, *queries]), OPTIONS)
    vectors = index.model.embed(queries)
    rows = np.arange(len(library))
    return np.stack(
        [
            score(vectors[q].astype(np.float64) @ index.vectors[:].T.astype(np.float64),
                  compared.features(np.full(len(rows), len(library) + q), rows))
            for q in range(len(queries))
        ]
    )  # fmt: skip


def compatible(index: Index, queries: list[Spectrum]) -> np.ndarray:
    return np.array([s.polarity or 0 for s in queries])[:, None] * index.polarity[None, :] != -1


def test_every_candidate_of_a_window_has_its_exact_score(library, queries) -> None:
    index = Index.build(fused_model(MIXED), library)
    hits = index.search(queries, k=8, precursor_ppm=10, score="fused")
    expected = brute_force(index, queries, MIXED.window)
    mz = np.array([s.precursor_mz for s in queries])
    allowed = compatible(index, queries) & (np.abs(mz[:, None] - index.precursor_mz) <= 1e-5 * index.precursor_mz)
    for query in range(len(queries)):
        rows = hits.rows[query][hits.rows[query] >= 0]
        assert sorted(rows) == np.flatnonzero(allowed[query]).tolist()
        np.testing.assert_allclose(hits.scores[query, : len(rows)], expected[query, rows], atol=1e-6)
        assert (np.diff(hits.scores[query, : len(rows)]) <= 0).all()
    assert (hits.rows >= 0).sum() > 20 and not allowed.all()


@pytest.mark.parametrize("precursor_ppm", [10.0, None])
def test_a_query_is_answered_alike_alone_and_among_others(library, queries, precursor_ppm) -> None:
    index = Index.build(fused_model(MIXED), library)
    together = index.search(queries, k=5, precursor_ppm=precursor_ppm, score="fused")
    for number, query in enumerate(queries):
        alone = Index.build(fused_model(MIXED), library).search([query], 5, precursor_ppm, "fused")
        np.testing.assert_array_equal(alone.rows[0], together.rows[number])
        np.testing.assert_array_equal(alone.scores[0], together.scores[number])


def test_an_open_search_of_a_small_library_is_exact(library, queries) -> None:
    index = Index.build(fused_model(MIXED), library)
    hits = index.search(queries, k=10, precursor_ppm=None, score="fused")
    expected = np.where(compatible(index, queries), brute_force(index, queries, MIXED.open), -1).astype(np.float32)
    np.testing.assert_allclose(hits.scores, -np.sort(-expected, axis=1)[:, :10], atol=1e-6)
    assert (hits.num_in_window == len(index)).all()


@pytest.mark.parametrize("term", [EMBEDDING_COSINE, "hybrid entropy"])
def test_the_best_of_either_score_is_never_missed(library, queries, term, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "OPEN_DEPTH", 1)
    fusion = only(term)
    index = Index.build(fused_model(fusion), library)
    hits = index.search(queries, k=1, precursor_ppm=None, score="fused")
    expected = np.where(compatible(index, queries), brute_force(index, queries, fusion.open), -1)
    np.testing.assert_allclose(hits.scores[:, 0], expected.max(axis=1), atol=1e-6)
    both = [only(EMBEDDING_COSINE), only("hybrid entropy")]
    assert np.ptp([brute_force(index, queries, one.open).argmax(axis=1) for one in both], axis=0).any()


def test_only_so_many_are_scored_in_an_open_search(library, queries, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "OPEN_DEPTH", 3)
    index = Index.build(fused_model(MIXED), library)
    asked = []
    plain = ComparedSpectra.features
    monkeypatch.setattr(ComparedSpectra, "features", lambda *a, **of: asked.append(len(a[1])) or plain(*a, **of))
    index.search(queries, k=3, precursor_ppm=None, score="fused")
    assert 3 * len(queries) <= sum(asked) <= 6 * len(queries)


AGREED = replace(MIXED, consensus=Consensus(temperature=0.3, depth=4, own=0.7, support=3.0, intercept=-1.5))


@pytest.fixture
def with_structures(library: list[Spectrum]) -> list[Spectrum]:
    """Ten molecules of three kinds; one spectrum of each has no structure."""
    smiles = [*(f"{'C' * n}O" for n in range(3, 7)), *(f"c1ccccc1{'C' * n}" for n in range(1, 4)), "CCN", "CCCN", "C#N"]
    keys = sorted({spectrum.inchikey for spectrum in library})
    named = dict(zip(keys, smiles, strict=True))
    return [s if s.spectrum_id.endswith("-2") else replace(s, smiles=named[s.inchikey]) for s in library]


def test_an_open_search_is_ranked_under_the_consensus_of_its_hits(with_structures, queries) -> None:
    index = Index.build(fused_model(AGREED), with_structures)
    hits = index.search(queries, k=60, precursor_ppm=None, score="fused")
    plain = Index.build(fused_model(MIXED), with_structures).search(queries, k=60, precursor_ppm=None, score="fused")
    structures = library_structures(*(index.metadata[name] for name in ("inchikey", "smiles")))
    assert (structures.molecule == -1).sum() == 10
    total = np.log(brute_force(index, queries, MIXED.open)) - np.log1p(-brute_force(index, queries, MIXED.open))
    compared = ComparedSpectra(SpectrumColumns.from_spectra(queries), OPTIONS)
    own = np.arange(len(queries))
    copy_total = MIXED.open.total(np.ones(len(queries)), compared.features(own, own))
    allowed = compatible(index, queries)
    for query in range(len(queries)):
        rows = np.flatnonzero(allowed[query])
        expected = agreed(
            AGREED.consensus, np.full(len(rows), query), total[query, rows], copy_total, structures.molecule[rows],
            structures.fingerprints,
        )  # fmt: skip
        np.testing.assert_allclose(hits.scores[query, : len(rows)], np.sort(sigmoid(expected))[::-1], atol=1e-5)
    assert (hits.rows[:, :5] != plain.rows[:, :5]).any(axis=1).sum() > 3
    windows = [Index.build(fused_model(f), with_structures).search(queries, 8, 10.0, "fused") for f in (MIXED, AGREED)]
    np.testing.assert_array_equal(windows[0].rows, windows[1].rows)
    np.testing.assert_array_equal(windows[0].scores, windows[1].scores)


def test_a_query_is_answered_alike_alone_and_among_others_under_a_consensus(with_structures, queries) -> None:
    index = Index.build(fused_model(AGREED), with_structures)
    together = index.search(queries, k=5, precursor_ppm=None, score="fused")
    for number, query in enumerate(queries):
        alone = Index.build(fused_model(AGREED), with_structures).search([query], 5, None, "fused")
        np.testing.assert_array_equal(alone.rows[0], together.rows[number])
        np.testing.assert_array_equal(alone.scores[0], together.scores[number])


def test_a_copy_of_the_query_is_first_whatever_the_other_hits_say(with_structures) -> None:
    told = Consensus(temperature=10.0, depth=5, own=1e-3, support=30.0, intercept=0.0)
    rising = FusedScore(("hybrid entropy", EMBEDDING_COSINE, "precursor difference"), (3.0, 1.0, -0.1), 0.0)
    index = Index.build(fused_model(replace(MIXED, open=rising, consensus=told)), with_structures)
    hits = index.search(with_structures, k=2, precursor_ppm=None, score="fused")
    names = index.metadata["spectrum_id"].to_numpy()[hits.rows]
    assert [first for first, _ in names] == [s.spectrum_id for s in with_structures]


def test_a_library_without_structures_is_searched_as_without_a_consensus(library, queries) -> None:
    found = [Index.build(fused_model(f), library).search(queries, 5, None, "fused") for f in (MIXED, AGREED)]
    np.testing.assert_array_equal(found[0].rows, found[1].rows)
    np.testing.assert_array_equal(found[0].scores, found[1].scores)


def test_no_query_and_no_candidate_are_no_error(library, queries) -> None:
    index = Index.build(fused_model(MIXED), library)
    for score in ("cosine", "fused"):
        for precursor_ppm in (10.0, None):
            hits = index.search(queries, 3, precursor_ppm, score, filters=Filters(licenses=("CC BY",)))
            assert (hits.rows == -1).all() and np.isnan(hits.scores).all() and hits.num_in_window.max() > 0
    for precursor_ppm in (10.0, None):
        assert len(index.search([], 3, precursor_ppm, "fused")) == 0
    far = [replace(queries[0], precursor_mz=5000.0), queries[1]]
    hits = index.search(far, 3, 10.0, "fused")
    assert (hits.rows[0] == -1).all() and np.isnan(hits.scores[0]).all() and hits.num_in_window[0] == 0
    np.testing.assert_array_equal(hits.rows[1], index.search(queries[1:2], 3, 10.0, "fused").rows[0])
    assert (index.search(far[:1], 3, 10.0, "fused").rows == -1).all()


def test_the_table_of_hits_is_ranked_by_the_score(library, queries, tmp_path) -> None:
    write_mgf(queries, tmp_path / "queries.mgf")
    index = Index.build(fused_model(MIXED), library)
    rows = [row for row in find(index, tmp_path / "queries.mgf", SearchOptions(k=2, score="fused")) if row.rank]
    plain = [row for row in find(index, tmp_path / "queries.mgf", SearchOptions(k=2, score="cosine")) if row.rank]
    assert rows and all(0 < row.score < 1 for row in rows)
    assert {row.score_name for row in rows} == {"fused"} and {row.score_name for row in plain} == {"cosine"}
    assert [row.library_id for row in rows] != [row.library_id for row in plain]


@pytest.mark.parametrize("precursor_ppm", [10.0, None])
def test_the_best_score_is_the_default(library, queries, model, precursor_ppm) -> None:
    index, plain = Index.build(fused_model(MIXED), library), Index.build(model, library)
    found, fused = (index.search(queries, 5, precursor_ppm, score) for score in (None, "fused"))
    assert found.score == fused.score == index.score_name() == "fused"
    np.testing.assert_array_equal(found.scores, fused.scores)
    assert plain.search(queries, 5, precursor_ppm).score == plain.score_name() == "cosine"
    without_peaks = replace(index.embed(queries), columns=None)
    assert index.search(without_peaks, 5, precursor_ppm).score == "cosine"


def test_a_fused_score_that_cannot_be_used_is_not_left_out_in_silence(library, queries) -> None:
    fused = fused_model(MIXED)
    index = Index.build(fused, library)
    fused.config.fusion["model_hash"] = "0" * 64
    with pytest.raises(InputError, match="was fitted for other weights"):
        index.search(queries)
    assert index.search(queries, score="cosine").score == "cosine"


def test_what_cannot_be_searched_is_refused(library, queries, model, tmp_path) -> None:
    plain, index = Index.build(model, library), Index.build(fused_model(MIXED), library)
    with pytest.raises(InputError, match=r"carries no fused score; fit one .ionbed fuse."):
        plain.search(queries, score="fused")
    write_mgf(queries, tmp_path / "queries.mgf")
    with pytest.raises(InputError, match="carries no fused score"):
        find(plain, tmp_path / "queries.mgf", SearchOptions(score="fused"))
    with pytest.raises(InputError, match="the score is 'charm'; it must be one of cosine, fused"):
        index.search(queries, score="charm")
    with pytest.raises(InputError, match="have no peaks, which a fused score needs"):
        index.search(replace(index.embed(queries), columns=None), score="fused")


def test_of_more_equals_than_are_scored_the_first_are(library, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "OPEN_DEPTH", 5)
    model = fused_model(only("hybrid entropy"))
    ones = np.ones(1, np.float32)
    equals = [
        replace(library[0], spectrum_id=f"one-{n}", precursor_mz=300.0 - n % 7, mz=77 * ones, intensity=ones)
        for n in range(20)
    ]
    index = Index.build(model, equals[:8])
    index.append([*equals[8:], *library])
    query = replace(equals[0], mz=np.array([77.0, 90.0], np.float32), intensity=np.array([1.0, 0.2], np.float32))
    whole = Index.build(model, [*equals, *library])
    names = [[hit.metadata["spectrum_id"] for hit in i.search([query], 5, None, "fused")[0]] for i in (index, whole)]
    first = sorted(equals, key=lambda s: (s.precursor_mz, s.spectrum_id))[:5]
    assert names == [[s.spectrum_id for s in first]] * 2


def test_proposals_and_ranks() -> None:
    assert sorted(highest(np.array([[3.0, 1.0, 2.0]]), 2)[0]) == [0, 2]
    assert highest(np.array([[3.0, 1.0]]), 5).shape == (1, 2)
    pairs = pairs_of(np.array([[2, -1], [0, 1]]), np.array([[2], [5]]))
    assert [part.tolist() for part in pairs] == [[0, 1, 1, 1], [2, 0, 1, 5]]
    total = np.array([0.5 + 1e-12, 0.5, 0.9])
    found = best_of(np.array([1, 1, 1]), np.array([7, 4, 9]), total, 3, 2)
    assert found.rows.tolist() == [[-1, -1], [9, 4], [-1, -1]]
    np.testing.assert_allclose(found.scores[1], 1 / (1 + np.exp([-0.9, -0.5])))


def test_the_place_of_equals_does_not_decide_what_is_proposed() -> None:
    """Most spectra of a library share no peak with a query: which of them are scored must not depend on their order."""
    rng = np.random.default_rng(0)
    scores = np.zeros((4, 50))
    scores[0, :7], scores[1, :12], scores[2] = rng.random(7), rng.random(12), 0.5
    for depth, expected in ((10, (7, 10, 10, 0)), (49, (7, 12, 49, 0)), (50, (50, 50, 50, 50))):
        proposed = clearly_highest(scores, depth)
        assert ((proposed >= 0).sum(axis=1) == expected).all()
        order = rng.permutation(50)
        again = clearly_highest(scores[:, order], depth)
        for row in (0, 1, 3):
            assert set(proposed[row]) - {-1} == set(order[again[row][again[row] >= 0]])
    assert set(clearly_highest(scores, 10)[1]) == set(np.argsort(-scores[1])[:10])


def test_scores_that_are_certain_have_an_order_all_the_same(library, queries) -> None:
    sharp = FusedScore(("spectral entropy", EMBEDDING_COSINE), (900.0, 60.0), 40.0)
    index = Index.build(fused_model(replace(MIXED, window=sharp, open=sharp)), library)
    plain = FusedScore(sharp.terms, (0.9, 0.06), 0.0)
    expected = brute_force(index, queries, plain)
    hits = index.search(queries, k=8, precursor_ppm=10, score="fused")
    assert (hits.scores[:, :2] == 1).all() and np.isfinite(hits.scores[hits.rows >= 0]).all()
    for query, rows in enumerate(hits.rows):
        assert (np.diff(expected[query, rows[rows >= 0]]) <= 1e-9).all()
    top = index.search(queries, k=1, precursor_ppm=None, score="fused").rows[:, 0]
    best = np.where(compatible(index, queries), expected, -1)
    np.testing.assert_array_equal(top, best.argmax(axis=1))


@pytest.mark.parametrize("num_segments", [1, 3])
@pytest.mark.parametrize("precursor_ppm", [10.0, 2e5, 9e5])
def test_windows_are_searched_some_rows_at_a_time(library, queries, monkeypatch, num_segments, precursor_ppm) -> None:
    index = Index.build(fused_model(MIXED), library[::num_segments])
    for number in range(1, num_segments):
        index.append(library[number::num_segments])
    index.delete(["lib-0-0", "lib-3-2"])
    asked = [*queries, replace(queries[0], precursor_mz=5000.0)]
    sizes, plain = [], FusedSearch._total

    def total(*of):
        sizes.append((len(of[4]), len(np.unique(of[5]))))
        return plain(*of)

    for filters in (None, Filters(polarity=1)):
        expected = index.search(asked, 5, precursor_ppm, "fused", filters=filters)
        with monkeypatch.context() as patch:
            patch.setattr(FusedSearch, "_total", total)
            patch.setattr(fused_search, "PAIRS_AT_ONCE", 20)
            patch.setattr(fused_search, "ROWS_AT_ONCE", 9)
            found = index.search(asked, 5, precursor_ppm, "fused", filters=filters)
        most_pairs, most_rows = np.max(sizes, axis=0)
        assert most_pairs <= 20 and most_rows <= 9 and len(sizes) > 3
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("most_bytes", [0, 4000, 20_000])
@pytest.mark.parametrize("precursor_ppm", [10.0, 9e5, None])
def test_what_is_kept_of_a_library_does_not_change_what_is_found(
    library, queries, monkeypatch, most_bytes, precursor_ppm
) -> None:
    """Kept peaks are forgotten all the time, or some of the time; 60 spectra of some ten peaks have 16 kB of them."""
    monkeypatch.setattr(index_module, "OPEN_DEPTH", 10)
    index = Index.build(fused_model(MIXED), library)
    expected = [index.search([query], 5, precursor_ppm, "fused") for query in queries]
    plain = KeptSpectra.__init__
    monkeypatch.setattr(KeptSpectra, "__init__", lambda *a: plain(*a, most_bytes=most_bytes))
    monkeypatch.setattr(fused_search, "ROWS_AT_ONCE", 20)
    monkeypatch.setattr(kept_spectra, "ROWS_READ_AT_ONCE", 7)
    again = Index.build(fused_model(MIXED), library)
    for _ in range(2):
        for query, of_query in zip(queries, expected, strict=True):
            found = again.search([query], 5, precursor_ppm, "fused")
            np.testing.assert_array_equal(found.rows, of_query.rows)
            np.testing.assert_array_equal(found.scores, of_query.scores)
    found = again.search(queries, 5, precursor_ppm, "fused")
    np.testing.assert_array_equal(found.rows, np.concatenate([of_query.rows for of_query in expected]))


@pytest.mark.parametrize("precursor_ppm", [9e5, None])
def test_searches_at_the_same_time_share_what_is_kept(library, queries, monkeypatch, precursor_ppm) -> None:
    index = Index.build(fused_model(MIXED), library)
    expected = index.search(queries, 5, precursor_ppm, "fused")
    plain = KeptSpectra.__init__
    monkeypatch.setattr(KeptSpectra, "__init__", lambda *a: plain(*a, most_bytes=8000))
    monkeypatch.setattr(fused_search, "ROWS_AT_ONCE", 10)
    shared = Index.build(fused_model(MIXED), library)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: shared.search(queries, 5, precursor_ppm, "fused"), range(12)):
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores, expected.scores)


def test_an_open_search_that_would_not_fit_is_refused_and_another_is_not(library, queries, monkeypatch) -> None:
    index = Index.build(fused_model(MIXED), library)
    index.append([replace(s, spectrum_id=f"more of {s.spectrum_id}") for s in library[:20]])
    index.delete(["lib-0-0"])
    monkeypatch.setattr(fused_search, "usable_cores", lambda: 64)
    of_many = fused_search.open_memory(index.library)
    monkeypatch.setattr(fused_search, "usable_cores", lambda: 2)
    estimate = fused_search.open_memory(index.library)
    assert of_many == estimate + 62 * 79 * fused_search.SUMS_BYTES_PER_SPECTRUM
    of_peaks = fused_search.INDEX_BYTES_PER_PEAK + 1.5 * kept_spectra.BYTES_PER_PEAK
    num_peaks = sum(map(len, library)) + sum(map(len, library[:20]))
    assert num_peaks * of_peaks * 78 / 80 < estimate < num_peaks * of_peaks + 80 * 200
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=estimate - 1))
    with pytest.raises(InputError, match=r"open search of 79 spectra by the fused score needs about .* by cosine"):
        index.search(queries, 5, None, "fused")
    assert (index.search(queries, 5, None, "cosine").rows >= 0).all()
    assert (index.search(queries, 5, 10.0, "fused").rows >= 0).any()
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=estimate))
    assert (index.search(queries, 5, None, "fused").rows >= 0).all()
    # Its index is there now: that others have taken the rest of the memory does not matter.
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=0))
    index.search(queries, 5, None, "fused")


def test_the_estimate_knows_what_the_index_takes() -> None:
    assert hybrid_index.BYTES_PER_PEAK_WHILE_BUILT == fused_search.INDEX_BYTES_PER_PEAK


def test_pieces_hold_all_pairs_once(monkeypatch) -> None:
    monkeypatch.setattr(fused_search, "PAIRS_AT_ONCE", 12)
    monkeypatch.setattr(fused_search, "ROWS_AT_ONCE", 5)
    rng = np.random.default_rng(0)
    for _ in range(200):
        start = rng.integers(0, 40, rng.integers(0, 9))
        stop = np.where(rng.random(len(start)) < 0.2, start - 1, start + rng.integers(0, 30, len(start)))
        pairs, last = [], 0
        for first, end in _pieces(start, stop):
            query, row = _rows_of(start.clip(first), stop.clip(max=end))
            assert last <= first < end and 0 < len(query) <= max(12, len(start)) and len(np.unique(row)) <= 5
            pairs += zip(query.tolist(), row.tolist(), strict=True)
            last = end
        assert sorted(pairs) == [(q, r) for q in range(len(start)) for r in range(start[q], stop[q])]


@pytest.mark.parametrize("fusion", [MIXED, AGREED])
@pytest.mark.parametrize("depth", [10, 1000])
def test_several_segments_are_ranked_as_one_compacted(with_structures, queries, monkeypatch, fusion, depth) -> None:
    monkeypatch.setattr("ionbed.embeddings.index.OPEN_DEPTH", depth)
    model = fused_model(fusion)
    # Of each group some are copies of one another, which tie: only their ids then say which comes first.
    copies = [replace(s, spectrum_id=f"a copy of {s.spectrum_id}") for s in with_structures[:20]]
    index = Index.build(model, with_structures[:30])
    index.append(copies)
    index.append(with_structures[30:])
    gone = [s.spectrum_id for s in with_structures[::7]]
    index.delete(gone)
    left = [s for s in [*with_structures, *copies] if s.spectrum_id not in gone]
    whole = Index.build(model, left)
    assert index.num_rows == 80 and len(index) == len(whole) == 71
    names, names_of_whole = (np.array(i.metadata["spectrum_id"].to_pylist()) for i in (index, whole))
    for options in (
        {}, {"precursor_ppm": None}, {"precursor_da": 40.0}, {"filters": Filters(polarity=1)},
        {"precursor_ppm": None, "filters": Filters(polarity=1, formulas=("C6H12O6",))},
    ):  # fmt: skip
        found, expected = (i.search(queries, 8, score="fused", **options) for i in (index, whole))
        np.testing.assert_array_equal(found.rows < 0, expected.rows < 0)
        hits = found.rows >= 0
        assert hits.any()
        assert names[found.rows[hits]].tolist() == names_of_whole[expected.rows[hits]].tolist()
        np.testing.assert_array_equal(found.scores, expected.scores)
        if "filters" in options:
            assert set(index.polarity[found.rows[hits]].tolist()) == {1}

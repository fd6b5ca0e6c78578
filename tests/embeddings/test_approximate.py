"""Approximate search: recall as stated, exact scores in exact order, no row that may not be a hit, same bytes again."""

from __future__ import annotations

import dataclasses
import time

import faiss
import numpy as np
import pyarrow as pa
import pytest

from ionbed.embeddings import approximate
from ionbed.embeddings.approximate import (
    AnnSettings,
    build_ann,
    choose_kind,
    lists_of,
    memory_needed,
    nearest_approximate,
    open_ann,
    write_ann,
)
from ionbed.embeddings.nearest import nearest_in_windows, nearest_of_all, nearest_of_proposed
from ionbed.embeddings.recall import EFFORTS, MeasuredRecall, measure_recall, molecules_of
from ionbed.errors import InputError

KINDS = ("hnsw", "ivf-sq8", "ivf-pq")
NUM_ROWS, DIM = 4000, 16


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def rows():
    """Four hundred molecules of ten spectra each, some twice the same, of either polarity or none."""
    rng = np.random.default_rng(5)
    vectors = unit(np.repeat(rng.normal(size=(400, DIM)), 10, axis=0) + 0.5 * rng.normal(size=(NUM_ROWS, DIM)))
    vectors[1::10] = vectors[::10]
    order = np.random.default_rng(6).permutation(NUM_ROWS)
    polarity = rng.choice(np.array([-1, 0, 1, 1, 1], np.int8), NUM_ROWS)
    return vectors[order], polarity


@pytest.fixture(scope="module")
def molecules():
    return np.random.default_rng(6).permutation(NUM_ROWS) // 10


@pytest.fixture(scope="module", params=KINDS)
def ann(request, rows):
    kind = request.param
    index = build_ann(rows[0], kind)
    return kind, index


@pytest.fixture(autouse=True)
def small_libraries_are_searched_approximately(monkeypatch):
    monkeypatch.setattr(approximate, "FLAT_UP_TO", 100)


def settings_of(kind):
    return AnnSettings(kind, 16, 20 if kind != "ivf-pq" else 100)


def drawn(molecules, num_queries, seed):
    """The molecules that are asked for, one half after the other: as many as give so many queries, ten of each."""
    order = np.random.default_rng(seed).permutation(len(np.unique(molecules)))
    return np.array_split(order[: num_queries // 10], 2)


def plain_recall(vectors, polarity, index, settings, queries, left):
    """Of the ten best rows of each query, how many are found: one query after the other."""
    recalls = []
    for query in queries:
        scores = (vectors.astype(np.float64) * vectors[query].astype(np.float64)).sum(axis=1).astype(np.float32)
        tenth = np.sort(scores[left & (polarity * polarity[query] != -1)])[-10]
        one = slice(query, query + 1)
        asked = vectors, polarity, vectors[one], polarity[one]
        found = nearest_approximate(index, settings, *asked, 10, left, is_as_set=True).rows[0]
        assert left[found[found >= 0]].all()
        recalls.append((scores[found[found >= 0]] >= tenth).sum() / 10)
    return recalls


def test_the_lists_that_are_visited_are_those_that_faiss_would_visit(rows):
    vectors, polarity = rows
    index = build_ann(vectors, "ivf-sq8")
    effort, queries = 5, vectors[:300]
    asked = vectors, np.zeros_like(polarity), queries, np.zeros(len(queries), np.int8), 10
    ours = nearest_approximate(index, AnnSettings("ivf-sq8", effort, 20), *asked)
    _, proposed = index.search(queries, 20, params=faiss.SearchParametersIVF(nprobe=effort))
    theirs = nearest_of_proposed(vectors, queries, proposed, 10)
    assert np.array_equal(ours.scores, theirs.scores)
    assert index.nlist > 4 * effort


def test_the_centres_of_a_file_are_copied_once_to_where_products_are_fast(rows, tmp_path):
    index = build_ann(rows[0], "ivf-sq8")
    write_ann(index, tmp_path / "ann.faiss")
    opened = open_ann(tmp_path / "ann.faiss", "ivf-sq8")
    of_file, of_memory = approximate._centres_of(opened), approximate._centres_of(index)
    np.testing.assert_array_equal(of_file, of_memory)
    assert of_file.flags.aligned and approximate._centres_of(opened) is of_file is not of_memory


def test_lists_are_searched_on_all_threads(rows):
    index, queries = build_ann(rows[0], "ivf-sq8"), np.tile(rows[0], (2, 1))
    with approximate._threads(2):
        before = time.process_time(), time.thread_time()
        approximate._propose_of_lists(index, queries, 10, index.nlist, None)
        of_all, of_one = time.process_time() - before[0], time.thread_time() - before[1]
    assert of_all - of_one > 0.2 * of_all


def test_the_recall_stated_is_that_of_molecules_left_out_and_not_tuned_with(rows, molecules, ann):
    vectors, polarity = rows
    kind, index = ann
    measured = measure_recall(index, kind, vectors, polarity, molecules, wanted=0.9, num_queries=200, seed=3)
    halves = [np.flatnonzero(np.isin(molecules, half)) for half in drawn(molecules, 200, seed=3)]
    left = np.ones(NUM_ROWS, bool)
    left[np.concatenate(halves)] = False
    tuning, recalls = (plain_recall(vectors, polarity, index, measured.settings, half, left) for half in halves)
    assert measured.num_queries == len(halves[1]) == 100
    assert measured.recall == pytest.approx(np.mean(recalls))
    assert measured.tuning == pytest.approx(np.mean(tuning))
    best = [
        (
            vectors[left & (polarity * polarity[query] != -1)].astype(np.float64) @ vectors[query].astype(np.float64)
        ).max()
        for query in halves[1]
    ]
    hardest = np.argsort(np.float32(best), kind="stable")[:10]
    assert measured.hardest_decile == pytest.approx(np.mean(np.array(recalls)[hardest]), abs=0.06)  # copies tie
    assert measured.tuning >= 0.9
    assert measured.recall > 0.8
    assert MeasuredRecall.from_dict(measured.to_dict()) == measured


def test_recall_is_not_that_of_the_rows_that_are_scored_one_by_one(rows, molecules, monkeypatch):
    """A library of two polarities can be large and each of them small: settings serve queries of unknown polarity."""
    index = build_ann(rows[0], "ivf-sq8")
    expected = measure_recall(index, "ivf-sq8", *rows, molecules, num_queries=200)
    monkeypatch.setattr(approximate, "FLAT_UP_TO", NUM_ROWS)
    assert measure_recall(index, "ivf-sq8", *rows, molecules, num_queries=200) == expected
    assert expected.settings.effort > 1


def test_no_less_effort_would_have_done_and_more_recall_takes_more(rows, molecules):
    vectors, polarity = rows
    index = build_ann(vectors, "ivf-sq8")
    low, high = (
        measure_recall(index, "ivf-sq8", vectors, polarity, molecules, wanted=wanted, num_queries=400)
        for wanted in (0.3, 0.95)
    )
    assert high.settings.effort > low.settings.effort
    assert high.tuning >= 0.95
    less = max(effort for effort in EFFORTS if effort < high.settings.effort)
    halves = [np.flatnonzero(np.isin(molecules, half)) for half in drawn(molecules, 400, seed=0)]
    left = np.ones(NUM_ROWS, bool)
    left[np.concatenate(halves)] = False
    settings = dataclasses.replace(high.settings, effort=less)
    recalls = np.array(plain_recall(vectors, polarity, index, settings, halves[0], left))
    _, of = np.unique(molecules[halves[0]], return_inverse=True)
    by_molecule = np.bincount(of, weights=recalls - recalls.mean())
    assert recalls.mean() - np.sqrt((by_molecule**2).sum()) / len(recalls) < 0.95


def test_a_spectrum_of_unknown_molecule_is_left_out_for_itself(rows, molecules, ann):
    kind, index = ann
    args = (index, kind, *rows)
    options = {"wanted": 0.9, "num_queries": 100, "seed": 1}
    alone = measure_recall(*args, **options)
    assert alone.num_queries == 50
    assert measure_recall(*args, np.full(NUM_ROWS, -1), **options) == alone
    assert measure_recall(*args, np.zeros(NUM_ROWS, int), **options) == alone  # nothing would be left of one molecule


def test_scores_are_exact_and_ranked_with_ties_by_row(rows, ann):
    vectors, polarity = rows
    kind, index = ann
    queries, signs = vectors[:50], polarity[:50]
    found = nearest_approximate(index, settings_of(kind), vectors, polarity, queries, signs, 10)
    exact = nearest_of_all(vectors, polarity, queries, signs, 10)
    assert (found.rows == exact.rows).mean() > 0.9
    for i in range(50):
        assert (found.rows[i] >= 0).all()
        products = np.multiply(vectors[found.rows[i]], queries[i], dtype=np.float64).sum(axis=1).astype(np.float32)
        assert found.scores[i].tolist() == products.tolist()
        pairs = list(zip((-found.scores[i]).tolist(), found.rows[i].tolist(), strict=True))
        assert pairs == sorted(set(pairs))
    assert (found.scores[:, :-1] == found.scores[:, 1:]).any()  # there are ties


def test_a_result_does_not_depend_on_what_is_searched_with_it(rows, ann):
    vectors, polarity = rows
    kind, index = ann
    queries, signs = vectors[:150], polarity[:150]
    together = nearest_approximate(index, settings_of(kind), vectors, polarity, queries, signs, 10)
    for i in range(0, 150, 7):
        one = slice(i, i + 1)
        alone = nearest_approximate(index, settings_of(kind), vectors, polarity, queries[one], signs[one], 10)
        assert alone.rows[0].tolist() == together.rows[i].tolist()
        assert alone.scores[0].tolist() == together.scores[i].tolist()


def test_queries_are_compared_with_centres_one_by_one():
    """From this many on FAISS takes a matrix product, whose rounding depends on the queries beside a query."""
    assert faiss.cvar.distance_compute_blas_threshold > approximate.QUERIES_PER_THREAD


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.8])
def test_only_rows_that_may_be_hits_are_found(rows, ann, share):
    vectors, polarity = rows
    kind, index = ann
    allowed = np.random.default_rng(1).random(NUM_ROWS) < share
    queries, signs = vectors[:60], polarity[:60]
    found = nearest_approximate(index, settings_of(kind), vectors, polarity, queries, signs, 10, allowed)
    exact = nearest_of_all(vectors, polarity, queries, signs, 10, allowed)
    hits = found.rows >= 0
    assert allowed[found.rows[hits]].all()
    assert (polarity[found.rows] * signs[:, None] != -1)[hits].all()
    if share < approximate.MIN_SHARE:
        assert found.rows.tolist() == exact.rows.tolist()
    else:
        assert hits.all()
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.rows, exact.rows, strict=True)]) > 0.9


def test_wide_windows_are_searched_approximately_and_narrow_ones_exactly(rows, ann, monkeypatch):
    vectors, polarity = rows
    kind, index = ann
    queries, signs = vectors[:40], polarity[:40]
    allowed = np.arange(NUM_ROWS) % 5 != 0
    start = np.array([0, 100] * 20)
    stop = np.array([3500, 160] * 20)
    seen = []
    exactly = approximate.nearest_in_windows
    monkeypatch.setattr(approximate, "nearest_in_windows", lambda *a: seen.append(len(a[2])) or exactly(*a))
    windows = (start, stop)
    found = nearest_approximate(index, settings_of(kind), vectors, polarity, queries, signs, 10, allowed, windows)
    assert seen == [20]
    exact = nearest_in_windows(vectors, polarity, queries, signs, start, stop, 10, allowed)
    assert found.rows[1::2].tolist() == exact.rows[1::2].tolist()
    wide = found.rows[::2]
    assert ((wide >= 0) & (wide < 3500)).all()
    assert allowed[wide].all()
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(wide, exact.rows[::2], strict=True)]) > 0.9


def test_many_hits_are_searched_exactly(rows, ann):
    vectors, polarity = rows
    kind, index = ann
    args = (vectors, polarity, vectors[:3], polarity[:3], approximate.MAX_K + 1)
    found = nearest_approximate(index, AnnSettings(kind, 1, 20), *args)
    assert found.rows.tolist() == nearest_of_all(*args).rows.tolist()
    windows = (np.array([5, 0, 9]), np.array([3000, 4000, 3500]))
    found = nearest_approximate(index, AnnSettings(kind, 1, 20), *args, windows=windows)
    assert found.rows.tolist() == nearest_in_windows(*args[:4], *windows, args[4]).rows.tolist()


def test_more_hits_than_ten_are_found_too(rows, ann):
    vectors, polarity = rows
    kind, index = ann
    args = (vectors, polarity, vectors[:50], polarity[:50], 60)
    found, exact = nearest_approximate(index, settings_of(kind), *args), nearest_of_all(*args)
    assert np.mean([len(set(a) & set(b)) / 60 for a, b in zip(found.rows, exact.rows, strict=True)]) > 0.9


def test_an_index_is_the_same_when_built_again(rows, ann):
    kind, index = ann
    again = build_ann(rows[0], kind)
    assert faiss.serialize_index(again).tobytes() == faiss.serialize_index(index).tobytes()


def test_lists_follow_the_seed(rows):
    one, other = (faiss.serialize_index(build_ann(rows[0], "ivf-sq8", seed=seed)).tobytes() for seed in (0, 1))
    assert one != other


def test_a_saved_index_finds_the_same_and_a_damaged_one_is_named(rows, ann, tmp_path):
    vectors, polarity = rows
    kind, index = ann
    path = tmp_path / "ann.faiss"
    write_ann(index, path)
    opened = open_ann(path, kind)
    args = (settings_of(kind), vectors, polarity, vectors[:30], polarity[:30], 10)
    expected, found = nearest_approximate(index, *args), nearest_approximate(opened, *args)
    assert found.rows.tolist() == expected.rows.tolist()
    other = next(name for name in KINDS if name != kind)
    with pytest.raises(InputError, match=f"no index of the kind {other}"):
        open_ann(path, other)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="is damaged"):
        open_ann(path, kind)


def test_the_estimate_of_the_file_is_near(rows, ann, tmp_path):
    kind, index = ann
    write_ann(index, tmp_path / "ann.faiss")
    assert memory_needed(kind, NUM_ROWS, DIM).disk == pytest.approx((tmp_path / "ann.faiss").stat().st_size, rel=0.2)
    assert memory_needed(kind, NUM_ROWS, DIM).build >= memory_needed(kind, NUM_ROWS, DIM).disk


def test_molecules_are_told_apart_by_the_first_block_of_their_key():
    keys = ["A" * 14 + "-UHFFFAOYSA-N", None, "B" * 14 + "-UHFFFAOYSA-N", "A" * 14 + "-GHIJKLMNSA-N"]
    numbers = molecules_of(pa.chunked_array([pa.array(keys[:2], pa.string()), pa.array(keys[2:], pa.string())]))
    assert numbers[0] == numbers[3] != numbers[2]
    assert numbers.tolist().count(-1) == 1
    assert numbers[1] == -1
    assert molecules_of(pa.chunked_array([pa.nulls(3, pa.string())])).tolist() == [-1] * 3


def test_kinds_by_size():
    kinds = [choose_kind(n, 256) for n in (10, 1000, 10_000, 1_000_000, 10_000_000, 100_000_000)]
    assert kinds == sorted(kinds, key=["flat", "hnsw", "ivf-sq8", "ivf-pq"].index)
    assert kinds[0] == "flat"
    assert kinds[-1] == "ivf-pq"
    assert choose_kind(999, 100_000) == "flat"
    assert memory_needed("flat", 10**6, 256).build == 0
    assert [lists_of(n) for n in (1, 1000, 10**5, 10**6)] == [1, 25, 1024, 4096]


def test_what_cannot_be_built_is_refused(rows):
    with pytest.raises(InputError, match="must be one of flat, hnsw, ivf-sq8, ivf-pq"):
        build_ann(rows[0], "ivf")
    with pytest.raises(InputError, match="at least 1,000 rows, not 999; take flat"):
        build_ann(rows[0][:999], "ivf-pq")
    for wanted in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="wanted recall"):
            measure_recall(None, "hnsw", *rows, wanted=wanted)

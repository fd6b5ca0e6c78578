"""Exactness, ties, windows and polarity of the nearest-vector search, against a search one can read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbed.embeddings import nearest
from ionbed.embeddings.nearest import (
    Nearest,
    highest_set,
    merged,
    nearest_among,
    nearest_in_windows,
    nearest_of_all,
    precursor_windows,
)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain_search(vectors, polarity, query, query_polarity, start, stop, k, allowed=None):
    """Every row scored in double precision, then sorted: what the fast one must give."""
    hits = []
    for row in range(start, stop):
        if polarity[row] * query_polarity != -1 and (allowed is None or allowed[row]):
            score = np.float32((vectors[row].astype(np.float64) * query.astype(np.float64)).sum())
            hits.append((-score, row))
    hits.sort()
    return [row for _, row in hits[:k]], [-score for score, _ in hits[:k]]


def assert_same(result, vectors, polarity, queries, query_polarity, start, stop, k, allowed=None):
    for i in range(len(queries)):
        rows, scores = plain_search(vectors, polarity, queries[i], query_polarity[i], start[i], stop[i], k, allowed)
        assert result.rows[i].tolist() == rows + [-1] * (k - len(rows))
        assert result.scores[i, : len(scores)].tolist() == pytest.approx(scores, abs=0)
        assert np.isnan(result.scores[i, len(scores) :]).all()


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    num_rows, num_queries = draw(st.integers(1, 120)), draw(st.integers(0, 12))
    dim = draw(st.sampled_from([1, 2, 7, 16]))
    distinct = unit(rng.normal(size=(draw(st.integers(1, num_rows)), dim)))
    vectors = distinct[rng.integers(0, len(distinct), num_rows)]  # repeats, so that scores tie
    polarity = rng.choice(
        np.array(draw(st.sampled_from([[1], [-1, 1], [-1, 0, 1], [-1, -1, -1, 1]])), np.int8), num_rows
    )
    queries = unit(rng.normal(size=(num_queries, dim)))
    if num_queries and draw(st.booleans()):
        queries[0] = vectors[0]
    query_polarity = rng.integers(-1, 2, num_queries).astype(np.int8)
    start = rng.integers(0, num_rows + 1, num_queries)
    stop = np.minimum(num_rows, start + rng.integers(0, num_rows + 1, num_queries))
    allowed = draw(st.sampled_from([None, 0.0, 0.1, 0.7]))
    allowed = None if allowed is None else rng.random(num_rows) < allowed
    return vectors, polarity, queries, query_polarity, start, stop, draw(st.integers(1, 15)), allowed


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from([1, 50, 1 << 24]), st.sampled_from([1, 1 << 16]), st.sampled_from([3, 1 << 16]))
def test_windows_are_exact_however_the_work_is_cut(problem, max_scores, free_scores, max_rows):
    vectors, polarity, queries, query_polarity, start, stop, k, allowed = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "MAX_SCORES_AT_ONCE", max_scores)
        patch.setattr(nearest, "FREE_SCORES_PER_GROUP", free_scores)
        patch.setattr(nearest, "MAX_ROWS_AT_ONCE", max_rows)
        patch.setattr(nearest, "MAX_PAIRS_AT_ONCE", max_rows)
        result = nearest_in_windows(vectors, polarity, queries, query_polarity, start, stop, k, allowed)
    assert_same(result, vectors, polarity, queries, query_polarity, start, stop, k, allowed)


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from([0, 2, 100]), st.sampled_from([3, 40, 1 << 16]))
def test_open_search_is_exact_however_the_work_is_cut(problem, few_queries, max_rows):
    vectors, polarity, queries, query_polarity, start, stop, k, allowed = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "FEW_QUERIES", few_queries)
        patch.setattr(nearest, "MAX_ROWS_AT_ONCE", max_rows)
        result = nearest_of_all(vectors, polarity, queries, query_polarity, k, allowed)
    start[:], stop[:] = 0, len(vectors)
    assert_same(result, vectors, polarity, queries, query_polarity, start, stop, k, allowed)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from([3, 1 << 16]))
def test_the_best_of_some_rows_are_exact(problem, at_once):
    vectors, _, queries, _, _, _, k, allowed = problem
    rng = np.random.default_rng(len(vectors))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "MAX_ROWS_AT_ONCE", at_once)
        patch.setattr(nearest, "MAX_PAIRS_AT_ONCE", at_once)
        for query in queries:
            some = rng.permutation(len(vectors))[: rng.integers(0, len(vectors) + 1)]
            rows, scores = nearest_among(vectors, query, some, k, allowed)
            among = np.isin(np.arange(len(vectors)), some) & (True if allowed is None else allowed)
            zeros = np.zeros(len(vectors), np.int8)
            expected = plain_search(vectors, zeros, query, 0, 0, len(vectors), k, among)
            assert (rows.tolist(), scores.tolist()) == expected


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 120))
def test_a_library_searched_in_parts_gives_what_the_whole_gives(problem, cut):
    vectors, polarity, queries, query_polarity, _, _, k, allowed = problem
    whole = nearest_of_all(vectors, polarity, queries, query_polarity, k, allowed)
    parts = []
    for part in (slice(0, cut), slice(cut, None)):
        of_part = None if allowed is None else allowed[part]
        found = nearest_of_all(vectors[part], polarity[part], queries, query_polarity, k, of_part)
        parts.append(Nearest(np.where(found.rows < 0, -1, found.rows + (part.start or 0)), found.scores))
    result = merged(parts, k)
    assert result.rows.tolist() == whole.rows.tolist()
    np.testing.assert_array_equal(result.scores, whole.scores)


@settings(deadline=None, max_examples=50)
@given(problems())
def test_a_set_of_the_highest_is_exact_with_ties_by_row(problem):
    vectors, queries, k = problem[0], problem[2], min(problem[6], len(problem[0]))
    anything, nothing = np.zeros(len(vectors), np.int8), 0
    found = highest_set(vectors, queries, k)
    assert found.shape == (len(queries), k)
    for query, rows in zip(queries, found.tolist(), strict=True):
        best, _ = plain_search(vectors, anything, query, nothing, 0, len(vectors), k)
        assert rows == sorted(best)


def test_open_search_takes_what_is_proposed_where_it_is_enough_and_only_there(monkeypatch):
    rng = np.random.default_rng(3)
    vectors = unit(rng.normal(size=(500, 8)))
    vectors[400:] = vectors[400]  # a hundred equal spectra: any of them may be proposed
    polarity = np.ones(500, np.int8)
    seen = []
    exact = nearest.nearest_in_windows
    monkeypatch.setattr(nearest, "nearest_in_windows", lambda *a: seen.append(len(a[2])) or exact(*a))
    queries = np.stack([vectors[3], vectors[450]])
    result = nearest_of_all(vectors, polarity, queries, np.ones(2, np.int8), 5)
    assert seen == [1]
    assert result.rows[0, 0] == 3
    assert result.rows[1].tolist() == [400, 401, 402, 403, 404]


@pytest.mark.parametrize("dim", [3, 64, 257])
def test_equal_vectors_score_equally_wherever_they_stand(dim):
    rng = np.random.default_rng(dim)
    vectors = np.repeat(unit(rng.normal(size=(1, dim))), 1001, axis=0)
    queries = unit(rng.normal(size=(37, dim)))
    polarity, query_polarity = np.zeros(1001, np.int8), np.zeros(37, np.int8)
    start, stop = np.arange(37), np.full(37, 1001)
    result = nearest_in_windows(vectors, polarity, queries, query_polarity, start, stop, 20)
    assert (result.rows == start[:, None] + np.arange(20)).all()
    assert (result.scores == result.scores[:, :1]).all()


def test_window_edges_are_in_and_measured_in_ppm_of_the_library():
    library = np.array([499.99, 500.0, 500.0, 500.006])
    start, stop = precursor_windows(library, np.array([500.005, 499.995, 500.0051, 100.0]), 10.0)
    assert start.tolist() == [1, 1, 3, 0]
    assert stop.tolist() == [4, 3, 4, 0]


@given(
    st.lists(st.floats(50, 2000), min_size=1, max_size=30).map(sorted),
    st.floats(50, 2000),
    st.sampled_from([1.0, 10.0, 1e4, 5e5]),
)
def test_windows_hold_what_the_reported_error_says(library, query, ppm):
    library = np.array(library)
    start, stop = precursor_windows(library, np.array([query]), ppm)
    error = np.abs(query - library) / library * 1e6
    inside = np.zeros(len(library), bool)
    inside[start[0] : stop[0]] = True
    clear = np.abs(error - ppm) > 1e-5
    assert (inside == (error <= ppm))[clear].all()

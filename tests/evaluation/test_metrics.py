"""Metrics against definitions, chance, and each other."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.evaluation.metrics import (
    average_precision,
    chance_corrected,
    comparable,
    hit_at_k,
    random_hit_at_k,
    random_reciprocal_rank,
    reciprocal_rank,
    roc_auc,
    roc_curve,
    tie_bounds,
)
from ionbed.evaluation.ranking import best_hits, score_molecules

few_scores = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=25)


def auc_by_definition(scores, positive, weights) -> float:
    won = total = 0.0
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive):
            weight = weights[i] * weights[j]
            total += weight
            won += weight * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
    return won / total if total else float("nan")


@given(few_scores)
def test_auc_is_the_chance_that_a_positive_scores_above_a_negative(rows) -> None:
    scores, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    positive = positive.astype(bool)
    expected = auc_by_definition(scores, positive, weights)
    assert roc_auc(scores, positive, weights) == pytest.approx(expected, nan_ok=True)


@given(few_scores)
def test_weights_count_like_repeated_pairs(rows) -> None:
    scores, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    repeated = roc_auc(np.repeat(scores, weights), np.repeat(positive, weights))
    assert roc_auc(scores, positive.astype(bool), weights) == pytest.approx(repeated, nan_ok=True)


def test_auc_agrees_with_scikit_learn_and_with_the_curve() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, positive = np.round(rng.normal(size=500), 1), rng.random(500) < 0.3
    assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert np.trapezoid(*roc_curve(scores, positive)[::-1]) == pytest.approx(roc_auc_score(positive, scores))


def test_auc_of_normal_scores_is_the_known_value() -> None:
    rng = np.random.default_rng(1)
    positive = np.arange(200_000) < 100_000
    scores = rng.normal(size=200_000) + positive  # one standard deviation apart: Phi(1 / sqrt(2)) = 0.7602
    assert roc_auc(scores, positive) == pytest.approx(0.7602, abs=0.003)


def test_a_constant_scorer_has_exactly_half_the_area() -> None:
    assert roc_auc(np.full(7, 0.3), np.arange(7) < 3) == 0.5


@pytest.mark.parametrize("better", [0, 1, 2])
@pytest.mark.parametrize("tied", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_hits_in_expectation_are_the_mean_over_all_orders_of_the_ties(better: int, tied: int, k: int) -> None:
    orders = list(permutations(range(tied)))  # item 0 is the true candidate
    expected = np.mean([better + order.index(0) < k for order in orders])
    assert hit_at_k(np.array([better]), np.array([tied]), k)[0] == pytest.approx(expected)


def mean_of_best(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each query's best hit; every query has the same molecules."""
    query, molecule = np.indices(scores.shape).reshape(2, -1)
    hits = best_hits(score_molecules(query, molecule, scores.ravel()), len(scores))
    return hits.mean_of(values.ravel()[hits.entries])


def test_best_of_constant_scores_is_the_mean_of_all_values() -> None:
    values = np.array([[0.1, 0.2, 0.9], [0.0, 0.5, 0.4]])
    assert mean_of_best(np.zeros((2, 3)), values) == pytest.approx([0.4, 0.3])


def test_best_is_the_mean_over_the_tied_and_nothing_for_an_abstention() -> None:
    scores = comparable(np.array([[1.0, 1.0 + 1e-9, 0.5], [np.nan, np.nan, np.nan], [0.1, np.nan, 0.3]]))
    values = np.array([[0.2, 0.4, 1.0], [1.0, 1.0, 1.0], [0.5, 1.0, 0.7]])
    assert mean_of_best(scores, values) == pytest.approx([0.3, 0.0, 0.7])


def test_rounding_errors_of_float32_are_ties() -> None:
    scores = np.float32(0.7) + np.arange(5, dtype=np.float32) * np.float32(6e-8)
    assert len(np.unique(scores)) > 1
    assert len(np.unique(comparable(scores))) == 1


@given(few_scores)
def test_average_precision_agrees_with_scikit_learn(rows) -> None:
    from sklearn.metrics import average_precision_score

    scores, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    positive = positive.astype(bool)
    found = average_precision(scores, positive, weights)
    if not weights[positive].sum() or not weights[~positive].sum():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(average_precision_score(positive, scores, sample_weight=weights))


def test_a_constant_scorer_has_the_precision_of_chance() -> None:
    assert average_precision(np.zeros(10), np.arange(10) < 3) == pytest.approx(0.3)


@pytest.mark.parametrize("better", [0, 1, 3])
@pytest.mark.parametrize("tied", [1, 2, 4])
def test_the_reciprocal_rank_is_the_mean_over_all_orders_of_the_ties(better: int, tied: int) -> None:
    expected = np.mean([1 / (better + order.index(0) + 1) for order in permutations(range(tied))])
    assert reciprocal_rank(np.array([better]), np.array([tied]))[0] == pytest.approx(expected)
    assert [int(bound[0]) for bound in tie_bounds(np.array([better]), np.array([tied]))] == [better + 1, better + tied]


def test_chance_is_what_drawing_at_random_gives_on_average() -> None:
    rng = np.random.default_rng(0)
    rank = rng.permuted(np.tile(np.arange(1, 13), (40_000, 1)), axis=1)[:, 0]
    size = np.array([12])
    for k in (1, 5, 20):
        assert random_hit_at_k(size, k)[0] == pytest.approx(np.mean(rank <= k), abs=0.01)
    assert random_reciprocal_rank(size)[0] == pytest.approx(np.mean(1 / rank), abs=0.01)


def test_chance_corrected_is_nothing_for_chance_and_one_for_perfection() -> None:
    assert chance_corrected(np.array([0.2, 1.0, 0.6, 0.1]), 0.2) == pytest.approx([0.0, 1.0, 0.5, -0.125])
    assert np.isnan(chance_corrected(1.0, 1.0))

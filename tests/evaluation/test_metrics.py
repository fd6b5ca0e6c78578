"""Metrics against definitions, chance, and each other."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.evaluation.metrics import comparable, hit_at_k, roc_auc, roc_curve, value_of_best

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


def test_best_of_constant_scores_is_the_mean_of_all_values() -> None:
    values = np.array([[0.1, 0.2, 0.9], [0.0, 0.5, 0.4]])
    assert value_of_best(np.zeros((2, 3)), values) == pytest.approx([0.4, 0.3])


def test_best_is_the_mean_over_the_tied_and_nothing_for_an_abstention() -> None:
    scores = comparable(np.array([[1.0, 1.0 + 1e-9, 0.5], [np.nan, np.nan, np.nan], [0.1, np.nan, 0.3]]))
    values = np.array([[0.2, 0.4, 1.0], [1.0, 1.0, 1.0], [0.5, 1.0, 0.7]])
    assert value_of_best(scores, values) == pytest.approx([0.3, 0.0, 0.7])


def test_rounding_errors_of_float32_are_ties() -> None:
    scores = np.float32(0.7) + np.arange(5, dtype=np.float32) * np.float32(6e-8)
    assert len(np.unique(scores)) > 1
    assert len(np.unique(comparable(scores))) == 1

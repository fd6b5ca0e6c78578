"""Weights of several scores of structures: what they rank by, and that nothing but the candidates of a query counts."""

from __future__ import annotations

import numpy as np
import pytest

from ionbed.embeddings.structure_fusion import StructureScore
from ionbed.evaluation.structure_fit import fit_structure_score


def drawn(num_queries: int = 400, num_candidates: int = 4, seed: int = 0):
    """Queries whose true candidate is drawn by the softmax of 2 a + b, of terms a, b and noise."""
    rng = np.random.default_rng(seed)
    query = np.repeat(np.arange(num_queries), num_candidates)
    values = rng.normal(size=(len(query), 3))
    gumbel = rng.gumbel(size=len(query))
    total = (2 * values[:, 0] + values[:, 1] + gumbel).reshape(num_queries, -1)
    is_true = (total == total.max(1, keepdims=True)).ravel()
    return values, query, is_true


def fitted(values, query, is_true, group=None) -> StructureScore:
    group = np.arange(query.max() + 1) if group is None else group
    return fit_structure_score(("a", "b", "noise"), values, query, is_true, group)


def test_weights_are_those_by_which_the_true_candidates_were_drawn() -> None:
    score = fitted(*drawn(2000))
    raw = np.array(score.weights) / np.array(score.scale)
    np.testing.assert_allclose(raw, [2, 1, 0], atol=0.15)


def test_scale_offset_and_order_do_not_count() -> None:
    values, query, is_true = drawn()
    score = fitted(values, query, is_true)
    offset = np.random.default_rng(1).normal(size=(query.max() + 1, 3))
    other = fitted(values * [100.0, 0.01, 1.0] + 5, query, is_true)
    np.testing.assert_allclose(other.weights, score.weights, rtol=1e-3, atol=1e-4)
    shifted = fitted(values + offset[query], query, is_true)  # what all candidates of a query share
    np.testing.assert_allclose(shifted.weights, score.weights, rtol=1e-3, atol=1e-4)
    order = np.random.default_rng(2).permutation(len(query))
    np.testing.assert_allclose(
        fitted(values[order], query[order], is_true[order]).weights, score.weights, rtol=1e-4, atol=1e-6
    )


def test_what_is_wrong_gets_no_weight_and_what_never_errs_a_finite_one() -> None:
    values, query, is_true = drawn()
    values[:, 0] *= -1
    values[:, 2] = is_true
    score = fitted(values, query, is_true)
    assert score.weights[0] == 0 < score.weights[1] < score.weights[2] < 100


def test_molecules_count_alike() -> None:
    """One molecule has many queries, of which 'a' is right; of the one query of each of ten others 'b' is."""
    query = np.repeat(np.arange(110), 2)
    first, is_many = np.tile([True, False], 110), query < 100
    values = np.column_stack([np.where(is_many, first, ~first), np.where(is_many, ~first, first), np.zeros(220)])
    group = np.concatenate([np.zeros(100, np.int64), np.arange(1, 11)])
    score = fitted(values.astype(float), query, first, group)
    assert score.weights[0] == 0 < score.weights[1]
    alone = fitted(values.astype(float), query, first)
    assert alone.weights[1] == 0 < alone.weights[0]


def test_a_term_that_abstains_adds_nothing() -> None:
    values, query, is_true = drawn()
    values[:, 2] = np.nan
    score = fitted(values, query, is_true)
    two = fit_structure_score(("a", "b"), values[:, :2], query, is_true, np.arange(query.max() + 1))
    np.testing.assert_allclose(score.weights, [*two.weights, 0.0], atol=1e-5)
    assert np.isfinite(score.total(values)).all()
    values[:] = np.nan
    assert np.isnan(score.total(values)).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": (1.0,)}, "2 terms have 1 weights"),
        ({"weights": (-1.0, 1.0)}, "below 0"),
        ({"scale": (0.0, 1.0)}, "not above 0"),
        ({"centre": (np.nan, 1.0)}, "not a finite number"),
    ],
)
def test_a_score_of_bad_numbers_is_refused(changed, message) -> None:
    fields = {"terms": ("a", "b"), "weights": (1.0, 1.0), "centre": (0.0, 0.0), "scale": (1.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        StructureScore(**{**fields, **changed})

"""The weights of a fused score: those of scikit-learn, fair to collision energies, and of terms that do rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ionbed.embeddings.fusion import WINDOW_TERMS, direction, sigmoid, without_embedding
from ionbed.evaluation.fusion_fit import (
    FitPairs,
    balanced,
    best_targets,
    calibrated,
    cross_validated,
    fit_probability,
    fit_ranking,
    logistic,
)

TERMS = ("spectral entropy", "hybrid entropy", "fewer peaks")


def pairs(count: int = 600, seed: int = 0) -> FitPairs:
    """Pairs of 30 queries whose target follows the first term, then the second; the third says nothing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (count, 3)) * (0.5, 3.0, 1.0) + (0.4, 2.0, 0.0)
    chance = 1 / (1 + np.exp(-(4 * (values[:, 0] - 0.4) + 0.4 * (values[:, 1] - 2))))
    query = np.arange(count) % 30
    energy = np.column_stack([np.log1p(rng.choice([0.0, 20.0, 60.0], count)), np.zeros(count)])
    return FitPairs(TERMS, values, (rng.random(count) < chance).astype(float), query, query // 2, energy)


def test_the_regression_is_that_of_scikit_learn() -> None:
    found = pairs()
    weight = np.random.default_rng(1).uniform(0.1, 3, len(found.target))
    weights, intercept = logistic(found.values, found.target, weight, 0.01)
    standard = (found.values - found.values.mean(axis=0)) / found.values.std(axis=0)
    # scikit-learn: C * sum of losses + squares / 2; here the weighted mean of losses + 0.01 * squares
    reference = LogisticRegression(C=1 / (2 * 0.01 * weight.sum()), tol=1e-10, max_iter=10_000)
    reference.fit(standard, found.target, sample_weight=weight)
    np.testing.assert_allclose(weights, reference.coef_[0] / found.values.std(axis=0), rtol=1e-3)
    total = found.values @ weights + intercept
    np.testing.assert_allclose(total, reference.decision_function(standard), atol=2e-3)


def test_with_a_high_penalty_a_score_is_the_lookup() -> None:
    found = pairs()
    for fit, place in ((fit_probability, 0), (fit_ranking, 1)):
        free, bound = (np.array(fit(found, ridge).weights) * found.values.std(axis=0) for ridge in (1e-4, 1e4))
        assert bound[place] > 0.1 and np.abs(np.delete(bound, place)).max() < 1e-3
        assert np.abs(np.delete(free, place)).max() > 0.3


def test_a_constant_term_gets_no_weight() -> None:
    found = pairs()
    weights, _ = logistic(np.column_stack([found.values, np.ones(600)]), found.target, np.ones(600), 1e-3)
    assert weights[3] == 0 and (weights[:2] > 0).all()


def test_collision_energies_tell_nothing_once_pairs_are_balanced() -> None:
    # One molecule is measured at many energies, two are compared at one: alone, the energies tell them apart.
    rng = np.random.default_rng(0)
    positive = rng.random(2000) < 0.6
    difference = np.where(rng.random(2000) < np.where(positive, 0.7, 0.2), 20.0, 0.0)
    energy = np.column_stack([np.log1p(difference), np.zeros(2000)])
    unknown = rng.random(2000) < 0.1
    energy[unknown] = (0.0, 1.0)
    weight = balanced(positive, energy)
    for place in (unknown, ~unknown & (difference == 0), ~unknown & (difference > 0)):
        assert weight[place & positive].sum() == pytest.approx(weight[place & ~positive].sum())
        assert weight[place].sum() == pytest.approx(place.sum())
    alone = FitPairs(("spectral entropy",), energy[:, :1], positive.astype(float), *2 * [np.arange(2000)], energy)
    fair = fit_probability(alone, 1e-6).weights[0]
    unfair = logistic(alone.values, alone.target, np.ones(2000), 1e-6)[0][0]
    assert unfair > 0.3 and abs(fair) < 1e-3


def test_energies_with_one_kind_of_pair_weigh_nothing() -> None:
    energy = np.array([[0.0, 0.0], [0.0, 0.0], [np.log1p(30), 0.0]])
    assert balanced(np.array([True, False, True]), energy).tolist() == [1.0, 1.0, 0.0]
    found = pairs()
    of_one_kind = replace(found, energy=np.column_stack([found.energy[:, 0] * 0, found.target]))
    with pytest.raises(ValueError, match="at no difference of collision energies"):
        fit_probability(of_one_kind, 0.01)


def test_a_ranking_is_by_the_terms_that_rank_and_says_what_to_expect() -> None:
    found = pairs(1200)
    tanimoto = np.clip(0.3 + 0.4 * (found.values[:, 0] - 0.4), 0, 1)
    # What differs between queries but not within one must not matter: the third term tells how easy a query is.
    easy = np.random.default_rng(3).uniform(-0.2, 0.2, 30)[found.query]
    found = replace(found, target=np.clip(tanimoto + easy, 0, 1))
    found.values[:, 2] = 10 * easy
    score = calibrated(fit_ranking(found, 1e-4), found)
    spread = np.abs(score.weights) * found.values.std(axis=0)
    assert score.weights[0] > 0 and spread[0] > 10 * spread[1:].max()
    best = best_targets(found.values @ np.array(score.weights), found)
    assert best.mean() > 0.95 * best_targets(found.target, found).mean()
    expected = 1 / (1 + np.exp(-(found.values @ np.array(score.weights) + score.intercept)))
    assert expected.mean() == pytest.approx(found.target.mean(), abs=1e-3)


def test_no_ranking_counts_likeness_against_a_candidate() -> None:
    terms = ("hybrid entropy", "lower shifted weight", "precursor difference", "hybrid entropy by energy difference")
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (1200, 4))
    target = np.clip(values @ (0.5, -0.3, 0.3, 0.2), 0, 1)  # of analogues; a copy of the query would have 1, 1, 0, 0
    query = np.arange(1200) % 40
    found = FitPairs(terms, values, target, query, query, np.zeros((1200, 2)))
    score = calibrated(fit_ranking(found, 1e-4), found)
    assert score.weights[0] > 0
    assert score.weights[1] == score.weights[2] == score.weights[3] == 0
    assert [direction(term) for term in (*terms, "embedding cosine by lower entropy")] == [1, 1, -1, -1, 1]
    copy = np.array([1.0, 1.0, 0.0, 0.0])
    assert copy @ score.weights >= (values @ np.array(score.weights)).max()
    # The look-up counts even where another term tells all.
    told = replace(found, terms=("lower entropy", "hybrid entropy"), values=np.column_stack([target, values[:, 0]]))
    best, lookup = fit_ranking(told, 1e-4).weights
    assert 0 < lookup < 0.2 * best


def test_within_a_window_nothing_is_ranked_before_a_copy_whatever_the_pairs_tell() -> None:
    """The pairs say that a likeness at another energy, or at an unknown one, is better than a spectrum's equal."""
    rng = np.random.default_rng(0)
    cosine, entropy = rng.uniform(-0.2, 1, 3000), rng.uniform(0, 1, 3000)
    energy, is_unknown = np.log1p(rng.choice([0.0, 30.0, 99.0], 3000)), rng.random(3000) < 0.3
    energy[is_unknown] = 0.0
    apart = 1 - entropy**2
    values = np.column_stack([cosine, entropy, apart, apart * energy, apart * is_unknown])
    chance = sigmoid(3 * (energy > 0) * apart + 4 * is_unknown * apart - 2 * entropy - 2 * cosine)
    target = (rng.random(3000) < chance).astype(float)
    even = np.column_stack([np.zeros(3000), np.zeros(3000)])  # balanced, energies would tell less
    query = np.arange(3000) // 10
    found = FitPairs(WINDOW_TERMS, values, target, query, query, even)
    free, _ = logistic(values, target, np.ones(3000), 1e-4)
    for terms in (WINDOW_TERMS, without_embedding(WINDOW_TERMS)):
        pairs = found.only(terms)
        score = fit_probability(pairs, 1e-4)
        copy = np.array([1.0, 1.0, 0.0, 0.0, 0.0])[-len(terms) :]
        grid = [np.linspace(-1, 1, 5), np.linspace(0, 1, 41), np.linspace(0, np.log1p(100.0), 7), [0.0, 1.0]]
        c, e, d, u = (part.ravel() for part in np.meshgrid(*grid))
        d = np.where(u > 0, 0.0, d)
        others = np.column_stack([c, e, 1 - e**2, (1 - e**2) * d, (1 - e**2) * u])[:, -len(terms) :]
        assert (others @ np.array(score.weights) <= copy @ np.array(score.weights) + 1e-9).all()
        assert (others @ free[-len(terms) :]).max() > copy @ free[-len(terms) :] + 0.5
        assert score.weights[-1] > score.weights[-3] + 0.1  # what the pairs tell is still heard, as far as it may


def test_conditions_that_hold_change_nothing() -> None:
    found = pairs()
    weight = np.ones(len(found.target))
    free = logistic(found.values, found.target, weight, 1e-3)
    held = logistic(found.values, found.target, weight, 1e-3, conditions=np.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(held[0], free[0], atol=2e-3)
    assert held[1] == pytest.approx(free[1], abs=5e-3)


def test_a_lookup_that_tells_all_pairs_apart_leaves_a_finite_score() -> None:
    found = pairs()
    apart = replace(found, values=found.values.copy())
    apart.values[:, 0] = found.target * 0.5 + 0.2
    score = fit_probability(apart, 100.0)
    total = apart.values @ np.array(score.weights) + score.intercept
    assert 2 < np.abs(total).max() < 16


def test_a_ranking_that_learned_nothing_is_refused() -> None:
    found = replace(pairs(), values=np.ones((600, 3)))
    with pytest.raises(ValueError, match="no more alike"):
        calibrated(fit_ranking(found, 1e-3), found)


def test_a_pair_is_scored_by_weights_that_have_not_seen_its_molecule() -> None:
    found, seen = pairs(), []

    def fit(part: FitPairs, ridge: float):
        seen.append(set(part.group.tolist()))
        return fit_probability(part, ridge)

    scores = cross_validated(found, fit, 1e-3, 5, 0)
    assert len(seen) == 5 and all(len(groups) == 12 for groups in seen)
    assert not set.intersection(*seen)
    for group in range(15):
        (without,) = (groups for groups in seen if group not in groups)
        rows = np.isin(found.group, list(without))
        score = fit_probability(found.take(rows), 1e-3)
        expected = found.values @ np.array(score.weights) + score.intercept
        np.testing.assert_allclose(scores[found.group == group], expected[found.group == group])


def test_the_best_candidates_of_a_query_share_its_target() -> None:
    found = FitPairs(
        ("cosine",), np.zeros((5, 1)), np.array([1.0, 0.2, 0.4, 0.7, 0.1]), np.array([3, 1, 1, 1, 3]),
        np.zeros(5, np.int64), np.zeros((5, 2)),
    )  # fmt: skip
    np.testing.assert_allclose(best_targets(np.array([0.1, 0.5, 0.5, 0.4, 0.9]), found), [0.3, 0.1])

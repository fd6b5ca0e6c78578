"""Scores as confidences: risk against coverage, calibration and false discovery rates with known truth."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from ionbed.evaluation.confidence import calibration, confidence_tree, fdr_curve, risk_coverage, threshold_at_fdr


def test_risk_is_that_of_the_most_confident() -> None:
    found = risk_coverage(np.array([0.1, 0.9, 0.5, 0.7]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert found.coverage == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found.risk == pytest.approx([0, 0, 1 / 3, 0.5])
    assert found.area == pytest.approx((1 / 3 + 0.5) / 4)
    assert found.excess == pytest.approx(0)  # no order of these outcomes does better


def test_ties_of_confidence_are_the_mean_over_all_orders() -> None:
    confidence, correct = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([1.0, 0.0, 1.0, 0.5, 0.0])
    orders = [(0, *order, 4) for order in permutations((1, 2, 3))]
    expected = np.mean([np.cumsum(1 - correct[list(order)]) / np.arange(1, 6) for order in orders], axis=0)
    assert risk_coverage(confidence, correct).risk == pytest.approx(expected)


def test_a_confidence_without_knowledge_has_a_flat_curve_and_an_abstention_is_an_error() -> None:
    flat = risk_coverage(np.zeros(10), np.arange(10) < 7)
    assert flat.risk == pytest.approx(np.full(10, 0.3))
    silent = risk_coverage(np.array([1.0, -np.inf]), np.array([1.0, 1.0]))
    assert silent.risk == pytest.approx([0.0, 0.5])


def test_probabilities_that_are_true_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(50_000)
    right = (rng.random(50_000) < p).astype(float)
    assert calibration(p, right).error < 0.01
    # p squared claims too little: the mean distance between p and its square is 1/6
    assert calibration(p**2, right).error == pytest.approx(1 / 6, abs=0.01)
    assert sum(calibration(p, right).num) == 50_000


def test_the_calibration_of_one_probability_is_its_distance_from_the_accuracy() -> None:
    rng = np.random.default_rng(0)
    right = rng.permutation(np.arange(100) < 40).astype(float)
    assert calibration(np.full(100, 0.4), right).error == pytest.approx(0.0)
    assert calibration(np.full(100, 0.9), right).error == pytest.approx(0.5)


def test_the_false_discovery_rate_is_counted_at_every_score() -> None:
    best = np.array([5.0, 4.0, 4.0, 3.0, -np.inf])
    found = fdr_curve(best, np.array([1.0, 1.0, 0.0, 0.0, 0.0]), np.array([4.5, 1.0, -np.inf, 3.0, -np.inf]))
    assert found.threshold.tolist() == [5.0, 4.0, 3.0]
    assert found.accepted.tolist() == [1, 3, 4]
    assert found.measured == pytest.approx([0, 1 / 3, 1 / 2])
    assert found.estimated == pytest.approx([0, 1 / 3, 2 / 4])  # second-best candidates at or above the threshold


def test_second_best_candidates_estimate_the_rate_where_every_query_has_an_answer() -> None:
    """Right candidates from N(3, 1) compete with the best of nine from N(0, 1)."""
    rng = np.random.default_rng(0)
    true, others = rng.normal(3, 1, 40_000), np.sort(rng.normal(0, 1, (40_000, 9)), axis=1)
    best, correct = np.maximum(true, others[:, -1]), (true > others[:, -1]).astype(float)
    second = np.where(correct, others[:, -1], np.maximum(true, others[:, -2]))
    curve = fdr_curve(best, correct, second)
    place = int(np.searchsorted(-curve.threshold, -2.5))
    assert 0.01 < curve.measured[place] < curve.estimated[place] < 0.12  # on the safe side


def test_second_best_candidates_are_too_hopeful_where_no_query_has_an_answer() -> None:
    others = np.sort(np.random.default_rng(0).normal(0, 1, (10_000, 9)), axis=1)
    curve = fdr_curve(others[:, -1], np.zeros(10_000), others[:, -2])
    place = int(np.searchsorted(-curve.threshold, -2.0))
    assert curve.measured[place] == 1.0
    assert curve.estimated[place] < 0.3


def test_a_threshold_holds_on_new_data() -> None:
    def draw(seed: int):
        rng = np.random.default_rng(seed)
        right = rng.random(3000) < 0.5
        return rng.normal(0, 1, 3000) + 3 * right, right.astype(float)

    for level in (0.01, 0.05, 0.1):
        rates = []
        for seed in range(20):
            best, correct = draw(seed)
            found = threshold_at_fdr(fdr_curve(best, correct, np.full(3000, -np.inf)), level)
            assert found is not None
            best, correct = draw(1000 + seed)
            rates.append(1 - correct[best >= found[0]].mean())
        assert np.mean(rates) == pytest.approx(level, abs=0.25 * level)


def test_few_right_answers_are_no_proof_of_a_low_rate() -> None:
    def threshold(num: int):
        return threshold_at_fdr(fdr_curve(np.arange(num, dtype=float), np.ones(num), np.full(num, -np.inf)), 0.01)

    assert threshold(99) is None
    assert threshold(100) == (0.0, 100)


def test_nothing_answered_is_told_without_a_number() -> None:
    nothing = np.full(5, -np.inf)
    tree = confidence_tree(nothing, np.zeros(5), nothing, probability=True)
    assert tree["area under risk-coverage"] == 1.0
    assert tree["calibration"] is None
    assert [entry["threshold"] for entry in tree["thresholds"]] == [None, None, None]

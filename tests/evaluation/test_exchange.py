"""The permutation test for pairs: exchanges are exact, groups are what is exchanged, and p-values are uniform."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ionbed.evaluation.exchange import mid_ranks, pair_permutation_p
from ionbed.evaluation.metrics import average_precision, roc_auc

MEASURES = {"ROC AUC": roc_auc, "average precision": average_precision}


def exact_p(measure: str, own: np.ndarray, other: np.ndarray, positive: np.ndarray, group: np.ndarray) -> float:
    """Every exchange, each computed from its definition."""
    a, b = mid_ranks(np.stack([own, other]))
    found = []
    for signs in product([False, True], repeat=int(group.max()) + 1):
        swapped = np.array(signs)[group]
        first, second = np.where(swapped, b, a), np.where(swapped, a, b)
        found.append(MEASURES[measure](first, positive) - MEASURES[measure](second, positive))
    return float(np.mean(np.abs(found) >= abs(found[0]) - 1e-12))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_is_that_of_all_exchanges(measure: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(9), 5)
    positive = rng.random(45) < 0.4
    own = np.round(rng.normal(positive * 1.0, 1), 1)  # with ties
    other = np.round(rng.normal(0, 3, 45))
    other[rng.random(45) < 0.1] = -np.inf
    expected = exact_p(measure, own, other, positive, group)
    found = pair_permutation_p(measure, own, other, positive, group, permutations=4000)
    assert found == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 4000) if expected > 0.1 else 0.015)


def simulated(rng: np.random.Generator, num_groups: int = 60, effect: float = 0.0) -> tuple[np.ndarray, ...]:
    """Two rows of equal merit on groups that share an effect, so that its pairs are right or wrong together."""
    group = np.repeat(np.arange(num_groups), rng.integers(1, 12, num_groups))
    positive = rng.random(len(group)) < 0.4
    ability = rng.normal(1.0, 1.0, (2, num_groups))
    level = rng.normal(0, 0.5, (2, num_groups))
    own, other = (
        (ability[row] + extra)[group] * positive + level[row][group] + rng.normal(0, 1, len(group))
        for row, extra in enumerate((effect, 0.0))
    )
    return own, np.exp(other), positive, group  # the scale of a score means nothing


@pytest.mark.parametrize("measure", MEASURES)
def test_p_values_of_no_difference_are_uniform(measure: str) -> None:
    found = []
    for seed in range(150):
        own, other, positive, group = simulated(np.random.default_rng(seed))
        found.append(pair_permutation_p(measure, own, other, positive, group, permutations=99, seed=seed))
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 150))


@pytest.mark.parametrize("measure", MEASURES)
def test_p_values_against_chance_are_uniform_where_scores_say_nothing(measure: str) -> None:
    found = []
    for seed in range(150):
        _, _, positive, group = simulated(rng := np.random.default_rng(seed))
        scores = rng.normal(0, 1, group.max() + 1)[group] + rng.normal(0, 1, len(group))
        found.append(pair_permutation_p(measure, scores, None, positive, group, permutations=99, seed=seed))
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 150))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_planted_difference_is_found(measure: str) -> None:
    own, other, positive, group = simulated(np.random.default_rng(0), effect=2.0)
    assert pair_permutation_p(measure, own, other, positive, group, permutations=999) < 0.01
    assert pair_permutation_p(measure, own, None, positive, group, permutations=999) == 0.001
    assert pair_permutation_p(measure, own, own, positive, group, permutations=999) == 1.0


def test_the_pairs_of_a_group_are_no_more_evidence_than_the_group() -> None:
    """Ten groups on which one row is right and the other wrong, whatever the number of pairs: 2 of 2^10 exchanges."""
    for size in (2, 40):
        group = np.repeat(np.arange(10), size)
        positive = np.tile([True, False], 5 * size)
        p = pair_permutation_p("ROC AUC", positive * 1.0, positive * -1.0, positive, group)
        assert p == pytest.approx(2 / 1024, abs=0.002)


def test_several_trainings_count_by_their_mean() -> None:
    own, other, positive, group = simulated(np.random.default_rng(0), effect=0.4)
    for measure in MEASURES:
        single = pair_permutation_p(measure, own, other, positive, group, permutations=999)
        thrice = pair_permutation_p(measure, np.stack([own] * 3), other, positive, group, permutations=999)
        undone = pair_permutation_p(measure, np.stack([own, other]), np.stack([other, own]), positive, group)
        assert thrice == single
        assert undone == 1.0


def test_ties_share_their_mean_rank() -> None:
    assert mid_ranks(np.array([[3.0, -np.inf, 3.0, 1.0]])).tolist() == [[3.5, 1.0, 3.5, 2.0]]

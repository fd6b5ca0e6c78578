"""Intervals that cover what they claim to, and verdicts that do not see what is not there."""

from __future__ import annotations

import numpy as np
import pytest

from ionbed.evaluation.metrics import WeightedRocAuc, roc_auc
from ionbed.evaluation.statistics import (
    Measured,
    bootstrap_p,
    combine_trainings,
    compare,
    confirmed,
    estimate,
    holm,
    molecule_means,
    molecule_weights,
    pair_weights,
    paired_permutation_p,
    resampled_means,
    resampled_over_pairs,
    resampling_units,
    trainings_p,
)
from ionbed.evaluation.student import student_quantile


def test_every_resample_draws_as_many_molecules_as_there_are() -> None:
    weights = molecule_weights(7, resamples=50, seed=0)
    assert (weights.sum(axis=1) == 7).all()
    assert np.array_equal(weights, molecule_weights(7, resamples=50, seed=0))
    assert not np.array_equal(weights, molecule_weights(7, resamples=50, seed=1))


def test_a_resampled_mean_is_the_mean_of_the_repeated_queries() -> None:
    values, molecule = np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 0, 1, 2])
    weights = np.array([[2, 0, 1], [0, 3, 0]], np.float32)
    expected = [np.mean([1, 2, 1, 2, 8]), 4.0]
    assert resampled_means(values, molecule, weights) == pytest.approx(expected)


def test_pairs_of_two_molecules_weigh_their_product_and_pairs_within_one_its_copies() -> None:
    weights = np.array([[2, 3, 0]], np.float32)
    assert list(next(pair_weights(np.array([0, 0, 1]), np.array([0, 1, 2]), weights))) == [2, 6, 0]


def test_resampled_areas_are_those_of_the_weighted_pairs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 80), rng.integers(0, 6, 80)
    scores, positive = rng.integers(0, 5, 80), first == second
    weights = molecule_weights(6, resamples=20, seed=0)
    found = resampled_over_pairs({"a": WeightedRocAuc(scores, positive)}, first, second, weights)["a"]
    expected = [roc_auc(scores, positive, pairs) for pairs in pair_weights(first, second, weights)]
    assert found == pytest.approx(expected, nan_ok=True)


def coverage(simulate, truth: float, *, trials: int = 120) -> float:
    covered = 0
    for trial in range(trials):
        found = simulate(np.random.default_rng(trial), trial)
        assert found.low is not None
        covered += found.low <= truth <= found.high
    return covered / trials


def test_intervals_of_means_cover_the_truth_though_queries_of_a_molecule_agree() -> None:
    def simulate(rng: np.random.Generator, seed: int):
        difficulty = rng.normal(0.5, 0.2, 60)
        molecule = np.repeat(np.arange(60), rng.integers(1, 6, 60))
        values = difficulty[molecule] + rng.normal(0, 0.02, len(molecule))
        weights = molecule_weights(60, resamples=200, seed=seed)
        return estimate(Measured(float(values.mean()), resampled_means(values, molecule, weights), 60))

    assert 0.87 <= coverage(simulate, 0.5) <= 0.99


def test_intervals_of_the_area_cover_the_truth_though_pairs_share_molecules() -> None:
    size = 40

    def draw(rng: np.random.Generator, molecules: int):
        """Every pair of neighbours on a ring, and each molecule with itself thrice; scores share molecule effects."""
        effect = rng.normal(0, 0.7, molecules)
        own = np.arange(molecules)
        first = np.concatenate([np.repeat(own, 3), own, own])
        second = np.concatenate([np.repeat(own, 3), (own + 1) % molecules, (own + 2) % molecules])
        scores = effect[first] + effect[second] + rng.normal(0, 0.7, len(first)) + (first == second)
        return scores, first, second

    scores, first, second = draw(np.random.default_rng(999), 60_000)
    truth = roc_auc(scores, first == second)

    def simulate(rng: np.random.Generator, seed: int):
        scores, first, second = draw(rng, size)
        weights = molecule_weights(size, resamples=200, seed=seed)
        resampled = resampled_over_pairs({"a": WeightedRocAuc(scores, first == second)}, first, second, weights)["a"]
        return estimate(Measured(roc_auc(scores, first == second), resampled, size))

    assert 0.87 <= coverage(simulate, truth) <= 0.995


def planted(effect: float, *, num_molecules: int = 80, seed: int = 0):
    rng = np.random.default_rng(seed)
    base = rng.normal(0.5, 0.2, num_molecules)
    other = base + effect + rng.normal(0, 0.05, num_molecules)
    weights = molecule_weights(num_molecules, resamples=400, seed=seed)
    molecule = np.arange(num_molecules)
    rows = [Measured(float(v.mean()), resampled_means(v, molecule, weights), num_molecules) for v in (other, base)]
    return compare(*rows, against="base")


@pytest.mark.parametrize(("effect", "verdict"), [(0.05, "beats"), (-0.05, "loses"), (0.0, "unresolved")])
def test_the_verdict_is_that_of_the_planted_effect(effect: float, verdict: str) -> None:
    assert planted(effect).verdict == verdict


def test_pairing_resolves_what_two_separate_intervals_cannot() -> None:
    found = planted(0.05)
    width_of_difference = found.estimate.high - found.estimate.low
    assert width_of_difference < 0.03 < 0.08  # the rows themselves spread by 0.2 / sqrt(80), some 0.09 wide


def test_no_effect_is_seldom_called_one() -> None:
    verdicts = [planted(0.0, seed=seed).verdict for seed in range(100)]
    assert verdicts.count("unresolved") >= 88


def test_a_row_is_never_better_than_itself() -> None:
    rng = np.random.default_rng(0)
    row = Measured(0.5, rng.normal(0.5, 0.1, 100), 50)
    assert compare(row, row, "itself").verdict == "unresolved"


def test_too_few_molecules_give_no_interval_and_no_verdict() -> None:
    row, other = (Measured(value, np.full(100, value), 3) for value in (0.9, 0.1))
    assert estimate(row).low is None
    assert compare(row, other, "other").verdict == "unresolved"


def test_nothing_measured_is_no_value() -> None:
    assert estimate(Measured(float("nan"), np.full(10, np.nan), 20)).value is None


def covered(draw, truth: float, num_molecules: int, *, trials: int) -> float:
    """How often the 95% interval of a mean over molecules holds the truth.

    The resamples are the same in every trial: they are drawn without regard to the data.
    """
    weights = molecule_weights(num_molecules, resamples=1000, seed=0)
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(trials):
        values, molecule = draw(rng)
        found = estimate(Measured(float(values.mean()), resampled_means(values, molecule, weights), num_molecules))
        hits += found.low <= truth <= found.high
    return hits / trials


@pytest.mark.parametrize("num_molecules", [8, 20, 100])
def test_intervals_of_a_mean_cover_93_to_97_percent_however_few_the_molecules(num_molecules: int) -> None:
    def draw(rng: np.random.Generator):
        return rng.normal(0.3, 0.2, num_molecules), np.arange(num_molecules)

    assert 0.93 <= covered(draw, 0.3, num_molecules, trials=2000) <= 0.97


def test_intervals_of_a_hit_rate_cover_93_to_97_percent_though_queries_of_a_molecule_agree() -> None:
    molecule = np.repeat(np.arange(100), 1 + np.arange(100) % 4)

    def draw(rng: np.random.Generator):
        ability = rng.beta(2, 2, 100)
        return (rng.random(len(molecule)) < ability[molecule]).astype(float), molecule

    assert 0.93 <= covered(draw, 0.5, 100, trials=3000) <= 0.97


def test_intervals_that_ignore_the_molecules_would_not() -> None:
    molecule = np.repeat(np.arange(30), 10)

    def draw(rng: np.random.Generator):
        ability = rng.beta(0.5, 0.5, 30)
        return (rng.random(300) < ability[molecule]).astype(float), np.arange(300)

    assert covered(draw, 0.5, 300, trials=500) < 0.7


def test_students_quantiles_are_those_of_scipy() -> None:
    from scipy.stats import t

    for degrees in (4, 5, 9, 30, 1000):
        assert student_quantile(0.975, degrees) == pytest.approx(t.ppf(0.975, degrees), abs=1.5e-3)


def test_macro_counts_every_molecule_once() -> None:
    assert molecule_means(np.array([1.0, 0.0, 0.0, 1.0]), np.array([0, 0, 0, 1])) == pytest.approx([1 / 3, 1.0])


def test_the_permutation_test_is_exact_on_a_small_table() -> None:
    """Four molecules on which one row is better each time: 2 of the 16 exchanges are as extreme."""
    own, other, molecule = np.array([1.0, 1.0, 1.0, 1.0, 1.0]), np.zeros(5), np.array([0, 0, 1, 2, 3])
    assert paired_permutation_p(own, other, molecule) == pytest.approx(2 / 16, abs=0.01)
    assert paired_permutation_p(own, own, molecule) == 1.0


def test_the_permutation_test_exchanges_molecules_not_queries() -> None:
    """Six molecules with fifty queries each are six, whatever their queries say: 2 of 64 exchanges."""
    molecule = np.repeat(np.arange(6), 50)
    assert paired_permutation_p(np.ones(300), np.zeros(300), molecule) == pytest.approx(2 / 64, abs=0.01)


def test_p_values_of_no_effect_are_uniform() -> None:
    rng = np.random.default_rng(0)
    molecule = np.repeat(np.arange(40), 2)
    found = []
    for seed in range(400):
        own, other = (rng.random(80) + rng.normal(0, 0.3, 40)[molecule] for _ in range(2))
        found.append(paired_permutation_p(own, other, molecule, permutations=499, seed=seed))
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 400))


def test_the_bootstrap_p_agrees_with_the_normal_one() -> None:
    resampled = np.random.default_rng(0).normal(0.2, 0.1, 5000)
    assert bootstrap_p(0.2, resampled) == pytest.approx(0.0455, abs=0.006)
    assert bootstrap_p(0.0, resampled) == 1.0
    assert bootstrap_p(0.5, np.full(99, 0.5)) == 1e-4


def test_holm_is_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_keeps_false_calls_of_a_whole_table_rare() -> None:
    p = np.random.default_rng(0).random((2000, 12))
    plain, corrected = (p <= 0.05).any(axis=1).mean(), np.mean([min(holm(row.tolist())) <= 0.05 for row in p])
    assert plain > 0.4
    assert corrected == pytest.approx(0.05, abs=0.015)


def test_a_verdict_needs_the_interval_and_the_p_value() -> None:
    difference = planted(0.05)
    assert confirmed(difference, 0.01) == "beats"
    assert confirmed(difference, 0.06) == "unresolved"
    assert confirmed(planted(0.0), 0.01) == "unresolved"


def test_groups_of_molecules_that_no_pair_connects_are_resampled_where_there_are_many() -> None:
    chain = np.arange(40) * 5  # 40 windows of molecules 0-1-2-3, and one molecule alone in each
    first = np.concatenate([chain, chain + 3, chain + 2, chain + 4])
    second = np.concatenate([chain + 1, chain + 2, chain + 1, chain + 4])
    order = np.random.default_rng(0).permutation(200)  # the numbers of the molecules mean nothing
    a, b = resampling_units(order[first], order[second])
    assert np.array_equal(a, b)
    assert len(np.unique(a)) == 80
    windows = a[:120].reshape(3, 40)
    assert (windows == windows[0]).all()
    assert len(np.unique(windows[0])) == 40
    assert not set(a[120:]) & set(windows[0])


def test_few_or_unequal_groups_leave_the_molecules_to_be_resampled() -> None:
    ring = np.arange(50)
    for first, second in (
        (ring, (ring + 1) % 50),  # one group
        (np.arange(20), np.arange(20)),  # too few
        (np.concatenate([np.arange(100), np.zeros(50, int)]), np.concatenate([np.arange(100), np.ones(50, int)])),
    ):
        a, b = resampling_units(first, second)
        assert np.array_equal(a, first) and np.array_equal(b, second)


def test_intervals_of_the_area_cover_93_to_97_percent_where_windows_are_many() -> None:
    """100 molecules alone in their window and 40 windows of three; scores share molecule effects."""

    def draw(rng: np.random.Generator, alone: int, windows: int):
        effect = rng.normal(0, 0.7, alone + 3 * windows)
        own, base = np.repeat(np.arange(len(effect)), 3), alone + 3 * np.arange(windows)
        first = np.concatenate([own, base, base, base + 1])
        second = np.concatenate([own, base + 1, base + 2, base + 2])
        scores = effect[first] + effect[second] + rng.normal(0, 0.7, len(first)) + (first == second)
        return scores, first, second

    scores, first, second = draw(np.random.default_rng(999), 50_000, 20_000)
    truth = roc_auc(scores, first == second)
    weights = molecule_weights(140, resamples=200, seed=0)
    hits = 0
    for trial in range(400):
        scores, first, second = draw(np.random.default_rng(trial), 100, 40)
        a, b = resampling_units(first, second)
        resampled = resampled_over_pairs({"a": WeightedRocAuc(scores, first == second)}, a, b, weights)["a"]
        found = estimate(Measured(roc_auc(scores, first == second), resampled, 140))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 400 <= 0.97


def trained(rng: np.random.Generator, weights: np.ndarray, trainings: int, sd: tuple[float, float, float]):
    """Trainings whose merit is 0.5 on average; ``sd`` of molecules, of seeds, and of seeds on single molecules."""
    num_molecules = weights.shape[1]
    molecules = rng.normal(0.5, sd[0], num_molecules)
    found = []
    for _ in range(trainings):
        values = molecules + rng.normal(0, sd[1]) + rng.normal(0, sd[2], num_molecules)
        resampled = resampled_means(values, np.arange(num_molecules), weights)
        found.append(Measured(float(values.mean()), resampled, num_molecules))
    return found


@pytest.mark.parametrize(
    ("sd", "least", "most"),
    [
        ((0.3, 0.0, 0.0), 0.93, 0.97),  # the seed changes nothing
        ((0.02, 0.1, 0.02), 0.93, 0.97),  # the seed is everything
        ((0.4, 0.01, 0.2), 0.93, 0.98),  # as trainings of one network are
        ((0.05, 0.0, 0.4), 0.93, 1.0),  # trainings disagree on every molecule and are equally good: wide
    ],
)
def test_intervals_of_three_trainings_cover_another_seed_on_other_molecules(
    sd: tuple[float, float, float], least: float, most: float
) -> None:
    weights = molecule_weights(100, resamples=1000, seed=0)
    rng = np.random.default_rng(1)
    rows = [trained(rng, weights, 3, sd) for _ in range(1200)]
    found = [estimate(combine_trainings(row)) for row in rows]
    assert least <= np.mean([one.low <= 0.5 <= one.high for one in found]) <= most


def test_the_interval_of_one_training_would_not() -> None:
    weights = molecule_weights(100, resamples=200, seed=0)
    rng = np.random.default_rng(1)
    found = [estimate(trained(rng, weights, 1, (0.3, 0.05, 0.0))[0]) for _ in range(300)]
    assert np.mean([one.low <= 0.5 <= one.high for one in found]) < 0.85


def test_trainings_are_combined_without_chance() -> None:
    weights = molecule_weights(100, resamples=1000, seed=0)
    row = trained(np.random.default_rng(0), weights, 3, (0.3, 0.1, 0.1))
    assert combine_trainings(row[:1]) is row[0]
    once, again = combine_trainings(row), combine_trainings(row)
    assert np.array_equal(once.resampled, again.resampled)
    assert once.value == pytest.approx(np.mean([part.value for part in row]))
    assert combine_trainings(row, (0.45, 0.5)).resampled.min() == 0.45
    assert compare(once, again, "itself").estimate.low == 0.0  # a row is never better than itself
    other = combine_trainings(trained(np.random.default_rng(1), weights, 3, (0.3, 0.1, 0.1)))
    noise = once.resampled - np.mean([part.resampled for part in row], axis=0)
    assert noise.std() > 0.01
    assert abs(np.corrcoef(noise, other.resampled)[0, 1]) < 0.1


def test_p_values_of_trained_rows_are_uniform_and_know_of_the_seeds() -> None:
    weights = molecule_weights(100, resamples=400, seed=0)
    rng = np.random.default_rng(1)
    found = []
    for _ in range(150):
        row = trained(rng, weights, 3, (0.05, 0.1, 0.02))
        found.append(trainings_p(row, [Measured(0.5, np.full(400, 0.5), 100)]))
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 150))
    assert trainings_p(row, row) == 1.0
    far = [Measured(9.0, np.full(400, 9.0), 100)]
    assert trainings_p(row, far) < 0.01
    assert trainings_p([row[0]], far) == pytest.approx(1e-5)

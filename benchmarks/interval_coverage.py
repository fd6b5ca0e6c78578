"""How often the 95% intervals of the evaluation hold the truth, and how often no difference is called one.

    python benchmarks/interval_coverage.py                    # 1,000 trials of each case, some minutes
    python benchmarks/interval_coverage.py --trials 200       # a glance

Every case draws data whose truth is known, a trial at a time, and asks the functions that `ionbed evaluate` asks. Of
1,000 trials, 95% intervals should hold the truth in 950; between 93% and 97% nothing is wrong with them.

  means        hit rates of molecules that are right more or less often, with one to four queries each;
  groups       molecules in groups of one to seven that are right together, resampled as groups, and (to see what
               that is good for) as if each were alone;
  pairs        ROC AUC and average precision of pairs in windows of molecules that share effects;
  trainings    three trainings of a network: what the seed changes for all molecules, and for single ones;
  no difference   verdicts, p at most 0.05 and interval without 0, on rows that are equally good.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ionbed.evaluation.exchange import PairMeasure, pair_permutation_p
from ionbed.evaluation.judgement import averages_of
from ionbed.evaluation.metrics import WeightedAveragePrecision, WeightedRocAuc, average_precision, roc_auc
from ionbed.evaluation.outcomes import PerQuery
from ionbed.evaluation.statistics import (
    BootstrapOptions,
    Estimate,
    Measured,
    Resamples,
    combine_trainings,
    compare,
    confirmed,
    connected_groups,
    estimate,
    molecule_weights,
    paired_permutation_p,
    resampled_means,
    resampled_over_pairs,
    resamples_of,
    trainings_p,
)

PAIR_MEASURES = {
    "ROC AUC": (roc_auc, WeightedRocAuc),
    "average precision": (average_precision, WeightedAveragePrecision),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    options = BootstrapOptions(resamples=arguments.resamples)
    print(f"{'case':70s} {'trials':>7s} {'held the truth':>15s} {'s':>6s}")
    for cases, trials in ((means, 1), (groups, 1), (trainings, 1), (pairs, 4)):
        for name, truth, draw in cases(options):
            report(name, truth, draw, max(arguments.trials // trials, 50))
    print(f"\n{'no difference':70s} {'trials':>7s} {'called one':>15s} {'s':>6s}")
    for name, call in no_difference(options):
        started, trials = time.perf_counter(), max(arguments.trials // 4, 50)
        called = sum(call(np.random.default_rng(trial)) for trial in range(trials))
        print(f"{name:70s} {trials:7,d} {called / trials:15.1%} {time.perf_counter() - started:6.1f}")


def report(name: str, truth: float, draw: Callable[[np.random.Generator], Estimate], trials: int) -> None:
    """Print the coverage of one case; its truth is the value that the interval should hold."""
    started, held = time.perf_counter(), 0
    for trial in range(trials):
        found = draw(np.random.default_rng(trial))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    print(f"{name:70s} {trials:7,d} {held / trials:15.1%} {time.perf_counter() - started:6.1f}")


Case = tuple[str, float, Callable[[np.random.Generator], Estimate]]


def means(options: BootstrapOptions) -> Iterator[Case]:
    """Yield hit rates over 8 to 500 molecules, per spectrum and per molecule."""
    for num_molecules in (8, 20, 100, 500):
        molecule = np.repeat(np.arange(num_molecules), 1 + np.arange(num_molecules) % 4)
        drawn = resamples_of(molecule, None, options, seed=0)
        for average in ("micro", "macro"):
            name = f"hit rate of {num_molecules} molecules, {average} average"
            alone = np.arange(num_molecules)
            yield name, 0.6, partial(hit_rate, drawn=drawn, group=alone, average=average)


def groups(options: BootstrapOptions) -> Iterator[Case]:
    """Yield hit rates where molecules of a group are right together."""
    group = np.repeat(np.arange(60), 1 + np.arange(60) % 7)
    molecule = np.repeat(np.arange(len(group)), 1 + np.arange(len(group)) % 3)
    for name, unit in (("groups drawn as a whole", group), ("as if each molecule were alone", None)):
        drawn = resamples_of(molecule, unit, options, seed=0)
        for average in ("micro", "macro"):
            label = f"60 groups of alike molecules, {name}, {average}"
            yield label, 0.6, partial(hit_rate, drawn=drawn, group=group, average=average)


def hit_rate(rng: np.random.Generator, drawn: Resamples, group: np.ndarray, average: str) -> Estimate:
    """Draw queries that are right as often as the group of their molecule is able to."""
    ability = rng.beta(3, 2, int(group.max()) + 1)
    values = (rng.random(len(drawn.molecule)) < ability[group[drawn.molecule]]).astype(float)
    zeros = np.zeros(len(values))
    found = averages_of(PerQuery(values, zeros, values, values), drawn)
    measured = found.micro if average == "micro" else found.macro
    assert measured is not None
    return estimate(measured)


def trainings(options: BootstrapOptions) -> Iterator[Case]:
    """Yield means over three and five trainings of 100 molecules."""
    weights = molecule_weights(100, resamples=options.resamples, seed=0)
    for number in (3, 5):
        for name, spread in (
            ("the seed changes nothing", (0.3, 0.0, 0.0)),
            ("the seed is nearly all", (0.02, 0.1, 0.02)),
            ("as networks are", (0.4, 0.01, 0.2)),
            ("equally good, on other molecules", (0.05, 0.0, 0.4)),
        ):
            label = f"{number} trainings: {name}"
            yield label, 0.5, partial(of_trainings, weights=weights, number=number, spread=spread)


def of_trainings(
    rng: np.random.Generator, weights: np.ndarray, number: int, spread: tuple[float, float, float]
) -> Estimate:
    """Draw the interval of several trainings."""
    return estimate(combine_trainings(trained(rng, weights, number, spread)))


def trained(
    rng: np.random.Generator, weights: np.ndarray, number: int, spread: tuple[float, float, float]
) -> list[Measured]:
    """Return trainings whose merit is 0.5; standard deviations of molecules, of seeds, and of seeds on molecules."""
    own = np.arange(weights.shape[1])
    difficulty = rng.normal(0.5, spread[0], len(own))
    found = []
    for _ in range(number):
        values = difficulty + rng.normal(0, spread[1]) + rng.normal(0, spread[2], len(own))
        found.append(Measured(float(values.mean()), resampled_means(values, own, weights), len(own)))
    return found


def windows(rng: np.random.Generator, number: int, rows: int = 1) -> tuple[np.ndarray, ...]:
    """Return scores (rows, n), whether a pair is of one molecule, and the molecules of pairs in ``number`` windows.

    A window holds three molecules: three pairs within each, one between any two; scores share molecule effects.
    """
    own, base = np.repeat(np.arange(3 * number), 3), 3 * np.arange(number)
    first = np.concatenate([own, base, base, base + 1])
    second = np.concatenate([own, base + 1, base + 2, base + 2])
    effect = rng.normal(0, 0.7, (rows, 3 * number))
    scores = effect[:, first] + effect[:, second] + rng.normal(0, 0.7, (rows, len(first))) + (first == second)
    return scores, first == second, first, second


def pairs(options: BootstrapOptions) -> Iterator[Case]:
    """Yield both measures of pairs, over 40 and 150 windows."""
    scores, positive, _, _ = windows(np.random.default_rng(10**6), 50_000)
    for name, (measure, _) in PAIR_MEASURES.items():
        truth = measure(scores[0], positive)
        for number in (40, 150):
            weights = molecule_weights(number, resamples=min(options.resamples, 300), seed=0)
            name_of_case = f"{name} of pairs in {number} windows"
            yield name_of_case, truth, partial(of_windows, number=number, name=name, weights=weights)


def of_windows(rng: np.random.Generator, number: int, name: str, weights: np.ndarray) -> Estimate:
    """Draw the interval of a measure of pairs."""
    scores, positive, first, second = windows(rng, number)
    group = connected_groups(first, second)
    assert group is not None
    measure, weighted = PAIR_MEASURES[name]
    resampled = resampled_over_pairs({"row": weighted(scores[0], positive)}, group, group, weights)["row"]
    return estimate(Measured(measure(scores[0], positive), resampled, number))


def no_difference(options: BootstrapOptions) -> Iterator[tuple[str, Callable[[np.random.Generator], bool]]]:
    """Yield what calls a difference where there is none."""
    molecule = np.repeat(np.arange(100), 1 + np.arange(100) % 4)
    drawn = resamples_of(molecule, None, options, seed=0)

    def hit_rates(rng: np.random.Generator) -> bool:
        values = (rng.random((2, len(molecule))) < rng.beta(3, 2, (2, 100))[:, molecule]).astype(float)
        rows = [Measured(float(of.mean()), resampled_means(of, molecule, drawn.weights), 100) for of in values]
        p = paired_permutation_p(values[0], values[1], molecule, permutations=999)
        return confirmed(compare(rows[0], rows[1], ""), p) != "unresolved"

    yield "hit rates of two rows", hit_rates

    def three_trainings(rng: np.random.Generator) -> bool:
        row = trained(rng, drawn.weights, 3, (0.3, 0.03, 0.1))
        other = [Measured(0.5, np.full(len(drawn.weights), 0.5), 100)]
        return confirmed(compare(combine_trainings(row), other[0], ""), trainings_p(row, other)) != "unresolved"

    yield "three trainings and a fixed row", three_trainings
    measures: tuple[PairMeasure, ...] = ("ROC AUC", "average precision")
    for name in measures:
        yield f"{name} of two rows (permutation test alone)", partial(two_rows_of_pairs, measure=name)


def two_rows_of_pairs(rng: np.random.Generator, measure: PairMeasure) -> bool:
    """Whether the permutation test calls two equally good rows different."""
    scores, positive, first, second = windows(rng, 60, rows=2)
    group = connected_groups(first, second)
    assert group is not None
    return pair_permutation_p(measure, scores[0], scores[1], positive, group, permutations=199) <= 0.05


if __name__ == "__main__":
    main()

"""Bootstrap and permutation over molecules: intervals of metrics and of paired differences, and their verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from .student import student_quantile

Verdict = Literal["beats", "loses", "unresolved"]
Unit = Literal["molecule", "mces-cluster", "scaffold"]

MINIMUM_MOLECULES = 5
"""With fewer molecules no interval is given: resampling three things says nothing about the fourth."""


MINIMUM_GROUPS = 30
"""Groups of connected molecules from which on groups are resampled; see `resampling_units`."""

LARGEST_GROUP = 0.1
"""Share of the pairs above which one group is too large for that."""

_TRAINING_DRAWS = 100_000
_DRAWS_AT_ONCE = 2**16
_SMALLEST_BOOTSTRAP_P = 1e-4


@dataclass(frozen=True)
class BootstrapOptions:
    """How intervals are made.

    Attributes
    ----------
    resamples : int
    confidence : float
        Of the percentile interval.
    unit : 'molecule', 'mces-cluster' or 'scaffold'
        What is drawn as a whole, and exchanged as a whole by permutation tests. Molecules that are alike are right or
        wrong together more often than others; an interval over clusters of them holds for other kinds of molecules.
    cluster_distance : float
        MCES distance below which two molecules are in one cluster (single linkage).
    """

    resamples: int = 1000
    confidence: float = 0.95
    unit: Unit = "molecule"
    cluster_distance: float = 5.0

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ValueError(f"'resamples' is {self.resamples}; intervals need at least 100")
        if not 0 < self.confidence < 1:
            raise ValueError(f"'confidence' is {self.confidence}; it must be between 0 and 1")
        if self.cluster_distance <= 0:
            raise ValueError(f"'cluster_distance' is {self.cluster_distance}; it must be above 0")


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of one row, before its interval.

    Attributes
    ----------
    value : float
        On the data as they are.
    resampled : float64 array of shape (resamples,)
        In each resample of `molecule_weights`.
    num_molecules : int
        That were resampled, or groups of them.
    """

    value: float
    resampled: np.ndarray
    num_molecules: int


@dataclass(frozen=True)
class Estimate:
    """A value and the bounds of its interval; None where there is nothing to measure or too little to resample."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """One row minus another on the same resampled molecules.

    Attributes
    ----------
    against : str
        Label of the row that is subtracted.
    verdict : str
        'beats' or 'loses' where the interval leaves out 0, else 'unresolved'.
    """

    against: str
    estimate: Estimate
    verdict: Verdict


def molecule_weights(num_molecules: int, *, resamples: int, seed: int) -> np.ndarray:
    """Return how often each molecule is drawn in each bootstrap resample.

    All rows of a table share these, which is what makes their differences paired.

    Returns
    -------
    float32 array of shape (resamples, num_molecules)
        Each row sums to ``num_molecules``.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, num_molecules), np.float32)
    if not num_molecules:
        return weights
    # Many resamples at once: those of a few molecules, as in the cells of strata, would cost a call each.
    at_once = max(1, _DRAWS_AT_ONCE // num_molecules)
    for begin in range(0, resamples, at_once):
        part = weights[begin : begin + at_once]
        drawn = rng.integers(num_molecules, size=part.shape) + np.arange(len(part))[:, None] * num_molecules
        part[:] = np.bincount(drawn.ravel(), minlength=part.size).reshape(part.shape)
    return weights


@dataclass(frozen=True, eq=False)
class Resamples:
    """Resamples of the molecules of n queries, or of groups of molecules that are drawn as a whole.

    Attributes
    ----------
    molecule : int64 array of shape (n,)
        Of each query, from 0.
    unit : int64 array of shape (n_molecules,)
        Column of ``weights`` to which a molecule belongs.
    weights : float32 array of shape (resamples, n_units)
    """

    molecule: np.ndarray
    unit: np.ndarray
    weights: np.ndarray

    @property
    def unit_of_query(self) -> np.ndarray:
        """Column of ``weights`` to which each query belongs, int64 of shape (n,)."""
        units: np.ndarray = self.unit[self.molecule]
        return units


def resamples_of(molecule: np.ndarray, unit: np.ndarray | None, bootstrap: BootstrapOptions, *, seed: int) -> Resamples:
    """Draw the resamples of queries whose molecules have the numbers ``molecule``.

    ``unit`` is the group of every molecule by its number, or None where each is alone.
    """
    molecules, index = np.unique(molecule, return_inverse=True)
    units = np.arange(len(molecules)) if unit is None else np.unique(unit[molecules], return_inverse=True)[1]
    num_units = int(units.max(initial=-1)) + 1
    return Resamples(index, units, molecule_weights(num_units, resamples=bootstrap.resamples, seed=seed))


def resampled_means(values: np.ndarray, molecule: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over queries in each resample of molecules.

    Parameters
    ----------
    values : array of shape (n_queries,)
    molecule : int array of shape (n_queries,)
        Column of ``weights`` to which the query belongs. Every molecule has a query.
    weights : array of shape (resamples, n_molecules)

    Returns
    -------
    float64 array of shape (resamples,)
    """
    num_molecules = weights.shape[1]
    sums = np.bincount(molecule, weights=values, minlength=num_molecules)
    counts = np.bincount(molecule, minlength=num_molecules)
    drawn = weights @ np.stack([sums, counts.astype(np.float64)], axis=1)
    means: np.ndarray = drawn[:, 0] / drawn[:, 1]
    return means


def molecule_means(values: np.ndarray, molecule: np.ndarray) -> np.ndarray:
    """Return the mean over the queries of each molecule: the macro average is the mean of these.

    Parameters
    ----------
    values : array of shape (n_queries,)
    molecule : int array of shape (n_queries,)
        From 0; every molecule has a query.

    Returns
    -------
    float64 array of shape (n_molecules,)
    """
    means: np.ndarray = np.bincount(molecule, weights=values) / np.bincount(molecule)
    return means


def resampling_units(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is to be resampled instead of the molecules of pairs, as the two numbers of each pair.

    Molecules that no chain of pairs connects (they lie in different precursor windows) are independent. Where there are
    many such groups of molecules, the groups are resampled, and both numbers of a pair are that of its group. Where few
    groups hold most pairs, the molecules themselves are, which `pair_weights` makes safe but wider than it need be.

    Parameters
    ----------
    first, second : int arrays of shape (n_pairs,)
        Molecules, from 0; every molecule has a pair.

    Returns
    -------
    two int64 arrays of shape (n_pairs,)
    """
    group = connected_groups(first, second)
    if group is None:
        return np.asarray(first, np.int64), np.asarray(second, np.int64)
    return group, group


def connected_groups(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """Return the group of each pair: molecules that a chain of pairs connects are in one, and are not independent.

    Parameters
    ----------
    first, second : int arrays of shape (n_pairs,)
        Molecules, from 0.

    Returns
    -------
    int64 array of shape (n_pairs,), or None
        From 0. None where groups cannot stand in for molecules: there are fewer than `MINIMUM_GROUPS`, or one holds
        more than `LARGEST_GROUP` of the pairs.
    """
    if not len(first):
        return None
    group = np.unique(_connected(first, second)[first], return_inverse=True)[1].astype(np.int64)
    sizes = np.bincount(group)
    return None if len(sizes) < MINIMUM_GROUPS or sizes.max() > LARGEST_GROUP * len(group) else group


def _connected(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the number of the connected component of each molecule, from 0, by the smallest molecule in it."""
    label = np.arange(int(max(first.max(), second.max())) + 1)
    while True:
        lowest = np.minimum(label[first], label[second])
        lowered = label.copy()
        np.minimum.at(lowered, first, lowest)
        np.minimum.at(lowered, second, lowest)
        lowered = lowered[lowered]  # as far as the neighbours have come
        if np.array_equal(lowered, label):
            return np.unique(label, return_inverse=True)[1]
        label = lowered


def pair_weights(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the weight of each pair of molecules in each resample, arrays of shape (n_pairs,).

    A pair of two molecules counts w_i * w_j times (each copy of one meets each copy of the other). A pair within
    one molecule counts w_i times: the copies of a molecule are different draws, and a pair of two draws is not a
    pair within one molecule. This is the bootstrap for dyadic data of Davezies, D'Haultfoeuille and Guyonvarch,
    Ann. Stat. 49 (2021) 845-862.

    Parameters
    ----------
    first, second : int arrays of shape (n_pairs,)
        Columns of ``weights``.
    weights : array of shape (resamples, n_molecules)
    """
    same = first == second
    if same.all():  # whole groups of molecules are resampled
        yield from (row[first] for row in weights)
        return
    for row in weights:
        yield row[first] * np.where(same, np.float32(1.0), row[second])


def resampled_over_pairs(
    measures: Mapping[str, Callable[[np.ndarray], float]], first: np.ndarray, second: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each measure of weighted pairs (such as `metrics.WeightedRocAuc`) in each resample of molecules.

    Parameters
    ----------
    measures : mapping of label to function
        From the weight of each pair (array of shape (n_pairs,)) to a number.
    first, second : int arrays of shape (n_pairs,)
        Molecules of each pair, as columns of ``weights``.
    weights : array of shape (resamples, n_molecules)

    Returns
    -------
    dict of label to float64 array of shape (resamples,)
        NaN in a resample that has no positive or no negative pair.
    """
    results = {label: np.empty(len(weights)) for label in measures}
    for index, pairs in enumerate(pair_weights(first, second, weights)):
        for label, measure in measures.items():
            results[label][index] = measure(pairs)
    return results


def estimate(measured: Measured, confidence: float = 0.95) -> Estimate:
    """Return the value with its expanded percentile interval; resamples without a value (NaN) are left out.

    Plain percentile intervals are too narrow where molecules are few, as if a normal quantile stood in for Student's
    and the variance were divided by n. The tails are made smaller to undo both (Hesterberg, Am. Stat. 69 (2015)
    371-386); with hundreds of molecules nothing changes.
    """
    if math.isnan(measured.value):
        return Estimate(None)
    usable = measured.resampled[~np.isnan(measured.resampled)]
    if measured.num_molecules < MINIMUM_MOLECULES or not len(usable):
        return Estimate(measured.value)
    count = measured.num_molecules
    widened = math.sqrt(count / (count - 1)) * student_quantile(0.5 + confidence / 2, count - 1)
    tail = NormalDist().cdf(-widened)
    low, high = np.quantile(usable, [tail, 1.0 - tail])
    return Estimate(measured.value, float(low), float(high))


def combine_trainings(trainings: Sequence[Measured], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Measured:
    """Return the mean over several trainings of one row, whose interval holds for another training on other molecules.

    The interval of one training says how it fares on other molecules and nothing of another seed. Here two sources of
    chance are put together. The bootstrap of the mean over the trainings holds that of the molecules. To each resample
    a draw of what the seeds do is added, from the fiducial distribution of the variance between trainings:
    s^2 (T - 1) / chi^2(T - 1) for T trainings whose values spread by s, less the part of s^2 that the molecules
    explain (trainings differ on these molecules who are equally good on all), which the resamples measure. Where there
    are only seeds this is Student's interval with T - 1 degrees of freedom (Weerahandi, J. Am. Stat. Assoc. 88 (1993)
    899-905, for the general case); with three trainings it is honest, and wide.

    Parameters
    ----------
    trainings : sequence of Measured
        At least one, all on the same resamples of the same molecules. One is returned as it is.
    bounds : pair of float
        What the metric cannot fall below or exceed: (0, 1) of a hit rate.

    Returns
    -------
    Measured
        The draws follow from the values themselves: equal rows get equal draws, and other rows their own.
    """
    if len(trainings) == 1:
        return trainings[0]
    resampled = np.stack([training.resampled for training in trainings])
    values = np.array([training.value for training in trainings])
    rng = np.random.default_rng(np.frombuffer(values.tobytes() + resampled[:, :64].tobytes(), np.uint32))
    size = len(trainings[0].resampled)
    variance = _variance_of_trainings(trainings, rng.chisquare(len(trainings) - 1, size))
    drawn = resampled.mean(axis=0) + np.sqrt(variance / len(trainings)) * rng.standard_normal(size)
    fewest = min(training.num_molecules for training in trainings)
    return Measured(float(values.mean()), np.clip(drawn, *bounds), fewest)


def trainings_p(own: Sequence[Measured], other: Sequence[Measured]) -> float:
    """Return the two-sided p-value of the difference of two rows of which one or both were trained several times.

    A permutation test on the trainings at hand says nothing of another seed. This is the test that belongs to
    `combine_trainings`: the chance that molecules and seeds together make such a difference. A row that was not trained
    has one Measured. At least 1e-5.
    """
    means = [np.mean([part.resampled for part in row], axis=0) for row in (own, other)]
    difference = abs(float(np.mean([part.value for part in own]) - np.mean([part.value for part in other])))
    usable = (means[0] - means[1])[~np.isnan(means[0] - means[1])]
    if math.isnan(difference) or difference == 0 or len(usable) < 2:
        return 1.0
    rng = np.random.default_rng(0)
    variance = np.full(_TRAINING_DRAWS, float(np.var(usable, ddof=1)))
    for row in (own, other):
        if len(row) > 1:
            variance += _variance_of_trainings(row, rng.chisquare(len(row) - 1, _TRAINING_DRAWS)) / len(row)
    ratios = difference / np.sqrt(2 * np.maximum(variance, 1e-300))
    # The tail is smooth in the ratio, and its mean over many draws is that over their quantiles.
    quantiles = np.quantile(ratios, (np.arange(2000) + 0.5) / 2000)
    return max(float(np.mean([math.erfc(ratio) for ratio in quantiles.tolist()])), 1 / _TRAINING_DRAWS)


def _variance_of_trainings(trainings: Sequence[Measured], chi_squared: np.ndarray) -> np.ndarray:
    """Return draws of the variance between trainings on all molecules, one for each of ``chi_squared``."""
    degrees = len(trainings) - 1
    spread = float(np.var([training.value for training in trainings], ddof=1))
    if math.isnan(spread):
        return np.zeros(len(chi_squared))
    resampled = np.stack([training.resampled for training in trainings])
    by_molecules = float(np.nanvar(resampled - resampled.mean(axis=0), axis=1).sum()) / degrees
    draws: np.ndarray = np.maximum(spread * degrees / chi_squared - by_molecules, 0.0)
    return draws


def compare(own: Measured, other: Measured, against: str, confidence: float = 0.95) -> Difference:
    """Return the difference ``own`` minus ``other``, the row labelled ``against``, paired by resample."""
    difference = estimate(
        Measured(own.value - other.value, own.resampled - other.resampled, own.num_molecules), confidence
    )
    verdict: Verdict = "unresolved"
    if difference.low is not None and difference.low > 0:
        verdict = "beats"
    elif difference.high is not None and difference.high < 0:
        verdict = "loses"
    return Difference(against, difference, verdict)


def paired_permutation_p(
    own: np.ndarray, other: np.ndarray, molecule: np.ndarray, *, permutations: int = 9999, seed: int = 0
) -> float:
    """Return the two-sided p-value of a paired permutation test of equal means, exchanging whole molecules.

    If the two rows were equally good, it would be a matter of chance which of them is which on a molecule; all queries
    of one molecule change places together, since they are not independent.

    Parameters
    ----------
    own, other : arrays of shape (n_queries,)
    molecule : int array of shape (n_queries,)
        From 0.
    permutations : int
        Random exchanges; the smallest p-value is 1 / (permutations + 1).
    """
    sums = np.bincount(molecule, weights=np.asarray(own, np.float64) - np.asarray(other, np.float64))
    return sign_flip_p(sums, permutations=permutations, seed=seed)


def sign_flip_p(terms: np.ndarray, *, permutations: int = 9999, seed: int = 0) -> float:
    """Return the two-sided p-value of a sum whose independent terms might as well have the other sign.

    ``terms`` is a float64 array of shape (n,); see `paired_permutation_p`.
    """
    sums = terms[terms != 0]  # where both rows agree, nothing changes
    if not len(sums):
        return 1.0
    observed = abs(float(sums.sum()))
    rng = np.random.default_rng(seed)
    as_extreme, size = 0, max(1, 2**22 // len(sums))
    for begin in range(0, permutations, size):
        signs = rng.integers(0, 2, (min(size, permutations - begin), len(sums)), np.int8) * 2 - 1
        # A tolerance, or equal sums that are added in another order would count as less extreme.
        as_extreme += int(np.sum(np.abs(signs @ sums) >= observed * (1 - 1e-9)))
    return (1 + as_extreme) / (1 + permutations)


def bootstrap_p(difference: float, resampled_difference: np.ndarray) -> float:
    """Return the two-sided p-value of a difference by its bootstrap standard error and the normal distribution.

    For measures over pairs, whose molecules are too entangled to be exchanged one by one. It is never below 1e-4, as
    that of a permutation test with 9,999 exchanges: a row that is right everywhere has no spread.
    """
    usable = resampled_difference[~np.isnan(resampled_difference)]
    if math.isnan(difference) or difference == 0 or len(usable) < 2:
        return 1.0
    spread = float(np.std(usable, ddof=1))
    p = 2 * NormalDist().cdf(-abs(difference) / spread) if spread > 0 else 0.0
    return max(p, _SMALLEST_BOOTSTRAP_P)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for the size of the table (Holm, Scand. J. Stat. 6 (1979) 65-70), in their order.

    Calling significant what stays at or below alpha keeps the chance of any false call in the table below alpha.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def confirmed(difference: Difference, p_value: float, confidence: float = 0.95) -> Verdict:
    """Return the verdict of ``difference`` where a (corrected) p-value agrees, else 'unresolved'."""
    return difference.verdict if p_value <= 1.0 - confidence + 1e-12 else "unresolved"

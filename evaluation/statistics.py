"""Bootstrap over molecules: intervals of metrics, of paired differences, and the verdict they allow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .metrics import WeightedRocAuc

Verdict = Literal["beats", "loses", "unresolved"]

MINIMUM_MOLECULES = 5
"""With fewer molecules no interval is given: resampling three things says nothing about the fourth."""


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
        That were resampled.
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
    for row in weights:
        row[:] = np.bincount(rng.integers(num_molecules, size=num_molecules), minlength=num_molecules)
    return weights


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
    means: np.ndarray = (weights @ sums) / (weights @ counts.astype(np.float64))
    return means


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
    for row in weights:
        yield row[first] * np.where(same, np.float32(1.0), row[second])


def resampled_roc_aucs(
    scores: dict[str, np.ndarray], positive: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each scorer's ROC AUC in each resample of molecules.

    Parameters
    ----------
    scores : dict of label to array of shape (n_pairs,)
    positive : bool array of shape (n_pairs,)
    first, second : int arrays of shape (n_pairs,)
        Molecules of each pair, as columns of ``weights``.
    weights : array of shape (resamples, n_molecules)

    Returns
    -------
    dict of label to float64 array of shape (resamples,)
        NaN in a resample that has no positive or no negative pair.
    """
    areas = {label: WeightedRocAuc(values, positive) for label, values in scores.items()}
    results = {label: np.empty(len(weights)) for label in scores}
    for index, pairs in enumerate(pair_weights(first, second, weights)):
        for label, area in areas.items():
            results[label][index] = area(pairs)
    return results


def estimate(measured: Measured, confidence: float = 0.95) -> Estimate:
    """Return the value with its percentile interval; resamples without a value (NaN) are left out."""
    if math.isnan(measured.value):
        return Estimate(None)
    usable = measured.resampled[~np.isnan(measured.resampled)]
    if measured.num_molecules < MINIMUM_MOLECULES or not len(usable):
        return Estimate(measured.value)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(usable, [tail, 1.0 - tail])
    return Estimate(measured.value, float(low), float(high))


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

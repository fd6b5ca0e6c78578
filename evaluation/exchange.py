"""The permutation test for pairs of spectra: two rows exchange their ranks on whole groups of connected molecules."""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np

from .statistics import sign_flip_p

PairMeasure = Literal["ROC AUC", "average precision"]

PRECISION_PERMUTATIONS = 1999
"""At most so many for the average precision, which is computed anew for each: among fewer than a hundred comparisons,
the smallest p-value is still below 0.05 after Holm's correction."""

_ENOUGH_EXTREMES = 200
"""Permutations as extreme as the data after which the p-value is known well enough (Besag and Clifford 1991)."""


def pair_permutation_p(
    measure: PairMeasure,
    own: np.ndarray,
    other: np.ndarray | None,
    positive: np.ndarray,
    group: np.ndarray,
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of a difference of two rows in ROC AUC or average precision over pairs.

    If two rows were equally good, it would be a matter of chance which of them ranked a group of molecules how. Scores
    of two rows are on different scales, so each is first replaced by its rank among all pairs (ties share their mean
    rank), as Venkatraman and Begg (Biometrika 83 (1996) 835-848) do; then all pairs of a group change places together.
    For the ROC AUC the difference is a sum over groups whose terms change sign (Bandos, Rockette and Gur, Stat. Med.
    24 (2005) 2873-2893); for the average precision it is computed anew for each exchange. Against chance, a row is
    compared with its own reversal: scores that say nothing are no better than their opposite.

    Parameters
    ----------
    measure : 'ROC AUC' or 'average precision'
    own, other : float64 arrays of shape (n_pairs,) or (trainings, n_pairs)
        Scores, minus infinity where a row abstains. The measure of several trainings is their mean. ``other`` is None
        for chance.
    positive : bool array of shape (n_pairs,)
        Whether the pair is of one molecule; both kinds are there.
    group : int64 array of shape (n_pairs,)
        From 0; see `ionbed.evaluation.statistics.connected_groups`.
    permutations : int
        The smallest p-value is 1 / (permutations + 1). For the average precision at most `PRECISION_PERMUTATIONS`, and
        fewer where the p-value is large.

    Returns
    -------
    float
    """
    positive = np.asarray(positive, bool)
    own_ranks = mid_ranks(np.atleast_2d(own))
    if other is None:
        both = [(ranks, len(ranks) + 1 - ranks) for ranks in own_ranks]
    else:  # every training of one with every training of the other
        both = list(product(own_ranks, mid_ranks(np.atleast_2d(other))))
    if measure == "ROC AUC":
        terms = np.stack([_area_terms(a, b, positive, group) for a, b in both]).mean(axis=0)
        terms = np.round(terms, 12)  # rounding errors are no difference
        return sign_flip_p(terms, permutations=permutations, seed=seed)
    return _average_precision_p(both, positive, group, min(permutations, PRECISION_PERMUTATIONS), seed)


def mid_ranks(scores: np.ndarray) -> np.ndarray:
    """Return the rank of each score within its row, from 1; equal scores share their mean rank.

    ``scores`` and the result (float64) have shape (n_rows, n).
    """
    ranks = np.empty(scores.shape)
    for row, values in zip(ranks, scores, strict=True):
        _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
        row[:] = (np.cumsum(counts) - (counts - 1) / 2)[index]
    return ranks


def _area_terms(a: np.ndarray, b: np.ndarray, positive: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return what each group adds to the difference of two ROC AUCs, and would take away if the rows changed places.

    With K(x, y) = 1 where x > y and 1/2 where they are equal, an exchange by signs s gives, over the pairs i that are
    positive and j that are not, the sum of s_i (K_aa + K_ab - K_ba - K_bb) / 2 + s_j (K_aa - K_ab + K_ba - K_bb) / 2:
    linear in s, so that groups need only be summed once.
    """
    above = {
        (x, y): _share_above(first[positive], second[~positive])
        for x, first in enumerate((a, b))
        for y, second in enumerate((a, b))
    }
    below = {
        (x, y): 1.0 - _share_above(second[~positive], first[positive])
        for x, first in enumerate((a, b))
        for y, second in enumerate((a, b))
    }
    terms = np.empty(len(positive))
    terms[positive] = (above[0, 0] + above[0, 1] - above[1, 0] - above[1, 1]) / (2 * positive.sum())
    terms[~positive] = (below[0, 0] - below[0, 1] + below[1, 0] - below[1, 1]) / (2 * (~positive).sum())
    sums: np.ndarray = np.bincount(group, weights=terms)
    return sums


def _share_above(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of ``others`` that lies below each of ``values``, equal ones counting half."""
    ordered = np.sort(others)
    share: np.ndarray = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (
        2 * len(ordered)
    )
    return share


class _ExchangedPrecision:
    """The difference of two average precisions after any exchange: the ranks of both rows are sorted once."""

    def __init__(self, a: np.ndarray, b: np.ndarray, positive: np.ndarray, group: np.ndarray) -> None:
        ranks = np.concatenate([a, b])
        order = np.argsort(-ranks, kind="stable")
        descending = ranks[order]
        self._last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # of each distinct rank
        self._is_second = order >= len(a)
        self._group = np.tile(group, 2)[order]
        self._positive = np.tile(positive, 2)[order]
        self._num_positive = int(positive.sum())
        self._total = np.arange(1, len(order) + 1)[self._last]
        self._total_positive = np.cumsum(self._positive)[self._last]

    def __call__(self, exchanged: np.ndarray) -> float:
        """Return the difference where the groups of the bool array ``exchanged`` have changed places."""
        in_own = exchanged[self._group] == self._is_second
        retrieved = np.cumsum(in_own)[self._last]
        found = np.cumsum(in_own & self._positive)[self._last]
        return self._precision(found, retrieved) - self._precision(
            self._total_positive - found, self._total - retrieved
        )

    def _precision(self, found: np.ndarray, retrieved: np.ndarray) -> float:
        gained = np.diff(found, prepend=0)
        return float(np.sum(gained * (found / np.maximum(retrieved, 1)))) / self._num_positive


def _average_precision_p(
    both: list[tuple[np.ndarray, np.ndarray]], positive: np.ndarray, group: np.ndarray, permutations: int, seed: int
) -> float:
    rows = [_ExchangedPrecision(a, b, positive, group) for a, b in both]
    num_groups = int(group.max()) + 1
    observed = abs(np.mean([row(np.zeros(num_groups, bool)) for row in rows]))
    rng = np.random.default_rng(seed)
    as_extreme = 0
    for made in range(1, permutations + 1):
        exchanged = rng.integers(0, 2, num_groups, np.int8).astype(bool)
        # A tolerance, or an equal difference that is added in another order would count as less extreme.
        as_extreme += bool(abs(np.mean([row(exchanged) for row in rows])) >= observed * (1 - 1e-9))
        if as_extreme == _ENOUGH_EXTREMES:
            return as_extreme / made
    return (1 + as_extreme) / (1 + permutations)

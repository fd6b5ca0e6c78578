"""Metrics in which ties count in expectation: a scorer that says nothing gets exactly what chance would get."""

from __future__ import annotations

import numpy as np

SCORE_DECIMALS = 6
"""Scores are compared after rounding to this many decimals: beyond lies the rounding error of float32, in which a
constant scorer would otherwise find an order."""


def comparable(scores: np.ndarray) -> np.ndarray:
    """Return the scores as float64, rounded to `SCORE_DECIMALS`; an abstention (NaN) becomes minus infinity."""
    rounded = np.round(np.asarray(scores, np.float64), SCORE_DECIMALS)
    return np.where(np.isnan(rounded), -np.inf, rounded)


def roc_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the area under the ROC curve, the chance that a positive scores above a negative, ties counting half.

    Parameters
    ----------
    scores : array of shape (n,)
        Without NaN; see `comparable`.
    positive : bool array of shape (n,)
    weights : array of shape (n,), optional
        Not negative; default all 1.

    Returns
    -------
    float
        NaN where the positives or the negatives have no weight.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    return float(WeightedRocAuc(scores, positive)(weights))


def average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the average precision: the mean, over the positives, of the precision at each one's score.

    Pairs of one score count together, so that a constant scorer gets the share of positives. Parameters and result
    are those of `roc_auc`; the definition is that of scikit-learn's ``average_precision_score``.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    return float(WeightedAveragePrecision(scores, positive)(weights))


class WeightedRocAuc:
    """`roc_auc` of fixed scores for many weightings: the scores are sorted once."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self._positive, self._negative = _by_score(scores, positive)
        of_positive, of_negative = np.asarray(scores)[self._positive], np.asarray(scores)[self._negative]
        # How many negatives score less than each positive, and how many score no more.
        self._below = np.searchsorted(of_negative, of_positive, "left")
        self._not_above = np.searchsorted(of_negative, of_positive, "right")

    def __call__(self, weights: np.ndarray) -> float:
        """Return the area for ``weights``, an array of shape (n,) in the order of the scores."""
        positive, negative = weights[self._positive], _sums_before(weights[self._negative])
        total = float(positive.sum(dtype=np.float64) * negative[-1])
        if total <= 0:
            return float("nan")
        below = negative[self._below]
        below += negative[self._not_above]
        return float(np.dot(positive, below) / 2 / total)


class WeightedAveragePrecision:
    """`average_precision` of fixed scores for many weightings: the scores are sorted once."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self._positive, self._negative = _by_score(scores, positive)
        of_positive, of_negative = np.asarray(scores)[self._positive], np.asarray(scores)[self._negative]
        # How many of either kind score less than each positive.
        self._positives_below = np.searchsorted(of_positive, of_positive, "left")
        self._negatives_below = np.searchsorted(of_negative, of_positive, "left")

    def __call__(self, weights: np.ndarray) -> float:
        """Return the average precision for ``weights``, an array of shape (n,) in the order of the scores."""
        positive = weights[self._positive]
        positives, negatives = _sums_before(positive), _sums_before(weights[self._negative])
        if positives[-1] <= 0 or negatives[-1] <= 0:
            return float("nan")
        found = positives[-1] - positives[self._positives_below]
        retrieved = found + negatives[-1] - negatives[self._negatives_below]
        precision = np.divide(found, retrieved, out=np.zeros_like(found), where=retrieved > 0)
        return float(np.dot(positive, precision) / positives[-1])


def _by_score(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the positives and of the negatives, each by ascending score."""
    order = np.argsort(scores, kind="stable")
    is_positive = np.asarray(positive, bool)[order]
    return order[is_positive], order[~is_positive]


def _sums_before(weights: np.ndarray) -> np.ndarray:
    """Return the sum of the first 0, 1, ... n weights, float64 of shape (n + 1,)."""
    sums = np.zeros(len(weights) + 1)
    np.cumsum(weights, dtype=np.float64, out=sums[1:])
    return sums


def roc_curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates at every distinct threshold, from (0, 0) to (1, 1).

    ``scores`` and ``positive`` have shape (n,) with both labels present; the two results have one shape (<= n + 1,).
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    ordered, positive = np.asarray(scores)[order], np.asarray(positive, bool)[order]
    is_last = np.ones(len(ordered), bool)
    is_last[:-1] = ordered[1:] != ordered[:-1]
    true = np.concatenate([[0], np.cumsum(positive)[is_last]])
    false = np.concatenate([[0], np.cumsum(~positive)[is_last]])
    return false / false[-1], true / true[-1]


def hit_at_k(num_better: np.ndarray, num_tied: np.ndarray, k: int) -> np.ndarray:
    """Return the chance that the true candidate is among the first ``k`` when ties are broken at random.

    Parameters
    ----------
    num_better : int array of shape (n,)
        Candidates that score above the true one.
    num_tied : int array of shape (n,)
        Candidates that score as the true one does, itself included (at least 1).

    Returns
    -------
    float64 array of shape (n,)
    """
    chance: np.ndarray = np.clip((k - np.asarray(num_better)) / np.asarray(num_tied), 0.0, 1.0)
    return chance


def reciprocal_rank(num_better: np.ndarray, num_tied: np.ndarray) -> np.ndarray:
    """Return the expected 1 / rank of the true candidate when ties are broken at random.

    Parameters are those of `hit_at_k`; float64 array of shape (n,).
    """
    better, tied = np.asarray(num_better, np.int64), np.asarray(num_tied, np.int64)
    expected: np.ndarray = (_harmonic(better + tied) - _harmonic(better)) / tied
    return expected


def tie_bounds(num_better: np.ndarray, num_tied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best and the worst rank (from 1) that the true candidate can get when its ties are broken."""
    better = np.asarray(num_better)
    return better + 1, better + np.asarray(num_tied)


def random_hit_at_k(num_candidates: np.ndarray, k: int) -> np.ndarray:
    """Return the hit@k of drawing at random among ``num_candidates`` (shape (n,)), of which one is right."""
    return hit_at_k(np.zeros_like(num_candidates), num_candidates, k)


def random_reciprocal_rank(num_candidates: np.ndarray) -> np.ndarray:
    """Return the expected 1 / rank in random order among ``num_candidates`` (shape (n,)), of which one is right."""
    return reciprocal_rank(np.zeros_like(num_candidates), num_candidates)


def chance_corrected(value: np.ndarray | float, expected: np.ndarray | float) -> np.ndarray:
    """Return how much of the way from chance to perfection was gone: 0 is chance, 1 is perfect, below 0 is worse.

    ``value`` and ``expected`` are means over the same queries, of any shape (Cohen's kappa, 1960, has this form).
    NaN where chance alone is perfect.
    """
    room = 1.0 - np.asarray(expected, np.float64)
    gained = np.asarray(value, np.float64) - np.asarray(expected, np.float64)
    return np.divide(gained, room, out=np.full(np.shape(gained), np.nan), where=room > 1e-12)


def _harmonic(count: np.ndarray) -> np.ndarray:
    """Return 1 + 1/2 + ... + 1/n for each n of an int array; 0 for n = 0."""
    most = int(count.max()) if count.size else 0
    sums: np.ndarray = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, most + 1))])
    return sums[count]

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


class WeightedRocAuc:
    """`roc_auc` of fixed scores for many weightings: the scores are sorted once."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        scores = np.asarray(scores)
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._positive = np.asarray(positive, bool)[self._order]
        is_first = np.ones(len(ordered), bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        self._starts = np.flatnonzero(is_first)

    def __call__(self, weights: np.ndarray) -> float:
        """Return the area for ``weights``, an array of shape (n,) in the order of the scores."""
        if not len(self._order):
            return float("nan")
        ordered = np.asarray(weights, np.float64)[self._order]
        # One entry per distinct score: the weight of its positives and of its negatives.
        positive = np.add.reduceat(np.where(self._positive, ordered, 0.0), self._starts)
        negative = np.add.reduceat(np.where(self._positive, 0.0, ordered), self._starts)
        total = positive.sum() * negative.sum()
        if total <= 0:
            return float("nan")
        below = np.cumsum(negative) - negative
        return float(np.sum(positive * (below + 0.5 * negative)) / total)


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


def value_of_best(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the expected value of the best-scored candidate of each query when ties are broken at random.

    Parameters
    ----------
    scores, values : arrays of shape (n_queries, n_candidates)
        Scores as from `comparable`. A query whose candidates all abstain gets 0.

    Returns
    -------
    float64 array of shape (n_queries,)
    """
    best = scores.max(axis=1, keepdims=True)
    tied = scores == best
    expected = np.where(tied, values, 0.0).sum(axis=1, dtype=np.float64) / tied.sum(axis=1)
    return np.where(np.isneginf(best[:, 0]), 0.0, expected)

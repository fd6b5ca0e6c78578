"""Fitting the weights of a fused score: a logistic function for pairs, a ranking for the best hit of each query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ..embeddings.fusion import FusedScore, copy_is_best, direction, sigmoid

ENERGY_EDGES = np.log1p([0.5, 5.0, 12.0, 25.0, 45.0])
"""Differences of collision energies, as `ionbed.spectra.pair_features` has them, between which pairs are balanced."""

WINDOW_LOOKUP, OPEN_LOOKUP = "spectral entropy", "hybrid entropy"
"""The look-up that a score is where nothing more can be learned."""

LEAST_LOOKUP = 0.1
"""Share of the weight that `OPEN_LOOKUP` has alone, which it keeps beside other terms: by most of these a spectrum that
holds all peaks of the query and more is as good as a copy."""

BEST_HITS = 50
"""Of a query: what people look at, and what a score is calibrated on."""

MAX_ITERATIONS = 300
SMALL_RIDGE = 1e-4
"""Keeps the weights of the look-up finite where it tells all pairs apart."""


@dataclass(frozen=True, eq=False)
class FitPairs:
    """Pairs of spectra from which weights are fitted.

    Attributes
    ----------
    terms : tuple of str
    values : float64 array of shape (n_pairs, n_terms)
    target : float64 array of shape (n_pairs,)
        1 for one molecule, else 0; or the Tanimoto similarity of the two.
    query : int64 array of shape (n_pairs,)
        The query spectrum; a ranking is of the pairs of one query.
    group : int64 array of shape (n_pairs,)
        Molecule of the query; pairs of one are never on both sides of a cross-validation.
    energy : float64 array of shape (n_pairs, 2)
        'energy difference' and 'energy unknown'.
    """

    terms: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    target: np.ndarray = field(repr=False)
    query: np.ndarray = field(repr=False)
    group: np.ndarray = field(repr=False)
    energy: np.ndarray = field(repr=False)

    def only(self, terms: tuple[str, ...]) -> FitPairs:
        """Return the pairs with fewer terms."""
        return replace(self, terms=terms, values=self.values[:, [self.terms.index(term) for term in terms]])

    def take(self, chosen: np.ndarray) -> FitPairs:
        """Return the pairs at ``chosen`` (integers or bool)."""
        parts = (self.values, self.target, self.query, self.group, self.energy)
        return FitPairs(self.terms, *(part[chosen] for part in parts))


Fit = Callable[[FitPairs, float], FusedScore]
Bounds = list[tuple[float | None, float | None]]
"""Lowest and highest value of each weight."""


def fit_probability(pairs: FitPairs, ridge: float) -> FusedScore:
    """Fit the probability that a pair is of one molecule: logistic regression.

    Pairs are weighted so that each difference of collision energies has as many pairs of one molecule as of two:
    which energies a library measured its molecules at must not tell them apart. Under all weights that it may find a
    copy of the query is the best (`copy_is_best`).

    Parameters
    ----------
    ridge : float
        Penalty on the squares by which the weights of standardised terms differ from those of `WINDOW_LOOKUP` alone:
        the higher, the more the score is that look-up.

    Raises
    ------
    ValueError
        At no difference of collision energies there are pairs of both kinds.
    """
    weight = balanced(pairs.target > 0.5, pairs.energy)
    if not weight.any():
        raise ValueError("at no difference of collision energies there are pairs of one molecule and of two")
    place = pairs.terms.index(WINDOW_LOOKUP)
    prior = np.zeros(len(pairs.terms))
    alone, _ = logistic(pairs.values[:, [place]], pairs.target, weight, SMALL_RIDGE)
    prior[place] = alone[0] * pairs.values[:, place].std()
    conditions = copy_is_best(pairs.terms)
    weights, intercept = logistic(pairs.values, pairs.target, weight, ridge, prior, conditions=conditions)
    return FusedScore(pairs.terms, tuple(weights.tolist()), intercept)


def fit_ranking(pairs: FitPairs, ridge: float) -> FusedScore:
    """Fit the score whose best candidate has the highest target, of no scale of its own.

    Maximised is the mean over queries of the target that is expected where a candidate is drawn by the softmax of the
    scores: a smooth form of the target of the best hit. No weight is against the `direction` of its term. The queries'
    molecules are not in the library that weights are fitted to, but may be in one that is searched, and then nothing
    that is the same in both spectra must count against a candidate: a copy of the query is always the best.

    Parameters
    ----------
    ridge : float
        As of `fit_probability`, towards `OPEN_LOOKUP`.
    """
    order = np.argsort(pairs.query, kind="stable")
    query, target = pairs.query[order], pairs.target[order]
    values, _, scale = _standardised(pairs.values[order])
    place = pairs.terms.index(OPEN_LOOKUP)
    prior = np.zeros(len(pairs.terms))
    prior[place] = _ranking_weights(values[:, [place]], target, query, SMALL_RIDGE, np.zeros(1), [(0.0, None)])[0]
    bounds: Bounds = [(0.0, None) if direction(term) > 0 else (None, 0.0) for term in pairs.terms]
    bounds[place] = (LEAST_LOOKUP * prior[place], None)
    weights = _ranking_weights(values, target, query, ridge, prior, bounds)
    return FusedScore(pairs.terms, tuple((weights / scale).tolist()), 0.0)


def _ranking_weights(
    values: np.ndarray,
    target: np.ndarray,
    query: np.ndarray,
    ridge: float,
    prior: np.ndarray,
    bounds: Bounds,
) -> np.ndarray:
    """Return the weights that `fit_ranking` looks for, of standardised values; pairs of one query stand together."""
    from scipy.optimize import minimize

    starts = np.flatnonzero(np.diff(query, prepend=-1))
    counts = np.diff(starts, append=len(query))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = values @ weights
        share = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), counts))
        share /= np.repeat(np.add.reduceat(share, starts), counts)
        expected = np.add.reduceat(share * target, starts)
        gradient = values.T @ (share * (target - np.repeat(expected, counts))) / len(starts)
        away = weights - prior
        return float(ridge * away @ away - expected.mean()), 2 * ridge * away - gradient

    found = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MAX_ITERATIONS})
    weights: np.ndarray = found.x
    return weights


def calibrated(score: FusedScore, pairs: FitPairs) -> FusedScore:
    """Return a score that ranks alike and is the target itself, on the average over the `BEST_HITS` of each query.

    Raises
    ------
    ValueError
        Pairs of higher scores have no higher targets.
    """
    weights = np.array(score.weights)
    total = pairs.values @ weights
    order = np.lexsort((-total, pairs.query))
    starts = np.flatnonzero(np.diff(pairs.query[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    best = order[rank < BEST_HITS]
    slope, intercept = logistic(total[best][:, None], pairs.target[best], np.ones(len(best)), 0.0)
    if not slope[0] > 0:
        raise ValueError("candidates with higher scores are no more alike to the query than others")
    return FusedScore(score.terms, tuple((slope[0] * weights).tolist()), intercept)


def fit_expected(pairs: FitPairs, ridge: float) -> FusedScore:
    """Fit the target of a candidate that is to be expected: `fit_ranking`, `calibrated`."""
    return calibrated(fit_ranking(pairs, ridge), pairs)


def logistic(
    values: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    ridge: float,
    prior: np.ndarray | float = 0.0,
    *,
    lowest: np.ndarray | None = None,
    conditions: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Return weights and intercept of a weighted logistic regression.

    Parameters
    ----------
    values : float64 array of shape (n, p)
    target : float64 array of shape (n,)
        From 0 to 1.
    weight : float64 array of shape (n,)
    ridge : float
        Penalty on the squared differences of the weights of standardised values from ``prior``.
    prior : float64 array of shape (p,), or float
    lowest : float64 array of shape (p,), optional
        No weight is under it.
    conditions : float64 array of shape (n_conditions, p), optional
        Its product with the weights is 0 or more.
    """
    from scipy.optimize import minimize

    standard, mean, scale = _standardised(values)
    weight = weight / weight.sum()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        total = standard @ parameters[:-1] + parameters[-1]
        residual = weight * (sigmoid(total) - target)
        away = parameters[:-1] - prior
        value = weight @ (np.logaddexp(0.0, total) - target * total) + ridge * away @ away
        return float(value), np.append(residual @ standard + 2 * ridge * away, residual.sum())

    start = np.zeros(values.shape[1] + 1)
    options = {"maxiter": MAX_ITERATIONS}
    if conditions is None:
        bounds = None if lowest is None else [(low, None) for low in (lowest * scale).tolist()] + [(None, None)]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    else:
        held = np.column_stack([conditions / scale, np.zeros(len(conditions))])
        above = {"type": "ineq", "fun": lambda parameters: held @ parameters, "jac": lambda parameters: held}
        found = minimize(loss, start, jac=True, method="SLSQP", constraints=above, options={**options, "ftol": 1e-9})
    weights = found.x[:-1] / scale
    return weights, float(found.x[-1] - weights @ mean)


def balanced(positive: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return weights by which, at every difference of collision energies, either kind of pair weighs the same.

    A difference at which there is one kind only has the weight 0.

    Parameters
    ----------
    positive : bool array of shape (n,)
    energy : float64 array of shape (n, 2)
        'energy difference' and 'energy unknown' of `ionbed.spectra.pair_features`.
    """
    place = np.where(energy[:, 1] > 0, len(ENERGY_EDGES) + 1, np.digitize(energy[:, 0], ENERGY_EDGES))
    num = np.bincount(place, minlength=len(ENERGY_EDGES) + 2)
    num_positive = np.bincount(place[positive], minlength=len(num))
    own = np.where(positive, num_positive[place], (num - num_positive)[place])
    both = (num_positive * (num - num_positive))[place] > 0
    return np.where(both, 0.5 * num[place] / own, 0.0)


def cross_validated(pairs: FitPairs, fit: Fit, ridge: float, folds: int, seed: int) -> np.ndarray:
    """Return the score of each pair by weights that were fitted without its query's molecule; float64, (n_pairs,)."""
    return held_out(pairs, *fold_scores(pairs, fit, ridge, folds, seed))


def fold_scores(pairs: FitPairs, fit: Fit, ridge: float, folds: int, seed: int) -> tuple[np.ndarray, list[FusedScore]]:
    """Return the part of each pair in a cross-validation by its query's molecule, and by part what is fitted without.

    Returns
    -------
    fold : int64 array of shape (n_pairs,)
    scores : list of FusedScore
    """
    molecules = np.unique(pairs.group)
    fold_of = np.random.default_rng(seed).permutation(len(molecules)) % folds
    fold = fold_of[np.searchsorted(molecules, pairs.group)]
    return fold, [fit(pairs.take(fold != number), ridge) for number in range(folds)]


def held_out(pairs: FitPairs, fold: np.ndarray, scores: list[FusedScore]) -> np.ndarray:
    """Return the score of each pair before the logistic function, float64 of shape (n_pairs,), by that of its part."""
    result = np.empty(len(pairs.target))
    for number, score in enumerate(scores):
        held = fold == number
        result[held] = pairs.values[held] @ np.array(score.weights) + score.intercept
    return result


def best_targets(scores: np.ndarray, pairs: FitPairs) -> np.ndarray:
    """Return the target of the best candidate of each query; equal scores share it in expectation."""
    order = np.lexsort((-scores, pairs.query))
    query, scores, target = pairs.query[order], scores[order], pairs.target[order]
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    is_best = scores == np.repeat(scores[starts], np.diff(starts, append=len(query)))
    best: np.ndarray = np.add.reduceat(is_best * target, starts) / np.add.reduceat(is_best, starts)
    return best


def _standardised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values with mean 0 and deviation 1 by column, and both; a constant column has the deviation 1."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    return (values - mean) / scale, mean, scale

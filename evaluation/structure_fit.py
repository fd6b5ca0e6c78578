"""Fitting the weights of several scores of structures: by them the true candidate of a query is the likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..embeddings.structure_fusion import StructureScore

RIDGE = 1e-3
"""Penalty on the squared weights of standardised terms; it keeps them finite where a score is always right."""

MAX_ITERATIONS = 300


def fit_structure_score(
    terms: Sequence[str], values: np.ndarray, query: np.ndarray, is_true: np.ndarray, group: np.ndarray
) -> StructureScore:
    """Fit the sum of terms by whose softmax over its candidates each query most likely has the true one.

    That is a conditional logit (McFadden 1974). Weights are not negative: no term is right where it is low. Terms are
    standardised by their mean and their deviation among the candidates of one query.

    Parameters
    ----------
    terms : sequence of str
    values : float64 array of shape (n_pairs, n_terms)
        Of every candidate of every query; NaN abstains, and counts as the mean.
    query : int64 array of shape (n_pairs,)
        From 0 to n_queries - 1, each there.
    is_true : bool array of shape (n_pairs,)
        One of each query.
    group : int64 array of shape (n_queries,)
        Molecule of each query; molecules count alike, whatever their number of queries.
    """
    from scipy.optimize import minimize

    order = np.argsort(query, kind="stable")
    query, is_true = query[order], is_true[order]
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    counts = np.diff(starts, append=len(query))
    standard, centre, scale = _standardised(values[order], starts, counts)
    of_group = np.unique(group, return_inverse=True)[1]
    weight_of_query = 1 / np.bincount(of_group)[of_group]
    weight_of_query /= weight_of_query.sum()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = standard @ weights
        highest = np.maximum.reduceat(total, starts)
        share = np.exp(total - np.repeat(highest, counts))
        sums = np.add.reduceat(share, starts)
        share *= np.repeat(weight_of_query / sums, counts)
        value = weight_of_query @ (np.log(sums) + highest - total[is_true]) + RIDGE * weights @ weights
        gradient = standard.T @ share - standard[is_true].T @ weight_of_query + 2 * RIDGE * weights
        return float(value), gradient

    start = np.zeros(len(terms))
    bounds = [(0.0, None)] * len(terms)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MAX_ITERATIONS})
    return StructureScore(tuple(terms), tuple(found.x.tolist()), tuple(centre.tolist()), tuple(scale.tolist()))


def cross_validated_totals(
    terms: Sequence[str],
    values: np.ndarray,
    query: np.ndarray,
    is_true: np.ndarray,
    group: np.ndarray,
    *,
    folds: int,
    seed: int,
) -> np.ndarray:
    """Return the score of each pair by weights that were fitted without its query's molecule; float64, (n_pairs,).

    Parameters are those of `fit_structure_score`; NaN where all terms abstain.
    """
    molecules = np.unique(group)
    fold_of = np.random.default_rng(seed).permutation(len(molecules)) % folds
    fold = fold_of[np.searchsorted(molecules, group)]
    totals = np.empty(len(query))
    for number in range(folds):
        others = np.flatnonzero(fold != number)
        known = np.isin(query, others)
        of_others = np.searchsorted(others, query[known])
        score = fit_structure_score(terms, values[known], of_others, is_true[known], group[others])
        totals[~known] = score.total(values[~known])
    return totals


def _standardised(
    values: np.ndarray, starts: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values with mean 0, by column, and deviation 1 within a query, and what they were; abstentions as 0."""
    known = ~np.isnan(values)
    centre = np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, values - centre, 0.0)
    within = centred - np.repeat(np.add.reduceat(centred, starts) / counts[:, None], counts, axis=0)
    scale = np.sqrt((within**2).mean(axis=0))
    scale = np.where(scale > 1e-9, scale, 1.0)  # a term that is the same for all candidates of each query
    return centred / scale, centre, scale

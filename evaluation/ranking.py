"""From the scores of candidates to the outcome of each query: the place of the true molecule, and the best hit.

`ionbed evaluate` and `ionbed score` both rank by these functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metrics import hit_at_k, reciprocal_rank, tie_bounds


@dataclass(frozen=True, eq=False)
class MoleculeScores:
    """Scores of candidate molecules, each that of its best-scored candidate, by query and then by molecule.

    Attributes
    ----------
    query, molecule : int64 arrays of shape (n,)
        Each combination once, ascending.
    score : float64 array of shape (n,)
        Minus infinity where all candidates of the molecule abstain.
    best : int64 array of shape (n,)
        Row of the candidate that has the score, the first of several.
    """

    query: np.ndarray
    molecule: np.ndarray
    score: np.ndarray
    best: np.ndarray


@dataclass(frozen=True, eq=False)
class TrueRanks:
    """The place of each query's true molecule.

    Attributes
    ----------
    better : int64 array of shape (n_queries,)
        Candidate molecules that score above the true one.
    tied : int64 array of shape (n_queries,)
        Candidate molecules that score as the true one does, itself included (at least 1).
    found : bool array of shape (n_queries,)
        Whether the true molecule has a score at all; where it has none, every metric counts a miss.
    """

    better: np.ndarray
    tied: np.ndarray
    found: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """Return the expected hit@k of each query, float64 of shape (n_queries,)."""
        return np.where(self.found, hit_at_k(self.better, self.tied, k), 0.0)

    def reciprocal(self) -> np.ndarray:
        """Return the expected 1 / rank of each query, float64 of shape (n_queries,)."""
        return np.where(self.found, reciprocal_rank(self.better, self.tied), 0.0)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the best and worst rank of each query when ties are broken, float64; infinite for a miss."""
        first, last = tie_bounds(self.better, self.tied)
        return np.where(self.found, first, np.inf), np.where(self.found, last, np.inf)


@dataclass(frozen=True, eq=False)
class BestHits:
    """The best-scored candidate molecules of each query.

    Attributes
    ----------
    score : float64 array of shape (n_queries,)
        Minus infinity where the query has no score.
    second : float64 array of shape (n_queries,)
        Score of the next molecule (equal to ``score`` where several tie), minus infinity where there is none.
    num_tied : int64 array of shape (n_queries,)
        Molecules that share the best score; 0 where there is none.
    entries : int64 array of shape (sum of num_tied,)
        Places of those in the `MoleculeScores`, by query.
    """

    score: np.ndarray
    second: np.ndarray
    num_tied: np.ndarray
    entries: np.ndarray

    def mean_of(self, values: np.ndarray) -> np.ndarray:
        """Return the expected value of each query's best hit, ties broken at random; 0 where there is none.

        ``values`` has the shape of ``entries``; the result is float64 of shape (n_queries,).
        """
        query = np.repeat(np.arange(len(self.num_tied)), self.num_tied)
        sums = np.bincount(query, weights=values, minlength=len(self.num_tied))
        means: np.ndarray = sums / np.maximum(self.num_tied, 1)
        return means


def score_molecules(query: np.ndarray, molecule: np.ndarray, scores: np.ndarray) -> MoleculeScores:
    """Return the score of every (query, molecule) that candidates were scored for.

    Parameters
    ----------
    query, molecule : int64 arrays of shape (n_candidates,)
        In any order.
    scores : float64 array of shape (n_candidates,)
        Without NaN; minus infinity abstains.
    """
    ascending = (np.diff(query) > 0) | ((np.diff(query) == 0) & (np.diff(molecule) > 0))
    if ascending.all():  # each molecule once and in order, as a search of a large library gives them
        return MoleculeScores(query, molecule, scores, np.arange(len(query)))
    # Best first within a molecule, then by row, so that the first candidate of several that tie is named.
    order = np.lexsort((-scores, molecule, query))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(molecule[order]) != 0) | (np.diff(query[order]) != 0)
    best = order[is_first]
    return MoleculeScores(query[best], molecule[best], scores[best], best)


def true_ranks(scored: MoleculeScores, true_molecule: np.ndarray, pool_size: np.ndarray) -> TrueRanks:
    """Return the place of each query's true molecule among its candidates.

    Parameters
    ----------
    scored : MoleculeScores
        A candidate molecule that is not in it abstains.
    true_molecule : int64 array of shape (n_queries,)
    pool_size : int64 array of shape (n_queries,)
        Candidate molecules of each query, scored or not.
    """
    num_queries = len(true_molecule)
    is_true = scored.molecule == true_molecule[scored.query]
    score = np.full(num_queries, -np.inf)
    score[scored.query[is_true]] = scored.score[is_true]
    found = ~np.isneginf(score)
    of_query = score[scored.query]
    better = np.bincount(scored.query, scored.score > of_query, num_queries).astype(np.int64)
    tied = np.bincount(scored.query, scored.score == of_query, num_queries).astype(np.int64)
    # A true molecule without a score ties with all others that have none.
    return TrueRanks(better, np.where(found, tied, np.maximum(pool_size - better, 1)), found)


def best_hits(scored: MoleculeScores, num_queries: int) -> BestHits:
    """Return the best hits of queries 0 to ``num_queries`` - 1."""
    starts = np.searchsorted(scored.query, np.arange(num_queries))
    present = np.flatnonzero(np.diff(np.append(starts, len(scored.query))))
    score, second = np.full(num_queries, -np.inf), np.full(num_queries, -np.inf)
    if len(present):
        score[present] = np.maximum.reduceat(scored.score, starts[present])
    is_best = (scored.score == score[scored.query]) & ~np.isneginf(scored.score)
    num_tied = np.bincount(scored.query[is_best], minlength=num_queries)
    if len(present):
        second[present] = np.maximum.reduceat(np.where(is_best, -np.inf, scored.score), starts[present])
    second[num_tied > 1] = score[num_tied > 1]
    return BestHits(score, second, num_tied, np.flatnonzero(is_best))

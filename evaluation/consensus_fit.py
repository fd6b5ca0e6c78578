"""Fitting the consensus of the hits of an open search: how widely they vote, and how much their vote counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np

from ..embeddings.consensus import Consensus, backed, best_of_molecules, similarities, supported
from ..embeddings.fusion import FusedScore
from .fusion_fit import FitPairs, held_out, logistic

TEMPERATURES = (0.15, 0.3)
DEPTHS = (20, 50)
"""What cross-validation chooses among; a fingerprint takes most of a millisecond, so a search works out no more."""

STANDARD_ERRORS = 1.64
"""A consensus is used where it gains so many of them: what chance alone would give in one case of twenty."""

LEAST_OWN = 0.1
"""Least weight of a candidate's own score: of two hits that the others support alike, it decides."""

LEAST_SLOPE = 0.1
"""By which the scores of the first hits may be drawn together: too few queries could turn their order around."""


@dataclass(frozen=True, eq=False)
class OpenCandidates:
    """What is known of the candidates of `FitPairs` beside their scores.

    Attributes
    ----------
    molecule : int64 array of shape (n_pairs,)
    fingerprint : uint8 array of shape (m, 256)
        Packed bits of every molecule.
    copies : FitPairs
        Each query with itself, ascending.
    """

    molecule: np.ndarray
    fingerprint: np.ndarray = field(repr=False)
    copies: FitPairs


@dataclass(frozen=True, eq=False)
class BestHits:
    """The best spectrum of each of the best ``d`` molecules of every query, the best first.

    Attributes
    ----------
    number : int64 array of shape (n_queries,)
        Molecules; the arrays hold nothing of use beyond.
    own, short_of_copy, target : float64 arrays of shape (n_queries, d)
        Scores before the logistic function, how much they are under that of a copy of the query, and what they are to
        tell.
    similarity : float32 array of shape (n_queries, d, d)
    """

    number: np.ndarray
    own: np.ndarray
    short_of_copy: np.ndarray
    target: np.ndarray
    similarity: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class FittedConsensus:
    """A consensus, and what it gives.

    Attributes
    ----------
    consensus : Consensus or None
        None where no query has molecules enough.
    target, without : float64 arrays of shape (n_queries,)
        Of the best hit of each query with a consensus and without, in cross-validation: neither its weights nor the
        choice of temperature and depth have seen the query's molecule.
    """

    consensus: Consensus | None
    target: np.ndarray
    without: np.ndarray

    def off(self) -> FittedConsensus:
        """Return what there is without a consensus."""
        return FittedConsensus(None, self.without, self.without)


def pays(gain: np.ndarray, group: np.ndarray) -> bool:
    """Return whether the mean gain is above 0 by `STANDARD_ERRORS`.

    Parameters
    ----------
    gain : float64 array of shape (n_queries,)
    group : int64 array of shape (n_queries,)
        Molecules: queries of one rise and fall together.
    """
    sums = np.bincount(np.unique(group, return_inverse=True)[1], gain - gain.mean())
    return bool(gain.mean() > STANDARD_ERRORS * np.sqrt((sums**2).sum()) / len(gain))


def fit_consensus(
    pairs: FitPairs, candidates: OpenCandidates, fold: np.ndarray, scores: list[FusedScore]
) -> FittedConsensus:
    """Fit the consensus of candidates whose scores are fitted.

    For every temperature and depth the weights are those of a logistic regression of the target of the best hits, and
    a second one makes the score of the first hit what is to be expected. Temperature and depth are those whose first
    hits are the best.

    Parameters
    ----------
    pairs : FitPairs
    candidates : OpenCandidates
    fold : int64 array of shape (n_pairs,)
        Part of the cross-validation in which a pair is held out.
    scores : list of FusedScore
        By part, fitted without it, and calibrated.
    """
    order = np.argsort(pairs.query, kind="stable")
    starts = np.flatnonzero(np.diff(pairs.query[order], prepend=-1))
    fold_of_query = fold[order][starts]
    hits = best_hits(pairs, candidates, fold, scores, max(DEPTHS))
    without = hits.target[:, 0]
    options = [option for option in product(DEPTHS, TEMPERATURES) if (hits.number >= option[0]).any()]
    if not options:
        return FittedConsensus(None, without, without)
    targets = np.stack([_held_out(hits, fold_of_query, *option) for option in options])
    target = without.copy()
    for number in range(len(scores)):
        others, held = fold_of_query != number, fold_of_query == number
        target[held] = targets[targets[:, others].mean(axis=1).argmax(), held]
    best = options[int(targets.mean(axis=1).argmax())]
    return FittedConsensus(_fitted(hits, *best), target, without)


def best_hits(
    pairs: FitPairs, candidates: OpenCandidates, fold: np.ndarray, scores: list[FusedScore], depth: int
) -> BestHits:
    """Return the best hits of every query, by its id ascending, by the scores that were fitted without it."""
    queries, first = np.unique(pairs.query, return_index=True)
    number = np.zeros(len(queries), np.int64)
    own, target = np.full((len(queries), depth), -np.inf), np.zeros((len(queries), depth))
    similarity = np.zeros((len(queries), depth, depth), np.float32)
    total = held_out(pairs, fold, scores)
    order = np.argsort(pairs.query, kind="stable")
    for place, members in enumerate(np.split(order, np.flatnonzero(np.diff(pairs.query[order])) + 1)):
        best = members[best_of_molecules(total[members], candidates.molecule[members], depth)]
        num = number[place] = len(best)
        own[place, :num], target[place, :num] = total[best], pairs.target[best]
        similarity[place, :num, :num] = similarities(candidates.fingerprint[candidates.molecule[best]])
    copy_total = held_out(candidates.copies, fold[first], scores)
    return BestHits(number, own, np.maximum(copy_total[:, None] - own, 0.0), target, similarity)


def _held_out(hits: BestHits, fold: np.ndarray, depth: int, temperature: float) -> np.ndarray:
    """Return the target of the best hit of each query under the consensus that is fitted without its part."""
    target = hits.target[:, 0].copy()
    for number in range(fold.max() + 1):
        held = (fold == number) & (hits.number >= depth)
        others = (fold != number) & (hits.number >= depth)
        if held.any() and others.any():
            consensus = _fitted(_take(hits, others), depth, temperature)
            of = _take(hits, held)
            total = consensus.total(of.own[:, :depth], _backing(of, depth, temperature))
            target[held] = np.take_along_axis(of.target, total.argmax(axis=1)[:, None], axis=1)[:, 0]
    return target


def _fitted(hits: BestHits, depth: int, temperature: float) -> Consensus:
    of = _take(hits, hits.number >= depth)
    values = np.stack([of.own[:, :depth], _backing(of, depth, temperature)], axis=-1).reshape(-1, 2)
    lowest = np.array([LEAST_OWN, 0.0])
    target = of.target[:, :depth].ravel()
    (own, support), intercept = logistic(values, target, np.ones(len(values)), 0.0, lowest=lowest)
    total = (values @ np.array([own, support]) + intercept).reshape(-1, depth)
    first = total.argmax(axis=1)[:, None]
    # The regression is over all of the best hits; what it makes the first one is a little too high.
    (slope,), shift = logistic(
        np.take_along_axis(total, first, axis=1),
        np.take_along_axis(of.target, first, axis=1)[:, 0],
        np.ones(len(first)),
        0.0,
        lowest=np.array([LEAST_SLOPE]),
    )
    return Consensus(temperature, depth, float(slope * own), float(slope * support), float(slope * intercept + shift))


def _backing(hits: BestHits, depth: int, temperature: float) -> np.ndarray:
    support = supported(hits.own[:, :depth], hits.similarity[:, :depth, :depth], temperature)
    return backed(support, hits.short_of_copy[:, :depth])


def _take(hits: BestHits, chosen: np.ndarray) -> BestHits:
    return BestHits(*(part[chosen] for part in vars(hits).values()))

"""How rows fare in each stratum of the queries: their first metric with its interval, small cells left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .judged import Judged
from .judgement import averages_of, averages_tree, combined_averages
from .metrics import roc_auc
from .outcomes import PerQuery
from .pair_judgement import ROC_AUC, query_of_candidate
from .statistics import (
    MINIMUM_MOLECULES,
    BootstrapOptions,
    Measured,
    combine_trainings,
    estimate,
    molecule_weights,
    resamples_of,
    resampling_units,
)
from .strata import UNKNOWN, cell_order, pair_strata
from .task_files import Task

SMALLEST_CELL = 20
"""Queries (pairs of either kind) below which nothing is said of a cell of a stratum."""


def strata_trees(
    task: Task, judged: Sequence[Judged], bootstrap: BootstrapOptions, *, seed: int
) -> list[dict[str, Any]]:
    """Return, for each row, its first metric in every cell of every stratum that is large enough.

    Cells with fewer than `SMALLEST_CELL` queries or `MINIMUM_MOLECULES` molecules are left out and counted; of pairs
    there must be as many of one molecule, and of two. All rows see the same resamples.

    Returns
    -------
    list of dict
        {stratum: {"metric", "cells": {cell: as the metric itself}, "queries in cells too small": n}}; of pairs 'pairs
        in cells too small'.
    """
    if task.kind == "pairs":
        return _of_pairs(task, judged, bootstrap, seed)
    names = [next(iter(row.per_query), None) for row in judged]
    trees: list[dict[str, Any]] = [{} for _ in judged]
    for name in dict.fromkeys(name for name in names if name is not None):
        rows = [place for place, own in enumerate(names) if own == name]
        counted = judged[rows[0]].counted[name]  # queries, or those with an answer: the same for every row
        if not len(counted):
            continue
        molecule = task.query_molecule[counted]
        for stratum, labels in task.strata.items():
            of_cell: list[dict[str, Any]] = [{} for _ in rows]
            too_small = 0
            for cell, members in _cells(labels[counted]):
                if len(members) < SMALLEST_CELL or len(np.unique(molecule[members])) < MINIMUM_MOLECULES:
                    too_small += len(members)
                    continue
                drawn = resamples_of(molecule[members], task.unit, bootstrap, seed=seed)
                for found, place in zip(of_cell, rows, strict=True):
                    row = judged[place]
                    trainings = [
                        averages_of(_chosen(part.per_query[name], members), drawn) for part in row.parts or (row,)
                    ]
                    averages = trainings[0] if len(trainings) == 1 else combined_averages(name, trainings)
                    found[cell] = averages_tree(
                        averages, _chosen(row.per_query[name], members), drawn, bootstrap.confidence
                    )
            for found, place in zip(of_cell, rows, strict=True):
                trees[place][stratum] = {"metric": name, "cells": found, "queries in cells too small": too_small}
    return trees


def linearised_roc_auc(
    scores: np.ndarray, positive: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray
) -> Measured:
    """Return the ROC AUC of pairs with its resamples, each to first order in the weights of the molecules.

    A resample moves the mean, over the positives, of the share of negatives below each, and the mean, over the
    negatives, of the share of positives above each; the two changes are added (the structural components of Obuchowski,
    Biometrics 53 (1997) 567-578, for clustered data). This is one product of matrices for all resamples, where weighing
    every pair anew in each, as `ionbed.evaluation.statistics.resampled_over_pairs` does, takes too long for every cell
    of every stratum. Where groups of molecules are resampled the intervals agree. Where molecules are, these are
    narrower and still safe: what chance does to a single pair counts twice, not three times (in simulations they cover
    96 to 97%, the others 98 to 99%).

    Parameters
    ----------
    scores : array of shape (n_pairs,)
        Without NaN.
    positive : bool array of shape (n_pairs,)
        Both kinds are there.
    first, second : int arrays of shape (n_pairs,)
        What is resampled of each pair (see `ionbed.evaluation.statistics.resampling_units`), columns of ``weights``.
    weights : array of shape (resamples, n_units)
    """
    value = roc_auc(scores, positive)
    resampled = np.full(len(weights), value)
    for chosen, sign in ((positive, 1.0), (~positive, -1.0)):
        others = np.sort(sign * scores[~chosen])
        own = sign * scores[chosen]
        # The share of the other kind that is on its right side, ties counting half.
        placed = np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")
        share = placed / (2 * len(others))
        units = np.stack([first[chosen], second[chosen]])
        resampled += _change_of_mean(share, units, weights)
    return Measured(value, np.clip(resampled, 0.0, 1.0), len(np.unique([first, second])))


def _of_pairs(task: Task, judged: Sequence[Judged], bootstrap: BootstrapOptions, seed: int) -> list[dict[str, Any]]:
    query = query_of_candidate(task)
    molecule = np.stack([task.query_molecule[query], task.candidate_molecule])
    positive = molecule[0] == molecule[1]
    trees: list[dict[str, Any]] = [{} for _ in judged]
    for stratum, labels in pair_strata(task.strata, query, task.other_laboratory).items():
        of_cell: list[dict[str, Any]] = [{} for _ in judged]
        too_small = 0
        for cell, members in _cells(labels):
            of_kind = int(positive[members].sum())
            molecules = np.unique(molecule[:, members])
            if min(of_kind, len(members) - of_kind) < SMALLEST_CELL or len(molecules) < MINIMUM_MOLECULES:
                too_small += len(members)
                continue
            unit = molecule[:, members] if task.unit is None else task.unit[molecule[:, members]]
            first, second = resampling_units(*np.unique(unit, return_inverse=True)[1].reshape(2, -1))
            num_units = int(max(first.max(), second.max())) + 1
            weights = molecule_weights(num_units, resamples=bootstrap.resamples, seed=seed)
            for found, row in zip(of_cell, judged, strict=True):
                trainings = [part.pair_scores[members] for part in row.parts or (row,) if part.pair_scores is not None]
                areas = [linearised_roc_auc(scores, positive[members], first, second, weights) for scores in trainings]
                area = combine_trainings(areas, (0.0, 1.0))
                found[cell] = {
                    "pairs": len(members),
                    "molecules": len(molecules),
                    "micro": asdict(estimate(area, bootstrap.confidence)),
                    "random": 0.5,
                }
        for found, tree in zip(of_cell, trees, strict=True):
            tree[stratum] = {"metric": ROC_AUC, "cells": found, "pairs in cells too small": too_small}
    return trees


def _chosen(metric: PerQuery, members: np.ndarray) -> PerQuery:
    return PerQuery(*(values[members] for values in vars(metric).values()))


def _cells(labels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each cell of a stratum and its members, in the order of the report."""
    of_query = np.array([UNKNOWN if label is None else str(label) for label in labels])
    names, cell = np.unique(of_query, return_inverse=True)
    for number in sorted(range(len(names)), key=lambda number: cell_order(str(names[number]))):
        yield str(names[number]), np.flatnonzero(cell == number)


def _change_of_mean(values: np.ndarray, units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return by how much the mean over pairs changes in each resample; NaN where none of them is drawn.

    The weight of a pair of two units changes, to first order, by (w_i - 1) + (w_j - 1), that of a pair within one unit
    by w_i - 1. The sum of the weights is divided by only where all are pairs within one unit: to first order, it can
    come near to 0 or below.
    """
    first, second = units
    of_two = first != second
    residual = values - values.mean()
    sums = np.bincount(first, residual, weights.shape[1])
    if not of_two.any():
        counts = weights @ np.bincount(first, minlength=weights.shape[1]).astype(np.float64)
        return np.divide(weights @ sums, counts, out=np.full(len(weights), np.nan), where=counts > 0)
    sums += np.bincount(second[of_two], residual[of_two], weights.shape[1])
    change: np.ndarray = (weights @ sums - sums.sum()) / len(values)
    return change

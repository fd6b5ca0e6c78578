"""Judging scores of pairs of spectra: ROC AUC and average precision, resampled over the molecules of the pairs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InputError
from .exchange import pair_permutation_p
from .judged import Averages, Judged, p_of_trainings
from .metrics import WeightedAveragePrecision, WeightedRocAuc, average_precision, roc_auc
from .predictions import Predictions
from .statistics import (
    BootstrapOptions,
    Measured,
    bootstrap_p,
    connected_groups,
    estimate,
    molecule_weights,
    resampled_over_pairs,
    resampling_units,
)
from .task_files import Task

ROC_AUC, AVERAGE_PRECISION = "ROC AUC", "average precision"
BETWEEN_LABORATORIES = "ROC AUC between laboratories"


class PairJudge:
    """Judges scores of one task of pairs; what all rows share is made once.

    Raises
    ------
    InputError
        The task has pairs of one kind only.
    """

    def __init__(self, task: Task, bootstrap: BootstrapOptions, *, seed: int) -> None:
        self._task, self._bootstrap, self._seed = task, bootstrap, seed
        self._query = query_of_candidate(task)
        molecules = np.stack([task.query_molecule[self._query], task.candidate_molecule])
        self.positive = molecules[0] == molecules[1]
        if not self.positive.any() or self.positive.all():
            raise InputError("the task has pairs of one kind only; there is nothing to tell apart")
        self._molecules = molecules
        units = molecules if task.unit is None else task.unit[molecules]
        self._first, self._second = resampling_units(*np.unique(units, return_inverse=True)[1].reshape(2, -1))
        num_units = len(np.unique([self._first, self._second]))
        self._weights = molecule_weights(num_units, resamples=bootstrap.resamples, seed=seed)
        self._chance: dict[str, Measured] = {}  # by metric, from the first row on
        # By metric, the pairs that it is about.
        everything = np.ones(len(self.positive), bool)
        self._chosen = {ROC_AUC: everything, AVERAGE_PRECISION: everything}
        between = task.other_laboratory
        if between is not None and 0 < self.positive[between].sum() < between.sum():
            self._chosen[BETWEEN_LABORATORIES] = between

    def __call__(self, predictions: Predictions) -> Judged:
        """Judge one set of scores; a pair without a score comes last."""
        of_pair = np.full(len(self.positive), -np.inf)
        of_pair[predictions.candidate] = predictions.score
        averages = {}
        for name, chosen in self._chosen.items():
            weighted, plain = (
                (WeightedAveragePrecision, average_precision)
                if name == AVERAGE_PRECISION
                else (WeightedRocAuc, roc_auc)
            )
            positive = self.positive[chosen]
            first, second = self._first[chosen], self._second[chosen]
            measures = {"own": weighted(of_pair[chosen], positive)}
            if name not in self._chance:
                # A constant score: an AUC of a half, and the share of the positives, in every resample.
                measures["chance"] = weighted(np.zeros(len(positive)), positive)
            resampled = resampled_over_pairs(measures, first, second, self._weights)
            units = len(np.unique([first, second]))
            if name not in self._chance:
                by_chance = plain(np.zeros(len(positive)), positive)
                self._chance[name] = Measured(by_chance, resampled["chance"], units)
            own = Measured(plain(of_pair[chosen], positive), resampled["own"], units)
            averages[name] = Averages(own, self._chance[name])
        table = pa.table(
            {
                "query_id": self._task.query_id.take(pa.array(self._query)),
                "candidate_id": self._task.candidate_id,
                "same_molecule": self.positive,
                "score": pa.array(of_pair, mask=np.isneginf(of_pair)),
            }
        )
        metrics = {name: self.tree(name, of) for name, of in averages.items()}
        return Judged(predictions.manifest.name, predictions.counts, metrics, averages, {}, {}, table, None, of_pair)

    def tree(self, metric: str, averages: Averages) -> dict[str, Any]:
        """Return a metric as plain numbers, with its interval."""
        chosen = self._chosen[metric]
        return {
            "pairs": int(chosen.sum()),
            "molecules": len(np.unique(self._molecules[:, chosen])),
            "resampled units": averages.micro.num_molecules,
            "micro": asdict(estimate(averages.micro, self._bootstrap.confidence)),
            "random": averages.chance.value,
        }

    def p_value(self, own: Judged, other: Judged | None, metric: str) -> tuple[float, str]:
        """Return the p-value of the difference of two rows, or of one and chance, and the name of the test.

        Groups of connected molecules are exchanged; where these are few or one is large, the bootstrap must do.
        """
        chosen = self._chosen[metric]
        group = connected_groups(self._first[chosen], self._second[chosen])
        if group is not None:
            p = pair_permutation_p(
                "average precision" if metric == AVERAGE_PRECISION else "ROC AUC",
                _scores(own)[:, chosen],
                None if other is None else _scores(other)[:, chosen],
                self.positive[chosen],
                group,
                seed=self._seed,
            )
            return p_of_trainings(p, "permutation", own, other, metric)
        first = own.averages[metric].micro
        second = own.averages[metric].chance if other is None else other.averages[metric].micro
        p = bootstrap_p(first.value - second.value, first.resampled - second.resampled)
        return p_of_trainings(p, "bootstrap", own, other, metric)


def _scores(row: Judged) -> np.ndarray:
    """Return the scores of the pairs in each training, float64 of shape (trainings, n_pairs)."""
    scores = [part.pair_scores for part in row.parts or (row,)]
    return np.stack([of_training for of_training in scores if of_training is not None])


def query_of_candidate(task: Task) -> np.ndarray:
    """Return the query of each candidate of a task of pairs, in which every query has a pool of its own."""
    pools, owner = np.unique(task.query_pool, return_index=True)
    if len(pools) < len(task.query_pool):
        raise InputError("two queries of a task of pairs share a pool; make the task anew")
    place = np.minimum(np.searchsorted(pools, task.candidate_pool), len(pools) - 1)
    if np.any(pools[place] != task.candidate_pool):
        raise InputError("a pool of a task of pairs belongs to no query; make the task anew")
    query: np.ndarray = owner[place]
    return query

"""Metrics of predicted labels and their bootstrap over molecules, in which every molecule (or spectrum) has one vote.

Shape suffixes: N spectra, M molecules, R resamples, K classes, labels or numbers, T columns of the truth.
"""

from __future__ import annotations

import numpy as np

from ...finetune.labelled.config import TaskKind
from ..metrics import WeightedAveragePrecision, WeightedRocAuc, comparable
from ..probe.scores import Scored
from ..statistics import Measured, molecule_weights

ROC_AUC, AVERAGE_PRECISION, MACRO_F1, ACCURACY = "ROC AUC", "average precision", "macro F1", "accuracy"
BRIER, LOG_LOSS, R2, MAE = "Brier score", "log loss", "R2", "mean absolute error"

LOWER_IS_BETTER = (BRIER, LOG_LOSS, MAE)

FEW_LABELS = 16
FEWEST_RESAMPLES = 200
"""Of many labels, each has fewer resamples (down to so many): it is their mean that the table is about."""

SMALLEST_PROBABILITY = 1e-6
NUM_BINS = 10


def metrics_of(task: TaskKind, outputs: int) -> tuple[str, ...]:
    """Return the metrics of a task, the main one first."""
    if task == "regression":
        return (R2, MAE)
    if task == "multi-label":
        return (ROC_AUC, AVERAGE_PRECISION, BRIER)
    if outputs == 2:
        return (ROC_AUC, AVERAGE_PRECISION, ACCURACY, BRIER, LOG_LOSS)
    return (MACRO_F1, ACCURACY, BRIER, LOG_LOSS)


class LabelJudge:
    """Scores predictions of one test fold; the resamples are the same for all, which is what makes differences paired.

    Parameters
    ----------
    task : 'classification', 'multi-label' or 'regression'
    names : tuple of str
        The K classes, labels or numbers.
    truth : float32 array of shape (N, T)
        NaN where unknown.
    molecule : int64 array of shape (N,)
    vote : float array of shape (N,)
        Weight of each spectrum.
    resamples, seed : int
    """

    def __init__(
        self,
        task: TaskKind,
        names: tuple[str, ...],
        truth: np.ndarray,
        molecule: np.ndarray,
        vote: np.ndarray,
        *,
        resamples: int,
        seed: int,
    ) -> None:
        self.task, self.names, self.truth, self.vote = task, names, truth, vote.astype(np.float64)
        molecules, self.molecule = np.unique(molecule, return_inverse=True)
        self.num_molecules = len(molecules)
        weights = molecule_weights(len(molecules), resamples=resamples, seed=seed)
        # First the data as they are.
        self.weights_RM = np.concatenate([np.ones((1, len(molecules)), np.float32), weights]).astype(np.float64)

    def __call__(self, values: np.ndarray, chosen: np.ndarray | None = None) -> Scored:
        """Score probabilities (of a classification or labels) or numbers, of shape (N, K).

        ``chosen`` is the class that is predicted, int64 of shape (N,); the most probable one where None.
        """
        if self.task == "classification":
            return self._classes(values, values.argmax(axis=1) if chosen is None else chosen)
        if self.task == "multi-label":
            return self._labels(values)
        return self._numbers(values)

    def _classes(self, values: np.ndarray, predicted: np.ndarray) -> Scored:
        label = self.truth[:, 0].astype(np.int64)
        of_class = self._f1(label, predicted, len(self.names))
        found = {}
        if len(self.names) == 2:
            found = {name: self._ranked(kind, values[:, 1], label == 1) for name, kind in _RANKED.items()}
        else:
            found[MACRO_F1] = _mean_over(list(of_class.values()), self.num_molecules)
        found[ACCURACY] = self._mean(predicted == label)
        is_true = label[:, None] == np.arange(len(self.names))
        found[BRIER] = self._mean(np.square(values - is_true).sum(axis=1))
        own = np.clip(values[np.arange(len(label)), label], SMALLEST_PROBABILITY, 1.0)
        found[LOG_LOSS] = self._mean(-np.log(own))
        return Scored(found, of_class)

    def _labels(self, values: np.ndarray) -> Scored:
        of_label: dict[str, dict[str, Measured]] = {name: {} for name in (*_RANKED, BRIER)}
        for k, name in enumerate(self.names):
            known = ~np.isnan(self.truth[:, k])
            positive = self.truth[known, k] > 0
            if positive.any() and not positive.all():
                for metric, kind in _RANKED.items():
                    of_label[metric][name] = self._ranked(kind, values[known, k], positive, known)
            if known.any():
                of_label[BRIER][name] = self._mean(np.square(values[known, k] - positive), known)
        found = {metric: _mean_over(list(of.values()), self.num_molecules) if of else self._unknown()
                 for metric, of in of_label.items()}  # fmt: skip
        return Scored(found, of_label[ROC_AUC])

    def _numbers(self, values: np.ndarray) -> Scored:
        r2, mae = {}, {}
        for k, name in enumerate(self.names):
            known = ~np.isnan(self.truth[:, k])
            if not known.any():
                continue
            truth = self.truth[known, k].astype(np.float64)
            squared, _ = self._sums(np.square(values[known, k] - truth), known)
            centred = truth - truth.mean()
            first, total = self._sums(centred, known)
            second, _ = self._sums(np.square(centred), known)
            with np.errstate(divide="ignore", invalid="ignore"):
                variance = second / total - np.square(first / total)
                r2[name] = self._measured(1.0 - squared / total / np.where(variance > 0, variance, np.nan))
            mae[name] = self._mean(np.abs(values[known, k] - truth), known)
        metrics = {R2: _mean_over(list(r2.values()), self.num_molecules)}
        if len(mae) == 1:  # those of several numbers have several units
            metrics[MAE] = next(iter(mae.values()))
        return Scored(metrics, r2)

    def _f1(self, label: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, Measured]:
        tables = []
        for cells in (label, predicted, np.where(label == predicted, label, num_classes)):
            sums = np.zeros((self.num_molecules, num_classes + 1))
            np.add.at(sums, (self.molecule, cells), self.vote)
            tables.append(self.weights_RM @ sums[:, :num_classes])
        true_RC, predicted_RC, right_RC = tables
        # A class that a resample has no molecule of has no F1 there.
        f1_RC = np.where(true_RC > 0, 2 * right_RC / np.maximum(predicted_RC + true_RC, 1e-12), np.nan)
        return {name: self._measured(f1_RC[:, c]) for c, name in enumerate(self.names) if true_RC[0, c] > 0}

    def _ranked(
        self,
        kind: type[WeightedRocAuc] | type[WeightedAveragePrecision],
        score: np.ndarray,
        positive: np.ndarray,
        known: np.ndarray | None = None,
    ) -> Measured:
        measure = kind(comparable(score), positive)
        rows = slice(None) if known is None else known
        molecule, vote = self.molecule[rows], self.vote[rows]
        used = len(self.weights_RM)
        if self.task == "multi-label":
            used = 1 + max(FEWEST_RESAMPLES, (used - 1) * FEW_LABELS // max(FEW_LABELS, len(self.names)))
        return self._measured(np.array([measure(w[molecule] * vote) for w in self.weights_RM[:used]]))

    def _mean(self, values: np.ndarray, known: np.ndarray | None = None) -> Measured:
        sums, totals = self._sums(values, known)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._measured(sums / totals)

    def _sums(self, values: np.ndarray, known: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(None) if known is None else known
        molecule, vote = self.molecule[rows], self.vote[rows]
        sums = np.bincount(molecule, vote * values, self.num_molecules)
        totals = np.bincount(molecule, vote, self.num_molecules)
        return self.weights_RM @ sums, self.weights_RM @ totals

    def _unknown(self) -> Measured:
        """Return what stands for a metric that no label has, since the fold has one answer to each."""
        return self._measured(np.full(len(self.weights_RM), np.nan))

    def _measured(self, values: np.ndarray) -> Measured:
        return Measured(float(values[0]), values[1:], self.num_molecules)


_RANKED: dict[str, type[WeightedRocAuc] | type[WeightedAveragePrecision]] = {
    ROC_AUC: WeightedRocAuc,
    AVERAGE_PRECISION: WeightedAveragePrecision,
}


def _mean_over(of_labels: list[Measured], num_molecules: int) -> Measured:
    """Return the mean over labels; in each resample over those that it can tell."""
    resampled = np.stack([measured.resampled for measured in of_labels])
    known = ~np.isnan(resampled)
    sums, counts = np.where(known, resampled, 0.0).sum(axis=0), known.sum(axis=0)
    mean = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return Measured(float(np.mean([measured.value for measured in of_labels])), mean, num_molecules)


def reliability(task: TaskKind, values: np.ndarray, truth: np.ndarray, vote: np.ndarray) -> dict[str, object]:
    """Return the expected calibration error of probabilities, and the curve that it is the error of.

    Answers are put into `NUM_BINS` bins of equal votes by their probability: of the best class (of two classes: of the
    second), or of every yes/no label.

    Parameters
    ----------
    values : float64 array of shape (N, K)
    truth : float32 array of shape (N, T)
    vote : float array of shape (N,)

    Returns
    -------
    dict
        ``error``, the mean distance of a bin's share of right answers from its mean probability; ``confidence`` and
        ``share``, both by bin.
    """
    if task == "classification":
        label = truth[:, 0].astype(np.int64)
        if values.shape[1] == 2:
            probability, right = values[:, 1], label == 1
        else:
            probability, right = values.max(axis=1), values.argmax(axis=1) == label
        weight = vote.astype(np.float64)
    else:
        known = ~np.isnan(truth)
        probability, right = values[known], truth[known] > 0
        weight = np.broadcast_to(vote[:, None], truth.shape)[known].astype(np.float64)
    order = np.argsort(probability, kind="stable")
    probability, right, weight = probability[order], right[order].astype(np.float64), weight[order]
    place = np.minimum((np.cumsum(weight) - weight / 2) / weight.sum() * NUM_BINS, NUM_BINS - 1).astype(np.int64)
    total = np.bincount(place, weight, NUM_BINS)
    filled = total > 0
    confidence, share = (
        np.bincount(place, weight * of, NUM_BINS)[filled] / total[filled] for of in (probability, right)
    )
    error = float(total[filled] @ np.abs(confidence - share) / total.sum())
    return {"error": error, "confidence": confidence.tolist(), "share": share.tolist()}

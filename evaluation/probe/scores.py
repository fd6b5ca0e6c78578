"""From what a head predicts to metrics in which every molecule counts the same, and their bootstrap over molecules.

Shape suffixes: N spectra, M molecules, R resamples, K targets, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..statistics import Measured, molecule_weights
from .targets import ACCURACY, MACRO_F1, R2, ROC_AUC, Target


@dataclass(frozen=True, eq=False)
class Scored:
    """The metrics of one head.

    Attributes
    ----------
    metrics : dict of metric to Measured
    of_label : dict of label to Measured
        F1, ROC AUC or R2 of each class, bit or number, in the order of the target.
    """

    metrics: dict[str, Measured] = field(repr=False)
    of_label: dict[str, Measured] = field(repr=False)


class ProbeJudge:
    """Scores heads of one target; the resamples are the same for all, which is what makes differences paired.

    Parameters
    ----------
    target : Target
    molecule : int64 array of shape (N,)
        Of each spectrum that is asked about, a row of ``target.truth``.
    resamples : int
    seed : int
    """

    def __init__(self, target: Target, molecule: np.ndarray, *, resamples: int, seed: int) -> None:
        self.target = target
        asked = target.truth[molecule] >= 0 if target.kind == "classes" else np.ones(len(molecule), bool)
        order = np.flatnonzero(asked)
        self._rows = order[np.argsort(molecule[order], kind="stable")]
        molecules, self._molecule_N = np.unique(molecule[self._rows], return_inverse=True)
        self._truth_M = target.truth[molecules]
        self._counts_M = np.bincount(self._molecule_N)
        self._weights_RM = molecule_weights(len(molecules), resamples=resamples, seed=seed)

    @property
    def num_molecules(self) -> int:
        """Molecules that are asked about."""
        return len(self._counts_M)

    @property
    def num_spectra(self) -> int:
        """Spectra that are asked about."""
        return len(self._rows)

    def __call__(self, predicted: np.ndarray) -> Scored:
        """Score what was predicted for every spectrum: logits, scores of bits or numbers, of shape (N, K)."""
        values_NK = predicted[self._rows]
        if self.target.kind == "classes":
            return self._classes(values_NK.argmax(axis=1))
        if self.target.kind == "bits":
            return self._over_labels(ROC_AUC, [self._auc(values_NK[:, k], k) for k in range(values_NK.shape[1])])
        return self._over_labels(R2, [self._r2(values_NK[:, k], k) for k in range(values_NK.shape[1])])

    def _classes(self, predicted_N: np.ndarray) -> Scored:
        num_classes = len(self.target.labels)
        shares_MC = np.zeros((self.num_molecules, num_classes))
        np.add.at(shares_MC, (self._molecule_N, predicted_N), 1.0)
        shares_MC /= self._counts_M[:, None]
        weights = np.concatenate([np.ones((1, self.num_molecules)), self._weights_RM])  # first: the data as they are
        predicted_RC = weights @ shares_MC
        is_true_MC = self._truth_M[:, None] == np.arange(num_classes)
        true_RC, right_RC = weights @ is_true_MC, weights @ np.where(is_true_MC, shares_MC, 0.0)
        # A class that a resample has no molecule of has no F1 there.
        f1_RC = np.where(true_RC > 0, 2 * right_RC / np.maximum(predicted_RC + true_RC, 1e-12), np.nan)
        found = self._over_labels(MACRO_F1, [self._measured(f1_RC[:, c]) for c in range(num_classes)])
        accuracy = self._measured(right_RC.sum(axis=1) / true_RC.sum(axis=1))
        return Scored({**found.metrics, ACCURACY: accuracy}, found.of_label)

    def _auc(self, score_N: np.ndarray, k: int) -> Measured:
        """Return the chance that a spectrum of a molecule with the bit scores above one without, ties counting half."""
        is_positive_M = self._truth_M[:, k] > 0
        is_positive_N = is_positive_M[self._molecule_N]
        starts = [
            np.flatnonzero(np.diff(self._molecule_N[part], prepend=-1)) for part in (is_positive_N, ~is_positive_N)
        ]
        positive, negative = score_N[is_positive_N][:, None], score_N[~is_positive_N][None, :]
        halves = (positive > negative).view(np.int8) + (positive >= negative).view(np.int8)
        of_molecules = np.add.reduceat(np.add.reduceat(halves, starts[1], axis=1, dtype=np.int32), starts[0], axis=0)
        pairs = 2.0 * self._counts_M[is_positive_M][:, None] * self._counts_M[~is_positive_M][None, :]
        above = (of_molecules / pairs).astype(np.float32)  # by molecule with the bit, by molecule without
        with_bit_R, without_R = self._weights_RM[:, is_positive_M], self._weights_RM[:, ~is_positive_M]
        won_R = np.einsum("rq,rq->r", with_bit_R @ above, without_R).astype(np.float64)
        total_R = with_bit_R.sum(axis=1, dtype=np.float64) * without_R.sum(axis=1, dtype=np.float64)
        resampled = np.divide(won_R, total_R, out=np.full(len(won_R), np.nan), where=total_R > 0)
        return Measured(float(above.mean(dtype=np.float64)), resampled, self.num_molecules)

    def _r2(self, predicted_N: np.ndarray, k: int) -> Measured:
        truth_M = self._truth_M[:, k]
        squared_N = np.square(predicted_N.astype(np.float64) - truth_M[self._molecule_N])
        error_M = np.bincount(self._molecule_N, squared_N) / self._counts_M
        weights = np.concatenate([np.ones((1, self.num_molecules)), self._weights_RM])
        centred_M = truth_M - truth_M.mean()
        total = weights.sum(axis=1)
        variance = weights @ np.square(centred_M) / total - np.square(weights @ centred_M / total)
        return self._measured(1.0 - weights @ error_M / total / np.where(variance > 0, variance, np.nan))

    def _over_labels(self, metric: str, of_labels: list[Measured]) -> Scored:
        resampled = np.stack([measured.resampled for measured in of_labels])
        known = ~np.isnan(resampled)
        num_known = known.sum(axis=0)
        sums = np.where(known, resampled, 0.0).sum(axis=0)
        mean = np.divide(sums, num_known, out=np.full(len(sums), np.nan), where=num_known > 0)
        value = float(np.mean([measured.value for measured in of_labels]))
        whole = Measured(value, mean, self.num_molecules)
        return Scored({metric: whole}, dict(zip(self.target.labels, of_labels, strict=True)))

    def _measured(self, values: np.ndarray) -> Measured:
        return Measured(float(values[0]), values[1:], self.num_molecules)

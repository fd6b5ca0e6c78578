"""Probabilities that mean what they say: temperature, Platt's or isotonic calibration, fitted on the validation fold.

Shape suffixes: N spectra, K outputs, T columns of the truth (1 for a classification, else K).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from .config import TaskKind
from .losses import loss_of_spectra

Kind = Literal["none", "temperature", "platt", "isotonic"]

PRIOR_SPREAD = 2.0
"""Standard deviation of the normal prior on biases and logarithms of slopes: with few molecules, little changes."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """From scores to probabilities.

    Attributes
    ----------
    kind : 'none', 'temperature', 'platt' or 'isotonic'
    slope, bias : float64 arrays of shape (K,)
        Scores become ``slope * score + bias``, then probabilities by softmax or sigmoid.
    steps : tuple of (list of float, list of float), one for each output
        Of isotonic calibration: probabilities as they come, and what they become.
    """

    kind: Kind
    slope: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    steps: tuple[tuple[list[float], list[float]], ...] = ()

    def __call__(self, task: TaskKind, scores: np.ndarray) -> np.ndarray:
        """Return probabilities of scores, float64 of shape (N, K); those of a classification sum to 1."""
        found = probabilities(task, scores * self.slope + self.bias)
        if not self.steps:
            return found
        columns = [np.interp(found[:, k], *self.steps[k]) for k in range(found.shape[1])]
        found = np.stack(columns, axis=1)
        return found / found.sum(axis=1, keepdims=True) if task == "classification" else found

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "kind": self.kind, "slope": self.slope.tolist(), "bias": self.bias.tolist(),
            "steps": [list(pair) for pair in self.steps],
        }  # fmt: skip

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Calibration:
        """Return the calibration of `to_json`."""
        steps = tuple((list(map(float, x)), list(map(float, y))) for x, y in tree["steps"])
        return cls(tree["kind"], np.array(tree["slope"], float), np.array(tree["bias"], float), steps)


def uncalibrated(outputs: int) -> Calibration:
    """Return the calibration that changes nothing."""
    return Calibration("none", np.ones(outputs), np.zeros(outputs))


def probabilities(task: TaskKind, scores: np.ndarray) -> np.ndarray:
    """Return the softmax (of a classification) or the sigmoid of scores, float64 of their shape."""
    scores = np.asarray(scores, np.float64)
    if task == "classification":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        softmax: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return softmax
    sigmoid: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * scores))
    return sigmoid


def fit_calibration(
    task: TaskKind, kind: Kind, scores: np.ndarray, truth: np.ndarray, weight: np.ndarray
) -> Calibration:
    """Fit a calibration.

    'temperature' divides all scores by one number (Guo et al. 2017); 'platt' also adds a number to those of each class
    (Alexandari et al. 2020; of two classes this is Platt scaling, 1999), and scales those of each yes/no label on its
    own; 'isotonic' replaces probabilities by the monotonous steps that fit best (Zadrozny and Elkan 2002), of several
    classes one against the rest.

    Parameters
    ----------
    scores : float32 array of shape (N, K)
        Of the validation fold.
    truth : float32 array of shape (N, T)
        NaN where unknown.
    weight : float32 array of shape (N,)
        That sum to the number of molecules (or spectra) that vote.
    """
    outputs = scores.shape[1]
    if kind == "none" or not len(scores):
        return uncalibrated(outputs)
    if kind == "isotonic":
        return _isotonic(task, scores, truth, weight)
    has_biases = kind == "platt"
    slopes = outputs if has_biases and task == "multi-label" else 1
    log_slope = torch.zeros(slopes, dtype=torch.float64, requires_grad=True)
    bias_K = torch.zeros(outputs, dtype=torch.float64, requires_grad=has_biases)
    scores_NK, truth_NT = torch.from_numpy(scores).double(), torch.from_numpy(truth).double()
    weight_N = torch.from_numpy(weight).double()
    ones = torch.ones(2 if task == "multi-label" else 1, outputs, dtype=torch.float64)
    known_N = (~truth_NT.isnan()).sum(dim=1)

    def objective() -> torch.Tensor:
        loss_N = loss_of_spectra(task, scores_NK * log_slope.exp() + bias_K, truth_NT, ones) * known_N
        prior = log_slope.square().sum() + bias_K.square().sum()
        return weight_N @ loss_N + prior / (2 * PRIOR_SPREAD**2)

    _minimise(objective, [log_slope, bias_K] if has_biases else [log_slope])
    slope = log_slope.detach().exp().expand(outputs).numpy().copy()
    return Calibration(kind, slope, bias_K.detach().numpy().copy())


def _minimise(objective: Callable[[], torch.Tensor], parameters: list[torch.Tensor]) -> None:
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer.step(closure)


def _isotonic(task: TaskKind, scores: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> Calibration:
    found = probabilities(task, scores)
    outputs = found.shape[1]
    steps = []
    for k in range(outputs):
        column = truth[:, 0 if task == "classification" else k]
        known = ~np.isnan(column)
        answer = (column == k) if task == "classification" else (column > 0)
        steps.append(monotonous_steps(found[known, k], answer[known].astype(float), weight[known].astype(float)))
    return Calibration("isotonic", np.ones(outputs), np.zeros(outputs), tuple(steps))


def monotonous_steps(score: np.ndarray, answer: np.ndarray, weight: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the non-decreasing function of ``score`` nearest to ``answer``, as points to be joined by lines.

    By pooling adjacent violators. Each step is pulled a little to the middle, as by one half of a vote for yes and one
    for no, so that none is 0 or 1; they are pooled as they are after it, so that a narrow one does not lift all others.

    Parameters
    ----------
    score, answer, weight : float64 arrays of shape (n,)
        Equal scores are one.

    Returns
    -------
    two lists of float
        Scores, ascending, and values.
    """
    if not len(score):
        return [0.0, 1.0], [0.0, 1.0]
    points, place = np.unique(score, return_inverse=True)
    votes = np.bincount(place, weight)
    blocks: list[list[float]] = []  # first point, last point, votes for yes, votes
    for point, yes, total in zip(points, np.bincount(place, weight * answer), votes, strict=True):
        blocks.append([point, point, yes, total])
        while len(blocks) > 1 and _pulled(blocks[-2]) >= _pulled(blocks[-1]):
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0], last[1], blocks[-1][2] + last[2], blocks[-1][3] + last[3]]
    x = [float(end) for block in blocks for end in block[:2]]
    y = [float(_pulled(block)) for block in blocks for _ in range(2)]
    kept = [n for n in range(len(x)) if n == 0 or x[n] > x[n - 1]]
    return [x[n] for n in kept], [y[n] for n in kept]


def _pulled(block: list[float]) -> float:
    _, _, yes, votes = block
    return (yes + 0.5) / (votes + 1)


def conformal_half_width(truth: np.ndarray, predicted: np.ndarray, weight: np.ndarray, coverage: float) -> np.ndarray:
    """Return how far from its prediction a number lies at most, with a probability of ``coverage``, of shape (K,).

    The quantile of the absolute errors on the validation fold (split conformal prediction; Lei et al. 2018), with one
    vote more at infinity, where every molecule may count the same. Infinite where there are too few for the coverage.

    Parameters
    ----------
    truth, predicted : arrays of shape (N, K)
        NaN where unknown.
    weight : array of shape (N,)
        That sum to the number of votes.
    """
    result = np.full(truth.shape[1], np.inf)
    for k in range(truth.shape[1]):
        known = ~np.isnan(truth[:, k])
        error, vote = np.abs(truth[known, k] - predicted[known, k]), weight[known].astype(np.float64)
        order = np.argsort(error)
        reached = np.cumsum(vote[order]) / (vote.sum() + 1.0)
        if len(order) and reached[-1] >= coverage:
            result[k] = error[order][np.searchsorted(reached, coverage)]
    return result

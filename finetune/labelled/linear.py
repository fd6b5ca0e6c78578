"""Linear heads: fitted on fixed vectors by L-BFGS, with the ridge penalty that the validation fold prefers.

Shape suffixes: N spectra, D features, K outputs, T columns of the truth.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .config import HeadConfig, TaskKind
from .losses import class_weights, loss_of_spectra

PENALTIES = tuple(10.0**power for power in range(1, -8, -1))
"""Strongest first: each fit starts from the one before, and the weak ones, which take longest, are seldom reached."""
WORSE_BEFORE_STOP = 2
MAX_ITERATIONS = 60
ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class Examples:
    """Spectra with answers.

    Attributes
    ----------
    features : float32 array of shape (N, D)
        D may be 0: a head then knows nothing but how frequent each answer is.
    truth : float32 array of shape (N, T)
        NaN where unknown.
    weight : float32 array of shape (N,)
    """

    features: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    weight: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Scores ``((x - mean) * scale) @ weight.T + bias`` of vectors x.

    Attributes
    ----------
    mean : float32 array of shape (D,)
    scale : float32 array of shape (D,)
    weight : float32 array of shape (K, D)
    bias : float32 array of shape (K,)
    penalty : float
        With which it was fitted.
    losses : dict of float to float
        Loss on the validation fold by penalty.
    """

    mean: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    weight: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    penalty: float = float("nan")
    losses: dict[float, float] = field(default_factory=dict)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the scores (logits, or numbers scaled to unit variance) of vectors, float32 of shape (N, K)."""
        scores: np.ndarray = ((features - self.mean) * self.scale) @ self.weight.T + self.bias
        return scores.astype(np.float32)


def fit_linear(
    task: TaskKind,
    outputs: int,
    train: Examples,
    validation: Examples,
    config: HeadConfig,
    blocks: Sequence[int] | None = None,
) -> LinearHead:
    """Return the head with the lowest loss on the validation fold among those of `PENALTIES`.

    Minimises the weighted mean loss (`ionbed.finetune.labelled.losses`) plus ``penalty / 2`` times the squared weights,
    with free intercepts. Features are centred and scaled as a whole, so that a head does not change when vectors are
    rotated or scaled; where there are several ``blocks`` of them (their numbers of features), block by block.
    """
    share = train.weight / train.weight.sum()
    mean_D = (share @ train.features).astype(np.float32)
    variance_D = share @ np.square(train.features - mean_D)
    scale_D = np.zeros(len(mean_D), np.float32)
    ends = np.cumsum([0, *(blocks or [len(mean_D)])])
    for begin, end in itertools.pairwise(ends.tolist()):
        variance = float(variance_D[begin:end].sum())
        # Rounding leaves constant features a spread of the last digit of their mean: these say nothing.
        if variance > 1e-10 * float(np.square(mean_D[begin:end]).sum()):
            scale_D[begin:end] = np.sqrt((end - begin) / variance)
    problem = _Problem(task, outputs, train, mean_D, scale_D, config)
    held_out_ND = torch.from_numpy((validation.features - mean_D) * scale_D)
    truth_NT, weight_N = torch.from_numpy(validation.truth), torch.from_numpy(validation.weight)
    fit = torch.zeros(len(mean_D) + 1, outputs, dtype=torch.float64)
    best, kept, losses = PENALTIES[0], fit, {}
    for number, penalty in enumerate(PENALTIES):
        fit = problem.solve(penalty, fit)
        with torch.no_grad():
            loss_N = problem.loss(held_out_ND, fit.float(), truth_NT)
        losses[penalty] = float(weight_N @ loss_N / weight_N.sum())
        if number == 0 or losses[penalty] < losses[best]:
            best, kept = penalty, fit
        if number - PENALTIES.index(best) >= WORSE_BEFORE_STOP:
            break
    weight_KD = kept[:-1].T.contiguous().float().numpy()
    return LinearHead(mean_D, scale_D, weight_KD, kept[-1].float().numpy(), best, losses)


class _Problem:
    """The training data of a fit, and its loss."""

    def __init__(
        self, task: TaskKind, outputs: int, train: Examples, mean_D: np.ndarray, scale_D: np.ndarray, config: HeadConfig
    ) -> None:
        self.task, self.gamma = task, config.focal_gamma if config.imbalance == "focal" else 0.0
        self.train_ND = torch.from_numpy((train.features - mean_D) * scale_D)
        self.truth_NT = torch.from_numpy(train.truth)
        self.weight_N = torch.from_numpy(train.weight / train.weight.sum())
        self.weight_AK = torch.from_numpy(class_weights(task, train.truth, train.weight, outputs, config))
        # The loss of a spectrum is a mean over its labels: one penalty is to mean the same for one label or many.
        self.num_terms = 1 if task == "classification" else outputs
        gram_DD = (self.train_ND * self.weight_N.unsqueeze(1)).T @ self.train_ND
        eigenvalues_D, self.basis_DD = torch.linalg.eigh(gram_DD.double())
        self.eigenvalues_D = eigenvalues_D.clamp_min(0.0)

    def loss(self, features_ND: torch.Tensor, fit: torch.Tensor, truth_NT: torch.Tensor) -> torch.Tensor:
        """Return the loss of each spectrum under coefficients with the intercepts last."""
        return loss_of_spectra(self.task, features_ND @ fit[:-1] + fit[-1], truth_NT, self.weight_AK, self.gamma)

    def solve(self, penalty: float, start: torch.Tensor) -> torch.Tensor:
        """Return the coefficients at the minimum, float64 of shape (D + 1, K), searched for from ``start``."""
        curvature = 2.0 if self.task == "regression" else 0.25
        # In the eigenbasis, scaled by the curvature, L-BFGS converges in tens of steps.
        root_D = (curvature * self.eigenvalues_D + penalty).sqrt()
        to_fit_DD, from_fit_DD = self.basis_DD / root_D, (self.basis_DD * root_D).T
        turned = torch.cat([from_fit_DD @ start[:-1], start[-1:]]).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [turned], max_iter=MAX_ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-7, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            fit = torch.cat([to_fit_DD @ turned[:-1], turned[-1:]])
            total = penalty / 2 * fit[:-1].square().sum()
            total.backward()
            for begin in range(0, len(self.train_ND), ROWS_AT_ONCE):
                part = slice(begin, begin + ROWS_AT_ONCE)
                fit = torch.cat([to_fit_DD @ turned[:-1], turned[-1:]]).float()
                loss_N = self.loss(self.train_ND[part], fit, self.truth_NT[part])
                value = self.num_terms * (self.weight_N[part] @ loss_N)
                value.backward()
                total = total.detach() + value.detach()
            return total

        optimizer.step(closure)
        with torch.no_grad():
            return torch.cat([to_fit_DD @ turned[:-1], turned[-1:]]).detach()

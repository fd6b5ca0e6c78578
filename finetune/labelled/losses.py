"""What a head minimises: cross-entropy of classes or of yes/no labels, squared error of numbers, and their weights.

Shape suffixes: N spectra, K outputs of a head, T columns of the truth (1 for a classification, else K).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .config import HeadConfig, TaskKind


def vote_weights(molecule: np.ndarray, votes: str) -> np.ndarray:
    """Return the weight of each spectrum, with a mean of 1, float32 of shape (N,).

    Parameters
    ----------
    molecule : int64 array of shape (N,)
    votes : 'molecule' or 'spectrum'
        'molecule': the spectra of a molecule weigh as much together as those of any other, however many there are.
    """
    if votes == "spectrum":
        return np.ones(len(molecule), np.float32)
    _, place, counts = np.unique(molecule, return_inverse=True, return_counts=True)
    weight: np.ndarray = (len(molecule) / (len(counts) * counts[place])).astype(np.float32)
    return weight


def class_weights(
    task: TaskKind, truth: np.ndarray, weight: np.ndarray, outputs: int, config: HeadConfig
) -> np.ndarray:
    """Return the weight of each answer, float32 of shape (2, K) (no, yes), or (1, K) of a classification.

    Inverse frequency: every answer to a question has the same total weight, and the mean over the spectra is 1.

    Parameters
    ----------
    truth : float32 array of shape (N, T)
    weight : float32 array of shape (N,)
        Of each spectrum, as `vote_weights` returns it.
    """
    answers = 1 if task == "classification" else 2
    if config.imbalance != "inverse-frequency":
        return np.ones((answers, outputs), np.float32)
    if task == "classification":
        shares = np.bincount(truth[:, 0].astype(np.int64), weight, outputs)[None] / weight.sum()
        return (1.0 / (outputs * np.maximum(shares, 1e-6))).astype(np.float32)
    known = ~np.isnan(truth)
    total = (known * weight[:, None]).sum(axis=0)
    yes = (np.nan_to_num(truth) * weight[:, None]).sum(axis=0) / np.maximum(total, 1e-6)
    return (0.5 / np.clip(np.stack([1 - yes, yes]), 1e-6, None)).astype(np.float32)


def loss_of_spectra(
    task: TaskKind, logits_NK: torch.Tensor, truth_NT: torch.Tensor, weight_AK: torch.Tensor, gamma: float = 0.0
) -> torch.Tensor:
    """Return the loss of each spectrum, its mean over what is known of it, of shape (N,); 0 where nothing is.

    Parameters
    ----------
    truth_NT : float32 tensor
        NaN where unknown; numbers are scaled to unit variance.
    weight_AK : float32 tensor
        As `class_weights` returns it; not used by a regression.
    gamma : float
        Above 0: focal loss (Lin et al. 2017), which weighs an answer by (1 - its probability) ** gamma.
    """
    known_NT = ~truth_NT.isnan()
    truth_NT = truth_NT.nan_to_num(0.0)
    if task == "classification":
        label_N = truth_NT[:, 0].long()
        log_N = logits_NK.log_softmax(dim=1).gather(1, label_N.unsqueeze(1)).squeeze(1)
        loss_NT = (-log_N * _focal(log_N, gamma) * weight_AK[0][label_N]).unsqueeze(1)
    elif task == "multi-label":
        log_NT = -F.binary_cross_entropy_with_logits(logits_NK, truth_NT, reduction="none")
        weight_NT = torch.where(truth_NT > 0, weight_AK[1], weight_AK[0])
        loss_NT = -log_NT * _focal(log_NT, gamma) * weight_NT
    else:
        loss_NT = (logits_NK - truth_NT).square()
    return (loss_NT * known_NT).sum(dim=1) / known_NT.sum(dim=1).clamp_min(1)


def _focal(log_probability: torch.Tensor, gamma: float) -> torch.Tensor | float:
    return (1 - log_probability.exp()).clamp_min(1e-6) ** gamma if gamma else 1.0

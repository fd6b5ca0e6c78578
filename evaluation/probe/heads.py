"""Linear heads on frozen features: ridge and multinomial logistic regression, every molecule of equal weight.

Shape suffixes: N spectra, M molecules, D features, K targets, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ...errors import InputError
from ..tasks import draw_per_molecule

RIDGE_PENALTIES = tuple(10.0**power for power in np.arange(-7, 3.5, 0.5).tolist())
LOGISTIC_PENALTIES = tuple(10.0**power for power in range(1, -8, -1))
"""Strongest first: each fit starts from the one before, and the weak ones, which take longest, are seldom reached."""
WORSE_BEFORE_STOP = 2
"""Penalties in a row with a higher loss on the validation fold after which weaker ones are not tried."""
SPECTRA_TO_CHOOSE_BY = 2
"""Of each training molecule: on these the penalties are compared, and on all the chosen one is fitted."""
MAX_ITERATIONS = 100
ROWS_PER_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Rows:
    """Features of spectra, and the molecules that they are of.

    Attributes
    ----------
    features : float32 array of shape (N, D)
        D may be 0: a head then knows nothing but how frequent each answer is.
    molecule : int64 array of shape (N,)
        Index into the targets.
    """

    features: np.ndarray = field(repr=False)
    molecule: np.ndarray = field(repr=False)

    @property
    def weight(self) -> np.ndarray:
        """Weight of each spectrum, float64 of shape (N,): each molecule counts 1, however often it was measured."""
        return 1.0 / np.bincount(self.molecule)[self.molecule]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a head makes of the spectra of the fold that is asked about.

    Attributes
    ----------
    values : float32 array of shape (N, K)
        Predicted numbers, scores of bits, or logits of classes.
    penalty : float
        The one that was chosen.
    losses : dict of float to float
        Loss on the validation fold by penalty.
    """

    values: np.ndarray = field(repr=False)
    penalty: float
    losses: dict[float, float]


class Design:
    """Training features with what all heads share: their scale, their eigenvectors, the other folds' features.

    Features are centred and divided by one common number, so that their mean variance over the training fold (where
    every molecule counts the same) is 1. A head does not change when an embedding is rotated or scaled.

    Parameters
    ----------
    train, validation, test : Rows
    """

    def __init__(self, train: Rows, validation: Rows, test: Rows) -> None:
        weight = train.weight / train.weight.sum()
        size = train.features.shape[1]
        mean = np.zeros(size)
        for part in _chunks(len(weight)):
            mean += weight[part] @ train.features[part].astype(np.float64)
        variance = 0.0
        for part in _chunks(len(weight)):
            variance += float(weight[part] @ np.square(train.features[part] - mean).sum(axis=1))
        # Rounding leaves constant features a spread of the last digit of their mean: these say nothing.
        says_something = variance > 1e-10 * float(np.square(mean).sum())
        scale = float(np.sqrt(size / variance)) if says_something else 0.0
        self.train, self.validation, self.test = train, validation, test
        self.train_ND, self.validation_ND, self.test_ND = (
            torch.from_numpy(((rows.features - mean.astype(np.float32)) * np.float32(scale)).astype(np.float32))
            for rows in (train, validation, test)
        )
        self.weight_N = torch.from_numpy(weight)
        gram_DD = torch.zeros(size, size, dtype=torch.float64)
        for part in _chunks(len(weight)):
            weighted_ND = self.train_ND[part].double() * self.weight_N[part].sqrt().unsqueeze(1)
            gram_DD += weighted_ND.T @ weighted_ND
        self.eigenvalues_D, self.eigenvectors_DD = torch.linalg.eigh(gram_DD)
        self.eigenvalues_D = self.eigenvalues_D.clamp_min(0.0)

    def molecule_means(self, num_molecules: int) -> torch.Tensor:
        """Return the summed weighted training features of each molecule, float64 of shape (M, D)."""
        sums_MD = torch.zeros(num_molecules, self.train_ND.shape[1], dtype=torch.float64)
        molecule_N = torch.from_numpy(self.train.molecule)
        return sums_MD.index_add_(0, molecule_N, self.train_ND.double() * self.weight_N.unsqueeze(1))


def ridge(design: Design, truth: np.ndarray) -> Predicted:
    """Return what ridge regression predicts for the test spectra, with the penalty that the validation fold prefers.

    Minimises the weighted mean of the squared error plus ``penalty`` times the squared coefficients, with a free
    intercept; targets are scaled to unit variance over the training molecules, so that one penalty serves them all.

    Parameters
    ----------
    truth : float64 array of shape (M, K)
        Of every molecule. 0 and 1 for bits: least squares ranks them as well as needed, in closed form.
    """
    trained = np.unique(design.train.molecule)
    mean_K, spread_K = truth[trained].mean(axis=0), truth[trained].std(axis=0)
    spread_K = np.where(spread_K > 0, spread_K, 1.0)
    scaled_MK = torch.from_numpy((truth - mean_K) / spread_K)
    moments_DK = design.molecule_means(len(truth)).T @ scaled_MK
    turned_DK = design.eigenvectors_DD.T @ moments_DK
    truth_NK = scaled_MK[torch.from_numpy(design.validation.molecule)].float()
    weight_N = torch.from_numpy(design.validation.weight)
    losses: dict[float, float] = {}
    coefficients = {}
    for penalty in RIDGE_PENALTIES:
        shrunk_DK = turned_DK / (design.eigenvalues_D + penalty).unsqueeze(1)
        coefficients[penalty] = (design.eigenvectors_DD @ shrunk_DK).float()
        error_N = (design.validation_ND @ coefficients[penalty] - truth_NK).square_().mean(dim=1)
        losses[penalty] = float(weight_N @ error_N.double() / weight_N.sum())
    best = min(losses, key=lambda penalty: (losses[penalty], -penalty))
    values = (design.test_ND @ coefficients[best]).numpy() * spread_K + mean_K
    return Predicted(values.astype(np.float32), best, losses)


def logistic(design: Design, label: np.ndarray, num_classes: int) -> Predicted:
    """Return the logits of a multinomial logistic regression for the test spectra; the penalty is chosen as in `ridge`.

    Minimises the weighted mean cross-entropy plus ``penalty / 2`` times the squared coefficients, with free
    intercepts, by L-BFGS in the eigenbasis of the features, where it converges in tens of steps.

    Parameters
    ----------
    label : int64 array of shape (M,)
        Class of every molecule; -1 where it has none: its spectra count nowhere.

    Raises
    ------
    InputError
        No validation spectrum is of any of the classes.
    """
    every = np.flatnonzero(label[design.train.molecule] >= 0)
    few = draw_per_molecule(every, design.train.molecule, limit=SPECTRA_TO_CHOOSE_BY, seed=0)
    known = label[design.validation.molecule] >= 0
    if not known.any():
        raise InputError(
            "no molecule that penalties are chosen by (fold 'validation') has a class that is asked for; make a larger "
            "split, or ask for fewer classes"
        )
    validation_ND = design.validation_ND[torch.from_numpy(known)]
    validation_label_N = torch.from_numpy(label[design.validation.molecule[known]])
    validation_weight_N = torch.from_numpy(design.validation.weight[known])
    size = design.train_ND.shape[1]
    fit = torch.zeros(size + 1, num_classes, dtype=torch.float64)
    fits, losses = {}, {}
    best = LOGISTIC_PENALTIES[0]
    chosen_ND, chosen_label_N = design.train_ND[torch.from_numpy(few)], label[design.train.molecule[few]]
    chosen_weight_N = _weights(design.train.molecule[few])
    for number, penalty in enumerate(LOGISTIC_PENALTIES):
        fit = fits[penalty] = _fit_logistic(design, chosen_ND, chosen_label_N, chosen_weight_N, penalty, fit)
        logits_NC = _logits(validation_ND, fit)
        loss_N = torch.nn.functional.cross_entropy(logits_NC, validation_label_N, reduction="none").double()
        losses[penalty] = float(validation_weight_N @ loss_N / validation_weight_N.sum())
        if losses[penalty] < losses[best]:
            best = penalty
        if number - LOGISTIC_PENALTIES.index(best) >= WORSE_BEFORE_STOP:
            break
    molecule = design.train.molecule[every]
    train_ND = design.train_ND[torch.from_numpy(every)]
    fit = _fit_logistic(design, train_ND, label[molecule], _weights(molecule), best, fits[best])
    return Predicted(_logits(design.test_ND, fit).numpy(), best, losses)


def _weights(molecule: np.ndarray) -> np.ndarray:
    """Return weights that sum to 1 and are the same for every molecule, float64 of the shape of ``molecule``."""
    weight: np.ndarray = 1.0 / np.bincount(molecule)[molecule]
    return weight / weight.sum()


def _logits(features_ND: torch.Tensor, fit: torch.Tensor) -> torch.Tensor:
    return features_ND @ fit[:-1].float() + fit[-1].float()


def _fit_logistic(
    design: Design,
    train_ND: torch.Tensor,
    label: np.ndarray,
    weight: np.ndarray,
    penalty: float,
    start: torch.Tensor,
) -> torch.Tensor:
    """Return coefficients, and intercepts in the last row, at the minimum; float64 of shape (D + 1, C).

    Parameters
    ----------
    start : float64 tensor of shape (D + 1, C)
        From which the search begins.
    """
    num_classes = start.shape[1]
    column_N1 = torch.from_numpy(label).unsqueeze(1)
    weight_N = torch.from_numpy(weight)
    # The curvature along an eigenvector is about its eigenvalue times the variance of a class's probability.
    root_D = (design.eigenvalues_D / num_classes + penalty).sqrt()
    basis_DD, inverse_DD = design.eigenvectors_DD / root_D, (design.eigenvectors_DD * root_D).T
    parameters = torch.cat([inverse_DD @ start[:-1], start[-1:]]).contiguous()
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=MAX_ITERATIONS, tolerance_grad=1e-4, tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        coefficients_DC = basis_DD @ parameters[:-1]
        fit = torch.cat([coefficients_DC, parameters[-1:]])
        loss = penalty / 2 * coefficients_DC.square().sum()
        gradient = torch.cat([penalty * coefficients_DC, torch.zeros(1, num_classes, dtype=torch.float64)])
        for part in _chunks(len(train_ND)):
            log_NC = _logits(train_ND[part], fit).log_softmax(dim=1)
            loss = loss - weight_N[part] @ log_NC.gather(1, column_N1[part]).squeeze(1).double()
            slope_NC = log_NC.exp_()
            slope_NC.scatter_add_(1, column_N1[part], slope_NC.new_full(column_N1[part].shape, -1.0))
            slope_NC *= weight_N[part].float().unsqueeze(1)
            gradient[:-1] += (train_ND[part].T @ slope_NC).double()
            gradient[-1] += slope_NC.sum(dim=0).double()
        parameters.grad = torch.cat([basis_DD.T @ gradient[:-1], gradient[-1:]])
        return loss

    optimizer.step(closure)
    return torch.cat([basis_DD @ parameters[:-1], parameters[-1:]])


def _chunks(num_rows: int) -> list[slice]:
    return [slice(begin, begin + ROWS_PER_CHUNK) for begin in range(0, num_rows, ROWS_PER_CHUNK)]

"""Two small networks that predict a fingerprint from a spectrum, and their training: what a learned model must beat.

Shape suffixes: B spectra, P peaks of all of them, W wavelengths, F features of a peak, H hidden, K fingerprint bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...encoder.collator import select_peaks
from ...encoder.configuration_ionbed import IonbedConfig
from ...encoder.modeling_ionbed import geometric_wavelengths, phase_angles
from ...errors import InputError
from ...spectra.columns import SpectrumColumns

if TYPE_CHECKING:
    from .networks import NetworkName, TrainedBaselineOptions

PRECURSOR_INTENSITY = 1.1
"""Of the precursor among the peaks of DeepSets: above the base peak, which has 1, so that the two can be told apart."""
MZ_WAVELENGTHS = (1e-3, 1e3)
SPECTRA_PER_PREDICTION = 512


@dataclass(frozen=True, eq=False)
class TrainingSpectra:
    """Spectra with the fingerprints of their molecules, and which of them decide when training stops.

    Attributes
    ----------
    columns : SpectrumColumns of n spectra
    molecule : int64 array of shape (n,)
        Index into ``fingerprint``.
    fingerprint : uint8 array of shape (m, K / 8)
        Packed.
    is_stopping : bool array of shape (n,)
        Not trained on.
    """

    columns: SpectrumColumns = field(repr=False)
    molecule: np.ndarray = field(repr=False)
    fingerprint: np.ndarray = field(repr=False)
    is_stopping: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Training:
    """The weights of the best epoch.

    Attributes
    ----------
    weights : dict of str to tensor
        The state of the network.
    losses : tuple of (float, float)
        Mean loss of each epoch, in training and on the spectra that decide when it stops.
    """

    weights: Mapping[str, torch.Tensor] = field(repr=False)
    losses: tuple[tuple[float, float], ...]

    @property
    def best(self) -> float:
        """The lowest loss on the spectra that decide when training stops."""
        return min(stopping for _, stopping in self.losses)


class FeedForward(nn.Module):
    """Intensities in bins of m/z, relative to the highest bin, through a feed-forward network.

    The fingerprint baseline of MassSpecGym (Bushuiev et al., NeurIPS 2024), with its bins.
    """

    def __init__(self, options: TrainedBaselineOptions, num_bits: int) -> None:
        super().__init__()
        self.bin_width = options.bin_width
        self.num_bins = math.ceil(options.max_mz / options.bin_width)
        size = options.hidden_size
        self.layers = nn.Sequential(
            nn.Linear(self.num_bins, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(options.dropout),
            nn.Linear(size, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(options.dropout),
            nn.Linear(size, num_bits),
        )  # fmt: skip

    def forward(self, columns: SpectrumColumns) -> torch.Tensor:
        """Return the chance of each bit, of shape (B, K)."""
        row, _ = columns.peak_places()
        place = np.floor(columns.mz.astype(np.float64) / self.bin_width).astype(np.int64)
        within = place < self.num_bins
        shape = len(columns), self.num_bins
        flat = row[within] * self.num_bins + place[within]
        binned = np.bincount(flat, weights=columns.intensity[within], minlength=shape[0] * shape[1]).reshape(shape)
        highest = binned.max(axis=1, keepdims=True)
        np.divide(binned, highest, out=binned, where=highest > 0)
        logits_BK: torch.Tensor = self.layers(torch.from_numpy(binned.astype(np.float32)))
        return logits_BK.sigmoid()


class DeepSets(nn.Module):
    """Peaks as a set (Zaheer et al., NeurIPS 2017), their m/z as Fourier features; the precursor is one of them.

    The second fingerprint baseline of MassSpecGym. Its features are computed in float32 there, where the finest
    phases are noise; here in float64. Padding is not summed.
    """

    def __init__(self, options: TrainedBaselineOptions, num_bits: int) -> None:
        super().__init__()
        self.num_wavelengths = options.num_wavelengths
        size = options.hidden_size
        self.of_peak = nn.Sequential(
            nn.Linear(2 * options.num_wavelengths + 1, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU()
        )
        self.of_set = nn.Sequential(
            nn.Linear(size, size), nn.ReLU(), nn.Dropout(options.dropout), nn.Linear(size, num_bits)
        )

    def forward(self, columns: SpectrumColumns) -> torch.Tensor:
        """Return the chance of each bit, of shape (B, K)."""
        row, _ = columns.peak_places()
        spectrum_P = torch.from_numpy(np.concatenate([row, np.arange(len(columns))]))
        mz_P = torch.from_numpy(np.concatenate([columns.mz.astype(np.float64), columns.precursor_mz]))
        precursors = np.full(len(columns), PRECURSOR_INTENSITY, np.float32)
        intensity_P = torch.from_numpy(np.concatenate([columns.intensity, precursors]))
        phases_PW = phase_angles(mz_P, geometric_wavelengths(MZ_WAVELENGTHS, self.num_wavelengths, mz_P.device))
        features_PF = torch.cat([phases_PW.cos(), phases_PW.sin(), intensity_P[:, None]], dim=1)
        peaks_PH = self.of_peak(features_PF)
        sums_BH = peaks_PH.new_zeros(len(columns), peaks_PH.shape[1]).index_add(0, spectrum_P, peaks_PH)
        logits_BK: torch.Tensor = self.of_set(sums_BH)
        return logits_BK.sigmoid()


NETWORKS: Mapping[NetworkName, type[FeedForward] | type[DeepSets]] = {
    "feed-forward": FeedForward,
    "deep sets": DeepSets,
}


def train_network(
    name: NetworkName, spectra: TrainingSpectra, options: TrainedBaselineOptions, seed: tuple[int, int]
) -> Training:
    """Train one network in one thread, so that the result does not depend on the number of cores.

    The loss is 1 - cosine of the predicted and the true fingerprint, as in MassSpecGym. Each epoch draws up to
    ``spectra_per_molecule`` spectra of every molecule, or those measured most would decide what is learned.

    Parameters
    ----------
    seed : (int, int)
        Of the evaluation, and the number of the training.

    Raises
    ------
    InputError
        The loss is not finite any more.
    """
    bits = torch.from_numpy(np.unpackbits(spectra.fingerprint, axis=1))
    columns = _strongest(spectra.columns, options)
    train, stopping = np.flatnonzero(~spectra.is_stopping), np.flatnonzero(spectra.is_stopping)
    losses: list[tuple[float, float]] = []
    best: dict[str, torch.Tensor] = {}
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        network = NETWORKS[name](options, bits.shape[1])
        optimizer = torch.optim.Adam(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)
        for epoch in range(options.max_epochs):
            network.train()
            rng = np.random.default_rng([*seed, epoch])
            drawn = _draw(train, spectra.molecule, options.spectra_per_molecule, rng)
            total = 0.0
            for rows in np.array_split(drawn, math.ceil(len(drawn) / options.batch_size)):
                truth_BK = bits[spectra.molecule[rows]].float()
                loss = _loss(network(columns.take(rows)), truth_BK).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            losses.append((total / len(drawn), _stopping_loss(network, columns, spectra.molecule, bits, stopping)))
            if not math.isfinite(losses[-1][1]):
                raise InputError(
                    f"the training of '{name}' diverged in epoch {epoch + 1}; lower trained_baselines.learning_rate "
                    f"({options.learning_rate:g})"
                )
            if losses[-1][1] == min(value for _, value in losses):
                best = {key: value.detach().clone() for key, value in network.state_dict().items()}
                best_epoch = epoch
            elif epoch - best_epoch >= options.patience:
                break
    return Training(best, tuple(losses))


def predict_fingerprints(
    name: NetworkName,
    weights: Mapping[str, torch.Tensor],
    columns: SpectrumColumns,
    options: TrainedBaselineOptions,
    num_bits: int,
) -> np.ndarray:
    """Return the predicted fingerprints as unit vectors, float16 of shape (n_spectra, num_bits)."""
    with torch.random.fork_rng(devices=[]):  # the first values of the network are drawn, and replaced
        network = NETWORKS[name](options, num_bits)
    network.load_state_dict(dict(weights))
    columns = _strongest(columns, options)
    result = np.empty((len(columns), num_bits), np.float16)
    for rows, predicted_BK in _predictions(network, columns, np.arange(len(columns))):
        result[rows] = F.normalize(predicted_BK, dim=1).half().numpy()
    return result


def _loss(predicted_BK: torch.Tensor, truth_BK: torch.Tensor) -> torch.Tensor:
    return 1 - F.cosine_similarity(predicted_BK, truth_BK, dim=1)


def _stopping_loss(
    network: nn.Module, columns: SpectrumColumns, molecule: np.ndarray, bits: torch.Tensor, rows: np.ndarray
) -> float:
    """Return the mean over molecules of the mean loss of their spectra."""
    losses = np.empty(len(columns))
    for part, predicted_BK in _predictions(network, columns, rows):
        losses[part] = _loss(predicted_BK, bits[molecule[part]].float()).numpy()
    _, number = np.unique(molecule[rows], return_inverse=True)
    return float(np.mean(np.bincount(number, losses[rows]) / np.bincount(number)))


def _predictions(
    network: nn.Module, columns: SpectrumColumns, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), SPECTRA_PER_PREDICTION):
            part = rows[start : start + SPECTRA_PER_PREDICTION]
            yield part, network(columns.take(part))


def _draw(rows: np.ndarray, molecule: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Return up to ``limit`` of the rows of each molecule, in random order."""
    shuffled = rng.permutation(rows)
    order = np.argsort(molecule[shuffled], kind="stable")
    ordered = molecule[shuffled][order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    place = np.arange(len(ordered)) - np.repeat(first, np.diff(np.r_[first, len(ordered)]))
    return rng.permutation(shuffled[order][place < limit])


def _strongest(columns: SpectrumColumns, options: TrainedBaselineOptions) -> SpectrumColumns:
    return select_peaks(columns, IonbedConfig(max_peaks=options.max_peaks))[0]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""Which peaks masked-peak modelling hides: drawn by intensity, from a hash, so that every run hides the same ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..encoder.collator import EncoderBatch, collate, select_peaks
from ..encoder.configuration_ionbed import IonbedConfig
from ..spectra.columns import SpectrumColumns
from .config import MaskingConfig

_PEAK, _KIND, _METADATA = 1, 2, 3  # streams of the hash

INTENSITY_FLOOR = 0.01
"""Added to the sampling weight, so that the weakest peaks are drawn now and then."""


def uniform_hash(seed: int, epoch: int, stream: int, row: np.ndarray, item: np.ndarray | int) -> np.ndarray:
    """Return uniform numbers in (0, 1) that depend on the arguments alone (SplitMix64, Steele et al. 2014).

    A generator would tie a row's mask to the batch and the process it is in; this makes a run with two processes,
    or one resumed, see what one process sees.
    """
    state = np.asarray(row, np.uint64)
    with np.errstate(over="ignore"):
        for part in (item, seed, epoch, stream):
            state = _mix(state + np.uint64(0x9E3779B97F4A7C15) * (np.asarray(part).astype(np.uint64) + np.uint64(1)))
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def masked_batch(
    columns: SpectrumColumns, rows: np.ndarray, encoder: IonbedConfig, masking: MaskingConfig, seed: int, epoch: int
) -> EncoderBatch:
    """Collate spectra and hide some of their peaks.

    Of the peaks below ``masking.max_mz``, a share of each spectrum is drawn without replacement with probability
    rising with intensity, the base peak included, at least one. A drawn peak loses its m/z and keeps its intensity,
    or (with ``hide_intensity_share``) the other way round: hidden both ways, two drawn peaks could not be told apart.

    Parameters
    ----------
    columns : SpectrumColumns
        The spectra.
    rows : int array of shape (n_spectra,)
        Their row numbers in the store, which decide the draw.
    """
    columns, _ = select_peaks(columns, encoder)
    counts = columns.num_peaks
    spectrum, slot = columns.peak_places()
    peak_row = rows[spectrum]
    weight = columns.intensity.astype(np.float64) ** masking.intensity_power + INTENSITY_FLOOR
    # Efraimidis and Spirakis (2006): the k largest of log(u) / w are a weighted sample without replacement.
    key = np.log(uniform_hash(seed, epoch, _PEAK, peak_row, slot)) / weight
    key[columns.mz >= masking.max_mz] = -np.inf
    eligible = np.bincount(spectrum[np.isfinite(key)], minlength=len(columns))
    num_masked = np.where(eligible > 0, np.maximum(1, np.rint(masking.share * eligible)), 0).astype(np.int64)
    # One row for each spectrum: sorting many short rows is three times as fast as sorting all peaks by two keys.
    falling = np.full((len(columns), int(counts.max(initial=0))), np.inf)
    falling[spectrum, slot] = -key
    drawn = np.zeros(falling.shape, bool)
    np.put_along_axis(drawn, falling.argsort(axis=1), np.arange(falling.shape[1]) < num_masked[:, None], axis=1)
    masked = drawn[spectrum, slot]
    by_intensity = uniform_hash(seed, epoch, _KIND, peak_row, slot) < masking.hide_intensity_share

    batch = collate(columns, encoder, peaks_selected=True)
    hidden_mz, hidden_intensity = (np.zeros(batch.mz_BL.shape, bool) for _ in range(2))
    hidden_mz[spectrum, slot + 1] = masked & ~by_intensity
    hidden_intensity[spectrum, slot + 1] = masked & by_intensity
    batch = replace(
        batch, hidden_mz_BL=torch.from_numpy(hidden_mz), hidden_intensity_BL=torch.from_numpy(hidden_intensity)
    )
    return hide_metadata(batch, rows, masking.metadata_dropout, seed, epoch)


def hide_metadata(batch: EncoderBatch, rows: np.ndarray, probability: float, seed: int, epoch: int) -> EncoderBatch:
    """Make each piece of metadata unknown with a probability, so that the model works without it."""
    if probability == 0:
        return batch
    changes: dict[str, Any] = {}  # of tensors
    for item, name in enumerate(("polarity_B", "charge_B", "adduct_B", "instrument_B", "collision_energy_B")):
        value = getattr(batch, name)
        dropped = torch.from_numpy(uniform_hash(seed, epoch, _METADATA, rows, item) < probability)
        changes[name] = value.masked_fill(dropped, float("nan") if value.is_floating_point() else 0)
    return replace(batch, **changes)

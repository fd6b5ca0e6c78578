"""Changes to spectra that training makes and an embedding must survive, drawn from a hash of seed, epoch and row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..spectra.columns import SpectrumColumns
from .config import AugmentationConfig
from .masking import uniform_hash

_PRECURSOR, _PEAK, _SHIFT, _SHIFT_2, _NOISE, _NOISE_2, _POWER = range(10, 17)  # streams of the hash

PRECURSOR_MARGIN = 0.5
"""Peaks from this far below the precursor m/z count as its surviving peak and isotopes, Da ..."""

ISOTOPES = 4.0
"""... up to this far above it, divided by its charge; fragments of a multiply charged ion lie beyond, Da."""


def augment(
    columns: SpectrumColumns, rows: np.ndarray, config: AugmentationConfig, seed: int, epoch: int
) -> SpectrumColumns:
    """Drop the surviving precursor and some peaks, and shift m/z as calibration and noise do.

    The precursor is a shortcut: it tells most molecules apart. Dropping it leaves the fragments to be learned. The
    base peak of what remains is 1 again; a spectrum never loses all its peaks.
    """
    spectrum, slot = columns.peak_places()
    peak_row = rows[spectrum]
    charge = np.maximum(1, np.abs(columns.charge.astype(np.int64)))  # unknown: 0
    at_precursor = columns.mz > (columns.precursor_mz - PRECURSOR_MARGIN)[spectrum]
    at_precursor &= columns.mz <= (columns.precursor_mz + ISOTOPES / charge)[spectrum]
    drop_precursor = without_precursor(rows, config, seed, epoch)
    keep = ~(at_precursor & drop_precursor[spectrum])
    keep &= uniform_hash(seed, epoch, _PEAK, peak_row, slot) >= config.drop_peaks
    lost_all = np.bincount(spectrum[keep], minlength=len(columns)) == 0
    keep |= lost_all[spectrum]
    sigma = config.mz_jitter_ppm * 1e-6
    shift = sigma * _normal(seed, epoch, _SHIFT, _SHIFT_2, rows, 0)[spectrum]
    noise = sigma * _normal(seed, epoch, _NOISE, _NOISE_2, peak_row, slot)
    mz = (columns.mz * (1 + shift + noise)).astype(np.float32)[keep]
    kept = np.bincount(spectrum[keep], minlength=len(columns))
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    base = np.zeros(len(columns), np.float32)
    np.maximum.at(base, spectrum[keep], columns.intensity[keep])
    intensity = columns.intensity[keep] / base[spectrum[keep]]
    return replace(columns, offsets=offsets, mz=mz, intensity=intensity)


def jitter_intensities(
    columns: SpectrumColumns, draws: np.ndarray, width: float, seed: int, epoch: int
) -> SpectrumColumns:
    """Raise the relative intensities of each spectrum to a power of its own, between exp(-width) and exp(width).

    The base peak stays 1; the others become stronger or weaker together, as with another collision energy.
    """
    power = np.exp(width * (2 * uniform_hash(seed, epoch, _POWER, draws, 0) - 1)).astype(np.float32)
    spectrum, _ = columns.peak_places()
    return replace(columns, intensity=columns.intensity ** power[spectrum])


def without_precursor(rows: np.ndarray, config: AugmentationConfig, seed: int, epoch: int) -> np.ndarray:
    """Return of which spectra `augment` drops the surviving precursor, bool of shape (n_spectra,)."""
    return uniform_hash(seed, epoch, _PRECURSOR, rows, 0) < config.drop_precursor_peak


def _normal(seed: int, epoch: int, stream: int, stream_2: int, row: np.ndarray, item: np.ndarray | int) -> np.ndarray:
    """Return standard normal numbers from two hashes (Box and Muller 1958)."""
    radius = np.sqrt(-2 * np.log(uniform_hash(seed, epoch, stream, row, item)))
    return radius * np.cos(2 * np.pi * uniform_hash(seed, epoch, stream_2, row, item))

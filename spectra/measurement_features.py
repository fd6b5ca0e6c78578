"""What is known of a measurement beside its peaks, as numbers that a linear head can read."""

from __future__ import annotations

import numpy as np

from .columns import SpectrumColumns

PRECURSOR_WAVELENGTHS = np.geomspace(0.01, 2000.0, 128)
"""In Da. A linear head on the bare number could tell heavy from light, and no more."""

MEASUREMENT_BLOCKS = (2 * len(PRECURSOR_WAVELENGTHS), 5)
"""Numbers of `precursor_features` and of `condition_features`."""


def precursor_features(columns: SpectrumColumns) -> np.ndarray:
    """Return sines and cosines of the precursor m/z at `PRECURSOR_WAVELENGTHS`, float32 of shape (n, 256)."""
    turns = columns.precursor_mz.astype(np.float64)[:, None] / PRECURSOR_WAVELENGTHS
    angles = 2 * np.pi * (turns - np.floor(turns))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def condition_features(columns: SpectrumColumns) -> np.ndarray:
    """Return what is known of a measurement beside precursor and peaks, float32 of shape (n, 5).

    Each polarity, whether the charge is above 1, whether the collision energy is known, and the energy in 100 eV (at
    most 1; 0 where it is unknown).
    """
    energy = columns.collision_energy
    known = np.isfinite(energy)
    hundreds = np.clip(np.where(known, energy, 0.0) / 100.0, 0.0, 1.0)
    features = [columns.polarity > 0, columns.polarity < 0, np.abs(columns.charge) > 1, known, hundreds]
    return np.stack(features, axis=1).astype(np.float32)


def measurement_features(columns: SpectrumColumns) -> np.ndarray:
    """Return `precursor_features` and `condition_features` side by side, float32 of shape (n, 261)."""
    return np.concatenate([precursor_features(columns), condition_features(columns)], axis=1)

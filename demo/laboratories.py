"""Virtual laboratories: predicted spectra with the errors of a measurement, so that a search between two can fail."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from ..spectra.spectrum import Spectrum


@dataclass(frozen=True)
class VirtualLaboratory:
    """How one laboratory differs from another.

    Attributes
    ----------
    name : str
    energies : tuple of float
        Collision energies in eV.
    calibration_ppm, precision_ppm : float
        Mean and standard deviation of the m/z errors; the mean is shared by all peaks and the precursor.
    intensity_spread : float
        Standard deviation of the logarithm of the intensities.
    detection_limit : float
        Peaks below this share of the base peak are not seen; weak ones are lost in a share that falls with intensity.
    noise_peaks : float
        Mean number of peaks that belong to no fragment.
    """

    name: str
    energies: tuple[float, ...]
    calibration_ppm: float
    precision_ppm: float
    intensity_spread: float
    detection_limit: float
    noise_peaks: float


LIBRARY = VirtualLaboratory("virtual laboratory A", (10.0, 20.0, 40.0), 0.0, 1.0, 0.2, 0.005, 1.0)
QUERIES = VirtualLaboratory("virtual laboratory B", (15.0, 30.0), 2.0, 3.0, 0.6, 0.02, 6.0)

LARGEST_NOISE = 0.1
"""Of the base peak."""


def record(spectrum: Spectrum, laboratory: VirtualLaboratory, *, seed: int) -> Spectrum:
    """Return ``spectrum`` as ``laboratory`` might have recorded it; seed and spectrum decide, not what came before."""
    digest = hashlib.sha256(f"{seed}|{laboratory.name}|{spectrum.spectrum_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    intensity = spectrum.intensity * np.exp(rng.normal(0.0, laboratory.intensity_spread, len(spectrum)))
    intensity = intensity / intensity.max()
    seen = intensity > laboratory.detection_limit * rng.lognormal(0.0, 1.0, len(spectrum))
    seen[np.argmax(intensity)] = True
    error = 1e-6 * rng.normal(laboratory.calibration_ppm, laboratory.precision_ppm, len(spectrum))
    mz = (spectrum.mz * (1.0 + error))[seen]
    num_noise = rng.poisson(laboratory.noise_peaks)
    highest = max(spectrum.precursor_mz - 1.0, 51.0)
    mz = np.concatenate([mz, rng.uniform(50.0, highest, num_noise)])
    noise = np.maximum(LARGEST_NOISE * rng.random(num_noise) ** 2, laboratory.detection_limit)
    intensity = np.concatenate([intensity[seen], noise])
    order = np.argsort(mz, kind="stable")
    precursor_error = 1e-6 * rng.normal(laboratory.calibration_ppm, laboratory.precision_ppm / 3)
    return replace(
        spectrum,
        mz=mz[order].astype(np.float32),
        intensity=(intensity[order] / intensity.max()).astype(np.float32),
        precursor_mz=spectrum.precursor_mz * (1.0 + precursor_error),
        laboratory=laboratory.name,
    )

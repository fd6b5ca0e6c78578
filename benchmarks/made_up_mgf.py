"""Made-up MGF of any size for the benchmarks: molecules that are repeated with noise, so that near-duplicates occur."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def write_mgf(
    path: Path, num_spectra: int, *, num_peaks: int = 60, seed: int = 0, per_molecule: int = 50, faults: bool = True
) -> None:
    """Write ``num_spectra`` spectra of ``num_peaks`` peaks; with ``faults``, two in a thousand cannot be used."""
    rng = np.random.default_rng(seed)
    num_molecules = max(1, num_spectra // per_molecule)
    mark = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(mark, "w", encoding="utf-8") as stream:
        written = 0
        while written < num_spectra:
            count = min(10_000, num_spectra - written)
            molecules = rng.integers(0, num_molecules, count)
            for i, molecule in enumerate(molecules):
                stream.write(_record(written + i, int(molecule), num_peaks, rng, faults))
            written += count
    os.replace(mark, path)


def _record(number: int, molecule: int, num_peaks: int, rng: np.random.Generator, faults: bool) -> str:
    own = np.random.default_rng(molecule)
    precursor = own.uniform(150, 900)
    mz = np.sort(own.uniform(50, precursor, num_peaks)) * (1 + 3e-6 * rng.standard_normal(num_peaks))
    intensity = own.lognormal(0, 1.5, num_peaks) * rng.lognormal(0, rng.uniform(0.05, 1.5), num_peaks) * 1e4
    fault = rng.random() if faults else 1.0
    head = [
        "BEGIN IONS",
        f"TITLE=spectrum {number}",
        "PEPMASS=N/A" if fault < 0.001 else f"PEPMASS={precursor * (1 + 2e-6 * rng.standard_normal()):.5f}",
        "CHARGE=1+" if molecule % 2 else "CHARGE=1-",
        f"COLLISION_ENERGY={(10, 20, 40)[molecule % 3]}",
        f"RTINSECONDS={number * 0.11:.2f}",
    ]
    peaks = [f"{m:.5f} {i:.1f}" for m, i in zip(mz.tolist(), intensity.tolist(), strict=True)]
    if 0.001 <= fault < 0.002:
        peaks[len(peaks) // 2] = "no peak at all"
    return "\n".join([*head, *peaks, "END IONS", "", ""])

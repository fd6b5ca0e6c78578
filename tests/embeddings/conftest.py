"""A small library of made-up spectra and a model that needs no training, shared by the tests of this folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum


class CountSketchModel:
    """Stands in for the encoder where a test is about the index: each 0.1 Da bin is a random direction."""

    def __init__(self, seed: int = 0, dim: int = 16) -> None:
        self.seed, self.dim = seed, dim

    def embed(self, spectra, *, progress=False):
        columns = spectra if isinstance(spectra, SpectrumColumns) else SpectrumColumns.from_spectra(list(spectra))
        directions = np.random.default_rng(self.seed).normal(size=(20_000, self.dim))
        vectors = np.zeros((len(columns), self.dim))
        owner = np.repeat(np.arange(len(columns)), columns.num_peaks)
        np.add.at(vectors, owner, directions[(columns.mz * 10).astype(int)] * columns.intensity[:, None])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def model_hash(self):
        return hashlib.sha256(f"{self.seed} {self.dim}".encode()).hexdigest()

    def save_pretrained(self, save_directory):
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"seed": self.seed, "dim": self.dim}))


def random_spectrum(rng: np.random.Generator, spectrum_id: str, **fields) -> Spectrum:
    count = int(rng.integers(1, 20))
    mz = np.unique(rng.uniform(50, 900, count).astype(np.float32))
    intensity = rng.uniform(0.01, 1, len(mz)).astype(np.float32)
    known = {"precursor_mz": float(rng.uniform(100, 1000)), "polarity": int(rng.choice([-1, 1])), "mz": mz}
    return Spectrum(**{"spectrum_id": spectrum_id, "intensity": intensity / intensity.max(), **known, **fields})


@pytest.fixture
def model() -> CountSketchModel:
    return CountSketchModel()


@pytest.fixture
def library() -> list[Spectrum]:
    """Sixty spectra in no order: ten groups of six within 10 ppm of one another, with metadata."""
    rng = np.random.default_rng(7)
    spectra = [
        random_spectrum(
            rng,
            f"lib-{group}-{member}",
            precursor_mz=(150.0 + 37.123 * group) * (1 + member * 1e-6),
            polarity=(1, 1, 1, 1, -1, None)[member],
            name=f"compound {group}.{member}",
            formula="C6H12O6",
            inchikey=f"{'ABCDEFGHIJ'[group] * 14}-UHFFFAOYSA-N",
            adduct="[M+H]+",
            collision_energy=20.0,
            license="CC0",
            source_file="made.msp",
        )
        for group in range(10)
        for member in range(6)
    ]
    return [spectra[i] for i in rng.permutation(len(spectra))]

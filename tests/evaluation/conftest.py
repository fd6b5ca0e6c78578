"""Small data for the evaluation: molecules with known structures, spectra built from them, encoders that know them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ionbed.artifacts import write_manifest
from ionbed.evaluation.dataset import EvaluationData, load_evaluation_data
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store, table_from_spectra, write_shard

CHAINS = [f"{'C' * n}{end}" for n in range(3, 13) for end in ("O", "N", "C(=O)O", "c1ccccc1", "S", "Cl")]


def block(molecule: int) -> str:
    """The first InChIKey block of a made-up molecule: right in form, meaning nothing."""
    letters = "".join(chr(ord("A") + (molecule // 26**k) % 26) for k in range(4))
    return f"TESTMOLECU{letters}"


def spectrum(
    molecule: int,
    number: int,
    *,
    precursor_mz: float = 300.0,
    polarity: int | None = 1,
    laboratory: str | None = "Alpha",
    mz: Sequence[float] = (100.0, 150.0, 200.0),
    intensity: Sequence[float] = (0.5, 1.0, 0.3),
    smiles: str | None = None,
    inchikey: str | None = "",
) -> Spectrum:
    return Spectrum(
        spectrum_id=f"{molecule}-{number}",
        precursor_mz=precursor_mz,
        mz=np.array(mz, np.float32),
        intensity=np.array(intensity, np.float32),
        polarity=polarity,
        smiles=CHAINS[molecule % len(CHAINS)] if smiles is None else smiles,
        inchikey=f"{block(molecule)}-UHFFFAOYSA-N" if inchikey == "" else inchikey,
        laboratory=laboratory,
        adduct="[M+H]+",
        name=f"molecule {molecule}",
    )


def write_store(folder: Path, spectra: Sequence[Spectrum]) -> Path:
    folder.mkdir(parents=True)
    write_shard(table_from_spectra(spectra), folder / "spectra-00000.parquet")
    shards = [{"file": "spectra-00000.parquet", "spectra": len(spectra)}]
    write_manifest(folder, {"command": "prepare", "shards": shards})
    return folder


def split_of(folds: dict[int, str]) -> Split:
    return Split("inchikey-block", 0, {block(molecule): fold for molecule, fold in folds.items()})


def isomers(num_molecules: int = 24, *, per_molecule: int = 4, seed: int = 0) -> tuple[list[Spectrum], dict[int, str]]:
    """Molecules in groups of four that share a precursor m/z, measured in two laboratories with noise.

    A molecule's peaks are its own; a third of them are shared within its group. Even groups are 'test'.
    """
    rng = np.random.default_rng(seed)
    spectra, folds = [], {}
    for group in range(num_molecules // 4):
        shared = rng.uniform(60, 180, 4)
        precursor = 200.0 + 20.0 * group
        for molecule in range(4 * group, 4 * group + 4):
            own = rng.uniform(60, 180, 6)
            for number in range(per_molecule):
                mz = np.concatenate([shared, own]) + rng.normal(0, 0.002, 10)
                intensity = rng.uniform(0.2, 1.0, 10)
                keep = rng.random(10) < 0.7
                keep[:2] = True
                order = np.argsort(mz[keep])
                spectra.append(
                    spectrum(
                        molecule,
                        number,
                        precursor_mz=precursor * (1 + rng.uniform(-2e-6, 2e-6)),
                        laboratory=("Alpha", "Beta")[number % 2],
                        mz=mz[keep][order],
                        intensity=(intensity[keep] / intensity[keep].max())[order],
                    )
                )
            folds[molecule] = "test" if group % 2 == 0 else "train"
    return spectra, folds


class FakeEncoder:
    """Embeds by a table from precursor m/z and peaks to a vector, so that a test decides what the model knows.

    ``training`` is what its configuration says of its training.
    """

    def __init__(
        self, vector: Callable[[SpectrumColumns, int], np.ndarray], training: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.vector = vector
        self.config = SimpleNamespace(training=list(training))
        self.num_embedded = 0

    def embed(self, spectra: SpectrumColumns, *, progress: bool = False) -> np.ndarray:
        self.num_embedded += len(spectra)
        vectors = np.stack([self.vector(spectra, row) for row in range(len(spectra))]).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def build() -> SimpleNamespace:
    """The builders of this file (pytest gives tests no other way to a conftest in importlib mode)."""
    return SimpleNamespace(
        block=block, spectrum=spectrum, isomers=isomers, write_store=write_store, split_of=split_of, encoder=FakeEncoder
    )


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[[Sequence[Spectrum], dict[int, str]], EvaluationData]:
    def make(spectra: Sequence[Spectrum], folds: dict[int, str]) -> EvaluationData:
        return load_evaluation_data(Store(write_store(tmp_path / "store", spectra)), split_of(folds))

    return make

"""A service over a small library, and one over a few structures, with limits that a test can reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from ionbed.embeddings.index import Index
from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.settings import ServiceLimits, ServiceSettings
from ionbed.embeddings.structure_index import StructureIndex
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.molecule_files import NamedStructure
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import Store

from ..conftest import CountSketchModel
from ..test_structure_index import TowerModel

LIMITS = ServiceLimits(
    upload_bytes=1 << 20,
    unpacked_bytes=4 << 20,
    json_bytes=1 << 16,
    spectra=20,
    job_spectra=200,
    peaks=300,
    k=20,
    smiles_length=200,
    seconds=20.0,
    jobs=3,
)


def mgf(*records: tuple[str, float, list[tuple[float, float]]], charge: str = "1+") -> bytes:
    """Return records (title, precursor m/z, peaks) as a file."""
    return "".join(
        f"BEGIN IONS\nTITLE={title}\nPEPMASS={mz}\nCHARGE={charge}\n"
        + "".join(f"{m:.5f} {i:.5f}\n" for m, i in peaks)
        + "END IONS\n\n"
        for title, mz, peaks in records
    ).encode()


def as_peaks(spectrum: Spectrum) -> list[list[float]]:
    return [[float(m), float(i)] for m, i in zip(spectrum.mz, spectrum.intensity, strict=True)]


@pytest.fixture(scope="session")
def index(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index.build(CountSketchModel(), Store(store))
    folder = tmp_path_factory.mktemp("service") / "library"
    index.save(folder)
    return Index.open(folder, CountSketchModel())


@pytest.fixture(scope="session")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose model is a small one with random weights."""
    torch.manual_seed(0)
    model = IonbedModel(IonbedConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, embedding_size=16))
    folder = tmp_path_factory.mktemp("served") / "library"
    Index.build(model.eval(), Store(store)).save(folder)
    return folder


@pytest.fixture(scope="session")
def client(index: Index) -> Iterator[TestClient]:
    with TestClient(create_app(index, ServiceSettings(limits=LIMITS, readers=1, warm=False))) as client:
        yield client


@pytest.fixture(scope="session")
def structure_client() -> Iterator[TestClient]:
    molecules = ("CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(=O)Nc1ccc(O)cc1", "OC(=O)c1cccnc1")
    entries = [NamedStructure(f"molecule {n}", smiles, n, f"H{n}") for n, smiles in enumerate(molecules, start=1)]
    index = StructureIndex.build(TowerModel(), entries)
    with TestClient(create_app(index, ServiceSettings(limits=LIMITS, readers=1, warm=False))) as client:
        yield client


@pytest.fixture
def spectrum(index: Index) -> Spectrum:
    """A spectrum of the library, with a structure and more than a few peaks."""
    return max(index.spectra(list(range(0, len(index), 5))), key=len)


@pytest.fixture
def body(spectrum: Spectrum) -> dict:
    """That spectrum as a request."""
    return {
        "precursor_mz": spectrum.precursor_mz,
        "charge": 1,
        "polarity": 1,
        "name": "mine",
        "peaks": as_peaks(spectrum),
    }

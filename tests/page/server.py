"""Services over made-up libraries, in a process of their own: spectra, structures, and one that asks for a key.

``python -m tests.page.server FOLDER`` from the repository's root writes the three ports to FOLDER/ports.json once all
three answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import numpy as np
import uvicorn

from ionbed.embeddings.index import Index
from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.settings import ServiceLimits, ServiceSettings
from ionbed.embeddings.structure_index import StructureIndex
from ionbed.spectra.molecule_files import NamedStructure
from ionbed.spectra.molecules import standardise
from ionbed.spectra.spectrum import Spectrum

from ..embeddings.conftest import CountSketchModel
from ..embeddings.test_structure_index import TowerModel

KEY = "0123456789abcdef"
EVIL_NAME = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
MOLECULES = (
    ("caffeine", "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "LC-ESI-QTOF", "CC0"),
    (EVIL_NAME, "Cn1c(=O)c2ncn(C)c2n(C)c1=O", "LC-ESI-QFT", "CC BY"),
    ("theobromine", "Cn1cnc2c1c(=O)[nH]c(=O)n2C", "LC-ESI-QTOF", "CC BY"),
    ("theophylline", "Cn1c(=O)c2[nH]cnc2n(C)c1=O", "LC-ESI-QFT", "CC0"),
    ("paracetamol", "CC(=O)Nc1ccc(O)cc1", "LC-ESI-QTOF", "CC0"),
    ("nicotinamide", "NC(=O)c1cccnc1", "LC-ESI-QFT", "CC BY"),
)
ADDUCTS = {"[M+H]+": 1.00728, "[M+Na]+": 22.98922}
ENERGIES = (10.0, 20.0, 40.0)


def library() -> list[Spectrum]:
    """Return made-up spectra: each molecule as two adducts at three energies; xanthines share their neutral losses."""
    spectra = []
    for number, (name, smiles, instrument, license) in enumerate(MOLECULES):
        molecule = standardise(smiles)
        assert molecule is not None
        losses = np.random.default_rng(0 if number < 4 else number).uniform(15, 120, 9)
        for adduct, shift in ADDUCTS.items():
            precursor_mz = molecule.exact_mass + shift
            for energy in ENERGIES:
                rng = np.random.default_rng([number, int(energy), int(shift)])
                mz = np.sort(np.append(precursor_mz - losses, precursor_mz)).astype(np.float32)
                intensity = rng.uniform(0.05, 1, len(mz)).astype(np.float32)
                spectra.append(
                    Spectrum(
                        spectrum_id=f"made-{number}-{adduct}-{energy:g}",
                        precursor_mz=precursor_mz,
                        mz=mz,
                        intensity=intensity / intensity.max(),
                        polarity=1,
                        charge=1,
                        adduct=adduct,
                        collision_energy=energy,
                        instrument_type=instrument,
                        license=license,
                        smiles=molecule.smiles,
                        inchikey=molecule.inchikey,
                        formula=molecule.formula,
                        name=name,
                    )
                )
    return spectra


def structures() -> list[NamedStructure]:
    """Return the molecules of the library as entries of a database."""
    return [NamedStructure(name, smiles, number) for number, (name, smiles, *_) in enumerate(MOLECULES, start=1)]


async def serve(folder: Path) -> None:
    """Serve until told to end."""
    spectra = Index.build(CountSketchModel(), library())
    of_structures = StructureIndex.build(TowerModel(), structures())
    few = ServiceLimits(upload_bytes=1 << 20, spectra=40, k=50, peaks=500)
    apps = {
        "spectra": create_app(spectra, ServiceSettings(limits=few, readers=1)),
        "structures": create_app(of_structures, ServiceSettings(limits=few, readers=1)),
        "key": create_app(spectra, ServiceSettings(limits=few, readers=1, api_key=KEY)),
    }
    servers = {
        name: uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, server_header=False))
        for name, app in apps.items()
    }
    running = [asyncio.create_task(server.serve()) for server in servers.values()]
    while not all(server.started for server in servers.values()):
        await asyncio.sleep(0.02)
    ports = {name: server.servers[0].sockets[0].getsockname()[1] for name, server in servers.items()}
    partial = folder / "ports.partial"
    partial.write_text(json.dumps(ports))
    os.replace(partial, folder / "ports.json")
    await asyncio.gather(*running)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))

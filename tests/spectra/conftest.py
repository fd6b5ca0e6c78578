"""What several tests need: made-up files, the vocabulary for pyteomics, a server on 127.0.0.1."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ionbed.spectra.preparation import units

from .http_server import Server
from .prepare_inputs import write_library

MZ, INTENSITY = np.array([50.5, 60.25, 99.125]), np.array([10.0, 20.5, 7.0])

HEADER = """\
<?xml version="1.0" encoding="{encoding}"?>
<indexedmzML xmlns="http://psi.hupo.org/ms/mzml"><mzML id="run">
<referenceableParamGroupList count="2">
<referenceableParamGroup id="positive"><cvParam accession="MS:1000130" name="positive scan"/></referenceableParamGroup>
<referenceableParamGroup id="instrument"><cvParam accession="MS:1001911" name="Q Exactive"/>
<cvParam accession="MS:1000529" name="instrument serial number" value="7"/></referenceableParamGroup>
</referenceableParamGroupList>
<instrumentConfigurationList count="1"><instrumentConfiguration id="IC1"><referenceableParamGroupRef ref="instrument"/>
<componentList count="0"/></instrumentConfiguration></instrumentConfigurationList>
<run id="run"><spectrumList count="3">
"""
FOOTER = "</spectrumList></run></mzML></indexedmzML>\n"


def cv(accession, value="", name="", unit=""):
    return f'<cvParam cvRef="MS" accession="{accession}" name="{name}" value="{value}" unitAccession="{unit}"/>'


def array(kind, values, dtype="<f8", dtype_term="MS:1000523", compress=None):
    data = np.asarray(values).astype(dtype).tobytes()
    terms = cv(kind) + cv(dtype_term) + cv("MS:1000574" if compress else "MS:1000576")
    text = base64.b64encode(zlib.compress(data) if compress else data).decode()
    return f"<binaryDataArray>{terms}<binary>{text}</binary></binaryDataArray>"


TIME = cv("MS:1000016", "1.5", unit="UO:0000031")
ARRAYS = array("MS:1000514", MZ) + array("MS:1000515", INTENSITY)
PRECURSOR = (
    "<precursorList count='1'><precursor><isolationWindow>" + cv("MS:1000827", "200") + "</isolationWindow>"
    "<selectedIonList count='1'><selectedIon>" + cv("MS:1000744", "200.125") + cv("MS:1000041", "2") + "</selectedIon>"
    "</selectedIonList><activation>" + cv("MS:1000422") + cv("MS:1000045", "35.0", unit="UO:0000266") + "</activation>"
    "</precursor></precursorList>"
)


def spectrum(number=1, level=2, extra="", scan=TIME, precursor=PRECURSOR, arrays=ARRAYS):
    terms = cv("MS:1000511", level) + cv("MS:1000127") + '<referenceableParamGroupRef ref="positive"/>' + extra
    return (
        f'<spectrum index="{number - 1}" id="scan={number}" defaultArrayLength="3">{terms}'
        f'<scanList count="1"><scan>{scan}</scan></scanList>{precursor if level > 1 else ""}'
        f'<binaryDataArrayList count="2">{arrays}</binaryDataArrayList></spectrum>\n'
    )


def run(*spectra, encoding="utf-8", footer=FOOTER):
    return (HEADER.format(encoding=encoding) + "".join(spectra) + footer).encode(encoding)


@pytest.fixture(scope="session")
def psi_ms_vocabulary() -> Any:
    """Return the PSI-MS vocabulary that psims carries, for pyteomics, which would fetch it from the network."""
    vocabulary = pytest.importorskip("psims.controlled_vocabulary.controlled_vocabulary").ControlledVocabulary
    packed = resources.files("psims.controlled_vocabulary") / "vendor" / "psi-ms.obo.gz"
    with packed.open("rb") as stream, gzip.open(stream) as text:
        return vocabulary.from_obo(text)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def online(monkeypatch, tmp_path):
    """The network that these tests use is this machine; sets without --out go to where they run."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def libraries(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    # each shares five spectra with the one before
    return [write_library(folder / f"library-{i}.mgf", first=15 * i) for i in range(5)]


@pytest.fixture
def units_of_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files would otherwise share a unit, and one worker would do all."""
    monkeypatch.setattr(units, "SMALLEST_UNIT_BYTES", 1)

"""How fast a run in mzML becomes cleaned spectra, beside pyteomics and pymzdata on the same file in the same minutes.

    OMP_NUM_THREADS=1 python benchmarks/mzml_speed.py [--file RUN.mzML] [--spectra 5000] [--rounds 5]

ionbed reads, harmonises and cleans the MS2 spectra and counts the others; pyteomics and pymzdata hand over every
spectrum with its arrays decoded, which is what a user of theirs starts from. One process; the readers take turns, the
median round counts. Without a file, a run is made: MS2 spectra of 60 to 300 peaks, a survey scan of 800 peaks before
every tenth, zlib, m/z of 64 bits and intensities of 32.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import platform
import statistics
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from datetime import date
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pymzdata
from pyteomics import mzml

import ionbed

SURVEY_PEAKS, CYCLE = 800, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="a run in mzML, instead of one that is made")
    parser.add_argument("--spectra", type=int, default=5000, help="MS2 spectra of the run that is made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or write_run(Path(folder) / "run.mzML", arguments.spectra)
        result = {"source": arguments.file.name if arguments.file else "made-up run", **measure(path, arguments.rounds)}
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:<40} {value:,.3g}" if isinstance(value, float) else f"{name:<40} {value}")


def write_run(path: Path, num_spectra: int) -> Path:
    """Write a run of ``num_spectra`` MS2 spectra with survey scans between them."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as out:
        out.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<mzML xmlns="http://psi.hupo.org/ms/mzml" version="1.1.0">'
            '<run id="run"><spectrumList count="0">\n'
        )
        number = 0
        for spectrum in range(num_spectra):
            if spectrum % CYCLE == 0:
                number += 1
                out.write(spectrum_text(number, 1, SURVEY_PEAKS, rng))
            number += 1
            out.write(spectrum_text(number, 2, int(rng.integers(60, 301)), rng))
        out.write("</spectrumList></run></mzML>\n")
    return path


def spectrum_text(number: int, level: int, num_peaks: int, rng: np.random.Generator) -> str:
    """Return one ``<spectrum>`` as ProteoWizard writes it, in its essentials."""
    mz = np.sort(rng.uniform(50, 900, num_peaks))
    intensity = rng.lognormal(8, 2, num_peaks)
    precursor = (
        '<precursorList count="1"><precursor><isolationWindow>'
        + term("MS:1000827", "isolation window target m/z", f"{mz[-1]:.4f}")
        + '</isolationWindow><selectedIonList count="1"><selectedIon>'
        + term("MS:1000744", "selected ion m/z", f"{mz[-1]:.4f}")
        + term("MS:1000041", "charge state", "1")
        + "</selectedIon></selectedIonList><activation>"
        + term("MS:1000422", "beam-type collision-induced dissociation")
        + term("MS:1000045", "collision energy", "35.0")
        + "</activation></precursor></precursorList>"
    )
    return (
        f'<spectrum index="{number - 1}" id="controllerType=0 controllerNumber=1 scan={number}" '
        f'defaultArrayLength="{num_peaks}">'
        + term("MS:1000511", "ms level", str(level))
        + term("MS:1000130", "positive scan")
        + term("MS:1000127", "centroid spectrum")
        + term("MS:1000285", "total ion current", f"{intensity.sum():.1f}")
        + '<scanList count="1"><scan>'
        + term("MS:1000016", "scan start time", f"{number * 0.01:.4f}", ' unitCvRef="UO" unitAccession="UO:0000031"')
        + term("MS:1000512", "filter string", "FTMS + c ESI d Full ms2")
        + f"</scan></scanList>{precursor if level > 1 else ''}"
        + '<binaryDataArrayList count="2">'
        + array_text("MS:1000514", "m/z array", "MS:1000523", "64-bit float", mz.astype("<f8"))
        + array_text("MS:1000515", "intensity array", "MS:1000521", "32-bit float", intensity.astype("<f4"))
        + "</binaryDataArrayList></spectrum>\n"
    )


def term(accession: str, name: str, value: str = "", unit: str = "") -> str:
    return f'<cvParam cvRef="MS" accession="{accession}" name="{name}" value="{value}"{unit}/>'


def array_text(accession: str, name: str, kind: str, kind_name: str, values: np.ndarray) -> str:
    binary = base64.b64encode(zlib.compress(values.tobytes())).decode()
    terms = term(kind, kind_name) + term("MS:1000574", "zlib compression") + term(accession, name)
    return f'<binaryDataArray encodedLength="{len(binary)}">{terms}<binary>{binary}</binary></binaryDataArray>'


def psi_ms_vocabulary() -> Any:
    """Return the vocabulary that psims carries: pyteomics would fetch one from the network."""
    from psims.controlled_vocabulary.controlled_vocabulary import ControlledVocabulary

    packed = resources.files("psims.controlled_vocabulary") / "vendor" / "psi-ms.obo.gz"
    with packed.open("rb") as stream, gzip.open(stream) as text:
        return ControlledVocabulary.from_obo(text)


def measure(path: Path, rounds: int) -> dict[str, str | int | float]:
    """Time ``rounds`` readings of the whole file by each reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vocabulary = psi_ms_vocabulary()

    def by_ionbed() -> int:
        reader = ionbed.read(path)
        for _ in reader:
            pass
        return reader.report.read

    def by_pyteomics() -> int:
        with mzml.MzML(str(path), cv=vocabulary, use_index=False) as reader:
            return sum(len(spectrum["m/z array"]) >= 0 for spectrum in reader)

    def by_pymzdata() -> int:
        with pymzdata.MZReader(str(path)) as reader:
            return sum(len(spectrum.mz_array()) == len(spectrum.intensity_array()) for spectrum in reader)

    readers: dict[str, Callable[[], int]] = {
        "ionbed, harmonised and cleaned": by_ionbed,
        "pyteomics": by_pyteomics,
        "pymzdata": by_pymzdata,
    }
    counts = {name: read() for name, read in readers.items()}  # and the imports and caches of a first run
    assert len(set(counts.values())) == 1, f"the readers disagree on the number of spectra: {counts}"
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            start = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - start)
    count = counts["pyteomics"]
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {psutil.cpu_count(logical=False)} cores, one used",
        "pyteomics version": metadata.version("pyteomics"),
        "pymzdata version": metadata.version("pymzdata"),
        "spectra of all levels": count,
        "file, MB": path.stat().st_size / 1e6,
        **{f"{name}, spectra/s": count / median for name, median in medians.items()},
        "ionbed against pyteomics": medians["pyteomics"] / medians["ionbed, harmonised and cleaned"],
        "lowest round": min(
            theirs / ours
            for theirs, ours in zip(seconds["pyteomics"], seconds["ionbed, harmonised and cleaned"], strict=True)
        ),
    }


if __name__ == "__main__":
    main()

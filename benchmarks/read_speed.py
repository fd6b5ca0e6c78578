"""How fast text formats are read, on one core, beside pyteomics and matchms in the same minutes.

    OMP_NUM_THREADS=1 python benchmarks/read_speed.py [--spectra 3000] [--peaks 60] [--rounds 7]

The files are made up: random peaks, metadata as GNPS, MS-DIAL and MassBank write them, without structures (their
standardisation by RDKit is measured by the benchmark of ``ionbed prepare``). A round reads each file once with each
reader, one after the other, so that what else the machine does meets all of them. 'Spectrum' is `ionbed.read`: parsed,
metadata harmonised, peaks cleaned; 'records' is what the file says. The indexed reader of pyteomics (`mgf.read`) finds
none of these spectra, as GNPS writes no TITLE.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import matchms.filtering
import matchms.importing
import numpy as np
import pyteomics.mgf

import ionbed
from ionbed.spectra.readers import read_records

Reader = Callable[[Path], Iterable[object]]


def cleaned_by_matchms(spectra: Iterable[matchms.Spectrum]) -> Iterable[object]:
    """Do what `ionbed.read` does beside parsing, by the functions of matchms for it."""
    for spectrum in spectra:
        spectrum = matchms.filtering.default_filters(spectrum)
        spectrum = matchms.filtering.normalize_intensities(spectrum)
        yield matchms.filtering.select_by_relative_intensity(spectrum, intensity_from=0.001)


READERS: dict[str, dict[str, Reader]] = {
    "MGF": {
        "ionbed, Spectrum": ionbed.read,
        "ionbed, records": read_records,
        "pyteomics mgf.MGF": lambda path: pyteomics.mgf.MGF(str(path)),
        "matchms, harmonised": lambda path: matchms.importing.load_from_mgf(str(path)),
        "matchms, harmonised and cleaned": lambda path: cleaned_by_matchms(matchms.importing.load_from_mgf(str(path))),
        "matchms, as written": lambda path: matchms.importing.load_from_mgf(str(path), metadata_harmonization=False),
    },
    "MSP": {
        "ionbed, Spectrum": ionbed.read,
        "ionbed, records": read_records,
        "matchms, harmonised": lambda path: matchms.importing.load_from_msp(str(path)),
        "matchms, harmonised and cleaned": lambda path: cleaned_by_matchms(matchms.importing.load_from_msp(str(path))),
        "matchms, as written": lambda path: matchms.importing.load_from_msp(str(path), metadata_harmonization=False),
    },
    "MassBank": {
        "ionbed, Spectrum": ionbed.read,
        "ionbed, records": read_records,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=3000)
    parser.add_argument("--peaks", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), arguments.spectra, arguments.peaks)
        rates = measure(files, arguments.spectra, arguments.rounds)
    machine = {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": f"1 of {os.cpu_count()}",
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "pyteomics", "matchms")},
        "spectra": arguments.spectra,
        "peaks a spectrum": arguments.peaks,
        "rounds": arguments.rounds,
    }
    if arguments.json:
        print(json.dumps({**machine, "spectra/s": rates}, indent=2))
        return
    for name, value in machine.items():
        print(f"{name:<18} {value}")
    print(f"\n{'spectra/s':<40} {'min':>9} {'median':>9} {'max':>9}")
    for name, values in rates.items():
        print(f"{name:<40} {min(values):>9,.0f} {statistics.median(values):>9,.0f} {max(values):>9,.0f}")


def measure(files: dict[str, Path], num_spectra: int, rounds: int) -> dict[str, list[float]]:
    """Return spectra/s of each reader in each round; a first round, which loads and compiles, is not counted."""
    rates: dict[str, list[float]] = {}
    for round_number in range(-1, rounds):
        for file_format, readers in READERS.items():
            for name, reader in readers.items():
                start = time.perf_counter()
                count = sum(1 for _ in reader(files[file_format]))
                seconds = time.perf_counter() - start
                if count != num_spectra:
                    raise SystemExit(f"{name} reads {count} of {num_spectra} spectra of the {file_format} file")
                if round_number >= 0:
                    rates.setdefault(f"{file_format}: {name}", []).append(num_spectra / seconds)
    return rates


def write_files(folder: Path, num_spectra: int, num_peaks: int) -> dict[str, Path]:
    """Write the same random spectra in each format."""
    rng = np.random.default_rng(0)
    files = {"MGF": folder / "a.mgf", "MSP": folder / "a.msp", "MassBank": folder / "a.txt"}
    with files["MGF"].open("w") as mgf, files["MSP"].open("w") as msp, files["MassBank"].open("w") as massbank:
        for number in range(num_spectra):
            mz = np.sort(rng.uniform(50, 800, num_peaks))
            intensity = rng.lognormal(8, 1.5, num_peaks)
            peaks = [f"{m:.5f} {i:.2f}" for m, i in zip(mz, intensity, strict=True)]
            precursor_mz = rng.uniform(200, 800)
            mgf.write(
                f"BEGIN IONS\nPEPMASS={precursor_mz:.4f}\nCHARGE=1\nMSLEVEL=2\nSOURCE_INSTRUMENT=LC-ESI-Orbitrap\n"
                f"FILENAME=run.mzXML\nSEQ=*..*\nIONMODE=positive\nORGANISM=GNPS-LIBRARY\nNAME=spectrum {number} M+H\n"
                "PI=Nobody\nDATACOLLECTOR=Nobody\nSMILES=N/A\nINCHI=N/A\nINCHIAUX=N/A\nPUBMED=N/A\nSUBMITUSER=nobody\n"
                f"LIBRARYQUALITY=3\nRTINSECONDS={number / 2}\nCOLLISION_ENERGY=30 eV\n"
                f"SPECTRUMID=CCMSLIB{number:011d}\nSCANS={number}\n" + "\n".join(peaks) + "\nEND IONS\n\n"
            )
            msp.write(
                f"NAME: spectrum {number}\nPRECURSORMZ: {precursor_mz:.4f}\nPRECURSORTYPE: [M+H]+\nIONMODE: Positive\n"
                f"RETENTIONTIME: {number / 120:.3f}\nCOLLISIONENERGY: 30 eV\nINSTRUMENTTYPE: LC-ESI-QFT\n"
                f"Num Peaks: {num_peaks}\n" + "\n".join(peaks).replace(" ", "\t") + "\n\n"
            )
            massbank.write(
                f"ACCESSION: MSBNK-Made_up-{number:06d}\nRECORD_TITLE: spectrum {number}\nDATE: 2020.01.01\n"
                f"AUTHORS: Nobody\nLICENSE: CC0\nCH$NAME: spectrum {number}\nAC$INSTRUMENT: Made up\n"
                "AC$INSTRUMENT_TYPE: LC-ESI-QFT\nAC$MASS_SPECTROMETRY: MS_TYPE MS2\n"
                "AC$MASS_SPECTROMETRY: ION_MODE POSITIVE\nAC$MASS_SPECTROMETRY: COLLISION_ENERGY 30 eV\n"
                f"AC$CHROMATOGRAPHY: RETENTION_TIME {number / 2} s\nMS$FOCUSED_ION: PRECURSOR_M/Z {precursor_mz:.4f}\n"
                f"MS$FOCUSED_ION: PRECURSOR_TYPE [M+H]+\nPK$NUM_PEAK: {num_peaks}\nPK$PEAK: m/z int. rel.int.\n  "
                + "\n  ".join(f"{peak} 100" for peak in peaks)
                + "\n//\n"
            )
    return files


def processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()

"""Time of the whole of `ionbed prepare` (read, harmonise, clean, grade, deduplicate, write), beside matchms.

    python benchmarks/prepare_speed.py                                     # made-up MGF
    python benchmarks/prepare_speed.py --input massbank-records.tar.gz     # any input, whole

The command is run as a user runs it, start of Python included, and the rounds of the peers lie between its own. matchms
does what comes nearest, in one process: read MGF with its harmonisation, its default filters, normalised intensities,
and write an MSP; on fewer spectra, since its rate does not depend on their number. pyteomics only reads.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made_up_mgf import write_mgf


def time_prepare(source: Path, out: Path, workers: int) -> tuple[int, float]:
    """Return records read and seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "ionbed", "-q", "prepare", str(source), "--out", str(out)]
    subprocess.run([*command, "--workers", str(workers), "--overwrite"], check=True)
    seconds = time.perf_counter() - started
    return json.loads((out / "manifest.json").read_text())["counts"]["read"], seconds


def time_matchms(source: Path, out: Path) -> tuple[int, float]:
    from matchms.exporting import save_as_msp
    from matchms.filtering import default_filters, normalize_intensities
    from matchms.importing import load_from_mgf

    logging.getLogger("matchms").setLevel(logging.CRITICAL)
    out.unlink(missing_ok=True)
    started = time.perf_counter()
    num_read, kept = 0, []
    for spectrum in load_from_mgf(str(source)):
        num_read += 1
        spectrum = default_filters(spectrum)
        spectrum = None if spectrum is None else normalize_intensities(spectrum)
        if spectrum is not None:
            kept.append(spectrum)
    save_as_msp(kept, str(out))
    return num_read, time.perf_counter() - started


def time_pyteomics(source: Path) -> tuple[int, float]:
    from pyteomics import mgf

    started = time.perf_counter()
    num_read = sum(1 for _ in mgf.MGF(str(source)))
    return num_read, time.perf_counter() - started


def line(label: str, runs: list[tuple[int, float]]) -> str:
    rates = sorted(count / seconds for count, seconds in runs)
    return (
        f"{label:42} {runs[0][0]:>9,} records  {rates[0]:>7,.0f} {statistics.median(rates):>7,.0f} {rates[-1]:>7,.0f}"
        "  records/s (least, median, most)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="what to prepare instead of made-up spectra")
    parser.add_argument("--spectra", type=int, default=100_000)
    parser.add_argument("--peer-spectra", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="prepare-speed-"))
    source = options.input or folder / "made-up.mgf"
    few = folder / "few.mgf"
    if options.input is None:
        write_mgf(source, options.spectra)
    write_mgf(few, options.peer_spectra, faults=False)
    print(f"{platform.processor() or platform.machine()}, {options.workers} workers, {time.strftime('%Y-%m-%d')}")
    runs: dict[str, list[tuple[int, float]]] = {}
    for _ in range(options.rounds):
        name = source.name if options.input else "MGF, 60 peaks"
        runs.setdefault(f"ionbed prepare, {name}", []).append(time_prepare(source, folder / "store", options.workers))
        runs.setdefault("matchms, read + filter + write, one core", []).append(time_matchms(few, folder / "few.msp"))
        runs.setdefault("pyteomics, read only, one core", []).append(time_pyteomics(few))
    for label, measured in runs.items():
        print(line(label, measured))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

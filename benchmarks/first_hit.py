"""A new user's way, timed: from `pip install` to the first correct hit for the spectra of an own MGF.

    python benchmarks/first_hit.py                                            # a made-up library and made-up queries
    python benchmarks/first_hit.py --library library.msp --queries mine.mgf   # with InChIKeys, to judge the hits

The commands are those of the README. Each runs in a process of its own in a new virtual environment, which has nothing
but what `pip install` brings; how long pip takes depends on the network and on its cache. Without files of one's own,
the library is predicted for the demonstration's molecules and the queries are its spectra with noise: they show that
the way works, and how long it takes, not how well real spectra are found.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import subprocess
import tempfile
import time
from pathlib import Path

from pyteomics import mgf

import ionbed

ROOT = Path(__file__).parent.parent
ENERGY = "20"
NUM_QUERIES = 50


class Steps:
    """Runs commands one after the other, and keeps how long each took."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, {}

    def run(self, title: str, *command: str | Path) -> None:
        """Run a command, in the folder, and keep its time."""
        print("$", *command, flush=True)
        started = time.perf_counter()
        subprocess.run([str(word) for word in command], check=True, cwd=self.folder)
        self.seconds[title] = time.perf_counter() - started


def write_noisy_queries(library: Path, queries: Path) -> None:
    """Write some spectra of a library as an MGF, m/z off by 3 ppm and intensities by a third, with their InChIKeys."""
    rng = random.Random(0)
    chosen = []
    for number, spectrum in enumerate(rng.sample(list(ionbed.read(library)), NUM_QUERIES)):
        params = {
            "title": f"query {number}",
            "pepmass": spectrum.precursor_mz * (1 + rng.gauss(0, 2e-6)),
            "charge": "1-" if spectrum.polarity == -1 else "1+",
            "inchikey": spectrum.inchikey,
        }
        mz = [value * (1 + rng.gauss(0, 3e-6)) for value in spectrum.mz.tolist()]
        intensity = [value * rng.uniform(0.67, 1.5) for value in spectrum.intensity.tolist()]
        chosen.append({"m/z array": mz, "intensity array": intensity, "params": params})
    mgf.write(chosen, str(queries))


def share_right(hits: Path, queries: Path) -> tuple[int, int]:
    """Return for how many queries the first hit is of the query's molecule, and of how many that is asked."""
    with mgf.read(str(queries), use_index=False) as reader:
        truth = {s["params"]["title"]: s["params"]["inchikey"][:14] for s in reader if s["params"].get("inchikey")}
    with open(hits, encoding="utf-8", newline="") as handle:
        first = {
            row["query_id"]: row["inchikey"][:14]
            for row in csv.DictReader(handle, dialect="excel-tab")
            if row["rank"] == "1"
        }
    return sum(first.get(query) == molecule for query, molecule in truth.items()), len(truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, help="a spectral library; by default one is predicted")
    parser.add_argument("--queries", type=Path, help="an MGF with InChIKeys")
    options = parser.parse_args()
    if (options.library is None) != (options.queries is None):
        parser.error("--library and --queries go together")
    os.environ |= {"HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps, pip = Steps(folder), folder / "venv" / "bin" / "pip"
        ionbed = folder / "venv" / "bin" / "ionbed"
        steps.run("virtual environment", os.environ.get("PYTHON", "python3"), "-m", "venv", "venv")
        torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
        steps.run("pip install torch", pip, "install", "-qq", torch)
        steps.run("pip install ionbed", pip, "install", "-qq", "-c", ROOT / "constraints.txt", f"{ROOT}[serve]")
        library, queries = options.library, options.queries
        if library is None:
            library, queries = folder / "library.msp", folder / "queries.mgf"
            molecules = ROOT / "demo" / "molecules.tsv"
            subprocess.run([ionbed, "-q", "simulate", molecules, "--out", library, "--energy", ENERGY], check=True)
            write_noisy_queries(library, queries)
        steps.run("ionbed index build", ionbed, "-q", "index", "build", library.resolve(), "--out", "library")
        steps.run("ionbed search", ionbed, "-q", "search", "library", queries.resolve(), "--out", "hits.tsv")
        right, asked = share_right(folder / "hits.tsv", queries)
    if not right:
        raise SystemExit("no first hit is right")
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| step | seconds |\n|---|---|")
    for title, seconds in steps.seconds.items():
        print(f"| {title} | {seconds:.1f} |")
    print(f"| **together** | **{sum(steps.seconds.values()):.1f}** |")
    print(f"\nThe first hit is of the query's molecule for {right} of {asked} queries.")


if __name__ == "__main__":
    main()

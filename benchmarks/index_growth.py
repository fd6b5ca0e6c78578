"""How time and memory of an index grow with the library: building, opening, searching, and a fit of each.

    python benchmarks/index_growth.py --store STORE --spectra 10000 100000 1000000    # some 10 GB of disk, half an hour
    python benchmarks/index_growth.py                                                 # made-up spectra, up to 100,000

The library is made of copies of real spectra with jitter (benchmarks/jittered.py), with the embeddings that they were
made with: the time to embed is that of ``benchmarks/embed_speed.py`` and grows with the number of spectra. Each size is
built by one process and opened and searched by another, whose private memory is told (what is mapped from the files of
an index is not: the system keeps as much of it as there is room for).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from index_kinds import PeakMemory
from jittered import Copies, CopiesModel, Source, add_source_options, further_copies, machine, source_of
from search_speed import embedded, milliseconds

from ionbed.embeddings.hits import EmbeddedQueries
from ionbed.embeddings.index import Index
from ionbed.embeddings.index import build as build_index

K = 10
PRECURSOR_PPM = 10.0

SHOWN = {
    "build_s": "build s",
    "build_mb": "memory to build MB",
    "disk_mb": "index MB",
    "open_ms": "open ms",
    "search_mb": "memory to search MB",
    "window_ms": "within 10 ppm, ms a query",
    "open_search_ms": "open, ms a query",
    "one_window_ms": "within 10 ppm, one query alone ms",
    "one_open_search_ms": "open, one query alone ms",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, nargs="+", default=[1000, 10_000, 100_000], help="in the library")
    parser.add_argument("--queries", type=int, default=1000, help="at most (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for the indexes (default: a temporary one)")
    parser.add_argument("--build", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    add_source_options(parser)
    options = parser.parse_args()
    if options.build:
        print(json.dumps(build(source_of(options), options.build, options.work, options.queries)))
        return
    if options.search:
        print(json.dumps(open_and_search(options.work)))
        return
    results = []
    for num_spectra in options.spectra:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            common = [sys.executable, __file__, "--work", work, "--queries", str(options.queries)]
            common += ["--store", str(options.store)] if options.store else []
            common += ["--embeddings", str(options.embeddings)] if options.embeddings else []
            result = {"spectra": num_spectra}
            for step in (["--build", str(num_spectra)], ["--search"]):
                answer = subprocess.run([*common, *step], check=True, stdout=subprocess.PIPE, text=True)
                result |= json.loads(answer.stdout)
            results.append(result)
    report(results)


def build(source: Source, num_spectra: int, work: Path, num_queries: int) -> dict[str, float | str]:
    """Build an index and keep it, with queries."""
    library, left_out = source.held_out()
    copies = Copies.of(library, num_spectra)
    model = CopiesModel(copies)
    copies.write_store(work / "store")
    with PeakMemory() as peak:
        start = time.perf_counter()
        index = build_index(work / "store", work / "index", model)
        build_s = time.perf_counter() - start
    for name, queries in (("left-out", left_out), ("further", further_copies(library, num_queries))):
        some = np.sort(np.random.default_rng(1).permutation(len(queries.table))[:num_queries])
        queries = embedded(index, queries.take(some))
        np.savez(work / name, vectors=queries.vectors, mz=queries.precursor_mz, polarity=queries.polarity)
    disk = sum(path.stat().st_size for path in (work / "index" / "segments").rglob("*") if path.is_file())
    entry = index.manifest["segments"][0]
    return {"kind": entry["kind"], "build_s": build_s, "build_mb": peak.megabytes, "disk_mb": disk / 1e6}


def open_and_search(work: Path) -> dict[str, float]:
    """Open the index that `build` kept and search it; a first search reads what the next ones find in memory."""
    folder = work / "index"
    Index.open(folder)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        Index.open(folder)
        times.append(time.perf_counter() - start)
    with PeakMemory() as peak:
        index = Index.open(folder)
        result: dict[str, float] = {"open_ms": 1e3 * statistics.median(times)}
        for name, of, ppm in (("window", "further", PRECURSOR_PPM), ("open_search", "left-out", None)):
            saved = np.load(work / f"{of}.npz")
            model_hash = index.manifest["model_hash"]
            queries = EmbeddedQueries(saved["vectors"], saved["mz"], saved["polarity"], model_hash)

            def run(part: slice, queries: EmbeddedQueries = queries, ppm: float | None = ppm) -> object:
                some = EmbeddedQueries(
                    queries.vectors[part], queries.precursor_mz[part], queries.polarity[part], queries.model_hash
                )
                return list(index.search(some, K, ppm))

            alone, together = milliseconds(run, len(queries.polarity), 100)
            result |= {f"{name}_ms": together, f"one_{name}_ms": alone}
    result["search_mb"] = peak.megabytes
    return result


def report(results: list[dict[str, float | str]]) -> None:
    columns = {"spectra": "spectra", "kind": "kind", **SHOWN}
    print(f"{machine()}\n")
    print("| " + " | ".join(columns.values()) + " |\n|" + "---:|" * len(columns))
    for result in results:
        cells = [
            f"{v:,}" if isinstance(v := result[n], int) else v if isinstance(v, str) else f"{v:,.3g}" for n in columns
        ]
        print("| " + " | ".join(cells) + " |")
    if len(results) > 1:
        sizes = np.log([float(result["spectra"]) for result in results])
        print("\nFitted as a * spectra ** b:\n\n| | a | b |\n|---|---:|---:|")
        for name, label in SHOWN.items():
            b, log_a = np.polyfit(sizes, np.log([float(result[name]) for result in results]), 1)
            print(f"| {label} | {np.exp(log_a):.3g} | {b:.2f} |")


if __name__ == "__main__":
    main()

"""Time and memory of a molecular network, from embeddings to GraphML, beside matchms' network of the same scores.

    python benchmarks/network_speed.py                            # 1,000 to 10,000 spectra; matchms up to 2,000
    python benchmarks/network_speed.py --sizes 10000 100000       # some minutes on one core
    python benchmarks/network_speed.py --store STORE --model M    # real embeddings of as many spectra of a store

matchms needs the scores of all pairs as one matrix, and is given them: only what it does with them is timed, and the
product that makes them. Made-up vectors lie in groups of twenty. Each figure is of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

GROUP = 20
K, MIN_SCORE = 10, 0.7


def made_up_vectors(count: int, dim: int) -> np.ndarray:
    """Return unit vectors of which each is near some twenty others."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(1, count // GROUP), dim)).astype(np.float32)
    vectors = centres[rng.integers(0, len(centres), count)]
    vectors += 0.55 * rng.standard_normal(vectors.shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def real_vectors(store: Path, model: str | None, count: int) -> np.ndarray:
    """Return the embeddings of ``count`` spectra of a store, drawn at random."""
    import ionbed
    from ionbed.spectra.columns import SpectrumColumns
    from ionbed.spectra.store import Store

    opened = Store(store)
    rows = np.sort(np.random.default_rng(0).choice(len(opened), min(count, len(opened)), replace=False))
    table = opened.table(SpectrumColumns.TABLE_COLUMNS).take(pa.array(rows))
    return ionbed.load_model(model).embed(SpectrumColumns.from_table(table))


def time_ionbed(vectors: np.ndarray, folder: Path) -> dict[str, float]:
    from ionbed.embeddings.embedded_input import METADATA, EmbeddedSpectra
    from ionbed.embeddings.graphml import write_graphml
    from ionbed.embeddings.network import NetworkOptions, build_network
    from ionbed.spectra.store import SCHEMA

    count = len(vectors)
    known = {
        "spectrum_id": pa.array([f"s{row:08d}" for row in range(count)]),
        "precursor_mz": pa.array(np.linspace(100, 1000, count)),
        "predicted": pa.array(np.zeros(count, bool)),
    }
    metadata = pa.table({name: known.get(name, pa.nulls(count, SCHEMA.field(name).type)) for name in METADATA})

    def none(*_: object) -> np.ndarray:
        raise NotImplementedError("neither peaks nor a search is needed here")

    spectra = EmbeddedSpectra(vectors, np.ones(count, np.int8), metadata, None, "made up", 0, none, none)
    start = time.perf_counter()
    made = build_network(spectra, NetworkOptions(k=K, min_score=MIN_SCORE, neighbours="exact"))
    middle = time.perf_counter()
    write_graphml(folder / "network.graphml", made.nodes, made.edges, made.attributes)
    end = time.perf_counter()
    edges = len(made.edges) + made.counts["capped"]
    return {"seconds": end - start, "write": end - middle, "edges": edges}


def time_matchms(vectors: np.ndarray, folder: Path) -> dict[str, float]:
    from matchms import Scores, Spectrum
    from matchms.networking import SimilarityNetwork

    none = np.empty(0)
    spectra = [Spectrum(none, none, {"spectrum_id": f"s{row:08d}"}, metadata_harmonization=False)
               for row in range(len(vectors))]  # fmt: skip
    start = time.perf_counter()
    scores = Scores(spectra, spectra, is_symmetric=True)
    scores.scores.add_dense_matrix(vectors @ vectors.T, "cosine")
    network = SimilarityNetwork(top_n=K, max_links=K, score_cutoff=MIN_SCORE, link_method="mutual")
    network.create_network(scores, score_name="cosine")
    middle = time.perf_counter()
    network.export_to_graphml(str(folder / "network.graphml"))
    end = time.perf_counter()
    return {"seconds": end - start, "write": end - middle, "edges": network.graph.number_of_edges()}


def measure(tool: str, vectors: Path) -> None:
    """Print the figures of one tool in this process."""
    loaded = np.load(vectors)
    with tempfile.TemporaryDirectory() as folder:
        found = {"ionbed": time_ionbed, "matchms": time_matchms}[tool](loaded, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps({**found, "mib": peak}))


def measured(tool: str, vectors: Path) -> dict[str, float]:
    """Return the figures of one tool in a process of its own."""
    words = [sys.executable, __file__, "--measure", tool, "--vectors", str(vectors)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 10_000], help="numbers of spectra")
    parser.add_argument("--matchms-up-to", type=int, default=2000, help="spectra (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=256, help="of made-up vectors (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="a store of real spectra")
    parser.add_argument("--model", help="that embeds them")
    parser.add_argument("--measure", choices=["ionbed", "matchms"], help=argparse.SUPPRESS)
    parser.add_argument("--vectors", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.vectors)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    what = "made-up vectors" if options.store is None else f"embeddings of {options.store.name}"
    print(
        f"{what}, mutual {K} nearest with a cosine of {MIN_SCORE} or more; {platform.machine()}, {cores} cores usable, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, {time.strftime('%Y-%m-%d')}\n"
    )
    print("| spectra | tool | s | of it writing | peak MiB | edges |\n|---:|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        for size in options.sizes:
            vectors = (
                made_up_vectors(size, options.dim)
                if options.store is None
                else real_vectors(options.store, options.model, size)
            )
            np.save(path, vectors)
            for tool in ("ionbed", "matchms"):
                if tool == "matchms" and size > options.matchms_up_to:
                    continue
                found = measured(tool, path)
                seconds = f"{found['seconds']:.1f} | {found['write']:.1f}"
                print(
                    f"| {len(vectors):,} | {tool} | {seconds} | {found['mib']:,.0f} | {found['edges']:,} |", flush=True
                )


if __name__ == "__main__":
    main()

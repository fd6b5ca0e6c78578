"""What 10^6 to 10^9 spectra take: bytes and seconds measured on the commands of this repository, scaled up.

    python benchmarks/scale_estimate.py LIBRARY [--rows 20000] [--json out.json]

LIBRARY is a prepared store. Of its first rows an index and a collection of milvus-lite are built and searched; bytes a
row and rows a second are theirs. What cannot be measured on one machine is an assumption, and is printed as one: what a
GPU does, what Milvus's kinds of index take beside the vectors, and what an hour of a machine costs.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (10**6, 10**7, 10**8, 10**9)


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here; each can be set by an option of the same name."""

    gpu_rows_per_second: float = 10_000.0  # of one GPU, embedding; measure yours with ionbed embed
    gpus: int = 16
    gpu_hour_cost: float = 2.0  # in any currency
    memory_gb_month_cost: float = 3.0
    disk_gb_month_cost: float = 0.1
    hnsw_links: int = 32  # M; a node has 2 M links of 4 bytes on its lowest level
    quantised_share: float = 0.25  # one byte a number in the place of four
    diskann_memory_share: float = 0.2  # of the vectors, compressed, in memory
    milvus_overhead: float = 1.2  # memory beside the index itself
    milvus_writers: int = 16  # processes that add at a time


@dataclass(frozen=True)
class Measured:
    """What was measured, on the machine and the library that the report names."""

    rows: int
    dim: int
    store_bytes_per_row: float
    index_bytes_per_row: float
    vector_bytes_per_row: float
    embed_rows_per_second: float
    index_rows_per_second: float
    milvus_rows_per_second: float
    window_ms_per_query: float
    open_ms_per_query: float
    milvus_window_ms_per_query: float
    milvus_open_ms_per_query: float


@dataclass(frozen=True)
class Estimate:
    """What a number of spectra takes."""

    spectra: int
    engine: str
    store_gb: float
    vectors_gb: float
    disk_gb: float
    memory_gb: float
    embed_hours_here: float
    embed_hours_gpus: float
    add_hours: float
    embed_cost: float
    cost_per_month: float


def main() -> None:
    """Measure, scale, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    for name, value in asdict(Assumptions()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    words = vars(parser.parse_args())
    assumed = Assumptions(**{name: words[name] for name in asdict(Assumptions())})
    measured = measure(words["library"], words["rows"])
    estimates = [estimate(spectra, measured, assumed) for spectra in SIZES]
    report = {"measured": asdict(measured), "assumed": asdict(assumed), "estimates": [asdict(e) for e in estimates]}
    if words["json"]:
        words["json"].write_text(json.dumps(report, indent=1))
    print_report(measured, assumed, estimates)


def measure(library: Path, rows: int) -> Measured:
    """Build and search an index and a collection of milvus-lite of the first rows of a store."""
    import ionbed
    from ionbed.embeddings.hits import EmbeddedQueries
    from ionbed.embeddings.milvus import MilvusStore
    from ionbed.embeddings.milvus_connection import Address
    from ionbed.embeddings.vector_store import IndexStore
    from ionbed.spectra.columns import SpectrumColumns
    from ionbed.spectra.store import SCHEMA, Store

    logging.getLogger("ionbed").setLevel(logging.WARNING)
    store, model = Store(library), ionbed.load_model()
    table = next(store.blocks(SCHEMA.names, range(min(rows, len(store))), rows)).cast(SCHEMA).combine_chunks()
    columns = SpectrumColumns.from_table(table)
    vectors, embed_seconds = timed(lambda: model.embed(columns))
    place = Path(tempfile.mkdtemp(prefix="ionbed-scale-"))
    try:
        index, index_seconds = timed(lambda: IndexStore.create(place / "index", model, table, vectors))
        address = Address(str(place / "m.db"), "library")
        milvus = MilvusStore.create(address, model.model_hash(), vectors.shape[1], expected=len(table))
        _, milvus_seconds = timed(lambda: milvus.add(table, vectors))
        chosen = np.random.default_rng(0).choice(len(table), min(200, len(table)), replace=False)
        queries = EmbeddedQueries(
            vectors[chosen], columns.precursor_mz[chosen], columns.polarity[chosen], model_hash=model.model_hash()
        )
        seconds = {}
        for name, engine in (("", index), ("milvus_", milvus)):
            for kind, ppm in (("window", 10.0), ("open", None)):
                engine.search(queries, 10, ppm)  # once, so that what is mapped is in memory
                _, took = timed(lambda engine=engine, ppm=ppm: engine.search(queries, 10, ppm))
                seconds[f"{name}{kind}_ms_per_query"] = 1e3 * took / len(chosen)
        segments = place / "index" / "segments"
        return Measured(
            rows=len(table),
            dim=vectors.shape[1],
            store_bytes_per_row=sum(shard.stat().st_size for shard in store.shards) / len(store),
            index_bytes_per_row=size_of(segments) / len(table),
            vector_bytes_per_row=vectors.nbytes / len(table),
            embed_rows_per_second=len(table) / embed_seconds,
            index_rows_per_second=len(table) / index_seconds,
            milvus_rows_per_second=len(table) / milvus_seconds,
            **seconds,
        )
    finally:
        shutil.rmtree(place)


def estimate(spectra: int, measured: Measured, assumed: Assumptions) -> Estimate:
    """Scale what was measured to a number of spectra, in the engine that docs/scale.md names for it."""
    from ionbed.embeddings.milvus_collection import choose_kind

    gb = spectra / 1e9
    vectors, on_disk = gb * measured.vector_bytes_per_row, gb * measured.index_bytes_per_row
    if spectra <= 10**7:
        engine, memory, add_seconds = "index", on_disk, spectra / measured.index_rows_per_second
    else:
        kind = choose_kind(spectra)
        engine = f"Milvus {kind}"
        share = {"IVF_SQ8": assumed.quantised_share, "DISKANN": assumed.diskann_memory_share}.get(kind, 1.0)
        links = gb * 8 * assumed.hnsw_links if kind == "HNSW" else 0.0
        memory = (vectors * share + links) * assumed.milvus_overhead
        on_disk += vectors * share + links
        add_seconds = spectra / (measured.milvus_rows_per_second * assumed.milvus_writers)
    gpu_seconds = spectra / assumed.gpu_rows_per_second
    store = gb * measured.store_bytes_per_row
    return Estimate(
        spectra=spectra,
        engine=engine,
        store_gb=store,
        vectors_gb=vectors,
        disk_gb=on_disk,
        memory_gb=memory,
        embed_hours_here=spectra / measured.embed_rows_per_second / 3600,
        embed_hours_gpus=gpu_seconds / assumed.gpus / 3600,
        add_hours=add_seconds / 3600,
        embed_cost=gpu_seconds / 3600 * assumed.gpu_hour_cost,
        cost_per_month=memory * assumed.memory_gb_month_cost + (on_disk + store) * assumed.disk_gb_month_cost,
    )


def print_report(measured: Measured, assumed: Assumptions, estimates: list[Estimate]) -> None:
    """Print what was measured, what was assumed, and the table, in the form that docs/scale.md has it."""
    print(f"measured, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    for name, value in asdict(measured).items():
        print(f"  {name.replace('_', ' '):<28}{shown(value)}")
    print("assumed")
    for name, value in asdict(assumed).items():
        print(f"  {name.replace('_', ' '):<28}{shown(value)}")
    names = list(asdict(estimates[0]))
    print("| " + " | ".join(name.replace("_", " ") for name in names) + " |")
    print("|" + "---|" * len(names))
    for entry in estimates:
        print("| " + " | ".join(shown(value) for value in asdict(entry).values()) + " |")


def shown(value: Any) -> str:
    """Return a number with two figures, or a whole one as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, 1 - math.floor(math.log10(abs(value)))):,.{digits}f}"


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()

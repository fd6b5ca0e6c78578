"""Building, opening and changing an index of a million spectra: times, memory, and what lies on disk.

The spectra are those of a store, repeated with other ids and precursors a few ppm away; their vectors are drawn at
random, so that the encoder, which `embed_speed.py` measures, takes no time. Every step runs in a process of its own.

    python benchmarks/index_open.py STORE --rows 1000000 --work FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ionbed.embeddings.hits import EmbeddedQueries
from ionbed.embeddings.index import Index, build
from ionbed.embeddings.library_edits import append_rows
from ionbed.spectra.store import SCHEMA, Store

DIM = 256
QUERIES = 1000


class DrawnModel:
    """Stands in for the encoder: unit vectors that are drawn for each spectrum, the same whenever it is embedded."""

    def embed(self, spectra, *, progress=False):  # noqa: ANN001, ANN201
        """Return unit vectors, float32 of shape (n_spectra, DIM)."""
        seeds = (np.asarray(spectra.precursor_mz) * 1e9).astype(np.uint64)
        vectors = np.random.default_rng(int(seeds.sum() % (1 << 63))).standard_normal((len(seeds), DIM), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def model_hash(self) -> str:
        """Return a name."""
        return "drawn" * 8

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write a file."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        (Path(save_directory) / "config.json").write_text("{}")


class Repeated(Store):
    """A store whose spectra come again and again, until there are enough of them."""

    def __init__(self, folder: str, rows: int, prefix: str = "") -> None:
        super().__init__(folder)
        self._rows, self._prefix, self._once = rows, prefix, super().table()

    def __len__(self) -> int:
        """Return the number of spectra."""
        return self._rows

    def blocks(self, columns, rows: range, size: int) -> Iterator[pa.Table]:  # noqa: ANN001
        """Yield the spectra, a block at a time."""
        rng = np.random.default_rng(0)
        for begin in range(rows.start, rows.stop, size):
            numbers = np.arange(begin, min(begin + size, rows.stop))
            table = self._once.take(pa.array(numbers % len(self._once))).combine_chunks()
            mz = table["precursor_mz"].to_numpy() * (1 + rng.normal(0, 2e-6, len(table)))
            ids = pc.binary_join_element_wise(
                table["spectrum_id"], pa.array(self._prefix + str(n) for n in numbers), "-"
            )
            table = table.set_column(0, SCHEMA.field("spectrum_id"), ids)
            yield table.set_column(1, SCHEMA.field("precursor_mz"), pa.array(mz)).select(columns)


def step(name: str, store: str, rows: int, folder: Path) -> dict[str, float]:
    """Do one step and return what was measured."""
    model, begin = DrawnModel(), time.perf_counter()
    if name == "build":
        # As `build` does, but of a store that is none on disk.
        import ionbed.embeddings.index as module

        module.source_of = lambda _: Repeated(store, rows)
        build(store, folder, model, kind="flat", overwrite=True)
        return {"s": time.perf_counter() - begin}
    if name == "open":
        Index.open(folder)
        return {"ms": 1000 * (time.perf_counter() - begin)}
    if name in ("window", "open search"):
        index = Index.open(folder)
        some = np.random.default_rng(1).integers(0, index.num_rows, QUERIES)
        queries = EmbeddedQueries(
            index.vectors[some], index.precursor_mz[some], index.polarity[some], model_hash=model.model_hash()
        )
        window = 10.0 if name == "window" else None
        told = {}
        for when in ("first", "again"):
            begin = time.perf_counter()
            hits = index.search(queries, 10, window)
            told[f"{when}, ms a query"] = 1000 * (time.perf_counter() - begin) / QUERIES
            begin = time.perf_counter()
            sum(len(of_query) for of_query in hits)
            told[f"{when}: metadata, ms a query"] = 1000 * (time.perf_counter() - begin) / QUERIES
        return told
    if name == "append":
        append_rows(folder, model, Repeated(store, rows // 100, "new"))
    elif name == "delete":
        Index.open(folder, model).delete(where={"collision_energy": 20.0})
    elif name == "compact":
        Index.open(folder, model).compact()
    elif name == "verify":
        Index.open(folder).verify()
    return {"s": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="a folder written by 'ionbed prepare'")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the index; about 3 kB a row")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.work / "index"
    if options.step:
        told = step(options.step, options.store, options.rows, folder)
        told["MB of memory at most"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(told))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    print(f"{options.rows:,} rows of {DIM} numbers; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for name in ("build", "open", "window", "open search", "verify", "append", "open", "delete", "open", "compact"):
        command = [sys.executable, __file__, options.store, "--rows", str(options.rows), "--work", str(options.work)]
        runs = [
            json.loads(subprocess.run([*command, "--step", name], check=True, stdout=subprocess.PIPE).stdout)
            for _ in range(5 if name == "open" else 1)
        ]
        figures = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        told = ", ".join(f"{key}: {value:.2f}" for key, value in figures.items())
        print(f"{name}: {told} ({size / 1e9:.2f} GB on disk)", flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

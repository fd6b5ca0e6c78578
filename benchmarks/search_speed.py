"""Time per query: the index within a precursor window and openly, beside Flash entropy on the same spectra.

    python benchmarks/search_speed.py                       # 100,000 library spectra
    python benchmarks/search_speed.py --spectra 1000000     # some 6 GB of memory and some minutes

The library holds jittered copies of made-up molecules. What is timed does not depend on what the vectors mean, so they
are jittered copies too; the time to embed a query with the real architecture is a line of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from ionbed.embeddings.hits import EmbeddedQueries
from ionbed.embeddings.index import Index
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import SCHEMA, spectra_from_table

K = 10
PRECURSOR_PPM = 10.0
FRAGMENT_DA = 0.02
COPIES_PER_MOLECULE = 20
NUM_PEAKS = 20


class JitteredVectors:
    """Stands in for a model: each molecule has a random direction, each of its spectra one near it."""

    def __init__(self, molecule_mz: np.ndarray, dim: int) -> None:
        self.molecule_mz = molecule_mz  # ascending
        self.rng = np.random.default_rng(1)
        self.directions = self.rng.normal(size=(len(molecule_mz), dim)).astype(np.float32)

    def embed(self, spectra: Iterable[Spectrum] | SpectrumColumns, *, progress: bool = False) -> np.ndarray:
        """Return one vector per spectrum, by its precursor."""
        columns = spectra if isinstance(spectra, SpectrumColumns) else SpectrumColumns.from_spectra(list(spectra))
        edges = (self.molecule_mz[1:] + self.molecule_mz[:-1]) / 2
        vectors = self.directions[np.searchsorted(edges, columns.precursor_mz)]
        vectors += 0.3 * self.rng.standard_normal(vectors.shape, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def model_hash(self) -> str:
        """Return a fixed text: nothing else is compared with it."""
        return "jittered vectors"

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> object:
        """Refuse: an index of made-up vectors is of no use to anyone."""
        raise NotImplementedError("an index of made-up vectors is not saved")


def made_up_library(num_spectra: int, rng: np.random.Generator) -> tuple[pa.Table, np.ndarray]:
    """Return a table of jittered spectra and the precursor m/z of their molecules, ascending."""
    num_molecules = max(1, num_spectra // COPIES_PER_MOLECULE)
    molecule_mz = np.sort(rng.uniform(100, 1000, num_molecules))
    fragments = np.sort(rng.uniform(0.05, 0.98, (num_molecules, NUM_PEAKS)), axis=1) * molecule_mz[:, None]
    molecule = np.arange(num_spectra) % num_molecules
    precursor_mz = molecule_mz[molecule] * (1 + 1e-6 * rng.normal(size=num_spectra))
    mz = np.sort(fragments[molecule] * (1 + 2e-6 * rng.normal(size=(num_spectra, NUM_PEAKS))), axis=1)
    intensity = rng.lognormal(sigma=1.5, size=mz.shape)
    intensity /= intensity.max(axis=1, keepdims=True)
    offsets = pa.array(np.arange(num_spectra + 1) * NUM_PEAKS, pa.int32())
    columns = {
        "spectrum_id": pa.array([f"s{i}" for i in range(num_spectra)]),
        "precursor_mz": pa.array(precursor_mz),
        "polarity": pa.array(np.ones(num_spectra, np.int8)),
        "predicted": pa.array(np.zeros(num_spectra, bool)),
        "mz": pa.ListArray.from_arrays(offsets, pa.array(mz.ravel(), pa.float32())),
        "intensity": pa.ListArray.from_arrays(offsets, pa.array(intensity.ravel(), pa.float32())),
    }
    return pa.table([columns.get(f.name, pa.nulls(num_spectra, f.type)) for f in SCHEMA], schema=SCHEMA), molecule_mz


def milliseconds_each(search: Callable[[int], object], count: int) -> float:
    """Return the median time of ``search(i)`` over ``count`` queries, after one that is not timed."""
    search(0)
    times = []
    for i in range(count):
        start = time.perf_counter()
        search(i)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def milliseconds_together(search: Callable[[], object], count: int) -> float:
    """Return the time of one call for ``count`` queries, divided by their number: the best of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        search()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times) / count


def time_index(table: pa.Table, queries: list[Spectrum], molecule_mz: np.ndarray, dim: int, singles: int) -> list[list]:
    model = JitteredVectors(molecule_mz, dim)
    index = Index.build(model, table)
    columns = SpectrumColumns.from_spectra(queries)
    embedded = EmbeddedQueries(model.embed(columns), columns.precursor_mz, columns.polarity, model.model_hash())
    rows = []
    for label, ppm in ((f"ionbed, within {PRECURSOR_PPM:g} ppm", PRECURSOR_PPM), ("ionbed, open", None)):

        def one(i: int, ppm: float | None = ppm) -> object:
            part = slice(i, i + 1)
            query = dataclasses.replace(
                embedded,
                vectors=embedded.vectors[part],
                precursor_mz=embedded.precursor_mz[part],
                polarity=embedded.polarity[part],
            )
            return index.search(query, K, ppm)

        def together(ppm: float | None = ppm) -> object:
            return index.search(embedded, K, ppm)

        rows.append([label, milliseconds_each(one, singles), milliseconds_together(together, len(queries))])
    return rows


def time_embedding(queries: list[Spectrum], singles: int) -> list:
    from ionbed.encoder.configuration_ionbed import IonbedConfig
    from ionbed.encoder.modeling_ionbed import IonbedModel

    model = IonbedModel(IonbedConfig()).eval()
    num_parameters = sum(p.numel() for p in model.parameters())
    one = milliseconds_each(lambda i: model.embed(queries[i : i + 1]), singles)
    together = milliseconds_together(lambda: model.embed(queries), len(queries))
    return [f"embedding the query ({num_parameters / 1e6:.1f} M parameters)", one, together]


def time_flash_entropy(table: pa.Table, queries: list[Spectrum], singles: int) -> list[list]:
    from ms_entropy import FlashEntropySearch

    offsets = table["mz"].combine_chunks().offsets.to_numpy()
    peaks = np.stack([table[n].combine_chunks().values.to_numpy() for n in ("mz", "intensity")], axis=1)
    library = [
        {"precursor_mz": precursor, "peaks": peaks[start:stop].copy()}
        for precursor, start, stop in zip(table["precursor_mz"].to_pylist(), offsets[:-1], offsets[1:], strict=True)
    ]
    flash = FlashEntropySearch(max_ms2_tolerance_in_da=1.2 * FRAGMENT_DA)
    flash.build_index(library)
    cleaned = [
        flash.clean_spectrum_for_search(q.precursor_mz, np.stack([q.mz, q.intensity], axis=1))
        for q in queries[:singles]
    ]

    def identity(i: int) -> object:
        precursor = queries[i].precursor_mz
        return best(flash.identity_search(precursor, cleaned[i], precursor * PRECURSOR_PPM * 1e-6, FRAGMENT_DA))

    def open_search(i: int) -> object:
        return best(flash.open_search(cleaned[i], FRAGMENT_DA))

    def best(scores: np.ndarray) -> np.ndarray:
        return np.argpartition(-scores, K)[:K]

    return [
        [f"Flash entropy, within {PRECURSOR_PPM:g} ppm", milliseconds_each(identity, singles), None],
        ["Flash entropy, open", milliseconds_each(open_search, singles), None],
    ]


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=100_000, help="in the library (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=1000, help="searched together (default: %(default)s)")
    parser.add_argument("--singles", type=int, default=100, help="searched one by one (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=256, help="of the vectors (default: %(default)s)")
    options = parser.parse_args()
    if not 1 <= options.singles <= options.queries <= options.spectra or options.spectra <= K or options.dim < 1:
        parser.error(f"needs 1 <= singles <= queries <= spectra, more than {K} spectra, and a positive dim")

    rng = np.random.default_rng(0)
    table, molecule_mz = made_up_library(options.spectra, rng)
    chosen = rng.choice(options.spectra, options.queries, replace=False)
    queries = list(spectra_from_table(table.take(pa.array(chosen))))
    rows = time_index(table, queries, molecule_mz, options.dim, options.singles)
    rows.append(time_embedding(queries, options.singles))
    rows += time_flash_entropy(table, queries, options.singles)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{options.spectra:,} library spectra of {NUM_PEAKS} peaks, vectors of {options.dim} dimensions, "
        f"{K} hits; {processor()}, {cores} cores usable, Python {platform.python_version()}, "
        f"{time.strftime('%Y-%m-%d')}\n"
    )
    print(f"| ms per query | one at a time (median) | {options.queries:,} at once |\n|---|---:|---:|")
    for label, one, together in rows:
        print(f"| {label} | {one:.2f} | {'' if together is None else f'{together:.3f}'} |")


if __name__ == "__main__":
    main()

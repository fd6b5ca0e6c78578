"""A library of any size for the benchmarks of search: spectra and their embeddings, each repeated with jitter."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ionbed.artifacts import sha256_of_file, write_manifest
from ionbed.embeddings.recall import molecules_of
from ionbed.encoder.loading import load_model
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import SCHEMA, Store, write_shard

VECTOR_JITTER = 0.217
"""Length of the noise that is added to a unit vector: two copies then have a cosine of 0.955, the median of two spectra
of one molecule at one energy and polarity in MassBank."""
PRECURSOR_JITTER, FRAGMENT_JITTER = 1e-6, 2e-6
INTENSITY_JITTER = 0.2

NUM_MADE_UP = 5000
PEAKS_MADE_UP = 20
HELD_OUT_SHARE = 0.06
SEED = 0
ROWS_PER_SHARD = 50_000


@dataclass(frozen=True, eq=False)
class Source:
    """Spectra with peaks, as the store has them, and their embeddings.

    Attributes
    ----------
    table : pyarrow.Table of the store's schema
    vectors : float32 array of shape (n, dim)
    model : IonbedModel
        That embedded them.
    description : str
    """

    table: pa.Table
    vectors: np.ndarray
    model: IonbedModel
    description: str

    def take(self, rows: np.ndarray) -> Source:
        """Return some of them."""
        return Source(self.table.take(pa.array(rows)), self.vectors[rows], self.model, self.description)

    def held_out(self) -> tuple[Source, Source]:
        """Return spectra of which to make a library, and others, of other molecules, to search it with."""
        keys = [(key or f"row {i}")[:14] for i, key in enumerate(self.table["inchikey"].to_pylist())]
        _, molecule = np.unique(keys, return_inverse=True)
        drawn = np.random.default_rng(SEED).random(molecule.max() + 1) < HELD_OUT_SHARE
        return self.take(np.flatnonzero(~drawn[molecule])), self.take(np.flatnonzero(drawn[molecule]))

    @property
    def precursor_mz(self) -> np.ndarray:
        """Float64 of shape (n,)."""
        return self.table["precursor_mz"].to_numpy()

    @property
    def polarity(self) -> np.ndarray:
        """Int8 of shape (n,), 0 where unknown."""
        return self.table["polarity"].fill_null(0).to_numpy().astype(np.int8)

    @property
    def molecules(self) -> np.ndarray:
        """A number for each first block of an InChIKey, int64 of shape (n,); -1 where there is none."""
        return molecules_of(self.table["inchikey"])


@dataclass(frozen=True, eq=False)
class Copies:
    """A library in precursor order: of which spectrum of the source each row is a copy, and its own precursor."""

    source: Source
    rows: np.ndarray
    precursor_mz: np.ndarray

    @classmethod
    def of(cls, source: Source, num_spectra: int) -> Copies:
        """Draw ``num_spectra`` copies, as many of each spectrum."""
        rng = np.random.default_rng(SEED)
        rows = np.resize(rng.permutation(len(source.table)), num_spectra)
        precursor_mz = source.precursor_mz[rows] * (1 + PRECURSOR_JITTER * rng.standard_normal(num_spectra))
        order = np.argsort(precursor_mz, kind="stable")
        return cls(source, rows[order], precursor_mz[order])

    def write_vectors(self, path: Path) -> np.ndarray:
        """Write the embeddings as an ``.npy`` file and return it mapped, float32 of shape (n, dim)."""
        shape = (len(self.rows), self.source.vectors.shape[1])
        file = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for begin in range(0, len(self.rows), 1 << 16):
            file[begin : begin + (1 << 16)] = self.vectors(np.arange(begin, min(begin + (1 << 16), len(self.rows))))
        file.flush()
        return np.load(path, mmap_mode="r")

    def vectors(self, copies: np.ndarray) -> np.ndarray:
        """Return the embeddings of some rows; the jitter of a run of rows follows from its first."""
        vectors = self.source.vectors[self.rows[copies]]
        rng = np.random.default_rng([SEED, int(copies[0]) if len(copies) else 0])
        vectors = vectors + VECTOR_JITTER / np.sqrt(vectors.shape[1]) * rng.standard_normal(vectors.shape, np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def write_store(self, folder: Path) -> None:
        """Write the copies as a prepared store, in precursor order."""
        folder.mkdir(parents=True)
        shards = []
        for begin in range(0, len(self.rows), ROWS_PER_SHARD):
            table = self.table(begin, min(begin + ROWS_PER_SHARD, len(self.rows)))
            name = f"spectra-{len(shards):05}.parquet"
            write_shard(table, folder / name)
            shards.append({"file": name, "spectra": len(table), "sha256": sha256_of_file(folder / name)})
        write_manifest(folder, {"command": "prepare", "counts": {"kept": len(self.rows)}, "shards": shards})

    def table(self, begin: int, end: int) -> pa.Table:
        """Return the rows ``begin:end`` as the store has them, with jittered peaks and unique ids."""
        rng = np.random.default_rng([SEED, begin])
        table = self.source.table.take(pa.array(self.rows[begin:end])).combine_chunks()
        peaks = {name: table[name].combine_chunks() for name in ("mz", "intensity")}
        offsets = peaks["mz"].offsets
        mz, intensity = (peaks[name].flatten().to_numpy() for name in ("mz", "intensity"))
        mz = mz * (1 + FRAGMENT_JITTER * rng.standard_normal(len(mz), np.float32))
        intensity = intensity * np.exp(INTENSITY_JITTER * rng.standard_normal(len(intensity), np.float32))
        starts = offsets.to_numpy()
        intensity /= np.repeat(np.maximum.reduceat(intensity, starts[:-1]), np.diff(starts))
        changed = {
            "spectrum_id": pa.array([f"copy-{i}" for i in range(begin, end)]),
            "precursor_mz": pa.array(self.precursor_mz[begin:end]),
            "mz": pa.ListArray.from_arrays(offsets, pa.array(_ascending(mz, starts), pa.float32())),
            "intensity": pa.ListArray.from_arrays(offsets, pa.array(intensity, pa.float32())),
        }
        return pa.table([changed.get(name, table[name]) for name in SCHEMA.names], schema=SCHEMA)


class CopiesModel:
    """Gives copies the embeddings that they were made with; in all else the model of their source."""

    def __init__(self, copies: Copies) -> None:
        self._copies, self._model = copies, copies.source.model

    def embed(self, spectra: Iterable[Spectrum] | SpectrumColumns, *, progress: bool = False) -> np.ndarray:
        """Return one vector per spectrum, by its precursor, which no two copies share."""
        columns = spectra if isinstance(spectra, SpectrumColumns) else SpectrumColumns.from_spectra(list(spectra))
        return self._copies.vectors(np.searchsorted(self._copies.precursor_mz, columns.precursor_mz))

    def model_hash(self) -> str:
        """Return the model's hash."""
        return self._model.model_hash()

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> object:
        """Write the model."""
        return self._model.save_pretrained(save_directory)


def further_copies(library: Source, num_queries: int) -> Source:
    """Return copies of some spectra that are in no library."""
    rows = np.sort(np.random.default_rng(3).choice(len(library.table), min(num_queries, len(library.table)), False))
    copies = Copies.of(library.take(rows), len(rows))
    vectors = copies.vectors(np.arange(len(rows)))
    return Source(copies.table(0, len(rows)), vectors, library.model, library.description)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--store`` and ``--embeddings``."""
    store = os.environ.get("IONBED_STORE")
    parser.add_argument("--store", type=Path, default=store, help="a prepared store; otherwise spectra are made up")
    parser.add_argument(
        "--embeddings", type=Path, help="of the store, as 'ionbed embed' writes them; otherwise they are worked out"
    )


def source_of(options: argparse.Namespace) -> Source:
    """Return the spectra of the store, or made-up ones, embedded with the model that ships with the package."""
    model = load_model()
    table = Store(options.store).table() if options.store else made_up(NUM_MADE_UP)
    kept = pc.greater(pc.list_value_length(table["mz"]), 0)
    if options.embeddings:
        embedded = pq.read_table(options.embeddings)
        if embedded["spectrum_id"].to_pylist() != table["spectrum_id"].to_pylist():
            raise SystemExit(f"{options.embeddings}: holds other spectra than {options.store}")
        flat = embedded["embedding"].combine_chunks().flatten().to_numpy()
        vectors = flat.reshape(len(table), -1)[kept.to_numpy()]
        table = table.filter(kept)
    else:
        table = table.filter(kept)
        vectors = model.embed(SpectrumColumns.from_table(table), progress=True)
    what = f"{len(table):,} spectra of {options.store.name}" if options.store else f"{len(table):,} made-up spectra"
    return Source(table.select(SCHEMA.names).cast(SCHEMA), vectors, model, what)


def library_and_queries(options: argparse.Namespace) -> tuple[Source, Source]:
    """Return the spectra that a library is made of, and queries of molecules of which it has nothing."""
    library, left_out = source_of(options).held_out()
    chosen = np.random.default_rng(1).permutation(len(left_out.table))[: options.queries]
    return library, left_out.take(np.sort(chosen))


def made_up(num_spectra: int) -> pa.Table:
    """Return spectra of made-up molecules, five of each."""
    rng = np.random.default_rng(SEED)
    num_molecules = -(-num_spectra // 5)
    molecule = np.arange(num_spectra) // 5
    precursor_mz = np.round(rng.uniform(100, 1000, num_molecules), 4)[molecule]
    fragments = np.sort(rng.uniform(0.1, 0.98, (num_molecules, PEAKS_MADE_UP)), axis=1)[molecule]
    intensity = rng.lognormal(sigma=1.5, size=fragments.shape)
    offsets = pa.array(np.arange(num_spectra + 1) * PEAKS_MADE_UP, pa.int32())
    columns = {
        "spectrum_id": pa.array([f"made-up-{i}" for i in range(num_spectra)]),
        "inchikey": pa.array([f"{number:014d}-UHFFFAOYSA-N" for number in molecule.tolist()]),
        "precursor_mz": pa.array(precursor_mz),
        "polarity": pa.array(np.where(molecule % 3, 1, -1).astype(np.int8)),
        "predicted": pa.array(np.zeros(num_spectra, bool)),
        "mz": pa.ListArray.from_arrays(offsets, pa.array((fragments * precursor_mz[:, None]).ravel(), pa.float32())),
        "intensity": pa.ListArray.from_arrays(
            offsets, pa.array((intensity / intensity.max(axis=1, keepdims=True)).ravel(), pa.float32())
        ),
    }
    columns |= {name: pa.array([[]] * num_spectra, pa.list_(pa.string())) for name in ("repairs", "flags")}
    return pa.table([columns.get(f.name, pa.nulls(num_spectra, f.type)) for f in SCHEMA], schema=SCHEMA)


def machine() -> str:
    """Return processor, cores, load, Python and date, as a line of a report has them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = names[0] if names else platform.processor() or platform.machine()
    load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    return f"{processor}, {cores} cores usable, {load}Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"


def _ascending(mz: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sort the m/z of each spectrum; jitter swaps peaks that are nearer than it."""
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return mz[np.lexsort((mz, owner))]

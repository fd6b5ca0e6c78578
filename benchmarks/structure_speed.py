"""Time to build an index of structures, part by part, and to search in it.

    python benchmarks/structure_speed.py molecules.tsv.gz              # all of the file
    python benchmarks/structure_speed.py molecules.tsv.gz --every 8    # each eighth entry

The model has the architecture of the shipped one and random weights: what is timed does not depend on them. Times
are of the processor: what one core takes that does nothing else.
"""

from __future__ import annotations

import argparse
import inspect
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ionbed import Spectrum, StructureIndex, load_model
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.adducts import adduct_mz, normalise_adduct
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.molecule_files import read_molecules

NUM_QUERIES = 1000
Result = TypeVar("Result")


class TimedModel:
    """Embeds structures and says how long that takes; embeddings of spectra are random, and take no time."""

    def __init__(self) -> None:
        shipped = load_model().config.to_dict()
        known = {name: shipped[name] for name in inspect.signature(IonbedConfig).parameters if name in shipped}
        self.model = IonbedModel(IonbedConfig(**{**known, "molecule_tower": 512})).eval()

    def embed(self, spectra: Iterable[Spectrum] | SpectrumColumns, *, progress: bool = False) -> np.ndarray:
        """Return unit vectors."""
        count = len(spectra) if isinstance(spectra, SpectrumColumns) else len(list(spectra))
        vectors = np.random.default_rng(0).standard_normal((count, self.model.config.output_dim), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def embed_molecules(self, smiles: Sequence[str], *, workers: int | None = 1, progress: bool = False) -> np.ndarray:
        """Embed structures."""
        if not len(smiles):
            return self.model.embed_molecules(smiles)
        return timed(f"embed {len(smiles):,} structures", 1, "s", lambda: self.model.embed_molecules(smiles))

    def model_hash(self) -> str:
        """Return a fixed text: nothing else is compared with it."""
        return "random weights"

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> object:
        """Refuse: an index of random vectors is of no use to anyone."""
        raise NotImplementedError("an index of random vectors is not saved")


def main() -> None:
    """Time the parts and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("molecules", type=Path)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    print(platform.processor() or platform.machine(), platform.python_version())
    entries = timed("read the file", 1, "s", lambda: read_molecules(options.molecules))[:: options.every]
    model = TimedModel()
    index = timed(f"build, of {len(entries):,} entries", 1, "s", lambda: StructureIndex.build(model, entries))
    print(f"{len(index):,} structures; {index.manifest['counts']}")
    queries = made_up_queries(index)
    for label, count, search in (
        ("search within 10 ppm, adduct known", NUM_QUERIES, lambda: index.search(queries)),
        ("search within 10 ppm, one query at a time", 100, lambda: [index.search([q]) for q in queries[:100]]),
        ("search by formula", NUM_QUERIES, lambda: index.search(queries, formula="query")),
        ("search of all structures", 100, lambda: index.search(queries[:100], precursor_ppm=None)),
    ):
        search()
        timed(label, count, "ms a query", search)
    counts = index.search(queries).num_candidates
    print(f"candidates within 10 ppm: median {np.median(counts):.0f}, most {counts.max()}")


def timed(label: str, count: int, unit: str, work: Callable[[], Result]) -> Result:
    """Run ``work``, print how long the processor took for one of ``count``, and return what it gives."""
    start = time.process_time()
    result = work()
    seconds = (time.process_time() - start) / count
    print(f"{label}: {seconds * (1000 if unit.startswith('ms') else 1):.2f} {unit}")
    return result


def made_up_queries(index: StructureIndex) -> list[Spectrum]:
    """Return spectra with the precursors of random structures."""
    adduct = normalise_adduct("[M+H]+")
    assert adduct is not None
    peak = np.array([50.0], np.float32), np.array([1.0], np.float32)
    rows = np.random.default_rng(0).integers(len(index), size=NUM_QUERIES)
    formulas = index.metadata["formula"].take(rows).to_pylist()
    return [
        Spectrum(f"q{n}", adduct_mz(mass, adduct), *peak, polarity=1, adduct=adduct.name, formula=formula)
        for n, (mass, formula) in enumerate(zip(index.mass[rows].tolist(), formulas, strict=True))
    ]


if __name__ == "__main__":
    main()

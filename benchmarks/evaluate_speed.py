"""Time of everything in `ionbed evaluate` that grows with queries and library: the look-ups, judging, strata.

    python benchmarks/evaluate_speed.py                     # 10,000 queries against 80,000 spectra
    python benchmarks/evaluate_speed.py --queries 1000      # a quick figure

The spectra are made up: molecules of many isomers, each measured several times in two laboratories. All four look-ups
and their analogue transfer answer library, open-world and analogue search, pairs of spectra and retrieval by mass,
beside chance, the precursor alone and a row of random vectors that stands for a model. Left out is what a model takes
to embed, MCES distances, trained baselines, audits and the drawing of the page. At the end each look-up is timed
beside the published program on the same cleaned peaks.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ionbed.artifacts import write_manifest
from ionbed.evaluation.baselines.lookup_record import require_evaluation_packages
from ionbed.evaluation.baselines.lookups import lookup_entries, lookup_scorers
from ionbed.evaluation.baselines.transfer import TransferOptions, transfer_entries
from ionbed.evaluation.candidates import Candidates
from ionbed.evaluation.comparisons import (
    ANALOGUE_SEARCH,
    LIBRARY_SEARCH,
    OPEN_WORLD_SEARCH,
    RETRIEVAL_BY_MASS,
    SAME_MOLECULE_ANY_PARTNER,
)
from ionbed.evaluation.dataset import EvaluationData, load_evaluation_data
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.measure import measure
from ionbed.evaluation.question import ask
from ionbed.evaluation.retrieval import RetrievalOptions
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.scorers import Chance, Learned, PrecursorOnly
from ionbed.evaluation.tasks import AnalogueSearchOptions, LibrarySearchOptions
from ionbed.spectra.lookups import clean_peaks
from ionbed.spectra.split import Split
from ionbed.spectra.store import SCHEMA, Store, write_shard

QUESTIONS = (SAME_MOLECULE_ANY_PARTNER, LIBRARY_SEARCH, OPEN_WORLD_SEARCH, ANALOGUE_SEARCH, RETRIEVAL_BY_MASS)
PEER_QUERIES = 500
SPECTRA_PER_MOLECULE = 10
PROTON = 1.007276
ISOMERS = 4


def made_up_table(num_molecules: int, rng: np.random.Generator) -> pa.Table:
    """Return spectra of made-up molecules, `SPECTRA_PER_MOLECULE` each; every `ISOMERS` share a precursor m/z."""
    precursors = 120.0 + 600.0 * rng.beta(2, 3, -(-num_molecules // ISOMERS))
    molecule = np.repeat(np.arange(num_molecules), SPECTRA_PER_MOLECULE)
    precursor_mz = precursors[molecule // ISOMERS]
    offsets, mz, intensity = [0], [], []
    for precursor in precursors[np.arange(num_molecules) // ISOMERS]:
        # Fragments crowd where real ones do: near whole numbers, with a mass defect that grows with the mass.
        size = int(np.clip(rng.lognormal(3.2, 0.6), 4, 150))
        whole = rng.integers(40, int(precursor) + 1, size)
        own = np.unique(whole + 0.0005 * whole + rng.normal(0, 0.02, size))
        heights = rng.lognormal(0, 1.8, len(own))
        for _ in range(SPECTRA_PER_MOLECULE):
            kept = rng.random(len(own)) < 0.8
            kept[0] = True
            mz.append(np.sort(own[kept] + rng.normal(0, 0.001, int(kept.sum()))))
            drawn = heights[kept] * rng.lognormal(0, 0.5, int(kept.sum()))
            intensity.append(drawn / drawn.max())
            offsets.append(offsets[-1] + int(kept.sum()))
    count = len(molecule)
    columns = {
        "spectrum_id": pa.array([f"s{i}" for i in range(count)]),
        "precursor_mz": pa.array(precursor_mz),
        "polarity": pa.array(np.ones(count, np.int8)),
        "adduct": pa.array(["[M+H]+"] * count),
        "collision_energy": pa.array(rng.choice([10.0, 20.0, 40.0, np.nan], count).astype(np.float32)),
        "instrument_type": pa.array(rng.choice(["QTOF", "Orbitrap"], count)),
        "laboratory": pa.array(np.where(np.arange(count) % 2, "Alpha", "Beta")),
        "inchikey": pa.array([f"{block(number)}-UHFFFAOYSA-N" for number in molecule.tolist()]),
        "smiles": pa.array(["C" * (1 + number) for number in (molecule % 40).tolist()]),
        "predicted": pa.array(np.zeros(count, bool)),
        "repairs": pa.array([[]] * count, pa.list_(pa.string())),
        "flags": pa.array([[]] * count, pa.list_(pa.string())),
        "mz": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(mz), pa.float32())),
        "intensity": pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), pa.array(np.concatenate(intensity), pa.float32())
        ),
    }
    return pa.table([columns.get(f.name, pa.nulls(count, f.type)).cast(f.type) for f in SCHEMA], schema=SCHEMA)


def block(molecule: int) -> str:
    """Return the first InChIKey block of a made-up molecule."""
    letters = "".join(chr(ord("A") + (molecule // 26**k) % 26) for k in range(4))
    return f"TESTMOLECU{letters}"


def made_up_data(folder: Path, queries: int, library: int, rng: np.random.Generator) -> EvaluationData:
    """Return spectra of which ``queries`` are of the fold 'test' and ``library`` of 'train'."""
    num_test, num_train = queries // SPECTRA_PER_MOLECULE, library // SPECTRA_PER_MOLECULE
    write_shard(made_up_table(num_test + num_train, rng), folder / "spectra-00000.parquet")
    shards = [{"file": "spectra-00000.parquet", "spectra": (num_test + num_train) * SPECTRA_PER_MOLECULE}]
    write_manifest(folder, {"command": "prepare", "shards": shards})
    is_test = np.zeros(num_test + num_train, bool)
    is_test[rng.permutation(num_test + num_train)[:num_test]] = True
    folds = {block(number): "test" if test else "train" for number, test in enumerate(is_test.tolist())}
    return load_evaluation_data(Store(folder), Split("inchikey-block", 0, folds))


def made_up_candidates(data: EvaluationData, rng: np.random.Generator) -> Candidates:
    """Return the molecules of the data with random fingerprints, of the mass that their precursor says."""
    count = len(data.inchikey_block)
    mass = np.zeros(count)
    mass[data.molecule] = data.columns.precursor_mz - PROTON
    fingerprint = rng.integers(0, 256, (count, 256), np.uint8) & rng.integers(0, 256, (count, 256), np.uint8)
    blocks = data.inchikey_block.astype(object)
    return Candidates(
        blocks, data.smiles, mass, np.full(count, "", object), np.zeros(count, np.int64), np.arange(count), fingerprint,
        ("store",),
    )  # fmt: skip


class Clock:
    """Adds up seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Count the time inside."""
        start = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start


def rows_of(config: EvaluationConfig, data: EvaluationData, rng: np.random.Generator) -> list[Entry]:
    """Return the rows of the tables that need no training."""
    vectors = rng.normal(size=(len(data), 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lookups = lookup_entries(config.lookups, workers=config.workers)
    return [
        Entry("random", "reference", (lambda data, candidates, rows: Chance(),)),
        Entry("precursor only", "blind", (lambda data, candidates, rows: PrecursorOnly(data.columns),)),
        *lookups,
        *transfer_entries(lookups, TransferOptions()),
        Entry(
            "vectors", "learned", (lambda data, candidates, rows: Learned("vectors", np.arange(len(data)), vectors),)
        ),
    ]


class Timed:
    """A scorer whose scoring a clock counts."""

    def __init__(self, scorer: Any, clock: Clock) -> None:
        self._scorer, self._clock = scorer, clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._scorer, name)
        if name not in ("scores", "pair_scores", "score_structures"):
            return found

        def counted(*rows: np.ndarray) -> np.ndarray:
            with self._clock(self._scorer.label):
                return found(*rows)

        return counted


def timed(entry: Entry, clock: Clock) -> Entry:
    """Return the row with its preparation and its scoring counted."""

    def build(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> Any:
        with clock(f"{entry.label}: preparing"):
            scorer = entry.builds[0](data, molecules, rows)
        return Timed(scorer, clock)

    return replace(entry, builds=(build,))


def peer_times(data: EvaluationData, config: EvaluationConfig, num_queries: int) -> list[tuple[str, float, str, float]]:
    """Return, for each look-up, seconds of ours and of the published program on the same cleaned peaks, one thread.

    An analogue search of ``num_queries`` queries, the index of the library included.
    """
    require_evaluation_packages()
    from matchms import Spectrum
    from matchms.similarity import FlashSimilarity
    from ms_entropy import FlashEntropySearch

    options = config.lookups
    queries, library = data.rows_in("test")[:num_queries], data.rows_in("train")
    peaks = clean_peaks(data.columns, options)
    precursor_mz = data.columns.precursor_mz

    def spectrum(row: int) -> Spectrum:
        mz, intensity = peaks[row].astype(np.float64).T
        return Spectrum(
            mz=np.ascontiguousarray(mz),
            intensities=intensity**options.cosine_intensity_power,
            metadata={"precursor_mz": float(precursor_mz[row])},
            metadata_harmonization=False,
        )

    asked, searched = ([spectrum(row) for row in rows] for rows in (queries, library))
    own = {scorer.label: scorer for scorer in lookup_scorers(data.columns, options, workers=1)}
    for scorer in own.values():
        scorer.scores(queries[:1], library[:100])  # compiles

    def cosine(mode: Literal["fragment", "hybrid"]) -> None:
        similarity = FlashSimilarity(
            score_type="cosine", matching_mode=mode, tolerance=options.tolerance_da, remove_precursor=False,
            noise_cutoff=0.0, normalize_to_half=False, merge_within=0.0,
        )  # fmt: skip
        with contextlib.redirect_stderr(io.StringIO()):  # it draws a bar of its own
            similarity.matrix(asked, searched, n_jobs=1)

    def entropy(mode: Literal["open", "hybrid"]) -> None:
        search = FlashEntropySearch(max_ms2_tolerance_in_da=options.tolerance_da)
        search.build_index(
            [{"precursor_mz": float(precursor_mz[row]), "peaks": peaks[row]} for row in library if len(peaks[row])],
            clean_spectra=False,
        )
        for row in queries:
            if mode == "open":
                search.open_search(peaks[row], options.tolerance_da)
            else:
                search.hybrid_search(float(precursor_mz[row]), peaks[row], options.tolerance_da)

    peers: list[tuple[str, str, Callable[[], None]]] = [
        ("cosine", "matchms FlashSimilarity", lambda: cosine("fragment")),
        ("modified cosine", "matchms FlashSimilarity", lambda: cosine("hybrid")),
        ("spectral entropy", "ms_entropy FlashEntropySearch", lambda: entropy("open")),
        ("hybrid entropy", "ms_entropy FlashEntropySearch", lambda: entropy("hybrid")),
    ]
    return [
        (label, seconds_of(partial(own[label].scores, queries, library)), name, seconds_of(run))
        for label, name, run in peers
    ]


def seconds_of(run: Callable[[], object]) -> float:
    """Return what a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000, help="spectra of the fold 'test' (default: %(default)s)")
    parser.add_argument(
        "--library", type=int, default=80_000, help="spectra of the fold 'train' (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, help="threads (default: all cores)")
    options = parser.parse_args()
    if not 100 <= options.queries <= options.library:
        parser.error("needs at least 100 queries, and a library at least as large")
    rng, clock = np.random.default_rng(0), Clock()
    with tempfile.TemporaryDirectory() as folder:
        data = made_up_data(Path(folder), options.queries, options.library, rng)
    molecules = made_up_candidates(data, rng)
    config = EvaluationConfig(
        Path("made-up"),
        Path("made-up"),
        workers=options.workers,
        library_search=LibrarySearchOptions(max_queries_per_molecule=SPECTRA_PER_MOLECULE),
        analogue_search=AnalogueSearchOptions(max_queries_per_molecule=SPECTRA_PER_MOLECULE),
        retrieval=RetrievalOptions(max_queries_per_molecule=SPECTRA_PER_MOLECULE),
    )
    start = time.perf_counter()
    with clock("drawing queries and candidates"):
        drawn = [ask(name, data, molecules, config) for name in QUESTIONS]
    questions = [question for question in drawn if question is not None]
    rows = [timed(row, clock) for row in rows_of(config, data, rng)]
    measure(questions, data, molecules, rows, config.bootstrap, seed=config.seed)
    total = time.perf_counter() - start
    clock.seconds["the rest: ranking, averages, intervals, strata, tests"] = total - sum(clock.seconds.values())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    unit = 2**20 if sys.platform == "linux" else 2**30  # ru_maxrss is in KiB on Linux, in bytes on macOS
    peaks = len(data.columns.mz) / len(data)
    print(
        f"{options.queries:,} queries, {options.library:,} library spectra, {peaks:.0f} peaks each; {processor()}, "
        f"{cores} cores usable, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n"
    )
    print("queries: " + ", ".join(f"{question.name} {len(question.found.queries):,}" for question in questions) + "\n")
    print("| what | s |\n|---|---:|")
    for what, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        if seconds >= 0.05:
            print(f"| {what} | {seconds:.1f} |")
    print(f"| in all | {total:.1f} |")
    num_peer = min(PEER_QUERIES, options.queries)
    print(f"\nThe look-ups alone: {num_peer} queries against the library, index included, one thread, seconds\n")
    print("| look-up | ionbed | published program | its time |\n|---|---:|---|---:|")
    for label, seconds, name, of_peer in peer_times(data, config, num_peer):
        print(f"| {label} | {seconds:.1f} | {name} | {of_peer:.1f} |")
    print(f"\nat most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB of memory")


if __name__ == "__main__":
    main()

"""Time per query in a large library: within a precursor window and openly, beside Flash entropy on the same spectra.

    python benchmarks/search_speed.py --store STORE --spectra 1000000     # some 10 GB of memory and disk, half an hour
    python benchmarks/search_speed.py                                     # 100,000 copies of made-up spectra

The library is made of copies of real spectra, with jitter of peaks, precursors and embeddings (benchmarks/jittered.py).
Openly it is searched with spectra of molecules of which it holds nothing, within a window with further copies of its
spectra. "With metadata" includes names, structures and the like of every hit. Recall is that of an open search, against
scores of every row. The last table is a file of queries: from MGF text to a table of hits, beside embedding alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from index_kinds import recall
from jittered import Copies, CopiesModel, Source, add_source_options, further_copies, library_and_queries, machine

from ionbed.embeddings.hits import EmbeddedQueries
from ionbed.embeddings.index import Index, build
from ionbed.embeddings.kinds import search
from ionbed.embeddings.nearest import nearest_of_all
from ionbed.embeddings.search_options import SearchOptions
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.store import Store, spectra_from_table
from ionbed.spectra.writers import write_mgf

K = 10
PRECURSOR_PPM = 10.0
FRAGMENT_DA = 0.02
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-flash", action="store_true", help="leave Flash entropy out")
    options = parsed(parser, queries=2000, singles=100)
    library, left_out = library_and_queries(options)
    copies = Copies.of(library, options.spectra)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        copies.write_store(work / "store")
        start = time.perf_counter()
        build(work / "store", work / "index", CopiesModel(copies), kind=options.kind)
        built_s = time.perf_counter() - start
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            index = Index.open(work / "index")
            times.append(time.perf_counter() - start)
        open_ms = 1e3 * statistics.median(times)
        further = further_copies(library, options.queries)
        rows = time_index(index, left_out, further, options.singles)
        rows.append(time_embedding(left_out, options.singles))
        whole = time_file(index, left_out, work)
        found, hardest = open_recall(index, left_out)
        segment = index.manifest["segments"][0]
        if not options.without_flash:
            table = Store(work / "store").table(["precursor_mz", "mz", "intensity"])
            rows += time_flash_entropy(table, left_out, further, options.singles)

    print(
        f"{options.spectra:,} copies with jitter of {library.description}, {index.vectors.shape[1]} dimensions, index "
        f"of the kind {segment['kind']} (built in {built_s:.0f} s from stored embeddings, opened in {open_ms:.0f} ms), "
        f"{len(left_out.table):,} queries, {K} hits; {machine()}\n"
    )
    print_milliseconds(rows)
    print(f"\nOpen search: recall@{K} {found:.4f}, of the hardest tenth {hardest:.4f}\n")
    print("| spectra/s | file of queries | share of embedding alone |\n|---|---:|---:|")
    for label, per_second, share in whole:
        print(f"| {label} | {per_second:,.0f} | {share:.0%} |")


def parsed(parser: argparse.ArgumentParser, *, queries: int, singles: int) -> argparse.Namespace:
    """Return the options, with those of every benchmark of this kind; the numbers are what is searched by default."""
    parser.add_argument("--spectra", type=int, default=100_000, help="in the library (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=queries, help="searched together (default: %(default)s)")
    parser.add_argument("--singles", type=int, default=singles, help="searched one by one (default: %(default)s)")
    parser.add_argument("--kind", default="auto", help="of the index (default: by its size)")
    parser.add_argument("--work", type=Path, help="folder for the index (default: a temporary one)")
    add_source_options(parser)
    options = parser.parse_args()
    if not 1 <= options.singles <= options.queries <= options.spectra or options.spectra <= K:
        parser.error(f"needs 1 <= singles <= queries <= spectra, and more than {K} spectra")
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    return options


def print_milliseconds(rows: list[list]) -> None:
    """Print the table of times per query."""
    print("| ms per query | one at a time (median) | all at once |\n|---|---:|---:|")
    for label, one, together in rows:
        print(f"| {label} | {one:.2f} | {'' if together is None else f'{together:.3f}'} |")


def embedded(index: Index, queries: Source) -> EmbeddedQueries:
    """Return queries with the embeddings that they have."""
    return EmbeddedQueries(queries.vectors, queries.precursor_mz, queries.polarity, index.manifest["model_hash"])


def time_index(index: Index, left_out: Source, further: Source, singles: int) -> list[list]:
    rows = []
    for where, queries, ppm in (
        (f"within {PRECURSOR_PPM:g} ppm", embedded(index, further), PRECURSOR_PPM),
        ("open", embedded(index, left_out), None),
    ):
        for label, names in ((f"ionbed, {where}", False), (f"ionbed, {where}, with metadata", True)):

            def run(
                part: slice, queries: EmbeddedQueries = queries, ppm: float | None = ppm, names: bool = names
            ) -> object:
                asked = dataclasses.replace(
                    queries,
                    vectors=queries.vectors[part],
                    precursor_mz=queries.precursor_mz[part],
                    polarity=queries.polarity[part],
                )
                hits = index.search(asked, K, ppm)
                return list(hits) if names else hits

            rows.append([label, *milliseconds(run, len(queries.precursor_mz), singles)])
    return rows


def time_embedding(queries: Source, singles: int) -> list:
    spectra = SpectrumColumns.from_table(queries.table)
    num_parameters = sum(p.numel() for p in queries.model.parameters())
    one = milliseconds_each(lambda i: queries.model.embed(spectra.take(np.array([i]))), min(singles, len(spectra)))
    start = time.perf_counter()
    queries.model.embed(spectra)
    together = 1e3 * (time.perf_counter() - start) / len(spectra)
    return [f"embedding the query ({num_parameters / 1e6:.1f} M parameters)", one, together]


def time_file(index: Index, queries: Source, work: Path) -> list[tuple[str, float, float]]:
    """Return spectra/s from MGF text to hits, and as a share of embedding alone, which is measured before and after."""
    path = work / "queries.mgf"
    spectra = list(spectra_from_table(queries.table))
    write_mgf(spectra, path)
    columns = SpectrumColumns.from_spectra(spectra)
    assert index.model is not None  # loaded before the clock starts
    within, openly = (SearchOptions(K, ppm, score="cosine") for ppm in (PRECURSOR_PPM, None))
    runs: dict[str, Callable[[], object]] = {
        "embedding alone": lambda: index.model.embed(columns),
        f"MGF to hits, within {PRECURSOR_PPM:g} ppm": lambda: search(index, path, work / "hits.tsv", within),
        "MGF to hits, open": lambda: search(index, path, work / "hits.tsv", openly),
    }
    times: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(ROUNDS):
        for label, run in runs.items():
            start = time.perf_counter()
            run()
            times[label].append(time.perf_counter() - start)
    alone = statistics.median(times["embedding alone"])
    medians = {label: statistics.median(of_run) for label, of_run in times.items()}
    return [(label, len(spectra) / seconds, alone / seconds) for label, seconds in medians.items()]


def open_recall(index: Index, queries: Source) -> tuple[float, float]:
    """Return recall@10 of an open search, of all queries and of the hardest tenth."""
    found = index.search(embedded(index, queries), K, None)
    exact = nearest_of_all(index.vectors, index.polarity, queries.vectors, queries.polarity, K)
    return recall(found, exact)


def time_flash_entropy(table: pa.Table, left_out: Source, further: Source, singles: int) -> list[list]:
    from ms_entropy import FlashEntropySearch

    def peaks_of(spectra: pa.Table) -> list[np.ndarray]:
        of_all = []
        for part in spectra.to_batches():
            offsets = part["mz"].offsets.to_numpy()
            peaks = np.stack([part[name].values.to_numpy() for name in ("mz", "intensity")], axis=1)
            of_all += [peaks[start:stop] for start, stop in itertools.pairwise(offsets)]
        return of_all

    flash = FlashEntropySearch(max_ms2_tolerance_in_da=1.2 * FRAGMENT_DA)
    flash.build_index(
        [
            {"precursor_mz": precursor, "peaks": peaks}
            for precursor, peaks in zip(table["precursor_mz"].to_pylist(), peaks_of(table), strict=True)
        ]
    )

    def cleaned(queries: Source) -> list[tuple[float, np.ndarray]]:
        asked = zip(queries.precursor_mz.tolist(), peaks_of(queries.table), strict=True)
        of_all = [(precursor, flash.clean_spectrum_for_search(precursor, peaks)) for precursor, peaks in asked]
        return [(precursor, peaks) for precursor, peaks in of_all if len(peaks)][:singles]

    def best(scores: np.ndarray) -> np.ndarray:
        return np.argpartition(-scores, K)[:K]

    near, other = cleaned(further), cleaned(left_out)
    tolerance = PRECURSOR_PPM * 1e-6
    runs: dict[str, tuple[Callable[[int], object], int]] = {
        f"Flash entropy, within {PRECURSOR_PPM:g} ppm": (
            lambda i: best(flash.identity_search(*near[i], near[i][0] * tolerance, FRAGMENT_DA)),
            len(near),
        ),
        "Flash entropy, open": (lambda i: best(flash.open_search(other[i][1], FRAGMENT_DA)), len(other)),
        "Flash entropy, hybrid (open)": (lambda i: best(flash.hybrid_search(*other[i], FRAGMENT_DA)), len(other)),
    }
    return [[label, milliseconds_each(run, count), None] for label, (run, count) in runs.items()]


def milliseconds(run: Callable[[slice], object], count: int, singles: int) -> tuple[float, float]:
    """Return the time of a query alone, and of one among ``count``."""
    return milliseconds_each(lambda i: run(slice(i, i + 1)), singles), milliseconds_together(
        lambda: run(slice(0, count)), count
    )


def milliseconds_each(run: Callable[[int], object], count: int) -> float:
    """Return the median time of ``run(i)`` over ``count`` queries, after one that is not timed."""
    run(0)
    times = []
    for i in range(count):
        start = time.perf_counter()
        run(i)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def milliseconds_together(run: Callable[[], object], count: int) -> float:
    """Return the time of one call for ``count`` queries, divided by their number: the best of three calls."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times) / count


if __name__ == "__main__":
    main()

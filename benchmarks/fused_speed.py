"""Time and memory of searches by the fused score, beside the cosine, Flash entropy and matchms on the same spectra.

    python benchmarks/fused_speed.py --store STORE --embeddings EMBEDDINGS --spectra 1000000   # some 15 GB of memory
    python benchmarks/fused_speed.py                                      # 100,000 copies of made-up spectra

Library and queries are those of benchmarks/search_speed.py. All searches begin with stored embeddings; the first one of
each kind, which cleans library peaks or makes the index of all of them, stands by itself. The last table is a file of
queries: from MGF text to a table of hits, beside embedding alone; the first time, and when library peaks are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from jittered import Copies, CopiesModel, Source, further_copies, library_and_queries, machine
from search_speed import (
    FRAGMENT_DA,
    PRECURSOR_PPM,
    ROUNDS,
    K,
    milliseconds,
    milliseconds_each,
    parsed,
    print_milliseconds,
    time_embedding,
    time_flash_entropy,
)

from ionbed.embeddings.fused_search import open_memory
from ionbed.embeddings.hits import EmbeddedQueries, ScoreName
from ionbed.embeddings.index import Index, build
from ionbed.embeddings.kinds import search
from ionbed.embeddings.search_options import SearchOptions
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.store import Store, spectra_from_table
from ionbed.spectra.writers import write_mgf

MATCHMS_PAIRS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-peers", action="store_true", help="leave Flash entropy and matchms out")
    options = parsed(parser, queries=1000, singles=50)
    library, left_out = library_and_queries(options)
    copies = Copies.of(library, options.spectra)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        copies.write_store(work / "store")
        build(work / "store", work / "index", CopiesModel(copies), kind=options.kind)
        index = Index.open(work / "index")
        further = further_copies(library, options.queries)
        # The machine code of the loops is on disk after the first use of an installation; it is loaded here.
        compiled = Index.build(library.model, list(spectra_from_table(library.table.slice(0, 20))))
        for ppm in (PRECURSOR_PPM, None):
            compiled.search(compiled.embed(list(spectra_from_table(library.table.slice(0, 2)))), K, ppm, "fused")
        kind = index.manifest["segments"][0]["kind"]
        first, rows = time_index(index, further, left_out, options.singles)
        rows.append(time_embedding(left_out, options.singles))
        whole = list(time_file(Index.open(work / "index"), left_out, work))
        if not options.without_peers:
            table = Store(work / "store").table(["precursor_mz", "mz", "intensity"])
            rows += time_flash_entropy(table, left_out, further, options.singles)
            pairs = time_matchms(further, left_out)

    print(
        f"{options.spectra:,} copies with jitter of {library.description}, {index.vectors.shape[1]} dimensions, index "
        f"of the kind {kind}, {len(left_out.table):,} queries, {K} hits; {machine()}\n"
    )
    print("| the first search | s | MB of memory more |\n|---|---:|---:|")
    for label, seconds, more in first:
        print(f"| {label} | {seconds:.2f} | {more / 1e6:,.0f} |")
    print(f"\nEstimated before an open search: {open_memory(index.library) / 1e6:,.0f} MB at the most\n")
    print_milliseconds(rows)
    if not options.without_peers:
        print("\n| microseconds per pair of spectra | |\n|---|---:|")
        for label, each in pairs:
            print(f"| {label} | {each:.1f} |")
    print("\n| spectra/s | file of queries | share of embedding alone | share the first time |\n|---|---:|---:|---:|")
    for label, per_second, share, at_first in whole:
        print(f"| {label} | {per_second:,.0f} | {share:.0%} | {at_first:.0%} |")


def embedded(index: Index, queries: Source) -> EmbeddedQueries:
    """Return queries with the embeddings that they have, and their peaks."""
    columns = SpectrumColumns.from_table(queries.table)
    return EmbeddedQueries(
        queries.vectors, queries.precursor_mz, queries.polarity, index.manifest["model_hash"], columns
    )


def part_of(queries: EmbeddedQueries, part: slice) -> EmbeddedQueries:
    assert queries.columns is not None
    return dataclasses.replace(
        queries,
        vectors=queries.vectors[part],
        precursor_mz=queries.precursor_mz[part],
        polarity=queries.polarity[part],
        columns=queries.columns.take(np.arange(len(queries.precursor_mz))[part]),
    )


def time_index(index: Index, further: Source, left_out: Source, singles: int) -> tuple[list[tuple], list[list]]:
    """Return seconds and bytes of each first search, and milliseconds of those that follow."""
    first, rows = [], []
    for where, source, ppm in (
        (f"within {PRECURSOR_PPM:g} ppm", further, PRECURSOR_PPM),
        ("open", left_out, None),
    ):
        queries = embedded(index, source)
        count = len(queries.precursor_mz)
        for label, part in (("one query", slice(0, 1)), (f"{count:,} queries", slice(0, count))):
            before, start = memory(), time.perf_counter()
            index.search(part_of(queries, part), K, ppm, "fused")
            first.append((f"{label}, {where}", time.perf_counter() - start, max(0, highest_memory() - before)))
        scores: tuple[ScoreName, ...] = ("cosine", "fused")
        for score in scores:
            for names in (False, True):

                def run(
                    part: slice,
                    queries: EmbeddedQueries = queries,
                    ppm: float | None = ppm,
                    score: ScoreName = score,
                    names: bool = names,
                ) -> object:
                    hits = index.search(part_of(queries, part), K, ppm, score)
                    return list(hits) if names else hits

                label = f"ionbed {score}, {where}{', with metadata' if names else ''}"
                rows.append([label, *milliseconds(run, count, singles)])
    return first, rows


def memory() -> int:
    """Return the bytes that this process has in memory."""
    used: int = psutil.Process().memory_info().rss
    return used


def highest_memory() -> int:
    """Return the most bytes that this process has had in memory."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def time_file(index: Index, queries: Source, work: Path) -> Iterator[tuple[str, float, float, float]]:
    """Yield spectra/s from MGF text to hits, as a share of embedding alone, and that share the first time.

    Embedding and searching take turns, so that both meet the same load.
    """
    path = work / "queries.mgf"
    spectra = list(spectra_from_table(queries.table))
    write_mgf(spectra, path)
    columns = SpectrumColumns.from_spectra(spectra)
    assert index.model is not None  # loaded before the clock starts
    runs: dict[str, Callable[[], object]] = {
        f"MGF to hits by {score}, {where}": lambda score=score, ppm=ppm: search(
            index, path, work / "hits.tsv", SearchOptions(K, ppm, score=score)
        )
        for where, ppm in ((f"within {PRECURSOR_PPM:g} ppm", PRECURSOR_PPM), ("open", None))
        for score in ("cosine", "fused")
    }
    alone, of_first, times = [], {}, {label: [] for label in runs}
    for turn in range(ROUNDS + 1):
        alone.append(seconds(lambda: index.model.embed(columns)))
        for label, run in runs.items():
            taken = seconds(run)
            if turn:
                times[label].append(taken)
            else:
                of_first[label] = taken
    embedding = statistics.median(alone)
    yield "embedding alone", len(spectra) / embedding, 1.0, 1.0
    for label, of_label in times.items():
        usual = statistics.median(of_label)
        yield label, len(spectra) / usual, embedding / usual, embedding / of_first[label]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def time_matchms(library: Source, queries: Source) -> list[tuple[str, float]]:
    """Return microseconds per pair of a query of either search."""
    import matchms
    from matchms.similarity import CosineGreedy, ModifiedCosineGreedy

    def spectra(source: Source) -> list[matchms.Spectrum]:
        return [
            matchms.Spectrum(
                mz=np.asarray(s.mz, float),
                intensities=np.asarray(s.intensity, float),
                metadata={"precursor_mz": s.precursor_mz},
            )
            for s in spectra_from_table(source.table.slice(0, MATCHMS_PAIRS))
        ]

    pairs = list(zip(spectra(library), spectra(queries), strict=False))
    return [
        (
            f"matchms {type(score).__name__}",
            1e3 * milliseconds_each(lambda i, score=score: score.pair(*pairs[i]), len(pairs)),
        )
        for score in (CosineGreedy(tolerance=FRAGMENT_DA), ModifiedCosineGreedy(tolerance=FRAGMENT_DA))
    ]


if __name__ == "__main__":
    main()

"""Kinds of index by size: time and memory to build, time to open and to search, and recall of molecules left out.

    python benchmarks/index_kinds.py --store STORE --spectra 10000 100000 1000000
    python benchmarks/index_kinds.py                  # made-up spectra, 10,000 and 100,000 of them

The rule of `ionbed.embeddings.approximate.choose_kind` and the share of rows under which every row is scored are read
off these tables. The library is made of copies of real spectra with jitter (benchmarks/jittered.py); the queries are
spectra of molecules of which it holds nothing, and the settings are chosen as for any index, without them. Each kind is
built in a process of its own, whose memory is read while it builds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jittered import Copies, add_source_options, library_and_queries, machine

from ionbed.embeddings import approximate
from ionbed.embeddings.approximate import (
    AnnKind,
    AnnSettings,
    build_ann,
    choose_kind,
    memory_needed,
    nearest_approximate,
    open_ann,
    write_ann,
)
from ionbed.embeddings.nearest import Nearest, nearest_of_all
from ionbed.embeddings.recall import measure_recall

K = 10
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
Search = Callable[[np.ndarray, np.ndarray], Nearest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, nargs="+", default=[10_000, 100_000], help="in the library")
    parser.add_argument("--kinds", nargs="+", default=list(get_args(AnnKind)), choices=get_args(AnnKind))
    parser.add_argument("--queries", type=int, default=1000, help="at most (default: %(default)s)")
    parser.add_argument("--singles", type=int, default=100, help="searched one by one (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for the files (default: a temporary one)")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "KIND"), help=argparse.SUPPRESS)
    add_source_options(parser)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(Path(options.one[0]), options.one[1], options.singles)))
        return

    library, queries = library_and_queries(options)
    results: list[dict[str, Any]] = []
    for num_spectra in options.spectra:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            copies = Copies.of(library, num_spectra)
            copies.write_vectors(Path(folder) / "vectors.npy")
            np.save(Path(folder) / "polarity.npy", library.polarity[copies.rows])
            np.save(Path(folder) / "molecules.npy", library.molecules[copies.rows])
            np.save(Path(folder) / "queries.npy", queries.vectors)
            np.save(Path(folder) / "query_polarity.npy", queries.polarity)
            for kind in options.kinds:
                command = [sys.executable, __file__, "--one", folder, kind, "--singles", str(options.singles)]
                answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results.append({"spectra": num_spectra, **json.loads(answer.stdout)})
    report(results, len(queries.table), library.vectors.shape[1], library.description)


def measure(folder: Path, kind: AnnKind, singles: int) -> dict[str, Any]:
    """Build, open and search one kind."""
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    vectors, polarity, molecules = arrays["vectors"], np.array(arrays["polarity"]), np.array(arrays["molecules"])
    queries, signs = np.array(arrays["queries"]), np.array(arrays["query_polarity"])
    vectors = np.asarray(vectors)
    exact = nearest_of_all(vectors, polarity, queries, signs, K)
    result: dict[str, Any] = {"kind": kind, "dim": vectors.shape[1]}
    if kind == "flat":
        result |= speed(lambda q, s: nearest_of_all(vectors, polarity, q, s, K), queries, signs, singles)
        return result
    path = folder / f"{kind}.faiss"
    with PeakMemory() as peak:
        start = time.perf_counter()
        index = build_ann(vectors, kind)
        result["build_s"] = time.perf_counter() - start
    result["build_mb"] = peak.megabytes
    start = time.perf_counter()
    measured = measure_recall(index, kind, vectors, polarity, molecules)
    result["measure_s"] = time.perf_counter() - start
    write_ann(index, path)
    result["file_mb"] = path.stat().st_size / 1e6
    needed = memory_needed(kind, len(vectors), vectors.shape[1])
    result["estimated_file_mb"], result["estimated_build_mb"] = needed.disk / 1e6, needed.build / 1e6
    start = time.perf_counter()
    index = open_ann(path, kind)
    result["open_ms"] = 1e3 * (time.perf_counter() - start)

    def search(some: np.ndarray, of: np.ndarray, allowed: np.ndarray | None = None) -> Nearest:
        return nearest_approximate(index, measured.settings, vectors, polarity, some, of, K, allowed)

    approximate.FLAT_UP_TO, approximate.MIN_SHARE = 0, 0.0  # measured here is what these are chosen by
    result |= measured.to_dict()
    result |= speed(search, queries, signs, singles)
    result["recall_of_queries"], result["recall_of_hardest"] = recall(search(queries, signs), exact)
    result["shares"] = [
        share_of_rows(share, search, index, measured.settings, vectors, polarity, queries[:200], signs[:200])
        for share in SHARES
    ]
    return result


def speed(search: Search, queries: np.ndarray, signs: np.ndarray, singles: int) -> dict[str, float]:
    """Return milliseconds per query: the median of queries one by one, and the best of three calls with all."""
    search(queries[:1], signs[:1])
    alone, together = [], []
    for i in range(min(singles, len(queries))):
        start = time.perf_counter()
        search(queries[i : i + 1], signs[i : i + 1])
        alone.append(time.perf_counter() - start)
    for _ in range(3):
        start = time.perf_counter()
        search(queries, signs)
        together.append(time.perf_counter() - start)
    return {"one_ms": 1e3 * statistics.median(alone), "together_ms": 1e3 * min(together) / len(queries)}


def recall(found: Nearest, exact: Nearest) -> tuple[float, float]:
    """Return recall@10 of all queries, and of the tenth whose nearest row is least similar."""
    wanted = (exact.rows >= 0).sum(axis=1)
    last = exact.scores[np.arange(len(wanted)), np.maximum(wanted - 1, 0)]
    of_each = np.where(wanted > 0, (found.scores >= last[:, None]).sum(axis=1) / np.maximum(wanted, 1), 1.0)
    hardest = np.argsort(exact.scores[:, 0], kind="stable")[: max(1, len(wanted) // 10)]
    return float(of_each.mean()), float(of_each[hardest].mean())


def share_of_rows(
    share: float,
    search: Callable[..., Nearest],
    index: Any,
    settings: AnnSettings,
    vectors: np.ndarray,
    polarity: np.ndarray,
    queries: np.ndarray,
    signs: np.ndarray,
) -> dict[str, float]:
    """Return recall and time where rows drawn at random may be hits, and the time to score every one of them."""
    allowed = np.random.default_rng(2).random(len(vectors)) < share
    exact = nearest_of_all(vectors, polarity, queries, signs, K, allowed)
    as_tuned = nearest_approximate(index, settings, vectors, polarity, queries, signs, K, allowed, is_as_set=True)
    return {
        "share": share,
        "as_tuned": recall(as_tuned, exact)[0],
        "recall": recall(search(queries, signs, allowed), exact)[0],
        **speed(lambda q, s: search(q, s, allowed), queries, signs, 20),
        **{
            f"exact_{name}": value
            for name, value in speed(
                lambda q, s: nearest_of_all(vectors, polarity, q, s, K, allowed), queries, signs, 10
            ).items()
        },
    }


class PeakMemory:
    """Reads the private memory of this process (RssAnon: without files that are mapped) every 20 ms, on Linux."""

    def __enter__(self) -> PeakMemory:
        self._before = self._peak = _private_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        """What was added at most."""
        return (self._peak - self._before) / 1e6

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, _private_bytes())


def _private_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def report(results: list[dict[str, Any]], num_queries: int, dim: int, source: str) -> None:
    print(
        f"Copies with jitter of {source}, {dim} dimensions; {num_queries:,} queries of molecules left out, {K} hits; "
        f"{machine()}\n"
    )
    print(
        "| spectra | kind | build s | building MB (estimate) | file MB (estimate) | open ms | "
        "lists or breadth, depth | recall@10 stated, hardest tenth | of the queries, hardest tenth | one query ms | "
        "together ms | chosen |\n"
        "|---:|---|---:|---:|---:|---:|---|---|---|---:|---:|---|"
    )
    for r in results:
        chosen = "yes" if choose_kind(r["spectra"], r["dim"]) == r["kind"] else ""
        if r["kind"] == "flat":
            cells = ["", "", "", "", "", "1 (exact)", "1 (exact)"]
        else:
            cells = [
                f"{r['build_s']:.1f} + {r['measure_s']:.1f}",
                f"{r['build_mb']:.0f} ({r['estimated_build_mb']:.0f})",
                f"{r['file_mb']:.0f} ({r['estimated_file_mb']:.0f})",
                f"{r['open_ms']:.1f}",
                f"{r['settings']['effort']}, {r['settings']['depth']}",
                f"{r['recall']:.4f}, {r['hardest_decile']:.3f}",
                f"{r['recall_of_queries']:.4f}, {r['recall_of_hardest']:.3f}",
            ]
        cells += [f"{r['one_ms']:.2f}", f"{r['together_ms']:.3f}", chosen]
        print(f"| {r['spectra']:,} | {r['kind']} | " + " | ".join(cells) + " |")
    print(
        "\nWhere only a share of the rows may be hits:\n\n| spectra | kind | share | recall@10 as tuned | "
        "looking further | one query ms | together ms | every such row scored: one ms | together ms |\n"
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for r in results:
        for s in r.get("shares", ()):
            numbers = (s["one_ms"], s["together_ms"], s["exact_one_ms"], s["exact_together_ms"])
            print(
                f"| {r['spectra']:,} | {r['kind']} | {s['share']:g} | {s['as_tuned']:.4f} | {s['recall']:.4f} | "
                + " | ".join(f"{number:.2f}" for number in numbers)
                + " |"
            )


if __name__ == "__main__":
    main()

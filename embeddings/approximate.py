"""Approximate search of a large library: FAISS proposes rows, which are ranked by their own exact inner products.

Kinds of index: ``flat`` (none: every row is scored), ``hnsw`` (a graph of neighbours; Malkov and Yashunin 2020,
doi:10.1109/TPAMI.2018.2889473), ``ivf-sq8`` and ``ivf-pq`` (inverted lists with codes of 8 bits a number or of product
quantisation; Jégou et al. 2011, doi:10.1109/TPAMI.2010.57).
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ..errors import InputError
from .nearest import (
    MAX_SCORES_AT_ONCE,
    Nearest,
    highest_set,
    nearest_in_windows,
    nearest_of_all,
    nearest_of_proposed,
    usable_rows,
)

if TYPE_CHECKING:
    import faiss

AnnKind = Literal["flat", "hnsw", "ivf-sq8", "ivf-pq"]
"""How the rows that may be hits of an open search are found."""

FLAT_UP_TO = 50_000
"""Rows of 256 numbers up to which every one is scored: a query alone took 0.6 ms at 10,000 and 29 ms at 100,000, on a
busy machine (benchmarks/index_kinds.py)."""
SQ8_UP_TO = 20_000_000
"""Rows up to which lists keep 8 bits a number: 5 GB then, worked out by `memory_needed` and not measured."""
DIM_OF_RULE = 256

MIN_ROWS = 1000
"""Fewer cannot train an approximate index, and are scored sooner than they are looked up."""

MIN_SHARE = 0.1
"""Where fewer of the rows than this share may be hits, all of these are scored. Of 100,000 rows that took less time for
queries together, at this share and below, than to look far enough in lists or in a graph; at a fiftieth a graph took
over a hundred times as long (benchmarks/index_kinds.py)."""

MAX_K = 100
"""More hits than this are searched exactly: what was measured for ten says too little of them."""

GRAPH_NEIGHBORS = 32
GRAPH_BUILD_BREADTH = 80
TRAINING_ROWS_PER_LIST = 40
MIN_TRAINING_ROWS = 10_000
"""For 256 codes, of which FAISS wants forty rows each."""
TRAINING_ROUNDS = 10
MIN_ROWS_PER_LIST = 40
PQ_NUMBERS_PER_CODE = 4
QUERIES_PER_THREAD = 16
"""FAISS compares fewer than 20 queries with the centres of the lists one by one, and more by a matrix product, whose
rounding depends on how many there are: a query's hits would depend on the queries beside it."""

OVER_QUERIES = 3
"""FAISS's `IndexIVF.parallel_mode` with which a search of lists that are given takes a query for each thread; by itself
it uses one thread alone."""

_CENTRES: weakref.WeakKeyDictionary[Any, np.ndarray] = weakref.WeakKeyDictionary()

MEASURED_K = 10
"""Hits that settings are chosen for; depth and effort grow with more of them."""


@dataclass(frozen=True)
class AnnSettings:
    """How an approximate index is searched.

    Attributes
    ----------
    kind : AnnKind
    effort : int
        Lists visited (nprobe), or breadth of the walk through the graph (efSearch; never less than the depth); 0 where
        every row is scored.
    depth : int
        Candidates that are ranked exactly for ten hits; 0 where every row is scored.
    """

    kind: AnnKind
    effort: int = 0
    depth: int = 0


@dataclass(frozen=True)
class MemoryNeeded:
    """Bytes that an approximate index takes, beside the vectors themselves and their metadata.

    Attributes
    ----------
    disk : int
        The file; mapped into memory, so that as much of it as is free is kept there.
    build : int
        Memory while it is built.
    """

    disk: int
    build: int


def choose_kind(num_rows: int, dim: int) -> AnnKind:
    """Return the kind for a library of this size.

    Every row is scored (`flat`) as long as that takes some milliseconds for a query alone. Beyond that, inverted lists
    with 8 bits a number; product quantisation takes a quarter of their space and is chosen where they would outgrow the
    memory of one machine. A graph of 100,000 rows was searched in a third of the time of lists, but built in ten times
    theirs (benchmarks/index_kinds.py); it takes twice their space, and finds less of molecules that it never held than
    can be measured with it: it is for those who ask for it. The sizes are for vectors of 256 numbers, and go with
    1 / ``dim``.
    """
    size = num_rows * dim / DIM_OF_RULE
    if size <= FLAT_UP_TO or num_rows < MIN_ROWS:
        return "flat"
    return "ivf-sq8" if size <= SQ8_UP_TO else "ivf-pq"


def build_ann(vectors: np.ndarray, kind: AnnKind, *, seed: int = 0) -> faiss.Index:
    """Build a FAISS index of unit vectors, searched by inner product; equal input and seed give equal bytes.

    Lists and codes are trained with a sample of the rows. A graph is built on one core: on several it would depend on
    their timing.

    Parameters
    ----------
    vectors : float32 array of shape (n_rows, dim)
        Rows of unit length.
    kind : AnnKind
        Another than 'flat', which needs no index.
    seed : int

    Raises
    ------
    InputError
        There are fewer than `MIN_ROWS` rows.
    """
    faiss = _faiss()
    check_kind(kind, len(vectors))
    if kind == "flat":
        raise ValueError("a flat search scores the vectors themselves; there is nothing to build")
    num_rows, dim = vectors.shape
    num_lists = lists_of(num_rows)
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, GRAPH_NEIGHBORS, metric)
        index.hnsw.efConstruction = GRAPH_BUILD_BREADTH
    else:
        centres = faiss.IndexFlatIP(dim)
        if kind == "ivf-sq8":
            index = faiss.IndexIVFScalarQuantizer(centres, dim, num_lists, faiss.ScalarQuantizer.QT_8bit, metric, False)
        else:
            index = faiss.IndexIVFPQ(centres, dim, num_lists, codes_of(dim), 8, metric)
            index.pq.cp.seed = seed
        index.cp.seed, index.cp.niter = seed, TRAINING_ROUNDS
        index.cp.max_points_per_centroid = TRAINING_ROWS_PER_LIST
    index.train(_sample(vectors, max(MIN_TRAINING_ROWS, TRAINING_ROWS_PER_LIST * num_lists), seed))
    with _threads(1 if kind == "hnsw" else None):
        index.add(np.ascontiguousarray(vectors, np.float32))
    return index


def write_ann(index: faiss.Index, path: str | os.PathLike[str]) -> None:
    """Write an approximate index as a FAISS file."""
    import faiss

    faiss.write_index(index, str(path))


def open_ann(path: str | os.PathLike[str], kind: AnnKind) -> faiss.Index:
    """Open a FAISS file; what it holds stays on disk and is mapped into memory.

    Raises
    ------
    InputError
        The file cannot be read, or is no index of this kind.
    """
    import faiss

    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: is damaged ({reason}); build the index again") from None
    found = {
        faiss.IndexHNSWSQ: "hnsw",
        faiss.IndexIVFScalarQuantizer: "ivf-sq8",
        faiss.IndexIVFPQ: "ivf-pq",
    }.get(type(index))
    if found != kind or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise InputError(f"{path}: is no index of the kind {kind}, which its manifest names; build the index again")
    return index


def nearest_approximate(
    index: faiss.Index,
    settings: AnnSettings,
    vectors: np.ndarray,
    polarity: np.ndarray,
    queries: np.ndarray,
    query_polarity: np.ndarray,
    k: int,
    allowed: np.ndarray | None = None,
    windows: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    is_as_set: bool = False,
) -> Nearest:
    """Return about the best ``k`` rows of each query, leaving out the other polarity.

    What is found has its exact score and is ranked by it, equal scores in the order of the rows, as in
    `ionbed.embeddings.nearest`; `ionbed.embeddings.recall` measures how much is missed. A result does not depend on
    what else is searched with it.

    The more rows may not be hits, the further an approximate search has to look: lists and breadth grow with one over
    the share of rows that may be. Where that share is under `MIN_SHARE`, or no more than `FLAT_UP_TO` rows are left,
    or more than `MAX_K` hits are wanted, every row that may be a hit is scored, and the result is exact.

    Parameters
    ----------
    index : faiss.Index
        From `build_ann` or `open_ann`.
    settings : AnnSettings
    vectors : float32 array of shape (n_library, dim)
        Rows of unit length.
    polarity : int8 array of shape (n_library,)
        +1, -1, or 0 where unknown.
    queries : float32 array of shape (n_queries, dim)
        Rows of unit length.
    query_polarity : int8 array of shape (n_queries,)
    k : int
    allowed : bool array of shape (n_library,), optional
        Rows that may be hits; by default all.
    windows : (start, stop), int64 arrays of shape (n_queries,), optional
        Only the rows ``start:stop`` may be hits of a query; by default all.
    is_as_set : bool
        Neither to score every row nor to look further, however few may be hits: to measure settings by. Not with
        ``windows``, and not for more than `MAX_K` hits.
    """
    if k > MAX_K:
        if windows is None:
            return nearest_of_all(vectors, polarity, queries, query_polarity, k, allowed)
        return nearest_in_windows(vectors, polarity, queries, query_polarity, *windows, k, allowed)
    if windows is not None:
        return _in_windows(index, settings, vectors, polarity, queries, query_polarity, k, allowed, *windows)
    result = Nearest.empty(len(queries), k)
    for group, usable in usable_rows(polarity, query_polarity, allowed):
        num_usable = int(np.count_nonzero(usable))
        if not is_as_set and _is_few(num_usable, len(vectors)):
            signs = query_polarity[group]
            found = nearest_of_all(vectors, polarity, queries[group], signs, k, allowed)
        else:
            times = 1.0
            if not is_as_set and allowed is not None:
                times = _num_compatible(polarity, query_polarity[group[0]]) / num_usable
            selector = None if num_usable == len(vectors) else _selector(usable)
            proposed = _propose(index, settings, queries[group], k, selector, times)
            found = nearest_of_proposed(vectors, queries[group], proposed, k)
        result.rows[group], result.scores[group] = found.rows, found.scores
    return result


def memory_needed(kind: AnnKind, num_rows: int, dim: int) -> MemoryNeeded:
    """Return an estimate of what an approximate index takes (benchmarks/index_kinds.py measures it)."""
    if kind == "flat":
        return MemoryNeeded(0, 0)
    if kind == "hnsw":
        # Neighbours of 4 bytes: twice as many on the ground level; one row in 32 stands on the next level too.
        disk = num_rows * (dim + 8 * GRAPH_NEIGHBORS + 16)
        return MemoryNeeded(disk, disk + 4 * dim * min(num_rows, MIN_TRAINING_ROWS))
    num_lists = lists_of(num_rows)
    bytes_each = dim if kind == "ivf-sq8" else codes_of(dim)
    codebooks = 4 * dim * 256 if kind == "ivf-pq" else 0
    disk = num_rows * (bytes_each + 8) + 4 * dim * num_lists + codebooks
    # The sample and FAISS's own copy of it; lists that grow by doubling are half empty at worst.
    sample = 4 * dim * min(num_rows, max(MIN_TRAINING_ROWS, TRAINING_ROWS_PER_LIST * num_lists))
    return MemoryNeeded(disk, 2 * sample + 2 * disk)


def lists_of(num_rows: int) -> int:
    """Return the number of inverted lists for a library of this size: a power of two near 4 sqrt(n)."""
    usual = 2 ** round(math.log2(4 * math.sqrt(num_rows)))
    return max(1, min(usual, num_rows // MIN_ROWS_PER_LIST))


def codes_of(dim: int) -> int:
    """Return the codes of 8 bits per row of product quantisation: one for every four numbers where ``dim`` allows."""
    return next(codes for codes in range(max(1, dim // PQ_NUMBERS_PER_CODE), 0, -1) if dim % codes == 0)


def check_kind(kind: str, num_rows: int) -> None:
    """Raise `InputError` if a kind of index is unknown, or the library is too small for it."""
    if kind not in get_args(AnnKind):
        raise InputError(f"the kind of index is '{kind}'; it must be one of {', '.join(get_args(AnnKind))}")
    if kind != "flat" and num_rows < MIN_ROWS:
        raise InputError(f"an index of the kind {kind} needs at least {MIN_ROWS:,} rows, not {num_rows:,}; take flat")


def _in_windows(
    index: faiss.Index,
    settings: AnnSettings,
    vectors: np.ndarray,
    polarity: np.ndarray,
    queries: np.ndarray,
    query_polarity: np.ndarray,
    k: int,
    allowed: np.ndarray | None,
    start: np.ndarray,
    stop: np.ndarray,
) -> Nearest:
    """Search wide windows approximately, one query after the other, and the others exactly, together."""
    import faiss

    result = Nearest.empty(len(queries), k)
    wide = np.flatnonzero([not _is_few(rows, len(vectors)) for rows in (stop - start).tolist()])
    exact = np.ones(len(queries), bool)
    for group, usable in usable_rows(polarity, query_polarity[wide], allowed):
        selector, compatible = _selector(usable), _num_compatible(polarity, query_polarity[wide[group[0]]])
        before = np.concatenate([[0], np.cumsum(usable)])
        for query in wide[group].tolist():
            first, last = int(start[query]), int(stop[query])
            num_usable = int(before[last] - before[first])
            if _is_few(num_usable, len(vectors)):
                continue
            within = faiss.IDSelectorAnd(faiss.IDSelectorRange(first, last, True), selector)
            one = slice(query, query + 1)
            proposed = _propose(index, settings, queries[one], k, within, compatible / num_usable)
            found = nearest_of_proposed(vectors, queries[one], proposed, k)
            result.rows[one], result.scores[one], exact[query] = found.rows, found.scores, False
    found = nearest_in_windows(
        vectors, polarity, queries[exact], query_polarity[exact], start[exact], stop[exact], k, allowed
    )
    result.rows[exact], result.scores[exact] = found.rows, found.scores
    return result


def _propose(
    index: faiss.Index,
    settings: AnnSettings,
    queries: np.ndarray,
    k: int,
    selector: faiss.IDSelector | None,
    times: float,
) -> np.ndarray:
    """Return candidates, int64 of shape (n_queries, depth); -1 is none. ``times`` the effort goes into each query."""
    faiss = _faiss()
    more_hits = max(1.0, k / MEASURED_K)
    depth = math.ceil(settings.depth * more_hits)
    # The further hits lie in the neighbourhood of the first: lists need not grow in proportion.
    effort = math.ceil(settings.effort * times * math.sqrt(more_hits))
    if settings.kind == "ivf-sq8":
        return _propose_of_lists(index, queries, depth, min(effort, lists_of(index.ntotal)), selector)
    if settings.kind == "hnsw":
        options = faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, depth))
    else:
        options = faiss.SearchParametersIVF(sel=selector, nprobe=min(effort, lists_of(index.ntotal)))
    at_once = QUERIES_PER_THREAD * faiss.omp_get_max_threads()
    proposed = np.empty((len(queries), depth), np.int64)
    for begin in range(0, len(queries), at_once):
        part = np.ascontiguousarray(queries[begin : begin + at_once])
        proposed[begin : begin + at_once] = index.search(part, depth, params=options)[1]
    return proposed


def _propose_of_lists(
    index: Any, queries: np.ndarray, depth: int, num_lists: int, selector: faiss.IDSelector | None
) -> np.ndarray:
    """Return candidates as `_propose` does, of lists whose codes are of the vectors and not of what centres leave.

    The lists are chosen here, by one product for many queries: FAISS takes one query after the other where the choice
    must not depend on the queries beside it (`QUERIES_PER_THREAD`), four times as long.
    """
    faiss = _faiss()
    centres = _centres_of(index)
    options = faiss.SearchParametersIVF(sel=selector, nprobe=num_lists)
    index.parallel_mode = OVER_QUERIES
    proposed = np.empty((len(queries), depth), np.int64)
    at_once = max(1, MAX_SCORES_AT_ONCE // len(centres))
    for begin in range(0, len(queries), at_once):
        part = np.ascontiguousarray(queries[begin : begin + at_once], np.float32)
        lists = np.ascontiguousarray(highest_set(centres, part, num_lists))
        unused, scores = np.zeros(lists.shape, np.float32), np.empty((len(part), depth), np.float32)
        rows = np.empty((len(part), depth), np.int64)
        asked, chosen, ignored = (faiss.swig_ptr(array) for array in (part, lists, unused))
        found = faiss.swig_ptr(scores), faiss.swig_ptr(rows)
        # FAISS's own wrapper takes no selector.
        index.search_preassigned_c(len(part), asked, depth, chosen, ignored, *found, False, options)
        proposed[begin : begin + at_once] = rows
    return proposed


def _centres_of(index: Any) -> np.ndarray:
    """Return the centres of the lists, float32 of shape (n_lists, dim), copied once.

    In a file that is mapped they begin at any byte, and a product of numbers that are not aligned takes hundreds of
    times as long.
    """
    centres = _CENTRES.get(index)
    if centres is None:
        faiss = _faiss()
        kept = faiss.downcast_index(index.quantizer)
        centres = faiss.rev_swig_ptr(kept.get_xb(), kept.ntotal * kept.d).reshape(kept.ntotal, kept.d).copy()
        _CENTRES[index] = centres
    return centres


def _faiss() -> Any:
    """Return FAISS, whose own annotations know neither of the graph with codes nor of the options of a search."""
    import faiss

    return faiss


def _is_few(num_usable: int, num_rows: int) -> bool:
    """Return whether so many rows that may be hits are sooner scored than searched approximately."""
    return num_usable <= FLAT_UP_TO or num_usable < MIN_SHARE * num_rows


def _num_compatible(polarity: np.ndarray, sign: np.integer) -> int:
    return len(polarity) if sign == 0 else int(np.count_nonzero(polarity != -sign))


def _selector(usable: np.ndarray) -> faiss.IDSelectorBitmap:
    return _faiss().IDSelectorBitmap(np.packbits(usable, bitorder="little"))


def _sample(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return up to ``count`` rows drawn without replacement, in their order."""
    if count >= len(vectors):
        return np.ascontiguousarray(vectors, np.float32)
    rows = np.random.default_rng(seed).choice(len(vectors), count, replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)], np.float32)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let FAISS use ``count`` threads where this thread calls it; None: as many as it does."""
    import faiss

    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or usual)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(usual)

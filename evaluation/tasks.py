"""The tasks whose candidates are spectra: which are compared with which, every choice explicit and drawn with a seed.

Everywhere a molecule is a first InChIKey block, two spectra are compared only if their polarity is the same, and the
queries come from one fold of the split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .comparisons import other_laboratory
from .dataset import EvaluationData

Partners = Literal["fold", "all"]

PAIRS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class SameMoleculeOptions:
    """Choices of the task 'same molecule or not'.

    Attributes
    ----------
    precursor_ppm : float
        Two spectra are a pair if their precursors differ by at most this, in ppm of the lighter.
    max_pairs_per_molecule_pair : int
        Spectrum pairs drawn for each pair of molecules (a molecule with itself included).
    contested_windows_only : bool
        Whether a pair must lie in a window (the pairs that share one of its spectra) with both labels: elsewhere there
        is nothing to tell apart. Off in the usual definition of the task, which takes every pair.
    """

    precursor_ppm: float = 10.0
    max_pairs_per_molecule_pair: int = 20
    contested_windows_only: bool = False

    def __post_init__(self) -> None:
        _require_positive(self, "precursor_ppm", "max_pairs_per_molecule_pair")


@dataclass(frozen=True)
class LibrarySearchOptions:
    """Choices of the task 'library search'.

    Attributes
    ----------
    precursor_ppm : float
        Candidates lie within this of the query's precursor m/z, in ppm of the query.
    other_laboratory : bool
        Only spectra from other laboratories than the query's are candidates, where the query's is known.
    max_queries_per_molecule : int
    """

    precursor_ppm: float = 10.0
    other_laboratory: bool = True
    max_queries_per_molecule: int = 5

    def __post_init__(self) -> None:
        _require_positive(self, "precursor_ppm", "max_queries_per_molecule")


@dataclass(frozen=True)
class AnalogueSearchOptions:
    """Choices of the task 'analogue search'.

    Attributes
    ----------
    library_fold : 'train' or 'validation'
        Fold whose spectra are searched.
    max_queries_per_molecule : int
    """

    library_fold: Literal["train", "validation"] = "train"
    max_queries_per_molecule: int = 2

    def __post_init__(self) -> None:
        _require_positive(self, "max_queries_per_molecule")


@dataclass(frozen=True, eq=False)
class SameMoleculeTask:
    """Pairs of spectra within a precursor window, some of one molecule and some not.

    Attributes
    ----------
    first, second : int64 arrays of shape (n_pairs,)
        Rows of the data.
    counts : dict of str to int
    """

    first: np.ndarray = field(repr=False)
    second: np.ndarray = field(repr=False)
    counts: dict[str, float]


@dataclass(frozen=True, eq=False)
class LibrarySearchTask:
    """Queries and, for each, the library spectra of its candidate molecules.

    Attributes
    ----------
    queries : int64 array of shape (n_queries,)
        Rows of the data.
    query : int64 array of shape (n_pairs,)
        Index into ``queries`` of each comparison, ascending.
    library : int64 array of shape (n_pairs,)
        Row of the data; within a query, spectra of one molecule stand together.
    counts : dict of str to int or float
    """

    queries: np.ndarray = field(repr=False)
    query: np.ndarray = field(repr=False)
    library: np.ndarray = field(repr=False)
    counts: dict[str, float]


@dataclass(frozen=True, eq=False)
class AnalogueSearchTask:
    """Queries and libraries by polarity: every query meets every spectrum of its polarity's library.

    Attributes
    ----------
    queries, libraries : tuples of int64 arrays
        One entry per polarity: rows of the data. Library spectra of one molecule stand together.
    counts : dict of str to int
    """

    queries: tuple[np.ndarray, ...] = field(repr=False)
    libraries: tuple[np.ndarray, ...] = field(repr=False)
    counts: dict[str, float]


def same_molecule_task(
    data: EvaluationData, fold: str, options: SameMoleculeOptions, *, seed: int, partners: Partners = "fold"
) -> SameMoleculeTask:
    """Draw the pairs of spectra of ``fold`` that lie in one precursor window.

    A pair of identical peak lists is one measurement deposited twice and is left out, whatever its label.

    Parameters
    ----------
    partners : 'fold' or 'all'
        With 'fold' both spectra are of ``fold``: no model has met either molecule. With 'all' at least one is: few
        held-out molecules share a precursor with another, so this gives far more unlike pairs and narrower
        intervals, but a model may have met the structure of the partner.
    """
    in_fold = np.zeros(len(data), bool)
    in_fold[data.rows_in(fold)] = True
    contested = _contested(data, in_fold, options.precursor_ppm, partners) if options.contested_windows_only else None
    rng = np.random.default_rng(seed)
    kept = [np.empty((3, 0))]
    for first, second in _window_pairs(data, in_fold, options.precursor_ppm, partners):
        if contested is not None:
            matters = contested[first] | contested[second]
            first, second = first[matters], second[matters]
        pairs = np.stack([first, second, rng.random(len(first))])
        kept.append(_cap(data, pairs, options.max_pairs_per_molecule_pair))
    pairs = _cap(data, np.concatenate(kept, axis=1), options.max_pairs_per_molecule_pair)
    first, second = pairs[:2].astype(np.int64)
    same = data.molecule[first] == data.molecule[second]
    between = other_laboratory(data, first, second)
    return SameMoleculeTask(
        first=first,
        second=second,
        counts={
            "pairs": len(same),
            "pairs of one molecule": int(same.sum()),
            "pairs between laboratories": int(between.sum()),
            "pairs of one molecule between laboratories": int((same & between).sum()),
            "spectra": len(np.union1d(first, second)),
            "molecules": len(np.unique(data.molecule[np.concatenate([first, second])])),
        },
    )


def library_search_task(
    data: EvaluationData, fold: str, options: LibrarySearchOptions, *, seed: int
) -> LibrarySearchTask:
    """Draw the queries of ``fold`` and gather their candidates from all folds.

    A spectrum can be a query if its own molecule is among its candidates. Where the laboratory of the query is not
    known, or ``other_laboratory`` is off, every spectrum but itself can be a candidate; a spectrum with the query's
    own peak list never is. Queries with a single candidate molecule are counted and then left out: every ranking
    answers them.
    """
    eligible, single = [], []
    for query, library in _candidate_pairs(data, data.rows_in(fold), options):
        queries, molecules = _distinct(query, data.molecule[library])
        answered = np.unique(queries[data.molecule[queries] == molecules])
        spectra, num_candidates = np.unique(queries, return_counts=True)
        is_single = num_candidates == 1
        eligible.append(answered)
        single.append(np.intersect1d(answered, spectra[is_single]))
    answered = np.concatenate([np.empty(0, np.int64), *eligible])
    trivial = np.concatenate([np.empty(0, np.int64), *single])
    queries = draw_per_molecule(
        np.setdiff1d(answered, trivial), data.molecule, limit=options.max_queries_per_molecule, seed=seed
    )
    parts = list(_candidate_pairs(data, queries, options))
    query_row = np.concatenate([np.empty(0, np.int64), *(query for query, _ in parts)])
    library = np.concatenate([np.empty(0, np.int64), *(candidates for _, candidates in parts)])
    query = np.searchsorted(queries, query_row)
    order = np.lexsort((library, data.molecule[library], query))
    num_comparisons = len(_distinct(query, data.molecule[library])[0])
    return LibrarySearchTask(
        queries=queries,
        query=query[order],
        library=library[order],
        counts={
            "queries": len(queries),
            "molecules": len(np.unique(data.molecule[queries])),
            "mean candidates": num_comparisons / len(queries) if len(queries) else 0.0,
            "mean candidate spectra": len(query) / len(queries) if len(queries) else 0.0,
            "spectra with their molecule in the library": len(answered),
            "of these with one candidate only, left out": len(trivial),
            "share with one candidate only": len(trivial) / len(answered) if len(answered) else 0.0,
        },
    )


def analogue_search_task(
    data: EvaluationData, fold: str, options: AnalogueSearchOptions, *, seed: int
) -> AnalogueSearchTask:
    """Draw the queries of ``fold`` and lay out the library they are searched in, by polarity.

    The split keeps the queries' molecules out of the library; this is asserted.
    """
    assert fold != options.library_fold, "the queries' molecules would be in the library"
    drawn = draw_per_molecule(data.rows_in(fold), data.molecule, limit=options.max_queries_per_molecule, seed=seed)
    library = data.rows_in(options.library_fold)
    library = library[np.argsort(data.molecule[library], kind="stable")]
    queries, libraries = [], []
    for polarity in (1, -1):
        of_polarity = drawn[data.columns.polarity[drawn] == polarity]
        searched = library[data.columns.polarity[library] == polarity]
        assert not np.intersect1d(data.molecule[of_polarity], data.molecule[searched]).size
        if len(of_polarity) and len(searched):
            queries.append(of_polarity)
            libraries.append(searched)
    return AnalogueSearchTask(
        queries=tuple(queries),
        libraries=tuple(libraries),
        counts={
            "queries": sum(map(len, queries)),
            "molecules": len(np.unique(np.concatenate([np.empty(0, np.int64), *(data.molecule[q] for q in queries)]))),
            "library spectra": sum(map(len, libraries)),
            "library molecules": len(np.unique(data.molecule[library])),
        },
    )


def draw_per_molecule(rows: np.ndarray, molecule: np.ndarray, *, limit: int, seed: int) -> np.ndarray:
    """Return at most ``limit`` of ``rows`` per molecule, drawn with ``seed``, ascending.

    ``rows`` has shape (n,); ``molecule`` is that of every row of the data.
    """
    rows = np.random.default_rng(seed).permutation(np.sort(rows))
    return np.sort(rows[_rank_in_group(molecule[rows], np.arange(len(rows))) < limit])


def _require_positive(options: object, *names: str) -> None:
    for name in names:
        if getattr(options, name) <= 0:
            raise ValueError(f"'{name}' is {getattr(options, name)}; it must be above 0")


def _window_pairs(
    data: EvaluationData, in_fold: np.ndarray, ppm: float, partners: Partners
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, in chunks, every pair that is allowed once: one polarity, precursors close, peaks not identical."""
    rows = np.flatnonzero(in_fold) if partners == "fold" else np.arange(len(data))
    for polarity in (1, -1):
        spectra = rows[data.columns.polarity[rows] == polarity]
        spectra = spectra[np.argsort(data.columns.precursor_mz[spectra], kind="stable")]
        mz = data.columns.precursor_mz[spectra]
        starts = np.arange(1, len(spectra) + 1)
        stops = np.searchsorted(mz, mz * (1 + ppm * 1e-6), side="right")
        for anchors, positions in _ranges(starts, stops):
            first, second = spectra[anchors], spectra[positions]
            allowed = (in_fold[first] | in_fold[second]) & (data.peaks[first] != data.peaks[second])
            yield first[allowed], second[allowed]


def _contested(data: EvaluationData, in_fold: np.ndarray, ppm: float, partners: Partners) -> np.ndarray:
    """Return which spectra have, in their window, a pair of one molecule and a pair of two; bool of shape (n,)."""
    has_same, has_other = np.zeros(len(data), bool), np.zeros(len(data), bool)
    for first, second in _window_pairs(data, in_fold, ppm, partners):
        same = data.molecule[first] == data.molecule[second]
        for spectra in (first, second):
            has_same[spectra[same]] = True
            has_other[spectra[~same]] = True
    contested: np.ndarray = has_same & has_other
    return contested


def _candidate_pairs(
    data: EvaluationData, queries: np.ndarray, options: LibrarySearchOptions
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, in chunks of whole queries, (query row, candidate row) of every comparison that is allowed."""
    for polarity in (1, -1):
        spectra = np.flatnonzero(data.columns.polarity == polarity)
        spectra = spectra[np.argsort(data.columns.precursor_mz[spectra], kind="stable")]
        mz = data.columns.precursor_mz[spectra]
        of_polarity = queries[data.columns.polarity[queries] == polarity]
        centre = data.columns.precursor_mz[of_polarity]
        starts = np.searchsorted(mz, centre * (1 - options.precursor_ppm * 1e-6), side="left")
        stops = np.searchsorted(mz, centre * (1 + options.precursor_ppm * 1e-6), side="right")
        for anchors, positions in _ranges(starts, stops):
            query, library = of_polarity[anchors], spectra[positions]
            allowed = (query != library) & (data.peaks[query] != data.peaks[library])
            if options.other_laboratory:
                own, other = data.laboratory[query], data.laboratory[library]
                allowed &= (own < 0) | ((other >= 0) & (own != other))
            yield query[allowed], library[allowed]


def _ranges(starts: np.ndarray, stops: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (index i, position in starts[i]:stops[i]) for all i, in chunks of about `PAIRS_PER_CHUNK` whole ranges."""
    counts = np.maximum(stops - starts, 0)
    chunk = np.cumsum(counts) // PAIRS_PER_CHUNK
    for number in np.unique(chunk):
        members = np.flatnonzero(chunk == number)
        size = counts[members]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        yield np.repeat(members, size), np.repeat(starts[members], size) + within


def _cap(data: EvaluationData, pairs: np.ndarray, limit: int) -> np.ndarray:
    """Keep for each pair of molecules the ``limit`` pairs of spectra with the smallest keys.

    ``pairs`` has the rows first, second, key and the shape (3, n).
    """
    molecules = np.sort(data.molecule[pairs[:2].astype(np.int64)], axis=0)
    group = molecules[0] * len(data.inchikey_block) + molecules[1]
    return pairs[:, _rank_in_group(group, pairs[2]) < limit]


def _rank_in_group(group: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return each item's rank by ``key`` among the items of its group; int64 of shape (n,), from 0."""
    order = np.lexsort((key, group))
    ordered = group[order]
    is_first = np.ones(len(group), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    start_of_group = np.flatnonzero(is_first)
    ranks = np.empty(len(group), np.int64)
    ranks[order] = np.arange(len(group)) - np.repeat(start_of_group, np.diff(np.append(start_of_group, len(group))))
    return ranks


def _distinct(query: np.ndarray, molecule: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct (query, molecule) combinations as two int64 arrays."""
    both = np.unique(np.stack([query, molecule]), axis=1)
    return both[0], both[1]

"""How far an approximate search has to look to find what an exact one finds, and how much of that it then finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from .approximate import MEASURED_K, AnnKind, AnnSettings, nearest_approximate
from .nearest import nearest_of_all

if TYPE_CHECKING:
    import faiss

WANTED_RECALL = 0.99
RECALL_QUERIES = 2000
QUERIES_PER_MOLECULE = 10
MAX_HELD_OUT = 0.1
"""Share of a library that is left out at most."""
MIN_MOLECULES = 20
"""With fewer, each spectrum is left out for itself."""
DEPTHS: Mapping[str, tuple[int, ...]] = {
    "hnsw": (20, 40, 80),
    "ivf-sq8": (20, 40, 80),
    "ivf-pq": (50, 100, 200, 400, 800),
}
"""Candidates that are ranked exactly for ten hits, the least first."""
MAX_EFFORT = 1024
EFFORTS = tuple(sorted({round(2 ** (step / 2)) for step in range(21)}))
"""Lists or breadths that are tried, the least first; up to `MAX_EFFORT`."""


@dataclass(frozen=True)
class MeasuredRecall:
    """What a search with `AnnSettings` finds of the ten nearest spectra of a molecule that the library lacks.

    Attributes
    ----------
    settings : AnnSettings
    wanted : float
        Recall that the settings were chosen to reach.
    tuning : float
        Mean recall@10 of the half of the queries that the settings were chosen with.
    recall : float
        Mean recall@10 of the other half.
    hardest_decile : float
        The same of the tenth of that half whose nearest spectra are least similar to them.
    num_queries : int
        In the other half.
    """

    settings: AnnSettings
    wanted: float
    tuning: float
    recall: float
    hardest_decile: float
    num_queries: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MeasuredRecall:
        """Make it from what `to_dict` gave."""
        return cls(**{**values, "settings": AnnSettings(**values["settings"])})


def measure_recall(
    index: faiss.Index,
    kind: AnnKind,
    vectors: np.ndarray,
    polarity: np.ndarray,
    molecules: np.ndarray | None = None,
    *,
    wanted: float = WANTED_RECALL,
    num_queries: int = RECALL_QUERIES,
    seed: int = 0,
) -> MeasuredRecall:
    """Choose how an index is searched, and measure how much of an exact search it finds.

    Molecules of the library are drawn and all their spectra left out; up to ten of each are the queries, with their
    own polarity. A molecule that the library lacks is the harder question: its nearest spectra are further away and
    lie in more lists. With the molecules of one half the least settings are chosen whose mean recall@10 reaches
    ``wanted`` by one standard error (of molecules); the recall is that of the other half. A row that scores as high as
    the tenth of the exact search counts as found, whichever of several equals it is.

    What is left out stays in the graph of ``hnsw``, where it leads to its neighbours: for that kind the recall is a
    little too high (0.990 was stated where 0.984 was found for 400 molecules of MassBank that the graph had never
    held; for inverted lists 0.994 both times).

    Parameters
    ----------
    index : faiss.Index
        From `build_ann`.
    kind : AnnKind
    vectors : float32 array of shape (n_rows, dim)
        Rows of unit length.
    polarity : int8 array of shape (n_rows,)
        +1, -1, or 0 where unknown.
    molecules : int64 array of shape (n_rows,), optional
        The same number for all spectra of a molecule; negative where it is unknown, and by default: such a spectrum
        is left out for itself.
    wanted : float
        Above 0 and below 1. Where no settings reach it, those that come nearest are kept.
    num_queries : int
        Of both halves together, about; fewer where the library is small.
    seed : int
        Draws the molecules.

    Raises
    ------
    InputError
        ``wanted`` is out of range.
    """
    check_wanted(wanted)
    halves = _questions(vectors, polarity, molecules, num_queries, np.random.default_rng(seed))
    settings = _least_settings(index, kind, halves[0], wanted)
    tuning, reported = (half.recall(index, settings) for half in halves)
    hardest = np.argsort(halves[1].best, kind="stable")[: max(1, len(reported) // 10)]
    return MeasuredRecall(
        settings=settings,
        wanted=wanted,
        tuning=float(tuning.mean()),
        recall=float(reported.mean()),
        hardest_decile=float(reported[hardest].mean()),
        num_queries=len(reported),
    )


def molecules_of(inchikeys: pa.ChunkedArray) -> np.ndarray:
    """Return a number for each first block of an InChIKey, int64; -1 where there is none.

    Parameters
    ----------
    inchikeys : pyarrow.ChunkedArray of str
    """
    blocks = pc.utf8_slice_codeunits(inchikeys, 0, 14).combine_chunks().dictionary_encode()
    return np.asarray(blocks.indices.fill_null(-1).to_numpy(), np.int64)


def check_wanted(wanted: float) -> None:
    """Raise `InputError` if the wanted recall is out of range."""
    if not 0 < wanted < 1:
        raise InputError(f"the wanted recall is {wanted}; it must be more than 0 and less than 1 (flat is exact)")


@dataclass(frozen=True, eq=False)
class _Questions:
    """Rows of a library as queries, what is left out of it, and the exact scores of the rows nearest to each."""

    vectors: np.ndarray
    polarity: np.ndarray
    left: np.ndarray
    rows: np.ndarray
    molecule: np.ndarray
    best: np.ndarray
    tenth: np.ndarray
    num_hits: np.ndarray

    def recall(self, index: faiss.Index, settings: AnnSettings) -> np.ndarray:
        """Return the recall of each query."""
        queries, signs = np.ascontiguousarray(self.vectors[self.rows]), self.polarity[self.rows]
        found = nearest_approximate(
            index, settings, self.vectors, self.polarity, queries, signs, MEASURED_K, self.left, is_as_set=True
        )
        recall: np.ndarray = (found.scores >= self.tenth[:, None]).sum(axis=1) / np.maximum(self.num_hits, 1)
        return np.where(self.num_hits > 0, recall, 1.0)

    def standard_error(self, recall: np.ndarray) -> float:
        """Return that of the mean: spectra of one molecule are found or missed together."""
        deviations = np.bincount(self.molecule, weights=recall - recall.mean())
        return float(np.sqrt((deviations**2).sum()) / len(recall))


def _questions(
    vectors: np.ndarray,
    polarity: np.ndarray,
    molecules: np.ndarray | None,
    num_queries: int,
    rng: np.random.Generator,
) -> list[_Questions]:
    """Return two sets of questions, of different molecules; what is asked of either is left out for both."""
    num_rows = len(vectors)
    own = np.arange(num_rows)
    molecules = own if molecules is None else np.where(molecules < 0, molecules.max(initial=0) + 1 + own, molecules)
    _, molecule, sizes = np.unique(molecules, return_inverse=True, return_counts=True)
    if len(sizes) < MIN_MOLECULES:
        molecule, sizes = own, np.ones(num_rows, np.int64)
    order = rng.permutation(len(sizes))
    enough = np.cumsum(np.minimum(sizes[order], QUERIES_PER_MOLECULE)) > num_queries
    too_many = np.cumsum(sizes[order]) > MAX_HELD_OUT * num_rows
    drawn = order[: max(2, int(np.argmax(np.append(enough | too_many, True))))]
    left = ~np.isin(molecule, drawn)
    halves = []
    for half in np.array_split(drawn, 2):
        rows = rng.permutation(np.flatnonzero(np.isin(molecule, half)))
        rows = rows[_place_within(molecule[rows]) < QUERIES_PER_MOLECULE]
        exact = nearest_of_all(vectors, polarity, np.ascontiguousarray(vectors[rows]), polarity[rows], MEASURED_K, left)
        num_hits = (exact.rows >= 0).sum(axis=1)
        tenth = exact.scores[np.arange(len(rows)), np.maximum(num_hits - 1, 0)]
        halves.append(_Questions(vectors, polarity, left, rows, molecule[rows], exact.scores[:, 0], tenth, num_hits))
    return halves


def _place_within(groups: np.ndarray) -> np.ndarray:
    """Return of each item how many of its group come before it."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return place


def _least_settings(index: faiss.Index, kind: AnnKind, questions: _Questions, wanted: float) -> AnnSettings:
    """Return the settings of the least depth and, with it, the least effort that reach the wanted recall.

    Of what may be missed, at most half is left to the depth, so that the effort need not be boundless.
    """
    for depth in DEPTHS[kind]:
        if questions.recall(index, AnnSettings(kind, MAX_EFFORT, depth)).mean() >= (1 + wanted) / 2:
            break
    # A graph is never walked less broadly than candidates are wanted.
    for effort in (effort for effort in EFFORTS if kind != "hnsw" or effort >= depth):
        recall = questions.recall(index, AnnSettings(kind, effort, depth))
        if recall.mean() - questions.standard_error(recall) >= wanted:
            break
    return AnnSettings(kind, effort, depth)

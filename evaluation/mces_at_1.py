"""MCES@1: the distance between the structure of the best hit and the true one, by their maximum common edge subgraph.

The distance (see `ionbed.spectra.mces`) is 0 for one structure and grows by the order of each bond that must be broken
or made; it is cut off at a limit. Lower is better. As it takes a solver, it is measured on a sample of the queries.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..progress import progress
from ..spectra.mces import capped_distance
from ..spectra.pair_answers import KeptAnswers, Pairs, Workers
from .outcomes import PerQuery
from .ranking import BestHits, MoleculeScores, score_molecules
from .task_files import Task

_STEPS = 2  # of the distances in one unit of bond order
_PAIRS_PER_ROUND = 256

MOST_TIED = 4
"""Best hits of one score that are measured; the bounds of a query with more ties are those of the drawn ones."""


@dataclass(frozen=True)
class MCESOptions:
    """How MCES@1 is measured.

    Attributes
    ----------
    max_queries : int or None
        Queries that it is measured on, drawn so that all molecules are there before one is there twice. None takes
        all; with 0 it is not measured.
    limit : float
        Distances are exact up to it; what is further counts as this, as does a query without any answer.
    seconds : float
        For the solver, each pair of molecules. Where that is not enough, the pair counts with the smallest distance
        known to be reached, and is not exact; the share of exact values stands beside the metric.
    random_draws : int
        Candidates drawn for each query to know what chance would get.
    """

    max_queries: int | None = 500
    limit: float = 15.0
    seconds: float = 0.3
    random_draws: int = 1

    def __post_init__(self) -> None:
        if self.max_queries is not None and self.max_queries < 0:
            raise ValueError(f"'max_queries' is {self.max_queries}; it must be 0 or more, or null for all queries")
        if not (self.limit > 0 and self.limit * _STEPS == int(self.limit * _STEPS)):
            raise ValueError(f"'limit' is {self.limit}; it must be above 0 and a multiple of 0.5, as distances are")
        if self.seconds < 0:
            raise ValueError(f"'seconds' is {self.seconds}; it must not be below 0")
        if self.random_draws < 1:
            raise ValueError(f"'random_draws' is {self.random_draws}; chance needs at least 1")


class MCESDistances:
    """Distances of pairs of structures, each asked for once: a context that holds processes and a file.

    Parameters
    ----------
    options : MCESOptions
    cache : Path, optional
        Folder in which every distance is kept, for this limit and time.
    workers : int, optional
        Processes; all cores where None.

    Raises
    ------
    InputError
        SciPy is not installed, or the cache cannot be used.
    """

    def __init__(self, options: MCESOptions, cache: Path | None = None, *, workers: int | None = None) -> None:
        self.options = options
        self._context = ExitStack()
        name = f"mces-up-to-{options.limit:g}-{options.seconds:g}s.sqlite"
        self._answers = KeptAnswers(cache, name)
        self._context.callback(self._answers.close)
        self._workers = self._context.enter_context(Workers(workers))

    def __enter__(self) -> MCESDistances:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def __call__(self, smiles: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances of listed pairs, and which are exact.

        Parameters
        ----------
        smiles : object array of str, of shape (n_molecules,)
            A structure that RDKit cannot read is as far from all others as the limit, and not exactly.
        first, second : int64 arrays of shape (n_pairs,)
            Rows of ``smiles``.

        Returns
        -------
        distance : float64 array of shape (n_pairs,)
            From 0 to the limit.
        is_exact : bool array of shape (n_pairs,)
        """
        distance, is_exact = np.zeros(len(first)), np.ones(len(first), bool)
        low, high = np.minimum(first, second), np.maximum(first, second)
        differ = np.flatnonzero(low != high)
        pairs, of_pair = np.unique(np.stack([low[differ], high[differ]]), axis=1, return_inverse=True)
        readable = _readable(smiles, np.unique(pairs))
        asked = np.flatnonzero(np.isin(pairs, readable).all(axis=0))
        found = np.full(pairs.shape[1], int(self.options.limit * _STEPS) * 2, np.int64)
        texts = [(str(smiles[a]), str(smiles[b])) for a, b in pairs[:, asked].T]
        with progress("MCES@1", len(texts), unit="pairs") as advance:
            for begin in range(0, len(texts), _PAIRS_PER_ROUND):
                part = slice(begin, begin + _PAIRS_PER_ROUND)
                found[asked[part]] = self._answers.complete(texts[part], self._ask)
                advance(len(texts[part]))
        of_pair = of_pair.reshape(-1)
        distance[differ] = found[of_pair] // 2 / _STEPS
        is_exact[differ] = found[of_pair] % 2 == 1
        return distance, is_exact

    def _ask(self, pairs: Pairs) -> list[int]:
        return self._workers.map(_answers, pairs, self.options.limit, self.options.seconds)


def _answers(pairs: Pairs, limit: float, seconds: float) -> list[int]:
    """Return each distance in steps, twice, plus one where it is exact: a whole number that can be kept."""
    found = (capped_distance(a, b, limit, seconds=seconds) for a, b in pairs)
    return [round(distance * _STEPS) * 2 + is_exact for distance, is_exact in found]


def _readable(smiles: np.ndarray, molecules: np.ndarray) -> np.ndarray:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        return np.array([m for m in molecules.tolist() if smiles[m] and Chem.MolFromSmiles(smiles[m])], np.int64)


def mces_at_1(task: Task, distances: MCESDistances | None, *, seed: int) -> MCESAt1 | None:
    """Return the measure of a task, or None where it is not wanted or the task has no structures to compare."""
    is_wanted = distances is not None and distances.options.max_queries != 0
    if distances is None or not is_wanted or task.kind == "pairs" or task.smiles is None:
        return None
    return MCESAt1(task, distances, seed=seed)


class MCESAt1:
    """MCES@1 of one task: its queries and what chance would get are drawn once, for all rows.

    Parameters
    ----------
    task : Task
        With SMILES; of any kind but pairs.
    distances : MCESDistances
    seed : int
        Of the queries and of the candidates drawn for chance.

    Attributes
    ----------
    counted : int64 array of shape (n_counted,)
        Queries that it is measured on, ascending.
    random : float64 array of shape (n_counted,)
        Mean distance of candidate molecules drawn at random.
    random_exact : float
        Share of the drawn distances that are exact.
    """

    def __init__(self, task: Task, distances: MCESDistances, *, seed: int) -> None:
        if task.smiles is None:
            raise ValueError("MCES@1 needs the structures of the task's molecules")
        self._smiles, self._true, self._distances = task.smiles, task.query_molecule, distances
        self._seed = seed
        rng = np.random.default_rng(seed)
        self.counted = _drawn_queries(task.query_molecule, distances.options.max_queries, rng)
        drawn = _drawn_candidates(task, self.counted, distances.options.random_draws, rng)
        place = np.repeat(np.arange(len(self.counted)), distances.options.random_draws)
        has_any = drawn >= 0
        values = np.full(len(drawn), distances.options.limit)
        is_exact = np.ones(len(drawn), bool)
        values[has_any], is_exact[has_any] = distances(
            self._smiles, self._true[self.counted[place[has_any]]], drawn[has_any]
        )
        self.random: np.ndarray = np.bincount(place, values, len(self.counted)) / distances.options.random_draws
        self.random_exact = float(is_exact.mean()) if len(is_exact) else 1.0

    def __call__(self, scored: MoleculeScores, hits: BestHits) -> tuple[PerQuery, np.ndarray]:
        """Return the metric of the drawn queries, and whether each value is exact (bool, of shape (n_counted,)).

        Where several molecules share the best score, the value is their mean (of `MOST_TIED` drawn from more: a row
        that gives all the same score would ask for the whole library); without any answer it is the limit, which
        is all that is known and exact by definition.
        """
        query = scored.query[hits.entries]
        wanted = np.flatnonzero(np.isin(query, self.counted))
        wanted = wanted[_drawn_of_ties(query[wanted], MOST_TIED, self._seed)]
        place = np.searchsorted(self.counted, query[wanted])
        values, is_exact = self._distances(
            self._smiles, self._true[query[wanted]], scored.molecule[hits.entries[wanted]]
        )
        size, limit = len(self.counted), self._distances.options.limit
        num_tied = np.bincount(place, minlength=size)
        mean = np.where(num_tied > 0, np.bincount(place, values, size) / np.maximum(num_tied, 1), limit)
        least, most, exact = np.full(size, limit), np.where(num_tied > 0, 0.0, limit), np.ones(size, bool)
        np.minimum.at(least, place, values)
        np.maximum.at(most, place, values)
        np.logical_and.at(exact, place, is_exact)
        return PerQuery(mean, self.random, least, most), exact


def _drawn_queries(molecule: np.ndarray, at_most: int | None, rng: np.random.Generator) -> np.ndarray:
    """Return up to ``at_most`` queries, ascending: one of every molecule before a second of any."""
    order = rng.permutation(len(molecule))
    if at_most is None or at_most >= len(molecule):
        return np.arange(len(molecule))
    by_molecule = np.argsort(molecule[order], kind="stable")
    ordered = molecule[order][by_molecule]
    starts = np.searchsorted(ordered, ordered)  # where the molecule of each begins
    occurrence = np.empty(len(order), np.int64)
    occurrence[by_molecule] = np.arange(len(order)) - starts
    return np.sort(order[np.argsort(occurrence, kind="stable")[:at_most]])


def _drawn_of_ties(query: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """Return the places (ascending) of up to ``at_most`` entries of each query, drawn where there are more."""
    order = np.lexsort((np.random.default_rng(seed).random(len(query)), query))
    ordered = query[order]
    occurrence = np.arange(len(query)) - np.searchsorted(ordered, ordered)
    return np.sort(order[occurrence < at_most])


def _drawn_candidates(task: Task, queries: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``draws`` molecules of each query's pool, with replacement; -1 where the pool is empty."""
    pools = score_molecules(task.candidate_pool, task.candidate_molecule, np.zeros(len(task.candidate_pool)))
    starts, stops = (np.searchsorted(pools.query, task.query_pool[queries], side) for side in ("left", "right"))
    place = (starts + rng.random((draws, len(queries))) * (stops - starts)).astype(np.int64).T.reshape(-1)
    is_empty = np.repeat(starts == stops, draws)
    return np.where(is_empty, -1, pools.molecule[np.where(is_empty, 0, place)] if len(pools.molecule) else -1)

"""What a tool's scores come to, query by query or pair by pair, beside what chance would get on the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .metrics import random_hit_at_k, random_reciprocal_rank
from .predictions import Predictions
from .ranking import BestHits, MoleculeScores, TrueRanks, best_hits, score_molecules, true_ranks
from .task_files import Task

if TYPE_CHECKING:
    from .mces_at_1 import MCESAt1

MRR, TANIMOTO_AT_1 = "MRR", "Tanimoto@1"
MCES_AT_1 = "MCES@1"
LOWER_IS_BETTER: frozenset[str] = frozenset({MCES_AT_1})
"""Metrics in which a smaller number is better."""

PAIRS_PER_CHUNK = 2**18


@dataclass(frozen=True, eq=False)
class PerQuery:
    """One metric of every query that counts, and its bounds.

    Attributes
    ----------
    value : float64 array of shape (n_counted,)
        In expectation over the ties.
    random : float64 array of shape (n_counted,)
        Expected of drawing at random.
    best_case, worst_case : float64 arrays of shape (n_counted,)
        With all ties broken in favour of the tool, and against it.
    """

    value: np.ndarray
    random: np.ndarray
    best_case: np.ndarray
    worst_case: np.ndarray


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a tool achieved on a task whose queries are ranked.

    Attributes
    ----------
    metrics : dict of metric to PerQuery
    counted : dict of metric to int64 array
        The queries that the metric's arrays are about.
    best, second : float64 arrays of shape (n_queries,)
        Score of the best candidate molecule and of the next; minus infinity where there is none.
    correct : float64 array of shape (n_queries,)
        Chance that the best hit is the true molecule.
    best_hit : int64 array of shape (n_queries,)
        Row of the task's candidates, the first of several that tie; -1 where nothing was answered.
    table : pyarrow.Table of n_queries rows
    exact_mces : float or None
        Share of the values of MCES@1 that are exact; None where it was not measured.
    """

    metrics: Mapping[str, PerQuery]
    counted: Mapping[str, np.ndarray]
    best: np.ndarray
    second: np.ndarray
    correct: np.ndarray
    best_hit: np.ndarray
    table: pa.Table = field(repr=False)
    exact_mces: float | None = None


@dataclass(frozen=True, eq=False)
class Pools:
    """What is known of each query before any score.

    Attributes
    ----------
    size : int64 array of shape (n_queries,)
        Candidate molecules.
    answerable : bool array of shape (n_queries,)
        Whether the true molecule is among them.
    mean_tanimoto, max_tanimoto, min_tanimoto : float64 arrays of shape (n_queries,), or None
        Over the candidate molecules, to the true one; 0 where there are none. None without fingerprints.
    """

    size: np.ndarray
    answerable: np.ndarray
    mean_tanimoto: np.ndarray | None
    max_tanimoto: np.ndarray | None
    min_tanimoto: np.ndarray | None


def query_pools(task: Task) -> Pools:
    """Return what each query of ``task`` can be answered with; for all kinds but pairs."""
    molecules = score_molecules(task.candidate_pool, task.candidate_molecule, np.zeros(len(task.candidate_pool)))
    num_pools = int(max(task.query_pool.max(initial=-1), task.candidate_pool.max(initial=-1))) + 1
    sizes = np.bincount(molecules.query, minlength=num_pools)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    both, of_query = np.unique(np.stack([task.query_pool, task.query_molecule]), axis=1, return_inverse=True)
    of_query = of_query.reshape(-1)
    answerable = np.zeros(both.shape[1], bool)
    statistics = np.zeros((3, both.shape[1]))
    for index, (pool, true) in enumerate(both.T):
        candidates = molecules.molecule[starts[pool] : starts[pool + 1]]
        answerable[index] = np.any(candidates == true)
        if task.fingerprint is not None and len(candidates):
            similarity = tanimoto_pairs(task.fingerprint, np.full(len(candidates), true), candidates)
            statistics[:, index] = similarity.mean(), similarity.max(), similarity.min()
    known = task.fingerprint is not None
    mean, most, least = (row[of_query] if known else None for row in statistics)
    return Pools(sizes[task.query_pool], answerable[of_query], mean, most, least)


def ranked_outcomes(task: Task, predictions: Predictions, pools: Pools, mces: MCESAt1 | None = None) -> Outcomes:
    """Return what ``predictions`` achieve; for all kinds but pairs.

    MCES@1 is among the metrics where ``mces`` of the task is given.

    Every query counts, answered or not. In the open-world task hit@k and MRR are about the queries that have an
    answer, the others are there for the false discovery rate.
    """
    num_queries = len(task.query_id)
    molecule = task.candidate_molecule[predictions.candidate]
    scored = score_molecules(predictions.query, molecule, predictions.score)
    ranks = true_ranks(scored, task.query_molecule, pools.size)
    hits = best_hits(scored, num_queries)
    correct = hits.mean_of(scored.molecule[hits.entries] == task.query_molecule[scored.query[hits.entries]])
    best_hit = np.full(num_queries, -1, np.int64)
    # Written from the last to the first, so that the first of several stays.
    best_hit[scored.query[hits.entries][::-1]] = predictions.candidate[scored.best[hits.entries]][::-1]
    everything = np.arange(num_queries)
    metrics: dict[str, PerQuery] = {}
    counted: dict[str, np.ndarray] = {}
    if task.kind != "analogue":
        chosen = np.flatnonzero(pools.answerable) if task.kind == "open" else everything
        for name, metric in _rank_metrics(task, ranks, pools).items():
            metrics[name] = PerQuery(*(part[chosen] for part in vars(metric).values()))
            counted[name] = chosen
    if task.fingerprint is not None and pools.mean_tanimoto is not None:
        metrics[TANIMOTO_AT_1] = _tanimoto_metric(task.fingerprint, task, scored, hits, pools)
        counted[TANIMOTO_AT_1] = everything
    exact_mces = None
    if mces is not None and len(mces.counted):
        metrics[MCES_AT_1], is_exact = mces(scored, hits)
        counted[MCES_AT_1], exact_mces = mces.counted, float(is_exact.mean())
    table = _table(task, pools, ranks, hits, correct, best_hit, metrics, counted)
    return Outcomes(metrics, counted, hits.score, hits.second, correct, best_hit, table, exact_mces)


def oracle_tanimoto(pools: Pools) -> float | None:
    """Return the mean Tanimoto@1 of a tool that always names the candidate most like the true molecule."""
    return None if pools.max_tanimoto is None or not len(pools.size) else float(pools.max_tanimoto.mean())


def tanimoto_pairs(fingerprint: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Tanimoto similarity of listed pairs of packed fingerprints, float64 of shape (n_pairs,).

    ``fingerprint`` is uint8 of shape (n_molecules, n_bytes); ``first`` and ``second`` are its rows.
    """
    result = np.empty(len(first))
    if fingerprint.shape[1] % 8 == 0:
        fingerprint = np.ascontiguousarray(fingerprint).view(np.uint64)  # eight bytes are counted at once
    for begin in range(0, len(first), PAIRS_PER_CHUNK):
        part = slice(begin, begin + PAIRS_PER_CHUNK)
        a, b = fingerprint[first[part]], fingerprint[second[part]]
        shared = np.bitwise_count(a & b).sum(axis=1, dtype=np.int64)
        united = np.bitwise_count(a | b).sum(axis=1, dtype=np.int64)
        result[part] = np.divide(shared, united, out=np.zeros(len(shared)), where=united > 0)
    return result


def _rank_metrics(task: Task, ranks: TrueRanks, pools: Pools) -> dict[str, PerQuery]:
    first, last = ranks.bounds()
    size = np.maximum(pools.size, 1)
    found = {
        f"hit@{k}": PerQuery(
            ranks.hits(k),
            np.where(pools.answerable, random_hit_at_k(size, k), 0.0),
            (first <= k).astype(np.float64),
            (last <= k).astype(np.float64),
        )
        for k in task.hits
    }
    chance = np.where(pools.answerable, random_reciprocal_rank(size), 0.0)
    found[MRR] = PerQuery(ranks.reciprocal(), chance, 1.0 / first, 1.0 / last)
    return found


def _tanimoto_metric(
    fingerprint: np.ndarray, task: Task, scored: MoleculeScores, hits: BestHits, pools: Pools
) -> PerQuery:
    chance, most, least = pools.mean_tanimoto, pools.max_tanimoto, pools.min_tanimoto
    assert chance is not None
    assert most is not None
    assert least is not None
    # Where all candidates tie, the pool has been worked out already; a constant row has millions of such hits.
    is_whole = (hits.num_tied == pools.size) & (pools.size > 0)
    entries = hits.entries[np.repeat(~is_whole, hits.num_tied)]
    query = scored.query[entries]
    values = tanimoto_pairs(fingerprint, task.query_molecule[query], scored.molecule[entries])
    mean = np.bincount(query, weights=values, minlength=len(chance)) / np.maximum(hits.num_tied, 1)
    best, worst = np.zeros(len(chance)), np.full(len(chance), np.inf)
    np.maximum.at(best, query, values)
    np.minimum.at(worst, query, values)
    worst[np.isinf(worst)] = 0.0
    found = ((chance, mean), (most, best), (least, worst))
    value, best_case, worst_case = (np.where(is_whole, of_pool, of_hits) for of_pool, of_hits in found)
    return PerQuery(value, chance, best_case, worst_case)


def _table(
    task: Task,
    pools: Pools,
    ranks: TrueRanks,
    hits: BestHits,
    correct: np.ndarray,
    best_hit: np.ndarray,
    metrics: Mapping[str, PerQuery],
    counted: Mapping[str, np.ndarray],
) -> pa.Table:
    columns: dict[str, object] = {
        "query_id": task.query_id,
        "molecule": task.molecule[task.query_molecule],
        "num_candidates": pools.size,
        "answerable": pools.answerable,
    }
    if task.kind != "analogue":
        columns |= {"better": ranks.better, "tied": ranks.tied, "found": ranks.found, "correct": correct}
    columns["best_hit"] = task.candidate_id.take(pa.array(best_hit, mask=best_hit < 0))
    columns |= {"best_score": _or_null(hits.score), "second_score": _or_null(hits.second)}
    for name, metric in metrics.items():
        for prefix, values in (("", metric.value), ("random ", metric.random)):
            column = np.full(len(pools.size), np.nan)
            column[counted[name]] = values
            columns[f"{prefix}{name}"] = pa.array(column, from_pandas=True)
    columns |= task.strata
    return pa.table(
        {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    )


def _or_null(score: np.ndarray) -> pa.Array:
    return pa.array(score, mask=np.isneginf(score))

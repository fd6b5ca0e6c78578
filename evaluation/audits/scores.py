"""What finished scores give away: whether they follow the list or the truth, and whether every query was counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..metrics import average_precision, roc_auc
from ..pair_judgement import query_of_candidate
from ..predictions import Predictions
from ..statistics import paired_permutation_p
from ..task_files import Task
from .findings import (
    DENOMINATOR,
    EQUAL_CANDIDATES,
    ORACLE_USE,
    SCORE_BY_PLACE,
    SIGNIFICANT,
    Finding,
)

MINIMUM_DECOYS = 5
"""Scored wrong candidates that a list must hold, so that an order can be seen in it."""

MINIMUM_MOLECULES = 20
MINIMUM_FOR_PERFECTION = 50
"""Molecules from which on scores without a single error across all lists are not believed."""

TOLERATED_CORRELATION = 0.5
"""Mean rank correlation of score and place from which on a score is said to follow the list. Lists that are sorted by
id put one laboratory's spectra side by side, so that honest scores follow the list a little."""

EQUAL = 1e-3
"""Of the spread of all scores: what scores of equal candidates may differ by."""

_LISTS_LOOKED_AT = 2000
_ROUNDING = 1e-6


def score_by_place(about: str, task: Task, predictions: Predictions, *, seed: int = 0) -> Finding:
    """Test whether the scores of wrong candidates follow their place in the list (Spearman's correlation, by list).

    Only wrong candidates are looked at: a true one scores high wherever it stands.
    """
    correlation: list[float] = []
    molecule: list[int] = []
    for query, places, score in _wrong_candidates(task, predictions):
        if len(places) >= MINIMUM_DECOYS and len(correlation) < _LISTS_LOOKED_AT:
            correlation.append(_spearman(places, score))
            molecule.append(int(task.query_molecule[query]))
    index = np.unique(molecule, return_inverse=True)[1] if molecule else np.zeros(0, np.int64)
    count = int(index.max(initial=-1)) + 1
    if count < MINIMUM_MOLECULES:
        text = (
            f"{count} molecules have lists of {MINIMUM_DECOYS} scored wrong candidates; {MINIMUM_MOLECULES} are needed."
        )
        return Finding(SCORE_BY_PLACE, about, None, text)
    values = np.array(correlation)
    mean = float(values.mean())
    p = paired_permutation_p(values, np.zeros(len(values)), index, seed=seed)
    fired = abs(mean) > TOLERATED_CORRELATION and p <= SIGNIFICANT
    sentence = (
        f"the scores follow the place in the list (mean rank correlation {mean:+.2f}): the order is in the score."
        if fired
        else f"the scores do not follow the place in the list (mean rank correlation {mean:+.2f})."
    )
    evidence = {"lists": len(values), "molecules": count, "mean rank correlation": mean, "p": p}
    return Finding(SCORE_BY_PLACE, about, not fired, sentence, evidence)


def shown_alike(task: Task, spectra: pa.Table) -> np.ndarray:
    """Return a number for each candidate of ``task`` that candidates share which look the same to a tool.

    Parameters
    ----------
    spectra : pyarrow.Table
        ``spectra.parquet`` of the task: what a tool is shown, with the column ``spectrum_id``.

    Returns
    -------
    int64 array of shape (n_candidates,)
        -1 for a candidate that is no spectrum of the table.
    """
    names = [name for name in spectra.column_names if name != "spectrum_id"]
    seen: dict[str, int] = {}
    columns = [spectra[name].to_pylist() for name in names]
    codes = np.array([seen.setdefault(repr(row), len(seen)) for row in zip(*columns, strict=True)], np.int64)
    rows = pc.index_in(task.candidate_id, value_set=spectra["spectrum_id"].combine_chunks())
    place = np.asarray(rows.fill_null(-1), np.int64)
    return np.where(place >= 0, codes[place] if len(codes) else -1, -1)


def equal_candidates(about: str, task: Task, predictions: Predictions, alike: np.ndarray) -> Finding:
    """Test whether candidates of one list that look the same to a tool have the same score.

    Where they do not, the score depends on what no tool is shown: the order of the list, an id, or the truth.

    Parameters
    ----------
    alike : int64 array of shape (n_candidates,)
        See `shown_alike`.
    """
    scored = np.isfinite(predictions.score) & (alike[predictions.candidate] >= 0)
    query, candidate = predictions.query[scored], predictions.candidate[scored]
    score = predictions.score[scored]
    order = np.lexsort((score, alike[candidate], query))
    same = (np.diff(query[order]) == 0) & (np.diff(alike[candidate][order]) == 0)
    pairs = int(same.sum())
    if not pairs:
        return Finding(EQUAL_CANDIDATES, about, None, "no list holds two candidates that look the same.")
    tolerance = max(EQUAL * float(np.std(score)), _ROUNDING)
    differing = np.flatnonzero(same & (np.diff(score[order]) > tolerance))
    examples = [
        [
            task.query_id[int(query[order[i]])].as_py(),
            *(task.candidate_id[int(candidate[order[j]])].as_py() for j in (i, i + 1)),
        ]
        for i in differing[:5]
    ]
    sentence = (
        f"{len(differing):,} of {pairs:,} pairs of candidates that look the same have different scores: the score "
        "depends on their order, their ids or the truth."
        if len(differing)
        else f"candidates that look the same have the same score ({pairs:,} pairs)."
    )
    evidence = {"pairs": pairs, "with different scores": len(differing), "examples": examples}
    return Finding(EQUAL_CANDIDATES, about, not len(differing), sentence, evidence)


def truth_in_scores(
    about: str, task: Task, predictions: Predictions, known: tuple[str, ...], *, is_reference: bool = False
) -> Finding:
    """Test whether the truth went into a row: because it says so, or because one threshold parts right from wrong.

    No comparison of spectra puts every true candidate of every list above every wrong one of all lists.

    Parameters
    ----------
    known : tuple of str
        What the row says that it was given.
    is_reference : bool
        Whether the row is there as an oracle, and compared with nothing.
    """
    if is_reference:
        return Finding(ORACLE_USE, about, True, "the row is a reference, and no verdict rests on it.")
    if "truth" in known:
        return Finding(ORACLE_USE, about, False, "the row says that it was given the truth.", {"known": list(known)})
    scored = np.isfinite(predictions.score)
    query, candidate = predictions.query[scored], predictions.candidate[scored]
    score = predictions.score[scored]
    is_true = task.candidate_molecule[candidate] == task.query_molecule[query]
    answered = np.unique(task.query_molecule[query[is_true]])
    if len(answered) < MINIMUM_FOR_PERFECTION or is_true.all():
        text = (
            f"{len(answered)} molecules have a score beside those of wrong ones; {MINIMUM_FOR_PERFECTION} are needed."
        )
        return Finding(ORACLE_USE, about, None, text)
    lowest, highest = float(score[is_true].min()), float(score[~is_true].max())
    fired = lowest > highest
    sentence = (
        f"every true candidate of {len(answered):,} molecules scores above every wrong one of all lists: the truth "
        "must have gone into the scores."
        if fired
        else "right and wrong candidates overlap, as scores of spectra do, and the row was not given the truth."
    )
    evidence = {"molecules": len(answered), "lowest true score": lowest, "highest wrong score": highest}
    return Finding(ORACLE_USE, about, not fired, sentence, evidence)


def denominator(
    about: str,
    task: Task,
    table: pa.Table,
    metrics: Mapping[str, Mapping[str, Any]],
    spread: Mapping[str, Mapping[str, float]] | None = None,
) -> Finding:
    """Count every query of ``task`` once in a per-query table, and compute each metric from it anew.

    Which queries have an answer, and which pairs are of one molecule, is taken from the task and not from the table.

    An abstention must stand there as a miss. Of the open-world task, hit@k and MRR are about the queries that have an
    answer.

    Parameters
    ----------
    table : pyarrow.Table
        The outcome of every query (or pair), as it is written.
    metrics : mapping of metric to mapping
        As in ``results.json``: with ``micro`` (a ``value``), and ``queries`` or ``pairs``.
    spread : mapping of metric to mapping, or None
        Of a row of several trainings: the ``least`` and the ``most`` of them. The metrics in a table of queries are
        means over the trainings; which queries have no answer, and the scores of pairs, are those of the first.
    """
    find = _pair_faults if task.kind == "pairs" else _query_faults
    faults = find(task, table, metrics, spread or {})
    what = "pairs" if task.kind == "pairs" else "queries"
    total = len(task.candidate_id) if task.kind == "pairs" else len(task.query_id)
    sentence = f"{faults[0]}." if faults else f"all {total:,} {what} count once, abstentions as misses."
    return Finding(DENOMINATOR, about, not faults, sentence, {what: total, "faults": faults})


def _misstated(
    name: str, value: float, metrics: Mapping[str, Mapping[str, Any]], spread: Mapping[str, Mapping[str, float]]
) -> str | None:
    """Return what is wrong with a stated metric whose value over all that counts is ``value``, if anything is."""
    stated = float(metrics[name]["micro"]["value"])
    if name in spread:
        least, most = spread[name]["least"], spread[name]["most"]
        if least - _ROUNDING <= value <= most + _ROUNDING:
            return None
        return f"{name} lies from {least:.6f} to {most:.6f} in the trainings, but is {value:.6f} in the table of one"
    if abs(value - stated) <= _ROUNDING:
        return None
    return f"{name} is {stated:.6f}, but {value:.6f} over all that counts"


def _query_faults(
    task: Task,
    table: pa.Table,
    metrics: Mapping[str, Mapping[str, Any]],
    spread: Mapping[str, Mapping[str, float]],
) -> list[str]:
    expected = task.query_id.to_pylist()
    given = table["query_id"].to_pylist()
    faults = []
    if len(set(given)) < len(given):
        faults.append(f"{len(given) - len(set(given)):,} queries stand more than once in the table of outcomes")
    if missing := len(set(expected) - set(given)):
        faults.append(f"{missing:,} of {len(expected):,} queries are not in the table of outcomes")
    if unknown := len(set(given) - set(expected)):
        faults.append(f"{unknown:,} queries in the table of outcomes are none of the task")
    if faults:
        return faults
    unanswered = np.asarray(pc.is_null(table["best_score"]))
    answerable = _answerable(task, given)
    if wrongly := int(np.sum(np.asarray(table["answerable"], bool) != answerable)):
        return [f"{wrongly:,} queries have no answer among their candidates and are said to have one, or the reverse"]
    for name, tree in metrics.items():
        values = np.asarray(table[name].fill_null(float("nan")), np.float64)
        counted = answerable if task.kind == "open" and name.startswith(("hit@", "MRR")) else np.ones(len(values), bool)
        if name.startswith("MCES"):  # computed where a distance is; its own count stands beside it
            counted = ~np.isnan(values)
        if int(tree["queries"]) != int(counted.sum()):
            faults.append(f"{name} is about {int(tree['queries']):,} queries, not {int(counted.sum()):,}")
        elif np.isnan(values[counted]).any():
            faults.append(f"{name} has no value for {int(np.isnan(values[counted]).sum()):,} queries that count")
        elif counted.any() and (wrong := _misstated(name, float(values[counted].mean()), metrics, {})):
            faults.append(wrong)
        elif not (spread or name.startswith("MCES")) and np.any(values[counted & unanswered] != 0):
            faults.append(f"{name} is above 0 for queries without an answer")
    return faults


def _answerable(task: Task, query_ids: list[str]) -> np.ndarray:
    """Return whether the true molecule is among the candidates of each of ``query_ids``, as the task itself has it."""
    num_molecules = len(task.molecule)
    asked = task.query_pool * num_molecules + task.query_molecule
    is_there = np.isin(asked, task.candidate_pool * num_molecules + task.candidate_molecule)
    of_id = dict(zip(task.query_id.to_pylist(), is_there.tolist(), strict=True))
    return np.array([of_id[name] for name in query_ids], bool)


def _pair_faults(
    task: Task,
    table: pa.Table,
    metrics: Mapping[str, Mapping[str, Any]],
    spread: Mapping[str, Mapping[str, float]],
) -> list[str]:
    faults = []
    if len(table) != len(task.candidate_id):
        return [f"the table of outcomes has {len(table):,} pairs, the task {len(task.candidate_id):,}"]
    distinct = table.group_by(["query_id", "candidate_id"]).aggregate([])
    if len(distinct) < len(table):
        faults.append(f"{len(table) - len(distinct):,} pairs stand more than once in the table of outcomes")
    score = np.asarray(table["score"].fill_null(float("-inf")), np.float64)
    positive = np.asarray(table["same_molecule"], bool)
    query = query_of_candidate(task)
    if not (
        table["query_id"].to_pylist() == task.query_id.take(pa.array(query)).to_pylist()
        and table["candidate_id"].to_pylist() == task.candidate_id.to_pylist()
    ):
        return [*faults, "the pairs in the table of outcomes are not those of the task"]
    if wrongly := int(np.sum(positive != (task.query_molecule[query] == task.candidate_molecule))):
        return [*faults, f"{wrongly:,} pairs are of two molecules and are said to be of one, or the reverse"]
    for name, measure in (("ROC AUC", roc_auc), ("average precision", average_precision)):
        if name not in metrics:
            continue
        if int(metrics[name]["pairs"]) != len(table):
            faults.append(f"{name} is about {int(metrics[name]['pairs']):,} pairs, not {len(table):,}")
        elif wrong := _misstated(name, measure(score, positive), metrics, spread):
            faults.append(wrong)
    return faults


def _wrong_candidates(task: Task, predictions: Predictions) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return of each query the places of its scored wrong candidates, and their scores."""
    keep = np.isfinite(predictions.score)
    query, candidate, score = predictions.query[keep], predictions.candidate[keep], predictions.score[keep]
    wrong = task.candidate_molecule[candidate] != task.query_molecule[query]
    query, candidate, score = query[wrong], candidate[wrong], score[wrong]
    order = np.lexsort((candidate, query))
    if not len(order):
        return []
    parts = np.split(order, np.flatnonzero(np.diff(query[order])) + 1)
    return [(int(query[part[0]]), candidate[part], score[part]) for part in parts]


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation, ties at their mean rank; 0 where one of the two is constant."""
    a, b = (_mean_ranks(values) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2.0)[index]
    return ranks

"""From questions and rows to the tables: every row answers every question it can, is judged and compared."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from .candidates import Candidates
from .comparisons import MAIN_METRIC
from .confidence import confidence_tree
from .dataset import EvaluationData
from .entries import Entry
from .judged import Comparison, Judged
from .judgement import Judge
from .mces_at_1 import MCESDistances, mces_at_1
from .outcomes import LOWER_IS_BETTER, Outcomes
from .query_properties import query_values
from .question import Question, answer, can_answer
from .report.explanations import same_without_model
from .scorers import Weighted, rows_needed
from .statistics import BootstrapOptions
from .strata_judgement import strata_trees
from .trust import trust_tree

logger = logging.getLogger("ionbed")

BEST_LOOKUP, WITHOUT_MODEL, BEST_BLIND, CHANCE_ROLE = "best look-up", "without the model", "best blind", "random"
JUDGED_KINDS = ("trained", "learned")
"""Rows that are compared with the best of the others."""
ROW = "row"
"""Column of a per-query table that names the row."""


@dataclass(frozen=True, eq=False)
class RowResult:
    """One row of the table of one question.

    Attributes
    ----------
    entry : Entry
    outcomes : Outcomes or None
        Of its first training; None for pairs.
    pair_scores : float64 array of shape (n_pairs,), or None
        Of its first training; minus infinity where it abstains. None where queries are ranked.
    best : int64 array of shape (n_queries,)
        The best hit, as a place in the candidates of the question; -1 for none. Empty for pairs.
    table : pyarrow.Table
        Every query (or pair) with its outcome.
    tree : dict
        The row in ``results.json``.
    """

    entry: Entry
    outcomes: Outcomes | None = field(repr=False)
    pair_scores: np.ndarray | None = field(repr=False)
    best: np.ndarray = field(repr=False)
    table: pa.Table = field(repr=False)
    tree: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, eq=False)
class QuestionResult:
    """The table of one question.

    Attributes
    ----------
    question : Question
    rows : tuple of RowResult
    tree : dict
        The question in ``results.json``.
    per_query : pyarrow.Table
        Every query (or pair) of every row; the column 'row' names it.
    """

    question: Question
    rows: tuple[RowResult, ...]
    tree: dict[str, Any] = field(repr=False)
    per_query: pa.Table = field(repr=False)


def measure(
    questions: Sequence[Question],
    data: EvaluationData,
    molecules: Candidates,
    entries: Sequence[Entry],
    bootstrap: BootstrapOptions,
    *,
    seed: int,
    distances: MCESDistances | None = None,
    nearest_train: np.ndarray | None = None,
) -> list[QuestionResult]:
    """Return the table of every question; MCES@1 is in it where ``distances`` are given.

    ``nearest_train`` is that of the questions (see `ask`), by which trust is told apart too.

    Each row is built once for all questions, so that a model embeds a spectrum once.
    """
    needed = rows_needed(
        [question.found.queries for question in questions],
        [question.found.candidate for question in questions if question.kind != "retrieval"],
    )
    judges = [
        Judge(question.task, bootstrap, seed=seed, mces=mces_at_1(question.task, distances, seed=seed))
        for question in questions
    ]
    judged: list[list[tuple[Entry, Judged]]] = [[] for _ in questions]
    weights: dict[str, list[dict[str, float]]] = {}
    for entry in entries:
        places = [place for place, question in enumerate(questions) if question.kind in entry.kinds]
        if not places:
            continue
        logger.info("%s", entry.label)
        scorers = [build(data, molecules, needed) for build in entry.builds]
        if isinstance(scorers[0], Weighted):
            weights[entry.label] = [dict(scorer.weights) for scorer in scorers if isinstance(scorer, Weighted)]
        for place in places:
            if can_answer(questions[place].kind, scorers[0]):
                predictions = [answer(questions[place], data, scorer) for scorer in scorers]
                judged[place].append((entry, judges[place](predictions)))
    return [
        _table(
            question, judge, rows, query_values(data, question.found.queries, nearest_train), bootstrap, seed, weights
        )
        for question, judge, rows in zip(questions, judges, judged, strict=True)
    ]


def comparisons_of(rows: Sequence[tuple[str, Judged]]) -> list[Comparison]:
    """Return what trained and learned rows are compared with: chance, the best blind row and the best look-up.

    The best of a metric is the one with the best point estimate, which favours it: what is chosen after the fact has
    had its luck already. A row that holds look-ups beside a model is compared with these without the model, too: fitted
    together they beat each single one without it. Where guessing is perfect there is nothing to compare.

    Parameters
    ----------
    rows : sequence of (kind, Judged)
    """
    found = []
    for place, (kind, own) in enumerate(rows):
        if kind not in JUDGED_KINDS:
            continue
        for metric, averages in own.averages.items():
            if metric not in LOWER_IS_BETTER and averages.chance.value >= 1.0 - 1e-12:
                continue
            found.append(Comparison(place, None, (metric,), CHANCE_ROLE))
            opponents = {
                BEST_BLIND: _best_of(rows, "blind", metric),
                BEST_LOOKUP: _best_of(rows, "look-up", metric),
                WITHOUT_MODEL: _same_without_model(rows, place, metric),
            }
            found += [
                Comparison(place, other, (metric,), role) for role, other in opponents.items() if other is not None
            ]
    return found


def _best_of(rows: Sequence[tuple[str, Judged]], kind: str, metric: str) -> int | None:
    """Return the place of the row of ``kind`` with the best figure, the first of several; None where there is none."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    figures = [
        (sign * row.averages[metric].micro.value, -place)
        for place, (of_kind, row) in enumerate(rows)
        if of_kind == kind and metric in row.averages
    ]
    return -max(figures)[1] if figures else None


def _same_without_model(rows: Sequence[tuple[str, Judged]], place: int, metric: str) -> int | None:
    """Return the place of the row of the look-ups that a row adds to its model's scores; None where there is none."""
    label = same_without_model(rows[place][1].name)
    found = [other for other, (_, row) in enumerate(rows) if row.name == label and metric in row.averages]
    return found[0] if found else None


def _table(
    question: Question,
    judge: Judge,
    judged: Sequence[tuple[Entry, Judged]],
    values: Mapping[str, np.ndarray],
    bootstrap: BootstrapOptions,
    seed: int,
    weights: Mapping[str, Sequence[Mapping[str, float]]],
) -> QuestionResult:
    rows = [row for _, row in judged]
    compared = comparisons_of([(entry.kind, row) for entry, row in judged])
    differences: dict[int, list[dict[str, Any]]] = {}
    for comparison, found in zip(compared, judge.compare(rows, compared), strict=True):
        differences.setdefault(comparison.own, []).append(found)
    strata = strata_trees(question.task, rows, bootstrap, seed=seed)
    trust = _trust(question, judged, values, bootstrap, seed)
    results = []
    for place, (entry, row) in enumerate(judged):
        tree = {
            "label": entry.label,
            "kind": entry.kind,
            "known": list(entry.known),
            "exposure": entry.exposure,
            "void": None,
            "trainings": row.trainings,
            "spread": row.spread,
            "weights": weights.get(entry.label),
            "counts": row.counts,
            "metrics": row.metrics,
            "confidence": _confidence(question, row),
            "strata": strata[place],
            "trust": trust.get(place),
            "differences": differences.get(place, []),
        }
        best = np.empty(0, np.int64) if row.outcomes is None else row.outcomes.best_hit
        results.append(RowResult(entry, row.outcomes, row.pair_scores, best, row.table, tree))
    tree = {
        "kind": question.kind,
        "hash": question.task.hash,
        "counts": question.found.counts,
        "metrics": list(dict.fromkeys(metric for row in rows for metric in row.metrics)),
        "main": MAIN_METRIC[question.kind],
        "rows": [result.tree for result in results],
    }
    tables = [
        row.table.add_column(0, ROW, pa.array([entry.label] * len(row.table), pa.string())) for entry, row in judged
    ]
    return QuestionResult(question, tuple(results), tree, pa.concat_tables(tables))


def _trust(
    question: Question,
    judged: Sequence[tuple[Entry, Judged]],
    values: Mapping[str, np.ndarray],
    bootstrap: BootstrapOptions,
    seed: int,
) -> dict[int, dict[str, Any]]:
    """Return where trained and learned rows, and the best look-up itself, can be trusted, by their places."""
    metric = MAIN_METRIC[question.kind]
    ranked = [
        (place, entry.kind, row)
        for place, (entry, row) in enumerate(judged)
        if metric in row.per_query and metric in row.averages
    ]
    best = _best_of([(entry.kind, row) for entry, row in judged], "look-up", metric)
    lookup = None if best is None else judged[best][1]
    return {
        place: trust_tree(
            metric,
            row,
            None if place == best else lookup,
            values,
            question.task.query_molecule,
            bootstrap,
            seed=seed,
            unit=question.task.unit,
        )
        for place, kind, row in ranked
        if kind in JUDGED_KINDS or place == best
    }


def _confidence(question: Question, row: Judged) -> dict[str, Any] | None:
    if row.outcomes is None or question.kind == "analogue":
        return None
    return confidence_tree(row.outcomes.best, row.outcomes.correct, row.outcomes.second, probability=False)

"""The report folder: results as JSON, tables as Markdown, the outcome of every query as Parquet, one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...artifacts import atomic_file
from .page import html_page
from .results import RESULTS, SCORE_PREFIX, file_name
from .table import markdown

if TYPE_CHECKING:
    from ..candidates import Candidates
    from ..dataset import EvaluationData
    from ..measure import QuestionResult
    from .drawing import Drawing


def write_report(
    folder: Path,
    tree: Mapping[str, Any],
    results: Sequence[QuestionResult],
    data: EvaluationData,
    molecules: Candidates,
    *,
    loss_logs: Mapping[str, Path],
    seed: int,
) -> None:
    """Write everything but the manifest into ``folder``.

    Parameters
    ----------
    tree : mapping
        The content of ``results.json``, format 2.
    results : sequence of QuestionResult
        What ``tree`` was made of, for figures and Parquet files.
    loss_logs : mapping of label to path
        Training logs to be drawn.
    seed : int
        Of bands, and of the query that is drawn at random.
    """
    with atomic_file(folder / RESULTS) as partial:
        partial.write_text(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(markdown(tree), encoding="utf-8")
    for result in results:
        write_outcomes(folder / f"{file_name(result.question.name)}.parquet", result)
    drawn = drawings(tree, results, data, molecules, loss_logs=loss_logs, seed=seed)
    (folder / "report.html").write_text(html_page(tree, drawn), encoding="utf-8")


def drawings(
    tree: Mapping[str, Any],
    results: Sequence[QuestionResult],
    data: EvaluationData,
    molecules: Candidates,
    *,
    loss_logs: Mapping[str, Path],
    seed: int,
) -> list[Drawing]:
    """Return every figure of the page; parameters as of `write_report`."""
    from .figures import question_figures
    from .searches import failure_drawings, random_search
    from .strata_figures import similarity_drawings, strata_drawings, trust_drawings
    from .training_log import loss_curves

    drawn: list[Drawing] = []
    for result in results:
        drawn += question_figures(result, bootstrap=tree["config"]["bootstrap"], seed=seed)
        drawn += strata_drawings(result.question.name, result.tree)
        drawn += trust_drawings(result.question.name, result.tree)
        drawn += similarity_drawings(result.question.name, result.tree)
        drawn += failure_drawings(result, data, molecules)
    example = random_search(results, data, molecules, seed=seed)
    if example is not None:
        drawn.append(example)
    if loss_logs:
        drawn.append(loss_curves(loss_logs))
    return drawn


def write_outcomes(path: Path, result: QuestionResult) -> None:
    """Write the outcomes of a question.

    Where queries are ranked, each query has one line for each row of the table (column ``row``). Of pairs, each has one
    line, and each row a column of scores: a file of millions of pairs stays small. Of several trainings of a row the
    metrics of queries are means; all else, and the scores of pairs, are of the first.
    """
    table = _pair_table(result) if result.question.kind == "pairs" else result.per_query
    pq.write_table(table, path, compression="zstd")


def _pair_table(result: QuestionResult) -> pa.Table:
    from .figures import pair_queries

    task = result.question.task
    query = pair_queries(task)
    columns: dict[str, Any] = {
        "query_id": task.query_id.take(pa.array(query)),
        "candidate_id": task.candidate_id,
        "query_molecule": task.molecule[task.query_molecule[query]],
        "candidate_molecule": task.molecule[task.candidate_molecule],
        "same_molecule": task.query_molecule[query] == task.candidate_molecule,
    }
    if task.other_laboratory is not None:
        columns["other_laboratory"] = task.other_laboratory
    for row in result.rows:
        assert row.pair_scores is not None
        columns[SCORE_PREFIX + row.tree["label"]] = pa.array(row.pair_scores, mask=np.isneginf(row.pair_scores))
    return pa.table({name: pa.array(column) for name, column in columns.items()})

"""The report folder: results as JSON, the tables as Markdown, Parquet per task, figures, one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from ...artifacts import atomic_file
from ...spectra.store import spectra_from_table
from ..dataset import EvaluationData
from ..measure import LIBRARY_SEARCH, TaskResult
from .page import html_page
from .table import markdown

if TYPE_CHECKING:
    from ...spectra.spectrum import Spectrum


def results_tree(
    results: Sequence[TaskResult], *, config: Mapping[str, Any], inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of ``results.json``: configuration, inputs, and every row of every task.

    A row's ``exposure`` says why its model may have seen the molecules of the queries; None where it has not.
    """
    exposure = {label: model["exposure"] for label, model in inputs["models"].items()}
    tasks = {}
    for result in results:
        tasks[result.name] = {
            "metrics": list(result.metrics),
            "counts": result.counts,
            "rows": [
                {
                    "label": row.label,
                    "kind": row.kind,
                    "exposure": exposure.get(row.label),
                    "estimates": {metric: asdict(value) for metric, value in row.estimates.items()},
                    "differences": {metric: asdict(value) for metric, value in row.differences.items()},
                }
                for row in result.rows
            ],
        }
    return {"config": dict(config), "inputs": dict(inputs), "tasks": tasks}


def write_report(
    folder: Path,
    tree: Mapping[str, Any],
    results: Sequence[TaskResult],
    data: EvaluationData,
    *,
    loss_logs: Mapping[str, Path],
    seed: int,
) -> None:
    """Write everything but the manifest into ``folder``."""
    from . import figures

    with atomic_file(folder / "results.json") as partial:
        partial.write_text(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(markdown(tree), encoding="utf-8")
    for result in results:
        pq.write_table(
            result.per_query, folder / f"{result.name.replace(',', '').replace(' ', '-')}.parquet", compression="zstd"
        )
    drawn = figures.task_figures(results)
    if loss_logs:
        drawn.append(figures.loss_curves(loss_logs))
    example = example_hit(results, data, seed=seed)
    if example is not None:
        task, caption, upper, lower = example
        drawn.append(figures.mirror(task, caption, upper, lower))
        (folder / "mirror.svg").write_text(drawn[-1].panels[0], encoding="utf-8")
    (folder / "report.html").write_text(html_page(tree, drawn), encoding="utf-8")


def example_hit(
    results: Sequence[TaskResult], data: EvaluationData, *, seed: int
) -> tuple[str, str, Spectrum, Spectrum] | None:
    """Return a task, a caption, a query drawn with ``seed`` (not chosen) and its best hit.

    None where nothing was searched. The scorer is the last learned row, or the last look-up where there is none;
    library search before analogue search.
    """
    for result in sorted(results, key=lambda result: result.name != LIBRARY_SEARCH):
        labels = [row.label for row in result.rows if row.label in result.best_hits and row.kind != "reference"]
        if not labels:
            continue
        label = labels[-1]
        hits = result.best_hits[label]
        query, hit = hits[np.random.default_rng(seed).integers(len(hits))]
        upper, lower = spectra_from_table(data.table.take([query, hit]))
        outcome = "the same molecule" if data.molecule[query] == data.molecule[hit] else "another molecule"
        caption = f"A query drawn at random (up) and its best hit by '{label}' (down): {outcome}."
        return result.name, caption, upper, lower
    return None

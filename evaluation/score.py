"""`ionbed score`: the scores of any tool, judged by the metrics of `ionbed evaluate`, beside chance and other tools."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..artifacts import (
    atomic_file,
    atomic_folder,
    describe_input,
    refuse_existing,
    refuse_input_as_output,
    write_manifest,
)
from ..errors import InputError
from ..spectra.split import MOLECULES
from .audits.findings import findings_tree
from .audits.run import audit_predictions
from .confidence import confidence_tree
from .judged import CHANCE, Comparison, Judged
from .judgement import Judge
from .mces_at_1 import MCESDistances, MCESOptions, mces_at_1
from .outcomes import LOWER_IS_BETTER, Outcomes
from .predictions import PredictionManifest, Predictions
from .provenance import exposure_to
from .ranked_lists import RANKED, read_answers, require_lists, write_ranked_lists
from .resampling import with_units
from .statistics import BootstrapOptions
from .strata_judgement import strata_trees
from .task_files import Task, load_task, task_spectra


def score(
    predictions: str | os.PathLike[str],
    task: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    against: Sequence[str | os.PathLike[str]] = (),
    bootstrap: BootstrapOptions | None = None,
    mces: MCESOptions | None = None,
    cache: Path | None = None,
    seed: int = 0,
    ranked_lists: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Judge the predictions of a tool and write ``results.json``, ``table.md`` and ``per-query.parquet`` into ``out``.

    Parameters
    ----------
    predictions : path
        Parquet with the columns query_id, candidate_id, score, or ranked lists as MassSpecGym's own tools make them;
        and a manifest beside it. See docs/score.md and `ionbed.evaluation.ranked_lists`.
    task : path
        A folder written by ``ionbed task``.
    against : sequence of path
        Predictions of other tools for the same task, each compared with the first pair by pair.
    bootstrap : BootstrapOptions, optional
    mces : MCESOptions, optional
        How MCES@1 is measured; it is left out where this is None.
    cache : Path, optional
        Folder in which MCES distances are kept.
    ranked_lists : bool
        Also write ``ranked-lists.parquet``, the answers in the form of MassSpecGym's own tools.

    Returns
    -------
    dict
        The content of ``results.json``.

    Raises
    ------
    InputError
        ``out`` is taken, the task is damaged, or predictions do not fit it; see `read_predictions` and `load_task`.
    """
    bootstrap = bootstrap or BootstrapOptions()
    refuse_existing(out, overwrite=overwrite)
    refuse_input_as_output(out, predictions, task, *against, *([] if cache is None else [cache]))
    loaded = load_task(task)
    if ranked_lists:
        require_lists(task)
    if not len(loaded.query_id):
        raise InputError(f"{task}: has no queries; there is nothing to score")
    if mces is not None and (loaded.kind == "pairs" or loaded.smiles is None):
        raise InputError(f"{task}: has no structures to rank, which MCES@1 is about; leave it out")
    given = [read_answers(path, loaded, task, cache=cache) for path in (predictions, *against)]
    names = [one.manifest.name for one in given]
    if twice := next((name for name in [*names, CHANCE] if [*names, CHANCE].count(name) > 1), None):
        raise InputError(f"two rows would be named '{twice}'; change 'name' in one of the manifests")
    loaded = with_units(loaded, bootstrap, cache=cache)
    with MCESDistances(mces or MCESOptions(max_queries=0), cache) as distances:
        tree, judged = judge(loaded, given, bootstrap, seed=seed, distances=distances)
    findings = audit_predictions(
        loaded, given[0], spectra=task_spectra(task), table=judged.table, metrics=judged.metrics, seed=seed
    )
    tree["audits"] = findings_tree(findings)
    with atomic_folder(out, overwrite=overwrite) as folder:
        from .report.score_table import markdown

        with atomic_file(folder / "results.json") as partial:
            partial.write_text(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        (folder / "table.md").write_text(markdown(tree), encoding="utf-8")
        pq.write_table(judged.table, folder / "per-query.parquet", compression="zstd")
        if ranked_lists:
            write_ranked_lists(folder / RANKED, given[0], loaded, task)
        inputs = {
            "predictions": describe_input(predictions),
            "task": {"path": str(task), "hash": loaded.hash},
            "against": [describe_input(path) for path in against],
        }
        options = {"bootstrap": asdict(bootstrap), "mces": None if mces is None else asdict(mces), "seed": seed}
        write_manifest(folder, {"command": "score", "inputs": inputs} | options)
    return tree


def judge(
    task: Task,
    given: Sequence[Predictions],
    bootstrap: BootstrapOptions,
    *,
    seed: int,
    distances: MCESDistances | None = None,
) -> tuple[dict[str, Any], Judged]:
    """Return the content of ``results.json`` and the first of ``given`` as judged; the others are compared with it."""
    judging = Judge(task, bootstrap, seed=seed, mces=mces_at_1(task, distances, seed=seed))
    judged = [judging([predictions]) for predictions in given]
    own = judged[0]
    # Where guessing is perfect, a comparison would only make the correction harsher for the others.
    metrics = tuple(
        name for name, of in own.averages.items() if name in LOWER_IS_BETTER or of.chance.value < 1.0 - 1e-12
    )
    comparisons = [Comparison(0, other, (name,)) for name in metrics for other in (None, *range(1, len(judged)))]
    manifests = [predictions.manifest for predictions in given]
    tree: dict[str, Any] = {
        "task": {key: value for key, value in task.header.items() if key != "files"},
        "tool": asdict(manifests[0]) | {"exposure": _exposure(manifests[0], task)},
        "counts": own.counts,
        "bootstrap": asdict(bootstrap) | {"seed": seed},
        "metrics": own.metrics,
        "others": [
            {"tool": asdict(manifest) | {"exposure": _exposure(manifest, task)}, "metrics": other.metrics}
            for manifest, other in zip(manifests[1:], judged[1:], strict=True)
        ],
        "differences": judging.compare(judged, comparisons),
        "confidence": None,
        "strata": {},
    }
    if own.outcomes is not None and task.kind != "analogue":
        tree["confidence"] = confidence_of(own.outcomes, manifests[0])
    tree["strata"] = strata_trees(task, [own], bootstrap, seed=seed)[0]
    return tree, own


def confidence_of(outcomes: Outcomes, manifest: PredictionManifest) -> dict[str, Any]:
    """Return what the scores of a tool are worth as a confidence; see `confidence_tree`.

    Raises
    ------
    InputError
        The manifest says that they are probabilities, and they are not.
    """
    is_probability = manifest.scores == "probability"
    if is_probability:
        _require_probabilities(outcomes, manifest)
    return confidence_tree(outcomes.best, outcomes.correct, outcomes.second, probability=is_probability)


def _exposure(manifest: PredictionManifest, task: Task) -> str | None:
    """Return why a tool may have seen the molecules of the queries, or None where they were held out."""
    if "truth" in manifest.known:
        return "it was given the truth"
    if not manifest.trained_on:
        return None
    split: Mapping[str, Any] = task.header.get("split") or {}
    if not split.get("hash"):
        return "the task names no split that could have held them out"
    if MOLECULES in split.get("shares", ()):
        return "the folds of the split share molecules"
    stages = [{"command": c.name, "split": c.split, "folds": c.folds} for c in manifest.trained_on]
    return exposure_to(stages, str(split["hash"]), str(task.header.get("fold", "test")))


def _require_probabilities(outcomes: Outcomes, manifest: PredictionManifest) -> None:
    answered = outcomes.best[~np.isneginf(outcomes.best)]
    wrong = answered[(answered < 0) | (answered > 1)]
    if len(wrong):
        raise InputError(
            f"{manifest.name}: the manifest says 'scores: probability', but a best score is {wrong[0]:g}; give "
            "probabilities from 0 to 1, or say 'scores: similarity'"
        )

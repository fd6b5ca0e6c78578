"""`ionbed score`: the scores of any tool, judged by the metrics of `ionbed evaluate`, beside chance and other tools."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
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
from .confidence import confidence_tree
from .metrics import WeightedAveragePrecision, WeightedRocAuc, average_precision, chance_corrected, roc_auc
from .outcomes import Outcomes, PerQuery, oracle_tanimoto, query_pools, ranked_outcomes
from .predictions import PredictionManifest, Predictions, read_predictions
from .provenance import exposure_to
from .statistics import (
    MINIMUM_MOLECULES,
    BootstrapOptions,
    Measured,
    bootstrap_p,
    compare,
    confirmed,
    estimate,
    holm,
    molecule_means,
    molecule_weights,
    paired_permutation_p,
    resampled_means,
    resampled_over_pairs,
    resampling_units,
)
from .task_files import Task, load_task

CHANCE = "random"
ROC_AUC, AVERAGE_PRECISION = "ROC AUC", "average precision"
SMALLEST_CELL = 20
"""Queries of a stratum below which nothing is said of it."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One set of predictions after measuring.

    Attributes
    ----------
    metrics : dict of metric to dict
        Plain numbers, for JSON.
    measured : dict of metric to Measured
        The micro average, for differences.
    chance : dict of metric to Measured
        The same of drawing at random.
    outcomes : Outcomes or None
        None for pairs.
    """

    manifest: PredictionManifest
    counts: dict[str, int]
    metrics: dict[str, dict[str, Any]]
    measured: dict[str, Measured]
    chance: dict[str, Measured]
    table: pa.Table = field(repr=False)
    outcomes: Outcomes | None = field(repr=False)


def score(
    predictions: str | os.PathLike[str],
    task: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    against: Sequence[str | os.PathLike[str]] = (),
    bootstrap: BootstrapOptions | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Judge the predictions of a tool and write ``results.json``, ``table.md`` and ``per-query.parquet`` into ``out``.

    Parameters
    ----------
    predictions : path
        Parquet with the columns query_id, candidate_id, score, and a manifest beside it; see docs/score.md.
    task : path
        A folder written by ``ionbed task``.
    against : sequence of path
        Predictions of other tools for the same task, each compared with the first pair by pair.

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
    refuse_input_as_output(out, predictions, task, *against)
    loaded = load_task(task)
    if not len(loaded.query_id):
        raise InputError(f"{task}: has no queries; there is nothing to score")
    given = [read_predictions(path, loaded) for path in (predictions, *against)]
    names = [one.manifest.name for one in given]
    if twice := next((name for name in [*names, CHANCE] if [*names, CHANCE].count(name) > 1), None):
        raise InputError(f"two rows would be named '{twice}'; change 'name' in one of the manifests")
    tree, judged = judge(loaded, given, bootstrap, seed=seed)
    with atomic_folder(out, overwrite=overwrite) as folder:
        from .report.score_table import markdown

        with atomic_file(folder / "results.json") as partial:
            partial.write_text(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        (folder / "table.md").write_text(markdown(tree), encoding="utf-8")
        pq.write_table(judged.table, folder / "per-query.parquet", compression="zstd")
        inputs = {
            "predictions": describe_input(predictions),
            "task": {"path": str(task), "hash": loaded.hash},
            "against": [describe_input(path) for path in against],
        }
        write_manifest(folder, {"command": "score", "inputs": inputs, "bootstrap": asdict(bootstrap), "seed": seed})
    return tree


def judge(
    task: Task, given: Sequence[Predictions], bootstrap: BootstrapOptions, *, seed: int
) -> tuple[dict[str, Any], Judged]:
    """Return the content of ``results.json`` and the first of ``given`` as judged; the others are compared with it."""
    if task.kind == "pairs":
        judged = _judge_pairs(task, given, bootstrap, seed)
    else:
        judged = _judge_ranked(task, given, bootstrap, seed)
    own = judged[0]
    tree: dict[str, Any] = {
        "task": {key: value for key, value in task.header.items() if key != "files"},
        "tool": asdict(own.manifest) | {"exposure": _exposure(own.manifest, task)},
        "counts": own.counts,
        "bootstrap": asdict(bootstrap) | {"seed": seed},
        "metrics": own.metrics,
        "others": [
            {"tool": asdict(other.manifest) | {"exposure": _exposure(other.manifest, task)}, "metrics": other.metrics}
            for other in judged[1:]
        ],
        "differences": _differences(task, judged, bootstrap, seed),
        "confidence": None,
        "strata": {},
    }
    if own.outcomes is not None:
        if task.kind != "analogue":
            is_probability = own.manifest.scores == "probability"
            if is_probability:
                _require_probabilities(own)
            found = own.outcomes
            tree["confidence"] = confidence_tree(found.best, found.correct, found.second, probability=is_probability)
        tree["strata"] = _strata(task, own.outcomes, bootstrap, seed)
    return tree, own


def _judge_ranked(task: Task, given: Sequence[Predictions], bootstrap: BootstrapOptions, seed: int) -> list[Judged]:
    pools = query_pools(task)
    judged = []
    weights: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for predictions in given:
        outcomes = ranked_outcomes(task, predictions, pools)
        metrics, measured, chance = {}, {}, {}
        for name, metric in outcomes.metrics.items():
            counted = outcomes.counted[name]
            if not len(counted):
                continue
            if len(counted) not in weights:  # all queries, or those that have an answer: the same for every tool
                molecules, index = np.unique(task.query_molecule[counted], return_inverse=True)
                drawn = molecule_weights(len(molecules), resamples=bootstrap.resamples, seed=seed)
                weights[len(counted)] = index, drawn
            index, drawn = weights[len(counted)]
            metrics[name], measured[name], chance[name] = _average(metric, index, drawn, bootstrap.confidence)
            if name == "Tanimoto@1":
                metrics[name]["oracle"] = oracle_tanimoto(pools)
        judged.append(
            Judged(predictions.manifest, predictions.counts, metrics, measured, chance, outcomes.table, outcomes)
        )
    return judged


def _average(
    metric: PerQuery, molecule: np.ndarray, weights: np.ndarray, confidence: float
) -> tuple[dict[str, Any], Measured, Measured]:
    num_molecules = weights.shape[1]
    micro = Measured(float(metric.value.mean()), resampled_means(metric.value, molecule, weights), num_molecules)
    chance = Measured(float(metric.random.mean()), resampled_means(metric.random, molecule, weights), num_molecules)
    of_molecule = molecule_means(metric.value, molecule)
    own = np.arange(num_molecules)
    macro = Measured(float(of_molecule.mean()), resampled_means(of_molecule, own, weights), num_molecules)
    corrected = Measured(
        float(chance_corrected(micro.value, chance.value)),
        chance_corrected(micro.resampled, chance.resampled),
        num_molecules,
    )
    tree = {
        "queries": len(metric.value),
        "molecules": num_molecules,
        "micro": asdict(estimate(micro, confidence)),
        "macro": asdict(estimate(macro, confidence)),
        "best case": float(metric.best_case.mean()),
        "worst case": float(metric.worst_case.mean()),
        "random": chance.value,
        "random macro": float(molecule_means(metric.random, molecule).mean()),
        "chance-corrected": asdict(estimate(corrected, confidence)),
    }
    return tree, micro, chance


def _judge_pairs(task: Task, given: Sequence[Predictions], bootstrap: BootstrapOptions, seed: int) -> list[Judged]:
    query = _query_of_candidate(task)
    molecules, index = np.unique(np.stack([task.query_molecule[query], task.candidate_molecule]), return_inverse=True)
    first, second = index.reshape(2, -1)
    positive = first == second
    first, second = resampling_units(first, second)
    num_units = len(np.unique([first, second]))
    if not positive.any() or positive.all():
        raise InputError("the task has pairs of one kind only; there is nothing to tell apart")
    drawn = molecule_weights(num_units, resamples=bootstrap.resamples, seed=seed)
    scores = []
    for predictions in given:
        of_pair = np.full(len(positive), -np.inf)
        of_pair[predictions.candidate] = predictions.score
        scores.append(of_pair)
    measures: dict[str, Any] = {}
    for number, of_pair in enumerate([*scores, np.zeros(len(positive))]):
        measures[f"{ROC_AUC} {number}"] = WeightedRocAuc(of_pair, positive)
        measures[f"{AVERAGE_PRECISION} {number}"] = WeightedAveragePrecision(of_pair, positive)
    resampled = resampled_over_pairs(measures, first, second, drawn)
    chance_values = {ROC_AUC: 0.5, AVERAGE_PRECISION: float(positive.mean())}
    chance = {
        name: Measured(value, resampled[f"{name} {len(given)}"], num_units) for name, value in chance_values.items()
    }
    judged = []
    for number, (predictions, of_pair) in enumerate(zip(given, scores, strict=True)):
        values = {ROC_AUC: roc_auc(of_pair, positive), AVERAGE_PRECISION: average_precision(of_pair, positive)}
        measured = {name: Measured(value, resampled[f"{name} {number}"], num_units) for name, value in values.items()}
        metrics = {
            name: {
                "pairs": len(positive),
                "molecules": len(molecules),
                "resampled units": num_units,
                "micro": asdict(estimate(found, bootstrap.confidence)),
                "random": chance_values[name],
            }
            for name, found in measured.items()
        }
        table = pa.table(
            {
                "query_id": task.query_id.take(pa.array(query)),
                "candidate_id": task.candidate_id,
                "same_molecule": positive,
                "score": pa.array(of_pair, mask=np.isneginf(of_pair)),
            }
        )
        judged.append(Judged(predictions.manifest, predictions.counts, metrics, measured, chance, table, None))
    return judged


def _query_of_candidate(task: Task) -> np.ndarray:
    """Return the query of each candidate of a task of pairs, in which every query has a pool of its own."""
    pools, owner = np.unique(task.query_pool, return_index=True)
    if len(pools) < len(task.query_pool):
        raise InputError("two queries of a task of pairs share a pool; make the task anew")
    place = np.minimum(np.searchsorted(pools, task.candidate_pool), len(pools) - 1)
    if np.any(pools[place] != task.candidate_pool):
        raise InputError("a pool of a task of pairs belongs to no query; make the task anew")
    query: np.ndarray = owner[place]
    return query


def _differences(task: Task, judged: Sequence[Judged], bootstrap: BootstrapOptions, seed: int) -> list[dict[str, Any]]:
    """Return the first tool minus chance and minus every other, by metric, with p-values corrected over all of them."""
    own = judged[0]
    found: list[dict[str, Any]] = []
    results = []
    for name, measured in own.measured.items():
        if own.chance[name].value >= 1.0 - 1e-12:
            continue  # guessing is perfect: a comparison would only make the correction harsher for the others
        for other in (None, *judged[1:]):
            against = CHANCE if other is None else other.manifest.name
            reference = own.chance[name] if other is None else other.measured[name]
            difference = compare(measured, reference, against, bootstrap.confidence)
            if own.outcomes is None:
                p = bootstrap_p(measured.value - reference.value, measured.resampled - reference.resampled)
            else:
                molecule = np.unique(task.query_molecule[own.outcomes.counted[name]], return_inverse=True)[1]
                metric = own.outcomes.metrics[name]
                assert other is None or other.outcomes is not None
                values = metric.random if other is None else other.outcomes.metrics[name].value  # type: ignore[union-attr]
                p = paired_permutation_p(metric.value, values, molecule, seed=seed)
            test = "bootstrap" if own.outcomes is None else "permutation"
            results.append(difference)
            found.append(
                {
                    "metric": name,
                    "against": against,
                    "estimate": asdict(difference.estimate),
                    "p": p,
                    "test": test,
                }
            )
    for entry, difference, corrected in zip(found, results, holm([entry["p"] for entry in found]), strict=True):
        entry["p corrected"] = corrected
        entry["verdict"] = confirmed(difference, corrected, bootstrap.confidence)
    return found


def _strata(task: Task, outcomes: Outcomes, bootstrap: BootstrapOptions, seed: int) -> dict[str, Any]:
    """Return the first metric (hit@1, or Tanimoto@1) in every stratum that holds enough queries."""
    name = next(iter(outcomes.metrics))
    metric, counted = outcomes.metrics[name], outcomes.counted[name]
    found: dict[str, Any] = {}
    for stratum, labels in task.strata.items():
        of_query = np.array(["unknown" if label is None else str(label) for label in labels[counted]])
        cells, suppressed = {}, 0
        for cell in sorted(set(of_query.tolist()), key=_range_order):
            members = np.flatnonzero(of_query == cell)
            num_molecules = len(np.unique(task.query_molecule[counted[members]]))
            if len(members) < SMALLEST_CELL or num_molecules < MINIMUM_MOLECULES:
                suppressed += len(members)
                continue
            part = PerQuery(*(values[members] for values in vars(metric).values()))
            molecules, index = np.unique(task.query_molecule[counted[members]], return_inverse=True)
            weights = molecule_weights(len(molecules), resamples=bootstrap.resamples, seed=seed)
            cells[cell] = _average(part, index, weights, bootstrap.confidence)[0]
        found[stratum] = {"metric": name, "cells": cells, "queries in cells too small": suppressed}
    return found


def _range_order(label: str) -> tuple[float, str]:
    """Sort ranges such as 'below 10 eV' and '10 to 20 eV' by their numbers, and all else by the alphabet."""
    number = re.match(r"(below )?(\d+(?:\.\d+)?) ", label)
    if number is None:
        return math.inf, label
    return float(number[2]) - (0.5 if number[1] else 0.0), label


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


def _require_probabilities(own: Judged) -> None:
    assert own.outcomes is not None
    answered = own.outcomes.best[~np.isneginf(own.outcomes.best)]
    wrong = answered[(answered < 0) | (answered > 1)]
    if len(wrong):
        raise InputError(
            f"{own.manifest.name}: the manifest says 'scores: probability', but a best score is {wrong[0]:g}; give "
            "probabilities from 0 to 1, or say 'scores: similarity'"
        )

"""`ionbed evaluate compare`: two report folders, question by question and row by row, with paired differences."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import InputError
from ..exchange import PairMeasure, pair_permutation_p
from ..judgement import OPPOSITE
from ..measure import ROW
from ..metrics import WeightedAveragePrecision, WeightedRocAuc, average_precision, roc_auc
from ..outcomes import LOWER_IS_BETTER
from ..pair_judgement import AVERAGE_PRECISION, BETWEEN_LABORATORIES
from ..statistics import (
    Measured,
    bootstrap_p,
    combine_trainings,
    compare,
    connected_groups,
    estimate,
    holm,
    molecule_weights,
    paired_permutation_p,
    resampled_means,
    resampled_over_pairs,
    resampling_units,
    trainings_p,
)
from .results import SCORE_PREFIX, load_results, read_outcomes

SAME_VALUE = 1e-6
"""Figures of one look-up in two reports that lie further apart than this were made with other settings."""


@dataclass(frozen=True, eq=False)
class _Side:
    """One row of one report, in one question: what is needed to judge it anew.

    Attributes
    ----------
    values : dict of metric to float64 array of shape (n,)
        Of each query, NaN where it does not count; for pairs the scores, under each metric, minus infinity for none.
    first, second : object arrays of str, of shape (n,)
        The molecule of each query; for pairs, both molecules.
    chosen : dict of metric to bool array of shape (n,)
        What counts.
    trainings : dict of metric to float64 array
        Where the row was trained several times: by how much each training may differ from what is compared.
    """

    values: dict[str, np.ndarray]
    first: np.ndarray
    second: np.ndarray | None
    chosen: dict[str, np.ndarray]
    trainings: dict[str, np.ndarray] = field(default_factory=dict)


def compare_reports(
    first: str | os.PathLike[str], second: str | os.PathLike[str], *, resamples: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compare the rows of two report folders: each difference is ``second`` minus ``first``.

    Compared are models and networks of one label in both reports, and models that have no namesake with each that has
    none in the other; without any of these, look-ups of one label. Where both reports ask a question of the same
    queries and candidates, the differences are paired: an interval from a bootstrap over molecules, and a permutation
    test that exchanges whole molecules. Otherwise both are resampled for themselves, and the result says so. P-values
    are corrected over everything that is compared (Holm).

    Parameters
    ----------
    first, second : path
        Folders written by ``ionbed evaluate``.
    resamples : int, optional
        Default: as many as the first report had.

    Returns
    -------
    dict
        Keys 'first', 'second', 'bootstrap', 'unlike' (sentences on what differs in what was evaluated), 'controls'
        (sentences on rows that should agree and do not) and 'questions'.

    Raises
    ------
    InputError
        A folder is no report of this format, both are one, or they have no question or no row in common.
    """
    paths = Path(first), Path(second)
    if paths[0].resolve() == paths[1].resolve():
        raise InputError(f"{first}: is compared with itself; name two report folders")
    trees = load_results(first), load_results(second)
    options = {**trees[0]["config"]["bootstrap"], "seed": seed}
    if resamples is not None:
        options["resamples"] = resamples
    names = [name for name in trees[0]["tasks"] if name in trees[1]["tasks"]]
    names = [name for name in names if all(tree["tasks"][name]["rows"] for tree in trees)]
    if not names:
        raise InputError(f"{first} and {second}: have no question in common; nothing can be compared")
    unlike = _unlike(*trees)
    questions: dict[str, Any] = {}
    for name in names:
        tasks = trees[0]["tasks"][name], trees[1]["tasks"][name]
        if tasks[0]["kind"] != tasks[1]["kind"]:
            raise InputError(f"{first} and {second}: '{name}' is of two kinds; run the older evaluation again")
        rows = _rows_to_compare(*tasks)
        if rows:
            questions[name] = _compare_question(name, paths, tasks, rows, unlike, options)
    if not questions:
        raise InputError(
            f"{first} and {second}: have no row in common; give the models in both one label, or compare reports that "
            "have a model each"
        )
    _correct(questions, options["confidence"])
    return {
        "first": {"path": str(first), "models": sorted(trees[0]["inputs"].get("models", {}))},
        "second": {"path": str(second), "models": sorted(trees[1]["inputs"].get("models", {}))},
        "bootstrap": {key: options[key] for key in ("resamples", "confidence", "seed")},
        "unlike": unlike,
        "controls": _controls(trees, questions),
        "only in one": sorted(set(trees[0]["tasks"]) ^ set(trees[1]["tasks"])),
        "questions": questions,
    }


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each thing that the two reports were not given alike."""
    found = []
    inputs = first["inputs"], second["inputs"]
    if inputs[0].get("store") != inputs[1].get("store"):
        found.append("The stores of spectra differ.")
    splits = [(of.get("split") or {}).get("hash") for of in inputs]
    if splits[0] != splits[1]:
        found.append("The splits differ.")
    for key, words in (("fold", "The folds"), ("seed", "The seeds")):
        values = first["config"].get(key), second["config"].get(key)
        if values[0] != values[1]:
            found.append(f"{words} differ ({values[0]} and {values[1]}).")
    return found


def _rows_to_compare(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    by_label = [{row["label"]: row for row in task["rows"]} for task in (first, second)]
    shared = [label for label in by_label[0] if label in by_label[1]]
    judged = [label for kind in ("learned", "trained") for label in shared if by_label[1][label]["kind"] == kind]
    alone = [
        [row for label, row in rows.items() if row["kind"] == "learned" and label not in shared] for rows in by_label
    ]
    pairs = [(by_label[0][label], by_label[1][label]) for label in judged]
    pairs += [(one, other) for one in alone[0] for other in alone[1]]
    if not pairs:
        lookups = [label for label in shared if by_label[1][label]["kind"] == "look-up"]
        pairs = [(by_label[0][label], by_label[1][label]) for label in lookups]
    return pairs


def _compare_question(
    name: str,
    paths: tuple[Path, Path],
    tasks: tuple[Mapping[str, Any], Mapping[str, Any]],
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    unlike: Sequence[str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    tables = [read_outcomes(path, name) for path in paths]
    is_paired = tasks[0]["hash"] == tasks[1]["hash"]
    metrics = [metric for metric in tasks[0]["metrics"] if metric in tasks[1]["metrics"]]
    is_pairs = tasks[0]["kind"] == "pairs"
    compared = []
    for own in rows:
        read = _pair_side if is_pairs else _ranked_side
        sides = [
            replace(read(table, row["label"], metrics, path), trainings=_trainings(row, is_pairs=is_pairs))
            for table, row, path in zip(tables, own, paths, strict=True)
        ]
        found = []
        for metric in metrics:
            if _is_perfect_by_chance(metric, own):
                continue  # nothing to compare, and the correction would only become harsher for the others
            if _is_measured(metric, sides, is_paired):
                judge = _judge_pairs if is_pairs else _judge_ranked
                found.append({"metric": metric, **judge(metric, sides, is_paired, options)})
        compared.append(
            {
                "first": own[0]["label"],
                "second": own[1]["label"],
                "kind": own[1]["kind"],
                "marks": [
                    f"'{row['label']}' of the {which} report {words}"
                    for which, row in zip(("first", "second"), own, strict=True)
                    for words in _marks(row, is_pairs=is_pairs)
                ],
                "void": any(row["void"] for row in own),
                "differences": found,
            }
        )
    reason = None if is_paired else (" ".join(unlike) or "The queries or their candidates were drawn otherwise.")
    return {"paired": is_paired, "why not": reason, "main": tasks[0]["main"], "rows": compared}


def _is_measured(metric: str, sides: Sequence[_Side], is_paired: bool) -> bool:
    if not all(metric in side.values and side.chosen[metric].any() for side in sides):
        return False
    return not is_paired or bool(np.any(sides[0].chosen[metric] & sides[1].chosen[metric]))


def _is_perfect_by_chance(metric: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    random = [row["metrics"].get(metric, {}).get("random") for row in rows]
    return metric not in LOWER_IS_BETTER and all(of is not None and of >= 1.0 - 1e-12 for of in random)


def _marks(row: Mapping[str, Any], *, is_pairs: bool) -> list[str]:
    found = [f"is void: {row['void'].rstrip('.')}"] if row["void"] else []
    found += [f"may have seen the queries: {row['exposure'].rstrip('.')}"] if row["exposure"] else []
    if row.get("trainings", 1) > 1:
        which = "the first" if is_pairs else "the mean"  # of pairs, only the scores of the first are written
        found.append(f"is {which} of {row['trainings']} trainings; the interval knows of their spread")
    return found


def _trainings(row: Mapping[str, Any], *, is_pairs: bool) -> dict[str, np.ndarray]:
    """Return how far the trainings of a row may lie from what is compared, by metric; empty where there is one.

    The report has their least and most, so half are put at each, which is the largest spread that they can have. Of
    pairs it has the scores of the first alone, which strays from the mean of all as far as any.
    """
    number = row.get("trainings", 1)
    if number < 2:
        return {}
    ends = np.where(np.arange(number) < number // 2, -0.5, 0.5)
    ends = (ends - ends.mean()) * (math.sqrt(number) if is_pairs else 1.0)
    return {metric: ends * (of["most"] - of["least"]) for metric, of in row.get("spread", {}).items()}


def _ranked_side(table: pa.Table, label: str, metrics: Sequence[str], path: Path) -> _Side:
    of_row = table.filter(pc.equal(table[ROW], label)).sort_by("query_id")
    if not len(of_row):
        raise InputError(f"{path}: its Parquet files have no row '{label}'; run the evaluation again")
    values = {
        metric: np.asarray(of_row[metric].cast(pa.float64()).fill_null(math.nan), np.float64)
        for metric in metrics
        if metric in of_row.column_names
    }
    molecule = np.array(of_row["molecule"].to_pylist(), object)
    return _Side(values, molecule, None, {metric: ~np.isnan(of) for metric, of in values.items()})


def _pair_side(table: pa.Table, label: str, metrics: Sequence[str], path: Path) -> _Side:
    if SCORE_PREFIX + label not in table.column_names:
        raise InputError(f"{path}: its Parquet files have no row '{label}'; run the evaluation again")
    ordered = table.sort_by([("query_id", "ascending"), ("candidate_id", "ascending")])
    column = ordered[SCORE_PREFIX + label].cast(pa.float64()).fill_null(-math.inf)
    scores = np.asarray(column, np.float64)
    chosen = {metric: np.ones(len(scores), bool) for metric in metrics}
    if BETWEEN_LABORATORIES in chosen:
        chosen[BETWEEN_LABORATORIES] = np.asarray(ordered["other_laboratory"], bool)
    first, second = (np.array(ordered[f"{of}_molecule"].to_pylist(), object) for of in ("query", "candidate"))
    return _Side(dict.fromkeys(metrics, scores), first, second, chosen)


def _judge_ranked(metric: str, sides: Sequence[_Side], is_paired: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    measured, values = [], []
    molecule = np.empty(0, np.int64)
    chosen = [side.chosen[metric] for side in sides]
    if is_paired:  # MCES@1 may have been measured on more queries in one report than in the other
        chosen = [chosen[0] & chosen[1]] * 2
    for place, (side, counted) in enumerate(zip(sides, chosen, strict=True)):
        of = side.values[metric][counted]
        names, molecule = np.unique(side.first[counted].astype(str), return_inverse=True)
        drawn = _weights(len(names), options, 0 if is_paired else place)
        measured.append(Measured(float(of.mean()), resampled_means(of, molecule, drawn), len(names)))
        values.append(of)
    if not is_paired:
        return _unpaired(metric, sides, measured, options)
    p = paired_permutation_p(values[1], values[0], molecule, seed=options["seed"])
    return _difference(metric, *_with_spread(metric, sides, measured, p, "permutation"), options)


def _judge_pairs(metric: str, sides: Sequence[_Side], is_paired: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    measured, scores = [], []
    group: np.ndarray | None = None
    positive = np.empty(0, bool)
    for place, side in enumerate(sides):
        assert side.second is not None
        chosen = side.chosen[metric]
        both = np.stack([side.first[chosen], side.second[chosen]]).astype(str)
        numbers = np.unique(both, return_inverse=True)[1].reshape(2, -1)
        positive = numbers[0] == numbers[1]
        group = connected_groups(numbers[0], numbers[1])
        units = resampling_units(numbers[0], numbers[1])
        num_units = int(np.max(units)) + 1
        of = side.values[metric][chosen]
        weighted, plain = (
            (WeightedAveragePrecision, average_precision) if metric == AVERAGE_PRECISION else (WeightedRocAuc, roc_auc)
        )
        drawn = _weights(num_units, options, 0 if is_paired else place)
        resampled = resampled_over_pairs({"own": weighted(of, positive)}, units[0], units[1], drawn)["own"]
        measured.append(Measured(plain(of, positive), resampled, len(np.unique(units))))
        scores.append(of)
    if not is_paired:
        return _unpaired(metric, sides, measured, options)
    if group is None:  # too few groups of molecules to exchange
        p = bootstrap_p(measured[1].value - measured[0].value, measured[1].resampled - measured[0].resampled)
        return _difference(metric, *_with_spread(metric, sides, measured, p, "bootstrap"), options)
    kind: PairMeasure = "average precision" if metric == AVERAGE_PRECISION else "ROC AUC"
    p = pair_permutation_p(kind, scores[1], scores[0], positive, group, seed=options["seed"])
    return _difference(metric, *_with_spread(metric, sides, measured, p, "permutation"), options)


def _weights(num_units: int, options: Mapping[str, Any], place: int) -> np.ndarray:
    """Return resampling weights; of another ``place`` they are drawn for themselves."""
    return molecule_weights(num_units, resamples=options["resamples"], seed=options["seed"] + place)


def _with_spread(
    metric: str, sides: Sequence[_Side], measured: Sequence[Measured], p: float, test: str
) -> tuple[list[Measured], float, str]:
    """Return what was measured, its p-value and its test, made to hold for other trainings of the rows too."""
    if not any(metric in side.trainings for side in sides):
        return list(measured), p, test
    trainings = [
        [replace(of, value=of.value + apart) for apart in side.trainings.get(metric, np.zeros(1)).tolist()]
        for side, of in zip(sides, measured, strict=True)
    ]
    bounds = (0.0, math.inf if metric in LOWER_IS_BETTER else 1.0)
    combined = [
        replace(combine_trainings(parts, bounds), value=of.value) for parts, of in zip(trainings, measured, strict=True)
    ]
    return combined, max(p, trainings_p(trainings[1], trainings[0])), f"{test}, spread of trainings"


def _unpaired(
    metric: str, sides: Sequence[_Side], measured: Sequence[Measured], options: Mapping[str, Any]
) -> dict[str, Any]:
    p = bootstrap_p(measured[1].value - measured[0].value, measured[1].resampled - measured[0].resampled)
    fewer = min(of.num_molecules for of in measured)
    measured = [replace(of, num_molecules=fewer) for of in measured]
    return _difference(metric, *_with_spread(metric, sides, measured, p, "bootstrap, unpaired"), options)


def _difference(
    metric: str, measured: Sequence[Measured], p: float, test: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the second minus the first, as plain numbers; its verdict is that of its interval alone."""
    found = compare(measured[1], measured[0], "first", options["confidence"])
    return {
        "first": asdict(estimate(measured[0], options["confidence"])),
        "second": asdict(estimate(measured[1], options["confidence"])),
        "estimate": asdict(found.estimate),
        "p": p,
        "test": test,
        "verdict": OPPOSITE[found.verdict] if metric in LOWER_IS_BETTER else found.verdict,
    }


def _correct(questions: Mapping[str, Any], confidence: float) -> None:
    """Add p-values corrected over all differences, and take back verdicts that they do not confirm."""
    found = [of for question in questions.values() for row in question["rows"] for of in row["differences"]]
    for of, corrected in zip(found, holm([of["p"] for of in found]), strict=True):
        of["p corrected"] = corrected
        if corrected > 1.0 - confidence + 1e-12:
            of["verdict"] = "unresolved"


def _controls(trees: Sequence[Mapping[str, Any]], questions: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each look-up or blind row that answers one question of the same queries in two ways."""
    found = []
    for name, question in questions.items():
        if not question["paired"]:
            continue
        compared = {row["second"] for row in question["rows"]}
        rows = [{row["label"]: row for row in tree["tasks"][name]["rows"]} for tree in trees]
        for label in rows[0].keys() & rows[1].keys() - compared:
            values = [of[label]["metrics"].get(question["main"], {}).get("micro", {}).get("value") for of in rows]
            if None not in values and abs(values[0] - values[1]) > SAME_VALUE:
                found.append(
                    f"'{label}' has {question['main']} {values[0]:.3f} in the first report and {values[1]:.3f} in the "
                    f"second, in {name} of the same queries: its settings differ."
                )
    return sorted(found)

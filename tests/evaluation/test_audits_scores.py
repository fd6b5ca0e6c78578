"""Finished scores: planted orders, oracles and lost queries are found, and honest ones pass on ten seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ionbed.evaluation.audits.findings import DENOMINATOR, ORACLE_USE, findings_tree
from ionbed.evaluation.audits.run import audit_outcomes, audit_predictions
from ionbed.evaluation.audits.scores import (
    denominator,
    equal_candidates,
    score_by_place,
    shown_alike,
    truth_in_scores,
)
from ionbed.evaluation.judgement import Judge
from ionbed.evaluation.predictions import PredictionManifest, Predictions
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.evaluation.task_files import Task

MOLECULES, PER_MOLECULE, SIZE = 60, 2, 8
BOOTSTRAP = BootstrapOptions(resamples=100)


def library(seed: int, kind: str = "library") -> Task:
    """Every query has a list of its own, the truth anywhere in it; of 'open', every second molecule has no answer."""
    rng = np.random.default_rng(seed)
    queries = MOLECULES * PER_MOLECULE
    true = np.arange(queries) // PER_MOLECULE
    rows = []
    for query in range(queries):
        others = rng.choice(np.delete(np.arange(MOLECULES), true[query]), SIZE - 1, replace=False)
        rows.append(
            np.insert(others, rng.integers(SIZE), others[0] if kind == "open" and true[query] % 2 else true[query])
        )
    candidate = np.concatenate(rows)
    return Task(
        header={"kind": kind, "hits": [1, 5], "hash": "", "counts": {}, "strata": []},
        query_id=pa.array([f"q{i}" for i in range(queries)]),
        query_pool=np.arange(queries),
        query_molecule=true,
        candidate_id=pa.array([f"c{i}" for i in range(len(candidate))]),
        candidate_pool=np.repeat(np.arange(queries), SIZE),
        candidate_molecule=candidate,
        molecule=np.array([f"M{i:03d}" for i in range(MOLECULES)], object),
        fingerprint=None,
        strata={},
    )


def predictions(task: Task, score: np.ndarray, known: Sequence[str] = ()) -> Predictions:
    scored = ~np.isneginf(score)
    query = task.candidate_pool
    counts = {"queries": len(task.query_id), "queries without any score": len(task.query_id) - len(set(query[scored]))}
    return Predictions(PredictionManifest("tool", tuple(known), ()), query, np.arange(len(score)), score, counts)


def honest(task: Task, seed: int, help: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(100 + seed)
    return rng.normal(size=len(task.candidate_id)) + help * (
        task.candidate_molecule == task.query_molecule[task.candidate_pool]
    )


def spectra(task: Task, twins: int = 0) -> pa.Table:
    """One spectrum per candidate; the first two of the first ``twins`` lists look the same."""
    number = np.arange(len(task.candidate_id))
    number[1 : 1 + twins * SIZE : SIZE] = number[0 : twins * SIZE : SIZE]
    return pa.table(
        {
            "spectrum_id": task.candidate_id,
            "precursor_mz": 100.0 + number,
            "mz": [[50.0, 60.0 + row] for row in number.tolist()],
            "adduct": [None] * len(number),
        }
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["library", "open"])
def test_honest_scores_pass(seed, kind):
    task = library(seed, kind)
    score = honest(task, seed)
    score[task.candidate_pool < 10] = -np.inf  # abstentions
    shown = spectra(task, twins=20)
    score[1 : 20 * SIZE : SIZE] = score[0 : 20 * SIZE : SIZE]
    given = predictions(task, score)
    judged = Judge(task, BOOTSTRAP, seed=0)([given])
    found = audit_predictions(task, given, spectra=shown, table=judged.table, metrics=judged.metrics, seed=seed)
    # Of 'open', too few molecules have an answer to tell an oracle by its scores.
    not_run = {ORACLE_USE: None} if kind == "open" else {}
    assert {finding.audit: finding.passed for finding in found if finding.passed is not True} == not_run
    assert len(found) == 5


def test_scores_that_follow_the_list_are_found_up_and_down():
    task = library(0)
    place = np.tile(np.arange(SIZE), MOLECULES * PER_MOLECULE)
    for sign in (1, -1):
        score = honest(task, 0, 0.0) * 0.5 + sign * place
        assert score_by_place("tool", task, predictions(task, score)).passed is False
    assert score_by_place("tool", task, predictions(task, np.zeros(len(place)))).passed is True


def test_a_true_candidate_at_the_top_is_no_score_by_place():
    task = library(0)
    rows = task.candidate_molecule.reshape(-1, SIZE)
    last = np.sort(rows == task.query_molecule[:, None], axis=1)
    wrong = rows[rows != task.query_molecule[:, None]].reshape(-1, SIZE - 1)
    task = replace(task, candidate_molecule=np.column_stack([wrong, task.query_molecule]).ravel())
    found = score_by_place("tool", task, predictions(task, honest(task, 0, 0.0) + 100.0 * last.ravel()))
    assert found.passed is True
    assert abs(found.evidence["mean rank correlation"]) < 0.1


def test_too_few_lists_say_nothing_of_places():
    task = library(0)
    score = np.where(task.candidate_pool < 30, honest(task, 0), -np.inf)
    assert score_by_place("tool", task, predictions(task, score)).passed is None
    assert score_by_place("tool", task, predictions(task, np.full(len(score), -np.inf))).passed is None


def test_candidates_that_look_the_same_must_have_one_score():
    task = library(0)
    alike = shown_alike(task, spectra(task, twins=20))
    assert (np.bincount(alike) == 2).sum() == 20
    score = honest(task, 0)
    found = equal_candidates("tool", task, predictions(task, score), alike)
    assert found.passed is False
    assert found.evidence["pairs"] == found.evidence["with different scores"] == 20
    assert found.evidence["examples"][0][0] == "q0"
    assert set(found.evidence["examples"][0][1:]) == {"c0", "c1"}
    score[1 : 20 * SIZE : SIZE] = score[0 : 20 * SIZE : SIZE] + 1e-9
    assert equal_candidates("tool", task, predictions(task, score), alike).passed is True
    score[1] = -np.inf  # a list of best hits may end between two that are alike
    assert equal_candidates("tool", task, predictions(task, score), alike).passed is True
    assert equal_candidates("tool", task, predictions(task, score), shown_alike(task, spectra(task))).passed is None


def test_an_oracle_is_found_whether_it_says_so_or_not():
    task = library(0)
    true = (task.candidate_molecule == task.query_molecule[task.candidate_pool]).astype(float)
    assert truth_in_scores("tool", task, predictions(task, true), ()).passed is False
    assert truth_in_scores("tool", task, predictions(task, true + honest(task, 0, 0.0) * 0.01), ()).passed is False
    assert truth_in_scores("tool", task, predictions(task, honest(task, 0)), ("truth",)).passed is False
    assert truth_in_scores("tool", task, predictions(task, true), ("truth",), is_reference=True).passed is True
    few = np.where(task.candidate_pool < 40, true, -np.inf)
    assert truth_in_scores("tool", task, predictions(task, few), ()).passed is None


def judged_tree(kind: str = "library") -> tuple[Task, pa.Table, dict[str, dict[str, Any]]]:
    task = library(0, kind)
    score = honest(task, 0)
    score[task.candidate_pool < 30] = -np.inf
    judged = Judge(task, BOOTSTRAP, seed=0)([predictions(task, score)])
    return task, judged.table, {name: dict(tree) for name, tree in judged.metrics.items()}


def test_lost_repeated_and_foreign_queries_are_found():
    task, table, metrics = judged_tree()
    assert denominator("tool", task, table, metrics).passed is True
    for wrong, fault in (
        (table.slice(30), "30 of 120 queries are not in the table"),
        (pa.concat_tables([table, table.slice(0, 1)]), "1 queries stand more than once"),
    ):
        assert denominator("tool", task, wrong, metrics).evidence["faults"][0].startswith(fault)
    place = table.column_names.index("MRR")
    empty = pa.array([None] * 30 + table["MRR"].to_pylist()[30:], pa.float64())
    without = denominator("tool", task, table.set_column(place, "MRR", empty), metrics)
    assert without.evidence["faults"] == ["MRR has no value for 30 queries that count"]
    ids = pa.array(["other", *table["query_id"].to_pylist()[1:]])
    foreign = table.set_column(0, "query_id", ids)
    assert any("none of the task" in fault for fault in denominator("tool", task, foreign, metrics).evidence["faults"])


@pytest.mark.parametrize("kind", ["library", "open"])
def test_a_metric_over_the_answered_queries_alone_is_found(kind):
    task, table, metrics = judged_tree(kind)
    assert denominator("tool", task, table, metrics).passed is True
    answered = np.asarray(table["best_score"].is_valid()) & np.asarray(table["answerable"])
    value = float(np.asarray(table["hit@1"].fill_null(0.0))[answered].mean())
    flattered = {**metrics, "hit@1": {**metrics["hit@1"], "micro": {"value": value}}}
    assert value > metrics["hit@1"]["micro"]["value"]
    found = denominator("tool", task, table, flattered)
    assert found.passed is False
    assert found.audit == DENOMINATOR
    assert denominator("tool", task, table, {**metrics, "hit@1": {**metrics["hit@1"], "queries": 90}}).passed is False


def test_a_hard_query_that_is_called_unanswerable_is_found():
    task, table, metrics = judged_tree("open")
    missed = np.flatnonzero(np.asarray(table["answerable"]) & (np.asarray(table["hit@1"].fill_null(0.0)) == 0))
    answerable = np.asarray(table["answerable"]).copy()
    answerable[missed[:10]] = False
    wrong = table.set_column(table.column_names.index("answerable"), "answerable", pa.array(answerable))
    value = float(np.asarray(table["hit@1"].fill_null(0.0))[answerable].mean())
    stated = {"hit@1": {**metrics["hit@1"], "micro": {"value": value}, "queries": int(answerable.sum())}}
    found = denominator("tool", task, wrong, stated)
    assert found.evidence["faults"] == [
        "10 queries have no answer among their candidates and are said to have one, or the reverse"
    ]


def test_pairs_under_the_wrong_label_are_found():
    task = library(0, "pairs")
    judged = Judge(task, BOOTSTRAP, seed=0)([predictions(task, honest(task, 0))])
    same = ~np.asarray(judged.table["same_molecule"])
    wrong = judged.table.set_column(2, "same_molecule", pa.array(same))
    area = {
        "ROC AUC": {**judged.metrics["ROC AUC"], "micro": {"value": 1 - judged.metrics["ROC AUC"]["micro"]["value"]}}
    }
    assert denominator("tool", task, wrong, area).evidence["faults"] == [
        f"{len(same)} pairs are of two molecules and are said to be of one, or the reverse"
    ]
    others = judged.table.set_column(1, "candidate_id", pa.array(judged.table["candidate_id"].to_pylist()[::-1]))
    assert denominator("tool", task, others, judged.metrics).passed is False


def test_an_abstention_that_counts_as_a_hit_is_found():
    task, table, metrics = judged_tree()
    values = np.asarray(table["hit@1"])
    values = np.where(np.arange(len(values)) < 5, 1.0, values)
    wrong = table.set_column(table.column_names.index("hit@1"), "hit@1", pa.array(values))
    stated = {"hit@1": {**metrics["hit@1"], "micro": {"value": float(values.mean())}}}
    assert denominator("tool", task, wrong, stated).evidence["faults"] == [
        "hit@1 is above 0 for queries without an answer"
    ]


def test_a_row_of_several_trainings_is_held_to_their_mean():
    task = library(0)
    given = [predictions(task, honest(task, seed)) for seed in range(3)]
    given[0] = predictions(task, np.where(task.candidate_pool == 0, -np.inf, honest(task, 0)))  # the others answer it
    judged = Judge(task, BOOTSTRAP, seed=0)(given)
    row = {"metrics": judged.metrics, "spread": judged.spread}
    found = audit_outcomes("net", "library search", task, judged.table, row)
    assert found.passed is True
    assert found.sentence.startswith("library search: ")
    flattered = {**judged.metrics["hit@1"], "micro": {"value": judged.spread["hit@1"]["most"]}}
    wrong = {**row, "metrics": {**judged.metrics, "hit@1": flattered}}
    assert audit_outcomes("net", "library search", task, judged.table, wrong).passed is False


def test_pairs_of_several_trainings_are_held_to_their_spread():
    task = library(0, "pairs")
    judged = Judge(task, BOOTSTRAP, seed=0)([predictions(task, honest(task, seed)) for seed in range(3)])
    row = {"metrics": judged.metrics, "spread": judged.spread}
    assert audit_outcomes("net", "same molecule", task, judged.table, row).passed is True
    shifted = {name: {"least": part["most"] + 0.01, "most": 1.0} for name, part in judged.spread.items()}
    assert audit_outcomes("net", "same molecule", task, judged.table, {**row, "spread": shifted}).passed is False


def test_pairs_are_counted_too():
    task = library(0, "pairs")
    score = honest(task, 0)
    score[:40] = -np.inf
    judged = Judge(task, BOOTSTRAP, seed=0)([predictions(task, score)])
    assert denominator("tool", task, judged.table, judged.metrics).passed is True
    assert denominator("tool", task, judged.table.slice(40), judged.metrics).passed is False
    stated = {"ROC AUC": {**judged.metrics["ROC AUC"], "micro": {"value": 0.99}}}
    assert denominator("tool", task, judged.table, stated).passed is False
    twice = pa.concat_tables([judged.table.slice(1), judged.table.slice(1, 1)])
    assert denominator("tool", task, twice, judged.metrics).passed is False


def test_failures_come_first_in_the_report():
    task = library(0)
    oracle = truth_in_scores("b", task, predictions(task, honest(task, 0)), ("truth",))
    fine, unknown = replace(oracle, about="a", passed=True), replace(oracle, about="c", passed=None)
    tree = findings_tree([fine, unknown, oracle])
    assert [entry["passed"] for entry in tree] == [False, None, True]
    assert tree[0]["audit"] == ORACLE_USE

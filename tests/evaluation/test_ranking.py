"""Ranks of molecules against a count by hand: several spectra of each, ties, abstentions, any order of the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ionbed.evaluation.judged import Comparison
from ionbed.evaluation.judgement import Judge
from ionbed.evaluation.predictions import PredictionManifest, Predictions
from ionbed.evaluation.ranking import best_hits, score_molecules, true_ranks
from ionbed.evaluation.statistics import BootstrapOptions

from .test_truths import made_task


@pytest.mark.parametrize("seed", range(40))
def test_ranks_are_those_of_a_count_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query = rng.permutation(np.repeat(np.arange(5), rng.integers(1, 9, 5)))
    molecule = rng.integers(0, 4, len(query))
    score = np.where(rng.random(len(query)) < 0.3, -np.inf, rng.integers(0, 3, len(query)) * 1.0)
    true = np.array([rng.choice(molecule[query == number]) for number in range(5)])
    best = [
        {m: score[(query == number) & (molecule == m)].max() for m in np.unique(molecule[query == number])}
        for number in range(5)
    ]
    scored = score_molecules(query, molecule, score)
    ranks = true_ranks(scored, true, np.array([len(of) for of in best]))
    hits = best_hits(scored, 5)
    for number, of in enumerate(best):
        own, others = of[true[number]], sorted(of.values(), reverse=True)
        assert hits.score[number] == others[0]
        if np.isfinite(others[0]):
            assert hits.second[number] == (others[1] if len(others) > 1 else -np.inf)
        better, tied = sum(value > own for value in of.values()), sum(value == own for value in of.values())
        places = better + 1 + np.arange(tied)
        for k in (1, 2, 3):
            expected = np.mean(places <= k) if np.isfinite(own) else 0.0
            assert ranks.hits(k)[number] == pytest.approx(expected)
        assert ranks.reciprocal()[number] == pytest.approx(np.mean(1 / places) if np.isfinite(own) else 0.0)


def test_p_values_exchange_the_units_that_are_resampled() -> None:
    """A tool that is better on every molecule, of eight groups: there are 2^8 exchanges, not 2^40."""
    task = made_task(40, 4)

    def tool(name: str, right: float) -> Predictions:
        score = np.zeros((len(task.query_id), 4))
        score[:, 0], score[:, 1] = right, 1.0
        named = PredictionManifest(name, (), ())
        return Predictions(named, task.candidate_pool, np.arange(score.size), score.reshape(-1), {})

    p_values = {}
    for unit in (None, np.arange(40) // 5):
        judge = Judge(replace(task, unit=unit), BootstrapOptions(resamples=100), seed=0)
        rows = [judge([tool("better", 2.0)]), judge([tool("worse", 0.5)])]
        (found,) = judge.compare(rows, [Comparison(0, 1, ("hit@1",))])
        p_values[unit is None] = found["p"]
    assert p_values[True] == pytest.approx(1e-4)
    assert p_values[False] == pytest.approx(2 / 2**8, rel=0.3)


def test_a_pair_without_a_score_comes_after_all_others() -> None:
    """Scores below 0, and none for the pairs of one molecule: every one of these is a miss."""
    task = replace(made_task(40, 4), header={"kind": "pairs", "hits": [1], "hash": "", "counts": {}, "strata": []})
    is_same = task.candidate_molecule == task.query_molecule[task.candidate_pool]
    score = np.where(is_same, -np.inf, -1.0 - np.arange(len(is_same)))
    given = Predictions(PredictionManifest("tool", (), ()), task.candidate_pool, np.arange(len(score)), score, {})
    metrics = Judge(task, BootstrapOptions(resamples=100), seed=0)([given]).metrics
    assert metrics["ROC AUC"]["micro"]["value"] == 0.0
    left_out = np.flatnonzero(~is_same)
    shorter = replace(given, query=given.query[left_out], candidate=left_out, score=score[left_out])
    assert Judge(task, BootstrapOptions(resamples=100), seed=0)([shorter]).metrics == metrics


def test_the_macro_average_is_over_molecules_and_that_of_trainings_over_these() -> None:
    """Right on the molecules of three queries alone: a third of the molecules, half of the queries."""
    task = made_task(39, 4)
    manifest = PredictionManifest("tool", (), ())

    def tool(queries_per_molecule: int) -> Predictions:
        score = np.ones((len(task.query_id), 4))
        score[:, 0] = np.where(np.bincount(task.query_molecule)[task.query_molecule] == queries_per_molecule, 2.0, 0.0)
        return Predictions(manifest, task.candidate_pool, np.arange(score.size), score.reshape(-1), {})

    judge = Judge(task, BootstrapOptions(resamples=200), seed=0)
    alone = judge([tool(3)]).metrics["hit@1"]
    assert alone["micro"]["value"] == pytest.approx(3 / 6)
    assert alone["macro"]["value"] == pytest.approx(1 / 3)
    assert alone["macro"]["low"] < 1 / 3 < alone["macro"]["high"] < 3 / 6 + 0.1
    assert alone["chance-corrected"]["value"] == pytest.approx((3 / 6 - 1 / 4) / (1 - 1 / 4))
    three = judge([tool(1), tool(2), tool(3)]).metrics["hit@1"]
    assert three["micro"]["value"] == three["macro"]["value"] == pytest.approx(1 / 3)
    assert three["chance-corrected"]["value"] == pytest.approx((1 / 3 - 1 / 4) / (1 - 1 / 4))
    pair = judge([tool(1), tool(3)]).metrics["hit@1"]
    assert (pair["micro"]["value"], pair["macro"]["value"]) == (pytest.approx(4 / 12), pytest.approx(1 / 3))
    assert judge([tool(3), tool(3)]).metrics["hit@1"]["macro"]["value"] == pytest.approx(1 / 3)


def test_chance_has_a_macro_average_too() -> None:
    """Molecules of one query have lists of two, the others of four."""
    task = made_task(39, 4)
    is_single = np.bincount(task.query_molecule)[task.query_molecule] == 1
    kept = np.flatnonzero(~is_single[task.candidate_pool] | (np.arange(len(task.candidate_pool)) % 4 < 2))
    task = replace(
        task,
        candidate_id=task.candidate_id.take(kept),
        candidate_pool=task.candidate_pool[kept],
        candidate_molecule=task.candidate_molecule[kept],
    )
    empty = Predictions(PredictionManifest("silent", (), ()), *(np.empty(0, np.int64),) * 2, np.empty(0), {})
    hit = Judge(task, BootstrapOptions(resamples=100), seed=0)([empty]).metrics["hit@1"]
    assert hit["random"] == pytest.approx((1 * 1 / 2 + 5 * 1 / 4) / 6)
    assert hit["random macro"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 4) / 3)

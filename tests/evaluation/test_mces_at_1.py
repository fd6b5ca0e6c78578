"""MCES@1 on structures whose distances are known: ties in expectation, abstentions at the limit, exact or marked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ionbed.cli import main
from ionbed.evaluation import mces_at_1
from ionbed.evaluation.judged import Comparison
from ionbed.evaluation.judgement import Judge
from ionbed.evaluation.mces_at_1 import MCESAt1, MCESDistances, MCESOptions
from ionbed.evaluation.outcomes import query_pools, ranked_outcomes
from ionbed.evaluation.predictions import PredictionManifest, Predictions
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.evaluation.task_files import SCHEMAS, Task, write_task

SMILES = np.array(["CCO", "CCC", "CCCC", "C=CC", "c1ccccc1C(=O)OCCCCCCCCCCCC", "C1CC"], object)
"""From the first: itself, 2 (C-O is no C-C), 3, and further than 5; the last is not a molecule."""
DISTANCE = {(0, 1): 2.0, (0, 2): 3.0, (1, 2): 1.0, (1, 3): 1.0, (0, 3): 3.0}
OPTIONS = MCESOptions(max_queries=None, limit=5.0, seconds=60.0)


def make_task(pools: list[list[int]], true: list[int]) -> Task:
    return Task(
        header={"kind": "library", "hits": [1], "hash": "", "counts": {}, "strata": []},
        query_id=pa.array([f"query {number}" for number in range(len(pools))]),
        query_pool=np.arange(len(pools)),
        query_molecule=np.array(true),
        candidate_id=pa.array([f"{pool}-{number}" for pool, of in enumerate(pools) for number in range(len(of))]),
        candidate_pool=np.repeat(np.arange(len(pools)), [len(of) for of in pools]),
        candidate_molecule=np.array([molecule for of in pools for molecule in of], np.int64),
        molecule=np.array([f"molecule {number}" for number in range(len(SMILES))], object),
        fingerprint=None,
        strata={},
        smiles=SMILES,
    )


def answer(task: Task, scores: list[float], name: str = "tool") -> Predictions:
    """Scores of all candidates; minus infinity abstains."""
    query = task.candidate_pool
    manifest = PredictionManifest(name, (), ())
    return Predictions(manifest, query, np.arange(len(query)), np.array(scores, float), {"rows": len(query)})


def test_the_value_is_the_distance_of_the_best_hit_ties_in_expectation() -> None:
    task = make_task([[0, 1, 2], [0, 1, 2], [0, 1, 2], [4, 0], [0, 1]], [0, 0, 0, 0, 0])
    scores = [3, 2, 1, 0, 1, 0, 0, 1, 1, 1, 0, -np.inf, -np.inf]
    with MCESDistances(OPTIONS, workers=1) as distances:
        found = ranked_outcomes(task, answer(task, scores), query_pools(task), MCESAt1(task, distances, seed=0))
    metric = found.metrics["MCES@1"]
    assert metric.value.tolist() == [0.0, 2.0, 2.5, 5.0, 5.0]
    assert metric.best_case.tolist() == [0.0, 2.0, 2.0, 5.0, 5.0]
    assert metric.worst_case.tolist() == [0.0, 2.0, 3.0, 5.0, 5.0]
    assert found.exact_mces == 1.0
    assert found.table["MCES@1"].to_pylist() == [0.0, 2.0, 2.5, 5.0, 5.0]


def test_of_many_ties_a_few_are_drawn() -> None:
    """A row that says nothing gets what chance gets, and does not ask for the whole library."""
    chains = np.array([f"{'C' * length}O" for length in range(1, 13)], object)
    task = replace(make_task([list(range(12))] * 24, [*range(12)] * 2), smiles=chains, molecule=chains)
    with MCESDistances(MCESOptions(max_queries=None, limit=4.0, random_draws=40), workers=1) as distances:
        measure = MCESAt1(task, distances, seed=0)
        found = ranked_outcomes(task, answer(task, [0] * 288), query_pools(task), measure)
        several = ranked_outcomes(task, answer(task, [1, 1, 1] + [0] * 285), query_pools(task), measure)
    values = found.metrics["MCES@1"].value
    assert values.mean() == pytest.approx(measure.random.mean(), abs=0.5)
    assert len(set(values[::12].tolist())) > 1  # not the same four of every query
    assert several.metrics["MCES@1"].value[0] == pytest.approx((0 + 1 + 2) / 3)  # few ties are all counted


def test_chance_is_the_mean_distance_of_the_pool() -> None:
    task = make_task([[0, 0, 0, 1, 2]] * 300 + [[]], [0] * 301)
    options = MCESOptions(max_queries=None, limit=5.0, random_draws=4)
    with MCESDistances(options, workers=1) as distances:
        measure = MCESAt1(task, distances, seed=0)
        again = MCESAt1(task, distances, seed=0)
    assert measure.random[:-1].mean() == pytest.approx((0 + 2 + 3) / 3, abs=0.15)  # molecules, not spectra
    assert measure.random[-1] == 5.0
    assert np.array_equal(measure.random, again.random)
    assert measure.random_exact == 1.0


def test_all_molecules_are_asked_before_one_is_asked_twice() -> None:
    true = [0] * 50 + [1, 2, 3]
    task = make_task([[0]] * len(true), true)
    drawn = {}
    for size in (4, 10, 0, None):
        with MCESDistances(MCESOptions(max_queries=size, limit=5.0), workers=1) as distances:
            drawn[size] = MCESAt1(task, distances, seed=0).counted
    assert sorted(np.array(true)[drawn[4]].tolist()) == [0, 1, 2, 3]
    assert len(drawn[10]) == len(set(drawn[10].tolist())) == 10
    assert {50, 51, 52} <= set(drawn[10].tolist())
    with MCESDistances(MCESOptions(max_queries=4, limit=5.0), workers=1) as distances:
        measure = MCESAt1(task, distances, seed=0)
        found = ranked_outcomes(task, answer(task, [1.0] * len(true)), query_pools(task), measure)
    assert np.array_equal(found.counted["MCES@1"], drawn[4])
    assert np.flatnonzero(found.table["MCES@1"].is_valid().to_numpy()).tolist() == drawn[4].tolist()
    assert len(drawn[0]) == 0
    assert drawn[None].tolist() == list(range(53))


def test_with_no_queries_it_is_not_among_the_metrics() -> None:
    task = make_task([[0, 1]], [0])
    with MCESDistances(MCESOptions(max_queries=0), workers=1) as distances:
        found = ranked_outcomes(task, answer(task, [1, 0]), query_pools(task), MCESAt1(task, distances, seed=0))
        assert mces_at_1.mces_at_1(task, distances, seed=0) is None
    assert "MCES@1" not in found.metrics and found.exact_mces is None
    with MCESDistances(OPTIONS, workers=1) as distances:
        assert mces_at_1.mces_at_1(replace(task, smiles=None), distances, seed=0) is None
        assert mces_at_1.mces_at_1(task, distances, seed=0) is not None
    assert mces_at_1.mces_at_1(task, None, seed=0) is None


def test_a_structure_that_cannot_be_read_is_far_and_not_exact() -> None:
    with MCESDistances(OPTIONS, workers=1) as distances:
        found, is_exact = distances(SMILES, np.array([0, 5, 0, 5]), np.array([5, 1, 1, 5]))
    assert found.tolist() == [5.0, 5.0, 2.0, 0.0]
    assert is_exact.tolist() == [False, False, True, True]


def test_what_the_solver_had_no_time_for_is_marked() -> None:
    pair = np.array(["CC(C)CC(NC(=O)C(N)CC(C)C)C(=O)NC(C)C(=O)O", "CC(C)CC(NC(=O)C(C)NC(=O)C(N)CO)C(=O)NCCC"], object)
    with MCESDistances(MCESOptions(limit=15.0, seconds=0.0), workers=1) as distances:
        found, is_exact = distances(pair, np.array([0]), np.array([1]))
    assert not is_exact[0] and 0 < found[0] <= 15.0


def test_distances_are_kept_whichever_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (np.array(of) for of in zip(*DISTANCE, strict=True))
    with MCESDistances(OPTIONS, tmp_path, workers=1) as distances:
        found, is_exact = distances(SMILES, first, second)
    assert found.tolist() == list(DISTANCE.values()) and is_exact.all()
    monkeypatch.setattr(mces_at_1, "capped_distance", None)
    with MCESDistances(OPTIONS, tmp_path, workers=1) as distances:
        again, _ = distances(SMILES, second, first)
    assert np.array_equal(again, found)
    assert len(list(tmp_path.glob("mces-up-to-5-60s.sqlite"))) == 1


def test_two_processes_find_what_one_finds() -> None:
    first, second = np.triu_indices(5, 1)
    found = []
    for workers in (1, 2):
        with MCESDistances(OPTIONS, workers=workers) as distances:
            found.append(distances(SMILES, first, second)[0])
    assert np.array_equal(*found)


def test_lower_is_better_in_every_verdict() -> None:
    chains = np.array([f"{'C' * length}O" for length in range(1, 25)], object)
    pools = [[number, (number + 1) % 24, (number + 2) % 24] for number in range(24)]
    task = replace(make_task(pools, list(range(24))), smiles=chains, molecule=chains)
    good, bad = (answer(task, list(of) * 24, name) for of, name in (((2, 1, 0), "good"), ((0, 1, 2), "bad")))
    with MCESDistances(OPTIONS, workers=1) as distances:
        judge = Judge(task, BootstrapOptions(), seed=0, mces=MCESAt1(task, distances, seed=0))
        rows = [judge([good]), judge([bad]), judge([good, good, bad])]
    assert [row.metrics["MCES@1"]["exact"] for row in rows] == [1.0] * 3
    values = [row.metrics["MCES@1"]["micro"]["value"] for row in rows]
    assert values[0] == 0.0 and values[1] > 2.0
    assert values[2] == pytest.approx(values[1] / 3)
    metrics = ("MCES@1", "hit@1")
    comparisons = [Comparison(0, 1, metrics), Comparison(1, 0, metrics), Comparison(1, None, metrics)]
    found = judge.compare(rows, comparisons)
    assert [one["verdict"] for one in found] == ["beats", "beats", "loses", "loses", "loses", "loses"]
    assert found[0]["estimate"]["value"] == -values[1]
    uncertain = judge.compare(rows, [Comparison(2, None, ("MCES@1",))])[0]  # one of three trainings is bad
    assert uncertain["verdict"] == "unresolved" and "trainings" in uncertain["test"]


@pytest.mark.parametrize(
    "wrong", [{"max_queries": -1}, {"limit": 0.0}, {"limit": 5.3}, {"seconds": -1}, {"random_draws": 0}]
)
def test_wrong_options_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MCESOptions(**wrong)


def test_score_measures_it_where_it_is_asked_for(tmp_path: Path) -> None:
    """Forty rings with an alcohol and an amine each: the tool names the amine for every alcohol."""
    smiles = [f"C1{'C' * length}C1{end}" for length in range(1, 41) for end in ("O", "N")]
    names = [f"M{number:02d}" for number in range(80)]
    tables = {
        "queries": [{"query_id": name, "pool": name} for name in names],
        "candidates": [
            {"pool": name, "candidate_id": other, "molecule": other}
            for number, name in enumerate(names)
            for other in names[number // 2 * 2 : number // 2 * 2 + 2]
        ],
        "molecules": [
            {"molecule": name, "smiles": text, "fingerprint": b"\1"} for name, text in zip(names, smiles, strict=True)
        ],
        "truth": [{"spectrum_id": name, "molecule": name} for name in names],
    }
    (tmp_path / "task").mkdir()
    write_task(
        tmp_path / "task",
        {"kind": "retrieval"},
        {name: pa.Table.from_pylist(rows, SCHEMAS[name]) for name, rows in tables.items()},
    )
    answers = [
        {"query_id": row["pool"], "candidate_id": row["candidate_id"], "score": float(int(row["candidate_id"][1:]) % 2)}
        for row in tables["candidates"]
    ]
    pq.write_table(pa.Table.from_pylist(answers), tmp_path / "mine.parquet")
    (tmp_path / "mine.json").write_text('{"name": "mine", "known": [], "trained_on": []}')
    command = ["score", str(tmp_path / "mine.parquet"), str(tmp_path / "task"), "--resamples", "100"]
    options = ["--mces-queries", "6", "--unit", "scaffold", "--cache", str(tmp_path / "kept")]
    assert main([*command, "--out", str(tmp_path / "plain")]) == 0
    assert main([*command, "--out", str(tmp_path / "whole"), *options]) == 0
    plain, whole = (json.loads((tmp_path / out / "results.json").read_text()) for out in ("plain", "whole"))
    assert "MCES@1" not in plain["metrics"]
    metric = whole["metrics"]["MCES@1"]
    assert metric["queries"] == 6 and 0 <= metric["exact"] <= 1
    assert 0 < metric["micro"]["value"] < 15  # C-O against C-N, or nothing
    assert whole["metrics"]["hit@1"]["resampled units"] == 40
    assert plain["metrics"]["hit@1"]["resampled units"] == 80
    assert list((tmp_path / "kept").glob("mces-*.sqlite"))

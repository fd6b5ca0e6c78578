"""Scoring of any tool's answers: synthetic truths come out as they must, and what is wrong is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ionbed.cli import main
from ionbed.errors import InputError
from ionbed.evaluation.report.score_table import markdown, sentences
from ionbed.evaluation.score import score
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.evaluation.strata import cell_order
from ionbed.evaluation.task_files import SCHEMAS, load_task, write_task

QUERIES_PER_MOLECULE = 3
BOOTSTRAP = BootstrapOptions(resamples=200)


def write(
    folder: Path, kind: str = "library", *, molecules: int = 60, candidates: int = 10, shares: Sequence[str] = ()
) -> Path:
    """A task: every molecule has three queries, each with its own pool of candidates, the true one among them.

    In the kind 'open' the queries of every second molecule have no answer.
    """
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict]] = {name: [] for name in SCHEMAS}
    for number in range(molecules * QUERIES_PER_MOLECULE):
        true = number // QUERIES_PER_MOLECULE
        query = {"query_id": f"q{number}", "pool": f"p{number}", "polarity": "positive"}
        rows["queries"].append({**query, "instrument_type": ("QTOF", None)[true % 2]})
        rows["truth"].append({"spectrum_id": f"q{number}", "molecule": f"M{true}"})
        others = rng.choice(np.delete(np.arange(molecules), true), candidates - 1, replace=False)
        pool = np.sort(others if kind == "open" and true % 2 else np.append(others, true))
        rows["candidates"] += [{"pool": f"p{number}", "candidate_id": f"c{m}", "molecule": f"M{m}"} for m in pool]
    prints = rng.integers(0, 2, (molecules, 64)).astype(np.uint8)
    rows["molecules"] = [
        {"molecule": f"M{m}", "smiles": "C", "fingerprint": np.packbits(prints[m]).tobytes()} for m in range(molecules)
    ]
    schemas = {**SCHEMAS, "queries": SCHEMAS["queries"].append(pa.field("polarity", pa.string())).append(
        pa.field("instrument_type", pa.string()))}  # fmt: skip
    folder.mkdir(parents=True)
    header = {
        "kind": kind,
        "strata": ["polarity", "instrument_type"],
        "fold": "test",
        "split": {"hash": "a" * 64, "shares": list(shares)},
    }
    write_task(folder, header, {n: pa.Table.from_pylist(rows[n], schemas[n]) for n in SCHEMAS})
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write(tmp_path / "task")


def rows_of(task: Path) -> dict[str, np.ndarray]:
    """Every (query, candidate) of a task, and whether the candidate is the right one."""
    loaded = load_task(task)
    owner = np.argsort(loaded.query_pool)[loaded.candidate_pool]
    return {
        "query_id": np.array(loaded.query_id.to_pylist(), object)[owner],
        "candidate_id": np.array(loaded.candidate_id.to_pylist(), object),
        "is_true": loaded.candidate_molecule == loaded.query_molecule[owner],
        "query": owner,
    }


def predictions(path: Path, rows: dict[str, np.ndarray], given, **manifest) -> Path:
    table = pa.table({"query_id": pa.array(rows["query_id"], pa.string()),
                      "candidate_id": pa.array(rows["candidate_id"], pa.string()), "score": given})  # fmt: skip
    pq.write_table(table, path)
    said = {"name": path.stem, "known": ["precursor_mz"], "trained_on": [], **manifest}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(said))
    return path


def judged(task: Path, path: Path, **options) -> dict:
    return score(path, task, path.with_suffix(".out"), bootstrap=BOOTSTRAP, **options)


def test_an_oracle_gets_everything_and_its_opposite_nothing(task, tmp_path) -> None:
    rows = rows_of(task)
    best = judged(task, predictions(tmp_path / "oracle.parquet", rows, rows["is_true"].astype(float)))
    worst = judged(task, predictions(tmp_path / "opposite.parquet", rows, -rows["is_true"].astype(float)))
    for metric in ("hit@1", "hit@5", "hit@10", "hit@20", "MRR", "Tanimoto@1"):
        assert best["metrics"][metric]["micro"] == {"value": 1.0, "low": 1.0, "high": 1.0}
        assert best["metrics"][metric]["macro"]["value"] == 1.0
    assert best["metrics"]["hit@1"]["chance-corrected"]["value"] == 1.0
    assert worst["metrics"]["hit@1"]["micro"]["value"] == worst["metrics"]["hit@5"]["micro"]["value"] == 0.0
    assert worst["metrics"]["MRR"]["micro"]["value"] == pytest.approx(0.1)  # always the last of ten
    assert worst["metrics"]["hit@1"]["chance-corrected"]["value"] == pytest.approx(-0.1 / 0.9)
    verdicts = {d["metric"]: d["verdict"] for d in best["differences"]}
    assert verdicts["hit@1"] == verdicts["MRR"] == "beats"
    assert "hit@20" not in verdicts  # ten candidates: chance gets everything as well, and there is nothing to compare
    assert {d["verdict"] for d in worst["differences"] if d["metric"] == "hit@1"} == {"loses"}
    assert best["confidence"]["area under risk-coverage"] == 0.0


def test_a_constant_scorer_gets_the_random_expectation_exactly(task, tmp_path) -> None:
    rows = rows_of(task)
    tree = judged(task, predictions(tmp_path / "constant.parquet", rows, np.full(len(rows["query"]), 0.25)))
    for name, metric in tree["metrics"].items():
        assert metric["micro"]["value"] == pytest.approx(metric["random"], abs=1e-12), name
        assert metric["macro"]["value"] == pytest.approx(metric["random macro"], abs=1e-12)
    assert tree["metrics"]["hit@1"]["random"] == pytest.approx(0.1)
    assert tree["metrics"]["hit@5"]["random"] == pytest.approx(0.5)
    assert tree["metrics"]["MRR"]["random"] == pytest.approx(np.mean(1 / np.arange(1, 11)))
    assert (tree["metrics"]["hit@1"]["worst case"], tree["metrics"]["hit@1"]["best case"]) == (0.0, 1.0)
    assert tree["metrics"]["hit@1"]["chance-corrected"]["value"] == pytest.approx(0.0, abs=1e-12)
    assert {d["verdict"] for d in tree["differences"]} == {"unresolved"}
    assert [t["threshold"] for t in tree["confidence"]["thresholds"]] == [None] * 3


def test_a_scorer_of_known_hit_rate_gets_it(tmp_path) -> None:
    task = write(tmp_path / "task", molecules=400)
    rows = rows_of(task)
    rng = np.random.default_rng(1)
    knows = rng.random(1200) < 0.7
    scores = rng.random(len(rows["query"])) + 2.0 * (rows["is_true"] & knows[rows["query"]])
    found = judged(task, predictions(tmp_path / "known.parquet", rows, scores))["metrics"]["hit@1"]
    # Where it does not know it draws among ten.
    assert found["micro"]["low"] < 0.7 + 0.3 * 0.1 < found["micro"]["high"]
    assert found["chance-corrected"]["low"] < 0.7 < found["chance-corrected"]["high"]
    assert found["micro"]["high"] - found["micro"]["low"] < 0.07


def test_two_tools_of_one_ability_cannot_be_told_apart_and_a_better_one_can(tmp_path) -> None:
    task = write(tmp_path / "task", molecules=150)
    rows = rows_of(task)
    rng = np.random.default_rng(2)

    def tool(name: str, share: float) -> Path:
        knows = rng.random(450) < share
        scores = rng.random(len(rows["query"])) + 2.0 * (rows["is_true"] & knows[rows["query"]])
        return predictions(tmp_path / f"{name}.parquet", rows, scores)

    own, equal, weaker = tool("own", 0.6), tool("equal", 0.6), tool("weaker", 0.3)
    tree = judged(task, own, against=[equal, weaker])
    found = {(d["against"], d["metric"]): d for d in tree["differences"]}
    assert found["equal", "hit@1"]["verdict"] == "unresolved"
    assert found["weaker", "hit@1"]["verdict"] == "beats"
    assert found["random", "hit@1"]["verdict"] == "beats"
    for difference in found.values():
        assert difference["p"] <= difference["p corrected"] <= 1
    assert any(sentence.startswith("'own' beats 'weaker' in hit@1") for sentence in sentences(tree))


def test_a_tool_that_leaks_is_named(task, tmp_path) -> None:
    rows = rows_of(task)
    scores = rows["is_true"].astype(float)
    cases = {
        "oracle": ({"known": ["truth"]}, "it was given the truth"),
        "all": ({"trained_on": [{"name": "MassBank"}]}, "'MassBank' held out no molecules"),
        "other": ({"trained_on": [{"name": "x", "split": "b" * 64, "folds": ["train"]}]}, "used another split"),
        "folds": ({"trained_on": [{"name": "x", "split": "a" * 64, "folds": ["test"]}]}, "on the fold 'test'"),
        "clean": ({"trained_on": [{"name": "x", "split": "a" * 64, "folds": ["train"]}]}, None),
    }
    for name, (manifest, reason) in cases.items():
        tree = judged(task, predictions(tmp_path / f"{name}.parquet", rows, scores, **manifest))
        if reason is None:
            assert tree["tool"]["exposure"] is None
            assert "†" not in markdown(tree)
        else:
            assert reason in tree["tool"]["exposure"]
            assert "may have seen the molecules" in markdown(tree)
            assert f"## {name} †" in markdown(tree)


def test_whoever_trained_on_a_split_that_shares_molecules_is_named(tmp_path) -> None:
    task = write(tmp_path / "task", shares=["molecules"])
    corpus = {"name": "x", "split": "a" * 64, "folds": ["train"]}
    rows = rows_of(task)
    for name, trained_on in (("trained", [corpus]), ("plain", [])):
        path = predictions(tmp_path / f"{name}.parquet", rows, rows["is_true"].astype(float), trained_on=trained_on)
        reason = judged(task, path)["tool"]["exposure"]
        assert reason == ("the folds of the split share molecules" if trained_on else None)


def test_the_denominator_is_fixed(task, tmp_path) -> None:
    """Half of the queries unanswered: by no row, by NaN or by null, it is a miss; the hit rate halves."""
    rows = rows_of(task)
    truth = rows["is_true"].astype(float)
    half = rows["query"] % 2 == 0
    missing = {name: column[half] for name, column in rows.items()}
    trees = [
        judged(task, predictions(tmp_path / "rows.parquet", missing, truth[half])),
        judged(task, predictions(tmp_path / "nan.parquet", rows, np.where(half, truth, np.nan))),
        judged(task, predictions(tmp_path / "null.parquet", rows, pa.array(truth, mask=~half))),
    ]
    for tree in trees:
        assert tree["metrics"]["hit@1"]["micro"]["value"] == tree["metrics"]["hit@20"]["micro"]["value"] == 0.5
        assert tree["metrics"]["hit@1"]["queries"] == 180
        assert tree["metrics"]["Tanimoto@1"]["micro"]["value"] == 0.5
        assert tree["metrics"] == trees[0]["metrics"]
        assert tree["counts"]["queries without any score"] == 90
        assert "90 of 180 queries have no score; each counts as a miss." in sentences(tree)
    assert trees[0]["confidence"]["area under risk-coverage"] == pytest.approx(
        np.mean(np.maximum(0, np.arange(1, 181) - 90) / np.arange(1, 181))
    )


def test_queries_without_candidates_are_misses(tmp_path) -> None:
    whole = write(tmp_path / "whole")
    folder = tmp_path / "some"
    folder.mkdir()
    tables = {name: pq.read_table(whole / f"{name}.parquet") for name in SCHEMAS}
    number = np.array([int(pool[1:]) for pool in tables["candidates"]["pool"].to_pylist()])
    tables["candidates"] = tables["candidates"].filter(pa.array(number % 4 != 0))
    write_task(folder, {"kind": "library"}, tables)
    rows = rows_of(folder)
    tree = judged(folder, predictions(tmp_path / "x.parquet", rows, rows["is_true"].astype(float)))
    assert tree["metrics"]["hit@1"]["queries"] == 180
    assert tree["metrics"]["hit@1"]["micro"]["value"] == 0.75
    assert tree["metrics"]["hit@1"]["random"] == pytest.approx(0.075)
    assert tree["counts"]["queries without any score"] == 45


def test_no_answer_at_all_is_a_result_and_not_an_error(task, tmp_path) -> None:
    nothing = {name: column[:0] for name, column in rows_of(task).items()}
    tree = judged(task, predictions(tmp_path / "silent.parquet", nothing, np.zeros(0)))
    assert {metric["micro"]["value"] for metric in tree["metrics"].values()} == {0.0}
    assert "180 of 180 queries have no score; each counts as a miss." in sentences(tree)


def test_text_may_be_of_any_arrow_type(task, tmp_path) -> None:
    rows = rows_of(task)
    path = predictions(tmp_path / "x.parquet", rows, rows["is_true"].astype(np.float32))
    table = pq.read_table(path)
    pq.write_table(
        pa.table(
            {
                "query_id": table["query_id"].cast(pa.large_string()),
                "candidate_id": table["candidate_id"].dictionary_encode(),
                "score": table["score"],
            }
        ),
        path,
    )
    tables = {name: pq.read_table(task / f"{name}.parquet") for name in SCHEMAS}
    for name, column in (("queries", "query_id"), ("candidates", "pool"), ("truth", "spectrum_id")):
        place = tables[name].column_names.index(column)
        tables[name] = tables[name].set_column(place, column, tables[name][column].cast(pa.large_string()))
    (tmp_path / "large").mkdir()
    write_task(tmp_path / "large", {"kind": "library"}, tables)
    assert judged(tmp_path / "large", path)["metrics"]["hit@1"]["micro"]["value"] == 1.0


def test_a_task_that_guessing_solves_says_so(tmp_path) -> None:
    task = write(tmp_path / "task", candidates=1)
    rows = rows_of(task)
    tree = judged(task, predictions(tmp_path / "x.parquet", rows, np.zeros(len(rows["query"]))))
    assert tree["differences"] == []
    assert tree["metrics"]["hit@1"]["chance-corrected"]["value"] is None
    assert sentences(tree) == ["Guessing is perfect on this task; there is nothing to tell apart."]


def test_a_short_list_of_hits_counts_as_far_as_it_goes(task, tmp_path) -> None:
    """Only the true candidate or nothing is listed: found where it stands, a miss where it does not."""
    rows = rows_of(task)
    listed = rows["is_true"] | (rows["query"] % 3 == 0)
    listed &= ~(rows["is_true"] & (rows["query"] % 3 == 0))
    chosen = {name: column[listed] for name, column in rows.items()}
    found = judged(task, predictions(tmp_path / "short.parquet", chosen, np.ones(listed.sum())))["metrics"]
    assert found["hit@1"]["micro"]["value"] == found["hit@20"]["micro"]["value"] == pytest.approx(2 / 3)
    assert found["MRR"]["best case"] == pytest.approx(2 / 3)


def test_the_order_of_the_rows_has_no_influence(task, tmp_path) -> None:
    rows = rows_of(task)
    scores = np.round(np.random.default_rng(0).random(len(rows["query"])) + 0.3 * rows["is_true"], 1)  # many ties
    order = np.random.default_rng(1).permutation(len(scores))
    mixed = {name: column[order] for name, column in rows.items()}
    by_truth = np.argsort(~rows["is_true"], kind="stable")  # the true candidates first
    sorted_ = {name: column[by_truth] for name, column in rows.items()}
    trees = [
        judged(task, predictions(tmp_path / f"{number}.parquet", table, values, name="x"))
        for number, (table, values) in enumerate(((rows, scores), (mixed, scores[order]), (sorted_, scores[by_truth])))
    ]
    assert trees[0] == trees[1] == trees[2]
    first, *others = [(tmp_path / f"{number}.out" / "per-query.parquet").read_bytes() for number in range(3)]
    assert others == [first, first]


def test_scores_of_any_size_keep_their_order(task, tmp_path) -> None:
    """Probabilities of 1e-12 are no ties."""
    rows = rows_of(task)
    scores = np.random.default_rng(0).random(len(rows["query"])) + rows["is_true"]
    large, small = (judged(task, predictions(tmp_path / f"{f}.parquet", rows, scores * f, name="x"))
                    for f in (1.0, 2.0**-60))  # fmt: skip
    assert large["metrics"] == small["metrics"]


def test_open_world_thresholds_keep_wrong_answers_out(tmp_path) -> None:
    task = write(tmp_path / "task", "open", molecules=400)
    rows = rows_of(task)
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 1, len(rows["query"])) + 3.5 * rows["is_true"]
    tree = judged(task, predictions(tmp_path / "tool.parquet", rows, scores))
    assert tree["metrics"]["hit@1"]["queries"] == 600  # those that have an answer
    thresholds = {t["FDR"]: t for t in tree["confidence"]["thresholds"]}
    per_query = pq.read_table(tmp_path / "tool.out" / "per-query.parquet")
    best, correct = (per_query[name].to_numpy() for name in ("best_score", "correct"))
    assert len(best) == 1200 and not correct[~per_query["answerable"].to_numpy()].any()
    for level in (0.05, 0.1):
        kept = best >= thresholds[level]["threshold"]
        assert kept.sum() == thresholds[level]["accepted"] > 100
        assert 1 - correct[kept].mean() == pytest.approx(thresholds[level]["measured"])
        assert thresholds[level]["measured"] < level
    assert thresholds[0.1]["threshold"] < thresholds[0.05]["threshold"]
    # The estimate counts the second best of every query, and knows nothing of the truth.
    assert thresholds[0.1]["measured"] < thresholds[0.1]["estimated"] < 2 * thresholds[0.1]["measured"]


def test_calibration_is_told_of_probabilities_only(task, tmp_path) -> None:
    rows = rows_of(task)
    rng = np.random.default_rng(0)
    p = rng.random(180)
    knows = rng.random(180) < p
    wrong_one = np.zeros(len(rows["query"]), bool)
    wrong_one[np.unique(np.where(~rows["is_true"], rows["query"], 0), return_index=True)[1]] = True
    top = np.where(knows[rows["query"]], rows["is_true"], wrong_one & ~rows["is_true"])
    scores = np.where(top, p[rows["query"]], 0.0)
    similar = judged(task, predictions(tmp_path / "similar.parquet", rows, scores))
    probable = judged(task, predictions(tmp_path / "probable.parquet", rows, scores, scores="probability"))
    assert similar["confidence"]["calibration"] is None
    assert probable["confidence"]["calibration"]["error"] < 0.15
    with pytest.raises(InputError, match="a best score is"):
        judged(task, predictions(tmp_path / "wide.parquet", rows, scores * 3, scores="probability"))


def test_strata_are_told_apart_and_small_cells_left_out(tmp_path) -> None:
    task = write(tmp_path / "task", molecules=10)
    rows = rows_of(task)
    knows = (rows["query"] // QUERIES_PER_MOLECULE) % 2 == 0  # the molecules measured on a QTOF
    strata = judged(task, predictions(tmp_path / "x.parquet", rows, np.where(knows, rows["is_true"], 0.0)))["strata"]
    assert set(strata["polarity"]["cells"]) == {"positive"}
    assert strata["instrument_type"] == {"metric": "hit@1", "cells": {}, "queries in cells too small": 30}
    task = write(tmp_path / "large", molecules=40)
    rows = rows_of(task)
    knows = (rows["query"] // QUERIES_PER_MOLECULE) % 2 == 0
    tree = judged(task, predictions(tmp_path / "y.parquet", rows, np.where(knows, rows["is_true"], 0.0)))
    cells = tree["strata"]["instrument_type"]["cells"]
    assert cells["QTOF"]["micro"]["value"] == 1.0
    assert cells["unknown"]["micro"]["value"] == pytest.approx(0.1)
    assert "| QTOF | 60 |" in markdown(tree)


def test_ranges_stand_in_their_order() -> None:
    labels = ["unknown", "100 to 200 Da", "20 to 30 Da", "below 20 Da", "200 Da and more", "[M+H]+"]
    assert sorted(labels, key=cell_order) == [
        "below 20 Da", "20 to 30 Da", "100 to 200 Da", "200 Da and more", "[M+H]+", "unknown",
    ]  # fmt: skip


def spoil(rows: dict[str, np.ndarray], how: str):
    """Rows and scores with one thing wrong."""
    ids = {name: rows[name].copy() for name in ("query_id", "candidate_id")}
    scores = rows["is_true"].astype(float)
    if how == "unknown query":
        ids["query_id"][7] = "nobody"
    elif how == "unknown candidate":
        ids["candidate_id"][7] = "nothing"
    elif how == "foreign candidate":
        mine = set(rows["candidate_id"][rows["query"] == rows["query"][7]])
        ids["candidate_id"][7] = next(c for c in rows["candidate_id"] if c not in mine)
    elif how == "twice":
        ids = {name: np.append(column, column[7]) for name, column in ids.items()}
        scores = np.append(scores, 0.5)
    elif how == "infinite":
        scores[7] = np.inf
    elif how == "text":
        scores = scores.astype(str)
    return ids, scores


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unknown query", "row 7: unknown query 'nobody'; take the ids from the task's queries.parquet"),
        ("unknown candidate", "row 7: unknown candidate 'nothing'"),
        ("foreign candidate", "row 7: .* is not a candidate of the query"),
        ("twice", "is there twice; give each one score"),
        ("infinite", "row 7: the score is infinite"),
        ("text", "the column 'score' is string; it must be numbers"),
    ],
)
def test_wrong_predictions_are_refused_in_one_line(task, tmp_path, capsys, how: str, message: str) -> None:
    path = predictions(tmp_path / "x.parquet", *spoil(rows_of(task), how))
    with pytest.raises(InputError, match=message):
        judged(task, path)
    assert main(["score", str(path), str(task), "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"task": "b" * 64}, "answers another task"),
        ({"known": ["everything"]}, "'known' holds 'everything'"),
        ({"name": " "}, "'name' is empty"),
        ({"corpora": []}, "unknown key 'corpora'"),
        ({"scores": "energy"}, "must be one of similarity, probability"),
        ({"name": "random"}, "two rows would be named 'random'"),
    ],
)
def test_wrong_manifests_are_refused(task, tmp_path, manifest: dict, message: str) -> None:
    rows = rows_of(task)
    with pytest.raises(InputError, match=message):
        judged(task, predictions(tmp_path / "x.parquet", rows, rows["is_true"].astype(float), **manifest))


def test_what_is_missing_is_named(task, tmp_path) -> None:
    rows = rows_of(task)
    path = predictions(tmp_path / "x.parquet", rows, np.zeros(len(rows["query"])))
    manifest = path.with_suffix(".yaml")
    (tmp_path / "x.json").write_text(json.dumps(yaml.safe_load(manifest.read_text())))
    with pytest.raises(InputError, match="has two manifests"):
        judged(task, path)
    manifest.unlink()
    assert judged(task, path)["tool"]["name"] == "x"  # JSON will do
    (tmp_path / "x.json").unlink()
    with pytest.raises(InputError, match="has no manifest beside it"):
        judged(task, path, overwrite=True)
    path = predictions(tmp_path / "y.parquet", rows, np.zeros(len(rows["query"])))
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        judged(task, path)
    with pytest.raises(InputError, match=r"never.parquet: no such file"):
        judged(task, tmp_path / "never.parquet")
    with pytest.raises(InputError, match=r"y.yaml: is no Parquet file by its name"):
        judged(task, path.with_suffix(".yaml"))
    pq.write_table(pa.table({"query_id": ["q0"]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="has no column 'candidate_id'"):
        judged(task, tmp_path / "y.parquet")
    (tmp_path / "y.parquet").write_text("query_id,candidate_id,score")
    with pytest.raises(InputError, match="is not Parquet"):
        judged(task, tmp_path / "y.parquet")
    with pytest.raises(InputError, match="is no task"):
        judged(tmp_path / "nowhere", path)


def test_what_the_scores_give_away_stands_in_the_results_before_the_verdict(task, tmp_path) -> None:
    rows = rows_of(task)
    place = np.tile(np.arange(10.0), 180)
    given = {
        "oracle": rows["is_true"].astype(float),
        "by place": place,
        "honest": np.random.default_rng(0).random(1800),
    }
    failed = {}
    for name, values in given.items():
        path = predictions(tmp_path / f"{name.replace(' ', '-')}.parquet", rows, values)
        tree = score(path, task, tmp_path / name, bootstrap=BOOTSTRAP)
        failed[name] = [finding["audit"] for finding in tree["audits"] if finding["passed"] is False]
        first = f"Audit failed: {failed[name][0]}" if failed[name] else "'"
        assert sentences(tree)[0].startswith(first)
        assert ("Audit failed" in markdown(tree)) == bool(failed[name])
        assert (f"No verdict on '{path.stem}' counts while an audit of it fails." in sentences(tree)) == bool(
            failed[name]
        )
        assert "## Audits" in markdown(tree)
    assert failed == {"oracle": ["use of the truth"], "by place": ["score by place in the list"], "honest": []}


def test_the_command_line_prints_the_table_and_writes_the_folder(task, tmp_path, capsys) -> None:
    rows = rows_of(task)
    path = predictions(tmp_path / "mine.parquet", rows, rows["is_true"].astype(float), version="2.1")
    other = predictions(tmp_path / "theirs.parquet", rows, np.zeros(len(rows["query"])))
    words = ["score", path, task, "--out", tmp_path / "out", "--against", other, "--resamples", 100]
    assert main(list(map(str, words))) == 0
    out = capsys.readouterr().out
    assert out.startswith("Audit failed: use of the truth (mine)")  # its scores are the truth
    assert "\n'mine' beats chance in hit@1" in out
    for text in ("mine 2.1", "hit@10", "chance-corrected", "theirs", "score threshold", "Holm"):
        assert text in out
    tree = json.loads((tmp_path / "out" / "results.json").read_text())
    assert tree["task"]["hash"] == load_task(task).hash
    assert len(pq.read_table(tmp_path / "out" / "per-query.parquet")) == 180
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["command"] == "score"
    assert main(list(map(str, words))) == 2  # the folder is taken

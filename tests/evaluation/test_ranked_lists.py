"""Ranked lists of MassSpecGym's form: what is written is read back as it was, and others' tables are judged alike."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ionbed.cli import main
from ionbed.errors import InputError
from ionbed.evaluation.make_task import make_task
from ionbed.evaluation.predictions import PredictionManifest, read_predictions, write_predictions
from ionbed.evaluation.ranked_lists import LISTED, read_answers, write_ranked_lists
from ionbed.evaluation.retrieval import RetrievalOptions
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.score import score
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.evaluation.task_files import Task, load_task

BOOTSTRAP = BootstrapOptions(resamples=100)
MOLECULES = ["CCCCO", "CCCCN", "CC(=O)CC"]
LISTS = {
    "OCCCC": ["CCCCO", "CC(C)CO", "C((", "CCOCC", "CC[C@H](C)O", "CC[C@@H](C)O"],  # the truth first, as in the original
    "CCCCN": ["CCNCC", "NCCCC", "CC(C)CN"],
    "CC(=O)CC": ["CCCC=O", "CCC(C)=O", "C1CCCO1"],
}
BEST_FIRST = {
    "0-0": ["CCCCO", "CCOCC", "CC[C@H](C)O", "CC(C)CO", "CC[C@@H](C)O", "C(("],
    "0-1": ["CC[C@H](C)O", "CCCCO", "CCOCC", "CC(C)CO", "CC[C@@H](C)O", "C(("],
    "1-0": ["CC(C)CN", "CCNCC", "NCCCC"],
}
"""What another tool ranked: right, second and last; of the third molecule nothing."""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> EvaluationConfig:
    from ionbed.spectra.split import Split

    from .conftest import block, spectrum, write_store

    folder = tmp_path_factory.mktemp("benchmark")
    spectra = [
        replace(spectrum(number, copy, smiles=smiles, mz=(60.0 + number,), intensity=(1.0,)), adduct=None)
        for number, smiles in enumerate(MOLECULES)
        for copy in range(2 if number == 0 else 1)
    ]
    Split("inchikey-block", 0, {block(n): "test" for n in range(3)}).save(folder / "split.json")
    (folder / "lists.json").write_text(json.dumps(LISTS))
    return EvaluationConfig(
        dataset=write_store(folder / "store", spectra),
        split=folder / "split.json",
        retrieval=RetrievalOptions(by="lists", lists=folder / "lists.json"),
    )


@pytest.fixture(scope="module")
def folder(config: EvaluationConfig, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("task") / "task"
    make_task(config, "retrieval", folder)
    return folder


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return load_task(folder)


def write_theirs(path: Path, ranked=BEST_FIRST, scores=None, **changes) -> Path:
    """Write a table as the benchmark's tools do, with scores from 1 downwards, and a manifest."""
    table = {
        "identifier": list(ranked),
        "sorted_scores": [
            [1.0 - place for place in range(len(smiles))] for smiles in ranked.values()
        ] if scores is None else scores,
        "sorted_candidate_smiles": list(ranked.values()),
        "test_hit_rate@1": [0.5] * len(ranked),
    } | changes  # fmt: skip
    pq.write_table(pa.table({name: values for name, values in table.items() if values is not False}), path)
    path.with_suffix(".yaml").write_text("name: theirs\nknown: []\ntrained_on: []\n")
    return path


def hits(path: Path, folder: Path, out: Path) -> dict[str, float]:
    score(path, folder, out, bootstrap=BOOTSTRAP)
    table = pq.read_table(out / "per-query.parquet")
    return dict(zip(table["query_id"].to_pylist(), table["MRR"].to_pylist(), strict=True))


def test_the_task_keeps_the_lists_as_they_are_written_in_no_telling_order(folder):
    listed = pq.read_table(folder / f"{LISTED}.parquet").to_pylist()
    assert [row["smiles"] for row in listed if row["query_id"] == "0-0"] == sorted(LISTS["OCCCC"])
    ids = {row["smiles"]: row["candidate_id"] for row in listed if row["query_id"] == "0-0"}
    assert ids["C(("] is None and ids["CC[C@H](C)O"] == ids["CC[C@@H](C)O"] is not None
    assert len(listed) == 2 * 6 + 3 + 3
    assert f"{LISTED}.parquet" in json.loads((folder / "task.json").read_text())["files"]


def test_anothers_table_is_judged_by_its_ranks(folder, tmp_path):
    """Two enantiomers are one candidate, before and behind the truth in '0-1': it has the better place."""
    expected = {"0-0": 1.0, "0-1": 0.5, "1-0": 1 / 3, "2-0": 0.0}  # no list for the last: an abstention, and a miss
    assert hits(write_theirs(tmp_path / "a.parquet"), folder, tmp_path / "a") == pytest.approx(expected)
    # The order alone, without scores; and scores that contradict the order, which count.
    assert hits(write_theirs(tmp_path / "b.parquet", sorted_scores=False), folder, tmp_path / "b") == pytest.approx(
        expected
    )
    scores = [[float(place) for place in range(len(smiles))] for smiles in BEST_FIRST.values()]
    turned = hits(write_theirs(tmp_path / "c.parquet", scores=scores), folder, tmp_path / "c")
    assert turned == pytest.approx({"0-0": 1 / 4, "0-1": 1 / 4, "1-0": 1.0, "2-0": 0.0})


def test_equal_scores_count_in_expectation_and_nan_abstains(folder, task, tmp_path):
    path = write_theirs(tmp_path / "x.parquet", {"1-0": BEST_FIRST["1-0"]}, [[0.5, 0.5, 0.5]])
    score(path, folder, tmp_path / "out", bootstrap=BOOTSTRAP)
    rows = {row["query_id"]: row for row in pq.read_table(tmp_path / "out" / "per-query.parquet").to_pylist()}
    assert rows["1-0"]["hit@1"] == pytest.approx(1 / 3)
    nothing = read_answers(write_theirs(tmp_path / "y.parquet", {"1-0": ["NCCCC"]}, [[float("nan")]]), task, folder)
    assert nothing.counts["queries without any score"] == 4


def test_smiles_that_are_written_otherwise_are_known_by_their_structure(folder, task, tmp_path, caplog):
    caplog.set_level("INFO", logger="ionbed")
    ranked = {"1-0": ["C(C)CCN", "C(NCC)C", "C[CH2]CC(N)C"], "unheard of": ["CCO"]}
    found = read_answers(write_theirs(tmp_path / "x.parquet", ranked), task, folder)
    assert sorted(found.score.tolist()) == [0.0, 1.0]
    molecules = task.smiles[task.candidate_molecule[found.candidate]].tolist()
    assert sorted(molecules) == ["CCCCN", "CCNCC"]
    assert "1 of its 2 spectra are asked about in the task; 1 candidates are not in the lists" in caplog.text


def test_what_is_written_is_read_back_as_it_was(folder, task, tmp_path):
    """With a tie, an abstention, and a query without any score."""
    pool_of = dict(
        zip(*(pq.read_table(folder / "queries.parquet")[c].to_pylist() for c in ("query_id", "pool")), strict=True)
    )
    candidates = pq.read_table(folder / "candidates.parquet").to_pylist()
    rows = [
        {"query_id": query, "candidate_id": row["candidate_id"], "score": float(len(row["candidate_id"]) + place % 3)}
        for query, pool in pool_of.items()
        for place, row in enumerate(row for row in candidates if row["pool"] == pool)
        if query != "2-0"
    ]
    rows[0]["score"] = float("nan")
    write_predictions(tmp_path / "own.parquet", pa.Table.from_pylist(rows), PredictionManifest("own", (), ()))
    own = read_predictions(tmp_path / "own.parquet", task)
    write_ranked_lists(tmp_path / "theirs.parquet", own, task, folder)
    (tmp_path / "theirs.yaml").write_text((tmp_path / "own.yaml").read_text())
    theirs = read_answers(tmp_path / "theirs.parquet", task, folder)

    def scores(found):
        keys = zip(found.query.tolist(), found.candidate.tolist(), strict=True)
        return {key: value for key, value in zip(keys, found.score.tolist(), strict=True) if not np.isneginf(value)}

    assert scores(own) == scores(theirs)
    table = pq.read_table(tmp_path / "theirs.parquet")
    assert table.column_names == ["identifier", "sorted_scores", "sorted_candidate_smiles"]
    for row in table.to_pylist():
        key = next(key for key in LISTS if set(LISTS[key]) == set(row["sorted_candidate_smiles"]))
        assert len(row["sorted_scores"]) == len(LISTS[key])
        scored = [value for value in row["sorted_scores"] if not np.isnan(value)]
        assert scored == sorted(scored, reverse=True)
        assert np.isnan(row["sorted_scores"][len(scored) :]).all()
        assert (len(scored) == 0) == (row["identifier"] == "2-0")


def test_the_command_writes_their_form_where_it_is_asked_for(folder, tmp_path):
    path = write_theirs(tmp_path / "x.parquet")
    words = ["score", str(path), str(folder), "--resamples", "100", "--ranked-lists", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    written = pq.read_table(tmp_path / "out" / "ranked-lists.parquet")
    lists = dict(zip(written["identifier"].to_pylist(), written["sorted_candidate_smiles"].to_pylist(), strict=True))
    assert lists["1-0"] == BEST_FIRST["1-0"]
    assert lists["2-0"] == sorted(LISTS["CC(=O)CC"])


def test_a_task_without_lists_is_told(config, tmp_path):
    (tmp_path / "pool.smi").write_text("CCOCC x\n")
    options = RetrievalOptions(by="formula", pools=(tmp_path / "pool.smi",))
    make_task(replace(config, retrieval=options), "retrieval", tmp_path / "task")
    with pytest.raises(InputError, match="was not made from a benchmark's lists"):
        score(write_theirs(tmp_path / "x.parquet"), tmp_path / "task", tmp_path / "out", bootstrap=BOOTSTRAP)


@pytest.mark.parametrize(
    ("ranked", "changes", "said"),
    [
        ({"nobody": ["CCO"]}, {}, "none of its 1 spectra is asked about"),
        ({"1-0": ["CCO", "CCC", "NCCCC"]}, {}, "2 of its 3 candidates are not in the lists"),
        ({"1-0": ["NCCCC"]}, {"sorted_scores": [[1.0, 2.0]]}, "'1-0' has not as many scores as candidates"),
        ({"1-0": ["NCCCC"]}, {"sorted_scores": [[float("inf")]]}, "'1-0' has an infinite score"),
        ({"1-0": ["NCCCC"]}, {"sorted_scores": [["high"]]}, "must be lists of numbers"),
        ({"1-0": ["NCCCC"]}, {"sorted_candidate_smiles": ["NCCCC"]}, "must be lists, the best candidate first"),
        ({"1-0": ["NCCCC"], "2-0": ["CCC"]}, {"identifier": ["1-0"] * 2}, "the identifier '1-0' is there twice"),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_are_refused_in_one_line(folder, task, tmp_path, ranked, changes, said):
    path = write_theirs(tmp_path / "x.parquet", ranked, **changes)
    with pytest.raises(InputError, match=said) as refused:
        read_answers(path, task, folder)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_pickle_is_not_read(task, folder, tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="is a pickle, which can run anything"):
        read_answers(tmp_path / "x.pkl", task, folder)

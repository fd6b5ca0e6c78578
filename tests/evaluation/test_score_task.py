"""Tasks as folders: they ask what `ionbed evaluate` asks; our own scores get the same numbers through both doors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ionbed.cli import main
from ionbed.errors import InputError
from ionbed.evaluation import question as module
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.dataset import load_evaluation_data
from ionbed.evaluation.draws import question_of
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.make_task import make_task, prediction_table
from ionbed.evaluation.mces_at_1 import MCESOptions
from ionbed.evaluation.measure import measure
from ionbed.evaluation.predictions import PredictionManifest, read_prediction_manifest, write_predictions
from ionbed.evaluation.question import Question, answer, ask
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.score import score
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.evaluation.strata import binned
from ionbed.evaluation.task_files import KINDS, load_task
from ionbed.spectra.molecules import standardise
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store

BOOTSTRAP = BootstrapOptions(resamples=100)
OWN = PredictionManifest("own", ("precursor_mz",), ())


class Table:
    """A scorer that reads its scores from a matrix over all spectra, and abstains where that holds NaN."""

    kind = "learned"
    label = "own"

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return self.matrix[np.ix_(queries, library)]


def ether(molecule: int) -> str:
    """A structure: the four molecules of a group are isomers."""
    group, place = divmod(molecule, 4)
    return f"{'C' * (place + 1)}O{'C' * (8 + group - place)}"


@pytest.fixture
def config(build: SimpleNamespace, tmp_path: Path) -> EvaluationConfig:
    spectra, folds = build.isomers(40)
    proton = 1.007276
    spectra = [
        replace(
            s,
            license=("CC0", None)[i % 2],
            collision_energy=float(i % 50),
            smiles=structure,
            precursor_mz=standardise(structure).exact_mass + proton,
        )
        for i, s in enumerate(spectra)
        for structure in [ether(int(s.spectrum_id.split("-")[0]))]
    ]
    build.split_of(folds).save(tmp_path / "split.json")
    return EvaluationConfig(build.write_store(tmp_path / "store", spectra), tmp_path / "split.json")


@pytest.fixture
def data(config: EvaluationConfig):
    return load_evaluation_data(Store(config.dataset), Split.load(config.split))


@pytest.fixture
def some_scores(data) -> Table:
    """Right more often than not, with ties, and with abstentions."""
    rng = np.random.default_rng(0)
    same = data.molecule[:, None] == data.molecule[None, :]
    scores = np.round(rng.random(same.shape) + 0.5 * same, 1)
    scores[rng.random(same.shape) < 0.1] = np.nan
    scores[3] = np.nan
    return Table(scores)


def asked(data, config: EvaluationConfig, kind: str) -> Question:
    question = ask(question_of(kind, "mass"), data, candidate_molecules(data), config)
    assert question is not None
    return question


def through_the_door(data, config: EvaluationConfig, kind: str, scorer, tmp_path: Path) -> dict:
    """Write the scores of one of our own scorers as any tool would, and have them judged."""
    make_task(config, kind, tmp_path / kind)
    question = asked(data, config, kind)
    table = prediction_table(question, answer(question, data, scorer))
    write_predictions(tmp_path / "own.parquet", table, OWN)
    return score(tmp_path / "own.parquet", tmp_path / kind, tmp_path / "out", bootstrap=BOOTSTRAP, seed=config.seed)


@pytest.mark.parametrize("kind", ["library", "open", "analogue", "pairs"])
def test_both_doors_give_the_same_numbers(data, config, some_scores, tmp_path, kind: str) -> None:
    entry = Entry("own", "learned", (lambda data, molecules, rows: some_scores,))
    (result,) = measure(
        [asked(data, config, kind)], data, candidate_molecules(data), [entry], BOOTSTRAP, seed=config.seed
    )
    tree = through_the_door(data, config, kind, some_scores, tmp_path)
    (row,) = result.tree["rows"]
    assert row["metrics"].keys() == tree["metrics"].keys()
    for metric, of in row["metrics"].items():
        found = tree["metrics"][metric]
        for average in ("micro", "macro", "chance-corrected"):
            if of.get(average) is not None:
                assert found[average] == pytest.approx(of[average], abs=1e-9, nan_ok=True), (metric, average)
        assert found["random"] == pytest.approx(of["random"], abs=1e-9)
    assert 0.2 < next(iter(row["metrics"].values()))["micro"]["value"] < 0.97
    if kind != "analogue":  # of which only the best candidates are given
        assert row["counts"] == tree["counts"]
    assert (tree["confidence"] is None) == (kind in ("analogue", "pairs"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_shows_the_tool_no_truth(config, tmp_path, kind: str) -> None:
    header = make_task(config, kind, tmp_path / "task")
    task = load_task(tmp_path / "task")
    assert task.kind == kind and task.hash == header["hash"] and task.hits == (1, 5, 10, 20)
    tables = {name: pq.read_table(tmp_path / "task" / f"{name}.parquet") for name in ("queries", "candidates")}
    assert "molecule" not in tables["queries"].column_names
    if kind == "pairs":
        assert tables["candidates"]["molecule"].null_count == len(tables["candidates"])
    spectra = pq.read_table(tmp_path / "task" / "spectra.parquet")
    assert {"smiles", "inchikey", "name", "formula", "laboratory"}.isdisjoint(spectra.column_names)
    assert set(tables["queries"]["query_id"].to_pylist()) <= set(spectra["spectrum_id"].to_pylist())
    # The place of a candidate says nothing: each pool is sorted by id.
    for pool in tables["candidates"]["pool"].unique().to_pylist():
        ids = [r["candidate_id"] for r in tables["candidates"].to_pylist() if r["pool"] == pool]
        assert ids == sorted(ids)
    assert set(header["license"]) == {"CC0", "not stated"}
    assert json.loads((tmp_path / "task" / "manifest.json").read_text())["command"] == "task"


def test_the_same_configuration_makes_the_same_task(config, tmp_path) -> None:
    assert make_task(config, "open", tmp_path / "a")["hash"] == make_task(config, "open", tmp_path / "b")["hash"]
    assert make_task(replace(config, seed=1), "open", tmp_path / "c")["hash"] != load_task(tmp_path / "a").hash


def test_half_of_the_molecules_of_an_open_world_have_no_answer(config, tmp_path) -> None:
    make_task(config, "open", tmp_path / "task")
    task = load_task(tmp_path / "task")
    answerable = {
        int(molecule): bool(np.any(task.candidate_molecule[task.candidate_pool == pool] == molecule))
        for pool, molecule in zip(task.query_pool, task.query_molecule, strict=True)
    }
    assert sum(answerable.values()) == len(answerable) - len(answerable) // 2
    assert task.header["counts"]["of these without an answer"] > 0


def test_the_baselines_of_a_task_can_be_scored_and_compared(config, tmp_path) -> None:
    networks = replace(config.trained_baselines, trainings=0)
    make_task(replace(config, trained_baselines=networks), "library", tmp_path / "task", baselines=True)
    files = {path.stem: path for path in (tmp_path / "task" / "baselines").glob("*.parquet")}
    lookups = {"cosine", "modified-cosine", "spectral-entropy", "hybrid-entropy"}
    assert set(files) == {"precursor-only", "most-measured", *lookups}
    tree = score(
        files["spectral-entropy"],
        tmp_path / "task",
        tmp_path / "out",
        against=[files["precursor-only"]],
        bootstrap=BOOTSTRAP,
    )
    (difference,) = (d for d in tree["differences"] if d["against"] == "precursor only" and d["metric"] == "hit@1")
    assert difference["verdict"] == "beats" and difference["test"] == "permutation"
    assert tree["others"][0]["tool"]["exposure"] is None


def test_an_analogue_search_keeps_what_decides(data, config, some_scores, monkeypatch, tmp_path) -> None:
    """The hits that are left out cannot be the best, so that the numbers do not change."""
    whole = through_the_door(data, config, "analogue", some_scores, tmp_path)
    monkeypatch.setattr(module, "HITS_KEPT", 2)
    (tmp_path / "few").mkdir()
    few = through_the_door(data, config, "analogue", some_scores, tmp_path / "few")
    assert few["counts"]["rows"] < whole["counts"]["rows"]
    assert few["metrics"] == whole["metrics"]


def test_a_task_that_cannot_be_made_is_refused(config, tmp_path) -> None:
    shared = Split.load(config.split)
    replace(shared, shares=("molecules",)).save(tmp_path / "shared.json")
    with pytest.raises(InputError, match="its folds share molecules"):
        make_task(replace(config, split=tmp_path / "shared.json"), "analogue", tmp_path / "task")
    with pytest.raises(InputError, match="nothing to ask of this kind in the fold 'validation'"):
        make_task(replace(config, fold="validation"), "library", tmp_path / "task")
    assert not (tmp_path / "task").exists()


@pytest.mark.parametrize("name", ["truth.parquet", "candidates.parquet", "task.json"])
def test_a_task_that_was_changed_is_refused(config, tmp_path, name: str) -> None:
    make_task(config, "library", tmp_path / "task")
    path = tmp_path / "task" / name
    if name == "task.json":
        path.write_text(path.read_text().replace('"fold": "test"', '"fold": "validation"'))
    else:
        pq.write_table(pq.read_table(path).slice(0, 5), path)
    with pytest.raises(InputError, match=f"{name}: was changed after the task was made"):
        load_task(tmp_path / "task")
    path.unlink()
    with pytest.raises(InputError, match="is no task" if name == "task.json" else "is missing"):
        load_task(tmp_path / "task")


def test_ranges_include_their_lower_end_and_nothing_is_a_value() -> None:
    assert binned(np.array([5.0, 10.0, 19.9, 60.0, np.nan]), (10.0, 20.0, 60.0), "eV").tolist() == [
        "below 10 eV", "10 to 20 eV", "10 to 20 eV", "60 eV and more", None,
    ]  # fmt: skip


def test_a_task_written_by_hand_that_contradicts_itself_is_refused(tmp_path) -> None:
    from ionbed.evaluation.task_files import SCHEMAS, write_task

    def tables(**changed: list[dict]) -> dict[str, pa.Table]:
        rows = {
            "queries": [{"query_id": "q", "pool": "p"}],
            "candidates": [{"pool": "p", "candidate_id": "c", "molecule": "A"}],
            "molecules": [],
            "truth": [{"spectrum_id": "q", "molecule": "A"}],
            **changed,
        }
        return {name: pa.Table.from_pylist(rows[name], SCHEMAS[name]) for name in SCHEMAS}

    candidate = {"pool": "p", "candidate_id": "c", "molecule": "A"}
    for number, (changed, message) in enumerate(
        (
            ({}, None),
            ({"queries": [{"query_id": "q", "pool": "p"}] * 2}, "the query 'q' is there twice"),
            ({"candidates": [candidate] * 2}, "the candidate 'c' is twice in the pool 'p'"),
            ({"candidates": [{**candidate, "molecule": None}]}, "a candidate has no molecule"),
            ({"truth": []}, "has no row for the query 'q'"),
            ({"molecules": [{"molecule": "B", "smiles": "C", "fingerprint": b"1"}]}, "no row for the molecule 'A'"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_task(folder, {"kind": "library"}, tables(**changed))
        if message is None:
            assert load_task(folder).fingerprint is None
        else:
            with pytest.raises(InputError, match=message):
                load_task(folder)


@pytest.mark.parametrize(
    ("kind", "by", "window"),
    [
        ("library", "mass", 3.0),
        ("pairs", "mass", 4.0),
        ("retrieval", "mass", 5.0),
        ("retrieval", "formula", None),
        ("analogue", "mass", None),
    ],
)
def test_the_header_names_the_window_that_the_candidates_were_drawn_from(config, tmp_path, kind, by, window) -> None:
    config = replace(
        config,
        library_search=replace(config.library_search, precursor_ppm=3.0),
        same_molecule=replace(config.same_molecule, precursor_ppm=4.0),
        retrieval=replace(config.retrieval, precursor_ppm=5.0, by=by),
    )
    header = make_task(config, kind, tmp_path / "task")
    assert header["precursor_ppm"] == window
    assert header.get("by") == (by if kind == "retrieval" else None)


def test_rows_whose_labels_give_one_file_name_are_both_written(
    data, config, some_scores, tmp_path, monkeypatch
) -> None:
    entries = [Entry(label, "learned", (lambda *_: some_scores,)) for label in ("a b", "a/b", "a-b")]
    monkeypatch.setattr("ionbed.evaluation.make_task._rows", lambda *_: entries)
    make_task(config, "library", tmp_path / "task", baselines=True)
    names = {
        read_prediction_manifest(path).name: path.name for path in (tmp_path / "task" / "baselines").glob("*.parquet")
    }
    assert names == {"a b": "a-b.parquet", "a/b": "a-b-2.parquet", "a-b": "a-b-3.parquet"}


def test_only_the_first_training_of_a_model_is_loaded_for_a_task(config, tmp_path, monkeypatch) -> None:
    networks = replace(config.trained_baselines, trainings=0)
    config = replace(config, models={"x": ("one", "two"), "y": "three"}, trained_baselines=networks)
    asked_for: list[object] = []

    def load(config: EvaluationConfig) -> dict[str, list[object]]:
        asked_for.append(config.models)
        return {}

    monkeypatch.setattr("ionbed.evaluation.make_task.load_models", load)
    make_task(config, "pairs", tmp_path / "task", baselines=True)
    assert asked_for == [{"x": "one", "y": "three"}]


def test_rows_that_take_long_for_many_candidates_know_how_many_there_are(config, tmp_path, monkeypatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(
        "ionbed.evaluation.make_task.table_rows", lambda *_, num_candidates=0, **__: told.append(num_candidates) or []
    )
    make_task(config, "retrieval", tmp_path / "task", baselines=True)
    assert told == [len(set(load_task(tmp_path / "task").candidate_id.to_pylist()))] and told[0] > 1


def test_mces_is_refused_where_no_structures_are_ranked(data, config, some_scores, tmp_path) -> None:
    through_the_door(data, config, "pairs", some_scores, tmp_path)
    with pytest.raises(InputError, match="has no structures to rank"):
        score(tmp_path / "own.parquet", tmp_path / "pairs", tmp_path / "never", mces=MCESOptions(max_queries=5))
    assert not (tmp_path / "never").exists()


def test_some_rows_alone_are_written_where_that_is_asked_for(config, tmp_path, capsys) -> None:
    config = replace(config, trained_baselines=replace(config.trained_baselines, trainings=0))
    make_task(config, "pairs", tmp_path / "task", baselines=True, only=["cosine", "precursor only"])
    written = {path.name for path in (tmp_path / "task" / "baselines").glob("*.parquet")}
    assert written == {"cosine.parquet", "precursor-only.parquet"}
    with pytest.raises(InputError, match=r"--only mine: no row of this kind of task has that label; there .*cosine"):
        make_task(config, "pairs", tmp_path / "other", baselines=True, only=["mine"])
    assert not (tmp_path / "other").exists()
    words = ["task", str(config.dataset), str(config.split), "--kind", "pairs", "--out", str(tmp_path / "other")]
    assert main([*words, "--only", "cosine"]) == 2
    assert "--only: names rows of --baselines" in capsys.readouterr().err

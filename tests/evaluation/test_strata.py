"""Strata: what queries are told apart by, and that every cell says what a calculation on its members alone says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ionbed.evaluation.comparisons import Comparisons
from ionbed.evaluation.judgement import Judge
from ionbed.evaluation.metrics import WeightedRocAuc, roc_auc
from ionbed.evaluation.predictions import PredictionManifest, Predictions
from ionbed.evaluation.statistics import (
    BootstrapOptions,
    estimate,
    molecule_weights,
    resampled_over_pairs,
    resampling_units,
)
from ionbed.evaluation.strata import (
    DIFFERENT_LABORATORIES,
    NAMES,
    ONE_LABORATORY,
    TRUTH_STRATA,
    UNKNOWN,
    cell_order,
    pair_strata,
    query_strata,
)
from ionbed.evaluation.strata_judgement import SMALLEST_CELL, linearised_roc_auc, strata_trees
from ionbed.evaluation.task_files import Task, load_task, write_task

BOOTSTRAP = BootstrapOptions(resamples=200)


def ranked_task(labels: list[str | None], *, per_molecule: int = 3, candidates: int = 4) -> Task:
    """A library search in which every query has the same number of candidate molecules, one of them true."""
    num_queries = len(labels)
    molecule = np.arange(num_queries) // per_molecule
    num_molecules = int(molecule.max()) + 1 + candidates
    pool = np.repeat(np.arange(num_queries), candidates)
    candidate = (molecule[pool] + np.tile(np.arange(candidates), num_queries)) % num_molecules
    return Task(
        header={"kind": "library", "hits": [1], "counts": {}, "strata": ["made up"], "hash": ""},
        query_id=pa.array([f"q{i}" for i in range(num_queries)]),
        query_pool=np.arange(num_queries),
        query_molecule=molecule,
        candidate_id=pa.array([f"c{i}" for i in range(len(pool))]),
        candidate_pool=pool,
        candidate_molecule=candidate,
        molecule=np.array([f"m{i}" for i in range(num_molecules)], object),
        fingerprint=None,
        strata={"made up": np.array(labels, object)},
    )


def answered(task: Task, scores: np.ndarray, name: str = "own") -> Predictions:
    query = np.argsort(task.query_pool)[task.candidate_pool]
    return Predictions(PredictionManifest(name, (), ()), query, np.arange(len(scores)), scores, {})


def is_true(task: Task) -> np.ndarray:
    return task.candidate_molecule == task.query_molecule[np.argsort(task.query_pool)[task.candidate_pool]]


def test_each_cell_holds_the_truth_of_its_queries() -> None:
    labels = ["easy"] * 60 + ["hard"] * 60 + [None] * 30 + ["rare"] * 6
    task = ranked_task(labels)
    query = task.candidate_pool
    # Where it is easy the scorer knows the truth, where it is hard it says nothing, and elsewhere it is always wrong.
    scores = np.where(query < 60, is_true(task), np.where(query < 120, 0.0, ~is_true(task))).astype(float)
    constant = np.zeros(len(scores))
    judge = Judge(task, BOOTSTRAP, seed=0)
    rows = [judge([answered(task, scores)]), judge([answered(task, constant, "constant")])]
    own, other = (tree["made up"] for tree in strata_trees(task, rows, BOOTSTRAP, seed=0))
    assert list(own["cells"]) == ["easy", "hard", UNKNOWN]
    assert own["metric"] == "hit@1"
    assert own["queries in cells too small"] == 6
    assert sum(cell["queries"] for cell in own["cells"].values()) + 6 == len(labels)
    assert [cell["micro"]["value"] for cell in own["cells"].values()] == [1.0, 0.25, 0.0]
    assert own["cells"]["easy"]["chance-corrected"]["value"] == 1.0
    assert own["cells"]["hard"]["chance-corrected"]["value"] == pytest.approx(0.0)
    for cell in other["cells"].values():  # ties in expectation: a constant scorer is chance in every cell
        assert cell["micro"]["value"] == cell["random"] == 0.25
    assert strata_trees(task, rows[1:], BOOTSTRAP, seed=0)[0]["made up"] == other


def test_a_cell_needs_queries_and_molecules() -> None:
    of_few_molecules = ranked_task(["A"] * 2 * SMALLEST_CELL + ["B"] * 40, per_molecule=10)
    rows = [Judge(of_few_molecules, BOOTSTRAP, seed=0)([answered(of_few_molecules, is_true(of_few_molecules) * 1.0)])]
    found = strata_trees(of_few_molecules, rows, BOOTSTRAP, seed=0)[0]["made up"]
    assert found["cells"] == {}
    assert found["queries in cells too small"] == 80
    of_few_queries = ranked_task(["A"] * SMALLEST_CELL + ["B"] * (SMALLEST_CELL - 1), per_molecule=1)
    rows = [Judge(of_few_queries, BOOTSTRAP, seed=0)([answered(of_few_queries, is_true(of_few_queries) * 1.0)])]
    found = strata_trees(of_few_queries, rows, BOOTSTRAP, seed=0)[0]["made up"]
    assert list(found["cells"]) == ["A"]
    assert found["queries in cells too small"] == SMALLEST_CELL - 1


def test_trainings_that_disagree_widen_the_interval_of_a_cell() -> None:
    task = ranked_task(["A"] * 120)
    rng = np.random.default_rng(0)
    trainings = [
        np.where(rng.random(120) < rate, 1.0, 0.0)[task.candidate_pool] * is_true(task) for rate in (0.3, 0.6, 0.9)
    ]
    judge = Judge(task, BOOTSTRAP, seed=0)
    together = judge([answered(task, scores) for scores in trainings])
    one = judge([answered(task, trainings[1])])
    of_three, of_one = (
        tree["made up"]["cells"]["A"]["micro"] for tree in strata_trees(task, [together, one], BOOTSTRAP, seed=0)
    )
    assert of_three["value"] == pytest.approx(together.metrics["hit@1"]["micro"]["value"])
    assert of_three["high"] - of_three["low"] > 1.5 * (of_one["high"] - of_one["low"])


def pairs_task(seed: int = 0, groups: int = 60) -> tuple[Task, np.ndarray]:
    """Pairs within groups of two molecules, measured at low or high energy by two laboratories, and their labels."""
    rng = np.random.default_rng(seed)
    first, second = [], []
    for group in range(groups):
        for _ in range(6):
            a = 2 * group + rng.integers(2)
            first.append(a)
            second.append(a if rng.random() < 0.5 else 2 * group + rng.integers(2))
    first, second = np.array(first), np.array(second)
    count = len(first)
    task = Task(
        header={"kind": "pairs", "hits": [1], "counts": {}, "strata": ["energy"], "hash": ""},
        query_id=pa.array([f"q{i}" for i in range(count)]),
        query_pool=np.arange(count),
        query_molecule=first,
        candidate_id=pa.array([f"c{i}" for i in range(count)]),
        candidate_pool=np.arange(count),
        candidate_molecule=second,
        molecule=np.array([f"m{i:03d}" for i in range(2 * groups)], object),
        fingerprint=None,
        strata={"energy": np.where(np.arange(count) % 2 == 0, "low", "high").astype(object)},
        other_laboratory=np.arange(count) % 3 == 0,
    )
    return task, first == second


def test_pairs_have_the_strata_of_their_first_spectrum_and_of_their_laboratories() -> None:
    task, positive = pairs_task()
    rng = np.random.default_rng(1)
    low = np.arange(len(positive)) % 2 == 0
    scores = np.where(low, rng.random(len(positive)), positive) + 0.0
    row = Judge(task, BOOTSTRAP, seed=0)([answered(task, scores)])
    tree = strata_trees(task, [row], BOOTSTRAP, seed=0)[0]
    assert list(tree) == ["energy", "laboratories"]
    assert tree["energy"]["cells"]["high"]["micro"]["value"] == 1.0
    assert tree["energy"]["cells"]["low"]["micro"]["value"] == pytest.approx(roc_auc(scores[low], positive[low]))
    assert set(tree["laboratories"]["cells"]) == {DIFFERENT_LABORATORIES, ONE_LABORATORY}
    apart = task.other_laboratory
    found = tree["laboratories"]["cells"][DIFFERENT_LABORATORIES]
    assert found["micro"]["value"] == pytest.approx(roc_auc(scores[apart], positive[apart]))
    assert (found["pairs"], found["random"]) == (int(apart.sum()), 0.5)


def test_a_cell_of_pairs_needs_both_kinds() -> None:
    task, positive = pairs_task()
    labels = np.where(positive, "same", "two").astype(object)
    task = replace(task, strata={"energy": labels}, other_laboratory=None)
    row = Judge(task, BOOTSTRAP, seed=0)([answered(task, positive * 1.0)])
    found = strata_trees(task, [row], BOOTSTRAP, seed=0)[0]["energy"]
    assert found["cells"] == {}
    assert found["pairs in cells too small"] == len(positive)


def test_pair_strata_follow_the_query_of_each_pair() -> None:
    found = pair_strata({"a": np.array(["x", None], object)}, np.array([1, 0, 0]), np.array([True, False, False]))
    assert found["a"].tolist() == [None, "x", "x"]
    assert found["laboratories"].tolist() == [DIFFERENT_LABORATORIES, ONE_LABORATORY, ONE_LABORATORY]


def test_linearised_resamples_of_groups_are_those_of_weighing_every_pair_anew() -> None:
    task, positive = pairs_task(seed=3, groups=80)
    rng = np.random.default_rng(2)
    scores = np.round(positive + rng.normal(0, 1.2, len(positive)), 1)  # with ties
    group, _ = resampling_units(task.query_molecule, task.candidate_molecule)
    weights = molecule_weights(int(group.max()) + 1, resamples=1500, seed=0)
    linear = linearised_roc_auc(scores, positive, group, group, weights)
    whole = resampled_over_pairs({"own": WeightedRocAuc(scores, positive)}, group, group, weights)["own"]
    assert linear.value == roc_auc(scores, positive)
    assert np.corrcoef(linear.resampled, whole)[0, 1] > 0.98
    own, reference = estimate(linear), estimate(replace(linear, resampled=whole))
    assert own.low == pytest.approx(reference.low, abs=0.01)
    assert own.high == pytest.approx(reference.high, abs=0.01)


def test_linearised_areas_stay_areas() -> None:
    """Also where one molecule is in all pairs of two, so that without it none of them is left."""
    rng = np.random.default_rng(8)
    positive = np.arange(60) < 20
    first = np.where(positive, np.arange(60) % 6, 0)
    second = np.where(positive, first, 1 + np.arange(60) % 5)
    scores = positive + rng.normal(0, 1, 60)
    weights = molecule_weights(6, resamples=500, seed=0)
    found = linearised_roc_auc(scores, positive, first, second, weights)
    assert found.resampled.min() >= 0
    assert found.resampled.max() <= 1
    assert np.std(found.resampled) < 0.2
    own = linearised_roc_auc(scores, positive, np.where(positive, 0, second), np.where(positive, 0, second), weights)
    assert np.isnan(own.resampled).any()  # without molecule 0 there is no positive pair, and no area
    assert estimate(own).low is not None


def test_linearised_intervals_cover_the_truth() -> None:
    """Molecules that differ, and pairs of one or of two of them: to know a molecule tells of all of its pairs."""
    rng = np.random.default_rng(5)
    spread, noise, num_molecules, num_pairs, trials = 0.5, 0.7, 30, 240, 300
    # Of the molecules' variance a pair of one molecule has twice as much, one of two molecules as much as one.
    truth = NormalDist().cdf(1.0 / math.sqrt(3 * spread**2 + 2 * noise**2))
    covered = 0
    for _ in range(trials):
        molecule = rng.normal(0, spread, num_molecules)
        first = rng.integers(num_molecules, size=num_pairs)
        positive = rng.random(num_pairs) < 0.4
        second = np.where(
            positive, first, (first + 1 + rng.integers(num_molecules - 1, size=num_pairs)) % num_molecules
        )
        scores = positive + (molecule[first] + molecule[second]) / math.sqrt(2) + rng.normal(0, noise, num_pairs)
        weights = molecule_weights(num_molecules, resamples=200, seed=int(rng.integers(2**31)))
        found = estimate(linearised_roc_auc(scores, positive, first, second, weights))
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / trials <= 0.995


def test_ranges_of_pools_are_about_molecules_and_strata_have_names(build, make_data) -> None:
    spectra = [
        replace(
            build.spectrum(m, n, laboratory="Alpha" if m else None),
            collision_energy=[None, 25.0][n % 2],
            chemical_class="Organic compounds; Benzenoids" if m == 1 else None,
        )
        for m in range(4)
        for n in range(3)
    ]
    data = make_data(spectra, {0: "test", 1: "test", 2: "train", 3: "train"})
    rows = np.array([0, 4])
    found = Comparisons(rows, np.array([0, 1]), np.array([0, 0, 0, 1, 1]), np.array([1, 2, 3, 3, 5]), {})
    strata = query_strata(data, found, "library", np.array([0.35, 0.9, 1.0, 1.0]))
    assert list(strata) == [name for name in NAMES if name in strata]
    assert set(strata) == set(NAMES) - {"laboratories"}
    assert strata["pool_size"].tolist() == ["2 to 5 molecules", "below 2 molecules"]  # two spectra of one molecule
    assert strata["laboratory"].tolist() == [None, "Alpha"]
    assert strata["collision_energy"].tolist() == [None, "20 to 30 eV"]
    assert strata["chemical_superclass"].tolist() == [None, "Benzenoids"]
    assert strata["chemical_class"].tolist() == [None, None]
    assert strata["nearest_train_tanimoto"].tolist() == ["0.3 to 0.4 Tanimoto", "0.85 Tanimoto and more"]
    assert "pool_size" not in query_strata(data, found, "pairs")
    assert "nearest_train_tanimoto" not in query_strata(data, found, "library")
    # Of structures the candidates are molecules themselves.
    structures = replace(found, candidate=np.array([0, 1, 1, 7, 8]))
    assert query_strata(data, structures, "retrieval")["pool_size"].tolist() == ["2 to 5 molecules"] * 2


def test_unknown_comes_last_and_ranges_by_their_numbers() -> None:
    labels = [UNKNOWN, "zebra", "[M+H]+", "0.5 to 1 nats", "below 0.5 nats", "10 to 20 eV", "3 nats and more"]
    assert sorted(labels, key=cell_order) == [
        "below 0.5 nats", "0.5 to 1 nats", "3 nats and more", "10 to 20 eV", "[M+H]+", "zebra", UNKNOWN,
    ]  # fmt: skip


def test_what_tells_of_the_truth_is_read_from_the_truth(tmp_path: Path) -> None:
    tables = {
        "queries": pa.table({"query_id": ["b", "a"], "pool": ["p", "p"], "adduct": ["[M+H]+", None]}),
        "candidates": pa.table({"pool": ["p", "p"], "candidate_id": ["x", "y"], "molecule": ["M", "N"]}),
        "molecules": pa.table(
            {
                "molecule": pa.array([], pa.string()),
                "smiles": pa.array([], pa.string()),
                "fingerprint": pa.array([], pa.binary()),
            }
        ),
        "truth": pa.table({"spectrum_id": ["a", "b"], "molecule": ["M", "N"], "laboratory": ["Alpha", "Beta"]}),
    }
    write_task(tmp_path, {"kind": "library", "strata": ["adduct", "laboratory"]}, tables)
    task = load_task(tmp_path)
    assert task.strata["laboratory"].tolist() == ["Beta", "Alpha"]
    assert task.strata["adduct"].tolist() == ["[M+H]+", None]


@pytest.mark.parametrize("kind", ["library", "pairs"])
def test_a_task_shows_no_tool_what_tells_of_the_truth(kind: str, build, tmp_path: Path) -> None:
    from ionbed.evaluation.make_task import make_task
    from ionbed.evaluation.run import EvaluationConfig

    spectra, folds = build.isomers(24)
    store = build.write_store(tmp_path / "store", spectra)
    split = build.split_of(folds)
    split.save(tmp_path / "split.json")
    make_task(EvaluationConfig(dataset=store, split=tmp_path / "split.json"), kind, tmp_path / "task")
    header = json.loads((tmp_path / "task" / "task.json").read_text())
    hidden = {"laboratory", "chemical_kingdom", "chemical_superclass", "chemical_class", "nearest_train_tanimoto"}
    assert set(TRUTH_STRATA) == hidden
    assert hidden <= set(header["strata"])
    shown = [pq.read_schema(path).names for path in (tmp_path / "task").glob("*.parquet") if path.stem != "truth"]
    assert not {*hidden, "other_laboratory"} & {column for names in shown for column in names}
    task = load_task(tmp_path / "task")
    assert set(task.strata["laboratory"]) == {"Alpha", "Beta"}
    assert "pool_size" not in task.strata if kind == "pairs" else "pool_size" in task.strata
    if kind == "pairs":  # whether two laboratories measured a pair is no secret to the one who scores
        laboratory = {one.spectrum_id: one.laboratory for one in spectra}
        first = np.array(task.query_id.to_pylist(), object)[np.argsort(task.query_pool)[task.candidate_pool]]
        differ = [laboratory[a] != laboratory[b] for a, b in zip(first, task.candidate_id.to_pylist(), strict=True)]
        assert task.other_laboratory.tolist() == differ
        assert 0 < sum(differ) < len(differ)

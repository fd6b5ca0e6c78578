"""The tables of an evaluation on synthetic truths: chance gets what chance gets, who knows all gets all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.comparisons import (
    ANALOGUE_SEARCH,
    LIBRARY_SEARCH,
    OPEN_WORLD_SEARCH,
    RETRIEVAL_BY_FORMULA,
    RETRIEVAL_BY_MASS,
    SAME_MOLECULE,
    SAME_MOLECULE_ANY_PARTNER,
)
from ionbed.evaluation.draws import COMPARISONS
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.measure import QuestionResult, comparisons_of, measure
from ionbed.evaluation.question import ask
from ionbed.evaluation.rows import ORACLE
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.scorers import Chance, Kind, NearestNeighbourOracle, PrecursorOnly, score_pairs
from ionbed.evaluation.statistics import BootstrapOptions

BOOTSTRAP = BootstrapOptions(resamples=100)
SEARCHES = (SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER, LIBRARY_SEARCH, OPEN_WORLD_SEARCH, ANALOGUE_SEARCH)


class Table:
    """A scorer that reads its scores from a matrix over all spectra, or of spectra and molecules."""

    def __init__(self, label: str, matrix: np.ndarray, kind: Kind = "learned") -> None:
        self.label, self.kind, self.matrix = label, kind, matrix

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return self.matrix[np.ix_(queries, library)]


class Structures:
    """A scorer that reads its scores from a matrix of spectra and molecules."""

    def __init__(self, label: str, matrix: np.ndarray, kind: Kind = "learned") -> None:
        self.label, self.kind, self.matrix = label, kind, matrix

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        return self.matrix[query, molecule]


@pytest.fixture
def data(build: SimpleNamespace, make_data):
    return make_data(*build.isomers(40))


def entry(*scorers, kind: Kind | None = None) -> Entry:
    """One row; several scorers are its trainings."""
    builds = tuple(lambda data, molecules, rows, scorer=scorer: scorer for scorer in scorers)
    return Entry(scorers[0].label, kind or scorers[0].kind, builds)


def run(data, entries, names=SEARCHES, bootstrap=BOOTSTRAP) -> dict[str, QuestionResult]:
    config = EvaluationConfig("store", "split.json")
    molecules = candidate_molecules(data)
    asked = [ask(name, data, molecules, config) for name in names]
    results = measure([q for q in asked if q is not None], data, molecules, entries, bootstrap, seed=0)
    return {result.question.name: result for result in results}


def tree_of(result: QuestionResult, label: str) -> dict:
    (row,) = (row.tree for row in result.rows if row.entry.label == label)
    return row


def value(result: QuestionResult, label: str, metric: str) -> float:
    return tree_of(result, label)["metrics"][metric]["micro"]["value"]


def knowing(data) -> np.ndarray:
    return (data.molecule[:, None] == data.molecule[None, :]).astype(np.float32)


def test_a_constant_scorer_gets_the_expectation_of_chance_exactly(data) -> None:
    constant = Table("constant", np.full((len(data), len(data)), 0.7, np.float32))
    results = run(data, [entry(constant), entry(Chance())])
    assert value(results[SAME_MOLECULE], "constant", "ROC AUC") == 0.5
    sizes = results[LIBRARY_SEARCH].rows[0].table["num_candidates"].to_numpy()
    assert value(results[LIBRARY_SEARCH], "constant", "hit@1") == pytest.approx(np.mean(1 / sizes))
    assert value(results[LIBRARY_SEARCH], "constant", "hit@20") == 1.0
    for result in results.values():
        for metric, of in tree_of(result, "constant")["metrics"].items():
            assert of["micro"]["value"] == value(result, "random", metric)
            assert of["micro"]["value"] == pytest.approx(of["random"], abs=1e-9)
        assert all(d["verdict"] == "unresolved" for d in tree_of(result, "constant")["differences"])


def test_who_knows_the_molecules_gets_everything(data) -> None:
    knows = knowing(data)
    rows = [PrecursorOnly(data.columns), Table("guesses", knows * 0, "look-up")]
    rows += [Table("knows", knows), Table("inverted", -knows)]
    # With few resamples no p-value of pairs is small enough to stand the correction.
    results = run(data, [entry(row) for row in rows], bootstrap=BootstrapOptions(resamples=1000))
    assert value(results[SAME_MOLECULE], "knows", "ROC AUC") == 1.0
    assert value(results[SAME_MOLECULE], "inverted", "ROC AUC") == 0.0
    for name in (LIBRARY_SEARCH, OPEN_WORLD_SEARCH):
        assert value(results[name], "knows", "hit@1") == 1.0
        assert value(results[name], "inverted", "hit@1") == 0.0
    for name, metric in ((SAME_MOLECULE, "ROC AUC"), (LIBRARY_SEARCH, "hit@1"), (LIBRARY_SEARCH, "MRR")):
        against = {"best look-up": "guesses", "best blind": "precursor only", "random": "random"}
        for label, verdict in (("knows", "beats"), ("inverted", "loses")):
            found = {d["role"]: d for d in tree_of(results[name], label)["differences"] if d["metric"] == metric}
            assert {role: d["against"] for role, d in found.items()} == against
            assert {d["verdict"] for d in found.values()} == {verdict}, (name, metric, label)
    assert tree_of(results[LIBRARY_SEARCH], "guesses")["differences"] == []


def test_structures_are_scored_in_retrieval_and_in_searches_by_their_molecule(build, make_data) -> None:
    from dataclasses import replace

    spectra, folds = build.isomers(40)
    ethers = [f"{'C' * (m % 4 + 1)}O{'C' * (8 + m // 4 - m % 4)}" for m in range(40)]  # each four are isomers
    spectra = [replace(s, smiles=ethers[int(s.spectrum_id.split("-")[0])]) for s in spectra]
    from ionbed.spectra.molecules import standardise

    masses = {m: standardise(ethers[m]).exact_mass + 1.007276 for m in range(40)}
    spectra = [replace(s, precursor_mz=masses[int(s.spectrum_id.split("-")[0])]) for s in spectra]
    data = make_data(spectra, folds)
    knows = (data.molecule[:, None] == np.arange(len(data.inchikey_block))).astype(np.float32)
    rows = [entry(Structures("knows", knows)), entry(Chance()), entry(Table("spectra only", knowing(data)))]
    names = (RETRIEVAL_BY_MASS, RETRIEVAL_BY_FORMULA, LIBRARY_SEARCH, ANALOGUE_SEARCH)
    results = run(data, rows, names)
    for name in (RETRIEVAL_BY_MASS, RETRIEVAL_BY_FORMULA):
        assert value(results[name], "knows", "hit@1") == 1.0
        assert value(results[name], "random", "hit@1") == pytest.approx(0.25)
        assert [row.entry.label for row in results[name].rows] == ["knows", "random"]
    assert value(results[LIBRARY_SEARCH], "knows", "hit@1") == 1.0
    assert [row.entry.label for row in results[ANALOGUE_SEARCH].rows] == ["random", "spectra only"]


def test_the_oracle_is_the_most_that_a_ranking_by_similarity_can_reach(data) -> None:
    from ionbed.spectra.molecules import morgan_fingerprints, tanimoto_matrix

    prints = morgan_fingerprints(list(data.smiles))
    similarity = tanimoto_matrix(prints, prints)[np.ix_(data.molecule, data.molecule)]
    oracle = NearestNeighbourOracle(data.molecule, np.packbits(prints, axis=1))
    rows = [entry(Table("by structure", similarity)), entry(Chance()), entry(oracle)]
    result = run(data, rows, (ANALOGUE_SEARCH,))[ANALOGUE_SEARCH]
    best = value(result, ORACLE, "Tanimoto@1")
    assert value(result, "by structure", "Tanimoto@1") == best
    assert tree_of(result, ORACLE)["metrics"]["Tanimoto@1"]["oracle"] == pytest.approx(best)
    assert value(result, "random", "Tanimoto@1") < best
    library = np.unique(data.molecule[data.fold == "train"])
    of_molecule = tanimoto_matrix(prints, prints[library]).mean(axis=1)
    queried = data.molecule[result.question.found.queries]
    assert value(result, "random", "Tanimoto@1") == pytest.approx(of_molecule[queried].mean(), abs=1e-6)


def test_a_scorer_without_knowledge_is_unresolved_against_another(data) -> None:
    rng = np.random.default_rng(0)
    rows = [entry(Table(label, rng.random((len(data), len(data))), kind))
            for label, kind in (("a", "look-up"), ("b", "learned"), ("c", "blind"))]  # fmt: skip
    for result in run(data, rows).values():
        differences = tree_of(result, "b")["differences"]
        assert {d["role"] for d in differences} == {"best look-up", "best blind", "random"}
        assert {d["verdict"] for d in differences} == {"unresolved"}


def test_an_abstention_is_a_miss_and_stays_in_the_denominator(data) -> None:
    silent = np.where((np.arange(len(data)) % 2 == 0)[:, None], np.nan, knowing(data))
    full, half = (run(data, [entry(Table("x", scores))]) for scores in (knowing(data), silent))
    asked = half[LIBRARY_SEARCH].question.found.queries
    answered = np.mean(asked % 2)
    assert 0 < answered < 1
    assert half[LIBRARY_SEARCH].rows[0].table.num_rows == full[LIBRARY_SEARCH].rows[0].table.num_rows == len(asked)
    assert value(half[LIBRARY_SEARCH], "x", "hit@1") == pytest.approx(answered)
    assert tree_of(half[LIBRARY_SEARCH], "x")["counts"]["queries without any score"] == np.sum(asked % 2 == 0)
    assert value(half[ANALOGUE_SEARCH], "x", "Tanimoto@1") < value(full[ANALOGUE_SEARCH], "x", "Tanimoto@1")


def test_the_order_of_the_store_changes_no_metric(build: SimpleNamespace, make_data, tmp_path) -> None:
    from ionbed.evaluation.dataset import load_evaluation_data
    from ionbed.spectra.store import Store

    spectra, folds = build.isomers(24, per_molecule=2)
    data = make_data(spectra, folds)
    order = np.random.default_rng(3).permutation(len(spectra))
    store = build.write_store(tmp_path / "shuffled", [spectra[i] for i in order])
    shuffled = load_evaluation_data(Store(store), build.split_of(folds))
    scores = np.round(np.random.default_rng(0).random((len(data), len(data))), 1)
    names = (LIBRARY_SEARCH, ANALOGUE_SEARCH)
    first = run(data, [entry(Table("x", scores))], names)
    second = run(shuffled, [entry(Table("x", scores[np.ix_(order, order)]))], names)
    for name in names:
        for metric in first[name].tree["metrics"]:
            assert value(first[name], "x", metric) == pytest.approx(value(second[name], "x", metric))


def test_several_trainings_are_one_row_with_their_mean_and_their_spread(data) -> None:
    rng = np.random.default_rng(0)
    trainings = [Table("x", knowing(data) + noise * rng.random((len(data), len(data)))) for noise in (1.2, 2.0, 3.0)]
    names = (SAME_MOLECULE, LIBRARY_SEARCH)
    alone = [run(data, [entry(training)], names) for training in trainings]
    together = run(data, [entry(*trainings)], names)
    for name, metric in ((SAME_MOLECULE, "ROC AUC"), (LIBRARY_SEARCH, "hit@1"), (LIBRARY_SEARCH, "MRR")):
        values = [value(results[name], "x", metric) for results in alone]
        row = tree_of(together[name], "x")
        assert row["trainings"] == 3
        assert value(together[name], "x", metric) == pytest.approx(np.mean(values))
        assert row["spread"][metric] == {"least": min(values), "most": max(values)}
        if name == LIBRARY_SEARCH:
            (result,) = together[name].rows
            assert np.mean(result.table[metric].to_numpy()) == pytest.approx(np.mean(values))
        micro, single = row["metrics"][metric]["micro"], tree_of(alone[1][name], "x")["metrics"][metric]["micro"]
        assert micro["high"] - micro["low"] > single["high"] - single["low"]


def test_the_best_of_the_others_is_chosen_by_metric_and_the_lower_where_that_is_better(data) -> None:
    rng = np.random.default_rng(0)
    good, bad = knowing(data) + rng.random((len(data), len(data))), rng.random((len(data), len(data)))
    rows = [entry(Table("bad", bad, "look-up")), entry(Table("good", good, "look-up")), entry(Table("own", good))]
    results = run(data, rows, (LIBRARY_SEARCH,))[LIBRARY_SEARCH]
    against = {d["metric"]: d["against"] for d in tree_of(results, "own")["differences"] if d["role"] == "best look-up"}
    assert against["hit@1"] == against["MRR"] == "good"

    from ionbed.evaluation.judged import Averages
    from ionbed.evaluation.statistics import Measured

    def judged(far: float) -> SimpleNamespace:
        measured = Measured(far, np.full(100, far), 10)
        return SimpleNamespace(name="own", averages={"MCES@1": Averages(measured, measured)})

    found = comparisons_of([("look-up", judged(5.0)), ("look-up", judged(3.0)), ("learned", judged(4.0))])
    assert [(c.role, c.other) for c in found] == [("random", None), ("best look-up", 1)]


@pytest.mark.parametrize(
    ("own", "without"),
    [
        ("own + look-up", "own + look-up, without the model"),
        ("own + predicted spectra", "predicted spectra + analogue transfer"),
    ],
)
def test_look_ups_in_one_are_no_merit_of_the_model_beside_them(data, own: str, without: str) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.random((len(data), len(data))) for _ in range(3)]
    good = knowing(data) + noise[0]
    rows = [
        entry(Table("single", noise[1], "look-up")),
        entry(Table(without, good, "trained")),
        entry(Table(own, good)),
        entry(Table("own", noise[2])),
        entry(Table("other + look-up", good)),
    ]
    result = run(data, rows, (LIBRARY_SEARCH,))[LIBRARY_SEARCH]

    def against(label: str, role: str) -> list[tuple[str, str]]:
        differences = [d for d in tree_of(result, label)["differences"] if d["metric"] == "hit@1"]
        return [(found["against"], found["verdict"]) for found in differences if found["role"] == role]

    assert against(own, "without the model") == [(without, "unresolved")]
    assert not any(against(label, "without the model") for label in (without, "own", "other + look-up"))
    assert all(against(label, "best look-up") == [("single", "beats")] for label in (own, without, "other + look-up"))


def test_every_question_can_be_drawn(data) -> None:
    molecules = candidate_molecules(data)
    config = EvaluationConfig("store", "split.json")
    for name in config.tasks:
        found = COMPARISONS[name](data, molecules, config)
        assert len(found.pool) == len(found.candidate)
        assert set(np.unique(found.pool).tolist()) <= set(found.pool_of_query.tolist())
        assert np.isin(data.fold[found.queries], ["test"]).all() or name == SAME_MOLECULE_ANY_PARTNER


def test_pairs_of_one_kind_only_are_not_asked_about(build: SimpleNamespace, make_data) -> None:
    spectra = [build.spectrum(m, n, precursor_mz=200.0 + 50 * m, mz=(60.0 + m + n / 7,), intensity=(1.0,))
               for m in range(3) for n in range(3)]  # fmt: skip
    data = make_data(spectra, dict.fromkeys(range(3), "test"))
    config, molecules = EvaluationConfig("store", "split.json"), candidate_molecules(data)
    assert len(COMPARISONS[SAME_MOLECULE](data, molecules, config).candidate) == 9
    assert ask(SAME_MOLECULE, data, molecules, config) is None


def test_the_best_hit_of_every_query_is_named(data) -> None:
    result = run(data, [entry(Table("knows", knowing(data)))], (LIBRARY_SEARCH,))[LIBRARY_SEARCH]
    (row,) = result.rows
    found = result.question.found
    assert (data.molecule[found.candidate[row.best]] == data.molecule[found.queries]).all()
    assert (found.pool[row.best] == found.pool_of_query).all()
    assert row.table["best_hit"].to_pylist() == data.spectrum_id[found.candidate[row.best]].tolist()


def test_listed_pairs_get_the_scores_of_the_matrix(data) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.random((len(data), len(data)))
    first, second = rng.integers(0, len(data), (2, 500))
    found = score_pairs(Table("x", matrix), first, second, data.columns.precursor_mz, label="x")
    assert found == pytest.approx(matrix[first, second], abs=1e-6)


def test_the_nearest_precursor_is_best_of_listed_pairs_and_of_a_whole_library(data) -> None:
    scorer, library = PrecursorOnly(data.columns), np.arange(len(data))
    distance = np.abs(data.columns.precursor_mz - data.columns.precursor_mz[3])
    (scores,) = scorer.scores(np.array([3]), library)
    assert np.array_equal(np.unique(distance[scores == scores.max()]), [0.0])
    assert np.all(np.diff(scores[np.argsort(distance)]) <= 1e-9)
    np.testing.assert_allclose(scorer.pair_scores(np.full(len(data), 3), library), scores)

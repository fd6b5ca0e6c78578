"""Rows made of several scores of structures: weighed on validation molecules, never on the tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ionbed.errors import InputError
from ionbed.evaluation import structures_and_transfer
from ionbed.evaluation.baselines.transfer import TransferOptions
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.comparisons import RETRIEVAL_BY_MASS
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.measure import measure
from ionbed.evaluation.predictions import Corpus
from ionbed.evaluation.question import ask
from ionbed.evaluation.report.explanations import explained_row
from ionbed.evaluation.report.verdicts import verdict_sentences
from ionbed.evaluation.rows import table_rows
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.evaluation.structures_and_transfer import Combination, combinations_of, combined_entries, kept
from ionbed.spectra.molecules import standardise
from ionbed.spectra.simulate import simulate_spectra

ISOMERS = ["CCCCO", "CCOCC", "CC(C)CO", "CCC(C)O", "COCCC", "COC(C)C"]


class Fixed:
    """Scores a structure by a table of its own; counts how often it is built."""

    kind = "learned"

    def __init__(self, table: np.ndarray, label: str = "fixed") -> None:
        self.table, self.label, self.built = table, label, 0

    def __call__(self, data, candidates, rows) -> Fixed:
        self.built += 1
        return self

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        return self.table[query, molecule]


@pytest.fixture
def data(build, make_data):
    """Six isomers; the last three are validation molecules."""
    precursor = standardise("CCCCO").exact_mass + 1.007276
    spectra = [
        build.spectrum(number, 0, smiles=smiles, mz=(50.0 + number,), intensity=(1.0,), precursor_mz=precursor)
        for number, smiles in enumerate(ISOMERS)
    ]
    folds = dict(enumerate(["test"] * 3 + ["validation"] * 3))
    return make_data(spectra, folds)


@pytest.fixture
def config() -> EvaluationConfig:
    return EvaluationConfig(dataset="store", split="split.json")


def entry_of(scorer: Fixed, label: str) -> Entry:
    return Entry(label, "learned", (scorer,), ("precursor_mz",))


def combined(label: str, *terms: Entry, **options) -> Combination:
    return Combination(label, "learned", terms, **options)


def test_weights_follow_who_is_right_of_the_validation_fold(data, config, monkeypatch) -> None:
    """The model is right of the tested molecules and wrong of the others; of those one transfer is right."""
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    candidates = candidate_molecules(data)
    true = np.eye(6)[data.molecule][:, : len(candidates)]
    is_tested = (np.arange(6) < 3)[:, None]
    own = Fixed(np.where(is_tested, true, np.roll(true, 2, axis=1)))
    right, wrong = Fixed(0.05 * true, "right"), Fixed(0.6 * np.roll(true, 1, axis=1), "wrong")
    terms = [entry_of(scorer, label) for scorer, label in ((own, "mine"), (wrong, "wrong"), (right, "right"))]
    (entry,) = combined_entries([combined("all", *terms)], data, candidates, config, split_hash="s")
    assert (entry.label, entry.kinds, entry.known) == ("all", {"retrieval"}, ("precursor_mz",))
    assert entry.trained_on == (Corpus("weights of scores of structures", "s", ("validation",)),)
    (build,) = entry.builds
    scorer = build(data, candidates, np.arange(6))
    weights = scorer.weights
    assert list(weights) == ["mine", "wrong", "right"] and weights["mine"] == weights["wrong"] == 0 < weights["right"]
    query, molecule = np.array([0, 3, 3]), np.array([0, 3, 4])
    scores = scorer.score_structures(query, molecule)
    expected = right.table[query, molecule] * weights["right"] / right.table[3:].std()
    np.testing.assert_allclose(scores - scores[2], expected - expected[2])
    build(data, candidates, np.arange(3))
    assert own.built == 3, "fitted once, built twice"

    question = ask(RETRIEVAL_BY_MASS, data, candidates, config)
    (result,) = measure([question], data, candidates, [entry], BootstrapOptions(resamples=100), seed=0)
    assert result.rows[0].tree["weights"] == [weights]


def test_several_trainings_are_weighed_each_and_their_knowledge_is_joined(data, config, monkeypatch) -> None:
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    candidates = candidate_molecules(data)
    true = np.eye(6)[data.molecule][:, : len(candidates)]
    good, bad, other = Fixed(true), Fixed(-true), Fixed(true)
    corpus = Corpus("finetune", "s", ("train",))
    model = Entry("mine", "learned", (good, bad), ("adduct",), (corpus,), "seen")
    (entry,) = combined_entries([combined("x", model, entry_of(other, "y"))], data, candidates, config, split_hash="s")
    assert len(entry.builds) == 2 and entry.known == ("precursor_mz", "adduct") and entry.exposure == "seen"
    assert entry.trained_on == (corpus, Corpus("weights of scores of structures", "s", ("validation",)))
    weights = [build(data, candidates, np.arange(6)).weights for build in entry.builds]
    assert weights[0]["mine"] > 0 and weights[1]["mine"] == 0 < weights[1]["y"]


def test_there_is_no_row_where_the_validation_fold_is_asked_or_searched_or_too_small(data, config, monkeypatch) -> None:
    candidates = candidate_molecules(data)
    made = [combined("both", *(entry_of(Fixed(np.zeros((6, 6))), label) for label in ("mine", "theirs")))]

    def rows(config: EvaluationConfig, made=made) -> int:
        return len(combined_entries(made, data, candidates, config, split_hash="s"))

    assert rows(config) == 0
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    assert rows(config) == 1
    assert rows(replace(config, fold="validation")) == 0
    assert rows(replace(config, transfer=TransferOptions(library_fold="validation"))) == 0
    assert rows(config, []) == 0


def test_weights_are_fitted_on_some_molecules_where_there_are_many(data, config, monkeypatch) -> None:
    """Of three validation molecules one is drawn, with all of its candidates and none of the others'."""
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 1)
    monkeypatch.setattr(structures_and_transfer, "MOST_MOLECULES", 1)
    seen = []
    fit = structures_and_transfer.fit_structure_score
    monkeypatch.setattr(structures_and_transfer, "fit_structure_score", lambda *args: seen.append(args) or fit(*args))
    candidates = candidate_molecules(data)
    model, transfer = (entry_of(Fixed(np.arange(36.0).reshape(6, 6)), label) for label in ("mine", "theirs"))
    (entry,) = combined_entries([combined("x", model, transfer)], data, candidates, config, split_hash="s")
    entry.builds[0](data, candidates, np.arange(6))
    ((terms, values, query, is_true, group),) = seen
    assert terms == ["mine", "theirs"] and values.shape == (6, 2) and set(query.tolist()) == {0} and len(group) == 1
    assert set(group.tolist()) <= {3, 4, 5} and is_true.sum() == 1
    (row,) = np.flatnonzero(data.molecule == group[0])
    assert sorted((values[:, 0] - 6 * row).tolist()) == list(range(6))
    assert values[is_true, 0] == 6 * row + group[0]


def test_no_more_candidates_are_drawn_than_may_be_predicted(build, make_data, config, monkeypatch) -> None:
    """Two groups of isomers: with one query of each there are six candidates, with one group three."""
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 1)
    smiles = ["CCCCO", "CCOCC", "CC(C)CO", "CCCCCO", "CCCOCC", "CC(C)CCO"]
    spectra = [
        build.spectrum(number, 0, smiles=text, precursor_mz=standardise(text).exact_mass + 1.007276)
        for number, text in enumerate(smiles)
    ]
    data = make_data(spectra, dict(enumerate(["validation", "train", "train"] * 2)))
    candidates = candidate_molecules(data)

    def asked(most: int | None) -> list[int]:
        seen = Fixed(np.zeros((6, 6)))
        monkeypatch.setattr(
            seen, "score_structures", lambda query, molecule: np.zeros(len(calls.append(molecule) or query))
        )
        calls: list[np.ndarray] = []
        made = [combined("x", entry_of(seen, "mine"), most_candidates=most)]
        entries = combined_entries(made, data, candidates, config, split_hash="s")
        if entries:
            entries[0].builds[0](data, candidates, np.arange(6))
        return [len(set(molecules.tolist())) for molecules in calls]

    assert asked(None) == asked(6) == [6] and asked(5) == asked(3) == [3] and asked(2) == []


def test_an_abstention_adds_nothing_and_all_of_them_abstain(data, config, monkeypatch) -> None:
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    candidates = candidate_molecules(data)
    true = np.eye(6)[data.molecule][:, : len(candidates)]
    own, transfer = Fixed(true.copy()), Fixed(true.copy())
    terms = [entry_of(own, "mine"), entry_of(transfer, "theirs")]
    (entry,) = combined_entries([combined("both", *terms)], data, candidates, config, split_hash="s")
    scorer = entry.builds[0](data, candidates, np.arange(6))
    query, molecule = np.zeros(6, np.int64), np.arange(6)
    with_both = scorer.score_structures(query, molecule)
    transfer.table[0] = np.nan
    alone = scorer.score_structures(query, molecule)
    np.testing.assert_allclose(np.diff(with_both), 2 * np.diff(alone))
    own.table[0, 3] = np.nan
    abstained = scorer.score_structures(query, molecule)
    assert np.isnan(abstained[3]) and np.array_equal(np.delete(abstained, 3), np.delete(alone, 3))


def test_which_rows_are_made_of_others() -> None:
    tower, plain = entry_of(None, "tower"), replace(entry_of(None, "plain"), kinds=frozenset({"library"}))
    transferred = {entry.label: entry_of(None, f"{entry.label}, analogue transfer") for entry in (tower, plain)}
    lookup, predicted = entry_of(None, "look-up"), entry_of(None, "predicted")
    cosines = [entry_of(None, f"{entry.label} cosine") for entry in (tower, plain)]

    def made(models, predicted, cosines):
        found = combinations_of(models, transferred, lookup, predicted, cosines, most_candidates=7)
        return {c.label: (c.kind, c.most_candidates, [entry.label for entry in c.terms]) for c in found}

    of_tower = ["tower", "tower, analogue transfer", "look-up"]
    of_plain = ["plain, analogue transfer", "look-up"]
    assert made([tower, plain], predicted, cosines) == {
        "predicted spectra + analogue transfer": ("trained", 7, ["predicted", "look-up"]),
        "tower + analogue transfer": ("learned", None, of_tower),
        "tower + predicted spectra": ("learned", 7, [*of_tower, "predicted", "tower cosine"]),
        "plain + predicted spectra": ("learned", 7, [*of_plain, "predicted", "plain cosine"]),
    }
    assert made([tower, plain], None, []) == {
        "tower + analogue transfer": ("learned", None, of_tower),
        "plain + analogue transfer": ("learned", None, of_plain),
    }
    assert made([], predicted, []) == {}


def test_scorers_are_kept_for_the_same_rows_of_the_same_data(data) -> None:
    scorer = Fixed(np.zeros((6, 6)))
    (build,) = kept(entry_of(scorer, "x")).builds
    rows = np.arange(3)
    other = replace(data)
    calls = (
        (data, rows),
        (data, rows.copy()),
        (data, rows[:2]),
        (data, rows),
        (other, rows),
        (data, rows),
        (data, rows[:2]),
    )
    for (of, asked), expected in zip(calls, (1, 1, 2, 2, 3, 3, 4), strict=True):
        build(of, None, asked)
        assert scorer.built == expected


def test_they_stand_behind_the_models_own_rows_and_their_labels_are_taken(data, config, build, monkeypatch) -> None:
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    config = replace(config, trained_baselines=replace(config.trained_baselines, trainings=0), workers=1)
    plain, tower = (build.encoder(lambda columns, row: np.ones(2)) for _ in range(2))
    tower.config.molecule_tower = 8
    candidates = candidate_molecules(data)

    def labels(*names: str, most: int = 6) -> list[str]:
        models = {name: [tower if name == "mine" else plain] for name in names}
        asked = replace(config, predicted_spectra=replace(config.predicted_spectra, most_molecules=most))
        rows = table_rows(data, candidates, models, dict.fromkeys(models), asked, split_hash="s", num_candidates=6)
        return [row.label for row in rows if row.kind in ("learned", "trained")]

    own = ["mine", "plain", "mine, analogue transfer", "plain, analogue transfer"]
    assert labels("mine", "plain") == [
        "predicted spectra + analogue transfer",
        *own,
        *("mine + analogue transfer", "mine + predicted spectra", "plain + predicted spectra"),
    ]
    assert labels("mine", "plain", most=0) == [*own, "mine + analogue transfer", "plain + analogue transfer"]
    assert labels() == []
    with pytest.raises(InputError, match=r"'mine \+ analogue transfer' is the label of another row"):
        labels("mine", "mine + analogue transfer")


def test_a_model_without_a_tower_gets_its_row_of_predicted_spectra(build, make_data, config, monkeypatch) -> None:
    """The encoder tells the predicted spectra of the molecules apart, and so ranks them where nothing else does."""
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    config = replace(config, trained_baselines=replace(config.trained_baselines, trainings=0), workers=1)
    smiles = [
        "CC(C)CC(N)C(=O)O",
        "CCC(C)C(N)C(=O)O",
        "CCCCC(N)C(=O)O",
        "CN(C)CCCC(=O)O",
        "CCOC(=O)CCNC",
        "CCCNCC(=O)OC",
    ]
    spectra = []
    for number, text in enumerate(smiles):
        predicted = next(simulate_spectra([("m", text)], energies=(20.0,), adducts=("[M+H]+",)))
        made = build.spectrum(number, 0, smiles=text, precursor_mz=predicted.precursor_mz)
        spectra.append(replace(made, mz=predicted.mz, intensity=predicted.intensity))
    data = make_data(spectra, dict(enumerate(["test"] * 3 + ["validation"] * 3)))
    candidates = candidate_molecules(data)
    model = build.encoder(lambda columns, row: histogram(columns, row))
    rows = table_rows(data, candidates, {"mine": [model]}, {"mine": None}, config, split_hash="s", num_candidates=6)
    asked = [row for row in rows if row.label in ("mine + predicted spectra", "predicted spectra + analogue transfer")]
    question = ask(RETRIEVAL_BY_MASS, data, candidates, config)
    (result,) = measure([question], data, candidates, asked, BootstrapOptions(resamples=100), seed=0)
    without, with_model = (row.tree for row in result.rows)
    assert (without["kind"], with_model["kind"]) == ("trained", "learned")
    assert list(without["weights"][0]) == ["predicted spectra", "hybrid entropy, analogue transfer"]
    (weights,) = with_model["weights"]
    assert list(weights) == [
        "mine, analogue transfer", "hybrid entropy, analogue transfer", "predicted spectra",
        "mine, cosine to predicted spectra",
    ]  # fmt: skip
    assert weights["mine, cosine to predicted spectra"] > 0
    assert with_model["metrics"]["hit@1"]["micro"]["value"] == 1.0


def histogram(columns, row: int) -> np.ndarray:
    span = slice(columns.offsets[row], columns.offsets[row + 1])
    return 1e-6 + np.histogram(columns.mz[span], bins=np.arange(0, 200, 0.5), weights=columns.intensity[span])[0]


def test_the_rows_are_explained_and_count_as_the_models_own() -> None:
    rows = [
        {"label": f"mine + {what}", "kind": "learned", "void": None}
        for what in ("analogue transfer", "predicted spectra")
    ]
    for row, verdict in zip(rows, ("unresolved", "beats"), strict=True):
        row["differences"] = [{"role": "best look-up", "metric": "hit@1", "verdict": verdict}]
    assert "plus analogue transfer" in explained_row(rows[0]) and "cosine to the predicted" in explained_row(rows[1])
    without = {"label": "predicted spectra + analogue transfer", "kind": "trained"}
    assert "what models have to beat" in explained_row(without)
    sentences = verdict_sentences({"tasks": {"retrieval by mass": {"main": "hit@1", "rows": rows}}})
    assert sentences == [
        "'mine' beats the best look-up in retrieval by mass (with predicted spectra); cannot be told from the best "
        "look-up in retrieval by mass (with analogue transfer)."
    ]

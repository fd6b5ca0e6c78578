"""The row that adds analogue transfer to a model's own scores: weighed on validation molecules, never on the tested."""

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
from ionbed.evaluation.structures_and_transfer import best_weights, kept, with_transfer_entries
from ionbed.spectra.molecules import standardise

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


def test_the_weights_rank_the_true_molecules_of_the_validation_fold_highest(data, config, monkeypatch) -> None:
    """The model is right of the tested molecules and says nothing of the others; of those one transfer is right."""
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    candidates = candidate_molecules(data)
    true = np.eye(6)[data.molecule][:, : len(candidates)]
    own = Fixed(true * (np.arange(6) < 3)[:, None])
    right, wrong = Fixed(0.05 * true, "right"), Fixed(0.6 * np.roll(true, 1, axis=1), "wrong")
    (entry,) = with_transfer_entries(
        [entry_of(own, "mine")], [[entry_of(wrong, "wrong"), entry_of(right, "right")]], data, candidates, config,
        split_hash="s",
    )  # fmt: skip
    assert (entry.label, entry.kinds, entry.known) == ("mine + analogue transfer", {"retrieval"}, ("precursor_mz",))
    assert entry.trained_on == (Corpus("weights of analogue transfer", "s", ("validation",)),)
    (build,) = entry.builds
    scorer = build(data, candidates, np.arange(6))
    query, molecule = np.array([0, 3, 3]), np.array([0, 3, 4])
    # 0.1 is the smallest weight that puts the three above their isomers.
    np.testing.assert_allclose(
        scorer.score_structures(query, molecule), own.table[query, molecule] + 0.1 * right.table[query, molecule]
    )
    build(data, candidates, np.arange(3))
    assert own.built == 3, "fitted once, built twice"

    question = ask(RETRIEVAL_BY_MASS, data, candidates, config)
    (result,) = measure([question], data, candidates, [entry], BootstrapOptions(resamples=100), seed=0)
    assert result.rows[0].tree["weights"] == [{"wrong": 0.0, "right": 0.1}]


def test_there_is_no_row_where_the_validation_fold_is_asked_or_searched_or_too_small(data, config, monkeypatch) -> None:
    candidates = candidate_molecules(data)
    model, transfer = (entry_of(Fixed(np.zeros((6, 6))), label) for label in ("mine", "theirs"))

    def rows(config: EvaluationConfig) -> int:
        return len(with_transfer_entries([model], [[transfer]], data, candidates, config, split_hash="s"))

    assert rows(config) == 0
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    assert rows(config) == 1
    assert rows(replace(config, fold="validation")) == 0
    assert rows(replace(config, transfer=TransferOptions(library_fold="validation"))) == 0
    assert with_transfer_entries([], [], data, candidates, config, split_hash="s") == []


def test_weights_are_fitted_on_some_molecules_where_there_are_many(data, config, monkeypatch) -> None:
    """Of three validation molecules one is drawn, with all of its candidates and none of the others'."""
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 1)
    monkeypatch.setattr(structures_and_transfer, "MOST_MOLECULES", 1)
    seen = []
    monkeypatch.setattr(structures_and_transfer, "best_weights", lambda *args: seen.append(args) or (0.0,))
    candidates = candidate_molecules(data)
    model, transfer = (entry_of(Fixed(np.arange(36.0).reshape(6, 6)), label) for label in ("mine", "theirs"))
    (entry,) = with_transfer_entries([model], [[transfer]], data, candidates, config, split_hash="s")
    entry.builds[0](data, candidates, np.arange(6))
    ((scores, query, molecule, true_molecule),) = seen
    assert len(true_molecule) == 1 and sorted(molecule.tolist()) == list(range(6)) and set(query.tolist()) == {0}
    (row,) = np.flatnonzero(data.molecule == true_molecule[0])
    assert row >= 3
    np.testing.assert_array_equal(scores[0], 6 * row + molecule)


def test_molecules_count_alike_and_of_equally_good_weights_the_smaller_is_taken() -> None:
    """Five queries, three of them of one molecule, each with three candidates."""
    query, molecule = np.repeat(np.arange(5), 3), np.tile([0, 1, 2], 5)
    truth = np.array([0, 0, 0, 1, 2])
    assert best_weights([np.zeros(15), np.zeros(15), np.zeros(15)], query, molecule, truth) == (0.0, 0.0)
    # The model always says 0; the transfer is right of the last two queries and wrong of the others. By query the model
    # alone does better (0.77 against 0.70), by molecule the sum does (0.61 against 0.83), from 0.3 / 1 on.
    own = np.where(molecule == 0, 0.3, 0.0)
    transfer = np.where(molecule == np.array([1, 1, 1, 1, 2])[query], 1.0, 0.0)
    assert best_weights([own, transfer], query, molecule, truth) == (0.5,)


def test_an_abstention_of_the_transfer_leaves_the_models_own_score(data, config, monkeypatch) -> None:
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    monkeypatch.setattr(structures_and_transfer, "best_weights", lambda *args: (2.0,))
    own, transfer = Fixed(np.full((6, 6), 0.5)), Fixed(np.full((6, 6), np.nan))
    transfer.table[0] = 0.25
    candidates = candidate_molecules(data)
    (entry,) = with_transfer_entries(
        [entry_of(own, "mine")], [[entry_of(transfer, "theirs")]], data, candidates, config, split_hash="s"
    )
    scorer = entry.builds[0](data, candidates, np.arange(6))
    assert scorer.score_structures(np.array([0, 1]), np.array([0, 0])).tolist() == [1.0, 0.5]
    own.table[1, 0] = np.nan
    assert np.isnan(scorer.score_structures(np.array([1]), np.array([0]))).all()


def test_scorers_are_kept_for_the_same_rows_of_the_same_data(data) -> None:
    scorer = Fixed(np.zeros((6, 6)))
    (build,) = kept(entry_of(scorer, "x")).builds
    rows = np.arange(3)
    for of, asked, expected in ((data, rows, 1), (data, rows.copy(), 1), (data, rows[:2], 2), (replace(data), rows, 3)):
        build(of, None, asked)
        assert scorer.built == expected


def test_it_stands_behind_the_models_own_rows_and_its_label_is_taken(data, config, build, monkeypatch) -> None:
    monkeypatch.setattr(structures_and_transfer, "LEAST_MOLECULES", 3)
    config = replace(config, trained_baselines=replace(config.trained_baselines, trainings=0), workers=1)
    plain, tower = (build.encoder(lambda columns, row: np.ones(2)) for _ in range(2))
    tower.config.molecule_tower = 8
    candidates = candidate_molecules(data)

    def labels(*names: str) -> list[str]:
        models = {name: [tower if name == "mine" else plain] for name in names}
        rows = table_rows(data, candidates, models, dict.fromkeys(models), config, split_hash="s")
        return [row.label for row in rows if row.kind == "learned"]

    found = ["mine", "plain", "mine, analogue transfer", "plain, analogue transfer", "mine + analogue transfer"]
    assert labels("mine", "plain") == found
    with pytest.raises(InputError, match=r"'mine \+ analogue transfer' is the label of another row"):
        labels("mine", "mine + analogue transfer")


def test_the_row_is_explained_and_counts_as_the_models_own() -> None:
    row = {"label": "mine + analogue transfer", "kind": "learned", "void": None}
    row["differences"] = [{"role": "best look-up", "metric": "hit@1", "verdict": "beats"}]
    assert "plus analogue transfer" in explained_row(row)
    sentences = verdict_sentences({"tasks": {"retrieval by mass": {"main": "hit@1", "rows": [row]}}})
    assert sentences == ["'mine' beats the best look-up in retrieval by mass (with analogue transfer)."]

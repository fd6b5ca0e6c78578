"""Rows for candidate structures: what each may know, and scores worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ionbed.evaluation.baselines.structures import (
    DATABASE_ORDER,
    GIVEN_FORMULA,
    NEAREST_NEIGHBOUR_ORACLE,
    PRECURSOR_ERROR,
    structure_entries,
)
from ionbed.evaluation.baselines.transfer import AnalogueTransfer, TransferOptions, transfer_entries
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.retrieval import RetrievalOptions, retrieval_comparisons
from ionbed.spectra.adducts import adduct_mz, normalise_adduct
from ionbed.spectra.molecules import morgan_fingerprints, standardise, tanimoto_matrix


def tanimoto(first: str, second: str) -> float:
    return float(tanimoto_matrix(*(morgan_fingerprints([smiles]) for smiles in (first, second)))[0, 0])


def precursor_of(smiles: str, adduct: str, ppm: float = 0.0) -> float:
    molecule, ion = standardise(smiles), normalise_adduct(adduct)
    assert molecule is not None and ion is not None
    return adduct_mz(molecule.exact_mass, ion) * (1 + ppm * 1e-6)


@pytest.fixture
def make(build, make_data):
    """Makes data from keywords per spectrum; ``smiles`` and ``fold`` are needed. Molecules by first mention."""

    def made(*spectra: dict):
        numbers = {smiles: n for n, smiles in enumerate(dict.fromkeys(each["smiles"] for each in spectra))}
        rows = []
        for place, each in enumerate(spectra):
            others = {key: value for key, value in each.items() if key not in ("fold", "smiles", "polarity")}
            row = build.spectrum(
                numbers[each["smiles"]],
                place,
                smiles=each["smiles"],
                polarity=each.get("polarity", 1),
                mz=(50.0 + place,),
                intensity=(1.0,),
            )
            rows.append(replace(row, **others))
        return make_data(rows, {numbers[each["smiles"]]: each["fold"] for each in spectra})

    return made


def scorer_of(label: str, data, candidates):
    entry = next(entry for entry in structure_entries() if entry.label == label)
    return entry.builds[0](data, candidates, np.arange(len(data)))


def scores_of(scorer, candidates, query: int, *smiles: str) -> list[float]:
    rows = np.array([candidates.smiles.tolist().index(text) for text in smiles])
    return scorer.score_structures(np.full(len(rows), query), rows).tolist()


def test_what_each_row_says_it_is_given():
    known = {entry.label: (entry.kind, entry.known) for entry in structure_entries()}
    assert known == {
        GIVEN_FORMULA: ("blind", ("formula",)),
        PRECURSOR_ERROR: ("blind", ("precursor_mz", "adduct")),
        DATABASE_ORDER: ("blind", ()),
        NEAREST_NEIGHBOUR_ORACLE: ("reference", ("truth",)),
    }


def test_given_the_formula_its_candidates_tie_above_all_others(make):
    data = make(
        {"smiles": "CCCCO", "fold": "test", "formula": "C4H10O"},
        {"smiles": "CCOCC", "fold": "test", "formula": None},
        {"smiles": "C[N+](C)(C)C", "fold": "test", "formula": "[C4H12N]+"},
        {"smiles": "CCCCN", "fold": "test", "formula": "C4H11N"},
        {"smiles": "no structure", "fold": "test", "formula": "C2H6O"},
    )
    candidates = candidate_molecules(data)
    scorer = scorer_of(GIVEN_FORMULA, data, candidates)
    everything = ("CCCCO", "CCOCC", "C[N+](C)(C)C", "CCCCN")
    assert scores_of(scorer, candidates, 0, *everything) == [1, 1, 0, 0]
    assert scores_of(scorer, candidates, 1, *everything) == [0, 0, 0, 0], "not stated: all alike"
    assert scores_of(scorer, candidates, 2, *everything) == [0, 0, 1, 0], "charges are set aside"
    assert scorer.score_structures(np.array([1, 0]), np.array([4, 4])).tolist() == [0, 0], "nothing equals nothing"


def test_the_precursor_error_is_that_of_the_candidates_adduct(make):
    data = make(
        {
            "smiles": "CCCCO",
            "fold": "test",
            "adduct": "[2M+Na]+",
            "precursor_mz": precursor_of("CCCCO", "[2M+Na]+", ppm=3.0),
        },
        {"smiles": "CCOCC", "fold": "test", "adduct": None, "precursor_mz": precursor_of("CCOCC", "[M+H]+")},
        {
            "smiles": "CCC(=O)O",
            "fold": "test",
            "adduct": "[M-H]-",
            "polarity": -1,
            "precursor_mz": precursor_of("CCC(=O)O", "[M-H]-"),
        },
        {"smiles": "no structure", "fold": "test"},
    )
    candidates = candidate_molecules(data)
    scorer = scorer_of(PRECURSOR_ERROR, data, candidates)
    own, isomer, other = scores_of(scorer, candidates, 0, "CCCCO", "CCOCC", "CCC(=O)O")
    assert own == isomer == pytest.approx(-3.0, abs=1e-6)
    expected = precursor_of("CCC(=O)O", "[2M+Na]+")
    assert other == pytest.approx(-abs(data.columns.precursor_mz[0] - expected) / expected * 1e6)
    lighter = scores_of(scorer, candidates, 2, "CCCCO")[0]  # too heavy and too light are as wrong
    expected = precursor_of("CCCCO", "[M-H]-")
    assert lighter == pytest.approx(-abs(data.columns.precursor_mz[2] - expected) / expected * 1e6)
    assert lighter < 0 and other < 0
    assert scores_of(scorer, candidates, 1, "CCCCO", "CCC(=O)O") == [0.0, 0.0], "without adduct nothing is known"
    assert scores_of(scorer, candidates, 2, "CCC(=O)O")[0] == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(scorer.score_structures(np.array([0, 1]), np.array([3, 3]))).all()


def test_database_order_is_that_of_the_files_and_the_stores_without(make, tmp_path):
    data = make(*[{"smiles": smiles, "fold": "test"} for smiles in ("CCCCO", "CCOCC", "CCO")])
    alone = candidate_molecules(data)
    assert np.diff(scores_of(scorer_of(DATABASE_ORDER, data, alone), alone, 0, "CCCCO", "CCOCC", "CCO")).max() < 0

    (tmp_path / "a.smi").write_text("CCN x\nCCOCC x\nCCN x\n")
    (tmp_path / "b.smi").write_text("CCN x\nCCS x\nCCCCO x\n")
    candidates = candidate_molecules(data, [tmp_path / "a.smi", tmp_path / "b.smi"])
    order = ("CCN", "CCOCC", "CCS", "CCCCO", "CCO")
    assert np.diff(scores_of(scorer_of(DATABASE_ORDER, data, candidates), candidates, 0, *order)).max() < 0
    assert candidates.place_in_files.tolist() == [
        {"CCN": 0, "CCOCC": 1, "CCS": 3, "CCCCO": 4, "CCO": -1}[smiles] for smiles in candidates.smiles
    ], "places are counted on from where the last file's mentions ended"


def test_database_order_does_not_tell_the_molecules_of_the_store_from_those_of_a_list(make, tmp_path):
    listed = [f"{'C' * n}C(C)O" for n in range(1, 13)]
    data = make({"smiles": "CCCCO", "fold": "test"})
    (tmp_path / "lists.json").write_text(json.dumps({"CCCCO": ["CCCCO", *listed]}))
    candidates = candidate_molecules(data, lists=tmp_path / "lists.json")
    blocks = candidates.block.tolist()
    order = candidates.smiles[[blocks.index(block) for block in sorted(blocks)]]
    scores = scores_of(scorer_of(DATABASE_ORDER, data, candidates), candidates, 0, *order)
    assert np.diff(scores).max() < 0


def test_the_oracle_knows_the_nearest_training_molecule_and_nothing_nearer(make):
    data = make(
        {"smiles": "CCCCCCO", "fold": "test"},
        {"smiles": "CCCCCO", "fold": "train"},
        {"smiles": "CCN", "fold": "train"},
        {"smiles": "CCCCCCCO", "fold": "validation"},
        {"smiles": "c1ccccc1", "fold": "test"},
    )
    candidates = candidate_molecules(data)
    scorer = scorer_of(NEAREST_NEIGHBOUR_ORACLE, data, candidates)
    found = scores_of(scorer, candidates, 0, "CCCCCCO", "CCN", "CCCCCO")
    assert found == pytest.approx([tanimoto("CCCCCCO", "CCCCCO"), tanimoto("CCN", "CCCCCO"), 1.0])
    # Nothing in train is like benzene: both molecules are equally far, and their mean counts.
    assert tanimoto("c1ccccc1", "CCN") == tanimoto("c1ccccc1", "CCCCCO") == 0.0
    expected = (tanimoto("CCCCCCO", "CCCCCO") + tanimoto("CCCCCCO", "CCN")) / 2
    assert scores_of(scorer, candidates, 4, "CCCCCCO") == pytest.approx([expected])
    mixed = scorer.score_structures(np.array([4, 0, 4]), np.array([0, 0, 0]))
    assert mixed == pytest.approx([expected, found[0], expected])


def test_the_oracle_of_no_training_molecules_gives_no_score(make):
    data = make({"smiles": "CCCCO", "fold": "test"})
    candidates = candidate_molecules(data)
    assert np.isnan(scores_of(scorer_of(NEAREST_NEIGHBOUR_ORACLE, data, candidates), candidates, 0, "CCCCO")).all()


class TableScorer:
    """Scores by a table from (query row, library row); counts what it was asked."""

    label, kind = "table", "look-up"

    def __init__(self, table: dict[tuple[int, int], float]) -> None:
        self.table = table
        self.asked: list[tuple[list[int], list[int]]] = []

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        self.asked.append((queries.tolist(), library.tolist()))
        return np.array([[self.table.get((q, row), np.nan) for row in library.tolist()] for q in queries.tolist()])


TRAIN = ("CCCCO", "CCCCN", "Cc1ccccc1", "CCS")


@pytest.fixture
def searched(make):
    """Two queries (rows 0 and 1, the second negative), and a library of rows 2 to 6: two spectra of the first."""
    return make(
        {"smiles": "CCCCCO", "fold": "test"},
        {"smiles": "CCCCCO", "fold": "test", "polarity": -1},
        {"smiles": TRAIN[0], "fold": "train"},
        {"smiles": TRAIN[0], "fold": "train"},
        {"smiles": TRAIN[1], "fold": "train"},
        {"smiles": TRAIN[2], "fold": "train"},
        {"smiles": TRAIN[3], "fold": "train", "polarity": -1},
        {"smiles": "CCOC", "fold": "validation"},
    )


SCORES = {(0, 2): 0.2, (0, 3): 0.8, (0, 4): 0.4, (0, 5): -0.5}


def test_transfer_is_the_weighted_mean_that_its_formula_says(searched):
    candidates = candidate_molecules(searched)
    options = TransferOptions(neighbours=3, power=2.0)
    scorer = AnalogueTransfer("t", "look-up", TableScorer(SCORES), searched, candidates, options)
    for candidate in ("CCCCCO", "CCCCN", "Cc1ccccc1"):
        expected = (0.64 * tanimoto(candidate, TRAIN[0]) + 0.16 * tanimoto(candidate, TRAIN[1])) / 0.80
        assert scores_of(scorer, candidates, 0, candidate) == pytest.approx([expected], rel=1e-6)


def test_transfer_from_one_neighbour_is_its_similarity(searched):
    candidates = candidate_molecules(searched)
    options = TransferOptions(neighbours=1)
    scorer = AnalogueTransfer("t", "look-up", TableScorer(SCORES), searched, candidates, options)
    found = scores_of(scorer, candidates, 0, "CCCCCO", "CCCCO", "CCS")
    assert found == pytest.approx([tanimoto(text, TRAIN[0]) for text in ("CCCCCO", "CCCCO", "CCS")], rel=1e-6)


def test_transfer_searches_the_training_spectra_of_one_polarity_once(searched):
    table = TableScorer(SCORES)
    candidates = candidate_molecules(searched)
    scorer = AnalogueTransfer("t", "look-up", table, searched, candidates, TransferOptions())
    query, molecule = np.array([1, 0, 1, 0, 0]), np.array([1, 1, 0, 0, 1])
    scores = scorer.score_structures(query, molecule)
    assert sorted((asked, sorted(library)) for asked, library in table.asked) == [([0], [2, 3, 4, 5]), ([1], [6])]
    assert np.isnan(scores[[0, 2]]).all(), "a query without any hit gives no score"
    assert scores[1] == scores[4], "a pair that is asked twice gets one answer"
    order = np.array([3, 1, 4, 0, 2])
    np.testing.assert_array_equal(scorer.score_structures(query[order], molecule[order]), scores[order])
    assert len(table.asked) == 2
    assert scorer.score_structures(np.empty(0, np.int64), np.empty(0, np.int64)).shape == (0,)


def test_transfer_does_not_look_at_the_molecules_of_the_queries(searched):
    candidates = candidate_molecules(searched)
    query, molecule = np.zeros(len(candidates), np.int64), np.arange(len(candidates))
    altered = searched.molecule.copy()
    altered[:2] = altered[4]
    scores = [
        AnalogueTransfer("t", "look-up", TableScorer(SCORES), data, candidates, TransferOptions()).score_structures(
            query, molecule
        )
        for data in (searched, replace(searched, molecule=altered))
    ]
    np.testing.assert_array_equal(*scores)


def test_every_row_for_spectra_gives_one_for_structures_with_its_trainings(searched):
    given: list[np.ndarray] = []

    def build(data, candidates, rows):
        given.append(rows)
        return TableScorer(SCORES)

    entry = Entry("entropy", "learned", (build, build), ("precursor_mz",), exposure="seen")
    (row,) = transfer_entries([entry], TransferOptions())
    assert (row.label, row.kind, row.known, row.exposure) == (
        "entropy, analogue transfer", "learned", ("precursor_mz",), "seen"
    )  # fmt: skip
    assert len(row.builds) == 2
    scorer = row.builds[0](searched, candidate_molecules(searched), np.array([0]))
    assert (scorer.label, scorer.kind) == (row.label, "learned")
    assert given[0].tolist() == [0, 2, 3, 4, 5, 6], "the library has to be embedded too"

    (wrong,) = transfer_entries([structure_entries()[0]])
    with pytest.raises(ValueError, match="scores no spectra"):
        wrong.builds[0](searched, candidate_molecules(searched), np.array([0]))


def test_a_search_that_finds_the_analogue_finds_the_molecule(make, tmp_path):
    """Each query's analogue, one carbon shorter, is in the library; its decoy is a branched isomer."""
    ends = ("O", "N", "S", "Cl", "C(=O)O", "c1ccccc1")
    rows = []
    for end in ends:
        smiles = f"CCCCCC{end}"
        rows.append({"smiles": smiles, "fold": "test", "precursor_mz": precursor_of(smiles, "[M+H]+")})
    rows += [{"smiles": f"CCCCC{end}", "fold": "train"} for end in ends]
    data = make(*rows)
    (tmp_path / "pool.smi").write_text("".join(f"CC(C)(C)CC{end} x\n" for end in ends))
    candidates = candidate_molecules(data, [tmp_path / "pool.smi"])
    found = retrieval_comparisons(data, candidates, "test", RetrievalOptions(), 0)
    assert len(found.queries) == len(ends)
    table = {(query, len(ends) + query): 0.9 for query in range(len(ends))}
    scorer = AnalogueTransfer("t", "look-up", TableScorer(table), data, candidates, TransferOptions())
    scores = scorer.score_structures(found.queries[found.pool], found.candidate)
    for pool, query in enumerate(found.queries):
        members = found.pool == pool
        assert found.candidate[members][scores[members].argmax()] == data.molecule[query]


@pytest.mark.parametrize("wrong", [{"neighbours": 0}, {"power": -1.0}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match=f"'{next(iter(wrong))}'"):
        TransferOptions(**wrong)

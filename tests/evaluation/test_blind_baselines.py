"""The rows that see no peak: the classifier of structures against scikit-learn and planted styles, and the counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ionbed.evaluation.baselines.blind import (
    BlindOptions,
    StructureClassifier,
    draw_decoys,
    fit_logistic,
    spectrum_blind_entries,
    structure_blind_entries,
    structure_features,
)
from ionbed.evaluation.candidates import Candidates
from ionbed.evaluation.dataset import EvaluationData
from ionbed.evaluation.metrics import roc_auc

OPTIONS = BlindOptions(regularization=1.0)


def candidates_of(smiles: list[str], mass: np.ndarray, bits: np.ndarray | None = None) -> Candidates:
    number = len(smiles)
    bits = np.zeros((number, 64), np.uint8) if bits is None else bits
    return Candidates(
        block=np.array([f"M{i}" for i in range(number)], object),
        smiles=np.array(smiles, object),
        exact_mass=np.asarray(mass, np.float64),
        formula=np.array(["CH4"] * number, object),
        source=np.zeros(number, np.int64),
        place=np.arange(number),
        fingerprint=np.packbits(bits, axis=1),
        source_names=("store",),
    )


@pytest.fixture
def data(build: SimpleNamespace, make_data: Callable[..., EvaluationData]) -> EvaluationData:
    """60 molecules, every third held out, of one spectrum each."""
    spectra = [build.spectrum(molecule, 0) for molecule in range(60)]
    return make_data(spectra, {molecule: "test" if molecule % 3 == 2 else "train" for molecule in range(60)})


def made_up(rng: np.random.Generator, *, mark: str, count: int) -> list[str]:
    """SMILES of random letters; ``mark`` stands in each."""
    return [
        "".join(rng.choice(list("CNO()=1"), 12)) + mark + "".join(rng.choice(list("CNO()=1"), 5)) for _ in range(count)
    ]


def with_decoys(smiles: list[str], decoys: list[str], bits: np.ndarray | None = None) -> Candidates:
    """Ten molecules of each mass, whichever list they are from."""
    mass = 200.0 + 10 * (np.arange(len(smiles) + len(decoys)) % 20)
    return candidates_of([*smiles, *decoys], mass, bits)


def truth_against_decoys(data: EvaluationData, candidates: Candidates, options: BlindOptions = OPTIONS) -> float:
    """Return how often a held-out molecule scores above a decoy of its mass."""
    (entry,) = structure_blind_entries(data, candidates, options, split_hash="a" * 64, seed=0)
    scorer = entry.builds[0](data, candidates, data.rows_in("test"))
    truths, decoys = np.unique(data.molecule[data.rows_in("test")]), np.arange(60, len(candidates))
    numbers = np.concatenate([truths, decoys])
    scores = scorer.score_structures(np.zeros(len(numbers), np.int64), numbers)
    return roc_auc(scores, np.isin(numbers, truths))


def test_a_style_that_measured_molecules_share_is_found(data: EvaluationData) -> None:
    rng = np.random.default_rng(0)
    styled = with_decoys(made_up(rng, mark="[Na+]", count=60), made_up(rng, mark="", count=140))
    assert truth_against_decoys(data, styled) > 0.95


def test_a_substructure_that_measured_molecules_share_is_found(data: EvaluationData) -> None:
    rng = np.random.default_rng(1)
    bits = rng.random((200, 64)) < 0.2
    bits[:60, :3] |= rng.random((60, 3)) < 0.8
    molecules = with_decoys(made_up(rng, mark="", count=60), made_up(rng, mark="", count=140), bits)
    assert truth_against_decoys(data, molecules) > 0.8


def test_what_only_held_out_molecules_share_is_not_learned(data: EvaluationData) -> None:
    rng = np.random.default_rng(2)
    smiles = made_up(rng, mark="", count=60)
    held_out = np.unique(data.molecule[data.rows_in("test")])
    for molecule, styled in zip(held_out, made_up(rng, mark="[Na+]", count=len(held_out)), strict=True):
        smiles[molecule] = styled
    assert truth_against_decoys(data, with_decoys(smiles, made_up(rng, mark="", count=140))) < 0.5


def test_without_a_difference_it_is_chance(data: EvaluationData) -> None:
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        molecules = with_decoys(made_up(rng, mark="", count=60), made_up(rng, mark="", count=140))
        found.append(truth_against_decoys(data, molecules))
    assert abs(np.mean(found) - 0.5) < 0.08


def test_molecules_are_scored_by_a_classifier_that_has_not_seen_them(data: EvaluationData) -> None:
    """Structures without any rule can only be learned by heart; those of the training fold must not profit."""
    rng = np.random.default_rng(0)
    bits = rng.random((400, 512)) < 0.1
    molecules = with_decoys(["C"] * 200, ["C"] * 200, bits)
    measured, decoys = np.arange(200), np.arange(200, 400)
    scorer = StructureClassifier(molecules, measured, decoys, replace(OPTIONS, regularization=1e-3), seed=0)
    scores = scorer.score_structures(np.zeros(400, np.int64), np.arange(400))
    assert abs(roc_auc(scores, np.arange(400) < 200) - 0.5) < 0.1


def test_the_folds_of_the_queries_are_not_read(data: EvaluationData) -> None:
    """Which molecules are held out and which are from elsewhere is the answer: it must change nothing."""
    rng = np.random.default_rng(0)
    molecules = with_decoys(made_up(rng, mark="", count=60), made_up(rng, mark="", count=140))
    elsewhere = replace(molecules, source=np.arange(200) % 5, place=rng.permutation(200))
    renamed = replace(data, fold=np.where(data.fold == "test", "excluded", data.fold))
    scores = []
    for d, c in ((data, molecules), (renamed, elsewhere)):
        (entry,) = structure_blind_entries(d, c, OPTIONS, split_hash="a" * 64, seed=0)
        scores.append(entry.builds[0](d, c, np.arange(3)).score_structures(np.zeros(200, np.int64), np.arange(200)))
    np.testing.assert_array_equal(*scores)


def test_the_score_does_not_depend_on_the_query_or_its_neighbours(data: EvaluationData) -> None:
    rng = np.random.default_rng(0)
    smiles = made_up(rng, mark="", count=200)
    smiles[70] = ""  # RDKit could not read it
    molecules = with_decoys(smiles[:60], smiles[60:])
    (entry,) = structure_blind_entries(data, molecules, OPTIONS, split_hash="a" * 64, seed=0)
    assert (entry.label, entry.kind, entry.known) == ("SMILES classifier", "blind", ())
    assert (entry.trained_on[0].split, entry.trained_on[0].folds) == ("a" * 64, ("train",))
    scorer = entry.builds[0](data, molecules, np.arange(3))
    whole = scorer.score_structures(np.zeros(200, np.int64), np.arange(200))
    some = np.array([5, 199, 5, 70, 64])
    np.testing.assert_allclose(scorer.score_structures(np.arange(5), some), whole[some], rtol=1e-12)
    assert np.flatnonzero(np.isnan(whole)).tolist() == [70]


def test_the_regression_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((120, 64)) < 0.3
    molecules = candidates_of(made_up(rng, mark="", count=120), np.full(120, 200.0), bits)
    is_positive = rng.random(120) < 0.2 + 0.5 * bits[:, 0]
    features = structure_features(molecules, np.arange(120))
    dense = np.zeros((120, features.num_features))
    dense[np.repeat(np.arange(120), np.diff(features.offsets)), features.feature] = 1
    for regularization in (0.5, 20.0):
        coefficients, intercept = fit_logistic(features, is_positive, regularization)
        peer = LogisticRegression(C=1 / regularization, tol=1e-10, max_iter=10_000).fit(dense, is_positive)
        np.testing.assert_allclose(coefficients, peer.coef_[0], atol=2e-4)
        np.testing.assert_allclose(intercept, peer.intercept_[0], atol=2e-4)
        np.testing.assert_allclose(features.sums(coefficients), dense @ coefficients, atol=1e-9)


def test_features_are_bits_and_ngrams_within_one_smiles() -> None:
    bits = np.zeros((3, 64), np.uint8)
    bits[0, [3, 60]] = 1
    molecules = candidates_of(["CN", "NC", "CN"], np.full(3, 100.0), bits)
    features = structure_features(molecules, np.array([2, 0, 1]))
    of = [features.feature[a:b] for a, b in zip(features.offsets[:-1], features.offsets[1:], strict=True)]
    # Begin, C, N, end: 4 characters, 3 pairs, 2 triples.
    assert [len(values) for values in of] == [9, 11, 9]
    assert of[1][:2].tolist() == [3, 60]
    np.testing.assert_array_equal(of[0], of[1][2:])
    assert len(np.intersect1d(of[0], of[2])) == 4  # the same characters in another order share no pair
    np.testing.assert_array_equal(structure_features(molecules, np.array([0])).feature, of[1])
    assert len(structure_features(molecules, np.array([], np.int64)).feature) == 0


def test_ngrams_are_hashed_alike_on_any_machine() -> None:
    """Against plain whole numbers, of which only the last 64 bits are kept."""
    text, expected = "\2C(=O)\3", set()
    for length in (1, 2, 3):
        for start in range(len(text) - length + 1):
            code = 0
            for character in text[start : start + length]:
                code = code * 257 + ord(character) + 1
            expected.add(64 + (code * 0x9E3779B97F4A7C15 % 2**64 >> 51))
    features = structure_features(candidates_of(["C(=O)"], np.full(1, 16.0)), np.array([0]))
    assert features.feature.tolist() == sorted(expected)


def test_decoys_have_the_mass_of_a_measured_molecule_and_are_none() -> None:
    mass = np.array([100.0, 200.0, 100.0005, 100.01, 200.001, 200.0015, np.nan, 300.0, 100.0])
    molecules = candidates_of(["C"] * 9, mass)
    measured = np.array([0, 1, 8])
    assert draw_decoys(molecules, measured, OPTIONS, seed=0).tolist() == [2, 4, 5]
    one = replace(OPTIONS, decoys_per_molecule=1)
    assert {tuple(draw_decoys(molecules, measured, one, seed=seed)) for seed in range(20)} == {(2, 4), (2, 5)}


def test_no_row_without_decoys_and_a_word_about_it(data: EvaluationData, caplog: pytest.LogCaptureFixture) -> None:
    alone = candidates_of(["C"] * 60, 100.0 + np.arange(60))
    with caplog.at_level(logging.WARNING, "ionbed"):
        assert structure_blind_entries(data, alone, OPTIONS, split_hash="a" * 64, seed=0) == []
    assert "no 'SMILES classifier' row" in caplog.text


def test_most_measured_counts_spectra_of_other_laboratories(
    build: SimpleNamespace, make_data: Callable[..., EvaluationData]
) -> None:
    laboratories = {0: ["Alpha", "Beta", "Beta"], 1: ["Alpha", "Alpha", None], 2: ["Beta"]}
    spectra = [
        build.spectrum(molecule, number, laboratory=laboratory)
        for molecule, names in laboratories.items()
        for number, laboratory in enumerate(names)
    ]
    data = make_data(spectra, dict.fromkeys(range(3), "test"))
    (entry,) = spectrum_blind_entries(data)
    assert (entry.label, entry.kind, entry.known) == ("most measured", "blind", ())
    scorer = entry.builds[0](data, None, np.arange(7))
    # Of Alpha, Beta and the unknown one: what the others have of molecules 0, 1 and 2.
    others = {0: [2, 1, 1], 1: [1, 3, 0], 5: [3, 2, 1]}
    for query, counts in others.items():
        np.testing.assert_array_equal(scorer.scores(np.array([query]), np.array([0, 3, 6]))[0], counts)


def test_most_measured_does_not_read_the_molecule_of_the_query(
    build: SimpleNamespace, make_data: Callable[..., EvaluationData]
) -> None:
    spectra, folds = build.isomers(8)
    data = make_data(spectra, folds)
    (entry,) = spectrum_blind_entries(data)
    rows = np.arange(len(data))
    queries, library = rows[data.laboratory == 0], rows[data.laboratory == 1]
    expected = entry.builds[0](data, None, rows).scores(queries, library)
    altered = replace(data, molecule=np.where(data.laboratory == 0, 0, data.molecule))
    np.testing.assert_array_equal(entry.builds[0](altered, None, rows).scores(queries, library), expected)
    # A lone measurement is no evidence for itself: all molecules have as many spectra elsewhere.
    assert len(np.unique(expected)) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("mass_ppm", 0.0), ("decoys_per_molecule", 0), ("parts", 1), ("regularization", 0.0)]
)
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        BlindOptions(**{name: value})

"""A model's cosine to the predicted spectra of candidates: the best of them, of the query's polarity, embedded once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ionbed.evaluation.baselines.predicted_spectra import PredictedLibrary
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.predicted_cosine import PredictedVectors, predicted_cosine_entry
from ionbed.evaluation.rows import model_entry
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.simulate import simulate_spectra

ISOMERS = ("CC(C)CC(N)C(=O)O", "CCC(C)C(N)C(=O)O")
CHARGED_TWICE = "C[N+](C)(C)CC[N+](C)(C)C"


@pytest.fixture
def data(build, make_data):
    """A spectrum of either polarity, and candidates of which one cannot be predicted."""
    rows = [
        build.spectrum(number, 0, smiles=smiles, polarity=1 if number else -1, mz=(44.05, 86.1), intensity=(0.5, 1.0))
        for number, smiles in enumerate([*ISOMERS, CHARGED_TWICE])
    ]
    return make_data(rows, dict.fromkeys(range(3), "test"))


@pytest.fixture
def encoder(build):
    """By the intensities of two fragments, and by the precursor."""

    def vector(columns: SpectrumColumns, row: int) -> np.ndarray:
        span = slice(columns.offsets[row], columns.offsets[row + 1])
        mz, intensity = columns.mz[span], columns.intensity[span]
        found = [intensity[np.abs(mz - target) < 0.02].sum() for target in (44.05, 86.10, 69.07, 30.03)]
        return np.array([*found, columns.precursor_mz[row] / 1000])

    return build.encoder(vector)


def scorer_of(data, encoder, candidates, cache=None):
    entry = model_entry("mine", [encoder], "seen", cache=cache)
    made = predicted_cosine_entry(entry, [encoder], PredictedLibrary(None, 1), cache)
    assert (made.label, made.exposure, made.known) == ("mine, cosine to predicted spectra", "seen", entry.known)
    return made.builds[0](data, candidates, np.arange(len(data)))


def test_scores_are_the_best_cosine_over_the_energies_of_the_polarity(data, encoder) -> None:
    candidates = candidate_molecules(data)
    scorer = scorer_of(data, encoder, candidates)
    query, molecule = (grid.ravel() for grid in np.meshgrid(np.arange(3), np.arange(3), indexing="ij"))
    order = np.random.default_rng(0).permutation(9)
    scores = np.empty(9)
    scores[order] = scorer.score_structures(query[order], molecule[order])
    own = encoder.embed(data.columns)
    for score, row, number in zip(scores, query.tolist(), molecule.tolist(), strict=True):
        spectra = [
            s for s in simulate_spectra([("m", candidates.smiles[number])]) if s.polarity == data.columns.polarity[row]
        ]
        if not spectra:
            assert candidates.smiles[number] == CHARGED_TWICE and np.isnan(score)
            continue
        expected = encoder.embed(SpectrumColumns.from_spectra(spectra)) @ own[row]
        assert len(expected) == 3 and score == pytest.approx(expected.max(), abs=1e-6)
    assert np.isnan(scores).sum() == 3


def test_spectra_are_embedded_once_and_kept_on_disk_by_the_models_hash(data, encoder, tmp_path) -> None:
    candidates = candidate_molecules(data)
    query, molecule = np.zeros(3, np.int64), np.arange(3)

    def embedded(cache) -> tuple[int, np.ndarray]:
        before = encoder.num_embedded
        scorer = scorer_of(data, encoder, candidates, cache)
        scores = scorer.score_structures(query, molecule)
        scorer.score_structures(query, molecule)
        return encoder.num_embedded - before, scores

    own, predicted = len(data), 12  # three energies of two ions of two molecules
    assert embedded(tmp_path)[0] == own + predicted, "a model without a hash has no cache"
    encoder.model_hash = lambda: "a"
    number, first = embedded(tmp_path)
    assert number == own + predicted and embedded(None)[0] == own + predicted
    number, again = embedded(tmp_path)
    assert number == own and np.array_equal(first, again, equal_nan=True)
    encoder.model_hash = lambda: "b"
    assert embedded(tmp_path)[0] == own + predicted


def test_molecules_without_predictions_have_no_vectors(encoder) -> None:
    vectors = PredictedVectors("mine", encoder, PredictedLibrary(None, 1), None)
    for smiles in ([CHARGED_TWICE], [CHARGED_TWICE, ""], []):
        embedded, polarity, owner = vectors(smiles)
        assert len(embedded) == len(polarity) == len(owner) == 0
    embedded, polarity, owner = vectors([CHARGED_TWICE, ISOMERS[0]])
    assert len(embedded) == 6 and owner.tolist() == [1] * 6 and sorted(polarity.tolist()) == [-1] * 3 + [1] * 3


def test_a_query_of_unknown_polarity_is_compared_with_both(data, encoder) -> None:
    columns = data.columns
    unknown = replace(data, columns=replace(columns, polarity=np.zeros(len(data), np.int8)))
    candidates = candidate_molecules(data)
    query, molecule = np.zeros(2, np.int64), np.arange(2)
    own = encoder.embed(columns)[0]
    for score, number in zip(
        scorer_of(unknown, encoder, candidates).score_structures(query, molecule), molecule, strict=True
    ):
        spectra = list(simulate_spectra([("m", candidates.smiles[number])]))
        assert score == pytest.approx((encoder.embed(SpectrumColumns.from_spectra(spectra)) @ own).max(), abs=1e-6)

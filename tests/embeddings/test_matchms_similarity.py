"""The cosine of embeddings works wherever matchms takes a similarity, and embeds each spectrum once."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ionbed
from ionbed.embeddings import matchms_scores
from ionbed.errors import InputError
from ionbed.spectra.store import Store

matchms = pytest.importorskip("matchms")


class Counting:
    """A model that counts the spectra it embeds."""

    def __init__(self, model):
        self.model, self.count = model, 0

    def embed(self, spectra, *, progress=False):
        spectra = list(spectra)
        self.count += len(spectra)
        return self.model.embed(spectra)

    def model_hash(self):
        return self.model.model_hash()


@pytest.fixture
def counting(model):
    return Counting(model)


@pytest.fixture
def theirs(library):
    return [ionbed.to_matchms(s) for s in library]


def test_scores_are_the_cosines_of_the_models_own_embeddings(counting, model, library, theirs):
    expected = model.embed(library[:40]) @ model.embed(library[40:]).T
    scores = matchms.calculate_scores(theirs[:40], theirs[40:], ionbed.as_matchms_similarity(counting))
    np.testing.assert_allclose(scores.to_array(), expected, atol=1e-6)
    assert scores.to_array().dtype == np.float64
    assert scores.score_names == ("EmbeddingCosine",)
    best = scores.scores_by_query(theirs[45], "EmbeddingCosine", sort=True)[0]
    assert best[0] is theirs[int(expected[:, 5].argmax())]
    assert counting.count == len(library)


def test_each_spectrum_is_embedded_once(counting, theirs):
    similarity = ionbed.as_matchms_similarity(counting)
    matrix = similarity.matrix(theirs, theirs, is_symmetric=True, progress_bar=False)
    assert counting.count == len(theirs)
    again = similarity.matrix([s.clone() for s in theirs], theirs, progress_bar=False)
    assert similarity.pair(theirs[3], theirs[8]) == pytest.approx(matrix[3, 8])
    assert counting.count == len(theirs)
    np.testing.assert_array_equal(matrix, again)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-6)
    assert matrix.max() <= 1
    np.testing.assert_allclose(matrix, matrix.T)


def test_a_spectrum_that_is_changed_in_place_is_embedded_anew(counting, theirs):
    similarity = ionbed.as_matchms_similarity(counting)
    first, second = theirs[:2]
    before = similarity.pair(first, second)
    first.peaks = second.peaks
    assert similarity.pair(first, second) == pytest.approx(1)
    assert before < 0.99


def test_pair_is_what_base_class_loops_need(counting, theirs):
    from matchms.similarity.BaseSimilarity import BaseSimilarity

    similarity = ionbed.as_matchms_similarity(counting)
    assert isinstance(similarity, BaseSimilarity)
    score = similarity.pair(theirs[0], theirs[1])
    assert score.dtype == np.float64
    assert score.shape == ()
    looped = BaseSimilarity.matrix(similarity, theirs[:6], theirs[:6], is_symmetric=True, progress_bar=False)
    np.testing.assert_allclose(looped, similarity.matrix(theirs[:6], theirs[:6], progress_bar=False), atol=1e-6)
    single = matchms.calculate_scores(theirs[:1], theirs[1:2], similarity)
    assert single.to_array()[0, 0] == pytest.approx(float(score))


@pytest.mark.parametrize("at_once", [1, 100, 16_000_000])
def test_sparse_scores_are_the_high_ones_of_the_full_table(monkeypatch, counting, theirs, at_once):
    monkeypatch.setattr(matchms_scores, "SCORES_AT_ONCE", at_once)
    full = ionbed.as_matchms_similarity(counting).matrix(theirs, theirs, progress_bar=False)
    similarity = ionbed.as_matchms_similarity(counting, min_score=0.3)
    scores = matchms.calculate_scores(theirs, theirs, similarity, array_type="sparse", is_symmetric=True)
    assert 60 < len(scores.scores.row) < 2000
    np.testing.assert_allclose(scores.to_array(), np.where(full >= 0.3, full, 0), atol=1e-6)
    everything = matchms.calculate_scores(
        theirs, theirs, ionbed.as_matchms_similarity(counting), array_type="sparse", is_symmetric=True
    )
    np.testing.assert_allclose(everything.to_array(), full, atol=1e-6)


def test_only_the_pairs_that_an_earlier_score_left_are_computed(counting, theirs):
    from matchms.similarity import PrecursorMzMatch

    scores = matchms.calculate_scores(
        theirs, theirs, PrecursorMzMatch(tolerance=20, tolerance_type="ppm"), array_type="sparse"
    )
    scores.calculate(ionbed.as_matchms_similarity(counting), name="ionbed")
    full = ionbed.as_matchms_similarity(counting).matrix(theirs, theirs, progress_bar=False)
    found = scores.scores.data["ionbed"]
    assert len(found) == 10 * 6 * 6
    np.testing.assert_allclose(found, full[scores.scores.row, scores.scores.col], atol=1e-6)


def test_a_network_of_matchms(counting, model, library, theirs):
    from matchms.networking import SimilarityNetwork

    scores = matchms.calculate_scores(theirs, theirs, ionbed.as_matchms_similarity(counting), is_symmetric=True)
    network = SimilarityNetwork(identifier_key="spectrum_id", top_n=5, max_links=3, score_cutoff=0.3)
    network.create_network(scores)
    cosines = model.embed(library) @ model.embed(library).T
    place = {s.spectrum_id: i for i, s in enumerate(library)}
    assert set(network.graph.nodes) == set(place)
    assert network.graph.number_of_edges() > 10
    for first, second, weight in network.graph.edges(data="weight"):
        assert weight == pytest.approx(cosines[place[first], place[second]], abs=1e-6)


def test_the_encoder_itself_embeds_matchms_spectra_the_same(store):
    model, spectra = ionbed.load_model(), Store(store).spectra(np.arange(0, 140, 20))
    theirs = [ionbed.to_matchms(s) for s in spectra]
    ours = model.embed(spectra)
    np.testing.assert_array_equal(model.embed(theirs), ours)
    similarity = ionbed.as_matchms_similarity(model)
    np.testing.assert_allclose(similarity.embed(theirs), ours, atol=1e-6)
    np.testing.assert_allclose(similarity.matrix(theirs, theirs, progress_bar=False), ours @ ours.T, atol=1e-6)


def test_it_is_told_by_its_model(counting):
    told = ionbed.as_matchms_similarity(counting, min_score=0.5).to_dict()
    assert json.loads(json.dumps(told)) == {
        "__Similarity__": "EmbeddingCosine", "model_hash": counting.model_hash(), "min_score": 0.5,
    }  # fmt: skip


def test_what_is_remembered_is_bounded(monkeypatch, counting, theirs):
    monkeypatch.setattr(matchms_scores, "MAX_REMEMBERED", 10)
    similarity = ionbed.as_matchms_similarity(counting)
    full = similarity.matrix(theirs, theirs, is_symmetric=True, progress_bar=False)
    assert len(similarity._remembered) == 10
    np.testing.assert_allclose(full, similarity.matrix(theirs, theirs, progress_bar=False))


def test_wrong_words(counting, theirs):
    similarity = ionbed.as_matchms_similarity(counting)
    with pytest.raises(ValueError, match="array_type must be"):
        similarity.matrix(theirs, theirs, array_type="dense")
    with pytest.raises(ValueError, match="cannot be symmetric"):
        similarity.matrix(theirs, theirs[1:], is_symmetric=True)
    with pytest.raises(ValueError, match="one of each is needed"):
        similarity.sparse_array(theirs, theirs, np.arange(3), np.arange(2))
    nothing_left = matchms.Spectrum(np.array([]), np.array([]), {"spectrum_id": "empty", "precursor_mz": 1.0})
    with pytest.raises(InputError, match="empty: is not usable: too-few-peaks"):
        similarity.pair(theirs[0], nothing_left)


def test_without_matchms_one_line_says_what_to_install(monkeypatch, counting):
    monkeypatch.setitem(__import__("sys").modules, "matchms", None)
    with pytest.raises(InputError, match=r"pip install 'ionbed\[evaluate\]'"):
        ionbed.as_matchms_similarity(counting)

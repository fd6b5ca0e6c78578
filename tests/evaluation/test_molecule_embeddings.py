"""Models that embed structures: their row ranks candidates by inner products, and embeds each structure once."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ionbed.errors import InputError
from ionbed.evaluation import molecule_embeddings
from ionbed.evaluation.candidates import Candidates, candidate_molecules
from ionbed.evaluation.comparisons import LIBRARY_SEARCH, RETRIEVAL_BY_FORMULA
from ionbed.evaluation.dataset import EvaluationData
from ionbed.evaluation.measure import measure
from ionbed.evaluation.question import ask
from ionbed.evaluation.rows import RETRIEVAL, SPECTRA, model_entry
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.statistics import BootstrapOptions

STRUCTURES = ["CCCCO", "CCOCC", "CC(C)CO", "CCCCN", "CCNCC", "CC(C)CN"]


def structure_vector(smiles: str) -> np.ndarray:
    """Where the first heteroatom stands, where a branch is, and which element it is."""
    place = min(smiles.index(symbol) for symbol in "ON" if symbol in smiles)
    return np.array([1.0, place, 5.0 * (smiles.find("(") + 1), "N" in smiles])


class StructureEncoder:
    """Embeds a spectrum as the structure that its m/z names, and counts what it embeds."""

    def __init__(self, structures: list[str], tower: int = 8, name: str = "a") -> None:
        self.config = SimpleNamespace(training=[], molecule_tower=tower)
        self.structures, self.name = structures, name
        self.asked: list[list[str]] = []

    def model_hash(self) -> str:
        return self.name

    def embed(self, spectra, *, progress: bool = False) -> np.ndarray:
        named = [self.structures[round(float(spectra.mz[start])) - 50] for start in spectra.offsets[:-1]]
        return self._units(named)

    def embed_molecules(self, smiles, *, workers: int | None = 1, progress: bool = False) -> np.ndarray:
        self.asked.append(list(smiles))
        return self._units(smiles)

    def _units(self, smiles) -> np.ndarray:
        vectors = np.stack([structure_vector(text) for text in smiles]).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def data(build, make_data) -> EvaluationData:
    spectra = [
        build.spectrum(
            number, copy, smiles=smiles, mz=(50.0 + number, 90.0 + copy), intensity=(1.0, 0.5), laboratory=laboratory
        )
        for number, smiles in enumerate(STRUCTURES)
        for copy, laboratory in enumerate(("Alpha", "Beta"))
    ]
    return make_data(spectra, dict.fromkeys(range(len(STRUCTURES)), "test"))


@pytest.fixture
def candidates(data, tmp_path) -> Candidates:
    (tmp_path / "pool.smi").write_text("CCC(C)O x\nCOCCC y\nCCCNC z\n")
    return candidate_molecules(data, [tmp_path / "pool.smi"])


def scorer_of(model, data, candidates, cache=None):
    (build,) = model_entry("mine", [model], None, cache=cache).builds
    return build(data, candidates, np.arange(len(data)))


def test_a_model_with_a_tower_ranks_structures_and_spectra(data, candidates) -> None:
    config = EvaluationConfig(dataset="store", split="split.json")
    questions = [ask(name, data, candidates, config) for name in (RETRIEVAL_BY_FORMULA, LIBRARY_SEARCH)]
    entry = model_entry("mine", [StructureEncoder(STRUCTURES)], None)
    assert entry.kinds == SPECTRA | RETRIEVAL
    results = measure(questions, data, candidates, [entry], BootstrapOptions(resamples=100), seed=0)
    for result in results:
        (row,) = result.rows
        assert row.tree["metrics"]["hit@1"]["micro"]["value"] == 1.0

    # The tower that takes every structure for another finds none: the row does follow the structures.
    wrong = StructureEncoder(STRUCTURES)
    wrong.structures = STRUCTURES[1:] + STRUCTURES[:1]
    (result, _) = measure(
        questions, data, candidates, [model_entry("mine", [wrong], None)], BootstrapOptions(resamples=100), seed=0
    )
    assert result.rows[0].tree["metrics"]["hit@1"]["micro"]["value"] == 0.0


def test_scores_are_inner_products_however_many_are_worked_on_at_a_time(data, candidates, monkeypatch) -> None:
    model = StructureEncoder(STRUCTURES)
    query, molecule = (grid.ravel() for grid in np.meshgrid(np.arange(len(data)), np.arange(len(candidates))))
    expected = np.sum(model.embed(data.columns)[query] * model._units(candidates.smiles.tolist())[molecule], axis=1)
    for pairs in (2**16, 7, 1):
        monkeypatch.setattr(molecule_embeddings, "PAIRS_PER_CHUNK", pairs)
        found = scorer_of(model, data, candidates).score_structures(query, molecule)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_each_structure_is_embedded_once_for_all_questions_and_scorers(data, candidates) -> None:
    model = StructureEncoder(STRUCTURES)
    (build,) = model_entry("mine", [model], None).builds
    first = build(data, candidates, np.arange(4))
    first.score_structures(np.array([0, 1, 1]), np.array([4, 2, 4]))
    second = build(data, candidates, np.arange(len(data)))
    some = second.score_structures(np.array([0, 0, 0]), np.array([4, 1, 2]))
    again = second.score_structures(np.array([0]), np.array([1]))
    assert model.asked == [candidates.smiles[[2, 4]].tolist(), candidates.smiles[[1]].tolist()]
    expected = model._units(candidates.smiles[[4, 1, 2]].tolist()) @ model.embed(data.columns)[0]
    np.testing.assert_allclose(some, expected, rtol=1e-6)
    assert again[0] == some[1]


def test_embeddings_are_kept_by_content(data, candidates, tmp_path) -> None:
    query, molecule = np.zeros(3, np.int64), np.array([1, 2, 6])
    first, same, other = (StructureEncoder(STRUCTURES, name=name) for name in "aab")
    found = [
        scorer_of(model, data, candidates, tmp_path / "cache").score_structures(query, molecule)
        for model in (first, same, other)
    ]
    assert (len(first.asked), len(same.asked), len(other.asked)) == (1, 0, 1)
    np.testing.assert_array_equal(found[0], found[1])
    scorer_of(same, data, candidates, tmp_path / "cache").score_structures(query, np.array([1, 2, 5]))
    assert len(same.asked) == 1, "other structures are no hit"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used as a cache"):
        scorer_of(first, data, candidates, tmp_path / "file").score_structures(query, molecule)


def test_a_structure_that_rdkit_cannot_read_gets_no_score(data, candidates) -> None:
    smiles = candidates.smiles.copy()
    smiles[3] = ""
    scores = scorer_of(StructureEncoder(STRUCTURES), data, replace(candidates, smiles=smiles)).score_structures(
        np.array([0, 0, 0]), np.array([3, 0, 8])
    )
    assert np.isnan(scores).tolist() == [True, False, False]


def test_a_model_without_a_tower_scores_spectra_only_and_trainings_are_of_one_kind(data, candidates) -> None:
    plain, tower = StructureEncoder(STRUCTURES, tower=0), StructureEncoder(STRUCTURES)
    assert model_entry("mine", [plain], None).kinds == SPECTRA
    assert not hasattr(scorer_of(plain, data, candidates), "score_structures")
    with pytest.raises(InputError, match=r"models\.mine: 1 of its 2 trainings"):
        model_entry("mine", [plain, tower], None)


def test_what_is_no_embedding_is_an_error(data, candidates, monkeypatch) -> None:
    model = StructureEncoder(STRUCTURES)
    monkeypatch.setattr(model, "embed_molecules", lambda smiles, **options: np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match=r"mine: embed_molecules gave shape \(1, 4\) for 2 structures"):
        scorer_of(model, data, candidates).score_structures(np.array([0, 0]), np.array([0, 1]))

"""The look-up in predicted spectra: it finds what it has predicted, by its definition, once for each molecule."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ms_entropy import calculate_entropy_similarity

from ionbed.embeddings import structure_predicted
from ionbed.errors import InputError
from ionbed.evaluation.baselines.predicted_spectra import (
    PredictedLibrary,
    PredictedSpectra,
    PredictedSpectraOptions,
    predicted_library,
)
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.simulate import simulate_spectra

LOOKUPS = LookupOptions()
ISOMERS = ("CC(C)CC(N)C(=O)O", "CCC(C)C(N)C(=O)O")
CHARGED_TWICE = "C[N+](C)(C)CC[N+](C)(C)C"


@pytest.fixture
def asked(build, make_data):
    """Spectra as predicted, of both polarities, of isomers and of what cannot be predicted, and their candidates."""
    molecules = [*ISOMERS, "CC(=O)Nc1ccc(O)cc1", CHARGED_TWICE]
    rows = []
    for number, smiles in enumerate(molecules):
        predicted = list(simulate_spectra([("m", smiles)], energies=(20.0,))) or rows[:1]
        rows += [
            replace(
                build.spectrum(number, place, smiles=smiles, polarity=spectrum.polarity),
                precursor_mz=spectrum.precursor_mz, mz=spectrum.mz, intensity=spectrum.intensity,
            )
            for place, spectrum in enumerate(predicted)
        ]  # fmt: skip
    data = make_data(rows, dict.fromkeys(range(len(molecules)), "test"))
    return data, candidate_molecules(data)


def scorer_of(asked, library=None) -> PredictedSpectra:
    data, candidates = asked
    return PredictedSpectra(data, candidates, library or PredictedLibrary(None, 1), LOOKUPS, workers=1)


def every_pair(asked) -> tuple[np.ndarray, np.ndarray]:
    data, candidates = asked
    pairs = np.stack(np.meshgrid(np.arange(len(data)), np.arange(len(candidates)), indexing="ij")).reshape(2, -1)
    return pairs[0], pairs[1]


def test_scores_are_the_best_entropy_similarity_over_the_energies(asked):
    data, candidates = asked
    query, molecule = every_pair(asked)
    order = np.random.default_rng(0).permutation(len(query))
    scores = np.empty(len(query))
    scores[order] = scorer_of(asked).score_structures(query[order], molecule[order])
    options = {"ms2_tolerance_in_da": LOOKUPS.tolerance_da, "noise_threshold": LOOKUPS.noise_cutoff}
    for score, row, number in zip(scores, query.tolist(), molecule.tolist(), strict=True):
        peaks = np.stack([data.columns.take(np.array([row])).mz, data.columns.take(np.array([row])).intensity], axis=1)
        similarities = [0.0]
        for spectrum in simulate_spectra([("m", candidates.smiles[number])]):
            if spectrum.polarity == data.columns.polarity[row]:
                theirs = np.stack([spectrum.mz, spectrum.intensity], axis=1)
                kept = [
                    p[p[:, 0] < mz - LOOKUPS.remove_precursor_da]
                    for p, mz in ((peaks, data.columns.precursor_mz[row]), (theirs, spectrum.precursor_mz))
                ]
                similarities.append(calculate_entropy_similarity(*kept, **options))
        assert score == pytest.approx(max(similarities), abs=2e-3)


def test_a_molecule_is_found_by_its_own_prediction_and_one_without_gets_nothing(asked):
    data, candidates = asked
    query, molecule = every_pair(asked)
    scores = scorer_of(asked).score_structures(query, molecule).reshape(len(data), len(candidates))
    own = data.molecule
    is_predicted = np.array([candidates.smiles[number] != CHARGED_TWICE for number in range(len(candidates))])
    assert np.array_equal(scores.argmax(1)[is_predicted[own]], own[is_predicted[own]])
    assert (scores[:, ~is_predicted] == 0).all() and (~is_predicted).any()
    assert (scores[is_predicted[own], own[is_predicted[own]]] > 0.99).all()
    assert scorer_of(asked).score_structures(query[:0], molecule[:0]).shape == (0,)


def test_each_molecule_is_predicted_once_and_kept_on_disk(asked, tmp_path, monkeypatch, caplog):
    predicted = []
    pq.write_table(pa.table({"other": [1]}), tmp_path / "other.parquet")

    def counted(molecules, **options):
        molecules = list(molecules)
        predicted.extend(smiles for _, smiles in molecules)
        return simulate_spectra(molecules, **options)

    monkeypatch.setattr(structure_predicted, "simulate_spectra", counted)
    query, molecule = every_pair(asked)
    library = PredictedLibrary(tmp_path / "cache", 1)
    first = scorer_of(asked, library).score_structures(query, molecule)
    assert sorted(predicted) == sorted(asked[1].smiles)
    scorer_of(asked, library).score_structures(query, molecule)
    again = scorer_of(asked, PredictedLibrary(tmp_path / "cache", 1)).score_structures(query, molecule)
    assert len(predicted) == len(asked[1]) and np.array_equal(first, again)
    (kept,) = (tmp_path / "cache").iterdir()
    assert pq.read_table(kept)["predicted"].to_numpy().all()
    for damage in (kept.read_bytes()[:100], (tmp_path / "other.parquet").read_bytes()):
        kept.write_bytes(damage)
        anew = scorer_of(asked, PredictedLibrary(tmp_path / "cache", 1)).score_structures(query, molecule)
        assert np.array_equal(first, anew)
    assert len(predicted) == 3 * len(asked[1])
    assert "is damaged" in caplog.text and "is not what was written there" in caplog.text
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be used as a cache"):
        scorer_of(asked, PredictedLibrary(tmp_path / "file" / "x", 1)).score_structures(query, molecule)


def test_the_row_is_left_out_aloud_where_there_are_too_many_candidates(caplog):
    def is_made(most: int, candidates: int, *, of_predicted: bool = False) -> bool:
        options = PredictedSpectraOptions(most)
        made = predicted_library(options, candidates, of_predicted=of_predicted, cache=None, workers=1)
        return made is not None

    with caplog.at_level(logging.WARNING, logger="ionbed"):
        assert is_made(10, 10) and not is_made(0, 10) and not is_made(0, 0)
        assert not is_made(10, 10, of_predicted=True)
        assert not caplog.records
        assert not is_made(10, 11)
    assert "raise predicted_spectra.most_molecules" in caplog.text
    with pytest.raises(ValueError, match="at least 0"):
        PredictedSpectraOptions(-1)


def test_processes_predict_what_one_does(asked, monkeypatch):
    monkeypatch.setattr(structure_predicted, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(structure_predicted, "MOLECULES_PER_TASK", 2)
    one, two = (PredictedLibrary(None, workers).spectra(asked[1].smiles.tolist()) for workers in (1, 2))
    assert np.array_equal(one[1], two[1]) and np.array_equal(one[0].mz, two[0].mz)

"""`ionbed fuse --structures`: weights of scores of structures, fitted on measured spectra of the validation fold."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ionbed import InputError, load_model
from ionbed.cli import main
from ionbed.embeddings.structure_fusion import (
    PREDICTED_COSINE,
    PREDICTED_ENTROPY,
    STRUCTURE_COSINE,
    structure_fusion_of,
)
from ionbed.embeddings.structure_index import StructureIndex
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.evaluation import fuse_structures
from ionbed.evaluation.dataset import load_evaluation_data
from ionbed.evaluation.fuse_structures import fit_structures
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.simulate import simulate_spectra
from ionbed.spectra.store import Store

LENGTHS = range(4, 9)
AMINES = [f"{'C' * before}C(N){'C' * (length - before)}" for length in LENGTHS for before in range(1, length // 2 + 1)]
ACIDS = [f"{amine}C(=O)O" for amine in AMINES]
MOLECULES = AMINES + ACIDS
"""Chains whose isomers differ in the place of the nitrogen; every second one is in the validation fold."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of spectra that look as predicted, of either energy, and what lies beside it."""
    from .conftest import spectrum, split_of, write_store

    folder = tmp_path_factory.mktemp("structures")
    rng = np.random.default_rng(0)
    spectra = []
    for number, smiles in enumerate(MOLECULES):
        for place, found in enumerate(simulate_spectra([("m", smiles)], energies=(20.0, 40.0), adducts=("[M+H]+",))):
            intensity = found.intensity * rng.uniform(0.5, 1.0, len(found.mz)).astype(np.float32)
            spectra.append(
                replace(
                    spectrum(number, place, smiles=smiles, precursor_mz=found.precursor_mz, laboratory="AB"[place]),
                    mz=found.mz, intensity=intensity / intensity.max(), collision_energy=found.collision_energy,
                )
            )  # fmt: skip
    folds = {number: ("validation", "train")[number % 2] for number in range(len(MOLECULES))}
    store = write_store(folder / "store", spectra)
    split_of(folds).save(folder / "split.json")
    (folder / "molecules.smi").write_text("\n".join([*MOLECULES, "CCOCCN(C)C"]))
    return folder, store, folds


@pytest.fixture(autouse=True)
def few_molecules(monkeypatch):
    monkeypatch.setattr(fuse_structures, "LEAST_MOLECULES", 8)
    monkeypatch.setattr("ionbed.evaluation.fuse.LEAST_MOLECULES", 8)


def fit(made, encoder, **changed):
    from .conftest import split_of

    folder, store, folds = made
    data = load_evaluation_data(Store(store), split_of(folds))
    options = {"lookups": LookupOptions(), "folds": 3, "cache": None, "workers": 1, "seed": 0}
    data = changed.pop("data", lambda data: data)(data)
    return fit_structures(data, encoder, folder / "molecules.smi", **{**options, **changed})


def test_what_is_right_gets_the_weight_and_what_says_nothing_none(made, build) -> None:
    """Spectra are as predicted; the encoder knows the precursor alone, which all candidates share."""
    score, figures = fit(made, build.encoder(lambda columns, row: np.array([1.0, columns.precursor_mz[row] / 1000])))
    weights = dict(zip(score.terms, score.weights, strict=True))
    assert weights.keys() == {PREDICTED_ENTROPY, PREDICTED_COSINE}
    assert weights[PREDICTED_ENTROPY] > 1 and weights[PREDICTED_COSINE] == pytest.approx(0, abs=0.1)
    assert figures["scores"][PREDICTED_ENTROPY] > figures["random"] + 0.3
    assert figures["fused"] == pytest.approx(figures["scores"][PREDICTED_ENTROPY], abs=0.1)
    assert figures["scores"][PREDICTED_COSINE] == pytest.approx(figures["random"], abs=0.15)
    assert 8 <= figures["molecules"] <= len(MOLECULES) // 2 < figures["candidates"] <= len(MOLECULES) + 1


def test_a_model_with_a_tower_has_a_term_more(made, build) -> None:
    class Tower:
        def __init__(self) -> None:
            self.encoder = build.encoder(lambda columns, row: np.ones(2))
            self.config = self.encoder.config
            self.config.molecule_tower = 8
            self.embed, self.model_hash = self.encoder.embed, lambda: "tower"

        def embed_molecules(self, smiles, **options):
            return np.tile(np.float32([1, 0]), (len(smiles), 1))

    score, figures = fit(made, Tower())
    assert set(score.terms) == {PREDICTED_ENTROPY, PREDICTED_COSINE, STRUCTURE_COSINE}
    assert score.weights[score.terms.index(STRUCTURE_COSINE)] == 0
    assert figures["scores"][STRUCTURE_COSINE] == pytest.approx(figures["random"])


def test_predicted_spectra_are_no_queries_and_too_few_are_refused(made, build) -> None:
    encoder = build.encoder(lambda columns, row: np.ones(2))

    def predicted(data):
        place = data.table.schema.get_field_index("predicted")
        field = data.table.schema.field(place)
        return replace(data, table=data.table.set_column(place, field, [[True] * len(data)]))

    with pytest.raises(InputError, match="to 0 molecules of the fold 'validation'; at least 8 are needed"):
        fit(made, encoder, data=predicted)


def test_a_useless_file_of_structures_is_told_before_the_work_begins(tmp_path, capsys) -> None:
    words = ["fuse", "no model", "no store", "--split", "no split", "--out", str(tmp_path / "out"), "--structures"]
    assert main([*words, str(tmp_path / "nowhere.smi")]) == 2
    assert "nowhere.smi: no such file" in capsys.readouterr().err
    (tmp_path / "empty.smi").touch()
    assert main([*words, str(tmp_path / "empty.smi")]) == 2
    assert "empty.smi: is empty" in capsys.readouterr().err


def test_the_command_writes_weights_with_which_an_index_is_ranked(made, tmp_path, capsys) -> None:
    folder, store, _ = made
    torch.manual_seed(0)
    model = IonbedModel(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4))
    model.save_pretrained(tmp_path / "model")
    words = ["fuse", str(tmp_path / "model"), str(store), "--split", str(folder / "split.json"), "--workers", "1"]
    words += ["--allow-other-split", "--structures"]
    out = str(tmp_path / "fused")
    assert main([*words, str(folder / "molecules.smi"), "--out", out]) == 0
    told = capsys.readouterr().err
    assert "structures: hit@1 1.000 in cross-validation (predicted spectra 1.000" in told
    loaded = load_model(out)
    fusion = structure_fusion_of(loaded)
    assert fusion.model_hash == loaded.model_hash() == model.model_hash() and fusion.fitted["molecules"] >= 8
    assert fusion.fitted["structures"]["name"] == "molecules.smi"
    for name in ("store", "split", "fold", "exposure", "seed"):
        assert fusion.fitted[name] == loaded.config.fusion["fitted"][name]
    assert fusion.fitted["fold"] == "validation"
    assert fusion.fitted["exposure"] == "its configuration does not say what it was trained on"
    assert structure_fusion_of(model) is None
    manifest = json.loads((tmp_path / "fused" / "manifest.json").read_text())
    assert manifest["fusion"]["structures"]["score"]["terms"] == [PREDICTED_ENTROPY, PREDICTED_COSINE]
    again = ["fuse", out, str(store), "--split", str(folder / "split.json"), "--workers", "1", "--allow-other-split"]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert structure_fusion_of(load_model(tmp_path / "again")) == fusion, "what is not fitted anew is kept"
    index = StructureIndex.build(loaded, AMINES[:4], predict_spectra=True)
    assert index.score_name() == "fused"
    assert main([*words, str(folder / "nowhere.smi"), "--out", str(tmp_path / "other")]) == 2
    assert "nowhere.smi" in capsys.readouterr().err
    assert main([*words, str(folder / "molecules.smi"), "--out", str(folder)]) == 2

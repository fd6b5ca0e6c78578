"""The molecule tower: part of the model's weights and hash, and nothing where there is none."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import ionbed
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel

SMILES = ["CC(=O)Nc1ccc(O)cc1", "CNC(C)Cc1ccccc1", "OC(=O)c1cccnc1"]


def small_model(**options: object) -> IonbedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 4, "num_mz_wavelengths": 8, "embedding_dim": 16}
    return IonbedModel(IonbedConfig(**{**sizes, "molecule_tower": 24, **options})).eval()


def test_structures_become_unit_vectors():
    model = small_model()
    vectors = model.embed_molecules(SMILES)
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    np.testing.assert_allclose(model.embed_molecules(SMILES[::-1])[::-1], vectors, atol=1e-6)
    assert model.embed_molecules([]).shape == (0, 16)


def test_dropout_is_off_while_embedding():
    model = small_model(dropout=0.5).train()
    np.testing.assert_array_equal(model.embed_molecules(SMILES), model.embed_molecules(SMILES))
    assert model.training


def test_a_model_without_a_projection_has_a_tower_too():
    assert small_model(embedding_dim=None).embed_molecules(SMILES).shape == (3, 32)


FRESH = """
import json, sys
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
print(json.dumps([model.model_hash(), model.embed_molecules(sys.argv[2:]).tolist()]))
"""


def test_another_process_loads_it_and_embeds_the_same(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path / "m")
    words = [sys.executable, "-c", FRESH, str(tmp_path / "m"), *SMILES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model_hash, vectors = json.loads(done.stdout)
    assert model_hash == model.model_hash() == ionbed.load_model(tmp_path / "m").model_hash()
    np.testing.assert_allclose(vectors, model.embed_molecules(SMILES), atol=1e-6)


def test_the_hash_covers_the_tower():
    model = small_model()
    reference = model.model_hash()
    assert small_model(molecule_tower=0).model_hash() != reference
    assert small_model(molecule_features=99).model_hash() != reference
    with torch.no_grad():
        model.molecule_tower.out.bias[0] += 1e-6
    assert model.model_hash() != reference


def test_without_a_tower_the_hash_is_what_it_was():
    model = small_model(molecule_tower=0)
    assert model.molecule_tower is None
    assert not any("tower" in name for name in model.state_dict())
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(0.5)
    assert model.model_hash() == "63ebb2a7f88b8007f60e157c587fc15fb8e4437bc328c6e6d0a1466369ec9e11"


def test_what_it_cannot_embed_is_said():
    with pytest.raises(ionbed.InputError, match=r"not trained with structures; fine-tune with molecules\.weight above"):
        small_model(molecule_tower=0).embed_molecules(SMILES)
    with pytest.raises(ionbed.InputError, match="structure 3 of 3: RDKit cannot read the SMILES 'C1CC'"):
        small_model().embed_molecules(["C", "CC", "C1CC"])
    with pytest.raises(ionbed.InputError, match="'CCO' is one text; give a list of SMILES"):
        small_model().embed_molecules("CCO")
    with pytest.raises(ionbed.InputError, match="version 0, this ionbed computes version 1; use the ionbed"):
        small_model(molecule_features=0).embed_molecules(SMILES)
    # Of a model that does not say: the first version, also where later ones are computed.
    assert inspect.signature(IonbedConfig).parameters["molecule_features"].default == 1
    with pytest.raises(ValueError, match="molecule_tower is -1"):
        IonbedConfig(molecule_tower=-1)

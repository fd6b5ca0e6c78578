"""The index with the real encoder: it keeps a copy of its model, and searches with that copy and no other."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from ionbed import InputError, load_model
from ionbed.embeddings.index import Index
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel


def encoder(seed: int) -> IonbedModel:
    torch.manual_seed(seed)
    return IonbedModel(IonbedConfig(hidden_size=32, num_layers=2, num_heads=4, initializer_range=0.5)).eval()


@pytest.fixture
def saved(library, tmp_path):
    Index.build(encoder(0), library).save(tmp_path / "index")
    return tmp_path / "index"


def test_a_saved_index_needs_nothing_but_its_folder(saved, library):
    opened = Index.open(saved)
    for precursor_ppm in (10.0, None):
        hits = opened.search(library, k=1, precursor_ppm=precursor_ppm)
        assert [found[0].metadata["spectrum_id"] for found in hits] == [s.spectrum_id for s in library]
        np.testing.assert_allclose(hits.scores, 1.0, atol=1e-5)


def test_two_builds_give_the_same_bytes(saved, library, tmp_path):
    Index.build(encoder(0), library).save(tmp_path / "again")
    for file in sorted(p for p in saved.rglob("*") if p.is_file()):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(saved)).read_bytes(), file.name


def test_another_model_is_refused_even_inside_the_folder(saved, library):
    other = encoder(1)
    with pytest.raises(InputError, match=load_model(saved / "model").model_hash()[:12]):
        Index.open(saved, other)
    manifest = saved / "manifest.json"
    stale = Index.open(saved)
    shutil.rmtree(saved / "model")
    other.save_pretrained(saved / "model")
    with pytest.raises(InputError, match="was built with the model"):
        stale.search(library[:1])
    assert manifest.is_file()

"""The checkpoint that ships with the package: it loads without a name, says what it is, and embeds as it did."""

from __future__ import annotations

import numpy as np

import ionbed
from ionbed.embeddings.fusion import fusion_of
from ionbed.embeddings.structure_fusion import structure_fusion_of
from ionbed.encoder.loading import default_model_folder
from ionbed.spectra.spectrum import Spectrum

GOLDEN = (0.03175, -0.01904, -0.04642, 0.01603, 0.03514, -0.08205, -0.01864, 0.05068)
"""First eight numbers of the embedding below, as the checkpoint gave them when it was added."""


def caffeine() -> Spectrum:
    """A made-up spectrum with the main fragments of protonated caffeine."""
    mz = np.array([42.0338, 69.0447, 83.0604, 110.0713, 123.0427, 138.0662, 195.0877], np.float32)
    intensity = np.array([0.1, 0.2, 0.15, 0.4, 0.05, 1.0, 0.3], np.float32)
    return Spectrum("caffeine", 195.0877, mz, intensity, polarity=1, charge=1, collision_energy=30.0)


def test_the_default_model_embeds_as_when_it_was_added():
    model = ionbed.load_model()
    assert model.config.precursor == "hidden" and model.config.embedding_dim == 256
    vector = model.embed([caffeine()])[0]
    np.testing.assert_allclose(vector[:8], GOLDEN, atol=1e-4)


def test_the_default_model_carries_its_fused_scores_and_embeds_structures():
    model = ionbed.load_model()
    fusion, structures = fusion_of(model), structure_fusion_of(model)
    assert fusion is not None and structures is not None  # and neither is of other weights
    assert {"validation"} == {fusion.fitted["fold"], structures.fitted["fold"]}
    vectors = model.embed_molecules(["Cn1cnc2c1c(=O)n(C)c(=O)n2C", "CC(=O)Nc1ccc(O)cc1"])
    spectrum = model.embed([caffeine()])[0]
    assert vectors[0] @ spectrum > vectors[1] @ spectrum + 0.2


def test_the_default_model_tells_caffeine_from_another_molecule():
    shifted = caffeine()
    other = Spectrum("other", 195.0877, shifted.mz + np.float32(0.9), shifted.intensity, polarity=1, charge=1)
    noisy = Spectrum("noisy", 195.0877, shifted.mz[1:], shifted.intensity[1:] ** 0.8, polarity=1, charge=1)
    same, different = (ionbed.load_model().embed([caffeine(), s]) for s in (noisy, other))
    assert same[0] @ same[1] > different[0] @ different[1] + 0.2


def test_the_default_model_says_what_it_was_trained_on():
    folder = default_model_folder()
    stages = ionbed.load_model().config.training
    assert [stage["command"] for stage in stages] == ["pretrain", "finetune"]
    assert all(stage["folds"] == ["train"] and stage["split"] for stage in stages)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(licence in card for licence in ("CC0", "CC BY", "CC BY-SA", "dl-de/by-2-0"))
    assert " NC" not in card and "-NC" not in card
    assert sum(path.stat().st_size for path in folder.iterdir()) < 15e6

"""Features of structures: those of the molecule and not of how it is written, the same in every process."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from ionbed.spectra import molecule_features as module
from ionbed.spectra.molecule_features import (
    DESCRIPTORS,
    FINGERPRINT_BITS,
    NUM_FEATURES,
    MoleculeFeatures,
    UnreadableStructureError,
    molecule_features,
)

CHLORAMPHENICOL = "OCC(NC(=O)C(Cl)Cl)C(O)c1ccc(cc1)[N+](=O)[O-]"
CHOLINE = "C[N+](C)(C)CCO"
STRUCTURES = [CHLORAMPHENICOL, CHOLINE, "C", "[Na+]", "OC[C@H](O)C=O", "Oc1ccccc1[Pt]"]


def descriptor(features: np.ndarray, name: str) -> float:
    return float(features[FINGERPRINT_BITS + DESCRIPTORS.index(name)]) + module._CENTRES.get(name, 0)


def test_fingerprints_are_counts_of_morgan_environments():
    features = molecule_features(STRUCTURES)
    assert features.shape == (len(STRUCTURES), NUM_FEATURES) and features.dtype == np.float32
    generator = GetMorganGenerator(radius=2, fpSize=4096)
    for smiles, row in zip(STRUCTURES, features, strict=True):
        counts = generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(smiles))
        np.testing.assert_allclose(np.expm1(row[:FINGERPRINT_BITS]), counts, rtol=1e-5)
    assert features[0, :FINGERPRINT_BITS].max() > np.log(3)  # counts, not bits: five carbons of the ring


def test_descriptors_are_what_their_names_say():
    chloramphenicol, choline, methane, _, _, platinum = molecule_features(STRUCTURES)
    counted = {"C": 11, "H": 12, "Cl": 2, "N": 2, "O": 5, "F": 0, "rings": 1, "aromatic_rings": 1, "amide_bonds": 1}
    for name, count in counted.items():
        assert np.expm1(descriptor(chloramphenicol, name)) == pytest.approx(count, abs=1e-4), name
    assert descriptor(chloramphenicol, "charge") == 0 and descriptor(choline, "charge") == 1
    assert descriptor(chloramphenicol, "mass") * 500 == pytest.approx(322.0123, abs=1e-3)
    assert descriptor(choline, "fraction_sp3") == pytest.approx(1)
    assert np.expm1(descriptor(platinum, "other_atoms")) == pytest.approx(1)
    assert descriptor(methane, "rings") == pytest.approx(0)


def test_neither_notation_nor_stereochemistry_changes_them():
    mol = Chem.MolFromSmiles(CHLORAMPHENICOL)
    written = [Chem.MolToSmiles(mol, doRandom=True) for _ in range(5)]
    features = molecule_features([CHLORAMPHENICOL, *written])
    assert len({CHLORAMPHENICOL, *written}) > 2 and (features == features[0]).all()
    right, left = molecule_features(["OC[C@H](O)C=O", "OC[C@@H](O)C=O"])
    np.testing.assert_array_equal(right, left)


def test_all_are_finite_and_as_they_were_when_models_were_trained_with_them():
    """Where this fails, `FEATURES_VERSION` has to be raised: models in use would be given other numbers."""
    features = molecule_features(STRUCTURES)
    assert np.isfinite(features).all()
    digest = hashlib.sha256(np.round(features, 3).tobytes()).hexdigest()
    assert (module.FEATURES_VERSION, digest[:16]) == (1, "e05148906bd3a4e3")


def test_parts_of_them_are_rows_of_all(monkeypatch):
    whole = MoleculeFeatures.of(STRUCTURES)
    rows = np.array([4, 0, 0, 5])
    np.testing.assert_array_equal(whole.dense(rows), whole.dense()[rows])
    assert len(MoleculeFeatures.of([])) == 0 and molecule_features([]).shape == (0, NUM_FEATURES)
    assert whole.dense(np.empty(0, np.int64)).shape == (0, NUM_FEATURES)


def test_several_processes_give_the_same(monkeypatch):
    monkeypatch.setattr(module, "_MOLECULES_PER_TASK", 1)
    np.testing.assert_array_equal(molecule_features(STRUCTURES, workers=2), molecule_features(STRUCTURES))
    with pytest.raises(UnreadableStructureError, match="'C1CC'") as caught:
        molecule_features([*STRUCTURES, "C1CC", "C"], workers=2)
    assert caught.value.position == len(STRUCTURES)


@pytest.mark.parametrize("smiles", ["C1CC", "", "no structure", None])
def test_what_cannot_be_read_is_named(smiles):
    with pytest.raises(UnreadableStructureError) as caught:
        molecule_features(["CC", smiles])
    assert caught.value.position == 1

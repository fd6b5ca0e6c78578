"""Numbers and classes of queries: against other programs, planted truths, and what the definitions promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbed.evaluation.query_properties import (
    chemical_classes,
    nearest_train_tanimoto,
    precursor_survival,
    query_values,
    spectral_entropy,
)
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.molecules import morgan_fingerprints
from ionbed.spectra.spectrum import Spectrum


def columns(*peaks: tuple[list[float], list[float]], precursor_mz: float = 300.0) -> SpectrumColumns:
    return SpectrumColumns.from_spectra(
        [
            Spectrum(str(i), precursor_mz, np.array(mz, np.float32), np.array(intensity, np.float32))
            for i, (mz, intensity) in enumerate(peaks)
        ]
    )


def test_entropy_is_that_of_ms_entropy() -> None:
    ms_entropy = pytest.importorskip("ms_entropy")
    rng = np.random.default_rng(0)
    spectra = [(np.sort(rng.uniform(50, 500, n)).tolist(), rng.uniform(0.01, 1, n).tolist()) for n in (1, 2, 7, 40)]
    own = spectral_entropy(columns(*spectra), np.arange(4))
    for entropy, (mz, intensity) in zip(own, spectra, strict=True):
        share = np.array(intensity) / np.sum(intensity)
        reference = ms_entropy.calculate_spectral_entropy(np.column_stack([mz, share]), clean_spectrum=False)
        assert entropy == pytest.approx(reference, abs=1e-5)


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30), st.floats(0.01, 1.0))
@settings(max_examples=50, deadline=None)
def test_entropy_is_at_most_that_of_equal_peaks_and_does_not_know_the_scale(heights: list[float], scale: float) -> None:
    mz = [float(100 + i) for i in range(len(heights))]
    found = spectral_entropy(
        columns((mz, heights), (mz, [h * scale for h in heights]), (mz, [1.0] * len(mz))), np.arange(3)
    )
    assert found[2] == pytest.approx(math.log(len(mz)), abs=1e-9)
    assert -1e-9 <= found[0] <= found[2] + 1e-9
    assert found[1] == pytest.approx(found[0], abs=1e-4)


def test_rows_are_taken_in_their_order() -> None:
    spectra = columns(([100.0], [1.0]), ([100.0, 200.0], [1.0, 1.0]), ([100.0, 200.0, 300.0], [1.0, 1.0, 2.0]))
    np.testing.assert_allclose(spectral_entropy(spectra, np.array([1, 0])), [math.log(2), 0.0], atol=1e-9)
    np.testing.assert_allclose(precursor_survival(spectra, np.array([2, 0, 2])), [0.5, 0.0, 0.5])


def test_the_precursor_survives_within_its_window_and_its_isotopes_do_not_count() -> None:
    near, far = 1000.0 + 0.019, 1000.0 + 0.021  # 20 ppm are 0.02 Da
    spectra = columns(
        ([500.0, near], [1.0, 3.0]), ([500.0, far], [1.0, 3.0]), ([500.0, 1001.003], [1.0, 1.0]), precursor_mz=1000.0
    )
    np.testing.assert_allclose(precursor_survival(spectra, np.arange(3)), [0.75, 0.0, 0.0])
    light = columns(([100.0, 100.009], [1.0, 1.0]), ([100.0, 100.011], [1.0, 1.0]), precursor_mz=100.0)
    np.testing.assert_allclose(precursor_survival(light, np.arange(2)), [1.0, 0.5])  # 0.01 Da where 20 ppm are less


def test_the_nearest_training_molecule_is_found(build, make_data) -> None:
    from rdkit import Chem, DataStructs
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    smiles = ["CCO", "CCCO", "c1ccccc1", "c1ccccc1O", "CCN", "CC(=O)Oc1ccccc1C(=O)O"]
    folds = dict(enumerate(["train", "test", "train", "test", "validation", "test"]))
    data = make_data([build.spectrum(m, 0, smiles=text) for m, text in enumerate(smiles)], folds)
    packed = np.packbits(morgan_fingerprints(list(data.smiles)), axis=1)
    packed[5] = 0
    found = nearest_train_tanimoto(data, np.concatenate([packed, packed]))  # further candidates come after
    generator = GetMorganGenerator(radius=2, fpSize=2048)
    bits = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in smiles]
    expected = [max(DataStructs.TanimotoSimilarity(bits[i], bits[t]) for t in (0, 2)) for i in range(5)]
    np.testing.assert_allclose(found[:5], expected, atol=1e-6)
    assert found[0] == found[2] == 1.0
    assert found[1] < 1.0
    assert np.isnan(found[5])


def test_without_training_spectra_nothing_is_near(build, make_data) -> None:
    data = make_data([build.spectrum(m, 0) for m in range(3)], dict.fromkeys(range(3), "test"))
    assert np.isnan(nearest_train_tanimoto(data, np.full((3, 256), 255, np.uint8))).all()


def test_a_molecule_has_the_class_that_most_of_its_spectra_name(build, make_data) -> None:
    from dataclasses import replace

    paths = ["A; B; C; D", "A; B; C; D", "A; X; Y", "Z; Z", "Y; Y", None, "P;Q"]
    of_molecule = [0, 0, 0, 1, 1, 2, 3]
    spectra = [
        replace(build.spectrum(molecule, i), chemical_class=path)
        for i, (molecule, path) in enumerate(zip(of_molecule, paths, strict=True))
    ]
    data = make_data(spectra, dict.fromkeys(range(4), "test"))
    assert chemical_classes(data).tolist() == [
        ["A", "B", "C"], ["Y", "Y", None], [None, None, None], ["P", "Q", None],
    ]  # fmt: skip


def test_numbers_that_are_not_known_are_nan(build, make_data) -> None:
    from dataclasses import replace

    spectra = [replace(build.spectrum(0, i), collision_energy=energy) for i, energy in enumerate([0.0, None, 30.0])]
    data = make_data(spectra, {0: "test"})
    values = query_values(data, np.arange(3))
    np.testing.assert_array_equal(values["collision_energy"], [0.0, np.nan, 30.0])  # 0 eV is not 'unknown'
    assert "nearest_train_tanimoto" not in values
    assert query_values(data, np.arange(2), np.array([0.4]))["nearest_train_tanimoto"].tolist() == [0.4, 0.4]

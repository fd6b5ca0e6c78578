"""The fragmenter gives known fragments of known molecules at exact m/z, and follows the collision energy."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem.Descriptors import ExactMolWt

from ionbed.spectra.fragmenter import FragmentationGraph, fragmentation_graph

ELECTRON_MASS = 5.485799090e-4
ELEMENT_MASSES = {  # NIST, after AME2012
    "H": 1.00782503223, "C": 12.0, "N": 14.00307400443, "O": 15.99491461957, "P": 30.97376199842, "S": 31.9720711744,
    "Cl": 34.968852682,
}  # fmt: skip

PHENYLALANINE = "NC(Cc1ccccc1)C(=O)O"
SULFAMETHOXAZOLE = "Cc1cc(NS(=O)(=O)c2ccc(N)cc2)no1"
QUERCETIN = "O=c1c(O)c(-c2ccc(O)c(O)c2)oc2cc(O)cc(O)c12"
CHOLIC_ACID_GLYCINE = "CC(CCC(=O)NCC(=O)O)C1CCC2C3C(O)CC4CC(O)CCC4(C)C3CC(O)C12C"
MOLECULES = (
    PHENYLALANINE,
    SULFAMETHOXAZOLE,
    QUERCETIN,
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C)C(=O)N2C",
    "Nc1ncnc2c1ncn2C1OC(COP(=O)(O)O)C(O)C1O",
    "C[N+](C)(C)CC(O)CC(=O)[O-]",
    "[O-][N+](=O)c1ccc2NC(=O)CN=C(c3ccccc3)c2c1",
    "Clc1ccc(CN2CCSC2=NC#N)cn1",
)


def graph(smiles: str, polarity: int = 1) -> FragmentationGraph:
    return fragmentation_graph(Chem.MolFromSmiles(smiles), polarity)


def atoms(formula: str) -> dict[str, int]:
    return {symbol: int(number or 1) for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula.rstrip("+-"))}


def ions(smiles: str, polarity: int, energy: float) -> dict[str, float]:
    return {peak.formula: peak.intensity for peak in graph(smiles, polarity).peaks(energy, min_intensity=0.0005)}


@pytest.mark.parametrize(
    ("smiles", "polarity", "expected"),
    [
        (PHENYLALANINE, 1, {"C8H10N+", "C8H7+", "C9H9O2+"}),  # - HCOOH, then - NH3; - NH3
        (SULFAMETHOXAZOLE, 1, {"C6H6NO2S+", "C6H6N+", "C4H7N2O+", "C10H12N3O+"}),  # 156, 92, 99, - SO2
        (QUERCETIN, 1, {"C7H5O4+", "C15H9O6+", "C14H11O6+"}),  # retro-Diels-Alder 153, - H2O, - CO
        (QUERCETIN, -1, {"C7H3O4-", "C8H3O5-"}),  # 151 and 179
        ("CC(=O)Oc1ccccc1C(=O)O", -1, {"C7H5O3-", "C6H5O-"}),  # - ketene, - CO2
        ("Nc1ncnc2c1ncn2C1OC(COP(=O)(O)O)C(O)C1O", 1, {"C5H6N5+", "C10H12N5O3+"}),  # adenine, - H3PO4
        ("C[N+](C)(C)CC(O)CC(=O)[O-]", 1, {"C3H10N+", "C4H7O3+"}),  # trimethylamine kept, and lost
        ("COc1ccc2ccc(=O)oc2c1", 1, {"C9H6O3+", "C9H9O2+"}),  # radical loss of CH3, - CO
        ("ClCCNC(=O)c1ccccc1", 1, {"C7H5O+", "C9H10NO+"}),  # benzoyl, - HCl
    ],
)
def test_known_fragments(smiles: str, polarity: int, expected: set[str]) -> None:
    fragments = graph(smiles, polarity)
    found = {fragments.formula(row) for row in range(len(fragments.mz))}
    assert expected <= found


def test_a_precursor_is_exact() -> None:
    neutral = ExactMolWt(Chem.MolFromSmiles(QUERCETIN))
    proton = ELEMENT_MASSES["H"] - ELECTRON_MASS
    assert graph(QUERCETIN, 1).precursor_mz == pytest.approx(neutral + proton, abs=1e-6)
    assert graph(QUERCETIN, -1).precursor_mz == pytest.approx(neutral - proton, abs=1e-6)
    choline = graph("C[N+](C)(C)CCO")
    assert choline.precursor_mz == pytest.approx(104.10699, abs=1e-5)
    assert choline.formula(int(choline.ion_formula[0])) == "C5H14NO+"


@pytest.mark.parametrize("polarity", [1, -1])
@pytest.mark.parametrize("smiles", MOLECULES)
def test_every_ion_is_a_part_of_the_precursor_at_the_mass_of_its_formula(smiles: str, polarity: int) -> None:
    if polarity < 0 and smiles.startswith("C[N+]"):
        pytest.skip("a zwitterion without a proton to give")
    fragments = graph(smiles, polarity)
    whole = atoms(fragments.formula(int(fragments.ion_formula[0])))
    for row, mz in enumerate(fragments.mz):
        counts = atoms(fragments.formula(row))
        assert all(number <= whole[symbol] + (2 if symbol == "H" else 0) for symbol, number in counts.items())
        mass = sum(ELEMENT_MASSES[symbol] * number for symbol, number in counts.items())
        assert mz == pytest.approx(mass - polarity * ELECTRON_MASS, abs=1e-5)
    assert (fragments.compositions >= 0).all()


def test_peaks_are_ascending_distinct_and_scaled() -> None:
    peaks = graph(CHOLIC_ACID_GLYCINE).peaks(30)
    mz = np.array([peak.mz for peak in peaks])
    assert (np.diff(mz) > 0).all()
    assert max(peak.intensity for peak in peaks) == 1.0
    assert len({peak.formula for peak in peaks}) == len(peaks)
    assert len(graph(CHOLIC_ACID_GLYCINE).peaks(30, max_peaks=5)) == 5
    assert mz.min() >= 40


@pytest.mark.parametrize("smiles", [PHENYLALANINE, QUERCETIN, CHOLIC_ACID_GLYCINE])
def test_the_precursor_falls_and_small_fragments_grow_with_energy(smiles: str) -> None:
    fragments = graph(smiles)
    energies = [5, 10, 20, 40, 80]
    shares = np.array([fragments.abundances(energy) for energy in energies])
    assert np.allclose(shares.sum(1), 1.0)
    assert (np.diff(shares[:, fragments.ion_formula[0]]) < 0).all()
    mean_mz = shares @ fragments.mz
    assert (np.diff(mean_mz) < 0).all()


def test_water_loss_leads_in_a_steroid_and_the_iminium_ion_in_an_amino_acid() -> None:
    cortisol = ions("CC12CCC(=O)C=C1CCC1C3CCC(O)(C(=O)CO)C3(C)CC(O)C12", 1, 15)
    assert max(cortisol, key=lambda f: cortisol[f] if f != "C21H31O5+" else 0) == "C21H29O4+"
    leucine = ions("CC(C)CC(N)C(=O)O", 1, 10)
    assert leucine["C5H12N+"] == max(intensity for formula, intensity in leucine.items() if formula != "C6H14NO2+")


def test_the_same_input_gives_the_same_spectrum() -> None:
    assert graph(SULFAMETHOXAZOLE).peaks(20) == graph(SULFAMETHOXAZOLE).peaks(20)


def test_isomers_differ() -> None:
    assert ions("CC(C)CC(NC(=O)CN)C(=O)O", 1, 20) != ions("CC(C)CC(N)C(=O)NCC(=O)O", 1, 20)


def test_what_has_no_fragment_keeps_its_precursor() -> None:
    assert [peak.formula for peak in graph("N").peaks(20, min_mz=10)] == ["H4N+"]


@pytest.mark.parametrize(
    ("smiles", "polarity", "words"),
    [("CCO.CC", 1, "several parts"), ("[13CH3]CO", 1, "isotope"), ("", 1, "no atoms"), ("CC", 0, "polarity"),
     ("ClC(Cl)(Cl)Cl", -1, "no hydrogen")],
)  # fmt: skip
def test_refusals(smiles: str, polarity: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        graph(smiles, polarity)


def test_forty_atoms_take_well_under_a_second() -> None:
    mol = Chem.MolFromSmiles("CC1OC(OCC2OC(Oc3c(-c4ccc(O)c(O)c4)oc4cc(O)cc(O)c4c3=O)C(O)C(O)C2O)C(O)C(O)C1O")
    fragmentation_graph(mol, 1)
    started = time.process_time()
    fragmentation_graph(mol, 1)
    assert time.process_time() - started < 1.0  # 0.1 s on one core of 2025


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from(["C", "N", "O", "C(=O)", "c1ccccc1", "C1CCNC1", "S", "C(O)", "C=C"]), min_size=1, max_size=6
    ),
    st.sampled_from([1, -1]),
)
def test_chains_of_anything_conserve_atoms(parts: list[str], polarity: int) -> None:
    fragments = graph("C" + "".join(parts) + "O", polarity)
    whole = fragments.compositions[fragments.ion_formula[0]]
    heavy = np.array([symbol != "H" for symbol in fragments.elements])
    assert (fragments.compositions[:, heavy] <= whole[heavy]).all()
    assert (fragments.compositions[:, ~heavy] <= whole[~heavy] + 2).all()
    assert np.isclose(fragments.abundances(25.0).sum(), 1.0)

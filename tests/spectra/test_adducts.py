"""Adducts: one normal form per ion, and masses that agree with published ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.adducts import ELECTRON_MASS, adduct_mz, neutral_mass, normalise_adduct, parse_charge

SPELLINGS = {
    "[M+H]+": ["[M+H]+", "M+H", "M+H+", "[M+H]", "(M+H)+", "[M+H]1+", "[M+H]+1", " [M + H]+ ", "[M+H]⁺", "[M+H]+*"],
    "[M-H]-": ["[M-H]-", "M-H", "[M-H]1-", "[M-H]−", "(M-H)-"],
    "[M]+": ["[M]+", "[M]+*", "[M+.]+", "M+", "M+.", "[Cat]+", "[M]+."],
    "[M+2H]2+": ["[M+2H]2+", "[M+2H]++", "[M+2H]+2", "M+2H", "[M+H+H]2+"],
    "[M]2+": ["[M]++", "[M]2+"],
    "[M-2H]2-": ["[M-2H]--", "[M-2H]2-", "M-2H"],
    "[M-2H]-": ["[M-2H]-"],
    "[M+H-H2O]+": ["[M+H-H2O]+", "[M-H2O+H]+", "[M-OH]+", "M-H2O+H"],
    "[M+H-2H2O]+": ["[M-2H2O+H]+", "[M+H-2H2O]+", "[M+H-H2O-H2O]+"],
    "[M+NH4]+": ["[M+NH4]+", "[M+NH3+H]+", "M+NH4"],
    "[M+HCOO]-": ["[M+HCOO]-", "[M+HCO2]-", "[M+FA-H]-", "[M-H+CH2O2]-", "[M+H2CO2-H]-", "[M+CHO2]-", "[M+HCOOH-H]-"],
    "[M+CH3COO]-": ["[M+CH3COO]-", "[M+CH3COOH-H]-", "[M+Hac-H]-", "[M+OAc]-", "[M+C2H3O2]-", "[M-H+C2H4O2]-"],
    "[M-2H+Na]-": ["[M+Na-2H]-", "[M-2H+Na]-"],
    "[M+H+CH3CN]+": ["[M+ACN+H]+", "[M+H+C2H3N]+", "[M+CH3CN+H]+"],
    "[2M+H]+": ["[2M+H]+", "2M+H"],
    "[M+Cl]-": ["[M+Cl]-", "M+Cl"],
    "[M+H+Na]2+": ["[M+Na+H]2+", "M+H+Na"],
}


@pytest.mark.parametrize(("normal", "text"), [(normal, text) for normal, texts in SPELLINGS.items() for text in texts])
def test_every_spelling_has_the_normal_form(normal: str, text: str) -> None:
    adduct = normalise_adduct(text)
    assert adduct is not None
    assert adduct.name == normal
    assert normalise_adduct(adduct.name) == adduct


@pytest.mark.parametrize(
    "text",
    [None, "", "N/A", "[M-H]-/[M-Ser]-", "[M+CH3COO]-/[M-CH3]-", "[M+X]+", "[M+H]+H2O", "M+2H2+", "[0M+H]+", "M",
     "[M-H2O]", "[M+H-Na]", "unknown", "[M+H]+-", "protonated", "[M+Ser-H]-"],
)  # fmt: skip
def test_what_names_no_single_ion_is_unknown(text: str | None) -> None:
    assert normalise_adduct(text) is None


@pytest.mark.parametrize(
    ("text", "mz"),
    [  # caffeine, 194.0803756 Da; values of the adduct calculator of Huang et al. 1999 (Fiehn laboratory)
        ("[M+H]+", 195.087652), ("[M+Na]+", 217.069596), ("[M+K]+", 233.043534), ("[M+NH4]+", 212.114201),
        ("[M+2H]2+", 98.047464), ("[2M+H]+", 389.168028), ("[M-H]-", 193.073099), ("[M+Cl]-", 229.049777),
        ("[M+HCOO]-", 239.078578), ("[M]+", 194.079827), ("[M-2H]2-", 96.032911),
    ],
)  # fmt: skip
def test_mass_counts_the_electrons(text: str, mz: float) -> None:
    adduct = normalise_adduct(text)
    assert adduct is not None
    assert adduct_mz(194.0803756, adduct) == pytest.approx(mz, abs=2e-5)


@given(st.sampled_from(sorted(SPELLINGS)), st.floats(50, 3000))
def test_neutral_mass_inverts_adduct_mz(text: str, mass: float) -> None:
    adduct = normalise_adduct(text)
    assert adduct is not None
    assert neutral_mass(adduct_mz(mass, adduct), adduct) == pytest.approx(mass, abs=1e-9)


@given(st.text(alphabet="[]()M+-HNaCl2OK/.* ", max_size=14))
def test_any_text_gives_an_adduct_that_is_its_own_normal_form_or_none(text: str) -> None:
    adduct = normalise_adduct(text)
    if adduct is not None:
        assert adduct.charge != 0
        again = normalise_adduct(adduct.name)
        assert again is not None
        assert again.name == adduct.name
        assert again.mass_shift == pytest.approx(adduct.mass_shift)


@pytest.mark.parametrize(
    ("text", "charge"),
    [("1+", 1), ("+1", 1), ("2-", -2), ("-2", -2), ("--", -2), ("+", 1), ("1", 1), ("3", 3), ("1.0", 1), ("0", None),
     ("", None), (None, None), ("N/A", None), ("2+ and 3+", None), ("+2-", None)],
)  # fmt: skip
def test_charge(text: str | None, charge: int | None) -> None:
    assert parse_charge(text) == charge


@pytest.mark.parametrize(
    "symbol",
    ["H", "Li", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "Ca", "Cr", "Mn", "Fe", "Co",
     "Ni", "Cu", "Zn", "As", "Se", "Br", "Rb", "Ag", "I", "Cs"],
)  # fmt: skip
def test_element_masses_are_those_of_rdkit(symbol: str) -> None:
    from rdkit.Chem import GetPeriodicTable

    adduct = normalise_adduct(f"[M+{symbol}]+")
    assert adduct is not None
    assert adduct.mass_shift == pytest.approx(GetPeriodicTable().GetMostCommonIsotopeMass(symbol), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "shift"),
    [("[M+D]+", 2.0141018), ("[M+2D]2+", 4.0282036), ("[M+D2O+H]+", 21.0309428), ("[M+DMSO+H]+", 79.021761)],
)
def test_deuterium_is_an_element_and_dmso_is_not_of_it(text: str, shift: float) -> None:
    adduct = normalise_adduct(text)
    assert adduct is not None
    assert adduct.mass_shift == pytest.approx(shift, abs=2e-6)


def test_the_electron_weighs_what_the_table_of_masses_says() -> None:
    from pyteomics.mass import nist_mass

    assert pytest.approx(nist_mass["e*"][0][0], abs=1e-11) == ELECTRON_MASS

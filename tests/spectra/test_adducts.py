"""Adducts: one normal form per ion, and masses that agree with published ones."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.adducts import (
    ELECTRON_MASS,
    adduct_mz,
    molecule_charge,
    neutral_mass,
    normalise_adduct,
    parse_charge,
)

SPELLINGS = {
    "[M+H]+": [
        "[M+H]+",
        "M+H",
        "M+H+",
        "[M+H]",
        "(M+H)+",
        "[M+H]1+",
        "[M+H]+1",
        " [M + H]+ ",
        "[M+H]⁺",
        "[M+H]+*",
        "M+H]",
        "[M+H",
        "M+H;1+",
        "[M + H]+",
        "[M+H]1+",
        "M+H+1",
    ],
    "[M-H]-": ["[M-H]-", "M-H", "[M-H]1-", "[M-H]−", "(M-H)-"],
    "[M]+": ["[M]+", "[M]+*", "[M+.]+", "M+", "M+.", "[Cat]+", "[M]+.", "[M]*+", "M-e"],
    "[M+2H]2+": ["[M+2H]2+", "[M+2H]++", "[M+2H]+2", "M+2H", "[M+H+H]2+"],
    "[M]2+": ["[M]++", "[M]2+"],
    "[M-2H]2-": ["[M-2H]--", "[M-2H]2-", "M-2H"],
    "[M-2H]-": ["[M-2H]-"],
    "[M+H-H2O]+": ["[M+H-H2O]+", "[M-H2O+H]+", "[M-OH]+", "M-H2O+H", "M+H-H20", "(M+H)+[-H2O]"],
    "[M+H-2H2O]+": ["[M-2H2O+H]+", "[M+H-2H2O]+", "[M+H-H2O-H2O]+", "M-2(H2O)+H"],
    "[M+NH4]+": ["[M+NH4]+", "[M+NH3+H]+", "M+NH4"],
    "[M-H-H2O]-": ["M-H2O-H", "[M-H2O-H]1-", "[M-H-H2O]-"],
    "[M+H+2Na]3+": ["M+H+2Na", "M+H+Na2", "[M+2Na+H]3+"],
    "[M-H+2Na]+": ["M-H+2Na", "[M+2Na-H]+"],
    "[M+H+C2H6OS]+": ["M+DMSO+H", "[M+H+C2H6OS]"],
    "[M+H-C6H10O5]+": ["[M-C6H10O5+H]+", "[M+H-(C6H10O5)]+", "M-C6H10O5+H"],
    "[M]-": ["[M]-", "[M]-.", "[M]•-", "M+e"],
    "[M+HCOO]-": [
        "[M+FA]-",
        "M+CH2O2-H;1-",
        "(M+HCOO)-",
        "[M+HCOO]-",
        "[M+HCO2]-",
        "[M+FA-H]-",
        "[M-H+CH2O2]-",
        "[M+H2CO2-H]-",
        "[M+CHO2]-",
        "[M+HCOOH-H]-",
    ],
    "[M+CH3COO]-": ["[M+CH3COO]-", "[M+CH3COOH-H]-", "[M+Hac-H]-", "[M+OAc]-", "[M+C2H3O2]-", "[M-H+C2H4O2]-"],
    "[M-2H+Na]-": ["[M+Na-2H]-", "[M-2H+Na]-"],
    "[M+H+CH3CN]+": ["[M+ACN+H]+", "[M+H+C2H3N]+", "[M+CH3CN+H]+"],
    "[2M+H]+": ["[2M+H]+", "2M+H", "M2+H", "2M+H;1+"],
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
     "[M-H2O]", "[M+H-Na]", "unknown", "[M+H]+-", "protonated", "[M+Ser-H]-",
     "M+23", "M+H-99", "M+2", "[M+15]+", "[M-e]-", "[M+13C+H]+", "[M+H+2i]+", "[M + ?]+", "M-H+Na", "M+NH3",
     "carotenoid"],
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


def test_masses_agree_with_the_table_of_matchms() -> None:
    package = find_spec("matchms")  # its table alone: the import takes seconds
    if package is None or package.origin is None:
        pytest.skip("matchms is not installed")
    table = Path(package.origin).parent / "data" / "known_adducts_table.csv"
    with open(table, encoding="utf-8-sig", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["adduct"] != "[M+OAc]-"]  # 243.02 there; acetate is 59.01
    assert len(rows) > 40
    for row in rows:
        adduct = normalise_adduct(row["adduct"])
        assert adduct is not None, row
        assert adduct.charge == int(row["charge"])
        expected = 500.0 * float(row["mass_multiplier"]) + float(row["correction_mass"])
        assert adduct_mz(500.0, adduct) == pytest.approx(expected, abs=6e-4), row  # some rows forget an electron


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
     ("", None), (None, None), ("N/A", None), ("2+ and 3+", None), ("+2-", None), ("+1", 1), ("1-", -1), ("-1", -1),
     ("-1-", -1), ("+1+", 1), ("-2-", -2), (" 1 + ", 1), ("1.0+", 1), ("0+", None)],
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


@pytest.mark.parametrize(
    ("name", "charge"),
    [
        ("[M+H]+", 0), ("[M+Na]+", 0), ("[M+NH4]+", 0), ("[M+H-H2O]+", 0), ("[M-H+2Na]+", 0), ("[M+3H]3+", 0),
        ("[2M+H]+", 0), ("[M-H]-", 0), ("[M+HCOO]-", 0), ("[M-2H+K]-", 0), ("[M]+", 1), ("[M]2+", 2), ("[M]-", -1),
        ("[M+H]2+", 1), ("[M-H]+", 2), ("[M-2H]-", 1), ("[M-H+Cl]-", 1), ("[M+2H]+", -1), ("[2M]2+", 1),
    ],
)  # fmt: skip
def test_charge_of_the_molecules_of_an_adduct(name: str, charge: int) -> None:
    adduct = normalise_adduct(name)
    assert adduct is not None
    assert molecule_charge(adduct) == charge

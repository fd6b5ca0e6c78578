"""The demo's molecules parse, are distinct, and come in the families that a precursor window needs."""

from __future__ import annotations

from collections import Counter

import pytest

from ionbed.demo.run import MOLECULES
from ionbed.spectra.molecule_files import read_molecules
from ionbed.spectra.molecules import Molecule, standardise

FORMULAS = {
    "Caffeine": "C8H10N4O2", "Quercetin": "C15H10O7", "Cortisol": "C21H30O5", "Glutathione": "C10H17N3O6S",
    "Adenosine monophosphate": "C10H14N5O7P", "Atrazine": "C8H14ClN5", "Diclofenac": "C14H11Cl2NO2",
    "Sulfamethoxazole": "C10H11N3O3S", "Palmitoylcarnitine": "C23H45NO4", "Rutin": "C27H30O16",
    "Imatinib": "C29H31N7O", "Aflatoxin B1": "C17H12O6", "Leukotriene B4": "C20H32O4", "Strychnine": "C21H22N2O2",
    "Prostaglandin D2": "C20H32O5", "gamma-Tocopherol": "C28H48O2", "Artemisinin": "C15H22O5", "Biotin": "C10H16N2O3S",
}  # fmt: skip


@pytest.fixture(scope="module")
def molecules() -> dict[str, Molecule]:
    entries = read_molecules(MOLECULES)
    read = {entry.name: standardise(entry.smiles or "") for entry in entries}
    assert len(read) == len(entries), "a name is given twice"
    assert all(read.values()), [name for name, molecule in read.items() if molecule is None]
    return {name: molecule for name, molecule in read.items() if molecule is not None}


def test_no_molecule_is_there_twice(molecules: dict[str, Molecule]) -> None:
    blocks = Counter(molecule.inchikey[:14] for molecule in molecules.values())
    assert [name for name, m in molecules.items() if blocks[m.inchikey[:14]] > 1] == []


@pytest.mark.parametrize(("name", "formula"), FORMULAS.items())
def test_formulas(molecules: dict[str, Molecule], name: str, formula: str) -> None:
    assert molecules[name].formula == formula


def test_many_molecules_have_isomers(molecules: dict[str, Molecule]) -> None:
    formulas = Counter(molecule.formula for molecule in molecules.values())
    assert sum(formulas[molecule.formula] > 1 for molecule in molecules.values()) > 300

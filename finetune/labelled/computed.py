"""Labels that follow from a structure: elements, substructures, chemical classes, fingerprint bits and properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rdkit.Chem import Mol

ELEMENTS: Mapping[str, int] = {
    "contains_boron": 5, "contains_nitrogen": 7, "contains_oxygen": 8, "contains_fluorine": 9, "contains_silicon": 14,
    "contains_phosphorus": 15, "contains_sulfur": 16, "contains_chlorine": 17, "contains_selenium": 34,
    "contains_bromine": 35, "contains_iodine": 53,
}  # fmt: skip
"""Yes/no labels, and the atomic number that they ask for."""

CLASS_LABELS: Mapping[str, int] = {"chemical_superclass": 2, "chemical_class": 3, "chemical_subclass": 4}
"""Levels of the class that the records name (ChemOnt; Djoumbou Feunang et al., J. Cheminform. 8 (2016) 61)."""

PROPERTIES: Mapping[str, str] = {
    "logp": "CalcCrippenLogP",
    "tpsa": "CalcTPSA",
    "exact_mass": "CalcExactMolWt",
    "aromatic_rings": "CalcNumAromaticRings",
    "rings": "CalcNumRings",
    "rotatable_bonds": "CalcNumRotatableBonds",
    "hydrogen_bond_donors": "CalcNumHBD",
    "hydrogen_bond_acceptors": "CalcNumHBA",
    "fraction_sp3_carbons": "CalcFractionCSP3",
    "heavy_atoms": "CalcNumHeavyAtoms",
    "qed": "QED",
}
"""Numbers, and the function of RDKit that gives them: logP after Wildman and Crippen (1999), the topological polar
surface area (A^2) after Ertl et al. (2000), drug-likeness (QED) after Bickerton et al. (2012)."""

FINGERPRINT = "fingerprint"
"""Bits of the Morgan fingerprint of radius 2 and 2,048 bits (Rogers and Hahn 2010), those that are most evenly set."""

COMPUTED = (*ELEMENTS, *CLASS_LABELS, *PROPERTIES, FINGERPRINT)


def check_computed(names: Sequence[str]) -> None:
    """Raise ValueError if one of ``names`` is not in `COMPUTED`."""
    for name in names:
        if name not in COMPUTED:
            raise ValueError(f"computed names '{name}'; known are {', '.join(COMPUTED)}")


def check_smarts(smarts: Mapping[str, str]) -> None:
    """Raise ValueError if RDKit cannot read one of the patterns."""
    if not smarts:
        return
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        for name, pattern in smarts.items():
            if Chem.MolFromSmarts(pattern) is None:
                raise ValueError(f"smarts: RDKit cannot read the pattern of '{name}', {pattern!r}; mend it")


def has_substructures(smiles: Sequence[str], names: Sequence[str], smarts: Mapping[str, str]) -> np.ndarray:
    """Return which molecules have the elements ``names`` and the patterns ``smarts``, float32 of shape (n, K), 0 or 1.

    Raises
    ------
    ValueError
        RDKit cannot read one of the SMILES.
    """
    from rdkit import Chem

    asked = [f"[#{ELEMENTS[name]}]" for name in names] + list(smarts.values())
    patterns = [Chem.MolFromSmarts(text) for text in asked]
    return _described(smiles, lambda mol: [float(mol.HasSubstructMatch(p)) for p in patterns], len(patterns))


def properties_of(smiles: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return the `PROPERTIES` ``names`` of molecules, float32 of shape (n, K).

    Raises
    ------
    ValueError
        RDKit cannot read one of the SMILES.
    """
    functions = [_property(PROPERTIES[name]) for name in names]
    return _described(smiles, lambda mol: [float(function(mol)) for function in functions], len(functions))


def _property(name: str) -> Callable[[Mol], float]:
    from rdkit.Chem import QED, rdMolDescriptors

    if name == "QED":
        return lambda mol: float(QED.qed(mol))
    if name == "CalcCrippenLogP":
        return lambda mol: float(rdMolDescriptors.CalcCrippenDescriptors(mol)[0])
    function: Callable[[Mol], float] = getattr(rdMolDescriptors, name)
    return function


def _described(smiles: Sequence[str], describe: Callable[[Mol], list[float]], width: int) -> np.ndarray:
    from rdkit import Chem, rdBase

    found = np.zeros((len(smiles), width), np.float32)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text)
            if mol is None:
                raise ValueError(f"RDKit cannot read the SMILES {text!r}")
            found[row] = describe(mol)
    return found

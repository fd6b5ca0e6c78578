"""Approximate energies of breaking bonds and of carrying a charge, by which the fragmenter ranks fragments.

All values are in eV. Those of charge sites are gas-phase proton affinities and acidities of the functional groups
(NIST Chemistry WebBook) as the distance from a group that hardly holds the charge, rounded to 0.1 eV; bond values are
of the order of the dissociation barriers of protonated molecules. They rank fragments; they are no thermochemistry.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

NO_SITE = -0.4
"""What a fragment without any of the groups below gains from a charge."""

# Later lines win: general patterns come first. The first atom of a pattern is the site.
_BASIC_SITES = (
    ("[c]", 0.0),
    ("[CX3]=[CX3]", 0.0),
    ("[OX2]", 0.5),
    ("[OX1]=[#6]", 0.9),
    ("[OX1]=C[OX2H1]", 0.6),
    ("[SX2]", 0.8),
    ("[NX1]#C", 0.4),
    ("[OX1]=[#15]", 1.2),
    ("[OX1]=[#16]", 0.8),
    ("[OX1]=[#6][#7]", 1.4),
    ("[NX3]", 1.5),
    ("[NX3H2][CX4]", 1.8),
    ("[NX3H1]([CX4])[CX4]", 2.0),
    ("[NX3H0]([CX4])([CX4])[CX4]", 2.2),
    ("[NX3]a", 1.4),
    ("[nX2]", 1.8),
    ("[nX2]1ccnc1", 2.0),
    ("[nX2]1cc[nH]c1", 2.1),
    ("[NX2]=[#6]", 1.9),
    ("[NX3][CX3]=[OX1]", 0.2),
    ("[NX3]S(=O)=O", 0.2),
    ("[NX2]=C[NX3]", 2.2),
    ("[NX2]=C([NX3])[NX3]", 2.6),
)
_ACIDIC_SITES = (
    ("[CX4;!H0][CX3]=[OX1]", 0.2),
    ("[CX4;!H0]([CX3]=[OX1])[CX3]=[OX1]", 1.0),
    ("[OX2H1]", 0.1),
    ("[OX2H1][CX4][CX4][OX2H1]", 0.3),
    ("[NX3;!H0]a", 0.4),
    ("[NX3;!H0][CX3]=[OX1]", 0.7),
    ("[NX3;!H0]([CX3]=[OX1])[CX3]=[OX1]", 1.4),
    ("[nH1]", 1.1),
    ("[nH1]c=O", 1.3),
    ("[OX2H1]a", 1.2),
    ("[OX2H1][CX3]=[#6]", 1.1),
    ("[SX2H1]", 1.1),
    ("[NX3;!H0]S(=O)=O", 1.6),
    ("[OX2H1][CX3]=[OX1]", 1.4),
    ("[OX2H1][#15]", 2.1),
    ("[OX2H1]S(=O)=O", 2.6),
    ("[OX1-]", 1.4),
)
# The atom that carries the positive charge when a bond to it breaks heterolytically.
_CATIONS = (
    ("[#6]", 0.0),
    ("[CH3X4]", -1.6),
    ("[CX4H2]", -0.3),
    ("[CX4H0]([#6])([#6])", 0.6),
    ("[CX4][OX2H1]", 0.8),
    ("[CX3]", -0.8),
    ("c", -1.2),
    ("[CX4][CX3]=[CX3]", 0.7),
    ("[CX4]a", 0.9),
    ("[CX4](a)a", 1.5),
    ("[CX4][OX2]", 1.1),
    ("[CX4][SX2]", 1.0),
    ("[CX3]=[OX1]", 0.8),
    ("[CX3](=[OX1])a", 1.1),
    ("[CX3](=[OX1])[OX2H1]", -0.8),
    ("[CX3](=[OX1])[NX3]", 0.7),
    ("[CX3]=[NX2]", 0.4),
    ("[CX4][NX3]", 1.9),
    ("[CX4][NX3][CX3]=[OX1]", 1.4),
    ("[#7]", -1.2),
    ("[#8]", -2.0),
    ("[F,Cl,Br,I]", -2.5),
    ("[#16]", -0.4),
    ("[SX4](=O)=O", 0.2),
    ("[#15]", 0.2),
    ("[#14]", 0.9),
)
# The atom that keeps the electrons of a broken bond.
_ANIONS = (
    ("*", -1.0),
    ("[#7]", -0.2),
    ("[NX3]a", 0.4),
    ("[#7][CX3]=[OX1]", 0.7),
    ("[n]", 1.2),
    ("[#7]S(=O)=O", 1.6),
    ("[OX2]", 0.1),
    ("[OX2]a", 1.2),
    ("[OX2][CX3]=[#6]", 1.1),
    ("[OX2][CX3]=[OX1]", 1.4),
    ("[OX2][#15]", 2.1),
    ("[OX2]S(=O)=O", 2.6),
    ("[SX2]", 1.1),
    ("[SX4](=O)=O", 1.4),
    ("[#15]", 1.2),
    ("F", 0.3),
    ("Cl", 1.9),
    ("Br", 2.2),
    ("I", 2.6),
)
# Energy to break a single bond outside rings, both directions; later lines win.
_SINGLE_BONDS = (
    ("[#6]~[#6]", 3.0),
    ("[CX4]-[CX4]", 2.8),
    ("[CX4]-[CX4][#7,#8]", 2.5),
    ("[CX4]-[CX4]a", 2.4),
    ("[CX4]-[CX4][CX3]=[OX1]", 2.6),
    ("[#6]-[CX3]=[OX1]", 2.2),
    ("[#6]-[CX3](=[OX1])[OX2H1]", 1.9),
    ("[CX4]-a", 3.4),
    ("[CX3](=[OX1])-a", 2.4),
    ("[CX3]-[CX3]=[#6]", 3.4),
    ("a-a", 4.5),
    ("[#6]~[#7]", 2.4),
    ("[CX4]-[#7]", 1.9),
    ("[CX4]-[nX3]", 1.7),
    ("a-[#7]", 3.0),
    ("[CX3](=[OX1])-[#7]", 1.6),
    ("[CX4]-[N+X4]", 1.3),
    ("[#6]-[N+](=O)[O-]", 2.3),
    ("[#6]~[#8]", 2.2),
    ("[CX4]-[OX2]", 1.8),
    ("[CX4]-[OX2H1]", 1.6),
    ("[CX4](-[OX2])[OX2,nX3]", 1.2),
    ("[CH3]-[OX2]", 2.4),
    ("a-[OX2]", 3.2),
    ("a-[OX2H1]", 3.8),
    ("[CX3](=[OX1])-[OX2]", 1.6),
    ("[CX3](=[OX1])-[OX2H1]", 2.1),
    ("[CX4]-[OX2][CX3]=[OX1]", 1.5),
    ("[#6]~[#16]", 2.0),
    ("a-[SX2]", 2.6),
    ("a-[SX4]", 2.6),
    ("[#16]~[#16]", 1.6),
    ("[#16]~[#7]", 1.5),
    ("[#16]~[OX2]", 1.4),
    ("[#15]~[OX2]", 1.5),
    ("[#15]-[OX2H1]", 2.3),
    ("[#15]~[#7]", 1.4),
    ("[#15]~[#6]", 2.4),
    ("[#7]~[#7]", 1.8),
    ("[#7]~[#8]", 1.7),
    ("[N+]-[O-]", 3.0),
    ("[#8]~[#8]", 1.0),
    ("[CX4]-F", 2.2),
    ("[#6X3]-F", 3.6),
    ("[CX4]-Cl", 1.9),
    ("[#6X3]-Cl", 2.9),
    ("[CX4]-Br", 1.7),
    ("[#6X3]-Br", 2.4),
    ("[CX4]-I", 1.4),
    ("[#6X3]-I", 1.9),
)
# Bonds that also break into two radicals: aryl methyl ethers, aryl halides, nitroarenes, aryl sulfones.
_HOMOLYTIC_BONDS = (
    ("[CH3]-[OX2]a", 1.6),
    ("[CH3]-[SX2]a", 1.6),
    ("a-Cl", 2.4),
    ("a-Br", 1.8),
    ("a-I", 1.4),
    ("a-[N+](=O)[O-]", 1.8),
    ("[SX4](=O)(=O)-a", 2.6),
)

DOUBLE_BOND_EXTRA = 1.6
AROMATIC_BOND = {"C": 3.4, "hetero": 2.6}
OTHER_BOND = 2.4


@cache
def _pattern(smarts: str) -> Any:
    from rdkit import Chem

    return Chem.MolFromSmarts(smarts)


def _sites(mol: Any, table: tuple[tuple[str, float], ...], default: float) -> np.ndarray:
    values = np.full(mol.GetNumAtoms(), default)
    for smarts, value in table:
        for match in mol.GetSubstructMatches(_pattern(smarts), uniquify=False, maxMatches=10_000):
            values[match[0]] = value
    return values


def basicity(mol: Any) -> np.ndarray:
    """Return what each atom's proton gains over one on a group that hardly holds it, in eV, shape (n_atoms,)."""
    return _sites(mol, _BASIC_SITES, NO_SITE)


def acidity(mol: Any) -> np.ndarray:
    """Return what each atom gains by giving up its proton, in eV, shape (n_atoms,)."""
    return _sites(mol, _ACIDIC_SITES, NO_SITE)


def cation_stability(mol: Any) -> np.ndarray:
    """Return the stability of each atom as the positive end of a broken bond, in eV, shape (n_atoms,)."""
    return _sites(mol, _CATIONS, -1.0)


def anion_stability(mol: Any) -> np.ndarray:
    """Return the stability of each atom as the negative end of a broken bond, in eV, shape (n_atoms,)."""
    return _sites(mol, _ANIONS, -1.0)


def bond_energies(mol: Any, orders: np.ndarray) -> np.ndarray:
    """Return the energy to break each bond, in eV; infinite for bonds that do not break (C=O, triple bonds).

    Parameters
    ----------
    mol : rdkit.Chem.Mol
        Aromatic bonds as such; see `ionbed.spectra.fragmenter.settle_aromaticity`.
    orders : int array of shape (n_bonds,)
        Order of each bond in one Kekule structure.
    """
    values = np.full(mol.GetNumBonds(), OTHER_BOND)
    _assign(mol, values, _SINGLE_BONDS)
    for bond in mol.GetBonds():
        ends = (bond.GetBeginAtom(), bond.GetEndAtom())
        index, order = bond.GetIdx(), orders[bond.GetIdx()]
        if bond.GetIsAromatic():
            values[index] = AROMATIC_BOND["C" if all(a.GetAtomicNum() == 6 for a in ends) else "hetero"]
        elif order >= 3 or (order == 2 and any(a.GetDegree() == 1 and a.GetAtomicNum() != 6 for a in ends)):
            values[index] = np.inf
        elif order == 2:
            values[index] += DOUBLE_BOND_EXTRA
    return values


def homolysis_energies(mol: Any) -> np.ndarray:
    """Return the energy of breaking each bond into two radicals, in eV; infinite where this is not seen."""
    values = np.full(mol.GetNumBonds(), np.inf)
    _assign(mol, values, _HOMOLYTIC_BONDS)
    return values


def _assign(mol: Any, values: np.ndarray, table: tuple[tuple[str, float], ...]) -> None:
    """Give the bond between the first atom of each pattern and the one bonded by '-' or '~' its value."""
    for smarts, value in table:
        pattern = _pattern(smarts)
        first, second = _broken_bond(smarts)
        for match in mol.GetSubstructMatches(pattern, uniquify=False, maxMatches=10_000):
            values[mol.GetBondBetweenAtoms(match[first], match[second]).GetIdx()] = value


@cache
def _broken_bond(smarts: str) -> tuple[int, int]:
    """Return the two atoms of a pattern whose bond is written '-' or '~'; its other bonds are implicit or '='."""
    written = [b for b in _pattern(smarts).GetBonds() if b.GetSmarts() in {"-", "~"}]
    assert len(written) == 1, smarts
    return written[0].GetBeginAtomIdx(), written[0].GetEndAtomIdx()

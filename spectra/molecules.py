"""Molecules by RDKit: standard structures, identifiers, fingerprints, similarities and scaffolds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rdkit.Chem import Mol
    from rdkit.Chem.MolStandardize.rdMolStandardize import Normalizer

_INCHIKEY = re.compile(r"[A-Z]{14}(?:-[A-Z]{10}-[A-Z])?")
_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d*)+")
_ISOTOPE_SYMBOL = re.compile(r"\[(\d+)([A-Z][a-z]?)\]")
_ISOTOPE = re.compile(r"\[\d+\](?=[A-Z])")
_BRACKETED = re.compile(r"\[(.*)\]\d*[-+]*")
_CHARGE = re.compile(r"[-+]+\d*$")
_STATED_CHARGE = re.compile(r"(?:(?<=\])(\d*)([-+]+)|([-+])(\d+)|([-+]+))$")
_ATOMS = re.compile(r"([A-Z][a-z]?)(\d*)")
_ACIDS = ("[O,S;H1]-[S,P]=[O,S]", "[O,S;H1]-C=[O,S]")
"""SMARTS of the proton's atom: sulfonic and phosphoric acids, then carboxylic ones."""


@dataclass(frozen=True)
class Molecule:
    """A structure and what follows from it.

    Attributes
    ----------
    smiles : str
        Canonical (RDKit), with stereochemistry and isotopes.
    inchikey : str
        Standard InChIKey.
    formula : str
        In Hill order, with the formal charge where there is one (``C5H14NO+``).
    exact_mass : float
        Monoisotopic mass in Da of the atoms as drawn, whatever the charge. (RDKit's ``CalcExactMolWt`` takes missing
        electrons off, and the m/z of an adduct would then do so again.)
    charge : int
        Net formal charge.
    """

    smiles: str
    inchikey: str
    formula: str
    exact_mass: float
    charge: int


@lru_cache(maxsize=65536)
def standardise(structure: str) -> Molecule | None:
    """Return the molecule of a SMILES or an InChI, or None where RDKit cannot read it.

    Functional groups are drawn in one way (RDKit's ``Normalize``), explicit hydrogens and atom maps are removed. Salts,
    charges and tautomers stay as drawn: they belong to what was measured.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    with rdBase.BlockLogs():
        mol = _read(structure)
        if mol is None:
            return None
        try:
            for atom in mol.GetAtoms():
                atom.SetAtomMapNum(0)
            mol = _normalizer().normalize(mol)
            if any(atom.GetAtomicNum() == 1 for atom in mol.GetAtoms()):  # few have any, and the search takes long
                mol = Chem.RemoveHs(mol)
            smiles = Chem.MolToSmiles(mol)
            inchikey = Chem.MolToInchiKey(mol)
        except (ValueError, RuntimeError):  # RDKit raises both, for structures it read but cannot work on
            return None
        if not inchikey:
            return None
        return Molecule(smiles, inchikey, CalcMolFormula(mol), _mass_of_atoms(mol), Chem.GetFormalCharge(mol))


@lru_cache(maxsize=4096)
def components(smiles: str) -> tuple[Molecule, ...]:
    """Return the distinct parts of a salt, a hydrate or a mixture, heaviest first, acids and bases neutral.

    Of ``Cl.CN(C)C(=N)NC(N)=N`` or ``CC(=O)[O-].[Na+]`` a spectrometer sees one part, which takes up or gives off its
    own protons. A charge that no proton makes (a quaternary ammonium) stays. Empty for a molecule that stands alone.
    """
    if "." not in smiles:
        return ()
    from rdkit import Chem, rdBase
    from rdkit.Chem.MolStandardize.rdMolStandardize import Uncharger

    parts: dict[str, Molecule] = {}
    with rdBase.BlockLogs():
        mol = _read(smiles)
        for part in Chem.GetMolFrags(mol, asMols=True) if mol is not None else ():
            try:
                molecule = standardise(Chem.MolToSmiles(Uncharger().uncharge(part)))
            except (ValueError, RuntimeError):
                continue
            if molecule is not None:
                parts[molecule.inchikey] = molecule
    return tuple(sorted(parts.values(), key=lambda m: (-m.exact_mass, m.inchikey)))


@lru_cache(maxsize=4096)
def parent_molecule(structure: str) -> Molecule | None:
    """Return the molecule that a spectrometer sees ions of: of a salt the heaviest organic part, made neutral.

    A charge that no proton makes (a quaternary ammonium) stays, unless an acid in the molecule can balance it: betaine
    is ``C[N+](C)(C)CC(=O)[O-]``, also where it is drawn with a proton. None where RDKit cannot read the structure.
    """
    molecule = standardise(structure)
    if molecule is None:
        return None
    if "." in molecule.smiles:
        parts = components(molecule.smiles)
        organic = [part for part in parts if "C" in atom_counts(part.formula)]
        molecule = (organic or parts or (molecule,))[0]
    return _uncharged(molecule) if "+" in molecule.smiles or molecule.charge else molecule


@lru_cache(maxsize=4096)
def balancing_anions(smiles: str) -> int:
    """Return how many acids of a molecule have given off a proton for a charge that no proton makes.

    1 for betaine, ``C[N+](C)(C)CC(=O)[O-]``, and 0 for nitrobenzene, whose charges are a way to draw a bond. With so
    many protons more it is the cation as which others draw it.
    """
    if "-]" not in smiles:
        return 0
    mol = _require(smiles)
    return sum(
        atom.GetFormalCharge() < 0
        and atom.GetSymbol() in ("O", "S")
        and not any(neighbour.GetFormalCharge() > 0 for neighbour in atom.GetNeighbors())
        for atom in mol.GetAtoms()
    )


def is_inchikey(text: str) -> bool:
    """Whether ``text`` has the form of a whole InChIKey, or of its first block (the skeleton) alone."""
    return _INCHIKEY.fullmatch(text) is not None


def is_formula(text: str) -> bool:
    """Whether ``text`` has the form of a molecular formula (``C6H12O6``), charge and brackets aside."""
    return _FORMULA.fullmatch(_bare_formula(text)) is not None


def same_formula(first: str, second: str) -> bool:
    """Whether two formulas count the same atoms; charge, brackets and isotopes (``[13]C``, ``D``) aside."""
    return atom_counts(first) == atom_counts(second)


def atom_counts(formula: str) -> dict[str, int]:
    """Return how many atoms of each element a formula counts; charge and brackets aside, isotopes as their element."""
    atoms: dict[str, int] = {}
    for symbol, count in _ATOMS.findall(_bare_formula(formula)):
        symbol = "H" if symbol in ("D", "T") else symbol
        atoms[symbol] = atoms.get(symbol, 0) + int(count or 1)
    return atoms


@lru_cache(maxsize=16384)
def formula_mass_and_charge(formula: str) -> tuple[float, int] | None:
    """Return the monoisotopic mass (Da) of the atoms of a formula (``C5H14NO+``) and its charge.

    None where it is no formula, or names isotopes in a way that leaves their number open.
    """
    if not is_formula(formula) or _ISOTOPE.search(formula) or _ISOTOPE_SYMBOL.search(formula):
        return None
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    mass = 0.0
    for symbol, count in _ATOMS.findall(_bare_formula(formula)):
        try:
            atom = table.GetMassForIsotope("H", 2) if symbol == "D" else table.GetMostCommonIsotopeMass(symbol)
        except RuntimeError:  # no such element
            return None
        mass += atom * int(count or 1)
    charge = 0
    if stated := _STATED_CHARGE.search(formula.replace(" ", "")):
        size, signs = stated[1] or stated[4], stated[2] or stated[3] or stated[5]
        charge = (int(size) if size else len(signs)) * (1 if signs[0] == "+" else -1)
    return mass, charge


def morgan_fingerprints(smiles: Sequence[str], radius: int = 2, bits: int = 2048) -> np.ndarray:
    """Return the Morgan fingerprints (Rogers and Hahn 2010) as a uint8 array of 0 and 1 of shape (n, bits).

    Raises
    ------
    ValueError
        RDKit cannot read one of the SMILES.
    """
    from rdkit import rdBase
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=radius, fpSize=bits)
    result = np.zeros((len(smiles), bits), np.uint8)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            result[row] = generator.GetFingerprintAsNumPy(_require(text))
    return result


def tanimoto_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Tanimoto similarities of binary fingerprints (n, bits) and (m, bits), float32 of shape (n, m).

    Two empty fingerprints share nothing: 0.
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    shared = a @ b.T  # counts below 2**24 are exact in float32
    united = a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :] - shared
    similarity: np.ndarray = np.divide(shared, united, out=np.zeros_like(shared), where=united > 0)
    return similarity


def element_formula(smiles: str) -> str:
    """Return the formula of the atoms of a SMILES in Hill order, hydrogens counted, charge and isotopes aside.

    Raises
    ------
    ValueError
        RDKit cannot read the SMILES.
    """
    from rdkit import rdBase
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    with rdBase.BlockLogs():
        return _bare_formula(CalcMolFormula(_require(smiles)))


def flat(smiles: str) -> Mol | None:
    """Return the molecule of a SMILES without stereochemistry and isotopes, or None where RDKit cannot read it."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol: Mol | None = Chem.MolFromSmiles(smiles)
        # Written, read and written again: the first string still depends on the stereochemistry that it leaves out.
        return None if mol is None else Chem.MolFromSmiles(Chem.MolToSmiles(mol, isomericSmiles=False))


def murcko_scaffold(smiles: str) -> str:
    """Return the Bemis-Murcko scaffold (1996) as canonical SMILES without stereochemistry; '' for an acyclic molecule.

    Raises
    ------
    ValueError
        RDKit cannot read the SMILES.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol

    with rdBase.BlockLogs():
        scaffold = GetScaffoldForMol(_require(smiles))
        return Chem.MolToSmiles(scaffold, isomericSmiles=False)


@lru_cache(maxsize=1)
def _normalizer() -> Normalizer:
    """Return RDKit's normaliser; to make one takes as long as to use it."""
    from rdkit.Chem.MolStandardize.rdMolStandardize import Normalizer

    return Normalizer()


def _uncharged(molecule: Molecule) -> Molecule:
    """Return a molecule with protons added or taken where that makes it neutral."""
    from rdkit import Chem, rdBase
    from rdkit.Chem.MolStandardize.rdMolStandardize import Uncharger

    with rdBase.BlockLogs():
        mol = _read(molecule.smiles)
        try:
            if mol is None:
                return molecule
            mol = Uncharger().uncharge(mol)
            _deprotonate(mol)
            return standardise(Chem.MolToSmiles(mol)) or molecule
        except (ValueError, RuntimeError):
            return molecule


def _deprotonate(mol: Mol) -> None:
    """Take protons from acids, the stronger first, until no positive charge is left to balance."""
    from rdkit import Chem

    charge = Chem.GetFormalCharge(mol)
    for pattern in _ACIDS if charge > 0 else ():
        for match in mol.GetSubstructMatches(Chem.MolFromSmarts(pattern)):
            atom = mol.GetAtomWithIdx(match[0])
            if charge > 0 and atom.GetFormalCharge() == 0:
                atom.SetFormalCharge(-1)
                atom.SetNumExplicitHs(0)
                atom.UpdatePropertyCache()
                charge -= 1


def _read(structure: str) -> Mol | None:
    from rdkit import Chem

    text = structure.strip()
    if text.startswith("InChI="):
        mol = Chem.MolFromInchi(text)
    else:
        mol = Chem.MolFromSmiles(text)
    return mol if mol is not None and mol.GetNumAtoms() else None


def _mass_of_atoms(mol: Mol) -> float:
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    counts: dict[tuple[int, int], int] = {}
    for atom in mol.GetAtoms():
        key = atom.GetAtomicNum(), atom.GetIsotope()
        counts[key] = counts.get(key, 0) + 1
        counts[1, 0] = counts.get((1, 0), 0) + atom.GetTotalNumHs()
    mass = 0.0
    for (number, isotope), count in counts.items():
        mass += count * (
            table.GetMassForIsotope(number, isotope) if isotope else table.GetMostCommonIsotopeMass(number)
        )
    return mass


def _require(smiles: str) -> Mol:
    mol = _read(smiles)
    if mol is None:
        raise ValueError(f"RDKit cannot read the SMILES {smiles!r}")
    return mol


def _bare_formula(text: str) -> str:
    """Return a formula without isotope marks, outer brackets and charge ('[C5H14NO]2+', 'C5H14NO+2')."""
    text = _ISOTOPE_SYMBOL.sub(r"\2", _ISOTOPE.sub("", text.replace(" ", "")))
    bracketed = _BRACKETED.fullmatch(text)
    return bracketed[1] if bracketed else _CHARGE.sub("", text)

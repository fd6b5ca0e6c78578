"""What the molecule tower reads of a structure: counts of Morgan environments, and some descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..progress import progress as show_progress
from ..progress import unseen
from .molecules import atom_counts
from .preparation.workers import open_workers

if TYPE_CHECKING:
    from rdkit.Chem import Mol
    from rdkit.Chem.rdFingerprintGenerator import FingerprintGenerator64

FEATURES_VERSION = 1
"""Raised with every change to what the numbers mean; a model keeps the version that its tower was trained with."""

FINGERPRINT_BITS = 4096
FINGERPRINT_RADIUS = 2
ELEMENTS = ("C", "H", "N", "O", "P", "S", "F", "Cl", "Br", "I", "Si", "B", "Se")
"""Counted one by one; atoms of all others are counted together."""

DESCRIPTORS = (
    *ELEMENTS, "other_atoms", "rings", "aromatic_rings", "saturated_rings", "rotatable_bonds", "amide_bonds",
    "spiro_atoms", "bridgehead_atoms", "bond_donors", "bond_acceptors", "heteroatoms",
    "charge", "fraction_sp3", "mass", "polar_surface", "accessible_surface", "kappa_1", "chi_0v", "chi_1v",
)  # fmt: skip
"""In the order of the last columns. Up to 'heteroatoms' they are counts (log1p); the others are scaled to about 1."""

_CENTRES = {
    "C": 2.8, "H": 3.0, "N": 0.7, "O": 1.4, "rings": 1.0, "aromatic_rings": 0.7, "saturated_rings": 0.3,
    "rotatable_bonds": 1.7, "amide_bonds": 0.2, "bond_donors": 0.9, "bond_acceptors": 1.6, "heteroatoms": 1.8,
    "fraction_sp3": 0.5, "mass": 0.7, "polar_surface": 0.9, "accessible_surface": 0.8, "kappa_1": 1.0, "chi_0v": 0.8,
    "chi_1v": 0.9,
}  # fmt: skip
"""About the means over the molecules of MassBank, taken off: of what all have in common an untrained tower would make
vectors that are nearly the same."""

NUM_FEATURES = FINGERPRINT_BITS + len(DESCRIPTORS)

_MOLECULES_PER_TASK = 1024


class UnreadableStructureError(ValueError):
    """RDKit cannot read a SMILES; ``position`` counts from 0."""

    def __init__(self, position: int, smiles: str) -> None:
        super().__init__(position, smiles)  # by which another process sends it
        self.position, self.smiles = position, smiles

    def __str__(self) -> str:
        """Return what is wrong."""
        return f"RDKit cannot read the SMILES {self.smiles!r}"


@dataclass(frozen=True, eq=False)
class MoleculeFeatures:
    """Features of n molecules; fingerprints are kept as the few bits that are set.

    Attributes
    ----------
    offsets : int64 array of shape (n + 1,)
        Where the bits of each molecule begin.
    bits, counts : uint16 arrays
    descriptors : float32 array of shape (n, n_descriptors)
        In the order of `DESCRIPTORS`, scaled.
    mass : float64 array of shape (n,)
        Monoisotopic, in Da; no feature by itself, but what isobars are found by.
    """

    offsets: np.ndarray
    bits: np.ndarray
    counts: np.ndarray
    descriptors: np.ndarray
    mass: np.ndarray

    @classmethod
    def of(cls, smiles: Sequence[str], *, workers: int | None = 1, progress: bool = False) -> MoleculeFeatures:
        """Compute the features of structures, as drawn; see `molecule_features`."""
        tasks = [
            (start, list(smiles[start : start + _MOLECULES_PER_TASK]))
            for start in range(0, len(smiles), _MOLECULES_PER_TASK)
        ]
        parts = []
        bar = show_progress("structures", len(smiles), unit="structures") if progress else unseen()
        # Processes take a second or two to start, in which one computes some thousands.
        with bar as advance, open_workers(workers if len(tasks) > 4 else 1, None) as pool:
            for part in pool.map(_features_of, tasks):
                parts.append(part)
                advance(len(part))
        return cls.concatenated(parts)

    @classmethod
    def concatenated(cls, parts: Sequence[MoleculeFeatures]) -> MoleculeFeatures:
        """Return the features of all parts, one after the other."""
        lengths = [np.diff(part.offsets) for part in parts]
        return cls(
            offsets=np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]), dtype=np.int64),
            bits=np.concatenate([np.empty(0, np.uint16), *(part.bits for part in parts)]),
            counts=np.concatenate([np.empty(0, np.uint16), *(part.counts for part in parts)]),
            descriptors=np.concatenate(
                [np.empty((0, len(DESCRIPTORS)), np.float32), *(part.descriptors for part in parts)]
            ),
            mass=np.concatenate([np.empty(0), *(part.mass for part in parts)]),
        )

    def take(self, rows: np.ndarray) -> MoleculeFeatures:
        """Return the features of some molecules."""
        place, lengths = self._places(rows)
        offsets = np.cumsum([0, *lengths.tolist()], dtype=np.int64)
        return MoleculeFeatures(offsets, self.bits[place], self.counts[place], self.descriptors[rows], self.mass[rows])

    def __len__(self) -> int:
        """Return the number of molecules."""
        return len(self.descriptors)

    def dense(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the features of some molecules as the tower reads them, float32 of shape (n_rows, NUM_FEATURES)."""
        chosen = np.arange(len(self))[rows]
        place, lengths = self._places(chosen)
        row = np.repeat(np.arange(len(chosen)), lengths)
        result = np.zeros((len(chosen), NUM_FEATURES), np.float32)
        result[row, self.bits[place]] = np.log1p(self.counts[place].astype(np.float32))
        result[:, FINGERPRINT_BITS:] = self.descriptors[chosen]
        return result

    def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the bits of some molecules stand, one molecule after the other, and how many each has."""
        lengths = np.diff(self.offsets)[rows]
        shift = self.offsets[:-1][rows] - (np.cumsum(lengths) - lengths)
        return np.arange(lengths.sum()) + np.repeat(shift, lengths), lengths


def molecule_features(smiles: Sequence[str], *, workers: int | None = 1) -> np.ndarray:
    """Return the features of structures for the molecule tower.

    The counts of Morgan environments (Rogers and Hahn 2010) as log(1 + count), which tell three chlorine atoms from
    one, and `DESCRIPTORS`. Stereochemistry does not enter, nor how a SMILES is written; tautomers and charges do:
    `ionbed.spectra.molecules.standardise` first what comes from elsewhere.

    Parameters
    ----------
    smiles : sequence of str
    workers : int or None
        Processes for many structures; None for as many as there are cores (a script must then guard its main part by
        ``if __name__ == "__main__"``).

    Returns
    -------
    float32 array of shape (n, NUM_FEATURES)

    Raises
    ------
    UnreadableStructureError
        RDKit cannot read one of the SMILES.
    """
    return MoleculeFeatures.of(smiles, workers=workers).dense()


def _features_of(task: tuple[int, list[str]]) -> MoleculeFeatures:
    """Compute the features of some structures, of which the first has this number among all."""
    from rdkit import Chem, rdBase
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
    from rdkit.Chem.rdMolDescriptors import CalcExactMolWt

    first, smiles = task
    generator = GetMorganGenerator(radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS)
    counted, mass = [], np.empty(len(smiles))
    descriptors = np.empty((len(smiles), len(DESCRIPTORS)), np.float32)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text) if isinstance(text, str) else None
            if mol is None or not mol.GetNumAtoms():
                raise UnreadableStructureError(first + row, text)
            counted.append(_environments(mol, generator))
            mass[row] = CalcExactMolWt(mol)
            descriptors[row] = _descriptors(mol, mass[row])
    lengths = [len(counts) for counts in counted]
    return MoleculeFeatures(
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        bits=np.array([bit for counts in counted for bit in counts], np.uint16),
        counts=np.array([count for counts in counted for count in counts.values()], np.uint16),
        descriptors=descriptors,
        mass=mass,
    )


def _environments(mol: Mol, generator: FingerprintGenerator64) -> dict[int, int]:
    """Return how often each bit of the fingerprint is set, in order of the bits."""
    counts: dict[int, int] = generator.GetCountFingerprint(mol).GetNonzeroElements()
    return {bit: min(counts[bit], np.iinfo(np.uint16).max) for bit in sorted(counts)}


def _descriptors(mol: Mol, mass: float) -> np.ndarray:
    from rdkit.Chem import GetFormalCharge
    from rdkit.Chem.rdMolDescriptors import (
        CalcChi0v,
        CalcChi1v,
        CalcFractionCSP3,
        CalcKappa1,
        CalcLabuteASA,
        CalcMolFormula,
        CalcNumAmideBonds,
        CalcNumAromaticRings,
        CalcNumBridgeheadAtoms,
        CalcNumHBA,
        CalcNumHBD,
        CalcNumHeteroatoms,
        CalcNumRings,
        CalcNumRotatableBonds,
        CalcNumSaturatedRings,
        CalcNumSpiroAtoms,
        CalcTPSA,
        NumRotatableBondsOptions,
    )

    atoms = atom_counts(CalcMolFormula(mol))
    others = sum(count for element, count in atoms.items() if element not in ELEMENTS)
    loose = NumRotatableBondsOptions.NonStrict  # the strict count takes longer than all other descriptors
    counts = (
        *(atoms.get(element, 0) for element in ELEMENTS), others, CalcNumRings(mol), CalcNumAromaticRings(mol),
        CalcNumSaturatedRings(mol), CalcNumRotatableBonds(mol, loose), CalcNumAmideBonds(mol),
        CalcNumSpiroAtoms(mol), CalcNumBridgeheadAtoms(mol), CalcNumHBD(mol), CalcNumHBA(mol),
        CalcNumHeteroatoms(mol),
    )  # fmt: skip
    scaled = (
        GetFormalCharge(mol), CalcFractionCSP3(mol), mass / 500,
        CalcTPSA(mol) / 100, CalcLabuteASA(mol) / 200, CalcKappa1(mol) / 20, CalcChi0v(mol) / 20,
        CalcChi1v(mol) / 10,
    )  # fmt: skip
    centres = [_CENTRES.get(name, 0.0) for name in DESCRIPTORS]
    return np.nan_to_num(np.array([*np.log1p(counts), *scaled]) - centres).astype(np.float32)

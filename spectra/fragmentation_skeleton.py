"""A molecule's heavy atoms as bits, and every way to take a connected part of it in two: the ground of the fragmenter.

Parts are Python integers, bit i for heavy atom i. A break crosses one bond outside rings, or two bonds of one ring; a
break found in the whole molecule is the same break in any part of it, so all are listed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from . import fragmentation_energies as energies

RING_SECOND_BOND = 0.7
"""Breaking a second bond of a ring costs this share of its energy: two double bonds form as two single ones break."""

CO_FROM_RING, CO_FROM_PHENOL, SO2_FROM_CHAIN = 3.2, 3.8, 2.3
"""Energies of the losses from the middle, in eV."""


@dataclass(frozen=True, eq=False)
class Breaks:
    """Ways to take parts in two, each with the side that is kept; arrays of shape (n_breaks,).

    Attributes
    ----------
    source : int array
        Which of the given parts.
    kept, lost : lists of int
        Parts as bits.
    extruded : list of int
        Atoms that left from the middle of the kept part, as bits.
    num_joined : int array
        Bonds formed across the place where they left.
    num_broken : int array
        Order of the broken bonds together; 0 for a loss from the middle.
    energy, homolysis : float64 arrays
        Of the broken bonds with closed shells, and with two radicals, in eV.
    charge_stability : float64 array
        Of a charge at the broken bond's end in the kept part, in eV.
    end : int array
        That atom.
    donor_kept, donor_lost : bool arrays
        Whether the part can give a hydrogen from beside the broken bond and form a double bond there.
    """

    source: np.ndarray
    kept: list[int] = field(repr=False)
    lost: list[int] = field(repr=False)
    extruded: list[int] = field(repr=False)
    num_joined: np.ndarray
    num_broken: np.ndarray
    energy: np.ndarray
    homolysis: np.ndarray
    charge_stability: np.ndarray
    end: np.ndarray
    donor_kept: np.ndarray
    donor_lost: np.ndarray


@dataclass(frozen=True)
class _Cut:
    """The atoms on one side of a break, and the bonds it crosses; ``ring`` holds the ring's atoms (0 for a chain)."""

    side: int
    bonds: tuple[int, ...]
    ring: int


class Skeleton:
    """Heavy atoms, bonds and breaks of one molecule.

    Parameters
    ----------
    mol : rdkit.Chem.Mol
        One connected molecule, hydrogens implicit.
    polarity : int
        +1 or -1, which decides what stabilises the charge.

    Raises
    ------
    ValueError
        The molecule is empty, in several parts, isotope-labelled, or has no hydrogen to give up.
    """

    def __init__(self, mol: Any, polarity: int) -> None:
        from rdkit import Chem

        if polarity not in (1, -1):
            raise ValueError(f"polarity is {polarity}; it must be 1 or -1")
        mol = Chem.RemoveHs(mol)
        if mol.GetNumAtoms() == 0:
            raise ValueError("the molecule has no atoms")
        if len(Chem.GetMolFrags(mol)) > 1:
            raise ValueError("the molecule is in several parts")
        atoms = list(mol.GetAtoms())
        if any(atom.GetIsotope() for atom in atoms):
            raise ValueError("the molecule carries isotope labels")
        self.polarity = polarity
        self.num_atoms = len(atoms)
        self._atom_h = np.array([atom.GetTotalNumHs() for atom in atoms])
        self._charges = np.array([atom.GetFormalCharge() for atom in atoms])
        if self._atom_h.sum() + polarity - self._charges.sum() < 0:
            raise ValueError("the molecule has no hydrogen to give up")
        self._set_elements(Chem.GetPeriodicTable(), [atom.GetSymbol() for atom in atoms])

        orders = kekule_orders(mol)
        mol = settle_aromaticity(mol, orders)
        self._ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
        self._orders = orders
        self._energy = energies.bond_energies(mol, orders).tolist()
        self._homolysis = energies.homolysis_energies(mol).tolist()
        self._site = energies.basicity(mol) if polarity > 0 else energies.acidity(mol)
        ends = energies.cation_stability(mol) if polarity > 0 else energies.anion_stability(mol)
        self._end_stability = ends.tolist()
        self._neighbours = [0] * self.num_atoms
        for a, b in self._ends:
            self._neighbours[a] |= 1 << b
            self._neighbours[b] |= 1 << a
        self._donors = self._hydrogen_donors(mol)
        self._cuts = self._chain_cuts(mol) + self._ring_cuts(mol)
        self._extrusions = self._find_extrusions(mol)
        self._joined_by = {leaving: (a, b) for leaving, a, b, _ in self._extrusions}
        self._known_sides: dict[tuple[int, ...], dict[int, tuple[Any, ...]]] = {}

    def _set_elements(self, table: Any, symbols: list[str]) -> None:
        others = sorted(set(symbols) - {"C", "H"})
        self.elements = ("C", "H", *others)  # Hill order where there is carbon
        if "C" not in symbols:
            self.elements = tuple(sorted({"H", *others}))
        numbers = [table.GetAtomicNumber(symbol) for symbol in self.elements]
        self.element_masses = np.array([table.GetMostCommonIsotopeMass(number) for number in numbers])
        self._is_element = np.array([[symbol == e for e in self.elements] for symbol in symbols], np.int64)

    def _hydrogen_donors(self, mol: Any) -> dict[tuple[int, int], bool]:
        """Return for each bond end (atom, atom across) whether a neighbour can give a hydrogen to a double bond."""
        single: list[list[int]] = [[] for _ in range(self.num_atoms)]
        for bond in mol.GetBonds():
            if not bond.GetIsAromatic() and self._orders[bond.GetIdx()] == 1:
                a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
                single[a].append(b)
                single[b].append(a)
        donors = {}
        for a, b in self._ends:
            for near, far in ((a, b), (b, a)):
                donors[near, far] = any(self._atom_h[c] > 0 for c in single[near] if c != far)
        return donors

    def _chain_cuts(self, mol: Any) -> list[_Cut]:
        cuts = []
        for bond in mol.GetBonds():
            index = bond.GetIdx()
            if not bond.IsInRing() and np.isfinite(self._energy[index]):
                cuts.append(_Cut(self._reach(self._ends[index][0], (index,)), (index,), 0))
        return cuts

    def _ring_cuts(self, mol: Any) -> list[_Cut]:
        found: dict[int, _Cut] = {}
        everything = (1 << self.num_atoms) - 1
        rings = mol.GetRingInfo()
        for ring_atoms, ring_bonds in zip(rings.AtomRings(), rings.BondRings(), strict=True):
            ring = sum(1 << atom for atom in ring_atoms)
            breakable = [b for b in ring_bonds if np.isfinite(self._energy[b])]
            for pair in combinations(breakable, 2):
                side = self._reach(self._ends[pair[0]][0], pair)
                # Two bonds of a ring do not part the molecule where one of them is shared with another ring.
                if all((side >> self._ends[b][0] & 1) != (side >> self._ends[b][1] & 1) for b in pair):
                    found.setdefault(min(side, everything ^ side), _Cut(side, pair, ring))
        return list(found.values())

    def _reach(self, start: int, removed: Sequence[int]) -> int:
        """Return the atoms connected to ``start`` without the removed bonds."""
        neighbours = self._neighbours
        blocked: dict[int, int] = {}
        for bond in removed:
            a, b = self._ends[bond]
            blocked[a] = blocked.get(a, 0) | 1 << b
            blocked[b] = blocked.get(b, 0) | 1 << a
        reached = frontier = 1 << start
        while frontier:
            atom = (frontier & -frontier).bit_length() - 1
            frontier &= frontier - 1
            new = neighbours[atom] & ~blocked.get(atom, 0) & ~reached
            reached |= new
            frontier |= new
        return reached

    def _find_extrusions(self, mol: Any) -> list[tuple[int, int, int, float]]:
        """Return (atoms that leave, the two atoms that join, energy) of each loss of CO or SO2 from the middle."""
        from rdkit import Chem

        found = []
        for smarts, energy in (
            ("[#6X3;r5,r6,r7;R1](=[OX1])(@[*])@[*]", CO_FROM_RING),
            ("[c;R1]([OX2H1])(@[*])@[*]", CO_FROM_PHENOL),
            ("[SX4;R0](=[OX1])(-[*])(-[*])=[OX1]", SO2_FROM_CHAIN),
        ):
            for match in mol.GetSubstructMatches(Chem.MolFromSmarts(smarts)):
                leaving = 1 << match[0] | 1 << match[1] | (1 << match[4] if len(match) > 4 else 0)
                found.append((leaving, match[2], match[3], energy))
        return found

    def membership(self, parts: Sequence[int]) -> np.ndarray:
        """Return which atoms are in each part, a bool array of shape (n_parts, n_atoms)."""
        size = (self.num_atoms + 7) // 8
        packed = np.frombuffer(b"".join(part.to_bytes(size, "little") for part in parts), np.uint8).reshape(-1, size)
        return np.unpackbits(packed, axis=1, count=self.num_atoms, bitorder="little").astype(bool)

    def open_valences(self, atoms: np.ndarray) -> np.ndarray:
        """Return the valences of each part (rows of ``atoms``) to the rest of the molecule, int64, shape (n_parts,)."""
        if not self._ends:
            return np.zeros(len(atoms), np.int64)
        ends = np.array(self._ends)
        return (atoms[:, ends[:, 0]] ^ atoms[:, ends[:, 1]]).astype(np.int64) @ self._orders

    def num_hydrogens(self, atoms: np.ndarray, shift: np.ndarray, *, charged: bool) -> np.ndarray:
        """Return the hydrogens of each part as an ion or as a neutral, with ``shift`` more than in the molecule."""
        members = atoms.astype(np.int64)
        charge = self.polarity if charged else 0
        return np.asarray(members @ (self._atom_h - self._charges) + shift + charge)

    def compositions(self, atoms: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Return the atoms of each element in each ion, int64 of shape (n_ions, n_elements)."""
        counts = atoms.astype(np.int64) @ self._is_element
        counts[:, self.elements.index("H")] += self.num_hydrogens(atoms, shift, charged=True)
        return np.asarray(counts)

    def best_site(self, atoms: np.ndarray) -> np.ndarray:
        """Return the stability of the charge at the best group of each part, in eV, float64 of shape (n_parts,)."""
        return np.where(atoms, self._site, -np.inf).max(1, initial=-np.inf)

    def breaks(self, parts: Sequence[tuple[int, int]]) -> Breaks:
        """Take each part in two in all ways, either side kept; a part is (atoms, atoms that left from its middle)."""
        rows: list[tuple[Any, ...]] = []
        for source, (part, extruded) in enumerate(parts):
            seen: set[int] = set()
            for cut in self._cuts:
                inside = part & cut.side
                if not inside or inside == part or inside in seen:
                    continue
                crossed = tuple(b for b in cut.bonds if part >> self._ends[b][0] & part >> self._ends[b][1] & 1)
                if not crossed:
                    continue
                if cut.ring and (len(crossed) == 2 or cut.ring & extruded) and cut.ring & ~part & ~extruded:
                    continue  # an open ring falls apart at one bond: that break is listed by itself
                if cut.ring & extruded and len(crossed) == 1:
                    continue  # the other side of the ring is closed by the bond that formed
                seen.add(inside)
                seen.add(part ^ inside)
                for end, side in self._sides(crossed).items():
                    kept, lost = (inside, part ^ inside) if inside >> end & 1 else (part ^ inside, inside)
                    # The bond that formed where atoms left from the middle counts where both its ends are kept.
                    joined = bool(extruded) and all(kept >> atom & 1 for atom in self._joined_by[extruded])
                    rows.append((source, kept, lost, extruded if joined else 0, int(joined), *side))
            if not extruded:
                for leaving, a, b, energy in self._extrusions:
                    if leaving & part == leaving and part >> a & part >> b & 1:
                        rows.append(
                            (source, part ^ leaving, leaving, leaving, 1, 0, energy, np.inf, -np.inf, -1, True, True)
                        )
        return _as_breaks(rows)

    def _sides(self, crossed: tuple[int, ...]) -> dict[int, tuple[Any, ...]]:
        """Return, for either end of the first bond, what a break across ``crossed`` is with that end's side kept."""
        if crossed in self._known_sides:
            return self._known_sides[crossed]
        costs = sorted((self._energy[b] for b in crossed), reverse=True)
        energy = costs[0] + RING_SECOND_BOND * sum(costs[1:])
        order = int(sum(self._orders[b] for b in crossed))
        homolysis = self._homolysis[crossed[0]] if len(crossed) == 1 else np.inf
        first, second = self._ends[crossed[0]]
        side = self._reach(first, crossed) if len(crossed) == 2 else 1 << first
        in_ring = len(crossed) == 2
        sides = {}
        for near, is_kept in ((first, lambda atom: side >> atom & 1), (second, lambda atom: not side >> atom & 1)):
            pairs = [self._ends[b] if is_kept(self._ends[b][0]) else self._ends[b][::-1] for b in crossed]
            stability, end = max((self._end_stability[kept], kept) for kept, _ in pairs)
            donor_kept = in_ring or self._donors[pairs[0]]
            donor_lost = in_ring or self._donors[pairs[0][::-1]]
            sides[near] = (order, energy, homolysis, stability, end, donor_kept, donor_lost)
        self._known_sides[crossed] = sides
        return sides


def _as_breaks(rows: list[tuple[Any, ...]]) -> Breaks:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 12
    return Breaks(
        source=np.array(columns[0], np.int64),
        kept=list(columns[1]),
        lost=list(columns[2]),
        extruded=list(columns[3]),
        num_joined=np.array(columns[4], np.int64),
        num_broken=np.array(columns[5], np.int64),
        energy=np.array(columns[6], np.float64),
        homolysis=np.array(columns[7], np.float64),
        charge_stability=np.array(columns[8], np.float64),
        end=np.array(columns[9], np.int64),
        donor_kept=np.array(columns[10], bool),
        donor_lost=np.array(columns[11], bool),
    )


def kekule_orders(mol: Any) -> np.ndarray:
    """Return the order of each bond in one Kekule structure, an int64 array of shape (n_bonds,)."""
    from rdkit import Chem

    kekulized = Chem.Mol(mol)
    Chem.Kekulize(kekulized, clearAromaticFlags=True)
    return np.array([round(bond.GetBondTypeAsDouble()) for bond in kekulized.GetBonds()], np.int64)


def settle_aromaticity(mol: Any, orders: np.ndarray) -> Any:
    """Return a copy in which rings with an exocyclic C=O are not aromatic: pyranones and uracils open like any enone.

    RDKit counts them as aromatic; in collision-induced dissociation they undergo retro-Diels-Alder cleavage.
    """
    from rdkit import Chem

    settled = Chem.Mol(mol)
    Chem.Kekulize(settled, clearAromaticFlags=True)
    rings = mol.GetRingInfo()
    for ring_atoms, ring_bonds in zip(rings.AtomRings(), rings.BondRings(), strict=True):
        bonds = [mol.GetBondWithIdx(b) for b in ring_bonds]
        exocyclic = any(
            orders[bond.GetIdx()] == 2 and bond.GetOtherAtomIdx(atom) not in ring_atoms
            and bond.GetOtherAtom(mol.GetAtomWithIdx(atom)).GetAtomicNum() in (7, 8, 16)
            for atom in ring_atoms
            for bond in mol.GetAtomWithIdx(atom).GetBonds()
        )  # fmt: skip
        if exocyclic or not all(bond.GetIsAromatic() for bond in bonds):
            continue
        for bond in ring_bonds:
            settled.GetBondWithIdx(bond).SetBondType(Chem.BondType.AROMATIC)
            settled.GetBondWithIdx(bond).SetIsAromatic(True)
        for atom in ring_atoms:
            settled.GetAtomWithIdx(atom).SetIsAromatic(True)
    return settled

"""Predict the fragments of a molecule in collision-induced dissociation by systematic bond disconnection.

The method is that of the combinatorial fragmenters (MetFrag: Wolf et al., BMC Bioinformatics 2010, 11:148; MAGMa:
Ridder et al., Rapid Commun. Mass Spectrom. 2012, 26:2461): a fragment is a connected set of heavy atoms with its
hydrogens. Every single or double bond outside rings, and every two bonds of one ring, are broken; either part may keep
the charge, with the hydrogen shifts that leave ion and neutral with closed shells (and the few radical losses that are
common). CO and SO2 may also leave from the middle. This is done twice. Then a cascade gives intensities: every ion, the
precursor first, survives or breaks at rates that fall with the energy of the bond, and rise with the stability of the
charge in the fragment and with the collision energy per size. The intensities rank fragments; they are no measurement
and no substitute for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .adducts import ELECTRON_MASS
from .fragmentation_skeleton import Breaks, Skeleton

NUM_EXPANDED = 48
"""How many first fragments (those of the lowest energy) are broken again."""

# How the temperature of the cascade (eV) follows the collision energy, scaled to m/z 500; the logarithm of the time for
# which ions fragment, in units of the rate constant at no barrier; the share of the temperature that a fragment keeps.
TEMPERATURE_AT_REST = 0.2
TEMPERATURE_PER_EV = 0.006
LOG_TIME = 4.5
COOLING = 0.6
# What a step costs beside its bonds (eV), and the share of the charge's stability that lowers it. These and the four
# above were set by a coarse search on measured Orbitrap and Q-TOF spectra of some hundred molecules.
CHARGE_WEIGHT = 0.35
HYDROGEN_SHIFT = 0.1
NO_DONOR = 1.6


@dataclass(frozen=True)
class FragmentPeak:
    """A predicted peak: m/z in Da per charge, intensity relative to the base peak, formula of the ion (``C7H7O+``)."""

    mz: float
    intensity: float
    formula: str


@dataclass(frozen=True, eq=False)
class FragmentationGraph:
    """The ions of one molecule within two steps, and the steps; made by `fragmentation_graph`.

    Attributes
    ----------
    elements : tuple of str
        Columns of ``compositions``, in Hill order.
    compositions : int array of shape (n_formulas, n_elements)
    mz : float64 array of shape (n_formulas,)
        In Da per charge.
    charge : int
        +1 or -1.
    ion_formula : int array of shape (n_ions,)
        Row of ``compositions`` of each ion; ion 0 is the precursor.
    parent, child : int arrays of shape (n_steps,)
        Ions.
    energy : float64 array of shape (n_steps,)
        In eV.
    depth : int array of shape (n_steps,)
        1 for a step from the precursor, 2 for a step from a fragment.
    """

    elements: tuple[str, ...]
    compositions: np.ndarray = field(repr=False)
    mz: np.ndarray = field(repr=False)
    charge: int
    ion_formula: np.ndarray = field(repr=False)
    parent: np.ndarray = field(repr=False)
    child: np.ndarray = field(repr=False)
    energy: np.ndarray = field(repr=False)
    depth: np.ndarray = field(repr=False)

    @property
    def precursor_mz(self) -> float:
        """m/z of the precursor, in Da per charge."""
        return float(self.mz[self.ion_formula[0]])

    def formula(self, row: int) -> str:
        """Return the formula at a row of ``compositions``, with its charge: ``C7H7O+``."""
        counts = zip(self.elements, self.compositions[row], strict=True)
        text = "".join(symbol + (str(n) if n > 1 else "") for symbol, n in counts if n)
        return text + ("+" if self.charge > 0 else "-")

    def abundances(self, collision_energy: float) -> np.ndarray:
        """Return each formula's share of the ion current at ``collision_energy`` (eV), of shape (n_formulas,)."""
        # What drives dissociation is the energy per degree of freedom: 20 eV do less to a larger ion. Hence the scaling
        # to m/z 500, the same as that of a normalised collision energy.
        scaled = max(collision_energy, 0.0) * 500.0 / self.precursor_mz
        temperature = TEMPERATURE_AT_REST + TEMPERATURE_PER_EV * scaled
        num_ions = len(self.ion_formula)
        current: np.ndarray = np.zeros(num_ions)
        settled: np.ndarray = np.zeros(num_ions)
        current[0] = 1.0
        for depth, cooling in ((1, 1.0), (2, COOLING)):
            steps = self.depth == depth
            parent, child = self.parent[steps], self.child[steps]
            rates = np.exp(LOG_TIME - self.energy[steps] / (temperature * cooling))
            total = np.bincount(parent, rates, minlength=num_ions)
            settled += current / (1.0 + total)
            per_rate = current / (1.0 + total)  # what breaks, current * total / (1 + total), divided by the total rate
            current = np.bincount(child, per_rate[parent] * rates, minlength=num_ions)
        return np.bincount(self.ion_formula, settled + current, minlength=len(self.mz))

    def peaks(
        self, collision_energy: float, *, min_intensity: float = 0.002, max_peaks: int = 100, min_mz: float = 40.0
    ) -> list[FragmentPeak]:
        """Return the spectrum at ``collision_energy`` (eV), ascending in m/z; ions of one formula are one peak.

        Parameters
        ----------
        collision_energy : float
            In eV, laboratory frame.
        min_intensity : float
            Relative to the base peak (1.0); weaker peaks are left out.
        max_peaks : int
            The most intense are kept.
        min_mz : float
            Where the scan starts, in Da per charge.
        """
        amounts: np.ndarray = np.where(self.mz >= min_mz, self.abundances(collision_energy), 0.0)
        if not amounts.any():
            return []
        amounts = amounts / amounts.max()
        rows = np.flatnonzero(amounts >= min_intensity)
        rows = rows[np.lexsort((self.mz[rows], -amounts[rows]))][:max_peaks]
        rows = rows[np.argsort(self.mz[rows], kind="stable")]
        return [FragmentPeak(float(self.mz[r]), float(amounts[r]), self.formula(r)) for r in rows.tolist()]


@dataclass(frozen=True, eq=False)
class _Ions:
    """Distinct ions. ``shift``: hydrogens against the same atoms in the molecule, the charging proton not counted.

    ``unsaturated_at``: the atom where a bond broke and a double bond or charge replaced it; ``charged_at``: the atom
    that a broken bond left charged, with ``stability`` in eV; -1 for none.
    """

    masks: list[int]
    extruded: list[int]
    shift: np.ndarray
    unsaturation: np.ndarray
    unsaturated_at: np.ndarray
    charged_at: np.ndarray
    stability: np.ndarray

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True, eq=False)
class _Steps:
    parent: np.ndarray
    child: np.ndarray
    energy: np.ndarray


def fragmentation_graph(mol: Any, polarity: int) -> FragmentationGraph:
    """Break a molecule in two steps and return its ions with one charge of ``polarity``.

    The precursor is [M+H]+ or [M-H]-; or [M]+ or [M]- for a molecule that carries this one charge itself.

    Parameters
    ----------
    mol : rdkit.Chem.Mol
        One connected molecule, hydrogens implicit, no isotope labels.
    polarity : int
        +1 or -1.

    Raises
    ------
    ValueError
        The molecule is empty or in several parts, has isotope labels, or has no hydrogen to give up.
    """
    skeleton = Skeleton(mol, polarity)
    precursor = _Ions(
        masks=[(1 << skeleton.num_atoms) - 1],
        extruded=[0],
        shift=np.zeros(1, np.int64),
        unsaturation=np.zeros(1),
        unsaturated_at=np.full(1, -1),
        charged_at=np.full(1, -1),
        stability=np.full(1, -np.inf),
    )
    first, steps_1 = _break(skeleton, precursor, np.zeros(1, np.int64))
    lowest = np.full(len(first), np.inf)
    np.minimum.at(lowest, steps_1.child, steps_1.energy)
    second, steps_2 = _break(skeleton, first, np.argsort(lowest, kind="stable")[:NUM_EXPANDED])

    atoms = skeleton.membership(precursor.masks + first.masks + second.masks)
    shift = np.concatenate([precursor.shift, first.shift, second.shift])
    compositions = skeleton.compositions(atoms, shift)
    compositions, ion_formula = np.unique(compositions, axis=0, return_inverse=True)
    return FragmentationGraph(
        elements=skeleton.elements,
        compositions=compositions,
        mz=compositions @ skeleton.element_masses - polarity * ELECTRON_MASS,
        charge=polarity,
        ion_formula=ion_formula.reshape(-1),
        parent=np.concatenate([steps_1.parent, steps_2.parent + 1]),
        child=np.concatenate([steps_1.child + 1, steps_2.child + 1 + len(first)]),
        energy=np.concatenate([steps_1.energy, steps_2.energy]),
        depth=np.repeat([1, 2], [len(steps_1.parent), len(steps_2.parent)]),
    )


# For the order of the broken bonds together: how the double bonds that replace them fall to the kept and to the lost
# part (halves are two radicals), and how many hydrogens have to cross for it. Order 0 is a loss from the middle.
_OUTCOMES: dict[int, tuple[tuple[float, float, int], ...]] = {
    0: ((0.0, 0.0, 0),),
    1: ((1.0, 0.0, 0), (0.0, 1.0, 1), (0.5, 0.5, 0)),
    2: ((1.0, 1.0, 0), (2.0, 0.0, 2), (0.0, 2.0, 2)),
    3: ((1.0, 2.0, 1), (2.0, 1.0, 1)),
    4: ((2.0, 2.0, 1),),
}


def _break(skeleton: Skeleton, ions: _Ions, chosen: np.ndarray) -> tuple[_Ions, _Steps]:
    """Break every ion of ``chosen`` once, in all ways; return the distinct products and the cheapest step to each."""
    breaks = skeleton.breaks([(ions.masks[i], ions.extruded[i]) for i in chosen])
    kept, lost = skeleton.membership(breaks.kept), skeleton.membership(breaks.lost)
    valences = skeleton.open_valences(kept) - 2 * breaks.num_joined
    state = _Before.of(skeleton, ions, chosen[breaks.source], kept)
    parts = [
        _outcome(skeleton, breaks, state, kept, lost, valences, order, outcome)
        for order, outcomes in _OUTCOMES.items()
        for outcome in outcomes
    ]
    row, shift, unsaturation, energy, stability, charged_at = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    products: dict[tuple[int, int, int], int] = {}
    product = np.array(
        [
            products.setdefault((breaks.kept[r], breaks.extruded[r], s), len(products))
            for r, s in zip(row.tolist(), shift.tolist(), strict=True)
        ],
        np.int64,
    )
    # Of several ways from one ion to another the cheapest counts; of several histories of a product, its cheapest.
    order = np.lexsort((energy, product, state.parent[row]))
    step = np.stack([state.parent[row][order], product[order]])
    order = order[np.append(True, (step[:, 1:] != step[:, :-1]).any(0))[: len(order)]]
    cheapest = order[np.lexsort((energy[order], product[order]))]
    cheapest = cheapest[np.append(True, np.diff(product[cheapest]) != 0)[: len(cheapest)]]
    ions_out = _Ions(
        masks=[breaks.kept[r] for r in row[cheapest]],
        extruded=[breaks.extruded[r] for r in row[cheapest]],
        shift=shift[cheapest],
        unsaturation=unsaturation[cheapest],
        unsaturated_at=np.where(breaks.end[row[cheapest]] >= 0, breaks.end[row[cheapest]], -1),
        charged_at=charged_at[cheapest],
        stability=stability[cheapest],
    )
    return ions_out, _Steps(state.parent[row[order]], product[order], energy[order])


@dataclass(frozen=True, eq=False)
class _Before:
    """What the kept part of each break brings along from the ion that breaks."""

    parent: np.ndarray
    shift: np.ndarray
    unsaturation_kept: np.ndarray
    unsaturation_lost: np.ndarray
    charged_at: np.ndarray
    stability: np.ndarray
    best_site: np.ndarray

    @classmethod
    def of(cls, skeleton: Skeleton, ions: _Ions, parent: np.ndarray, kept: np.ndarray) -> _Before:
        def in_kept(atom: np.ndarray) -> np.ndarray:
            return (atom >= 0) & kept[np.arange(len(kept)), atom]

        stays = in_kept(ions.unsaturated_at[parent])
        charge_stays = in_kept(ions.charged_at[parent])
        return cls(
            parent=parent,
            shift=ions.shift[parent],
            unsaturation_kept=np.where(stays, ions.unsaturation[parent], 0.0),
            unsaturation_lost=np.where(stays, 0.0, ions.unsaturation[parent]),
            charged_at=np.where(charge_stays, ions.charged_at[parent], -1),
            stability=np.where(charge_stays, ions.stability[parent], -np.inf),
            best_site=skeleton.best_site(kept),
        )


def _outcome(
    skeleton: Skeleton,
    breaks: Breaks,
    before: _Before,
    kept: np.ndarray,
    lost: np.ndarray,
    valences: np.ndarray,
    order: int,
    outcome: tuple[float, float, int],
) -> tuple[np.ndarray, ...]:
    """Return break, shift, unsaturation, energy, stability, charged atom of the breaks that can have one outcome."""
    in_kept, in_lost, moved = outcome
    radical = in_kept == 0.5
    unsaturation = before.unsaturation_kept + in_kept
    shift = np.rint(valences - 2 * unsaturation).astype(np.int64)
    energy = breaks.homolysis if radical else breaks.energy + moved * HYDROGEN_SHIFT
    if in_lost > in_kept:
        energy = energy + np.where(breaks.donor_lost, 0.0, NO_DONOR)
    # The charge sits on the best group of the fragment or where an earlier break left it; to form a double bond
    # meanwhile, the fragment must give a hydrogen. Or the broken bond itself leaves the charge: a cation on the part
    # that loses the electrons of the bond, an anion on the part that keeps them.
    stability = np.maximum(before.best_site, before.stability)
    charged_at = np.where(before.stability >= before.best_site, before.charged_at, -1)
    if in_kept > in_lost:
        stability = stability - np.where(breaks.donor_kept, 0.0, NO_DONOR / CHARGE_WEIGHT)
    if order == 1 and in_kept == (1.0 if skeleton.polarity > 0 else 0.0):
        charged_at = np.where(breaks.charge_stability > stability, breaks.end, charged_at)
        stability = np.maximum(stability, breaks.charge_stability)
    lone_lost = (lost.sum(1) == 1) & (before.unsaturation_lost + in_lost >= 1)  # a double bond needs two atoms
    possible = (breaks.num_broken == order) & np.isfinite(energy) & ~lone_lost
    possible &= skeleton.num_hydrogens(kept, shift, charged=True) >= 0
    possible &= skeleton.num_hydrogens(lost, before.shift - shift, charged=False) >= 0
    row = np.flatnonzero(possible)
    energy = energy - CHARGE_WEIGHT * stability
    return row, shift[row], unsaturation[row], energy[row], stability[row], charged_at[row]

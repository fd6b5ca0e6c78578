"""Whether the precursor m/z is that of the molecule as the stated ion; what is mended, and what is told, where not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from .adducts import Adduct, adduct_mz, atoms_lost, normalise_adduct
from .ion import Ion
from .labels import Labels, with_structure
from .molecules import atom_counts, components, formula_mass_and_charge, standardise

LARGEST_MZ = 1e6
"""In Da per charge; a number above it is no m/z."""

_COMMON_ADDUCTS = {
    (0, 1): "[M+H]+ [M+Na]+ [M+NH4]+ [M+K]+ [M-H+2Na]+ [M+H-H2O]+ [M+H-2H2O]+ [M+H-NH3]+ [M+H+CH3CN]+ "
    "[M+H+CH3OH]+ [M+2H]2+ [M+H+Na]2+ [M+H+NH4]2+ [M+3H]3+ [2M+H]+ [2M+Na]+ [2M+NH4]+ [2M+K]+",
    (0, -1): "[M-H]- [M+HCOO]- [M+CH3COO]- [M+Cl]- [M+Br]- [M+CF3COO]- [M-2H+Na]- [M-2H+K]- [M-H-H2O]- [M-2H]2- "
    "[M-3H]3- [2M-H]- [2M+HCOO]- [2M+CH3COO]- [2M-2H+Na]- [3M-H]-",
    (1, 1): "[M]+ [M+H]2+ [M+Na]2+",
    (1, -1): "[M-2H]- [M-H+HCOO]- [M-H+CH3COO]- [M-H+Cl]-",
    (2, 1): "[M]2+ [M-H]+",
    (-1, -1): "[M]- [M-H]2-",
    (-1, 1): "[M+2H]+ [M+H+Na]+ [M+2Na]+",
    (-2, -1): "[M]2- [M+H]-",
}
"""The ions that are looked for, by the charge of the molecule as drawn and the polarity. All have the electrons that
their protons and ions account for: a radical ``[M]+`` of a neutral molecule is never guessed."""

_LARGEST_MASS_DEFECT = 1.1e-3  # of an alkane, the difference of exact and nominal mass, as a share of it
_WEAKEST_EVIDENCE = 0.25
"""In Da. A number that is no better than this agrees by chance with some common adduct of every twentieth molecule: an
adduct that is stated, and is one that the molecule can form, is not replaced for it."""
_DIFFER_BY_CH2 = {"[M+HCOO]-", "[M+CH3COO]-"}
_UNIT_RESOLUTION = re.compile(
    r"(?<![a-z])(?:q{2,3}|qqq|tq|triple|q|qq?it|it|ltq|(?:ion|q|linear)[ -]?trap)(?![a-z])|quadrupole(?!.*tof)",
    re.IGNORECASE,
)
_HIGH_RESOLUTION = re.compile(r"tof|ft|orbitrap|exactive|exploris|astral|icr", re.IGNORECASE)
_HALOGEN_SPACING, _CARBON_SPACING = 1.9975, 1.00335  # 37Cl-35Cl is 1.99705 Da, 81Br-79Br 1.99795 Da, 13C-12C 1.00335 Da
_HALOGENS = re.compile(r"(?:Cl|Br)(\d*)")


@dataclass(frozen=True)
class MetadataOptions:
    """How statements about a spectrum are checked against one another.

    Attributes
    ----------
    mass_mismatch : 'repair', 'flag' or 'drop'
        What is done where the precursor m/z is not that of the molecule as the stated adduct. 'repair' mends what one
        explanation alone accounts for (see `reconcile`) and flags the rest ('precursor-mass'); 'flag' mends nothing;
        'drop' mends what it can and drops the rest.
    mass_tolerance, mass_tolerance_ppm : float
        In Da and ppm, the larger counts: the difference that is still agreement. The rounding of the number as written
        comes on top: half a unit of its last digit; for a whole number 0.5 Da, or 0.11% of it for heavy ions, whose
        nominal mass lies that far from the exact one (at most 0.9 Da: one hydrogen has to show).
    unit_resolution_tolerance : float
        In Da, for precursors of ion traps and quadrupoles.
    repair_tolerance, repair_tolerance_ppm : float
        The same for the evidence of a repair, which has to be tighter.
    """

    mass_mismatch: Literal["repair", "flag", "drop"] = "repair"
    mass_tolerance: float = 0.01
    mass_tolerance_ppm: float = 20.0
    unit_resolution_tolerance: float = 0.5
    repair_tolerance: float = 0.005
    repair_tolerance_ppm: float = 10.0

    def __post_init__(self) -> None:
        if self.mass_mismatch not in ("repair", "flag", "drop"):
            raise ValueError(f"mass_mismatch is {self.mass_mismatch!r}; it must be repair, flag or drop")
        for name in ("mass_tolerance", "unit_resolution_tolerance", "repair_tolerance"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1 Da")
        for name in ("mass_tolerance_ppm", "repair_tolerance_ppm"):
            if not 0.0 <= getattr(self, name) <= 1000.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1000 ppm")


DEFAULT_METADATA = MetadataOptions()


@dataclass(frozen=True, slots=True)
class Statement:
    """A precursor m/z as stated, with what limits its accuracy.

    Attributes
    ----------
    mz : float
        In Da per charge.
    num_decimals : int
        Digits behind the point, trailing noughts aside; 0 for a whole number.
    unit_resolution : bool
        Whether the instrument does not resolve better than about 1 Da.
    """

    mz: float
    num_decimals: int
    unit_resolution: bool

    def precise_tolerance(self, dalton: float, ppm: float) -> float | None:
        """Return the difference in Da that is still agreement; None where the number cannot tell H from 13C."""
        return max(dalton, ppm * 1e-6 * self.mz, 0.5 * 10.0**-self.num_decimals) if self.num_decimals > 1 else None

    def tolerance(self, dalton: float, ppm: float, unit_resolution: float) -> float:
        """Return the difference in Da that is still agreement, whatever the number is like."""
        tolerance = max(dalton, ppm * 1e-6 * self.mz, 0.5 * 10.0**-self.num_decimals)
        if self.num_decimals == 0:
            tolerance = max(tolerance, min(0.9, _LARGEST_MASS_DEFECT * self.mz))
        return max(tolerance, unit_resolution) if self.unit_resolution else tolerance


@lru_cache(maxsize=1024)
def has_unit_resolution(instrument_type: str | None, instrument: str | None) -> bool:
    """Whether an instrument selects precursors in an ion trap or a quadrupole and measures them no better than that."""
    text = instrument_type or instrument or ""
    return _HIGH_RESOLUTION.search(text) is None and _UNIT_RESOLUTION.search(text) is not None


def computed_precursor(labels: Labels, ion: Ion) -> tuple[float, Labels] | None:
    """Return the precursor m/z that structure and adduct imply, where nothing contradicts, and the labels it is for.

    Of a salt or a hydrate the heaviest part counts, if it is heavier than all others together.
    """
    molecule, adduct = labels.molecule, ion.adduct
    if molecule is None or adduct is None or ion.conflict:
        return None
    if "." in molecule.smiles:
        parts = components(molecule.smiles)
        if not parts or 2 * parts[0].exact_mass <= molecule.exact_mass:
            return None
        molecule = parts[0]
        labels = with_structure(labels, molecule, "counter-ion-removed")
    is_the_ion_itself = adduct.name.startswith("[M]") and adduct.charge == molecule.charge
    if molecule.charge and not is_the_ion_itself:
        return None
    mz = adduct_mz(molecule.exact_mass, adduct)
    return (mz, labels) if 0.0 < mz < LARGEST_MZ else None


def reconcile(
    stated: Statement, ion: Ion, labels: Labels, mz: np.ndarray, options: MetadataOptions
) -> tuple[float, Ion, Labels, frozenset[str]]:
    """Return precursor m/z, ion and labels as they explain one another, and the codes of what does not.

    Where the stated adduct of the stated molecule has the stated m/z, all is well. Otherwise these are tried in turn,
    each to the tolerance of repairs, and the first that holds is taken:

    1. the stated adduct of one part of a salt or hydrate ('counter-ion-removed');
    2. the stated adduct of the structure that the InChI gives, where the SMILES gives another ('structure-from-inchi');
    3. exactly one other common adduct of the polarity, of the molecule or one of its parts, which have the atoms that
       it loses ('adduct-from-mass'); a number that is good to no more than 0.25 Da does not replace the stated adduct
       of a neutral molecule;
    4. the stated number is the mass of the neutral molecule, and the spectrum has a peak at the m/z of the stated
       adduct but none at that number ('precursor-mz-from-neutral-mass');
    5. the ion is another isotopic peak than the one of the commonest isotopes, as is usual for several Cl or Br; then
       nothing is mended, and the flag is 'isotope-precursor' rather than 'precursor-mass'.

    4 and 5 need a number of two decimals or more. An adduct that is missing is found as in 3. An adduct of the other
    polarity than the ion mode is believed if the mass speaks for it ('polarity-from-adduct'); between ``[M]+`` and
    ``[M]-``, which differ by two electrons, only the charge of the structure can speak.

    Parameters
    ----------
    mz : float array of shape (n_peaks,)
        The peaks as written, in Da per charge.
    """
    whole = labels.molecule
    weight = (whole.exact_mass, whole.charge) if whole else formula_mass_and_charge(labels.formula or "")
    if weight is None:
        return stated.mz, ion, labels, frozenset()
    loose = stated.tolerance(options.mass_tolerance, options.mass_tolerance_ppm, options.unit_resolution_tolerance)
    adduct = ion.adduct
    if adduct is not None and abs(adduct_mz(weight[0], adduct) - stated.mz) <= loose:
        if not ion.conflict or adduct.name[1:].partition("]")[0].lstrip("0123456789") != "M":
            return stated.mz, _verified(ion, adduct) if ion.flags else ion, labels, frozenset()
        # [M]+ and [M]- differ by two electrons, which no mass here resolves: the charge of the structure decides
        if adduct.charge == weight[1]:
            return stated.mz, _verified(ion, adduct), labels, frozenset()
        if weight[1] == 0 or options.mass_mismatch == "flag":
            return stated.mz, ion, labels, frozenset()
    if options.mass_mismatch != "flag":
        tight = stated.tolerance(
            options.repair_tolerance, options.repair_tolerance_ppm, options.unit_resolution_tolerance
        )
        found = _explanation(stated.mz, min(tight, loose), ion, labels, weight)
        if found is not None:
            return stated.mz, *found, frozenset()
        precise = stated.precise_tolerance(options.repair_tolerance, options.repair_tolerance_ppm)
        if adduct is not None and precise and _is_neutral_mass(stated.mz, precise, weight, adduct, mz):
            repaired = replace(ion, repairs=ion.repairs | {"precursor-mz-from-neutral-mass"})
            return adduct_mz(weight[0], adduct), repaired, labels, frozenset()
    if adduct is None:
        return stated.mz, ion, labels, frozenset()
    excess = abs(adduct.charge) * (stated.mz - adduct_mz(weight[0], adduct))
    precise = stated.precise_tolerance(options.mass_tolerance, options.mass_tolerance_ppm)
    if precise and _is_isotope_peak(excess, precise, labels.formula or "", adduct.num_molecules):
        return stated.mz, ion, labels, frozenset({"isotope-precursor"})
    return stated.mz, ion, labels, frozenset({"precursor-mass"})


def _explanation(
    mz: float, tolerance: float, ion: Ion, labels: Labels, weight: tuple[float, int]
) -> tuple[Ion, Labels] | None:
    """Return the ion and the labels that account for ``mz``, if there is one way to."""
    parts = components(labels.molecule.smiles) if labels.molecule else ()
    if ion.adduct is not None:
        fitting = [p for p in parts if abs(adduct_mz(p.exact_mass, ion.adduct) - mz) <= tolerance]
        if len(fitting) == 1:
            return _verified(ion, ion.adduct), with_structure(labels, fitting[0], "counter-ion-removed")
        second = standardise(labels.inchi) if labels.inchi else None
        if second is not None and abs(adduct_mz(second.exact_mass, ion.adduct) - mz) <= tolerance:
            return _verified(ion, ion.adduct), with_structure(labels, second, "structure-from-inchi")
    if tolerance > _WEAKEST_EVIDENCE and ion.adduct is not None and not ion.conflict and not weight[1] and not parts:
        return None
    ions = [
        (part, adduct)
        for part in parts or (labels.molecule,)
        for adduct in _candidates(part.charge if part else weight[1], ion)
        if abs(adduct_mz(part.exact_mass if part else weight[0], adduct) - mz) <= tolerance
        and has_atoms_to_lose(part.formula if part else labels.formula or "", adduct)
    ]
    if len(ions) != 1:
        return None
    part, adduct = ions[0]
    if parts and part is not None:
        labels = with_structure(labels, part, "counter-ion-removed")
    found = replace(ion, adduct=adduct, repairs=ion.repairs | {"adduct-from-mass"})
    return _verified(replace(found, conflict=False, flags=ion.flags - {"polarity-conflict"}), adduct), labels


def _candidates(charge: int, ion: Ion) -> Iterator[Adduct]:
    """Yield the common adducts of a molecule of this charge; all of the number of charges stated, if more than one."""
    for polarity in (ion.polarity,) if ion.polarity else (1, -1):
        for adduct in _common_adducts(charge, polarity):
            if ion.adduct is not None and {ion.adduct.name, adduct.name} == _DIFFER_BY_CH2:
                continue  # as likely an error of the structure
            if ion.adduct or ion.stated_charge in (None, 1, -1) or abs(adduct.charge) == abs(ion.stated_charge or 1):
                yield adduct


@lru_cache(maxsize=64)
def _common_adducts(charge: int, polarity: int) -> tuple[Adduct, ...]:
    adducts = [normalise_adduct(text) for text in _COMMON_ADDUCTS.get((charge, polarity), "").split()]
    return tuple(adduct for adduct in adducts if adduct is not None)


def _verified(ion: Ion, adduct: Adduct) -> Ion:
    """Return the ion with what the adduct says of polarity and charge, which the mass has confirmed."""
    repairs, flags = set(ion.repairs) - {"charge-from-adduct-sign"}, set(ion.flags) - {"adduct-unreadable"}
    if ion.conflict:
        repairs.add("polarity-from-adduct")
        flags.discard("polarity-conflict")
    if "charge-conflict" in flags:
        flags.discard("charge-conflict")
        if abs(ion.stated_charge or 0) != abs(adduct.charge):
            repairs.add("charge-from-adduct")
    return Ion(adduct, adduct.polarity, adduct.charge, ion.stated_charge, False, frozenset(repairs), frozenset(flags))


@lru_cache(maxsize=16384)
def has_atoms_to_lose(formula: str, adduct: Adduct) -> bool:
    """Whether the molecules have the atoms that the adduct takes from them: no water comes from a hydrocarbon."""
    atoms = atom_counts(formula)
    return all(count <= adduct.num_molecules * atoms.get(symbol, 0) for symbol, count in atoms_lost(adduct).items())


def _is_neutral_mass(mz: float, tolerance: float, weight: tuple[float, int], adduct: Adduct, peaks: np.ndarray) -> bool:
    if weight[1] or abs(weight[0] - mz) > tolerance or adduct.num_molecules * abs(adduct.charge) != 1:
        return False
    ion_mz = adduct_mz(weight[0], adduct)
    return bool((np.abs(peaks - ion_mz) <= tolerance).any() and not (np.abs(peaks - mz) <= tolerance).any())


def _is_isotope_peak(excess: float, tolerance: float, formula: str, num_molecules: int) -> bool:
    """Whether an ion is ``excess`` Da heavier because of one 13C, or of some of its Cl and Br."""
    num_halogens = num_molecules * sum(int(count or 1) for count in _HALOGENS.findall(formula))
    steps = round(excess / _HALOGEN_SPACING)
    if 1 <= steps <= num_halogens and abs(excess - steps * _HALOGEN_SPACING) <= tolerance:
        return True
    return abs(excess - _CARBON_SPACING) <= tolerance

"""By how much the molecules of two ions differ in mass, and a likely formula of that difference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from ..spectra.adducts import ELECTRON_MASS, normalise_adduct
from ..spectra.molecules import atom_counts
from ..spectra.pair_features import COMMON_DIFFERENCES, COMMON_TOLERANCE_DA

PROTON_MASS = 1.00782503223 - ELECTRON_MASS
"""In Da (NIST)."""

_MASSES = {
    "C": 12.0,
    "H": 1.00782503223,
    "Br": 78.9183376,
    "Cl": 34.968852682,
    "F": 18.99840316273,
    "N": 14.00307400443,
    "O": 15.99491461957,
    "P": 30.97376199842,
    "S": 31.9720711744,
}
"""Monoisotopic masses in Da (NIST), in Hill's order."""

_ODD = frozenset({"H", "Br", "Cl", "F", "N", "P"})
"""Elements of odd valence."""

_MOST = {"C": 9, "N": 3, "O": 6, "P": 1, "S": 1, "F": 3, "Cl": 2, "Br": 1}
"""Atoms of each element that a small formula has at most."""

_HEAVIEST_SMALL = 150.0
"""Da; among heavier formulas several are within the tolerance of any mass."""

_COST_OF_TWO, _COST_OF_SMALL, _COST_OF_ELEMENT = 2.0, 3.0, 1.0
"""By how many tolerances of error a sum of two common differences, any other formula, and each element of it that is
not C, H or O is less plausible than a common difference. Chosen by hand, not fitted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A formula by which two molecules may differ.

    Attributes
    ----------
    formula : str
        What the first has more, then behind a minus what it has less: ``CH2``, ``-H2O``, ``O-NH``.
    mass : float
        In Da.
    cost : float
        Less is more plausible: 0 for a common difference.
    lost : tuple of (str, int)
        What it has less: elements, and how many atoms.
    """

    formula: str
    mass: float
    cost: float
    lost: tuple[tuple[str, int], ...] = ()

    def reversed(self) -> Difference:
        """Return the difference of the same two molecules the other way round."""
        gained, _, lost = self.formula.partition("-")
        formula = f"{lost}-{gained}" if gained else lost
        return Difference(formula, -self.mass, self.cost, tuple(atom_counts(gained).items()))


def mass_differences(
    query_mz: np.ndarray,
    query_charge: np.ndarray,
    query_adduct: np.ndarray,
    hit_mz: np.ndarray,
    hit_charge: np.ndarray,
    hit_adduct: np.ndarray,
) -> np.ndarray:
    """Return the mass of the query's molecule minus that of the hit's, float64 of shape (n_pairs,); NaN if unknown.

    Parameters are those of `molecule_masses`.
    """
    query, hit = molecule_masses(query_mz, query_charge, query_adduct, hit_mz, hit_charge, hit_adduct)
    return query - hit


def molecule_masses(
    query_mz: np.ndarray,
    query_charge: np.ndarray,
    query_adduct: np.ndarray,
    hit_mz: np.ndarray,
    hit_charge: np.ndarray,
    hit_adduct: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the masses (Da) of the query's and the hit's molecules, float64 of shape (n_pairs,); NaN if unknown.

    The masses are those of the molecules of the adducts. Of two ions of one charge, of which one states no adduct, it
    is taken to be of the same kind as the other; where neither does, or the charges differ, to be (de)protonated.

    Parameters
    ----------
    query_mz, hit_mz : float64 arrays of shape (n_pairs,)
        Of the precursors.
    query_charge, hit_charge : int arrays of shape (n_pairs,)
        Signed; 0 where unknown, for which neither mass is known.
    query_adduct, hit_adduct : object arrays of str or None, of shape (n_pairs,)
        In normal form.
    """
    is_of_one_charge = query_charge == hit_charge
    first, second = (
        np.where((own == None) & is_of_one_charge, other, own)  # noqa: E711  elementwise
        for own, other in ((query_adduct, hit_adduct), (hit_adduct, query_adduct))
    )
    is_known = (query_charge != 0) & (hit_charge != 0)
    query = np.where(is_known, _neutral_masses(query_mz, query_charge, first), np.nan)
    return query, np.where(is_known, _neutral_masses(hit_mz, hit_charge, second), np.nan)


def _neutral_masses(mz: np.ndarray, charge: np.ndarray, adducts: np.ndarray) -> np.ndarray:
    texts = adducts.tolist()
    names = list(dict.fromkeys(texts))
    code = {name: number for number, name in enumerate(names)}
    of_row = np.array([code[name] for name in texts], np.int64)
    known = [normalise_adduct(name) for name in names]
    # m/z times charges, less what the adduct adds, for each molecule of it (`ionbed.spectra.adducts.neutral_mass`).
    constants = np.array(
        [
            (abs(a.charge), a.charge * ELECTRON_MASS - a.mass_shift, a.num_molecules) if a else (0.0, 0.0, 1.0)
            for a in known
        ]
    ).reshape(-1, 3)[of_row]
    is_known = np.array([a is not None for a in known], bool)[of_row]
    by_adduct = (mz * constants[:, 0] + constants[:, 1]) / constants[:, 2]
    return np.where(is_known, by_adduct, np.abs(charge) * mz - charge * PROTON_MASS)


def likely_differences(masses: np.ndarray, hit_formulas: Sequence[str | None]) -> list[str]:
    """Return the likely formula of each difference of two masses (Da); empty where none is, and where it is 0.

    It is a common difference (`ionbed.spectra.pair_features.COMMON_DIFFERENCES`), or a sum of two of them where no
    other small formula is as near as `COMMON_TOLERANCE_DA`. Others may be right all the same (`plausible_differences`);
    of those that would be shown besides, less than half were, among hits of open searches.

    Parameters
    ----------
    masses : float64 array of shape (n,)
        The query's minus the hit's; NaN where unknown.
    hit_formulas : sequence of str or None, of length n
        Of the hits' molecules: what one has not got, it cannot lose.
    """
    table = _table()
    size = np.abs(masses)
    begin = np.searchsorted(table.masses, size - COMMON_TOLERANCE_DA)
    end = np.searchsorted(table.masses, size + COMMON_TOLERANCE_DA)
    formulas = [""] * len(masses)
    has_likely = table.num_likely[end] > table.num_likely[begin]
    for place in np.flatnonzero(has_likely & (size > COMMON_TOLERANCE_DA)).tolist():
        mass = float(masses[place])
        found = _possible(range(begin[place], end[place]), mass < 0, hit_formulas[place])
        if not found:
            continue
        best = min(found, key=lambda entry: _rank(entry, mass, COMMON_TOLERANCE_DA))
        if best.cost == 0 or (best.cost <= _COST_OF_TWO and len(found) == 1):
            formulas[place] = best.formula
    return formulas


def plausible_differences(
    mass: float, hit_formula: str | None = None, *, tolerance_da: float = COMMON_TOLERANCE_DA
) -> list[Difference]:
    """Return the formulas within the tolerance of a difference of two masses (Da), the most plausible first.

    A common difference of two molecules of one kind (`ionbed.spectra.pair_features.COMMON_DIFFERENCES`) comes before a
    sum of two of them, and that before any other small formula of C, H, N, O, P, S, F, Cl and Br; of equals the one
    nearest in mass. All are of molecules whose electrons are in pairs.

    Parameters
    ----------
    mass : float
        The query's minus the hit's. A difference of 0 within the tolerance has no formula.
    hit_formula : str, optional
        Of the hit's molecule: what it has not got, it cannot lose.
    tolerance_da : float
    """
    if not np.isfinite(mass) or abs(mass) <= tolerance_da:
        return []
    begin, end = np.searchsorted(_table().masses, [abs(mass) - tolerance_da, abs(mass) + tolerance_da]).tolist()
    possible = _possible(range(begin, end), mass < 0, hit_formula)
    return sorted(possible, key=lambda entry: _rank(entry, mass, tolerance_da))


def _possible(places: range, is_loss: bool, hit_formula: str | None) -> list[Difference]:
    """Return what is possible of some entries of the table, or of the same the other way round."""
    entries = [_loss(place) for place in places] if is_loss else _table().entries[places.start : places.stop]
    if hit_formula is None:
        return entries
    there = _atoms_of(hit_formula)
    return [e for e in entries if not e.lost or all(there.get(symbol, 0) >= number for symbol, number in e.lost)]


def _rank(entry: Difference, mass: float, tolerance_da: float) -> tuple[float, str]:
    """Return what the most plausible has least of."""
    return entry.cost + abs(entry.mass - mass) / tolerance_da, entry.formula


class _Table(NamedTuple):
    """All formulas that are considered, by ascending mass (above 0).

    ``num_likely[i]`` counts the common differences, and sums of two of them, among the first i.
    """

    masses: np.ndarray
    entries: list[Difference]
    num_likely: np.ndarray


@cache
def _table() -> _Table:
    cheapest: dict[tuple[int, ...], float] = {}
    for atoms, cost in _considered():
        if sum(number for symbol, number in zip(_MASSES, atoms, strict=True) if symbol in _ODD) % 2:
            continue  # of two molecules whose electrons are all in pairs
        if _mass(atoms) < 0:
            atoms = tuple(-number for number in atoms)
        cheapest[atoms] = min(cost, cheapest.get(atoms, np.inf))
    entries = sorted(
        (Difference(_name(atoms), _mass(atoms), cost, _lost(atoms)) for atoms, cost in cheapest.items()),
        key=lambda entry: entry.mass,
    )
    is_likely = [entry.cost <= _COST_OF_TWO for entry in entries]
    return _Table(np.array([entry.mass for entry in entries]), entries, np.concatenate([[0], np.cumsum(is_likely)]))


@cache
def _loss(place: int) -> Difference:
    """Return an entry of the table the other way round; kept, since it is made of text."""
    return _table().entries[place].reversed()


def _considered() -> Iterator[tuple[tuple[int, ...], float]]:
    common = [_atoms(text) for text in COMMON_DIFFERENCES]
    yield from ((atoms, 0.0) for atoms in common)
    signed = [*common, *(tuple(-number for number in atoms) for atoms in common)]
    for first, second in itertools.product(common, signed):
        together = tuple(a + b for a, b in zip(first, second, strict=True))
        if abs(_mass(together)) > 0.5:
            yield together, _COST_OF_TWO
    yield from _small()


def _small() -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield small formulas that a molecule can gain or lose whole: no more hydrogen than its other atoms can bind."""
    others = [symbol for symbol in _MASSES if symbol != "H"]
    for numbers in itertools.product(*(range(_MOST[symbol] + 1) for symbol in others)):
        atoms = dict(zip(others, numbers, strict=True))
        heavy = sum(number * _MASSES[symbol] for symbol, number in atoms.items())
        if heavy > _HEAVIEST_SMALL:
            continue
        elements = sum(atoms[symbol] > 0 for symbol in others if symbol not in "CO")
        most = 2 * atoms["C"] + atoms["N"] + 3 * atoms["P"] + 2 - atoms["F"] - atoms["Cl"] - atoms["Br"]
        for hydrogens in range(max(most, -1) + 1):
            if heavy + hydrogens > 0.5:
                cost = _COST_OF_SMALL + _COST_OF_ELEMENT * elements + 0.1 * abs(most - hydrogens) / 2
                yield tuple({**atoms, "H": hydrogens}[symbol] for symbol in _MASSES), cost


def _atoms(difference: str) -> tuple[int, ...]:
    """Return the atoms of ``O-CH2``: 1 of O, -1 of C, -2 of H."""
    gained, _, lost = difference.partition("-")
    counts: Mapping[str, int] = atom_counts(gained)
    return tuple(counts.get(symbol, 0) - atom_counts(lost).get(symbol, 0) for symbol in _MASSES)


def _mass(atoms: tuple[int, ...]) -> float:
    return sum(number * mass for number, mass in zip(atoms, _MASSES.values(), strict=True))


def _name(atoms: tuple[int, ...]) -> str:
    gained, lost = (
        "".join(
            symbol + (str(sign * number) if sign * number > 1 else "")
            for symbol, number in zip(_MASSES, atoms, strict=True)
            if sign * number > 0
        )
        for sign in (1, -1)
    )
    return f"{gained}-{lost}" if lost else gained


def _lost(atoms: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((symbol, -number) for symbol, number in zip(_MASSES, atoms, strict=True) if number < 0)


@lru_cache(maxsize=16384)
def _atoms_of(formula: str) -> Mapping[str, int]:
    return atom_counts(formula)

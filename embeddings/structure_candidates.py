"""Which structures of an index may be a query: those of its neutral mass as its adduct, or of its formula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import InputError
from ..spectra.adducts import ELECTRON_MASS, Adduct, atoms_lost, molecule_charge, neutral_mass, normalise_adduct
from ..spectra.molecules import atom_counts, formula_mass_and_charge, is_formula
from ..spectra.precursor import has_atoms_to_lose
from ..spectra.spectrum import Spectrum
from .index_folder import check_search_options
from .nearest import PPM, WINDOW_SLACK

USUAL_ADDUCTS = {
    1: ("[M+H]+", "[M+Na]+", "[M+NH4]+", "[M+K]+", "[M+H-H2O]+", "[M]+", "[2M+H]+", "[2M+Na]+", "[M+2H]2+", "[M+3H]3+"),
    -1: ("[M-H]-", "[M+HCOO]-", "[M+Cl]-", "[M+CH3COO]-", "[M-H-H2O]-", "[2M-H]-", "[M-2H]2-", "[M-3H]3-"),
}
"""What a query of this polarity is taken for where its adduct is unknown. ``[M]+`` is then the ion of a molecule that
is charged as drawn: a radical cation is never guessed."""


FormulaKey = frozenset[tuple[str, int]]
"""Elements and their numbers."""

OWN_FORMULA = "query"
"""In place of a formula: that of each query."""


@dataclass(frozen=True)
class TriedAdducts:
    """The ions that a query may be.

    Attributes
    ----------
    adducts : tuple of Adduct
        The stated one alone or, for molecules that others draw with more protons, also the same ion of the fewer
        protons: ``[M]+`` of betaine's cation is ``[M+H]+`` of betaine. Else the usual ones.
    stated : bool
        Whether the query says which adduct it is: the first.
    note : str
        Where it does not say: what was tried instead; else empty.
    """

    adducts: tuple[Adduct, ...]
    stated: bool
    note: str = ""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The structures that one query is compared with.

    Attributes
    ----------
    rows : int64 array of shape (n,)
        Of the index, ascending.
    adduct : int64 array of shape (n,)
        Into ``tried.adducts``: as which the structure has the query's precursor m/z (the nearest of several); -1 where
        no adduct entered.
    error_ppm : float64 array of shape (n,)
        ``(query - structure) / structure * 1e6`` of the m/z as that adduct; NaN without one.
    tried : TriedAdducts
    """

    rows: np.ndarray
    adduct: np.ndarray
    error_ppm: np.ndarray
    tried: TriedAdducts


def check_structure_search(k: int, precursor_ppm: float | None, formula: str | None) -> None:
    """Raise `InputError` if the number of hits, the window or the formula is none."""
    check_search_options(k, precursor_ppm)
    if formula is not None and formula != OWN_FORMULA and formula_key(formula) is None:
        raise InputError(
            f"{formula!r} is no formula; write one like C6H12O6, or '{OWN_FORMULA}' for that of each query"
        )


def tried_adducts(query: Spectrum) -> TriedAdducts:
    """Return the stated adduct of a query, or else the usual ones of its polarity and number of charges."""
    stated = normalise_adduct(query.adduct)
    if stated is not None:
        return TriedAdducts((stated, *_with_protons(stated)), stated=True)
    polarity = query.polarity or (-1 if (query.charge or 0) < 0 else 0)  # a charge without a sign may be of either
    polarities = (polarity,) if polarity else (1, -1)
    adducts = tuple(adduct for polarity in polarities for adduct in _usual(polarity, query.charge))
    what = f"adduct {query.adduct!r} not understood" if query.adduct else "adduct unknown"
    if not polarity:
        what = what.replace("adduct unknown", "adduct and polarity unknown")
    names = ", ".join(adduct.name for adduct in adducts)
    return TriedAdducts(
        adducts, stated=False, note=f"{what}: tried {names}" if names else f"{what}: no usual one of {query.charge:+d}"
    )


def candidates_by_mass(
    mass: np.ndarray,
    charge: np.ndarray,
    anions: np.ndarray,
    formula: np.ndarray,
    queries: Sequence[Spectrum],
    ppm: float,
) -> Iterator[Candidates]:
    """Yield, for each query, the structures whose m/z as an adduct of the query is its precursor m/z.

    The window is that of `ionbed.embeddings.nearest.precursor_windows`: of the m/z, ``|query - structure| / structure``
    is at most ``ppm * 1e-6``. A molecule that is charged as drawn has only the ions that add up with its charge:
    choline is ``[M]+``, not ``[M+H]+``. Betaine, whose acid balances the charge, is ``[M+H]+``, and also what a query
    calls ``[M]+`` of its cation. No molecule loses atoms that it does not have.

    Parameters
    ----------
    mass : float64 array of shape (n_structures,)
        Monoisotopic, in Da, ascending.
    charge : int array of shape (n_structures,)
        As drawn.
    anions : int array of shape (n_structures,)
        See `ionbed.spectra.molecules.balancing_anions`.
    formula : object array of str, of shape (n_structures,)
    queries : sequence of Spectrum
    ppm : float
        More than 0 and less than 1e6.
    """
    tried = [tried_adducts(query) for query in queries]
    tolerance = ppm * PPM + WINDOW_SLACK
    edges = np.array(
        [
            [neutral_mass(query.precursor_mz / (1 + tolerance * sign), adduct) for sign in (1, -1)]
            for query, of_query in zip(queries, tried, strict=True)
            for adduct in of_query.adducts
        ]
    ).reshape(-1, 2)
    starts = np.searchsorted(mass, edges[:, 0], side="left").tolist()
    stops = np.searchsorted(mass, edges[:, 1], side="right").tolist()
    window = 0
    for query, of_query in zip(queries, tried, strict=True):
        parts = []
        for number, adduct in enumerate(of_query.adducts):
            rows = np.arange(starts[window], max(starts[window], stops[window]))
            window += 1
            protons = number if of_query.stated else 0
            rows = rows[_may_be(charge[rows], anions[rows], adduct, protons, guessed=not of_query.stated)]
            if any(element != "H" for element in atoms_lost(adduct)):  # a molecule without hydrogen is not worth a look
                rows = rows[[has_atoms_to_lose(text, adduct) for text in formula[rows]]]
            parts.append((rows, np.full(len(rows), number), mz_error_ppm(query.precursor_mz, mass[rows], adduct)))
        yield _nearest_of_each(parts, of_query)


def candidates_by_formula(
    rows_of_formula: dict[FormulaKey, np.ndarray],
    mass: np.ndarray,
    charge: np.ndarray,
    anions: np.ndarray,
    queries: Sequence[Spectrum],
    formulas: Sequence[str | None],
) -> Iterator[Candidates]:
    """Yield the structures of each query's formula; none where the formula is unknown.

    Betaine, C5H11NO2, is of C5H12NO2+ too, the formula of its cation.

    Parameters
    ----------
    rows_of_formula : dict
        Rows by `formula_key`.
    mass : float64 array of shape (n_structures,)
    charge : int array of shape (n_structures,)
        As drawn.
    anions : int array of shape (n_structures,)
        See `ionbed.spectra.molecules.balancing_anions`.
    queries : sequence of Spectrum
    formulas : sequence of str or None
        One for each query; charge, brackets and isotopes aside.
    """
    for query, formula in zip(queries, formulas, strict=True):
        found = [np.empty(0, np.int64)]
        for protons, key in enumerate(_keys_with_fewer_protons(formula)):
            rows = rows_of_formula.get(key, found[0])
            found.append(rows[anions[rows] >= protons] if protons else rows)
        yield without_window(query, np.sort(np.concatenate(found)), mass, charge, anions)


def without_window(
    query: Spectrum, rows: np.ndarray, mass: np.ndarray, charge: np.ndarray, anions: np.ndarray
) -> Candidates:
    """Return candidates that no mass was asked of; where the query states its adduct, the error is that adduct's."""
    tried = tried_adducts(query)
    if not tried.stated:
        nothing = np.full(len(rows), np.nan)
        return Candidates(rows, np.full(len(rows), -1), nothing, TriedAdducts((), stated=False))
    error, number = mz_error_ppm(query.precursor_mz, mass[rows], tried.adducts[0]), np.zeros(len(rows), np.int64)
    for protons, adduct in enumerate(tried.adducts[1:], start=1):
        balanced = _may_be(charge[rows], anions[rows], adduct, protons, guessed=False)
        number[balanced] = protons
        error[balanced] = mz_error_ppm(query.precursor_mz, mass[rows[balanced]], adduct)
    return Candidates(rows, number, error, tried)


def formula_key(formula: str | None) -> FormulaKey | None:
    """Return what equal formulas share, None where a text is no formula; charge, brackets and isotopes aside."""
    if not formula or not is_formula(formula):
        return None
    return frozenset(atom_counts(formula).items())


def rows_by_formula(formulas: pa.ChunkedArray) -> dict[FormulaKey, np.ndarray]:
    """Return the rows of each formula, int64 and ascending, by `formula_key`; those that are no formula in none."""
    encoded = formulas.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    keys = [formula_key(text) for text in encoded.dictionary.to_pylist()]
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(codes, minlength=len(keys)))[:-1])
    found: dict[FormulaKey, np.ndarray] = {}
    for key, rows in zip(keys, groups, strict=True):  # formulas that differ in their charge have one key
        if key is not None:
            found[key] = np.sort(np.concatenate([found[key], rows])) if key in found else rows
    return found


def mz_error_ppm(precursor_mz: float, mass: np.ndarray, adduct: Adduct) -> np.ndarray:
    """Return ``(query - structure) / structure * 1e6`` of the m/z, for structures of these masses as ``adduct``."""
    ion_mass = adduct.num_molecules * mass + adduct.mass_shift - adduct.charge * ELECTRON_MASS
    mz = ion_mass / abs(adduct.charge)
    error: np.ndarray = (precursor_mz - mz) / mz * 1e6
    return error


def formula_of(query: Spectrum, formula: str) -> str | None:
    """Return the formula of a query's candidates: ``formula``, or with `OWN_FORMULA` that of the query."""
    return query.formula if formula == OWN_FORMULA else formula


def note_of(query: Spectrum, candidates: Candidates, precursor_ppm: float | None, formula: str | None) -> str:
    """Return why a query has no candidates, or what was tried in place of an unknown adduct; '' where all is known."""
    if formula is not None:
        return "" if len(candidates.rows) else _why_none_of_formula(formula_of(query, formula))
    tried = candidates.tried
    if len(candidates.rows) or not tried.adducts:
        return tried.note
    as_what = tried.adducts[0].name if tried.stated else f"a usual adduct ({tried.note})"
    return f"no structure within {precursor_ppm:g} ppm as {as_what}"


def _keys_with_fewer_protons(formula: str | None) -> list[FormulaKey]:
    """Return the key of a formula and, where it has a positive charge, those of one proton less, of two less, ..."""
    key = formula_key(formula)
    if key is None or formula is None:
        return []
    charge = (formula_mass_and_charge(formula) or (0.0, 0))[1]
    atoms = dict(key)
    fewer = range(1, min(charge, atoms.get("H", 0)) + 1)
    return [key, *(frozenset({**atoms, "H": atoms["H"] - less}.items()) for less in fewer)]


def _usual(polarity: int, charge: int | None) -> list[Adduct]:
    adducts = [normalise_adduct(name) for name in USUAL_ADDUCTS[polarity]]
    return [a for a in adducts if a is not None and (not charge or abs(a.charge) == abs(charge))]


def _with_protons(stated: Adduct) -> list[Adduct]:
    """Return the ion of a charged molecule as one of the molecule with one proton less, with two less, ..."""
    charge, size = molecule_charge(stated), stated.num_molecules
    texts = [stated.name.replace("]", f"+{size * less}H]") for less in range(1, int(charge) + 1)]
    return [adduct for adduct in map(normalise_adduct, texts) if adduct is not None]


def _may_be(charge: np.ndarray, anions: np.ndarray, adduct: Adduct, protons: int, *, guessed: bool) -> np.ndarray:
    """Return whether molecules of these charges have this ion, made with ``protons`` that a query counts as theirs.

    A stated ion that needs a charged molecule may also be of a neutral one: ``[M]+`` of one that lost an electron.
    """
    needed = molecule_charge(adduct)
    if protons:
        balanced: np.ndarray = (charge == needed) & (anions >= protons)
        return balanced
    may: np.ndarray = (charge == needed) | ((charge == 0) & (not guessed))
    return may


def _nearest_of_each(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], tried: TriedAdducts) -> Candidates:
    """Return the candidates of all windows, each structure once: as the adduct with the smallest error."""
    if not parts:
        empty = np.empty(0, np.int64)
        return Candidates(empty, empty, np.empty(0), tried)
    rows, adduct, error = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((adduct, np.abs(error), rows))
    first = order[np.unique(rows[order], return_index=True)[1]]
    return Candidates(rows[first], adduct[first], error[first], tried)


def _why_none_of_formula(formula: str | None) -> str:
    if formula is None:
        return "the query's formula is unknown"
    if formula_key(formula) is None:
        return f"the query's formula {formula!r} cannot be read"
    return f"no structure of the formula {formula}"

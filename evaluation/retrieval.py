"""Retrieval: which spectra ask for their structure, and which structures are their candidates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..spectra.adducts import ELECTRON_MASS, normalise_adduct
from ..spectra.molecules import atom_counts
from .candidates import Candidates
from .dataset import EvaluationData
from .tasks import draw_per_molecule

if TYPE_CHECKING:
    from .comparisons import Comparisons

By = Literal["mass", "formula", "lists"]


PAIRS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class RetrievalOptions:
    """Choices of the task 'retrieval'.

    Attributes
    ----------
    by : 'mass', 'formula' or 'lists'
        What the candidates of a query have in common with it: the neutral mass that its precursor and its adduct give;
        the atoms of its molecule; or being in the list of its molecule.
    precursor_ppm : float
        With 'mass': the precursor's m/z and that of the candidate's adduct differ by at most this, in ppm of the
        precursor's.
    max_candidates : int or None
        More than these are reduced to so many by a draw that keeps the true one; None keeps all. Lists are taken whole.
    single_candidates : bool
        Whether queries with one candidate count, which every ranking answers, as published benchmarks count them.
    max_queries_per_molecule : int
    pools : tuple of Path
        Files of molecules that are candidates beside those of the store.
    lists : Path or None
        Candidates by query; see `ionbed.evaluation.candidate_lists.read_candidate_lists`.
    """

    by: By = "mass"
    precursor_ppm: float = 10.0
    max_candidates: int | None = 256
    single_candidates: bool = False
    max_queries_per_molecule: int = 5
    pools: tuple[Path, ...] = ()
    lists: Path | None = None

    def __post_init__(self) -> None:
        if self.precursor_ppm <= 0:
            raise ValueError(f"'precursor_ppm' is {self.precursor_ppm}; it must be above 0")
        if self.max_candidates is not None and self.max_candidates < 2:
            raise ValueError(f"'max_candidates' is {self.max_candidates}; it must be at least 2, or null for all")
        if self.max_queries_per_molecule <= 0:
            raise ValueError(f"'max_queries_per_molecule' is {self.max_queries_per_molecule}; it must be above 0")
        if self.by == "lists" and self.lists is None:
            raise ValueError("'by' is lists, and 'lists' names no file; name one")


def retrieval_comparisons(
    data: EvaluationData, candidates: Candidates, fold: str, options: RetrievalOptions, seed: int
) -> Comparisons:
    """Draw the queries of ``fold`` and gather the structures that may be their answer.

    A spectrum can be a query if its own molecule is among its candidates and is not the only one (unless
    ``options.single_candidates``); what is left out is counted. The window of 'mass' lies around the mass that was
    measured: around the true one, the true molecule would be the one in the middle. Each query has a pool of its own,
    in an order drawn with ``seed``.

    Returns
    -------
    Comparisons
        ``candidate`` holds rows of ``candidates``.

    Raises
    ------
    ValueError
        By 'lists', and ``candidates`` were made without.
    """
    from .comparisons import Comparisons  # which lists this question among its own

    counts: dict[str, float] = {}
    rows = data.rows_in(fold)
    if options.by == "mass":
        rows, starts, stops, order = _by_mass(data, candidates, rows, options.precursor_ppm, counts)
    elif options.by == "formula":
        rows, starts, stops, order = _by_formula(data, candidates, rows, counts)
    else:
        rows, starts, stops, order = _by_lists(data, candidates, rows, counts)
    is_single = stops - starts < 2
    what_of_single = "counted" if options.single_candidates else "left out"
    counts[f"spectra with one candidate only, {what_of_single}"] = int(is_single.sum())
    asked = rows if options.single_candidates else rows[~is_single]
    queries = draw_per_molecule(asked, data.molecule, limit=options.max_queries_per_molecule, seed=seed)
    place = np.searchsorted(rows, queries)
    sizes = stops[place] - starts[place]
    limit = None if options.by == "lists" else options.max_candidates
    pool, candidate = _pools(starts[place], sizes, order, data.molecule[queries], limit, seed)
    return Comparisons(
        queries=queries,
        pool_of_query=np.arange(len(queries)),
        pool=pool,
        candidate=candidate,
        counts={
            "queries": len(queries),
            "molecules": len(np.unique(data.molecule[queries])),
            "mean candidates": len(pool) / len(queries) if len(queries) else 0.0,
            "queries with more candidates, reduced by a draw": (
                0 if limit is None else int(np.count_nonzero(sizes > limit))
            ),
            "molecules that may be candidates": len(candidates),
            **counts,
        },
    )


def _pools(
    starts: np.ndarray, sizes: np.ndarray, order: np.ndarray, truth: np.ndarray, limit: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return pool and candidate of every comparison: ``order[start : start + size]`` of each query, drawn and shuffled.

    What is drawn does not depend on how many queries are worked on at a time.
    """
    which, places = np.random.default_rng(seed).spawn(2)
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    chunk = np.cumsum(sizes) // PAIRS_PER_CHUNK
    for members in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(chunk)) + 1):
        size = sizes[members]
        pool = np.repeat(members, size)
        within = np.arange(len(pool)) - np.repeat(np.cumsum(size) - size, size)
        candidate = order[starts[pool] + within]
        if limit is not None:
            # Those that are kept first: the true one, then the others in the order of a draw.
            draw = np.where(candidate == truth[pool], -1.0, which.random(len(pool)))
            kept = np.lexsort((draw, pool))[within < limit]
            pool, candidate = pool[kept], candidate[kept]
        shuffled = np.lexsort((places.random(len(pool)), pool))
        parts.append((pool[shuffled], candidate[shuffled]))
    pools, candidates = (np.concatenate(column) for column in zip(*parts, strict=True))
    return pools, candidates


def neutral_masses(precursor_mz: np.ndarray, adduct: np.ndarray) -> np.ndarray:
    """Return the mass in Da of the molecule whose adduct has this m/z; NaN where the adduct is unknown.

    Parameters
    ----------
    precursor_mz : float64 array of shape (n,)
    adduct : object array of str or None, of shape (n,)

    Returns
    -------
    float64 array of shape (n,)
    """
    charge, shift, num_molecules = adduct_arithmetic(adduct)
    mass: np.ndarray = (precursor_mz * np.abs(charge) + charge * ELECTRON_MASS - shift) / num_molecules
    return mass


def adduct_arithmetic(adduct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return charge, mass shift in Da and number of molecules of each adduct; float64 of shape (n,), NaN if unknown.

    ``adduct`` is an object array of str or None; see `ionbed.spectra.adducts.Adduct`.
    """
    parsed = {text: normalise_adduct(text) for text in set(adduct.tolist())}
    unknown = (np.nan, np.nan, np.nan)
    found = {
        text: unknown if known is None else (float(known.charge), known.mass_shift, float(known.num_molecules))
        for text, known in parsed.items()
    }
    values = np.array([found[text] for text in adduct], np.float64).reshape(-1, 3)
    return values[:, 0], values[:, 1], values[:, 2]


def adducts_of(data: EvaluationData) -> np.ndarray:
    """Return the adduct of each spectrum, an object array of str or None, of shape (n,)."""
    return np.array(data.table["adduct"].to_pylist(), object)


@lru_cache(maxsize=65536)
def plain_formula(formula: str) -> str:
    """Return the atoms of a formula in one order, charge and isotopes aside; '' for an empty text."""
    return "".join(f"{symbol}{count}" for symbol, count in sorted(atom_counts(formula).items()) if count)


_Ranges = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Rows that are asked, where the candidates of each begin and end in an order, and the order."""


def _by_mass(
    data: EvaluationData, candidates: Candidates, rows: np.ndarray, ppm: float, counts: dict[str, float]
) -> _Ranges:
    order = np.argsort(candidates.exact_mass, kind="stable")  # those that RDKit cannot read (NaN) come last
    order = order[~candidates.is_only_listed[order]]
    ordered = candidates.exact_mass[order]
    precursor_mz, adduct = data.columns.precursor_mz[rows], adducts_of(data)[rows]
    # An error of the m/z is one of the mass: as large for one charge and one molecule, whatever else is in the ion.
    low = neutral_masses(precursor_mz * (1 - ppm * 1e-6), adduct)
    high = neutral_masses(precursor_mz * (1 + ppm * 1e-6), adduct)
    is_known = ~np.isnan(low)
    counts["spectra without a known adduct, left out"] = int(np.count_nonzero(~is_known))
    rows, low, high = rows[is_known], low[is_known], high[is_known]
    true_mass = candidates.exact_mass[data.molecule[rows]]
    is_inside = (true_mass >= low) & (true_mass <= high)
    counts["spectra whose molecule lies outside the window, left out"] = int(np.count_nonzero(~is_inside))
    return (
        rows[is_inside],
        np.searchsorted(ordered, low[is_inside], side="left"),
        np.searchsorted(ordered, high[is_inside], side="right"),
        order,
    )


def _by_formula(data: EvaluationData, candidates: Candidates, rows: np.ndarray, counts: dict[str, float]) -> _Ranges:
    formula = np.array([plain_formula(text) for text in candidates.formula], object).astype(str)
    order = np.argsort(formula, kind="stable")
    order = order[~candidates.is_only_listed[order]]
    ordered = formula[order]
    own = formula[data.molecule[rows]]
    is_known = own != ""
    counts["spectra whose structure cannot be read, left out"] = int(np.count_nonzero(~is_known))
    rows, own = rows[is_known], own[is_known]
    return rows, np.searchsorted(ordered, own, side="left"), np.searchsorted(ordered, own, side="right"), order


def _by_lists(data: EvaluationData, candidates: Candidates, rows: np.ndarray, counts: dict[str, float]) -> _Ranges:
    if not candidates.list_counts:
        raise ValueError("the candidates were made without lists; name them to candidate_molecules")
    counts.update(candidates.list_counts)
    molecules = np.array(sorted(candidates.lists), np.int64)
    has_list = np.isin(data.molecule[rows], molecules)
    counts["spectra of molecules without a list, left out"] = int(np.count_nonzero(~has_list))
    rows = rows[has_list]
    lengths = np.array([len(candidates.lists[molecule]) for molecule in molecules.tolist()], np.int64)
    stops = np.cumsum(lengths)
    which = np.searchsorted(molecules, data.molecule[rows])
    order = np.concatenate([np.empty(0, np.int64), *(candidates.lists[molecule] for molecule in molecules.tolist())])
    return rows, (stops - lengths)[which], stops[which], order

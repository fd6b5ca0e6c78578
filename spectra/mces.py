"""Distances between molecules by their maximum common edge subgraph (MCES), and clusters of molecules that are near.

The distance is the one of Kretschmer et al. (2025, doi:10.1038/s41467-024-55462-w): atoms of one molecule are mapped to
atoms of the same element of the other, at most one to one; what differs between the orders of the bonds so matched, and
the orders of all other bonds, are summed (aromatic bonds have order 1.5, hydrogens are left out); the distance is the
smallest such sum. It is found by their integer linear programme, with the solver HiGHS that comes with SciPy. Bounds
that are never wrong answer most pairs without it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..progress import progress
from .pair_answers import KeptAnswers, Workers

logger = logging.getLogger("ionbed")

SOLVER_SECONDS = 1.0
"""How long the solver may take for one pair; most take a few hundredths of that."""

_STEP = 0.5  # every distance is a multiple of it
_COMMON = {number: slot for slot, number in enumerate((6, 7, 8, 16, 15, 9, 17, 35, 53, 14))}
_NUM_SLOTS = len(_COMMON) + 1  # the last holds all other elements, which makes a bound weaker and never wrong
_MOST_NEIGHBOURS = 4  # likewise
_FURTHEST = 5  # bonds
_FURTHER_WEIGHT = 0.01  # small, so that the assignment stays nearly the cheapest
_PAIRS_PER_ROUND = 512
_FAR, _NEAR, _UNDECIDED = 0, 1, 2


@dataclass(frozen=True, eq=False)
class _Graph:
    """A molecule without hydrogens.

    Attributes
    ----------
    element : int64 array of shape (n_atoms,)
    order : float32 array of shape (n_atoms, n_atoms)
        Of the bond between two atoms, 0 where there is none.
    bonds : int64 array of shape (n_bonds, 2)
    surroundings : float32 array of shape (n_atoms, n_slots * n_neighbours)
        Orders of each atom's bonds by the element of the neighbour, in descending order.
    further : float32 array of shape (n_atoms, n_features)
        Sums of the surroundings one to five bonds away, for telling alike atoms apart.
    """

    element: np.ndarray
    order: np.ndarray
    bonds: np.ndarray
    surroundings: np.ndarray
    further: np.ndarray

    @property
    def total(self) -> float:
        """The sum of the bond orders."""
        return float(self.order.sum()) / 2


def mces_distance(a: str, b: str, *, seconds: float = 60.0) -> float | None:
    """Return the MCES distance of two molecules given as SMILES, or None where the solver needs longer than that.

    Raises
    ------
    ValueError
        RDKit cannot read a SMILES.
    InputError
        SciPy is not installed.
    """
    _require_scipy()
    first, second = _graph(a), _graph(b)
    lower, upper = _assignment_bounds(first, second)
    if upper <= lower:
        return upper
    is_decided, found = _solve(first, second, upper, seconds, first_found=False)
    return found if is_decided else None


def capped_distance(a: str, b: str, limit: float, *, seconds: float = SOLVER_SECONDS) -> tuple[float, bool]:
    """Return the MCES distance of two molecules, or ``limit`` where that is smaller, and whether it is exact.

    A limit is what makes it fast: most pairs of unlike molecules are known to be further apart than that by a bound.
    Where the solver needs longer than ``seconds``, the smallest distance known to be reached stands in, so that a pair
    never looks nearer than it is. Raises as `mces_distance`.
    """
    _require_scipy()
    first, second = _graph(a), _graph(b)
    lower, upper = _assignment_bounds(first, second)
    if lower >= limit:
        return limit, True
    if upper <= lower:
        return upper, True
    is_decided, found = (
        (False, None) if seconds <= 0 else _solve(first, second, min(upper, limit), seconds, first_found=False)
    )
    if is_decided:
        return limit if found is None else found, True
    return min(upper, limit, limit if found is None else found), False


def is_nearer(a: str, b: str, distance: float, *, seconds: float = SOLVER_SECONDS) -> bool | None:
    """Whether the MCES distance of two molecules is below ``distance``; None where the solver needs longer.

    Raises as `mces_distance`.
    """
    _require_scipy()
    first, second = _graph(a), _graph(b)
    lower, upper = _assignment_bounds(first, second)
    if lower >= distance:
        return False
    if upper < distance:
        return True
    if seconds <= 0:
        return None
    largest = (math.ceil(distance / _STEP) - 1) * _STEP
    is_decided, found = _solve(first, second, largest, seconds, first_found=True)
    return found is not None if is_decided else None


def mces_clusters(
    smiles: Sequence[str],
    distance: float = 10.0,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    seconds: float = SOLVER_SECONDS,
) -> np.ndarray:
    """Return the cluster of each molecule: any two that are nearer than ``distance`` are in one (single linkage).

    The clusters are the connected components of the graph of near pairs. Pairs are taken in the order of a lower bound,
    and only while their molecules are not yet in one cluster, which leaves most near pairs unasked.

    Parameters
    ----------
    smiles : sequence of str, one for each molecule
    distance : float
    cache : Path, optional
        Folder in which every answer is kept; a run that was stopped goes on there, and a larger data set asks for its
        new pairs only.
    workers : int, optional
        Processes; all cores where None.
    seconds : float
        For the solver, each pair. A pair that is not decided by then counts as near, so that clusters are larger and
        still do not leak. With 0 the solver is not used, and the bounds alone decide.

    Returns
    -------
    int64 array of shape (n,)

    Raises
    ------
    ValueError
        RDKit cannot read a SMILES.
    InputError
        SciPy is not installed, or the cache cannot be used.
    """
    _require_scipy()
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second = candidate_pairs(smiles, distance)
    near: list[tuple[int, int]] = []
    labels = np.arange(len(smiles))
    counts = {_FAR: 0, _NEAR: 0, _UNDECIDED: 0}
    with (
        closing(KeptAnswers(cache, f"mces-{distance:g}-{seconds:g}s.sqlite")) as answers,
        Workers(workers) as pool,
        progress("MCES", len(first), unit="pairs") as advance,
    ):
        while len(first):
            apart = labels[first] != labels[second]
            advance(len(first) - int(apart.sum()))
            first, second = first[apart], second[apart]
            # Of two clusters one pair at a time: if it is near, the others need not be asked.
            low, high = np.minimum(labels[first], labels[second]), np.maximum(labels[first], labels[second])
            chosen = np.sort(np.unique(low * len(smiles) + high, return_index=True)[1])[:_PAIRS_PER_ROUND]
            pairs = [(smiles[i], smiles[j]) for i, j in zip(first[chosen], second[chosen], strict=True)]
            found = answers.complete(pairs, lambda asked: pool.map(_answers, asked, distance, seconds))
            for i, j, answer in zip(first[chosen].tolist(), second[chosen].tolist(), found, strict=True):
                counts[answer] += 1
                if answer != _FAR:
                    near.append((i, j))
            rest = np.ones(len(first), bool)
            rest[chosen] = False
            advance(len(chosen))
            first, second = first[rest], second[rest]
            rows, columns = np.array(near, np.int64).reshape(-1, 2).T
            graph = coo_matrix((np.ones(len(near)), (rows, columns)), (len(smiles), len(smiles)))
            labels = connected_components(graph, directed=False)[1]
    logger.info(
        "MCES: %s molecules in %s clusters; of %s pairs asked %s are near, %s not decided in %g s count as near",
        f"{len(smiles):,}", f"{len(np.unique(labels)):,}", f"{sum(counts.values()):,}", f"{counts[_NEAR]:,}",
        f"{counts[_UNDECIDED]:,}", seconds,
    )  # fmt: skip
    return labels.astype(np.int64)


def candidate_pairs(smiles: Sequence[str], distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of molecules that two quick lower bounds leave as possibly nearer than ``distance``.

    The first compares the sums of the bond orders of the atoms of each element, in descending order (half of what
    differs is a lower bound, as every bond has two atoms); the second the bond orders by pair of elements.

    Returns
    -------
    first, second : int64 arrays of shape (n_pairs,)
        Indices, ``first < second``; the smallest lower bound comes first.
    """
    from scipy.spatial.distance import cdist

    graphs = [_graph(text) for text in smiles]
    atoms, bonds = _padded([_orders_of_atoms(g) for g in graphs]), _padded([_orders_of_bonds(g) for g in graphs])
    found = [np.empty((3, 0))]
    for start in range(0, len(graphs), 512):
        part = slice(start, start + 512)
        lower = np.maximum(cdist(atoms[part], atoms, "cityblock") / 2, cdist(bonds[part], bonds, "cityblock"))
        i, j = np.nonzero(lower < distance)
        upper_triangle = i + start < j
        i, j = i[upper_triangle], j[upper_triangle]
        found.append(np.stack([i + start, j, lower[i, j]]))
    first, second, lower = np.concatenate(found, axis=1)
    order = np.argsort(lower, kind="stable")
    return first[order].astype(np.int64), second[order].astype(np.int64)


def _assignment_bounds(a: _Graph, b: _Graph) -> tuple[float, float]:
    """Return a lower and an upper bound of the distance, from the cheapest assignments of atoms.

    The cost of two atoms is half of what differs between their bonds by element, so that the cheapest assignment costs
    no more than any mapping. The distance under any mapping is an upper bound; many assignments are equally cheap, and
    the one taken maps atoms to those with a like neighbourhood further out.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    lower, image = 0.0, np.full(len(a.element), -1)
    for element in np.union1d(a.element, b.element):
        i, j = np.flatnonzero(a.element == element), np.flatnonzero(b.element == element)
        size = max(len(i), len(j))
        cost = cdist(_filled(a.surroundings[i], size), _filled(b.surroundings[j], size), "cityblock") / 2
        rows, columns = linear_sum_assignment(cost)
        lower += float(cost[rows, columns].sum())
        further = cdist(_filled(a.further[i], size), _filled(b.further[j], size), "cityblock")
        rows, columns = linear_sum_assignment(cost + _FURTHER_WEIGHT * further)
        is_atom = (rows < len(i)) & (columns < len(j))
        image[i[rows[is_atom]]] = j[columns[is_atom]]
    mapped = np.flatnonzero(image >= 0)
    common = np.minimum(a.order[np.ix_(mapped, mapped)], b.order[np.ix_(image[mapped], image[mapped])]).sum() / 2
    # Between two steps there is no distance, and float32 may leave a little above one.
    lower = math.ceil(lower / _STEP - 1e-3) * _STEP
    return lower, a.total + b.total - 2 * float(common)


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    """Return ``values`` with rows of zeros up to ``size`` rows."""
    return np.concatenate([values, np.zeros((size - len(values), values.shape[1]), np.float32)])


def _solve(a: _Graph, b: _Graph, at_most: float, seconds: float, *, first_found: bool) -> tuple[bool, float | None]:
    """Return whether the solver came to an end, and the smallest distance up to ``at_most`` (or the first found).

    Where it did not, the distance is the smallest found until then, if any.

    The programme of Kretschmer et al., written for what is matched: a variable for each pair of atoms of one element,
    and one for each pair of bonds that such atoms end; a pair of bonds counts only if their atoms are mapped.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    atom_a, atom_b = np.nonzero(a.element[:, None] == b.element[None])
    num_atom_pairs = len(atom_a)
    atom_pair = np.full((len(a.element), len(b.element)), -1)
    atom_pair[atom_a, atom_b] = np.arange(num_atom_pairs)
    can_map = atom_pair >= 0
    straight = can_map[np.ix_(a.bonds[:, 0], b.bonds[:, 0])] & can_map[np.ix_(a.bonds[:, 1], b.bonds[:, 1])]
    crossed = can_map[np.ix_(a.bonds[:, 0], b.bonds[:, 1])] & can_map[np.ix_(a.bonds[:, 1], b.bonds[:, 0])]
    bond_a, bond_b = np.nonzero(straight | crossed)
    if not len(bond_a):
        distance = a.total + b.total
        return True, distance if distance <= at_most else None
    variable = num_atom_pairs + np.arange(len(bond_a))
    order_a, order_b = (g.order[g.bonds[:, 0], g.bonds[:, 1]] for g in (a, b))
    common = np.minimum(order_a[bond_a], order_b[bond_b]).astype(np.float64)
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    upper: list[np.ndarray] = []
    for members, size, of in (
        (atom_a, len(a.element), np.arange(num_atom_pairs)), (atom_b, len(b.element), np.arange(num_atom_pairs)),
        (bond_a, len(a.bonds), variable), (bond_b, len(b.bonds), variable),
    ):  # fmt: skip  # each atom and each bond is matched at most once
        rows.append(members + sum(map(len, upper)))
        columns.append(of)
        values.append(np.ones(len(of)))
        upper.append(np.ones(size))
    for g, other, own, opposite, pair in (
        (a, b, bond_a, bond_b, atom_pair), (b, a, bond_b, bond_a, atom_pair.T),
    ):  # fmt: skip  # bonds of an atom match another molecule's bond only if the atom is mapped to one of its ends
        start, num_others = sum(map(len, upper)), len(other.bonds)
        atom, bond = np.repeat(np.arange(len(g.element)), num_others), np.tile(np.arange(num_others), len(g.element))
        for end in (0, 1):
            rows.append(start + g.bonds[own, end] * num_others + opposite)
            columns.append(variable)
            values.append(np.ones(len(variable)))
            mapped = pair[atom, other.bonds[bond, end]]
            rows.append(start + np.flatnonzero(mapped >= 0))
            columns.append(mapped[mapped >= 0])
            values.append(-np.ones(len(columns[-1])))
        upper.append(np.zeros(len(atom)))
    shape = (sum(map(len, upper)), num_atom_pairs + len(bond_a))
    matrix = csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
    gain = np.concatenate([np.zeros(num_atom_pairs), common])
    least = (a.total + b.total - at_most) / 2 - _STEP / 4  # distances lie half a step apart, rounding far less
    result = milp(
        -gain,
        constraints=[
            LinearConstraint(matrix, -np.inf, np.concatenate(upper)),
            LinearConstraint(csr_matrix(gain), least, np.inf),
        ],
        bounds=Bounds(0, 1),
        # Bonds need not be whole numbers: where the atoms are, the best of them are.
        integrality=np.repeat([1, 0], [num_atom_pairs, len(bond_a)]),
        options={"time_limit": seconds, "mip_rel_gap": 1e6 if first_found else 0.0},
    )
    if result.x is not None:
        found = round((a.total + b.total + 2 * float(result.fun)) / _STEP) * _STEP
        return first_found or result.status == 0, found
    return result.status == 2, None  # 2: there is none


def _answers(pairs: Sequence[tuple[str, str]], distance: float, seconds: float) -> list[int]:
    return [{False: _FAR, True: _NEAR, None: _UNDECIDED}[is_nearer(a, b, distance, seconds=seconds)] for a, b in pairs]


@lru_cache(maxsize=65536)
def _graph(smiles: str) -> _Graph:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"RDKit cannot read the SMILES {smiles!r}")
    element = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.int64)
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()], np.int64).reshape(-1, 2)
    order = np.zeros((len(element), len(element)), np.float32)
    order[bonds[:, 0], bonds[:, 1]] = [bond.GetBondTypeAsDouble() for bond in mol.GetBonds()]
    order += order.T
    slot = np.array([_COMMON.get(number, _NUM_SLOTS - 1) for number in element.tolist()], np.int64)
    surroundings = np.zeros((len(element), _NUM_SLOTS, _MOST_NEIGHBOURS), np.float32)
    for atom, s in np.ndindex(len(element), _NUM_SLOTS):
        largest = np.sort(order[atom, slot == s])[::-1][:_MOST_NEIGHBOURS]
        surroundings[atom, s, : len(largest)] = largest
    near = surroundings.reshape(len(element), -1)
    bonded, at_distance = (order > 0).astype(np.float32), np.eye(len(element), dtype=np.float32)
    seen, further = at_distance > 0, []
    for _ in range(_FURTHEST):
        at_distance = ((at_distance @ bonded > 0) & ~seen).astype(np.float32)
        seen |= at_distance > 0
        further.append(at_distance @ near)
    return _Graph(element, order, bonds, near, np.concatenate(further, axis=1))


def _orders_of_atoms(g: _Graph) -> dict[Any, list[float]]:
    result: dict[Any, list[float]] = {}
    for element, total in zip(g.element.tolist(), g.order.sum(axis=1).tolist(), strict=True):
        result.setdefault(element, []).append(total)
    return result


def _orders_of_bonds(g: _Graph) -> dict[Any, list[float]]:
    result: dict[Any, list[float]] = {}
    for first, second in g.bonds.tolist():
        elements = tuple(sorted((int(g.element[first]), int(g.element[second]))))
        result.setdefault(elements, []).append(float(g.order[first, second]))
    return result


def _padded(lists: Sequence[dict[Any, list[float]]]) -> np.ndarray:
    """Return the lists of each row, sorted descending and padded with zeros, side by side; float32 (n, width)."""
    widths: dict[Any, int] = {}
    for row in lists:
        for key, values in row.items():
            widths[key] = max(widths.get(key, 0), len(values))
    result = np.zeros((len(lists), sum(widths.values())), np.float32)
    start = 0
    for key in sorted(widths):
        for number, row in enumerate(lists):
            values = sorted(row.get(key, ()), reverse=True)
            result[number, start : start + len(values)] = values
        start += widths[key]
    return result


def _require_scipy() -> None:
    try:
        import scipy.optimize  # noqa: F401
    except ImportError:
        raise InputError("MCES distances need SciPy; install it with: pip install 'ionbed[evaluate]'") from None

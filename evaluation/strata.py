"""What queries are told apart by: how a spectrum was measured, what its molecule is, how hard its question is."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .dataset import EvaluationData
from .query_properties import CHEMONT_LEVELS, chemical_classes, query_values
from .task_files import TaskKind

if TYPE_CHECKING:
    from .comparisons import Comparisons

RANGES: Mapping[str, tuple[tuple[float, ...], str]] = {
    "collision_energy": ((10.0, 20.0, 30.0, 40.0, 60.0, 90.0), "eV"),
    "precursor_mz": ((200.0, 300.0, 400.0, 600.0), "Da"),
    "num_peaks": ((5, 10, 20, 50), "peaks"),
    "spectral_entropy": ((0.5, 1.0, 1.5, 2.0, 3.0), "nats"),
    "precursor_survival": ((0.01, 0.1, 0.3, 0.6, 0.9), "of intensity"),
    "nearest_train_tanimoto": ((0.3, 0.4, 0.5, 0.6, 0.7, 0.85), "Tanimoto"),
}
"""Borders of the ranges that each number of `query_values` is told apart by, and their unit."""

POOL_EDGES = (2, 5, 10, 20, 50, 100)

CLASS_STRATA = tuple(f"chemical_{level}" for level in CHEMONT_LEVELS)

TRUTH_STRATA = ("laboratory", *CLASS_STRATA, "nearest_train_tanimoto")
"""Strata that tell something of the true molecule (of a laboratory, which compounds it measures): they stand in a
task's ``truth.parquet``, not in its ``queries.parquet``."""

NAMES: Mapping[str, str] = {
    "polarity": "polarity",
    "adduct": "adduct",
    "instrument_type": "instrument type",
    "collision_energy": "collision energy",
    "precursor_mz": "precursor m/z",
    "num_peaks": "number of peaks",
    "spectral_entropy": "spectral entropy",
    "precursor_survival": "precursor survival",
    "pool_size": "candidate molecules",
    "laboratory": "laboratory",
    "chemical_kingdom": "chemical kingdom (ChemOnt)",
    "chemical_superclass": "chemical superclass (ChemOnt)",
    "chemical_class": "chemical class (ChemOnt)",
    "nearest_train_tanimoto": "Tanimoto similarity to the nearest training molecule",
    "laboratories": "laboratories of the pair",
}
"""Every stratum in the words of a reader, in the order of the report."""

UNKNOWN = "unknown"
"""The cell of queries whose stratum is not known: apart, never mixed with others."""

DIFFERENT_LABORATORIES, ONE_LABORATORY = "two laboratories", "one laboratory, or not known"


def query_strata(
    data: EvaluationData, found: Comparisons, kind: TaskKind, nearest_train: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return what the queries are told apart by; object arrays of str or None, of shape (n_queries,).

    The names are keys of `NAMES`. Those in `TRUTH_STRATA` are not for a tool to see. Of pairs the first spectrum is
    the query, and the size of the pool, in which the number of molecules is what is asked, is left out.

    Parameters
    ----------
    nearest_train : float64 array of shape (m,), optional
        See `ionbed.evaluation.query_properties.nearest_train_tanimoto`; the stratum is left out without it.
    """
    rows = found.queries
    columns = data.columns
    ranges = {name: binned(values, *RANGES[name]) for name, values in query_values(data, rows, nearest_train).items()}
    polarity = np.where(columns.polarity[rows] > 0, "positive", "negative").astype(object)
    strata = {
        "polarity": polarity,
        "adduct": columns.adduct[rows],
        "instrument_type": columns.instrument_type[rows],
        **ranges,
        "laboratory": np.array(data.table["laboratory"].to_pylist(), object)[rows],
        **dict(zip(CLASS_STRATA, chemical_classes(data)[data.molecule[rows]].T, strict=True)),
    }
    if kind != "pairs":
        strata["pool_size"] = binned(_pool_sizes(data, found, kind), POOL_EDGES, "molecules")
    return {name: strata[name] for name in NAMES if name in strata}


def pair_strata(
    strata: Mapping[str, np.ndarray], query: np.ndarray, other_laboratory: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return what pairs are told apart by: the strata of the first spectrum, and whether two laboratories measured.

    Parameters
    ----------
    strata : mapping of str to object array of shape (n_queries,)
    query : int64 array of shape (n_pairs,)
        The first spectrum of each pair, a place among the queries.
    other_laboratory : bool array of shape (n_pairs,), or None
        Whether both laboratories are known and differ.

    Returns
    -------
    dict of str to object array of shape (n_pairs,)
    """
    found = {name: labels[query] for name, labels in strata.items()}
    if other_laboratory is not None:
        found["laboratories"] = np.where(other_laboratory, DIFFERENT_LABORATORIES, ONE_LABORATORY).astype(object)
    return found


def binned(values: np.ndarray, edges: Sequence[float], unit: str) -> np.ndarray:
    """Return the range that each value is in, as text ('20 to 30 eV', its lower end included); None for NaN."""
    labels = [
        f"below {edges[0]:g} {unit}",
        *(f"{low:g} to {high:g} {unit}" for low, high in itertools.pairwise(edges)),
        f"{edges[-1]:g} {unit} and more",
    ]
    values = np.asarray(values, np.float64)
    place = np.searchsorted(np.asarray(edges, np.float64), values, side="right")
    found = np.array(labels, object)[place]
    found[np.isnan(values)] = None
    return found


def cell_order(label: str) -> tuple[float, bool, str]:
    """Sort ranges such as 'below 10 eV' and '10 to 20 eV' by their numbers, then all else by the alphabet."""
    number = re.match(r"(below )?(\d+(?:\.\d+)?) ", label)
    if number is None:
        return math.inf, label == UNKNOWN, label
    return float(number[2]) - (1e-6 if number[1] else 0.0), False, label


def _pool_sizes(data: EvaluationData, found: Comparisons, kind: TaskKind) -> np.ndarray:
    """Return the number of candidate molecules of each query."""
    molecule = found.candidate if kind == "retrieval" else data.molecule[found.candidate]
    distinct = np.unique(np.stack([found.pool, molecule]), axis=1)[0]
    size: np.ndarray = np.bincount(distinct, minlength=int(found.pool_of_query.max(initial=-1)) + 1)[
        found.pool_of_query
    ]
    return size

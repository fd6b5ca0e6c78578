"""What queries are told apart by: how a spectrum was measured, and how hard its question is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from .comparisons import Comparisons
from .dataset import EvaluationData
from .task_files import TaskKind

ENERGY_EDGES, MZ_EDGES, PEAK_EDGES = (10.0, 20.0, 30.0, 40.0, 60.0), (200.0, 300.0, 400.0, 600.0), (5, 10, 20, 50)
POOL_EDGES = (2, 5, 10, 20, 50, 100)


def query_strata(data: EvaluationData, found: Comparisons, kind: TaskKind) -> dict[str, np.ndarray]:
    """Return what the queries are told apart by; object arrays of str or None, of shape (n_queries,)."""
    columns = data.columns
    rows = found.queries
    molecule = found.candidate if kind == "retrieval" else data.molecule[found.candidate]
    distinct = np.unique(np.stack([found.pool, molecule]), axis=1)[0]
    size = np.bincount(distinct, minlength=int(found.pool_of_query.max()) + 1)[found.pool_of_query]
    polarity = np.where(columns.polarity[rows] > 0, "positive", "negative")
    return {
        "polarity": polarity.astype(object),
        "adduct": columns.adduct[rows],
        "instrument_type": columns.instrument_type[rows],
        "collision_energy": binned(columns.collision_energy[rows], ENERGY_EDGES, "eV"),
        "precursor_mz": binned(columns.precursor_mz[rows], MZ_EDGES, "Da"),
        "num_peaks": binned(columns.num_peaks[rows], PEAK_EDGES, "peaks"),
        "pool_size": binned(size, POOL_EDGES, "molecules"),
    }


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

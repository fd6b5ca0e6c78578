"""Where a row can be trusted: at which collision energies (m/z, peaks, ...) it is above chance and the best look-up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .chance import chance_deviations, chance_p, drawn_hits
from .judged import Judged
from .statistics import (
    BootstrapOptions,
    Difference,
    Estimate,
    Measured,
    combine_trainings,
    compare,
    confirmed,
    estimate,
    holm,
    paired_permutation_p,
    resampled_means,
    resamples_of,
    trainings_p,
)

GRIDS: Mapping[str, np.ndarray] = {
    "collision_energy": np.arange(5.0, 201.0, 5.0),
    "precursor_mz": np.arange(100.0, 1501.0, 50.0),
    "num_peaks": np.array([2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200], np.float64),
    "spectral_entropy": np.arange(1, 25) / 4,
    "precursor_survival": np.array([0.001, 0.01, 0.05, *(np.arange(1, 10) / 10)]),
    "nearest_train_tanimoto": np.arange(2, 20) / 20,
}
"""Borders that a bin may begin at (units as in `ionbed.evaluation.query_properties.query_values`); neighbours are put
together until a bin is large enough."""

MOST_BINS = 12
SMALLEST_BIN = 40
"""Queries that a bin must hold."""
FEWEST_MOLECULES = 10
"""Molecules of which they must be."""

PERMUTATIONS = 1999

RANDOM, LOOKUP = "random", "best look-up"
"""What a row is compared with, as in the differences of ``results.json``."""


def trust_tree(
    metric: str,
    own: Judged,
    lookup: Judged | None,
    values: Mapping[str, np.ndarray],
    query_molecule: np.ndarray,
    bootstrap: BootstrapOptions,
    *,
    seed: int,
    unit: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return, by bins of each number, how far a row is above chance and above the best look-up.

    In each bin the row is compared by a bootstrap and a permutation test over the molecules; the p-values are corrected
    (Holm) over the bins of one number and one comparison, so that a bin that is called better by luck alone is as rare
    as elsewhere in the report. Neighbouring bins that are above make a range, whose figures are then taken whole.

    Parameters
    ----------
    metric : str
        Of which more is better, such as 'hit@1'.
    own, lookup : Judged
        The row, and the best look-up (None where there is none), judged on the same queries.
    values : mapping of str to float64 array of shape (n_queries,)
        See `ionbed.evaluation.query_properties.query_values`; names are keys of `GRIDS`, NaN is a bin of its own.
    query_molecule : int64 array of shape (n_queries,)
    unit : int64 array of shape (n_molecules,), optional
        What is resampled and exchanged in place of molecules; see `ionbed.evaluation.task_files.Task`.

    Returns
    -------
    dict
        Ready for JSON: ``metric``; ``against``, the name of the look-up or None; ``by``, for each number its ``bins``
        (see below) in ascending order, ``unknown``, the bin without a number, or None; ``ranges``, for 'random' and
        'best look-up' the runs of bins of one ``verdict`` (not 'unresolved'), each as a bin that is measured whole;
        ``queries in bins too small``.
        A bin has ``from``, ``to``, ``queries``, ``molecules``, ``value`` (estimate), ``random``, ``best look-up`` (mean
        or None), and ``above``: for 'random' and 'best look-up' the ``estimate`` of the difference, ``p``,
        ``p corrected`` and ``verdict``.
    """
    counted = own.counted[metric]
    molecule = query_molecule[counted]
    measuring = _Bins(metric, own, lookup, molecule, unit, bootstrap, seed)
    by: dict[str, Any] = {}
    for name, of_query in values.items():
        numbers = np.asarray(of_query, np.float64)[counted]
        bins = [_bin(measuring, numbers, members, *bounds) for members, bounds in _bins(numbers, molecule, GRIDS[name])]
        missing = np.flatnonzero(np.isnan(numbers))
        unknown = _bin(measuring, numbers, missing, None, None) if _is_enough(missing, molecule) else None
        _correct([*bins, *([unknown] if unknown else [])], bootstrap.confidence)
        shown = sum(found["queries"] for found in [*bins, *([unknown] if unknown else [])])
        by[name] = {
            "bins": bins,
            "unknown": unknown,
            "ranges": {
                role: list(_ranges(measuring, numbers, bins, role)) for role in (RANDOM, LOOKUP) if measuring.has(role)
            },
            "queries in bins too small": len(numbers) - shown,
        }
    return {"metric": metric, "against": None if lookup is None else lookup.name, "by": by}


class _Bins:
    """Measures a row on chosen queries beside chance and the best look-up."""

    def __init__(
        self,
        metric: str,
        own: Judged,
        lookup: Judged | None,
        molecule: np.ndarray,
        unit: np.ndarray | None,
        bootstrap: BootstrapOptions,
        seed: int,
    ) -> None:
        self._own = [part.per_query[metric].value for part in own.parts or (own,)]
        self._others = {RANDOM: own.per_query[metric].random}
        if lookup is not None:
            self._others[LOOKUP] = lookup.per_query[metric].value
        self._is_hit = metric.startswith("hit@")
        self._molecule, self._unit, self._bootstrap, self._seed = molecule, unit, bootstrap, seed

    def has(self, role: str) -> bool:
        return role in self._others

    def measure(self, members: np.ndarray, *, with_p: bool = True) -> dict[str, Any]:
        """Return the figures of a bin of queries; `_correct` makes the verdicts agree with corrected p-values."""
        drawn = resamples_of(self._molecule[members], self._unit, self._bootstrap, seed=self._seed)
        index = drawn.unit_of_query

        def measured(of_query: np.ndarray) -> Measured:
            chosen = of_query[members]
            return Measured(float(chosen.mean()), resampled_means(chosen, index, drawn.weights), drawn.weights.shape[1])

        trainings = [measured(of_query) for of_query in self._own]
        own = combine_trainings(trainings, (0.0, 1.0))
        mean = np.mean([of_query[members] for of_query in self._own], axis=0)
        found: dict[str, Any] = {
            "queries": len(members),
            "molecules": len(drawn.unit),
            "value": asdict(estimate(own, self._bootstrap.confidence)),
            RANDOM: float(self._others[RANDOM][members].mean()),
            LOOKUP: float(self._others[LOOKUP][members].mean()) if LOOKUP in self._others else None,
            "above": {},
        }
        for role, values in self._others.items():
            other = measured(values)
            difference = compare(own, other, role, self._bootstrap.confidence)
            found["above"][role] = {"estimate": asdict(difference.estimate)}
            if with_p:
                p = paired_permutation_p(mean, values[members], index, permutations=PERMUTATIONS, seed=self._seed)
                if role == RANDOM and self._is_hit:
                    p = max(p, self._chance_p(mean, values[members], index))
                if len(trainings) > 1:  # other trainings would have come out otherwise
                    p = max(p, trainings_p(trainings, [other]))
                found["above"][role] |= {"p": p, "verdict": difference.verdict}
        return found

    def _chance_p(self, values: np.ndarray, chance: np.ndarray, unit: np.ndarray) -> float:
        deviations = chance_deviations(drawn_hits(chance), chance, unit, draws=PERMUTATIONS, seed=self._seed)
        return chance_p(values, chance, deviations)


def _bin(
    measuring: _Bins, numbers: np.ndarray, members: np.ndarray, begin: float | None, end: float | None
) -> dict[str, Any]:
    """Return the figures of a bin; where it has no border, it ends at its last number."""
    known = numbers[members][~np.isnan(numbers[members])]
    bounds = {
        "from": begin if begin is not None or not len(known) else float(known.min()),
        "to": end if end is not None or not len(known) else float(known.max()),
    }
    return bounds | measuring.measure(members)


def _bins(
    numbers: np.ndarray, molecule: np.ndarray, grid: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[float | None, float | None]]]:
    """Yield the members of each bin and its borders, None at either end; cells of the grid are put together.

    A border belongs to the bin that begins at it. What is left over at the end goes to the last bin.
    """
    known = np.flatnonzero(~np.isnan(numbers))
    cell = np.searchsorted(grid, numbers[known], side="right")
    least = max(SMALLEST_BIN, len(known) / MOST_BINS)
    ends: list[int] = []
    begin = 0
    for end in range(len(grid) + 1):
        members = known[(cell >= begin) & (cell <= end)]
        if len(members) >= least and _is_enough(members, molecule):
            ends.append(end)
            begin = end + 1
    if not ends:
        return
    ends[-1] = len(grid)
    for first, last in itertools.pairwise([-1, *ends]):
        members = known[(cell > first) & (cell <= last)]
        yield members, (float(grid[first]) if first >= 0 else None, float(grid[last]) if last < len(grid) else None)


def _is_enough(members: np.ndarray, molecule: np.ndarray) -> bool:
    return len(members) >= SMALLEST_BIN and len(np.unique(molecule[members])) >= FEWEST_MOLECULES


def _correct(bins: Sequence[dict[str, Any]], confidence: float) -> None:
    """Correct the p-values over the bins of each comparison, and take back the verdicts that they do not confirm."""
    for role in bins[0]["above"] if bins else ():
        entries = [found["above"][role] for found in bins]
        for entry, corrected in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
            difference = Difference(role, Estimate(**entry["estimate"]), entry["verdict"])
            entry["p corrected"] = corrected
            entry["verdict"] = confirmed(difference, corrected, confidence)


def _ranges(
    measuring: _Bins, numbers: np.ndarray, bins: Sequence[dict[str, Any]], role: str
) -> Iterator[dict[str, Any]]:
    """Yield each run of neighbouring bins that beat, or lose to, ``role``, measured as one."""
    for verdict, run in itertools.groupby(bins, key=lambda found: found["above"][role]["verdict"]):
        if verdict == "unresolved":
            continue
        together = list(run)
        begin, end = together[0]["from"], together[-1]["to"]
        is_last = together[-1] is bins[-1]
        within = (numbers >= begin) & ((numbers <= end) if is_last else (numbers < end))
        figures = measuring.measure(np.flatnonzero(within), with_p=False)
        yield {"verdict": verdict, "from": begin, "to": end} | figures

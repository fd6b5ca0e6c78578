"""Pairs that cost no label, from runs: spectra of one precursor measured again, and the order in which they elute."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError

PAIRS_FILE, RUNS_FILE = "pairs.parquet", "runs.parquet"

PAIRS_SCHEMA = pa.schema(
    [
        pa.field("row_a", pa.int64(), nullable=False),
        pa.field("row_b", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("retention_time_difference", pa.float32(), nullable=False),
        pa.field("precursor_difference", pa.float32(), nullable=False),
    ]
)
"""Two rows of the store, ``row_a`` < ``row_b``, each two once. ``kind`` is 'repeat' (same collision energy, or none
stated for either) or 'energy' (different ones); the differences are b less a, in s and in ppm."""

RUNS_SCHEMA = pa.schema(
    [
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("num_rows", pa.int64(), nullable=False),
        pa.field("retention_time_min", pa.float32(), nullable=False),
        pa.field("retention_time_max", pa.float32(), nullable=False),
        pa.field("polarities", pa.list_(pa.int8()), nullable=False),
    ]
)
"""One run: its rows in the store lie together. Retention times in s; ``polarities`` holds +1, -1, or both."""

LOOK_AHEAD = 256
"""A spectrum is compared with so many later ones of about its precursor m/z at most: what a fast instrument measures of
one precursor in half a minute, and a bound for files that give nearly the same time to all."""

_KINDS = ("repeat", "energy")
_SAME_ENERGY = 0.5  # eV; energies from NCE vary with the measured precursor m/z in the last digits
_MAX_ROUNDS = 200


@dataclass(frozen=True)
class PairOptions:
    """Which spectra of a run make a pair.

    Attributes
    ----------
    partners : int
        Each spectrum is paired with at most so many later ones of the same collision energy, and with as many of
        others; the nearest in time come first. 0 makes no pairs.
    time_window : float
        In s. Spectra further apart in retention time are no pair: isomers elute at their own times. The default is
        longer than the time for which instruments usually exclude a precursor that they have just measured.
    precursor_ppm : float
        Spectra whose precursor m/z differ by more are no pair.
    """

    partners: int = 4
    time_window: float = 30.0
    precursor_ppm: float = 10.0

    def __post_init__(self) -> None:
        if self.partners < 0:
            raise ValueError(f"partners is {self.partners}; it must be 0 (no pairs) or more")
        if not 0.0 < self.time_window < float("inf"):
            raise ValueError(f"time_window is {self.time_window}; it must be above 0 s")
        if not 0.0 < self.precursor_ppm <= 1000.0:
            raise ValueError(f"precursor_ppm is {self.precursor_ppm}; it must be above 0 and at most 1000 ppm")


def is_run(retention_time: np.ndarray, ms_level: np.ndarray, labelled: np.ndarray) -> bool:
    """Whether the rows of one source file, in the order of the file, are the MS/MS scans of one run.

    They are if none has a structure, all are of MS level 2 or higher, nearly all (95%) have a retention time, and time
    runs forward: all steps back together are at most 5% of the span. Two runs written into one file, and lists of
    features in the order of their mass, are none: their times are not of one clock, or not of single scans.

    Parameters
    ----------
    retention_time : float array of shape (n,)
        In s, NaN where unknown.
    ms_level : int array of shape (n,)
        0 where unknown.
    labelled : bool array of shape (n,)
        Whether the structure is known.
    """
    times = retention_time[~np.isnan(retention_time)]
    if len(times) < 2 or len(times) < 0.95 * len(retention_time) or labelled.any() or (ms_level < 2).any():
        return False
    steps = np.diff(times.astype(np.float64))
    span = float(times.max()) - float(times.min())
    return span > 0.0 and -float(steps[steps < 0].sum()) <= 0.05 * span


def describe_run(source_file: str, first_row: int, retention_time: np.ndarray, polarity: np.ndarray) -> pa.Table:
    """Return one row of `RUNS_SCHEMA` for a run whose rows begin at ``first_row`` of the store.

    ``retention_time`` and ``polarity`` are of shape (n,), NaN and 0 where unknown; at least one time is known.
    """
    row: dict[str, Any] = {
        "source_file": source_file,
        "first_row": first_row,
        "num_rows": len(retention_time),
        "retention_time_min": float(np.nanmin(retention_time)),
        "retention_time_max": float(np.nanmax(retention_time)),
        "polarities": sorted({int(sign) for sign in polarity} - {0}),
    }
    return pa.Table.from_pylist([row], schema=RUNS_SCHEMA)


def pairs_of_run(
    precursor_mz: np.ndarray,
    retention_time: np.ndarray,
    polarity: np.ndarray,
    charge: np.ndarray,
    collision_energy: np.ndarray,
    first_row: int,
    options: PairOptions = PairOptions(),
) -> pa.Table:
    """Return the pairs of one run: spectra of one precursor, close in time, that no person had to label.

    Two spectra may be a pair if their polarities are equal, their charges are equal or one is unknown, and precursor
    m/z and retention time agree within the options. Taken in the order of time, each is paired with the next
    ``options.partners`` of the same collision energy (within 0.5 eV, or both unknown) and with as many of other
    energies. Rows without a retention time have no pairs. Time and memory grow with the number of rows (`LOOK_AHEAD`).

    Parameters
    ----------
    precursor_mz, retention_time : float arrays of shape (n,)
        In Da per charge; in s, NaN where unknown.
    polarity, charge : int arrays of shape (n,)
        0 where unknown.
    collision_energy : float array of shape (n,)
        In eV, NaN where unknown.
    first_row : int
        Where the run begins in the store.

    Returns
    -------
    pyarrow.Table of `PAIRS_SCHEMA`
        In the order of ``row_a``, then ``row_b``.
    """
    rows = np.flatnonzero(~np.isnan(retention_time))
    if not len(rows) or not options.partners:
        return PAIRS_SCHEMA.empty_table()
    mz, time = np.asarray(precursor_mz, np.float64)[rows], np.asarray(retention_time, np.float64)[rows]
    polarity, charge, energy = polarity[rows], charge[rows], np.asarray(collision_energy, np.float64)[rows]
    tolerance = options.precursor_ppm * 1e-6

    # One ascending number says both the cell of precursor m/z and the place in time. What is within the tolerance lies
    # in the same cell or a neighbouring one: each row has three cursors, one at its place in time in each of the three.
    count = len(rows)
    place_in_time = np.empty(count, np.int64)
    place_in_time[np.lexsort((rows, time))] = np.arange(count)
    cell = np.floor(np.log(mz) / (1.01 * tolerance)).astype(np.int64)
    cell -= cell.min()
    number = cell * count + place_in_time
    ordered = np.argsort(number)
    cells = np.concatenate([cell - 1, cell, cell + 1])
    begin = np.searchsorted(number[ordered], cells * count + np.tile(place_in_time, 3), "right")
    end = np.searchsorted(number[ordered], (cells + 1) * count, "left")

    num_found = np.zeros((len(begin), len(_KINDS)), np.int64)
    found = [np.empty((3, 0), np.int64)]
    cursors = np.arange(len(begin))
    for step in range(LOOK_AHEAD):
        cursors = cursors[begin[cursors] + step < end[cursors]]
        a, b = cursors % count, ordered[begin[cursors] + step]
        in_time = time[b] - time[a] <= options.time_window
        cursors, a, b = cursors[in_time], a[in_time], b[in_time]
        if not len(cursors):
            break
        unknown = np.isnan(energy[a]), np.isnan(energy[b])
        kind = np.where((unknown[0] & unknown[1]) | (np.abs(energy[a] - energy[b]) <= _SAME_ENERGY), 0, 1)
        pairs = (np.abs(mz[a] - mz[b]) <= np.maximum(mz[a], mz[b]) * tolerance) & (unknown[0] == unknown[1])
        pairs &= (polarity[a] == polarity[b]) & ((charge[a] == charge[b]) | (charge[a] == 0) | (charge[b] == 0))
        pairs &= num_found[cursors, kind] < options.partners
        num_found[cursors[pairs], kind[pairs]] += 1
        found.append(np.stack([a[pairs], b[pairs], kind[pairs]]))
        cursors = cursors[(num_found[cursors] < options.partners).any(axis=1)]
    a, b, kind = np.concatenate(found, axis=1)
    nearest = _first_of_each(a * len(_KINDS) + kind, place_in_time[b], options.partners)
    a, b, kind = a[nearest], b[nearest], kind[nearest]
    a, b = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((b, a))
    a, b, kind = a[order], b[order], kind[order]
    return pa.table(
        [
            first_row + rows[a],
            first_row + rows[b],
            pa.array(np.array(_KINDS, object)[kind], pa.string()),
            (time[b] - time[a]).astype(np.float32),
            ((mz[b] - mz[a]) / np.maximum(mz[a], mz[b]) * 1e6).astype(np.float32),
        ],
        schema=PAIRS_SCHEMA,
    )


def retention_order_pairs(
    rng: np.random.Generator,
    runs: pa.Table,
    retention_time: np.ndarray,
    precursor_mz: np.ndarray,
    n: int,
    *,
    min_difference: float = 15.0,
    min_precursor_ppm: float = 50.0,
) -> np.ndarray:
    """Draw pairs of rows of which the first elutes before the second, both of one run.

    A run is drawn in proportion to its rows, two rows in it with equal chances; what is too close in time, or of one
    precursor m/z (whose order says nothing of structure), or without a retention time, is drawn again.

    Parameters
    ----------
    rng : numpy.random.Generator
    runs : pyarrow.Table of `RUNS_SCHEMA`
    retention_time, precursor_mz : float arrays, one value for each row of the store
        In s, NaN where unknown; in Da per charge.
    n : int
        Pairs to draw, with replacement.
    min_difference : float
        In s, of the two retention times.
    min_precursor_ppm : float
        Of the two precursor m/z.

    Returns
    -------
    int64 array of shape (n, 2)

    Raises
    ------
    ValueError
        The runs have no such pairs, or next to none.
    """
    first, num_rows = runs["first_row"].to_numpy(), runs["num_rows"].to_numpy()
    span = runs["retention_time_max"].to_numpy() - runs["retention_time_min"].to_numpy()
    usable = (span >= min_difference) & (num_rows > 1)
    first, ends = first[usable], np.cumsum(num_rows[usable])
    num_rows = num_rows[usable]
    pairs = np.empty((0, 2), np.int64)
    for _ in range(_MAX_ROUNDS if len(first) else 0):
        if len(pairs) >= n:
            break
        run = np.searchsorted(ends, rng.integers(0, ends[-1], n), "right")
        drawn = first[run, None] + rng.integers(0, num_rows[run, None], (n, 2))
        times, mz = retention_time[drawn].astype(np.float64), precursor_mz[drawn]
        fits = np.abs(times[:, 0] - times[:, 1]) >= min_difference  # false for NaN
        fits &= np.abs(mz[:, 0] - mz[:, 1]) > mz.max(axis=1) * (min_precursor_ppm * 1e-6)
        drawn, times = drawn[fits], times[fits]
        pairs = np.concatenate([pairs, np.take_along_axis(drawn, np.argsort(times, axis=1), axis=1)])
    if len(pairs) < n:
        raise ValueError(
            f"{len(runs)} runs gave {len(pairs):,} of {n:,} pairs that are {min_difference} s and {min_precursor_ppm} "
            "ppm apart; ask for smaller differences"
        )
    return pairs[:n]


def read_pairs(store: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Return the pairs of a store (`PAIRS_SCHEMA`, or the named columns of it).

    Raises
    ------
    InputError
        The store has no pairs, or they are damaged.
    """
    return _read(Path(store) / PAIRS_FILE, PAIRS_SCHEMA, columns)


def read_runs(store: str | os.PathLike[str]) -> pa.Table:
    """Return the runs of a store (`RUNS_SCHEMA`); raises `InputError` where it has none or they are damaged."""
    return _read(Path(store) / RUNS_FILE, RUNS_SCHEMA)


def _read(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path}: is missing; run 'ionbed prepare' again with runs (mzML, mzXML) among its inputs")
    try:
        found = pq.read_schema(path)
        table = pq.read_table(path, columns=columns) if found.equals(schema) else None
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: is damaged ({reason}); run 'ionbed prepare' again") from None
    if table is None:
        raise InputError(f"{path}: does not have the columns it should; run 'ionbed prepare' again")
    return table


def _first_of_each(group: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the ``count`` lowest places of each group."""
    order = np.lexsort((place, group))
    begins = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0]) if len(order) else np.empty(0, np.int64)
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(order)]))
    return order[rank < count]

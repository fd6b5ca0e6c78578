"""The runs of a store: which are held out, and what is known of each of their spectra."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifacts import sha256_of_file
from ..errors import InputError
from ..spectra.pairs import PAIRS_FILE, RUNS_FILE, read_runs
from ..spectra.store import Store


@dataclass(frozen=True, eq=False)
class StoreRuns:
    """The runs of a store whose spectra may be compared.

    Attributes
    ----------
    table : pyarrow.Table of `ionbed.spectra.pairs.RUNS_SCHEMA`
    held_out : bool array of shape (n_runs,)
        Runs for validation alone.
    held_out_rows : bool array, one value for each row of the store
        Whether the row is of such a run.
    allowed : bool array, one value for each row of the store
        Whether the row is in a fold to train on.
    retention_time : float32 array, one value for each row of the store
        In s, NaN where unknown.
    precursor_mz : float64 array, one value for each row of the store
    num_tokens : int array, one value for each row of the store
    """

    table: pa.Table
    held_out: np.ndarray
    held_out_rows: np.ndarray
    allowed: np.ndarray
    retention_time: np.ndarray
    precursor_mz: np.ndarray
    num_tokens: np.ndarray

    @classmethod
    def read(
        cls,
        store: Path,
        manifest: Mapping[str, Any],
        rows: np.ndarray,
        precursor_mz: np.ndarray,
        num_tokens: np.ndarray,
        validation_share: float,
    ) -> StoreRuns:
        """Read the runs of a store with its manifest; ``rows`` are those of the folds to train on.

        Runs are held out by the hash of their file's name, whatever the seed: what two trainings are judged by is the
        same.

        Raises
        ------
        InputError
            The store has no runs, or they are damaged.
        """
        check_unchanged(store, "runs", manifest)
        table = read_runs(store)
        allowed = np.zeros(len(precursor_mz), bool)
        allowed[rows] = True
        names = table["source_file"].to_pylist()
        order = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in names], kind="stable")
        held_out = np.zeros(len(names), bool)
        held_out[order[: min(round(validation_share * len(names)), len(names) - 1)]] = True
        held_out_rows = np.zeros(len(precursor_mz), bool)
        for run in np.flatnonzero(held_out):
            first = table["first_row"][run].as_py()
            held_out_rows[first : first + table["num_rows"][run].as_py()] = True
        times = Store(store).table(["retention_time"])["retention_time"]
        return cls(
            table=table,
            held_out=held_out,
            held_out_rows=held_out_rows,
            allowed=allowed,
            retention_time=times.fill_null(float("nan")).to_numpy().astype(np.float32, copy=False),
            precursor_mz=precursor_mz,
            num_tokens=num_tokens,
        )

    @property
    def first_row(self) -> np.ndarray:
        """First row of each run."""
        first: np.ndarray = self.table["first_row"].to_numpy()
        return first

    @property
    def num_rows(self) -> np.ndarray:
        """Number of rows of each run."""
        count: np.ndarray = self.table["num_rows"].to_numpy()
        return count


def check_unchanged(store: Path, kind: str, manifest: Mapping[str, Any]) -> None:
    """Raise `InputError` if a store's file of ``kind`` 'runs' or 'pairs' is there, but not as the manifest says."""
    path = store / {"runs": RUNS_FILE, "pairs": PAIRS_FILE}[kind]
    if not path.is_file():
        return  # its reader says how to mend that
    entry = manifest.get("pairs", {}).get(kind)
    if entry is None or sha256_of_file(path) != entry["sha256"]:
        raise InputError(f"{path}: is not the file that the manifest describes; run 'ionbed prepare' again")

"""Pairs that cost no label: found run by run in the store that has just been written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...artifacts import sha256_of_file
from ..pairs import PAIRS_FILE, PAIRS_SCHEMA, RUNS_FILE, RUNS_SCHEMA, PairOptions, describe_run, is_run, pairs_of_run
from .assemble import read_rows, source_spans

if TYPE_CHECKING:
    from .workers import Workers

ROWS_PER_TASK = 200_000
LARGEST_RUN = 2_000_000
"""Spectra; no run of an instrument has more, but libraries have."""

Span = tuple[str, int, int]
_COLUMNS = (
    "retention_time", "ms_level", "smiles", "inchikey", "formula", "precursor_mz", "polarity", "charge",
    "collision_energy",
)  # fmt: skip


def write_pairs(
    workers: Workers,
    folder: Path,
    shards: Sequence[dict[str, Any]],
    sources: Sequence[tuple[str | None, int]],
    options: PairOptions,
) -> dict[str, Any]:
    """Write the runs of a store and the pairs in them, if there are any; return their entries for the manifest.

    Parameters
    ----------
    shards : sequence of dict
        The manifest's entries.
    sources : sequence of (source file or None, number of rows)
        What the rows of the store are of, in order; neighbours may be of one file.
    """
    task = partial(_of_files, folder=folder, shards=tuple(shards), options=options)
    num_runs = num_pairs = 0
    names = {"runs": RUNS_FILE, "pairs": PAIRS_FILE}
    marks = {kind: folder / f".{name}.partial" for kind, name in names.items()}
    with ExitStack() as stack:
        runs_writer = stack.enter_context(pq.ParquetWriter(marks["runs"], RUNS_SCHEMA, compression="zstd"))
        pairs_writer = stack.enter_context(pq.ParquetWriter(marks["pairs"], PAIRS_SCHEMA, compression="zstd"))
        for runs, pairs in workers.map(task, _in_groups(source_spans(sources))):
            num_runs, num_pairs = num_runs + len(runs), num_pairs + len(pairs)
            if len(runs):
                runs_writer.write_table(runs)
                pairs_writer.write_table(pairs)
    entries: dict[str, Any] = {}
    for kind, count in (("runs", num_runs), ("pairs", num_pairs)):
        if not num_runs:
            marks[kind].unlink()
            continue
        os.replace(marks[kind], folder / names[kind])
        entries[kind] = {"file": names[kind], "rows": count, "sha256": sha256_of_file(folder / names[kind])}
    return entries


def _in_groups(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield the files that may be runs, some thousand spectra at a time."""
    group: list[Span] = []
    for span in spans:
        if 2 <= span[2] <= LARGEST_RUN:
            group.append(span)
        if sum(count for _, _, count in group) >= ROWS_PER_TASK:
            yield group
            group = []
    if group:
        yield group


def _of_files(
    spans: Sequence[Span], *, folder: Path, shards: Sequence[dict[str, Any]], options: PairOptions
) -> tuple[pa.Table, pa.Table]:
    runs, pairs = [RUNS_SCHEMA.empty_table()], [PAIRS_SCHEMA.empty_table()]
    for name, first_row, num_rows in spans:
        table = read_rows(folder, shards, first_row, first_row + num_rows, _COLUMNS)
        time, energy = (_floats(table[column]) for column in ("retention_time", "collision_energy"))
        level, polarity, charge = (_integers(table[column]) for column in ("ms_level", "polarity", "charge"))
        labelled = np.zeros(num_rows, bool)
        for column in ("smiles", "inchikey", "formula"):
            labelled |= pc.is_valid(table[column]).to_numpy()
        if not is_run(time, level, labelled):
            continue
        runs.append(describe_run(name, first_row, time, polarity))
        if options.partners:
            mz = table["precursor_mz"].to_numpy()
            pairs.append(pairs_of_run(mz, time, polarity, charge, energy, first_row, options))
    return pa.concat_tables(runs), pa.concat_tables(pairs)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column, float("nan")).to_numpy()


def _integers(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column, 0).to_numpy()

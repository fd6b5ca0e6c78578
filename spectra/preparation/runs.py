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
from .assemble import source_spans

if TYPE_CHECKING:
    from .workers import Workers

ROWS_PER_TASK = 200_000
LARGEST_RUN = 500_000
"""Spectra; hardly a run of an instrument has more, but libraries have, and pairs of more would need too much memory."""

Span = tuple[str, int, int]
_NUMBERS = {
    "retention_time": float("nan"), "collision_energy": float("nan"), "precursor_mz": float("nan"), "ms_level": 0,
    "polarity": 0, "charge": 0,
}  # fmt: skip
"""What pairs are found by, and what stands for a value that is not known."""
_LABELS = ("smiles", "inchikey", "formula")


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
    """Yield the files that may be runs, in groups that span no more rows of the store than one task reads at once."""
    group: list[Span] = []
    for span in spans:
        if not 2 <= span[2] <= LARGEST_RUN:
            continue
        if group and span[1] + span[2] - group[0][1] > ROWS_PER_TASK:
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _of_files(
    spans: Sequence[Span], *, folder: Path, shards: Sequence[dict[str, Any]], options: PairOptions
) -> tuple[pa.Table, pa.Table]:
    runs, pairs = [RUNS_SCHEMA.empty_table()], [PAIRS_SCHEMA.empty_table()]
    start = spans[0][1]
    rows = _read_rows(folder, shards, start, spans[-1][1] + spans[-1][2])
    for name, first_row, num_rows in spans:
        mine = {column: values[first_row - start : first_row - start + num_rows] for column, values in rows.items()}
        time, polarity = mine["retention_time"], mine["polarity"]
        if not is_run(time, mine["ms_level"], mine["labelled"]):
            continue
        runs.append(describe_run(name, first_row, time, polarity))
        if options.partners:
            charge, energy = mine["charge"], mine["collision_energy"]
            pairs.append(pairs_of_run(mine["precursor_mz"], time, polarity, charge, energy, first_row, options))
    return pa.concat_tables(runs), pa.concat_tables(pairs)


def _read_rows(folder: Path, shards: Sequence[dict[str, Any]], start: int, stop: int) -> dict[str, np.ndarray]:
    """Return what pairs need of rows ``[start, stop)`` of a store that is being written, numbers only."""
    pieces, first = [], 0
    for shard in shards:
        last = first + shard["spectra"]
        if first < stop and last > start:
            with pq.ParquetFile(folder / shard["file"], memory_map=True) as file:
                for i in range(file.num_row_groups):
                    rows = file.metadata.row_group(i).num_rows
                    if first < stop and first + rows > start:
                        table = file.read_row_group(i, columns=[*_NUMBERS, *_LABELS])
                        pieces.append(_numbers(table.slice(max(start - first, 0), stop - max(start, first))))
                    first += rows
        first = last
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _numbers(table: pa.Table) -> dict[str, np.ndarray]:
    columns = {name: pc.fill_null(table[name], unknown).to_numpy() for name, unknown in _NUMBERS.items()}
    columns["labelled"] = np.logical_or.reduce([pc.is_valid(table[name]).to_numpy() for name in _LABELS])
    return columns

"""The last stage of `prepare`: what stays of the parts is written as shards, what goes is listed, pairs are found."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...artifacts import atomic_file, sha256_of_file
from ..harmonise import Dropped
from ..store import SCHEMA, SHARD_NAME, write_shard
from .parts import Parts, dropped_line, list_path, scratch_file
from .shuffle import GRADES, Decisions, file_grades, final_grades, new_names

if TYPE_CHECKING:
    from .workers import Workers

DROPPED_HEADER = "source_file\tposition\tnative_id\treason\tdetail\n"
WORLD_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of shards for small stores; larger ones have a multiple of the last."""


@dataclass(frozen=True)
class Shard:
    """What one task writes: rows ``[first, stop)`` of those that stay, which lie in parts ``[first_part, stop_part)``.

    ``skip`` rows that stay in the first of these parts belong to the shard before.
    """

    number: int
    num_rows: int
    parts: range
    skip: int


def plan_shards(kept: np.ndarray, rows_per_shard: int) -> list[Shard]:
    """Return shards of equal size (to one row), as many as divide among 2, 4, 8, ... training processes.

    Parameters
    ----------
    kept : int64 array of shape (n_parts,)
        Rows that stay, of each part.
    """
    total = int(kept.sum())
    wanted = -(-total // rows_per_shard)
    number = next((n for n in WORLD_SIZES if n >= wanted), -(-wanted // WORLD_SIZES[-1]) * WORLD_SIZES[-1])
    number = min(number, total)  # none is empty
    ends = np.cumsum(kept)
    shards = []
    for i, (start, stop) in enumerate(pairwise(total * n // number for n in range(number + 1))):
        first_part = int(np.searchsorted(ends, start, side="right"))
        stop_part = int(np.searchsorted(ends, stop, side="left")) + 1
        shards.append(
            Shard(i, stop - start, range(first_part, stop_part), start - int(ends[first_part] - kept[first_part]))
        )
    return shards


def kept_of_parts(parts: Parts, decisions: Decisions) -> np.ndarray:
    """Return how many rows of each part stay, int64 of shape (n_parts,)."""
    offsets = parts.offsets
    kept = np.array(parts.num_rows, np.int64)
    for _, path in decisions.files:
        rows = np.load(path, mmap_mode="r")
        kept -= np.diff(np.searchsorted(rows, offsets))
    return kept


def write_shards(
    workers: Workers, parts: Parts, decisions: Decisions, names: Sequence[Path], shards: Sequence[Shard], folder: Path
) -> Iterator[dict[str, Any]]:
    """Write the shards into ``folder``; yield for each its manifest entry, counts, and the source files in it.

    A worker writes into the scratch folder, so that nothing of one that is killed stays in the store.
    """
    for written in workers.map(partial(_write_shard, parts=parts, decisions=decisions, names=tuple(names)), shards):
        file = written["entry"]["file"]
        os.replace(parts.folder / file, folder / file)
        yield written


def _write_shard(shard: Shard, *, parts: Parts, decisions: Decisions, names: Sequence[Path]) -> dict[str, Any]:
    offsets, by_library = parts.offsets, file_grades(parts)
    tables, repaired, flagged, grades = [], Counter[str](), Counter[str](), Counter[str]()
    left, skip = shard.num_rows, shard.skip
    for part in shard.parts:
        start, stop = int(offsets[part]), int(offsets[part + 1])
        rows = np.flatnonzero(decisions.kept(start, stop))[skip : skip + left]
        skip = 0
        left -= len(rows)
        if not len(rows):
            continue
        table = parts.take(part, start + rows, [*SCHEMA.names, "library"])
        grade = [GRADES[place] for place in final_grades(table, by_library).tolist()]
        repaired.update(table["repairs"].combine_chunks().flatten().to_pylist())
        flagged.update(table["flags"].combine_chunks().flatten().to_pylist())
        grades.update(grade)
        table = table.select(SCHEMA.names).set_column(SCHEMA.get_field_index("grade"), SCHEMA.field("grade"), [grade])
        tables.append(_with_new_names(table, rows + start, new_names(names, start, stop)))
    assert left == 0
    whole = pa.concat_tables(tables).combine_chunks()  # one chunk, so that the bytes do not tell of the parts
    path = parts.folder / SHARD_NAME.format(shard.number)
    with scratch_file(path) as partial_file:
        write_shard(whole, partial_file)
    return {
        "entry": {"file": path.name, "spectra": len(whole), "sha256": sha256_of_file(path)},
        "repaired": repaired,
        "flagged": flagged,
        "grades": grades,
        "sources": [(name, len(list(rows))) for name, rows in groupby(whole["source_file"].to_pylist())],
    }


def _with_new_names(table: pa.Table, rows: np.ndarray, names: dict[int, str]) -> pa.Table:
    if not names:
        return table
    ids = [names.get(row, name) for row, name in zip(rows.tolist(), table["spectrum_id"].to_pylist(), strict=True)]
    return table.set_column(0, SCHEMA.field(0), [ids])


def list_dropped(workers: Workers, parts: Parts, decisions: Decisions, path: Path) -> Iterator[dict[str, Any]]:
    """Write the list of all records that were dropped; yield for groups of parts what became of each library.

    Each yielded value maps a library's name to {'dropped': {reason: n}, 'grades': {grade: n}}: rows that went after
    they had been read, and rows that stay.
    """
    with atomic_file(path) as partial_file, open(partial_file, "wb") as whole:
        whole.write(DROPPED_HEADER.encode())
        task = partial(_list_group, parts=parts, decisions=decisions)
        for file, counts in workers.map(task, list(enumerate(parts.groups()))):
            with open(file, "rb") as piece:
                shutil.copyfileobj(piece, whole)
            yield counts


def _list_group(numbered: tuple[int, range], *, parts: Parts, decisions: Decisions) -> tuple[Path, dict[str, Any]]:
    number, group = numbered
    path = parts.folder / f"list-{number:06d}.tsv"
    offsets, by_library = parts.offsets, file_grades(parts)
    counts: dict[str, dict[str, Counter[str]]] = {}
    with scratch_file(path) as partial_file, open(partial_file, "wb") as listing:
        for part in group:
            with open(list_path(parts.folder, part), "rb") as read_stage:
                shutil.copyfileobj(read_stage, listing)
            start, stop = int(offsets[part]), int(offsets[part + 1])
            if start == stop:
                continue
            reasons = np.full(stop - start, "", object)
            for reason, rows in decisions.between(start, stop):
                reasons[rows - start] = reason
            for first, table in parts.batches(part, ["source_file", "position", "native_id", "library", "grade"]):
                mine = reasons[first - start : first - start + len(table)]
                went = np.flatnonzero(mine != "")
                for row, reason in zip(table.take(pa.array(went)).to_pylist(), mine[went], strict=True):
                    file, native_id = row["source_file"] or "", row["native_id"] or ""
                    line = dropped_line(file, row["position"], native_id, Dropped(reason))
                    listing.write(line.encode("utf-8", "replace"))
                grades = final_grades(table, by_library)
                for library, reason, grade in zip(table["library"].to_pylist(), mine, grades.tolist(), strict=True):
                    seen = counts.setdefault(library, {"dropped": Counter(), "grades": Counter()})
                    if reason:
                        seen["dropped"][reason] += 1
                    else:
                        seen["grades"][GRADES[grade]] += 1
    return path, counts


def source_spans(sources: Sequence[tuple[str | None, int]]) -> list[tuple[str, int, int]]:
    """Return (source file, first row, number of rows) of each file in the store; neighbours of one name are one."""
    merged = [
        (name, sum(count for _, count in group)) for name, group in groupby(sources, key=lambda source: source[0])
    ]
    starts = accumulate((count for _, count in merged), initial=0)
    return [(name, start, count) for (name, count), start in zip(merged, starts, strict=False) if name is not None]

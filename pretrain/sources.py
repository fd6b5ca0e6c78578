"""Whose spectra a model was trained on, and under which licences: what its card has to name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InputError
from ..spectra.measured_ranges import measured_ranges
from ..spectra.store import Store
from .licenses import NOT_STATED

MAX_CONTRIBUTORS = 1000
"""Contributors that a model's record names under one licence; the smallest beyond them are counted together."""

OTHERS = "others"

MOST_MEASURED = 1_000_000
"""Spectra whose ranges are taken, evenly spaced: of more, the ranges would be the same."""


def sources_of(store: Store, rows: np.ndarray) -> dict[str, dict[str, int]]:
    """Return how many of the spectra at ``rows`` each contributor gave, by licence.

    A contributor is the laboratory, or the file that a spectrum came from where no laboratory is known. One shard is
    read at a time.

    Parameters
    ----------
    rows : int array of shape (n,)
        Rows of the store, in any order.

    Raises
    ------
    InputError
        A shard cannot be read.
    """
    counts: dict[str, Counter[str]] = {}
    for table in _rows_by_shard(store, rows, ["license", "laboratory", "source_file"]):
        files = pc.replace_substring_regex(table["source_file"], r"(^|!)[^!]*$", "")  # of an archive: its own name
        files = pc.if_else(pc.equal(files, ""), table["source_file"], files)
        files = pc.replace_substring_regex(files, r"^.*/", "")
        named = pa.table({
            "license": pc.fill_null(table["license"], NOT_STATED),
            "contributor": pc.fill_null(pc.coalesce(table["laboratory"], files), NOT_STATED),
        })  # fmt: skip
        grouped = named.group_by(["license", "contributor"]).aggregate([([], "count_all")])
        for entry in grouped.to_pylist():
            counts.setdefault(entry["license"], Counter())[entry["contributor"]] += entry["count_all"]
    return {name: _largest(counts[name]) for name in sorted(counts)}


def ranges_of(store: Store, rows: np.ndarray) -> dict[str, Any]:
    """Return the `measured_ranges` of the spectra at ``rows``, or of `MOST_MEASURED` of them; see `sources_of`."""
    rows = rows[:: -(-len(rows) // MOST_MEASURED)] if len(rows) else rows
    tables = list(_rows_by_shard(store, rows, ["precursor_mz", "polarity", "charge", "mz"]))
    if not any(map(len, tables)):
        return {}
    columns: list[list[np.ndarray]] = [
        [table["precursor_mz"].to_numpy() for table in tables],
        *([table[name].fill_null(0).to_numpy() for table in tables] for name in ("polarity", "charge")),
        [pc.list_value_length(table["mz"]).to_numpy() for table in tables],
    ]
    return measured_ranges(*map(np.concatenate, columns))


def num_predicted(store: Store, rows: np.ndarray) -> int:
    """Return how many of the spectra at ``rows`` a program predicted; see `sources_of`."""
    return sum(pc.sum(table["predicted"]).as_py() for table in _rows_by_shard(store, rows, ["predicted"]))


def _rows_by_shard(store: Store, rows: np.ndarray, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns of the spectra at ``rows``, a table for each shard that holds any."""
    ends = np.cumsum([shard["spectra"] for shard in store.manifest["shards"]])
    parts = np.split(np.sort(rows), np.searchsorted(np.sort(rows), ends[:-1]))
    for path, start, part in zip(store.shards, [0, *ends[:-1]], parts, strict=True):
        if not len(part):
            continue
        try:
            table = pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:100]})") from None
        yield table.take(pa.array(part - start))


def _largest(counts: Counter[str]) -> dict[str, int]:
    kept = dict(sorted(counts.most_common(MAX_CONTRIBUTORS)))
    rest = counts.total() - sum(kept.values())
    return {**kept, OTHERS: kept.get(OTHERS, 0) + rest} if rest else kept


def licenses_of(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the licences of all data of all stages of training (`IonbedConfig.training`).

    `NOT_STATED` is among them where a stage does not say whose spectra it used, and where there is no stage.
    """
    found: set[str] = set() if stages else {NOT_STATED}
    for stage in stages:
        found |= set(stage.get("sources") or {NOT_STATED: {}})
    return sorted(found)

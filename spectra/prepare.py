"""``ionbed prepare``: from files of spectra to a store of harmonised, cleaned, deduplicated spectra, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from ..artifacts import (
    atomic_folder,
    describe_input,
    refuse_existing,
    refuse_input_as_output,
    sha256_of_file,
    write_manifest,
)
from ..errors import InputError
from ..progress import progress
from .cleaning import CleaningOptions
from .deduplication import FirstSeen, UniqueNames, measurement_key
from .harmonise import Dropped, harmonise
from .readers import parse_block, read_blocks
from .readers.blocks import Block
from .store import SHARD_NAME, table_from_spectra, write_shard

DROPPED_FILE = "dropped.tsv"
"""Lists every record that was dropped: source_file, position, native_id, reason, detail."""


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare` keeps.

    Attributes
    ----------
    ms_levels : tuple of int
        The MS levels that are kept; a record that does not state its level is taken.
    cleaning : CleaningOptions
    licenses : tuple of str or None
        The licences that are kept, as the records write them (``CC BY``, ``CC0``); a version number (``4.0``), case,
        blanks and hyphens do not matter. A record without a licence is then dropped. None keeps all.
    rows_per_shard : int
        Spectra in one Parquet file.
    """

    ms_levels: tuple[int, ...] = (2,)
    cleaning: CleaningOptions = field(default_factory=CleaningOptions)
    licenses: tuple[str, ...] | None = None
    rows_per_shard: int = 131_072

    def __post_init__(self) -> None:
        if not self.ms_levels or min(self.ms_levels) < 1:
            raise ValueError(f"ms_levels is {self.ms_levels}; it must name at least one level, each 1 or more")
        if self.licenses is not None and not self.licenses:
            raise ValueError("licenses is an empty list, which would drop every spectrum; name some, or null for all")
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is {self.rows_per_shard}; it must be 1 or more")


def prepare(
    inputs: Sequence[Path],
    out: Path,
    *,
    options: PrepareOptions = PrepareOptions(),
    workers: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Read spectra, bring them to one form, drop exact duplicates, and write a store (`ionbed.spectra.store.Store`).

    The folder appears whole or not at all, and its bytes depend on the inputs and the options only, not on the
    number of workers. With more than one worker, processes are started by ``spawn``: a script that calls this needs the
    usual ``if __name__ == "__main__":``.

    Parameters
    ----------
    inputs : sequence of paths
        Files, folders or archives; see `ionbed.spectra.readers`.
    out : path
        The folder to write.
    workers : int, optional
        Processes that parse; by default as many as this process may use cores.
    overwrite : bool
        Replace what is in ``out``.

    Returns
    -------
    dict
        The manifest. Of its counts, ``read`` = ``kept`` + the sum of ``dropped`` (by reason); ``repaired`` counts
        what was mended in kept spectra.

    Raises
    ------
    InputError
        An input is missing, empty or of no known format; no spectrum can be used; ``out`` exists, or lies in an input.
    RuntimeError
        A worker process died.
    """
    inputs, out = [Path(path) for path in inputs], Path(out)
    workers = _usable_cores() if workers is None else workers
    _check(inputs, out, workers)
    refuse_existing(out, overwrite=overwrite)
    blocks = chain.from_iterable([read_blocks(path) for path in inputs])  # the list: a missing input is told at once
    with atomic_folder(out, overwrite=overwrite) as folder, ExitStack() as stack:
        writer = stack.enter_context(_StoreWriter(folder, options.rows_per_shard))
        advance = stack.enter_context(progress("prepare", None, unit="records"))
        for result in _map_in_order(partial(_prepare_block, options=options), blocks, workers):
            writer.add(result)
            advance(result.num_read, f"{writer.counts['kept']:,} kept")
        writer.finish()
        if not writer.counts["kept"]:
            raise InputError(_nothing_kept(inputs, writer.counts))
        manifest = {
            "command": "prepare",
            "inputs": [describe_input(path) for path in inputs],
            "options": _plain(options),
            "counts": writer.counts,
            "shards": writer.shards,
        }
        write_manifest(folder, manifest)
    return manifest


@dataclass(frozen=True)
class _Prepared:
    """What a worker makes of a block; rows of ``table``, ``positions``, ``keys`` and ``repairs`` go together."""

    num_read: int
    table: pa.Table
    positions: list[int]
    keys: list[bytes]
    repairs: list[tuple[str, ...]]
    dropped: list[tuple[str, int, str, str, str]]


def _prepare_block(block: Block, options: PrepareOptions) -> _Prepared:
    allowed = None if options.licenses is None else {_license_key(text) for text in options.licenses}
    spectra, positions, repairs, dropped = [], [], [], []
    num_read = 0
    for record in parse_block(block, ms_levels=options.ms_levels):
        num_read += 1
        repaired: Counter[str] = Counter()
        spectrum = harmonise(record, options.cleaning, repaired, ms_levels=options.ms_levels)
        if not isinstance(spectrum, Dropped) and allowed is not None and _license_key(spectrum.license) not in allowed:
            spectrum = Dropped("license", spectrum.license or "no licence given")
        if isinstance(spectrum, Dropped):
            dropped.append((record.source_file, record.position, record.native_id, spectrum.reason, spectrum.detail))
        else:
            spectra.append(spectrum)
            positions.append(record.position)
            repairs.append(tuple(repaired))
    keys = [measurement_key(spectrum) for spectrum in spectra]
    return _Prepared(num_read, table_from_spectra(spectra), positions, keys, repairs, dropped)


class _StoreWriter:
    """Takes prepared blocks in order: drops duplicates, gives unique ids, writes shards, counts."""

    def __init__(self, folder: Path, rows_per_shard: int) -> None:
        self.folder = folder
        self.rows_per_shard = rows_per_shard
        self.shards: list[dict[str, Any]] = []
        self._read = self._kept = 0
        self._dropped: Counter[str] = Counter()
        self._repaired: Counter[str] = Counter()
        self._first_seen, self._names = FirstSeen(), UniqueNames()
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._list: TextIO | None = None

    def __enter__(self) -> _StoreWriter:
        self._list = open(self.folder / DROPPED_FILE, "w", encoding="utf-8", errors="replace")
        self._list.write("source_file\tposition\tnative_id\treason\tdetail\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._list is not None:
            self._list.close()

    @property
    def counts(self) -> dict[str, Any]:
        """The counts of the manifest, reasons from the most to the least frequent."""
        return {
            "read": self._read,
            "kept": self._kept,
            "dropped": _by_count(self._dropped),
            "repaired": _by_count(self._repaired),
        }

    def add(self, block: _Prepared) -> None:
        first = self._first_seen.mark(block.keys)
        rows = [row for row, is_first in enumerate(first) if is_first]
        copies = [row for row, is_first in enumerate(first) if not is_first]
        sources = block.table.select(["source_file", "native_id"]).take(pa.array(copies, pa.int64())).to_pylist()
        dropped = block.dropped + [
            (source["source_file"], block.positions[row], source["native_id"] or "", "duplicate", "")
            for row, source in zip(copies, sources, strict=True)
        ]
        table = block.table.take(pa.array(rows, pa.int64()))
        ids = [self._names.assign(name) for name in table["spectrum_id"].to_pylist()]
        table = table.set_column(0, table.schema.field(0), pa.array(ids, pa.string()))
        self._read += block.num_read
        self._kept += len(rows)
        self._dropped.update(entry[3] for entry in dropped)
        for row in rows:
            self._repaired.update(block.repairs[row])
        assert self._list is not None
        for entry in dropped:
            self._list.write("\t".join(re.sub(r"\s+", " ", str(value)) for value in entry) + "\n")
        self._pending.append(table)
        self._pending_rows += len(rows)
        while self._pending_rows >= self.rows_per_shard:
            self._write_shard()

    def finish(self) -> None:
        """Write what is left; after this the counts add up."""
        if self._pending_rows:
            self._write_shard()
        assert self._read == self._kept + self._dropped.total()

    def _write_shard(self) -> None:
        rows = pa.concat_tables(
            self._pending
        ).combine_chunks()  # one chunk, so that the bytes do not tell of the blocks
        shard, rest = rows[: self.rows_per_shard], rows[self.rows_per_shard :]
        self._pending, self._pending_rows = [rest], len(rest)
        path = self.folder / SHARD_NAME.format(len(self.shards))
        write_shard(shard, path)
        self.shards.append({"file": path.name, "spectra": len(shard), "sha256": sha256_of_file(path)})


def _map_in_order(task: Callable[[Block], _Prepared], blocks: Iterable[Block], workers: int) -> Iterator[_Prepared]:
    """Yield ``task(block)`` for each block, in order, with a bounded number of blocks in memory."""
    if workers == 1:
        yield from map(task, blocks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    waiting: deque[Future[_Prepared]] = deque()
    try:
        for block in blocks:
            waiting.append(pool.submit(task, block))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise RuntimeError(
            "a worker process ended before its work was done (killed for memory?); run again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: a killed parent cannot stop its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(inputs: Sequence[Path], out: Path, workers: int) -> None:
    if not inputs:
        raise InputError("prepare: no input is given; name files, folders or archives of spectra")
    if workers < 1:
        raise InputError(f"prepare: the number of workers is {workers}; it must be 1 or more")
    refuse_input_as_output(out, *inputs)


def _nothing_kept(inputs: Sequence[Path], counts: dict[str, Any]) -> str:
    names = ", ".join(map(str, inputs[:3])) + (", ..." if len(inputs) > 3 else "")
    if not counts["read"]:
        return f"{names}: holds no spectra; nothing was written"
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts["dropped"].items())
    return f"{names}: none of {counts['read']:,} records can be used ({reasons}); nothing was written"


def _license_key(text: str | None) -> str:
    """Return what two spellings of one licence share: 'CC BY 4.0', 'cc-by' -> 'cc-by'."""
    key = re.sub(r"[\s_-]+", "-", (text or "").strip().lower())
    return re.sub(r"-\d\.\d$", "", key) if key.startswith("cc") else key


def _plain(options: PrepareOptions) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}


def _by_count(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))

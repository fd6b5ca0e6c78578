"""From spectra of any source to the rows of a segment: unique ids, precursor order, embeddings; a block at a time."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from ..progress import progress as show_progress
from ..progress import unseen
from ..spectra.columns import SpectrumColumns
from ..spectra.readers import ReadReport, SpectrumReader, read
from ..spectra.spectrum import Spectrum
from ..spectra.store import SCHEMA, Store, table_from_spectra
from .embedded_before import EmbeddedBefore
from .index_folder import Embedder, checked_vectors, is_store
from .segments.runs import Sorted, blocks, sorted_with_unique_ids, spill

SPECTRA_AT_ONCE = 4096
"""As Python objects."""

SPILLED = "spilled"

SAMPLES, SAMPLE_ROWS = 8, 1024
"""Of a store, to estimate its size."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """Spectra in the order of an index.

    Attributes
    ----------
    rows : Sorted or None
        None where there is no spectrum with peaks.
    num_read, without_peaks : int
    num_bytes : int
        Of the spectra and their metadata, as a segment keeps them.
    report : ReadReport or None
        Of the reader of a file, if one gave the spectra.
    """

    rows: Sorted | None
    num_read: int
    without_peaks: int
    num_bytes: int
    report: ReadReport | None = None

    @property
    def counts(self) -> dict[str, Any]:
        """What a manifest tells of them: how many were read, kept and dropped, and repaired where a file was read."""
        dropped = Counter({"no-peaks": self.without_peaks} if self.without_peaks else {})
        counts: dict[str, Any] = {"read": self.num_read, "kept": self.num_read - self.without_peaks}
        if self.report is None:
            return {**counts, "dropped": dict(dropped)}
        return {
            **counts,
            "read": self.report.read,
            "dropped": dict(sorted((dropped + self.report.dropped).items())),
            "repaired": dict(sorted(self.report.repaired.items())),
        }


@contextmanager
def gathered(
    spectra: Iterable[Spectrum] | Store | pa.Table, folder: Path, *, progress: bool = False
) -> Iterator[Gathered]:
    """Yield spectra in the order of an index; they lie in a folder within ``folder`` that is removed afterwards.

    Parameters
    ----------
    spectra : iterable of Spectrum, a store, or a table of its schema
        Those without peaks are left out.
    folder : Path
    progress : bool
        Show the progress on stderr.
    """
    num_read = without_peaks = 0

    def with_peaks() -> Iterator[pa.Table]:
        nonlocal num_read, without_peaks
        total = len(spectra) if isinstance(spectra, (Store, pa.Table)) else None
        with show_progress("read", total) if progress else unseen() as advance:
            for table in tables_of(spectra):
                kept = table.filter(pc.greater(pc.list_value_length(table["mz"]), 0))
                num_read += len(table)
                without_peaks += len(table) - len(kept)
                yield kept
                advance(len(table))

    place = folder / SPILLED
    place.mkdir()
    try:
        runs = spill(with_peaks(), place)
        report = spectra.report if isinstance(spectra, SpectrumReader) else None
        size = sum(path.stat().st_size for path in place.iterdir())
        yield Gathered(sorted_with_unique_ids(runs) if runs else None, num_read, without_peaks, size, report)
    finally:
        shutil.rmtree(place)


def embedded(rows: Sorted, model: Embedder, *, progress: bool = False) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield the rows in order with their embeddings, a block at a time."""
    with show_progress("embed", len(rows.order), unit="spectra") if progress else unseen() as advance:
        for table, _ in blocks(rows):
            if isinstance(model, EmbeddedBefore):
                vectors = model.of_ids(table["spectrum_id"])
            else:
                vectors = model.embed(SpectrumColumns.from_table(table))
            yield table, checked_vectors(vectors, len(table))
            advance(len(table))


def source_of(input: str | os.PathLike[str]) -> Store | SpectrumReader:
    """Return a prepared store, or a reader of anything else.

    Raises
    ------
    InputError
        The path is missing, or nothing in it is of a known format.
    """
    return Store(input) if is_store(input) else read(input)


def size_of(spectra: Store | SpectrumReader) -> tuple[int, int, pa.Table]:
    """Return how many spectra there are, their bytes as a segment keeps them, and some of them as a table.

    Of a store the bytes are estimated by samples; anything else is read through.

    Raises
    ------
    InputError
        There is none, or they cannot be read.
    """
    if isinstance(spectra, Store) and len(spectra):
        begins = np.unique(np.linspace(0, max(0, len(spectra) - SAMPLE_ROWS), SAMPLES).astype(int)).tolist()
        ends = [min(begin + SAMPLE_ROWS, len(spectra)) for begin in begins]
        names = SCHEMA.names
        tables = [
            pa.concat_tables(spectra.blocks(names, range(begin, end), SAMPLE_ROWS)).combine_chunks()
            for begin, end in zip(begins, ends, strict=True)
        ]
        share = sum(table.nbytes for table in tables) / sum(map(len, tables))
        return len(spectra), int(share * len(spectra)), tables[0].cast(SCHEMA)
    count = size = 0
    first = None
    with show_progress("read", None) as advance:
        for table in tables_of(spectra):
            first = table if first is None else first
            count, size = count + len(table), size + table.nbytes
            advance(len(table))
    if first is None:
        raise InputError("no spectrum to index; at least one with a precursor m/z and peaks is needed")
    return count, size, first


def tables_of(spectra: Iterable[Spectrum] | Store | pa.Table) -> Iterator[pa.Table]:
    """Yield spectra as tables of the store's schema, few at a time as Python objects."""
    if isinstance(spectra, Store):
        yield from (table.cast(SCHEMA) for table in spectra.blocks(SCHEMA.names, range(len(spectra)), SPECTRA_AT_ONCE))
    elif isinstance(spectra, pa.Table):
        yield spectra.select(SCHEMA.names).cast(SCHEMA)
    else:
        remaining = iter(spectra)
        while chunk := list(itertools.islice(remaining, SPECTRA_AT_ONCE)):
            yield table_from_spectra(chunk)

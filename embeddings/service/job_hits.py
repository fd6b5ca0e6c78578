"""The hits of a batch job on disk: written as they are found, read one query at a time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from ...spectra.spectrum import Spectrum
from ...spectra.store import spectra_from_table
from ..hit_table import QueryResult
from ..search import HitRow
from ..structure_search import StructureHitRow
from .reading_process import SPECTRA
from .searching import Answer

HITS = "hits.jsonl"


class JobHits:
    """The answers of one job, in the folder where its queries lie.

    Parameters
    ----------
    folder : Path
        Where the reading process has written ``spectra.arrow``.
    row_type : type
        Of the lines: `HitRow` or `StructureHitRow`.
    """

    def __init__(self, folder: Path, row_type: type[HitRow | StructureHitRow]) -> None:
        self._folder, self._row_type = folder, row_type
        self._fields = [field.name for field in dataclasses.fields(row_type)]

    def append(self, answers: Iterable[Answer]) -> None:
        """Write further answers."""
        with open(self._folder / HITS, "a", encoding="ascii") as lines:
            for answer in answers:
                rows = [[getattr(row, name) for name in self._fields] for row in answer.rows]
                told = [answer.query_id, answer.position, answer.spectrum is not None, rows]
                lines.write(json.dumps(told, separators=(",", ":")) + "\n")

    def __iter__(self) -> Iterator[Answer]:
        """Yield the answers in the order of the queries, with their spectra."""
        spectra = self._spectra()
        with open(self._folder / HITS, encoding="ascii") as lines:
            for line in lines:
                query_id, position, is_usable, rows = json.loads(line)
                spectrum = next(spectra) if is_usable else None
                yield QueryResult(query_id, spectrum, [self._row_type(*row) for row in rows], position)

    def _spectra(self) -> Iterator[Spectrum]:
        with pa.memory_map(str(self._folder / SPECTRA)) as source:
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                yield from spectra_from_table(pa.Table.from_batches([file.get_batch(number)]))

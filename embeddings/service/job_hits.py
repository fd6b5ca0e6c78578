"""The hits of a batch job on disk: written as they are found, read one query at a time or a page of them."""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from ...spectra.spectrum import Spectrum
from ...spectra.store import spectra_from_table
from ..hit_table import QueryResult, SearchSummary
from ..search import HitRow
from ..structure_search import StructureHitRow
from .reading_process import SPECTRA
from .searching import Answer

HITS = "hits.jsonl"


class JobHits:
    """The answers of one job, in the folder where its queries lie.

    Attributes
    ----------
    summary : SearchSummary
        Of all that were appended.

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
        self.summary = SearchSummary()
        self._starts = array("q")  # in bytes, of the line of each answer
        self._spectrum_numbers = array("q")  # of the spectrum of each; -1 where it has none
        self._num_spectra = 0
        self._with_hits = array("q")  # numbers of the answers that have one

    def append(self, answers: Iterable[Answer]) -> None:
        """Write further answers."""
        with open(self._folder / HITS, "ab") as lines:
            for answer in answers:
                self._note(answer, lines.tell())
                rows = [[getattr(row, name) for name in self._fields] for row in answer.rows]
                told = [answer.query_id, answer.position, answer.spectrum is not None, rows]
                lines.write(json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n")

    def _note(self, answer: Answer, start: int) -> None:
        if any(row.rank is not None for row in answer.rows):
            self._with_hits.append(len(self._starts))
        self._starts.append(start)
        self._spectrum_numbers.append(-1 if answer.spectrum is None else self._num_spectra)
        self._num_spectra += answer.spectrum is not None
        self.summary.count_query(answer.rows)

    def __iter__(self) -> Iterator[Answer]:
        """Yield the answers in the order of the queries, with their spectra."""
        spectra = self._spectra()
        with open(self._folder / HITS, encoding="ascii") as lines:
            for line in lines:
                yield self._answer(line, spectra)

    def count(self, *, with_hits: bool) -> int:
        """Return the number of answers, or of those that have a hit."""
        return len(self._with_hits if with_hits else self._starts)

    def page(self, offset: int, limit: int, *, with_hits: bool) -> Iterator[Answer]:
        """Yield up to ``limit`` answers after the first ``offset``, of all or of those that have a hit.

        What lies before them is not read.
        """
        every: Sequence[int] = self._with_hits if with_hits else range(len(self._starts))
        numbers = every[offset : offset + limit]
        spectra = self._chosen([of for number in numbers if (of := self._spectrum_numbers[number]) >= 0])
        with open(self._folder / HITS, "rb") as lines:
            for number in numbers:
                lines.seek(self._starts[number])
                yield self._answer(lines.readline(), spectra)

    def _answer(self, line: str | bytes, spectra: Iterator[Spectrum]) -> Answer:
        query_id, position, is_usable, rows = json.loads(line)
        spectrum = next(spectra) if is_usable else None
        return QueryResult(query_id, spectrum, [self._row_type(*row) for row in rows], position)

    def _chosen(self, numbers: Sequence[int]) -> Iterator[Spectrum]:
        """Yield the spectra of ascending numbers."""
        with pa.memory_map(str(self._folder / SPECTRA)) as source:
            file = pa.ipc.open_file(source)
            rows = file.get_batch(0).num_rows if numbers else 1  # of every batch but the last
            for number, of_batch in groupby(numbers, lambda number: number // rows):
                places = pa.array([place - number * rows for place in of_batch])
                yield from spectra_from_table(pa.Table.from_batches([file.get_batch(number)]).take(places))

    def _spectra(self) -> Iterator[Spectrum]:
        with pa.memory_map(str(self._folder / SPECTRA)) as source:
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                yield from spectra_from_table(pa.Table.from_batches([file.get_batch(number)]))

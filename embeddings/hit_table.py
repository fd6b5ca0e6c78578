"""The table of hits as a file: tab-separated, whole or not at all, with a line for every query."""

from __future__ import annotations

import csv
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TextIO, TypeVar

from ..artifacts import refuse_input_as_output
from ..errors import InputError
from ..progress import counted
from ..spectra.spectrum import Spectrum
from .annotation import LEVEL_2A

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


class Row(Protocol):
    """What every line of a table of hits has; a query without a hit has one line, without a rank."""

    @property
    def query_id(self) -> str:
        """One for each query."""

    @property
    def query_precursor_mz(self) -> float | None:
        """In Da per charge."""

    @property
    def rank(self) -> int | None:
        """From 1; None where the query has no hit."""

    @property
    def note(self) -> str:
        """Why there is no hit, or what is to be known of the hits."""


NOTES_TOLD = 5
"""Reasons named in the line about a search; they may have a number or a formula in them, and be as many as queries."""

RowType = TypeVar("RowType", bound=Row)


@dataclass(frozen=True, slots=True)
class QueryResult(Generic[RowType]):
    """A query and its lines of the table.

    Attributes
    ----------
    query_id : str
        As in the lines.
    spectrum : Spectrum or None
        The query; None where the record cannot be used.
    rows : sequence of Row
        By rank; one without a rank where there is no hit.
    position : int or None
        1-based, of the record in its file; None for a spectrum of a store.
    """

    query_id: str
    spectrum: Spectrum | None
    rows: Sequence[RowType]
    position: int | None = None


@dataclass
class SearchSummary:
    """What became of the queries: ``queries == with_hits + sum(without_hits.values())``.

    Attributes
    ----------
    queries, with_hits : int
    without_hits : Counter of str
        Queries without a hit, by note.
    likely : int or None
        Queries whose first hit is a probable structure (level 2a); None where no first hit has a probability.
    expected_wrong : float
        How many of these are wrong, by their probabilities.
    expected_right : float or None
        Of structures: how many first hits are right, by their probabilities; None where none has one.
    """

    queries: int = 0
    with_hits: int = 0
    without_hits: Counter[str] = field(default_factory=Counter)
    likely: int | None = None
    expected_wrong: float = 0.0
    expected_right: float | None = None

    def count(self, row: Row) -> None:
        """Count the query of ``row``, if it is the query's first."""
        if row.rank is None:
            self.without_hits[row.note] += 1
        elif row.rank == 1:
            self.with_hits += 1
            probability = getattr(row, "probability", None)
            if probability is not None and getattr(row, "of_database", False):
                self.expected_right = (self.expected_right or 0.0) + probability
            else:
                self._count_probability(probability, getattr(row, "confidence", ""))
        else:
            return
        self.queries += 1

    def _count_probability(self, probability: float | None, confidence: str) -> None:
        if probability is None:
            return
        self.likely = self.likely or 0
        if confidence == LEVEL_2A:
            self.likely += 1
            self.expected_wrong += 1 - probability

    def count_query(self, rows: Sequence[Row]) -> None:
        """Count the query of these lines."""
        if rows:
            self.count(rows[0])

    def __str__(self) -> str:
        """Return one line."""
        told = self.without_hits.most_common(NOTES_TOLD)
        notes = "".join(f", {count:,} without ({note})" for note, count in told)
        if others := self.without_hits.total() - sum(count for _, count in told):
            notes += f", {others:,} without for other reasons"
        likely = ""
        if self.likely is not None:
            likely = f" ({self.likely:,} of level 2a"
            if self.likely:
                wrong = f"{self.expected_wrong / self.likely:.0%}"
                likely += f", {wrong} of them wrong if the library has half of the queries' molecules"
            likely += ")"
        elif self.expected_right is not None:
            right = f"{self.expected_right:,.0f}"
            likely = f" (about {right} first hits right if the database has half of the queries' molecules)"
        return f"{counted(self.queries, 'queries')}: {self.with_hits:,} with hits{likely}{notes}"


def refuse_output(out: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Raise `InputError` if ``out`` is a folder or would replace an input; None is no input."""
    if Path(out).is_dir():
        raise InputError(f"{out}: is a folder; name the file to write the hits to")
    refuse_input_as_output(out, *(path for path in inputs if path is not None))


def write_rows(
    rows: Iterable[Row], stream: TextIO, columns: Sequence[str], formats: Mapping[str, str]
) -> SearchSummary:
    """Write the attributes ``columns`` of each row, numbers by their format, and count the queries."""
    summary = SearchSummary()
    writer = csv.writer(stream, dialect="excel-tab", lineterminator="\n")
    writer.writerow(columns)
    values_of, specifications = attrgetter(*columns), [formats.get(name, "") for name in columns]
    for row in rows:
        writer.writerow(map(_text, values_of(row), specifications))
        summary.count(row)
    return summary


def format_queries(
    rows: Iterable[RowType],
    table_of: Callable[[list[RowType]], Table],
    *,
    max_queries: int,
    about: Callable[[RowType], str] = lambda _: "",
) -> RenderableType:
    """Return the hits for a terminal: a line for each query, and a table of its hits or why there is none below.

    Parameters
    ----------
    rows : iterable of Row
        The rows of one query together; all are consumed.
    table_of : callable
        Returns the table of the hits of one query.
    max_queries : int
        Queries shown; the last line says how many are not.
    about : callable
        Returns what the line of a query says besides its id and precursor m/z.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    num_queries = 0
    for _, of_query in itertools.groupby(rows, key=lambda row: row.query_id):
        num_queries += 1
        if num_queries > max_queries:
            continue
        hits = list(of_query)
        title = Text(hits[0].query_id, style="bold")
        if hits[0].query_precursor_mz is not None:
            title.append(f"  m/z {hits[0].query_precursor_mz:.4f}", style="not bold")
        if words := about(hits[0]):
            title.append(f"  {words}", style="not bold")
        parts.append(title)
        if hits[0].note:
            parts.append(Text(f"  {hits[0].note}", style="dim"))
        if hits[0].rank is not None:
            parts.append(table_of(hits))
        parts.append(Text(""))
    if num_queries > max_queries:
        parts.append(Text(f"and {counted(num_queries - max_queries, 'more queries')}", style="dim"))
    elif not num_queries:
        parts.append(Text("no queries", style="dim"))
    return Group(*parts)


def shown(value: float | None, specification: str) -> str:
    """Return a number in words, '' where it is unknown."""
    return "" if value is None else format(value, specification)


def _text(value: object, specification: str) -> str:
    """Return a cell of the TSV: empty where unknown, without the line ends and tabs that would break it."""
    if value is None:
        return ""
    if specification:
        return format(value, specification)
    if isinstance(value, bool):
        return "true" if value else "false"
    return _one_line(value) if isinstance(value, str) else str(value)


@lru_cache(maxsize=1 << 14)
def _one_line(text: str) -> str:
    """Return text without line ends and tabs; kept, since a library spectrum is the hit of many queries."""
    return " ".join(text.split())

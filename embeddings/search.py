"""``ionbed search``: every spectrum of a file against an index, as a table of hits for programs or for people."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifacts import atomic_file, refuse_input_as_output
from ..errors import InputError
from ..progress import progress
from ..spectra.deduplication import UniqueNames
from ..spectra.record import RawRecord
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .index import Index
from .index_folder import check_search_options, is_store

if TYPE_CHECKING:
    from rich.console import RenderableType

QUERIES_AT_ONCE = 2048
NO_PEAKS = "no usable peaks"
_NO_PEAKS_REASONS = frozenset({"no-peaks", "too-few-peaks"})


@dataclass(frozen=True, slots=True)
class HitRow:
    """One line of the table of hits; a query without a hit has one line too, with a ``note`` that says why.

    Attributes
    ----------
    query_id : str
        With ``#2``, ``#3``... where the file uses an id more than once.
    query_precursor_mz : float or None
        In Da per charge.
    rank : int or None
        From 1.
    score : float or None
        Cosine of the two embeddings.
    precursor_error_ppm : float or None
        ``(query - library) / library * 1e6``.
    collision_energy : float or None
        Of the library spectrum, in eV.
    predicted : bool or None
        Whether a program predicted the library spectrum.
    note : str
        Why there is no hit; empty where there is one.
    """

    query_id: str
    query_precursor_mz: float | None = None
    rank: int | None = None
    score: float | None = None
    precursor_error_ppm: float | None = None
    name: str | None = None
    formula: str | None = None
    smiles: str | None = None
    inchikey: str | None = None
    library_id: str | None = None
    adduct: str | None = None
    collision_energy: float | None = None
    predicted: bool | None = None
    note: str = ""


_FROM_METADATA = ("name", "formula", "smiles", "inchikey", "adduct", "collision_energy", "predicted")
COLUMNS = tuple(f.name for f in dataclasses.fields(HitRow))
"""Columns of the table of hits, in order."""

_FORMATS = {
    "query_precursor_mz": ".6f",
    "score": ".6f",
    "precursor_error_ppm": ".4f",
    "collision_energy": "g",
}


@dataclass
class SearchSummary:
    """What became of the queries: ``queries == with_hits + sum(without_hits.values())``.

    Attributes
    ----------
    queries, with_hits : int
    without_hits : Counter of str
        Queries without a hit, by note.
    """

    queries: int = 0
    with_hits: int = 0
    without_hits: Counter[str] = field(default_factory=Counter)

    def count(self, row: HitRow) -> None:
        """Count the query of ``row``, if it is the query's first."""
        if row.note:
            self.without_hits[row.note] += 1
        elif row.rank == 1:
            self.with_hits += 1
        else:
            return
        self.queries += 1

    def __str__(self) -> str:
        """Return one line."""
        notes = "".join(f", {count:,} without ({note})" for note, count in self.without_hits.most_common())
        return f"{self.queries:,} queries: {self.with_hits:,} with hits{notes}"


def search(
    index: Index | str | os.PathLike[str],
    queries: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    k: int = 10,
    precursor_ppm: float | None = 10.0,
) -> SearchSummary:
    """Search every spectrum of ``queries`` and write the hits as tab-separated text, whole or not at all.

    The columns are `COLUMNS`. See `find` for the queries.

    Raises
    ------
    InputError
        As `find`, or ``out`` is a folder or would replace the queries or the index.
    """
    if Path(out).is_dir():
        raise InputError(f"{out}: is a folder; name the file to write the hits to")
    folder = index.folder if isinstance(index, Index) else index
    refuse_input_as_output(out, queries, *([folder] if folder is not None else []))
    summary = SearchSummary()
    rows = find(index, queries, k=k, precursor_ppm=precursor_ppm)
    with atomic_file(out) as partial, open(partial, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, dialect="excel-tab", lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([_text(name, getattr(row, name)) for name in COLUMNS])
            summary.count(row)
    return summary


def find(
    index: Index | str | os.PathLike[str],
    queries: str | os.PathLike[str],
    *,
    k: int = 10,
    precursor_ppm: float | None = 10.0,
) -> Iterator[HitRow]:
    """Search every spectrum of ``queries`` and yield the hits, in the order of the file and by rank.

    Every MS/MS record of the file has at least one row, one that cannot be used as well. Survey scans (MS1) are no
    queries and are left out.

    Parameters
    ----------
    index : Index, or path of a saved one
    queries : path
        A prepared store, or anything that `ionbed.read` reads.
    k : int
        Hits per query, at most.
    precursor_ppm : float or None
        Largest difference of the precursors, in ppm of the library's; None to search the whole library.

    Raises
    ------
    InputError
        At the call: the index or the queries cannot be read, or an option is out of range.
    """
    check_search_options(k, precursor_ppm)
    opened = index if isinstance(index, Index) else Index.open(index)
    if is_store(queries):
        store = Store(queries)
        return _find(opened, map(_query, store), len(store), k, precursor_ppm)
    return _find(opened, _queries_of_file(queries), None, k, precursor_ppm)


def format_hits(rows: Iterable[HitRow], *, max_queries: int = 50) -> RenderableType:
    """Return the hits for a terminal: a line for each query, and a table of its hits below.

    Parameters
    ----------
    rows : iterable of HitRow
        As `find` yields them; all are consumed.
    max_queries : int
        Queries shown; the last line says how many are not.
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
        parts += [title, Text(f"  {hits[0].note}", style="dim") if hits[0].note else _table_of(hits), Text("")]
    if num_queries > max_queries:
        parts.append(Text(f"and {num_queries - max_queries:,} more queries", style="dim"))
    elif not num_queries:
        parts.append(Text("no queries", style="dim"))
    return Group(*parts)


def _table_of(hits: Sequence[HitRow]) -> RenderableType:
    """Return the hits of one query; the widths are fixed, so that the tables of several queries align."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("   #", justify="right", width=4)
    table.add_column("score", justify="right", width=6)
    table.add_column("ppm", justify="right", width=9)
    table.add_column("name", ratio=3, overflow="fold")
    table.add_column("formula", width=14, overflow="fold")
    table.add_column("adduct", width=10, overflow="fold")
    table.add_column("eV", justify="right", width=4)
    table.add_column("library id", ratio=2, overflow="fold")
    for hit in hits:
        table.add_row(
            str(hit.rank),
            _shown(hit.score, ".3f"),
            _shown(hit.precursor_error_ppm, "+.1f"),
            Text((hit.name or "") + (" (predicted)" if hit.predicted else "")),
            Text(hit.formula or ""),
            Text(hit.adduct or ""),
            _shown(hit.collision_energy, ".0f"),
            Text(hit.library_id or ""),
        )
    return table


@dataclass(frozen=True, slots=True)
class _Query:
    query_id: str
    spectrum: Spectrum | None
    note: str = ""


def _queries_of_file(path: str | os.PathLike[str]) -> Iterator[_Query]:
    """Return the queries of a file, those that cannot be used with a note; a bad path is told at the call."""
    from ..spectra.readers import read_records

    return (query for record in read_records(path) if (query := _query_of_record(record)) is not None)


def _query_of_record(record: RawRecord) -> _Query | None:
    from ..spectra.harmonise import Dropped, harmonise

    result = harmonise(record)
    if not isinstance(result, Dropped):
        return _query(result)
    if result.reason == "ms-level":
        return None
    reason = NO_PEAKS if result.reason in _NO_PEAKS_REASONS else f"not usable: {result.reason}"
    query_id = record.native_id or f"{record.source_file}#{record.position}"
    return _Query(query_id, None, f"{reason} ({result.detail})" if result.detail else reason)


def _query(spectrum: Spectrum) -> _Query:
    if not len(spectrum):
        return _Query(spectrum.spectrum_id, None, NO_PEAKS)
    return _Query(spectrum.spectrum_id, spectrum)


def _find(
    index: Index, queries: Iterator[_Query], total: int | None, k: int, precursor_ppm: float | None
) -> Iterator[HitRow]:
    names = UniqueNames()
    with progress("search", total, unit="queries") as advance:
        while block := list(itertools.islice(queries, QUERIES_AT_ONCE)):
            hits = index.search([q.spectrum for q in block if q.spectrum is not None], k, precursor_ppm)
            results = iter(zip(hits, hits.num_in_window.tolist(), strict=True))
            for query in block:
                query_id = names.assign(query.query_id)
                if query.spectrum is None:
                    yield HitRow(query_id, note=query.note)
                    continue
                found, num_in_window = next(results)
                precursor_mz = query.spectrum.precursor_mz
                if not found:
                    yield HitRow(query_id, precursor_mz, note=_why_none(num_in_window, precursor_ppm))
                for hit in found:
                    yield HitRow(
                        query_id,
                        precursor_mz,
                        hit.rank,
                        hit.score,
                        hit.precursor_error_ppm,
                        library_id=hit.metadata["spectrum_id"],
                        **{name: hit.metadata[name] for name in _FROM_METADATA},
                    )
            advance(len(block))


def _why_none(num_in_window: int, precursor_ppm: float | None) -> str:
    where = "" if precursor_ppm is None else f" within {precursor_ppm:g} ppm"
    if num_in_window:
        return f"every library spectrum{where} has the other polarity"
    return f"no library spectrum{where}"


def _text(column: str, value: object) -> str:
    """Return a cell of the TSV: empty where unknown, without the line ends and tabs that would break it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if column in _FORMATS:
        return format(value, _FORMATS[column])
    return " ".join(str(value).split())


def _shown(value: float | None, specification: str) -> str:
    return "" if value is None else format(value, specification)

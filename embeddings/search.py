"""``ionbed search``: every spectrum of a file against an index, as a table of hits for programs or for people."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..artifacts import atomic_file
from ..progress import progress
from ..spectra.deduplication import UniqueNames
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .index import Index, check_search_options, is_store

if TYPE_CHECKING:
    from rich.table import Table

QUERIES_AT_ONCE = 2048
_NO_PEAKS = frozenset({"no-peaks", "too-few-peaks"})


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

    The columns are `COLUMNS`. See `find` for the queries and what is raised.
    """
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
    return _find(opened, _queries(queries), k, precursor_ppm)


def format_hits(rows: Iterable[HitRow], *, max_queries: int = 50) -> Table:
    """Return the hits as a table for a terminal.

    Parameters
    ----------
    rows : iterable of HitRow
        As `find` yields them; all are consumed.
    max_queries : int
        Queries shown; how many are left out stands below the table.
    """
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header, options in {
        "query": {"overflow": "fold"},
        "m/z": {"justify": "right"},
        "#": {"justify": "right"},
        "score": {"justify": "right"},
        "ppm": {"justify": "right"},
        "name": {"overflow": "fold"},
        "formula": {},
        "adduct": {},
        "eV": {"justify": "right"},
        "library id": {"overflow": "fold"},
    }.items():
        table.add_column(header, **options)  # type: ignore[arg-type]
    num_queries = 0
    for row in rows:
        first = row.rank is None or row.rank == 1
        num_queries += first
        if num_queries > max_queries:
            continue
        if first and num_queries > 1:
            table.add_section()
        query = (row.query_id, _shown(row.query_precursor_mz, ".4f")) if first else ("", "")
        cells: list[RenderableType]
        if row.rank is None:
            cells = ["", "", "", Text(row.note, style="dim"), "", "", "", ""]
        else:
            cells = [
                str(row.rank),
                _shown(row.score, ".3f"),
                _shown(row.precursor_error_ppm, "+.1f"),
                Text((row.name or "") + (" (predicted)" if row.predicted else "")),
                row.formula or "",
                Text(row.adduct or ""),
                _shown(row.collision_energy, ".0f"),
                Text(row.library_id or ""),
            ]
        table.add_row(Text(query[0]), query[1], *cells)
    if num_queries > max_queries:
        table.caption = f"and {num_queries - max_queries:,} more queries; --out FILE.tsv writes them all"
    return table


@dataclass(frozen=True, slots=True)
class _Query:
    query_id: str
    spectrum: Spectrum | None
    note: str = ""


def _queries(path: str | os.PathLike[str]) -> Iterator[_Query]:
    """Return the queries of a file, those that cannot be used with a note; a bad path is told at the call."""
    if is_store(path):
        return (_query(spectrum) for spectrum in Store(path))
    from ..spectra.harmonise import Dropped, harmonise
    from ..spectra.readers import read_records

    def of_records() -> Iterator[_Query]:
        for record in records:
            result = harmonise(record)
            if not isinstance(result, Dropped):
                yield _query(result)
            elif result.reason != "ms-level":
                reason = "no usable peaks" if result.reason in _NO_PEAKS else f"not usable: {result.reason}"
                query_id = record.native_id or f"{record.source_file}#{record.position}"
                yield _Query(query_id, None, f"{reason} ({result.detail})" if result.detail else reason)

    records = read_records(path)
    return of_records()


def _query(spectrum: Spectrum) -> _Query:
    if not len(spectrum):
        return _Query(spectrum.spectrum_id, None, "no usable peaks")
    return _Query(spectrum.spectrum_id, spectrum)


def _find(index: Index, queries: Iterator[_Query], k: int, precursor_ppm: float | None) -> Iterator[HitRow]:
    names = UniqueNames()
    with progress("search", None, unit="queries") as advance:
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


_FROM_METADATA = ("name", "formula", "smiles", "inchikey", "adduct", "collision_energy", "predicted")


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

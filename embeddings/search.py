"""``ionbed search``: every spectrum of a file against an index, as a table of hits for programs or for people."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..errors import InputError
from ..spectra.spectrum import Spectrum
from .annotation import NEAR_DA
from .described_hits import DescribedHits, DescribedSearch, is_encoder_on_one_thread
from .filters import Filters
from .hit_table import QueryResult, format_queries, shown
from .index import Index
from .milvus_index import MilvusIndex
from .queries import Query, queries_of, searched
from .search_options import DEFAULT_SEARCH, SearchOptions
from .segments.library import Library

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


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
        What it is ``score_name`` says.
    probability : float or None
        That the hit's molecule is the query's, by the calibration that the index carries; None where it has none.
    precursor_error_ppm : float or None
        ``(query - library) / library * 1e6``.
    mass_difference : float or None
        In Da, the molecule of the query minus that of the hit; None where the charge of either is unknown.
    difference_formula : str
        A likely formula of that difference (``CH2``, ``-H2O``, ``O-NH``); empty where none is likely or it is 0.
    matched_peaks : int or None
        Peaks of the query that match one of the library spectrum, as it is or shifted by the difference of the
        precursors.
    library_id : str or None
        Of the library spectrum.
    collision_energy : float or None
        Of the library spectrum, in eV.
    license : str or None
        Of the library spectrum.
    predicted : bool or None
        Whether a program predicted the library spectrum.
    confidence : str
        What the hit may be taken for, in the levels of Schymanski et al. (2014).
    warnings : str
        In what the query lies outside of what the model was trained on; empty where it does not.
    note : str
        Why there is no hit; empty where there is one.
    score_name : str
        What the score is: see `ionbed.embeddings.hits.ScoreName`; empty where there is no hit.
    row : int or None
        Of the index; `Index.spectra` gives its peaks. Not a column of the file.
    """

    query_id: str
    query_precursor_mz: float | None = None
    rank: int | None = None
    score: float | None = None
    probability: float | None = None
    precursor_error_ppm: float | None = None
    mass_difference: float | None = None
    difference_formula: str = ""
    matched_peaks: int | None = None
    name: str | None = None
    formula: str | None = None
    smiles: str | None = None
    inchikey: str | None = None
    library_id: str | None = None
    adduct: str | None = None
    collision_energy: float | None = None
    instrument_type: str | None = None
    license: str | None = None
    predicted: bool | None = None
    confidence: str = ""
    warnings: str = ""
    note: str = ""
    score_name: str = ""
    row: int | None = None


_KNOWN: WeakKeyDictionary[Library, set[Filters]] = WeakKeyDictionary()
"""Filters that were compared with a library: this reads columns of all of it, and is the same for every search."""
_MOST_KNOWN = 64

MANY_PPM = 1000.0
"""From here on a difference of masses is told in Da."""

COLUMNS = tuple(f.name for f in dataclasses.fields(HitRow) if f.name != "row")
"""Columns of the table of hits, in order."""

NUMBER_FORMATS = {
    "query_precursor_mz": ".6f",
    "score": ".6f",
    "probability": ".4f",
    "precursor_error_ppm": ".4f",
    "mass_difference": ".5f",
    "collision_energy": "g",
}
"""How numbers are written in that table, by column."""


def find(
    index: Index | MilvusIndex | str | os.PathLike[str],
    queries: str | os.PathLike[str],
    options: SearchOptions = DEFAULT_SEARCH,
) -> Iterator[HitRow]:
    """Search every spectrum of ``queries`` and yield the hits, in the order of the file and by rank.

    Every MS/MS record of the file has at least one row, one that cannot be used as well. Survey scans (MS1) are no
    queries and are left out.

    Parameters
    ----------
    index : Index, or path of a saved one
    queries : path
        A prepared store, or anything that `ionbed.read` reads.
    options : SearchOptions

    Raises
    ------
    InputError
        At the call: the index or the queries cannot be read, an option is of structures, the model of the index carries
        no fused score, or a filter asks for what no library spectrum has.
    """
    return itertools.chain.from_iterable(result.rows for result in find_results(index, queries, options))


def find_results(
    index: Index | MilvusIndex | str | os.PathLike[str],
    queries: str | os.PathLike[str],
    options: SearchOptions = DEFAULT_SEARCH,
) -> Iterator[QueryResult[HitRow]]:
    """Search every spectrum of ``queries`` and yield each with its lines; see `find`.

    Raises
    ------
    InputError
        As `find`.
    """
    opened = Index.open(index) if isinstance(index, str | os.PathLike) else index
    described = described_search(opened, options)
    return _find(*queries_of(queries), described)


def described_search(index: Index | MilvusIndex, options: SearchOptions) -> DescribedSearch:
    """Return the search of an index with some options.

    Raises
    ------
    InputError
        As `find`, but for the queries.
    """
    if options.score == "predicted":
        raise InputError(f"{index.folder}: is an index of spectra, and not of structures; leave --score predicted out")
    if options.formula == "query":
        raise InputError(f"{index.folder}: is an index of spectra; name a formula, or leave --formula out")
    score, filters = index.score_name(options.score), options.filters
    if options.formula is not None:
        chosen = filters or Filters()
        filters = dataclasses.replace(chosen, formulas=(*chosen.formulas, options.formula))
    if filters and isinstance(index, Index):  # Milvus does not tell what values there are
        _refuse_unknown(index.library, filters)
    k = min(options.k, len(index))
    return DescribedSearch(index, k, options.precursor_ppm, options.precursor_da, score, filters)


def format_hits(rows: Iterable[HitRow], *, max_queries: int = 50) -> RenderableType:
    """Return the hits for a terminal: a line for each query, and a table of its hits below.

    Parameters
    ----------
    rows : iterable of HitRow
        As `find` yields them; all are consumed.
    max_queries : int
        Queries shown; the last line says how many are not.
    """
    return format_queries(rows, _table_of, max_queries=max_queries, about=lambda row: row.warnings)


def _table_of(hits: Sequence[HitRow]) -> Table:
    """Return the hits of one query; the widths are fixed, so that the tables of several queries align."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", expand=True)
    table.add_column("  #", justify="right", width=3)
    table.add_column("prob.", justify="right", width=5)
    table.add_column(hits[0].score_name, justify="right", width=6)
    table.add_column("level", justify="right", width=5)
    table.add_column("peaks", justify="right", width=5)
    table.add_column("mass", justify="right", width=15, overflow="fold")
    table.add_column("name, formula", ratio=3, overflow="fold")
    table.add_column("adduct", width=9, overflow="fold")
    table.add_column("eV", justify="right", width=3)
    table.add_column("library id", ratio=2, overflow="fold")
    for hit in hits:
        name = Text(" ".join(part for part in (hit.name, "(predicted)" if hit.predicted else "") if part))
        if hit.formula:
            name.append(f"{' ' if name else ''}{hit.formula}", style="dim")
        table.add_row(
            str(hit.rank),
            shown(hit.probability, ".2f"),
            shown(hit.score, ".3f"),
            _level(hit.confidence),
            shown(hit.matched_peaks, "d"),
            _mass(hit),
            name,
            Text(hit.adduct or ""),
            shown(hit.collision_energy, ".0f"),
            Text(hit.library_id or ""),
        )
    return table


def _mass(hit: HitRow) -> str:
    """Return by how much the masses differ: in ppm of the precursors, or in Da, with the formula, of the molecules."""
    error = hit.precursor_error_ppm
    is_other_ion = hit.mass_difference is not None and abs(hit.mass_difference) > NEAR_DA
    if error is None or (abs(error) < MANY_PPM and not is_other_ion):
        return shown(error, "+.1f") + " ppm"
    if hit.mass_difference is not None:
        return f"{hit.mass_difference:+.3f} {hit.difference_formula}".rstrip()
    assert hit.query_precursor_mz is not None, "an error is of two precursors"
    return f"{hit.query_precursor_mz * (1 - 1 / (1 + error * 1e-6)):+.3f} m/z"


def _level(confidence: str) -> str:
    """Return the level of confidence alone: ``2a``, or ``3-5`` for 3 at best."""
    found = re.match(r"level (\d[a-z]?)( at best)?", confidence)
    return "" if not found else found[1] + ("-5" if found[2] else "")


def _find(queries: Iterator[Query], total: int | None, search: DescribedSearch) -> Iterator[QueryResult[HitRow]]:
    if is_encoder_on_one_thread():
        found = searched(queries, total, search.of_embedded, search.embed)
    else:
        found = searched(queries, total, search)
    for query_id, query, result in found:
        if query.spectrum is None or result is None:
            rows = [HitRow(query_id, note=query.note)]
        else:
            rows = rows_of(query_id, query.spectrum, result)
        yield QueryResult(query_id, query.spectrum, rows, query.position)


def rows_of(query_id: str, query: Spectrum, found: DescribedHits) -> list[HitRow]:
    """Return the lines of one query: of its hits, or of why there is none."""
    precursor_mz, warnings = query.precursor_mz, found.warnings
    rows = [HitRow(query_id, precursor_mz, warnings=warnings, **hit) for hit in found.hits]
    return rows or [HitRow(query_id, precursor_mz, warnings=warnings, note=found.note)]


def _refuse_unknown(library: Library, filters: Filters) -> None:
    known = _KNOWN.setdefault(library, set())
    if filters in known:
        return
    filters.refuse_unknown(library.columns(filters.needs()))
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known.add(filters)

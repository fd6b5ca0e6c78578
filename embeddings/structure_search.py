"""``ionbed search`` in an index of structures: what may each spectrum of a file be, ranked, as a table."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import InputError
from ..progress import counted
from ..spectra.columns import SpectrumColumns
from ..spectra.spectrum import Spectrum
from .annotation import (
    LEVEL_3_ANALOGUE,
    LEVEL_3_ANY_MASS,
    LEVEL_3_STRUCTURE,
    LEVEL_5,
    NEAR_DA,
    SAME_ION_PPM,
    UNLIKELY,
    warnings_of,
)
from .hit_table import QueryResult, format_queries, shown
from .queries import Query, queries_of, searched
from .search_options import DEFAULT_SEARCH, SearchOptions
from .structure_calibration import structure_curve, why_no_probability
from .structure_candidates import check_structure_search
from .structure_hits import StructureHit, StructureScoreName
from .structure_index import StructureIndex

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


logger = logging.getLogger("ionbed")


@dataclass(frozen=True, slots=True)
class StructureHitRow:
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
        Higher is better; it ranks the structures of one query.
    id, name : str or None
        Of the structure, in the database; all that it has.
    mass_error_ppm : float or None
        ``(query - structure) / structure * 1e6`` of the m/z as ``adduct``.
    adduct : str or None
        As which the structure was compared with the precursor.
    candidates : int or None
        Structures that the query was compared with.
    note : str
        Why there is no hit; or what was tried in place of an unknown adduct.
    score_name : str
        What the score is; see `ionbed.embeddings.structure_hits.StructureScoreName`.
    probability : float or None
        That the structure is the query's molecule, by the calibration that the index carries; None where it has none.
    confidence : str
        What the hit may be taken for, in the levels of Schymanski et al. (2014).
    warnings : str
        In what the query lies outside of what the model was trained on; empty where it does not.
    row : int or None
        Of the index. Not a column of the file.
    """

    query_id: str
    query_precursor_mz: float | None = None
    rank: int | None = None
    score: float | None = None
    id: str | None = None
    name: str | None = None
    smiles: str | None = None
    inchikey: str | None = None
    formula: str | None = None
    mass_error_ppm: float | None = None
    adduct: str | None = None
    candidates: int | None = None
    note: str = ""
    score_name: str = ""
    probability: float | None = None
    confidence: str = ""
    warnings: str = ""
    row: int | None = None

    of_database: ClassVar[bool] = True
    """Not of a library of spectra: no hit is a probable structure (level 2a)."""

    @property
    def library_id(self) -> str | None:
        """The ``id``, by the name that it has in a table of spectra."""
        return self.id

    @property
    def precursor_error_ppm(self) -> float | None:
        """The ``mass_error_ppm``, by the name that it has in a table of spectra."""
        return self.mass_error_ppm


_FROM_METADATA = ("id", "name", "smiles", "inchikey", "formula")
COLUMNS = tuple(f.name for f in dataclasses.fields(StructureHitRow) if f.name != "row")
"""Columns of the table of hits, in order."""

NUMBER_FORMATS = {"query_precursor_mz": ".6f", "score": ".6f", "mass_error_ppm": ".4f", "probability": ".4f"}
"""How numbers are written in that table, by column."""


def find(
    index: StructureIndex | str | os.PathLike[str],
    queries: str | os.PathLike[str],
    options: SearchOptions = DEFAULT_SEARCH,
) -> Iterator[StructureHitRow]:
    """Rank structures for every spectrum of ``queries``, in the order of the file and by rank.

    Every MS/MS record of the file has at least one row, one that cannot be used as well. Survey scans (MS1) are no
    queries and are left out.

    Parameters
    ----------
    index : StructureIndex, or path of a saved one
    queries : path
        A prepared store, or anything that `ionbed.read` reads.
    options : SearchOptions

    Raises
    ------
    InputError
        At the call: the index or the queries cannot be read, an option is of spectra or out of range, or the index
        cannot rank by the score.
    """
    return itertools.chain.from_iterable(result.rows for result in find_results(index, queries, options))


def find_results(
    index: StructureIndex | str | os.PathLike[str],
    queries: str | os.PathLike[str],
    options: SearchOptions = DEFAULT_SEARCH,
) -> Iterator[QueryResult[StructureHitRow]]:
    """Rank structures for every spectrum of ``queries`` and yield each with its lines; see `find`.

    Raises
    ------
    InputError
        As `find`.
    """
    if options.precursor_da is not None or options.filters:
        folder = index.folder if isinstance(index, StructureIndex) else index
        raise InputError(
            f"{folder}: is an index of structures, which is searched within a window in ppm, by --formula, "
            "or openly; leave --precursor-da and the filters of spectra out"
        )
    precursor_ppm, formula = options.precursor_ppm, options.formula
    check_structure_search(options.k, precursor_ppm, formula)
    opened = index if isinstance(index, StructureIndex) else StructureIndex.open(index)
    name, read = opened.score_name(options.score), queries_of(queries)
    fusion = opened.fusion if name == "fused" else None
    if structure_curve(opened.manifest, name, precursor_ppm, formula, fusion) is None:
        logger.info("%s", why_no_probability(opened.folder or "the index", precursor_ppm, formula))
    return _find(opened, *read, min(options.k, len(opened)), precursor_ppm, formula, name)


def format_hits(rows: Iterable[StructureHitRow], *, max_queries: int = 50) -> RenderableType:
    """Return the hits for a terminal: a line for each query, and a table of its hits below.

    Parameters
    ----------
    rows : iterable of StructureHitRow
        As `find` yields them; all are consumed.
    max_queries : int
        Queries shown; the last line says how many are not.
    """
    return format_queries(rows, _table_of, max_queries=max_queries, about=_about)


def _find(
    index: StructureIndex,
    queries: Iterator[Query],
    total: int | None,
    k: int,
    precursor_ppm: float | None,
    formula: str | None,
    score: StructureScoreName,
) -> Iterator[QueryResult[StructureHitRow]]:
    def search(spectra: list[Spectrum]) -> Iterator[RankedStructures]:
        return ranked_structures(index, spectra, k, precursor_ppm, formula, score)

    for query_id, query, result in searched(queries, total, search):
        if query.spectrum is None or result is None:
            rows = [StructureHitRow(query_id, note=query.note, score_name=score)]
        else:
            rows = rows_of(query_id, query.spectrum, result, score)
        yield QueryResult(query_id, query.spectrum, rows, query.position)


@dataclass(frozen=True, slots=True)
class RankedStructures:
    """What was found for one query.

    Attributes
    ----------
    hits : list of StructureHit
    num_candidates : int
        Structures that the query was compared with.
    note, warnings : str
        As in `StructureHitRow`.
    is_open : bool
        Whether they may have any mass.
    """

    hits: list[StructureHit]
    num_candidates: int
    note: str
    warnings: str
    is_open: bool


def ranked_structures(
    index: StructureIndex,
    spectra: Sequence[Spectrum],
    k: int,
    precursor_ppm: float | None,
    formula: str | None,
    score: StructureScoreName,
) -> Iterator[RankedStructures]:
    """Yield what is found for each query; parameters are those of `StructureIndex.search`."""
    hits = index.search(spectra, k, precursor_ppm, formula=formula, score=score)
    warnings = warnings_of(SpectrumColumns.from_spectra(spectra), index.model)
    is_open = precursor_ppm is None and formula is None
    for of_query in zip(hits, hits.num_candidates.tolist(), hits.notes, warnings, strict=True):
        yield RankedStructures(*of_query, is_open)


def rows_of(query_id: str, query: Spectrum, found: RankedStructures, score: str) -> list[StructureHitRow]:
    """Return the lines of one query: of its hits, or of why there is none."""
    mz, candidates, note, warnings = query.precursor_mz, found.num_candidates, found.note, found.warnings
    if not found.hits:
        return [StructureHitRow(query_id, mz, candidates=candidates, note=note, score_name=score, warnings=warnings)]
    return [
        StructureHitRow(
            query_id,
            mz,
            hit.rank,
            hit.score,
            mass_error_ppm=hit.mass_error_ppm,
            adduct=hit.adduct,
            candidates=candidates,
            note=note,
            score_name=score,
            probability=hit.probability,
            confidence=_confidence(hit.mass_error_ppm, mz, hit.probability, is_open=found.is_open),
            warnings=warnings,
            row=hit.row,
            **{name: hit.metadata[name] for name in _FROM_METADATA},
        )
        for hit in found.hits
    ]


def _confidence(mass_error_ppm: float | None, query_mz: float, probability: float | None, *, is_open: bool) -> str:
    """Return how far a structure may be trusted: by its mass, also where it was asked for by a formula, and how likely.

    No structure of a database is above level 3, however probable: level 2 asks for a measured spectrum of it.
    """
    if mass_error_ppm is None and is_open:
        return LEVEL_3_ANY_MASS
    if mass_error_ppm is None:
        is_same = True
    elif is_open:
        is_same = abs(mass_error_ppm) <= SAME_ION_PPM
    else:
        is_same = abs(query_mz - query_mz / (1 + mass_error_ppm * 1e-6)) <= NEAR_DA
    if not is_same:
        return LEVEL_3_ANALOGUE
    return LEVEL_5 if probability is not None and probability < UNLIKELY else LEVEL_3_STRUCTURE


_BY = {"cosine": "", "predicted": ", by predicted spectra", "fused": ", by the fused score"}


def _about(row: StructureHitRow) -> str:
    """Return how many structures a query was compared with, and by what."""
    if row.candidates is None:
        return ""
    number = counted(row.candidates, "candidates")
    return number + _BY[row.score_name] + (f"; {row.warnings}" if row.warnings else "")


def _error(ppm: float | None) -> str:
    """Return an error in ppm, short where it is large, as in an open search."""
    return shown(ppm, "+.1f" if ppm is None or abs(ppm) < 1e5 else "+.1e")


def _table_of(hits: Sequence[StructureHitRow]) -> Table:
    """Return the hits of one query; the widths are fixed, so that the tables of several queries align."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("   #", justify="right", width=4)
    table.add_column("prob.", justify="right", width=5)
    table.add_column("score", justify="right", width=7)  # a fused one has no fixed range
    table.add_column("ppm", justify="right", width=9)
    table.add_column("adduct", width=10, overflow="fold")
    table.add_column("name", ratio=3, overflow="fold")
    table.add_column("formula", width=14, overflow="fold")
    table.add_column("id", ratio=2, overflow="fold")
    for hit in hits:
        table.add_row(
            str(hit.rank),
            shown(hit.probability, ".2f"),
            shown(hit.score, ".3f"),
            _error(hit.mass_error_ppm),
            Text(hit.adduct or ""),
            Text(hit.name or hit.smiles or ""),
            Text(hit.formula or ""),
            Text(hit.id or ""),
        )
    return table

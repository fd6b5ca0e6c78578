"""One search for many requests: queries of one set of options through the index, and the answers as they are sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...spectra.spectrum import Spectrum
from ..filters import Filters
from ..hit_table import QueryResult
from ..index import Index
from ..queries import Query
from ..search import HitRow, described_search
from ..search import rows_of as library_rows_of
from ..search_options import DEFAULT_PPM, SearchOptions
from ..structure_candidates import check_structure_search
from ..structure_index import StructureIndex
from ..structure_search import StructureHitRow, ranked_structures, rows_of
from .models import OptionsModel, finite

AnyIndex = Index | StructureIndex
Row = HitRow | StructureHitRow
Answer = QueryResult[Any]
"""A query and its lines of the table of hits."""


def options_of(model: OptionsModel) -> SearchOptions:
    """Return the options that a request states.

    Raises
    ------
    InputError
        A filter is none.
    """
    is_ppm = model.mode == "identity" and model.precursor_da is None
    default = DEFAULT_PPM if model.precursor_ppm is None else model.precursor_ppm
    filters = Filters.from_words(**model.filters.model_dump())
    return SearchOptions(
        model.k,
        default if is_ppm else None,
        model.precursor_da,
        model.score,
        model.formula,
        filters if filters != Filters() else None,
    )


def find(index: AnyIndex, queries: Sequence[Query], options: SearchOptions) -> list[Answer]:
    """Search queries and return an answer for each, in order; a query without a hit has one line, with a note.

    All of it is done in the thread that calls: searches of whole files read and write in threads of their own.

    Raises
    ------
    InputError
        The index cannot be searched with these options.
    """
    usable = [(query.query_id, query.spectrum) for query in queries if query.spectrum is not None]
    row_type: type[Row] = StructureHitRow if isinstance(index, StructureIndex) else HitRow
    found: Iterator[Sequence[Row]]
    if isinstance(index, StructureIndex):
        found = _of_structures(index, usable, options)
    else:
        found = _of_library(index, usable, options)
    return [
        QueryResult(
            query.query_id,
            query.spectrum,
            [row_type(query.query_id, note=query.note)] if query.spectrum is None else next(found),
            query.position,
        )
        for query in queries
    ]


def _of_library(index: Index, usable: Sequence[tuple[str, Spectrum]], options: SearchOptions) -> Iterator[list[HitRow]]:
    search = described_search(index, options)
    for (query_id, spectrum), told in zip(usable, search([spectrum for _, spectrum in usable]), strict=True):
        yield library_rows_of(query_id, spectrum, told)


def _of_structures(
    index: StructureIndex, usable: Sequence[tuple[str, Spectrum]], options: SearchOptions
) -> Iterator[list[StructureHitRow]]:
    check_structure_search(options.k, options.precursor_ppm, options.formula)
    score = index.score_name(options.score)
    k, ppm, formula = min(options.k, len(index)), options.precursor_ppm, options.formula
    ranked = ranked_structures(index, [spectrum for _, spectrum in usable], k, ppm, formula, score)
    for (query_id, spectrum), found in zip(usable, ranked, strict=True):
        yield rows_of(query_id, spectrum, found, score)


def as_json(answer: Answer) -> dict[str, Any]:
    """Return an answer in the words of `ionbed.embeddings.service.models.QueryModel`."""
    spectrum, first = answer.spectrum, answer.rows[0]
    warnings = getattr(first, "warnings", "")
    told: dict[str, Any] = {
        "query_id": answer.query_id,
        "note": first.note,
        "warnings": [part.strip() for part in warnings.split(";") if part.strip()],
        "hits": [_row_as_json(row) for row in answer.rows if row.rank is not None],
    }
    if spectrum is not None:
        told |= {
            "precursor_mz": finite(spectrum.precursor_mz),
            "charge": spectrum.charge,
            "polarity": spectrum.polarity,
            "adduct": spectrum.adduct,
            "collision_energy": finite(spectrum.collision_energy),
            "name": spectrum.name,
            "formula": spectrum.formula,
            "smiles": spectrum.smiles,
            "inchikey": spectrum.inchikey,
            "peaks": peak_pairs(spectrum.mz, spectrum.intensity),
        }
    return told


def peak_pairs(mz: Any, intensity: Any) -> list[list[float]]:
    """Return [[m/z, intensity], ...] with the digits that float32 has."""
    return [[round(m, 5), float(f"{i:.5g}")] for m, i in zip(mz.tolist(), intensity.tolist(), strict=True)]


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        field.name: finite(value) if isinstance(value := getattr(row, field.name), float) else value
        for field in dataclasses.fields(row)
    }


def warm_up(index: AnyIndex) -> None:
    """Load what the first search would wait for: the model, and what describes the hits."""
    find(index, [first_query(index)], SearchOptions(k=1))


def first_query(index: AnyIndex) -> Query:
    """Return a query with which an index can be searched for the first time; of spectra it has a hit: itself."""
    if isinstance(index, StructureIndex):
        mz, intensity = np.array([50.0, 100.0], np.float32), np.array([0.5, 1.0], np.float32)
        return Query("warm-up", Spectrum("warm-up", 200.0, mz, intensity, adduct="[M+H]+"))
    row = 0 if index.library.live is None else int(np.argmax(index.library.live))
    return Query("warm-up", index.spectra([row])[0])

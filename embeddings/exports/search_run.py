"""What was searched with what, and the fields of a hit that every format takes from either kind of index."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...spectra.adducts import normalise_adduct
from ...spectra.spectrum import Spectrum
from ..annotation import LEVEL_3_ANALOGUE, LEVEL_3_ANY_MASS
from ..hit_table import QueryResult, Row
from ..index_folder import Kind, is_store, kind_of
from ..search_options import SearchOptions

if TYPE_CHECKING:
    from ..index import Index
    from ..milvus_index import MilvusIndex
    from ..structure_index import StructureIndex

Results = QueryResult[Any]
"""A query with the lines of either kind of index."""

PLACES = {
    "score": 6,
    "probability": 4,
    "precursor_error_ppm": 4,
    "mass_difference": 5,
    "collision_energy": 4,
}
"""Digits after the point, by field."""

_LEVEL = re.compile(r"\blevel\s+([1-5][ab]?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class SearchRun:
    """Where the queries and the library come from, and how they were compared.

    Attributes
    ----------
    kind : 'spectra' or 'structures'
        What the index holds.
    library : str
        Name of the index.
    library_uri : str or None
    queries : str or None
        Name of the file of queries.
    queries_uri : str or None
        None where their place is nobody's business, as of a file that was sent to a service.
    from_store : bool
        Whether the queries are of a store, whose spectra are known by their ids.
    score : str
        What the scores of the hits are.
    settings : tuple of str
        ``name = value`` of every option of the search.
    library_spectra : callable or None
        Returns the library spectra of rows of the index; None where it has none with peaks.
    """

    kind: Kind = "spectra"
    library: str = "library"
    library_uri: str | None = None
    queries: str | None = None
    queries_uri: str | None = None
    from_store: bool = False
    score: str = "cosine"
    settings: tuple[str, ...] = ()
    library_spectra: Callable[[Sequence[int]], list[Spectrum]] | None = None

    @classmethod
    def of(
        cls,
        index: Index | StructureIndex | MilvusIndex,
        queries: str | os.PathLike[str] | None,
        options: SearchOptions,
        *,
        private: bool = False,
    ) -> SearchRun:
        """Describe the search of ``queries`` in an open index.

        Parameters
        ----------
        index : Index, StructureIndex or MilvusIndex
        queries : path or None
        options : SearchOptions
            Those that are None are not told.
        private : bool
            Tell names only, and no place in the file system.
        """
        from ..structure_index import StructureIndex

        path = None if queries is None else Path(queries)
        folder = index.folder
        score = index.score_name(options.score)  # type: ignore[arg-type]  # an index of spectra refuses that of structures
        stated = {**options.told(), "score": score, "model": index.manifest["model_hash"]}
        return cls(
            kind=kind_of(index.manifest),
            library="library" if folder is None else folder.resolve().name,
            library_uri=None if folder is None or private else folder.resolve().as_uri(),
            queries=None if path is None else path.name,
            queries_uri=None if path is None or private else path.resolve().as_uri(),
            from_store=path is not None and is_store(path),
            score=score,
            settings=tuple(f"{name} = {value}" for name, value in stated.items() if value is not None),
            library_spectra=None if isinstance(index, StructureIndex) else index.spectra,
        )


def field(row: Row, name: str) -> Any:
    """Return a field of a line; None where it is unknown, empty, no number, or where its kind of index has none."""
    value = getattr(row, name, None)
    if value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def hits_of(result: Results) -> list[Any]:
    """Return the lines that are hits; none where the query has no hit."""
    return [row for row in result.rows if row.rank is not None]


def note_of(result: Results) -> str:
    """Return why there is no hit, or what is to be known of the hits."""
    return result.rows[0].note if result.rows else ""


def confidence_level(row: Row) -> str | None:
    """Return the level of Schymanski et al. (2014) that the words of a hit vouch for ('2a', '3'); None if for none.

    What is one at best is of that level, and a structure that was found by its mass and its fragments alone of level 3.
    """
    words = field(row, "confidence")
    if words is None:
        return "3" if hasattr(row, "candidates") else None
    found = _LEVEL.search(words)
    return None if found is None else found[1].lower()


def may_be_the_molecule(row: Row) -> bool:
    """Whether the molecule of a hit may be the query's: of its mass, and not told to be unlikely (level 5)."""
    return field(row, "confidence") not in (LEVEL_3_ANALOGUE, LEVEL_3_ANY_MASS) and confidence_level(row) != "5"


def library_mz(row: Row) -> float | None:
    """Return the precursor m/z of the library spectrum, or of the structure as its adduct; None where unknown."""
    error = field(row, "precursor_error_ppm")
    if error is None or row.query_precursor_mz is None or not math.isfinite(error):
        return None
    return row.query_precursor_mz / (1 + error * 1e-6)


def charge_of(spectrum: Spectrum, best: Row | None) -> int | None:
    """Return the charge that a query states, or that its adduct or that of its best hit has; None where none says."""
    if spectrum.charge:
        return spectrum.charge
    for text in (spectrum.adduct, None if best is None else field(best, "adduct")):
        if (adduct := normalise_adduct(text)) is not None:
            return adduct.charge
    return None

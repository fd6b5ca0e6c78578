"""How the hits of queries are searched for: the same options for a command, a file of queries, and a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ..errors import InputError
from .filters import Filters
from .index_folder import check_search_options
from .structure_hits import StructureScoreName

if TYPE_CHECKING:
    from .index import Index
    from .structure_index import StructureIndex

DEFAULT_PPM = 10.0


@dataclass(frozen=True)
class SearchOptions:
    """How queries are searched in an index of either kind.

    Attributes
    ----------
    k : int
        Hits per query, at most.
    precursor_ppm : float or None
        Largest difference of the precursors, in ppm of the library's; None for candidates of any precursor.
    precursor_da : float or None
        Of an index of spectra: the same in Da per charge; ``precursor_ppm`` then counts for nothing.
    score : 'cosine', 'fused', 'predicted' or None
        By which hits are ranked; None for the best that the index can give.
    formula : str or None
        Of an index of structures: candidates of this formula, or of each query's own ('query'). Of spectra: one more
        formula that the filters allow.
    filters : Filters or None
        Of an index of spectra: which library spectra may be hits.

    Raises
    ------
    InputError
        A number is out of range.
    """

    k: int = 10
    precursor_ppm: float | None = DEFAULT_PPM
    precursor_da: float | None = None
    score: StructureScoreName | None = None
    formula: str | None = None
    filters: Filters | None = None

    def __post_init__(self) -> None:
        check_search_options(self.k, self.precursor_ppm, self.precursor_da)

    def told(self) -> Mapping[str, Any]:
        """Return what a file of hits says of them, by name: without what counts for nothing."""
        named = {"k": self.k, "precursor_ppm": self.precursor_ppm, "precursor_da": self.precursor_da}
        if self.precursor_da is not None:
            named["precursor_ppm"] = None
        filters = None if self.filters is None else str(self.filters)
        return {**named, "score": self.score, "formula": self.formula, "filters": filters}


DEFAULT_SEARCH = SearchOptions()
"""Within 10 ppm, ten hits, by the best score."""


def scores_of(index: Index | StructureIndex) -> list[StructureScoreName]:
    """Return the scores by which an index can rank."""
    found: list[StructureScoreName] = []
    for name in get_args(StructureScoreName):
        try:
            index.score_name(name)
        except InputError:
            continue
        found.append(name)
    return found

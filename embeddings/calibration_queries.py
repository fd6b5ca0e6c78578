"""Queries that probabilities are fitted to: of known molecules, with what is left out of the library for each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..spectra.columns import text_codes
from .hits import EmbeddedQueries
from .index import Index

WINDOW_PPM = 10.0
"""Of the searches that are calibrated; a window of another width has more or fewer candidates, which is a term."""

MOST_QUERIES = 1000
"""One of each molecule."""

FEWEST_MOLECULES = 50
"""With fewer molecules on either side, nothing is fitted."""

MOST_TRIED = 20
"""Rows of one molecule, which are tried as queries until another of the same ion stays."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries of known molecules, and what is left out of the library for each.

    Attributes
    ----------
    queries : EmbeddedQueries
    molecule : object array of str, of shape (n,)
        First InChIKey block.
    left_out : list of int64 arrays
        Rows that are taken not to be in the library, ascending.
    is_present : bool array of shape (n,)
        Whether the library has the molecule then.
    laboratories : 'other', 'any' or 'own'
        Whether the molecule's spectra of the query's own laboratory are left out as well; 'own': queries of a user, as
        they are.
    """

    queries: EmbeddedQueries
    molecule: np.ndarray
    left_out: list[np.ndarray]
    is_present: np.ndarray
    laboratories: str

    def take(self, places: np.ndarray) -> Asked:
        """Return some of them."""
        of = self.queries
        columns = None if of.columns is None else of.columns.take(places)
        queries = EmbeddedQueries(
            of.vectors[places], of.precursor_mz[places], of.polarity[places], of.model_hash, columns
        )
        left_out = [self.left_out[place] for place in places.tolist()]
        return Asked(queries, self.molecule[places], left_out, self.is_present[places], self.laboratories)


def library_queries(
    index: Index,
    rng: np.random.Generator,
    *,
    molecules: Collection[str] | None = None,
    laboratories: Sequence[str] = ("other", "any"),
) -> Asked | None:
    """Return library spectra as queries, for half of which the molecule is left out; None for too few molecules.

    Predicted spectra are none: a prediction finds those of the same program as no measured spectrum does.

    Parameters
    ----------
    index : Index
    rng : numpy.random.Generator
    molecules : collection of str, optional
        First InChIKey blocks of which queries are drawn; by default all.
    laboratories : sequence of 'other' and 'any'
        Whose spectra of a query's molecule may be hits; the first for which there are molecules enough.
    """
    block, _ = text_codes(blocks_of(index))
    laboratory, _ = text_codes(index.library.columns(["laboratory"])["laboratory"])
    rows = np.flatnonzero(index.live & (block >= 0))
    if molecules is not None:
        rows = rows[pc.is_in(blocks_of(index), value_set=pa.array(sorted(molecules))).to_numpy()[rows]]
    order = rows[np.lexsort((rng.random(len(rows)), block[rows]))]
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(block[order])) + 1, [len(order)]])
    predicted = index.library.columns(["predicted"])["predicted"].fill_null(False).to_numpy()
    for whose in laboratories:
        chosen = []
        for place in rng.permutation(len(bounds) - 1).tolist():
            part = order[bounds[place] : bounds[place + 1]]
            if (query := _query_among(index, part, predicted, laboratory, whose)) is not None:
                chosen.append((query, part, _is_own(part, query, laboratory, whose)))
            if len(chosen) == MOST_QUERIES:
                break
        if len(chosen) >= 2 * FEWEST_MOLECULES:
            break
    else:
        return None
    is_present = rng.permutation(len(chosen)) % 2 == 0
    of_query = np.array([query for query, *_ in chosen], np.int64)
    left_out = [
        np.sort(part[is_out] if present else part)
        for present, (_, part, is_out) in zip(is_present, chosen, strict=True)
    ]
    queries = EmbeddedQueries(
        np.ascontiguousarray(index.vectors[of_query]), index.precursor_mz[of_query], index.polarity[of_query],
        index.manifest["model_hash"], index.library.peaks(of_query),
    )  # fmt: skip
    keys = index.rows(of_query, ["inchikey"])["inchikey"].to_pylist()
    return Asked(queries, np.array([key[:14] for key in keys], object), left_out, is_present, whose)


def blocks_of(index: Index) -> pa.ChunkedArray:
    """Return the first InChIKey block of every row."""
    return pc.utf8_slice_codeunits(index.library.columns(["inchikey"])["inchikey"], 0, 14)


def rows_by(column: pa.ChunkedArray, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the rows that have each of some distinct texts, ascending."""
    places = pc.index_in(column, value_set=pa.array(texts, column.type)).fill_null(-1).to_numpy()
    rows = np.flatnonzero(places >= 0)
    order = rows[np.argsort(places[rows], kind="stable")]
    ends = np.cumsum(np.bincount(places[rows], minlength=len(texts)))
    return dict(zip(texts, np.split(order, ends[:-1]) if len(texts) else (), strict=True))


def _query_among(
    index: Index, part: np.ndarray, predicted: np.ndarray, laboratory: np.ndarray, laboratories: str
) -> int | None:
    """Return the first measured one of a molecule's rows, in an order by chance, of whose ion another row stays."""
    measured = part[~predicted[part]]
    for row in measured[: MOST_TRIED if len(part) > 1 else 0].tolist():
        others = part[~_is_own(part, row, laboratory, laboratories)]
        if is_same_ion(index, others, float(index.precursor_mz[row]), int(index.polarity[row])).any():
            return row
    return None


def _is_own(part: np.ndarray, query: int, laboratory: np.ndarray, laboratories: str) -> np.ndarray:
    """Return which rows of a query's molecule are left out where the molecule is not."""
    own: np.ndarray = part == query
    if laboratories == "other":
        # An unknown laboratory may be the query's.
        own = own | (laboratory[part] == laboratory[query]) | (laboratory[part] < 0) | (laboratory[query] < 0)
    return own


def is_same_ion(index: Index, rows: np.ndarray, precursor_mz: float, polarity: int) -> np.ndarray:
    """Return which rows a search within the window of a precursor could find."""
    library_mz = index.precursor_mz[rows]
    is_near = np.abs(precursor_mz - library_mz) <= WINDOW_PPM * 1e-6 * library_mz
    result: np.ndarray = is_near & (index.polarity[rows] * polarity != -1)
    return result

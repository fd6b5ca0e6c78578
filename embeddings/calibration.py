"""How probable it is that the molecule of a hit is the query's: a calibration that an index carries, and its use.

Of each molecule among the best hits of a query, its best score, its lead over the best other molecule, the number of
candidates, peaks and matched peaks go into a logistic function whose weights are fitted to queries of known molecules
(`ionbed.embeddings.calibration_fit`). It never falls with the score, everything else being equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InputError
from ..spectra.columns import SpectrumColumns, text_codes
from .hits import EmbeddedQueries, Hits, ScoreName
from .peak_matches import match_peaks, usable_peaks

FORMAT = 1
"""Of the record in an index's manifest."""

DEPTH = 10
"""The best hits of a query among which its lead over the next molecule is looked for."""

KNOTS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Scores at which the weight of the score may change."""

RISING = (
    "score",
    *(f"score above {knot:g}" for knot in KNOTS),
    "lead",
    "arrears",
    "matched peaks",
    "share of the fewer peaks",
    "share of the more peaks",
    "same precursor",
)
"""Terms whose weight is not below 0."""

TERMS = (*RISING, "candidates", "peaks of the query")
"""Terms of the logistic function, in order. Lead and arrears are the score minus that of the best other molecule, above
and below 0. Candidates, matched peaks and peaks are ``log(1 + n)``; the shares are of the matched peaks among the peaks
that can match (`ionbed.embeddings.peak_matches`), of the spectrum that has fewer and of that which has more."""

COLUMNS = tuple(dict.fromkeys((*SpectrumColumns.TABLE_COLUMNS, "inchikey")))
"""Of the library spectra that are hits, what a calibration reads."""


@dataclass(frozen=True)
class Terms:
    """What goes into a logistic function.

    Attributes
    ----------
    names : tuple of str
        In order; first those whose weight is not below 0.
    num_rising : int
        How many these are.
    """

    names: tuple[str, ...]
    num_rising: int


OF_SPECTRA = Terms(TERMS, len(RISING))
"""Of the hits of an index of spectra."""

NO_PROBABILITIES = (
    "too few molecules with two measured spectra of one ion; ionbed index calibrate takes your own queries"
)
"""Why a library has no calibration."""


@dataclass(frozen=True)
class Curve:
    """A logistic function of terms, for one way of searching.

    Attributes
    ----------
    weights : tuple of float
    intercept : float
    record : mapping
        On how many queries and molecules it was fitted, and how well it held on molecules that were left out.
    terms : Terms
        By default those of spectra.
    """

    weights: tuple[float, ...]
    intercept: float
    record: Mapping[str, Any] = field(default_factory=dict)
    terms: Terms = OF_SPECTRA

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.terms.names):
            raise ValueError(f"{len(self.weights)} weights for {len(self.terms.names)} terms")
        if not np.isfinite([*self.weights, self.intercept]).all():
            raise ValueError("a weight is not a finite number")
        if min(self.weights[: self.terms.num_rising]) < 0:
            raise ValueError("a weight is below 0 that must not be")

    def __call__(self, terms: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 of shape (n,), for terms of shape (n, n_terms)."""
        total = np.full(len(terms), self.intercept)
        for weight, column in zip(self.weights, terms.T, strict=True):
            total += weight * column  # each row by itself: a product of matrices may round differently
        return np.exp(-np.logaddexp(0.0, -total))


@dataclass(frozen=True)
class Calibration:
    """What an index's manifest says of probabilities.

    Attributes
    ----------
    curves : mapping of str to Curve
        By `way`.
    record : mapping
        When it was made, from which queries, for how many library spectra.
    """

    curves: Mapping[str, Curve]
    record: Mapping[str, Any]

    def to_tree(self) -> dict[str, Any]:
        """Return plain values, as they stand in ``manifest.json``."""
        curves = {name: asdict(curve) for name, curve in self.curves.items()}
        for of in curves.values():
            of["terms"] = list(of["terms"]["names"])
        return {"format": FORMAT, **self.record, "curves": curves}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], terms: Terms = OF_SPECTRA) -> Calibration:
        """Return what `to_tree` gave.

        Parameters
        ----------
        tree : mapping
        terms : Terms
            That the curves are to have; one that does not say has those of spectra.

        Raises
        ------
        InputError
            It is of another form.
        """
        try:
            if tree["format"] != FORMAT:
                raise ValueError(f"its format is {tree['format']}, this version of ionbed reads {FORMAT}")
            curves = {}
            for name, of in tree["curves"].items():
                if tuple(of.get("terms", OF_SPECTRA.names)) != terms.names:
                    raise ValueError("its terms are not those that this version of ionbed works out")
                weights = tuple(map(float, of["weights"]))
                curves[str(name)] = Curve(weights, float(of["intercept"]), dict(of["record"]), terms)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"the calibration of the index cannot be used ({error!r}); make it anew: ionbed index calibrate"
            ) from None
        return cls(curves, {name: value for name, value in tree.items() if name not in ("format", "curves")})


def way(score: ScoreName, is_window: bool) -> str:
    """Return the name of a way of searching: 'cosine within a window', 'fused, open'."""
    return f"{score} within a window" if is_window else f"{score}, open"


def curve_of(manifest: Mapping[str, Any], score: ScoreName, is_window: bool) -> Curve | None:
    """Return the curve that an index carries for a way of searching, None where it carries none.

    Raises
    ------
    InputError
        What it carries is damaged or of another version.
    """
    tree = manifest.get("calibration")
    return None if tree is None else Calibration.from_tree(tree).curves.get(way(score, is_window))


@dataclass(frozen=True, eq=False)
class Candidates:
    """The molecules among the hits of queries, each by its best hit.

    Attributes
    ----------
    query : int64 array of shape (n,)
        Ascending.
    rank : int64 array of shape (n,)
        Of the molecule's best hit, from 0.
    terms : float64 array of shape (n, len(TERMS))
    of_hit : int64 array of shape (n_queries, k)
        Of each hit, the place of its molecule here; -1 where there is no hit, or none with an InChIKey.
    """

    query: np.ndarray
    rank: np.ndarray
    terms: np.ndarray
    of_hit: np.ndarray


def candidates(
    queries: EmbeddedQueries,
    rows: np.ndarray,
    scores: np.ndarray,
    num_candidates: np.ndarray,
    found: np.ndarray,
    table: pa.Table,
    same_ppm: float,
) -> Candidates:
    """Return the molecules among hits, with the terms of their probability.

    Parameters
    ----------
    queries : EmbeddedQueries
        With their peaks.
    rows : int64 array of shape (n_queries, k)
        Hits, best first; -1 for none.
    scores : float array of shape (n_queries, k)
    num_candidates : int array of shape (n_queries,)
        Library spectra that each query was compared with.
    found : int64 array of shape (n_found,)
        The rows that are hits, ascending.
    table : pyarrow.Table
        `COLUMNS` of these rows.
    same_ppm : float
        Precursors that differ by no more are the same.
    """
    assert queries.columns is not None, "terms are of the peaks"
    library = SpectrumColumns.from_table(table)
    place = np.searchsorted(found, np.maximum(rows, 0)).clip(max=max(len(found) - 1, 0))
    molecules = np.append(_molecules(table), -1)
    molecule = np.where(rows >= 0, molecules[np.where(rows >= 0, place, -1)], -1)
    query, rank, of_hit = best_of_molecules(molecule)
    pair_place = place[query, rank]
    matched = match_peaks(queries.columns, library, query, pair_place).counts(len(query))
    usable = usable_peaks(queries.columns)[query], usable_peaks(library)[pair_place]
    lead = leads(molecule, np.nan_to_num(scores.astype(np.float64)), rows, query, rank)
    score = scores[query, rank].astype(np.float64)
    hit_mz = library.precursor_mz[pair_place]
    is_same = np.abs(queries.precursor_mz[query] - hit_mz) <= same_ppm * 1e-6 * hit_mz
    terms = np.column_stack(
        [
            score,
            *(np.maximum(score - knot, 0.0) for knot in KNOTS),
            np.maximum(lead, 0.0),
            np.minimum(lead, 0.0),
            np.log1p(matched),
            matched / np.maximum(np.minimum(*usable), 1),
            matched / np.maximum(np.maximum(*usable), 1),
            is_same,
            np.log1p(num_candidates[query]),
            np.log1p(queries.columns.num_peaks[query]),
        ]
    )
    return Candidates(query, rank, terms, of_hit)


def candidates_told(num_in_window: np.ndarray, *, is_window: bool) -> np.ndarray:
    """Return what is told of the number of candidates: of an open search nothing, which has all of the library."""
    return num_in_window.copy() if is_window else np.zeros_like(num_in_window)


def probabilities(
    curve: Curve, queries: EmbeddedQueries, hits: Hits, num_candidates: np.ndarray, found: np.ndarray, table: pa.Table,
    same_ppm: float,
) -> np.ndarray:  # fmt: skip
    """Return the probability of each hit, float64 of shape (n_queries, k); NaN for none, and without an InChIKey.

    Hits of one molecule have the same. Those of all molecules of a query add up to 1 at most. Parameters are those of
    `candidates`; the lead is looked for among the best `DEPTH` hits, so at least as many are to be given.
    """
    of = candidates(queries, hits.rows, hits.scores, num_candidates, found, table, same_ppm)
    return shared_out(curve, of)


def shared_out(curve: Curve, of: Candidates) -> np.ndarray:
    """Return the probability of each hit, float64 of shape (n_queries, k): those of a query add up to 1 at most.

    A hit has the same however many are asked for: molecules behind the best `DEPTH` hits get what the others leave.
    """
    alone = curve(of.terms)
    together = np.bincount(of.query, weights=np.where(of.rank < DEPTH, alone, 0.0), minlength=len(of.of_hit))
    by_rank = np.zeros(of.of_hit.shape)
    by_rank[of.query, of.rank] = np.where(of.rank < DEPTH, alone / np.maximum(together, 1.0)[of.query], alone)
    before = np.cumsum(by_rank, axis=1) - by_rank
    by_rank[:, DEPTH:] = np.minimum(by_rank, np.maximum(1.0 - before, 0.0))[:, DEPTH:]
    shares = by_rank[of.query, of.rank]
    return np.where(of.of_hit >= 0, np.append(shares, np.nan)[of.of_hit], np.nan)


def expected_share_wrong(probabilities: np.ndarray) -> np.ndarray:
    """Return, for each hit of a list, the share of wrong ones to expect among all that are at least as probable.

    An estimate of the false discovery rate (Benjamini and Hochberg 1995) by posterior error probabilities: the mean of
    ``1 - p``. It holds as far as the probabilities do.

    Parameters
    ----------
    probabilities : float array of shape (n,)

    Returns
    -------
    float64 array of shape (n,)
    """
    order = np.argsort(-probabilities, kind="stable")
    ordered = probabilities[order]
    means = np.cumsum(1.0 - ordered) / np.arange(1, len(ordered) + 1)
    # Of equals all or none are in the list.
    last = np.searchsorted(-ordered, -ordered, side="right") - 1
    result = np.empty(len(ordered))
    result[order] = means[last]
    return result


def _molecules(table: pa.Table) -> np.ndarray:
    """Return the number of each row's first InChIKey block, -1 where it has none."""
    import pyarrow.compute as pc

    codes, _ = text_codes(pa.chunked_array(pc.utf8_slice_codeunits(table["inchikey"], 0, 14)))
    return codes.astype(np.int64)


def best_of_molecules(molecule: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best hit of each molecule: its query (ascending), its rank from 0, and of each hit its place in these.

    Parameters
    ----------
    molecule : int64 array of shape (n_queries, k)
        Of each hit, a number; -1 for none.

    Returns
    -------
    query, rank : int64 arrays of shape (n,)
    of_hit : int64 array of shape (n_queries, k)
        -1 for none.
    """
    query, rank = np.nonzero(molecule >= 0)
    value = molecule[query, rank]
    order = np.lexsort((rank, value, query))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(query[order]) != 0) | (np.diff(value[order]) != 0)
    first = np.sort(order[is_new])
    place = np.searchsorted(first, order[is_new])
    of_hit = np.full(molecule.shape, -1, np.int64)
    of_hit[query[order], rank[order]] = place[np.cumsum(is_new) - 1]
    return query[first], rank[first], of_hit


def leads(
    molecule: np.ndarray, scores: np.ndarray, rows: np.ndarray, query: np.ndarray, rank: np.ndarray
) -> np.ndarray:
    """Return the score of listed hits minus that of the best hit of another molecule, among the first `DEPTH`.

    Where these are all of one molecule, the last of them stands for the next; where there are fewer, nothing does.
    """
    best, second = scores[:, 0], np.zeros(len(scores))
    if rows.shape[1] >= DEPTH:
        is_full = rows[:, DEPTH - 1] >= 0
        second[is_full] = scores[is_full, DEPTH - 1]
    # One without an InChIKey is another molecule: nothing says that it is the same.
    is_other = (molecule != molecule[:, :1]) | (molecule < 0)
    is_other[:, 0] = False
    is_other &= rows >= 0
    is_other[:, DEPTH:] = False
    has_other = is_other.any(axis=1)
    second[has_other] = scores[has_other, is_other[has_other].argmax(axis=1)]
    is_best = molecule[query, rank] == molecule[query, 0]
    lead: np.ndarray = scores[query, rank] - np.where(is_best, second[query], best[query])
    return lead

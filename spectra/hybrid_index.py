"""The spectra of a library with the highest hybrid entropy similarity to a query, found without scoring all exactly.

An index by fragment m/z and one by neutral loss (Li and Fiehn, Nat. Methods 20 (2023) 1475-1478), as
`peak_matching.score_library_shifted` reads them, but what a match needs stands beside the m/z in single precision, so
that memory is read in one direction. Sums in single precision only tell which spectra may be among the highest; where
that leaves a doubt, the exact scores decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .compiling import compiled
from .lookups import run_in_threads
from .peak_matching import MARGIN_DA, PeakLists, _is_match
from .preparation.workers import usable_cores

BYTES_PER_PEAK_WHILE_BUILT = 76
"""At the most: one index is done, and the other is copied into its order. The two then have 36."""

SMALLEST_TERM = np.float32(1e-20)
"""Added for a match whose term is rounded to nothing: 0 is the sum of a spectrum in which no peak matches."""

BINS_PER_DA = 32
"""Of the map by which most peaks are seen to be far from all those of the query."""

MAP_DA = 4096.0
"""All m/z from here on have the last place of the map: a file may state any, up to 1e30."""

SCORE_BINS = 4096


class Fragments(NamedTuple):
    """The peaks of spectra by m/z: their m/z, spectra, weights and entropy terms, each of shape (n_peaks,)."""

    mz: np.ndarray
    spectrum: np.ndarray
    weight: np.ndarray
    self_term: np.ndarray


class Losses(NamedTuple):
    """The same by neutral loss, which is rounded to single precision."""

    loss: np.ndarray
    mz: np.ndarray
    spectrum: np.ndarray
    weight: np.ndarray
    self_term: np.ndarray


class HybridIndex:
    """An index of the peaks of ``n`` spectra, weighted for the entropy.

    Parameters
    ----------
    blocks : iterable of (PeakLists, int64 array)
        Of all spectra in order: which spectra of the peak lists come next.
    precursor_mz : float64 array of shape (n,)
    group : int8 array of shape (n,)
        Spectra of one number lie together; a query is compared with the groups that it may match.
    tolerance_da : float
    """

    def __init__(
        self,
        blocks: Iterable[tuple[PeakLists, np.ndarray]],
        precursor_mz: np.ndarray,
        group: np.ndarray,
        tolerance_da: float,
    ) -> None:
        self._precursor_mz, self._tolerance = np.ascontiguousarray(precursor_mz, np.float64), tolerance_da
        parts: dict[int, list[tuple[np.ndarray, ...]]] = {int(number): [] for number in np.unique(group)}
        begin = 0
        for peaks, places in blocks:
            counts = np.diff(peaks.offsets)[places]
            ends = np.cumsum(counts)
            peak = np.arange(ends[-1] if len(ends) else 0) + np.repeat(peaks.offsets[places] - (ends - counts), counts)
            spectrum = np.repeat(np.arange(begin, begin + len(places), dtype=np.int32), counts)
            of_block = (
                peaks.mz[peak],
                spectrum,
                peaks.weight[peak].astype(np.float32),
                peaks.self_term[peak].astype(np.float32),
            )
            of_group = group[spectrum]
            for number, gathered in parts.items():
                here = of_group == number
                gathered.append(tuple(array[here] for array in of_block))
            begin += len(places)
        self._indexes: dict[int, tuple[Fragments, Losses]] = {}
        for number in list(parts):
            mz, spectrum, weight, self_term = (
                np.concatenate(arrays) for arrays in zip(*parts.pop(number), strict=True)
            )
            order = np.argsort(mz, kind="stable")
            columns = [mz, spectrum, weight, self_term]
            del mz, spectrum, weight, self_term
            for place, column in enumerate(columns):
                columns[place] = column[order]
            fragments = Fragments(*columns)
            loss = (self._precursor_mz[fragments.spectrum] - fragments.mz).astype(np.float32)
            order = np.argsort(loss, kind="stable")
            self._indexes[number] = fragments, Losses(loss[order], *(column[order] for column in fragments))

    def highest(
        self,
        queries: PeakLists,
        group: np.ndarray,
        depth: int,
        eligible: np.ndarray | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each query which spectra are among the ``depth`` + 1 of the highest scores, and which may be.

        Parameters
        ----------
        queries : PeakLists of n_queries spectra, weighted for the entropy
        group : int8 array of shape (n_queries,)
            Spectra of the group ``-group`` are left out, unless that is 0.
        depth : int
        eligible : bool array of shape (n,), optional
            Spectra that may be found; by default all.

        Returns
        -------
        list of (int32 array, int32 array)
            Spectra that are, all with a higher score than any that is not; and those of which the exact scores have to
            tell. A spectrum without a matching peak is in neither.
        """
        tolerance, count = self._tolerance, len(self._precursor_mz)
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.int32),) * 2] * len(group)
        mask = np.ones(count, bool) if eligible is None else eligible

        def part(begin: int, end: int) -> None:
            totals, matched_by = np.zeros(count, np.float32), np.full(count, -1, np.int64)
            columns = np.empty(count, np.int32)
            for query in range(begin, end):
                totals[:] = 0
                near = _near(queries, query, tolerance)
                for number, (fragments, losses) in self._indexes.items():
                    if number * int(group[query]) != -1:
                        _add_up(
                            queries, query, fragments, losses, self._precursor_mz, near, tolerance, totals, matched_by
                        )
                num_matched, num_found = _at_the_top(totals, mask, depth, _margin(queries, query), columns)
                found[query] = _divided(totals, columns[:num_found], num_matched, depth, _margin(queries, query))

        run_in_threads(part, len(group), max(1, -(-len(group) // usable_cores())), usable_cores())
        return found


def _margin(queries: PeakLists, query: int) -> float:
    """Return a bound on the error of the difference of two sums in single precision, twice a score each.

    The terms of a sum are products of weights, which add up to 1 in either spectrum, and their logarithms: some 10 in
    the mean for a thousand peaks, with a few roundings each. To that come as many additions as the query has peaks.
    """
    half_unit = float(np.finfo(np.float32).eps) / 2
    num_peaks = int(queries.offsets[query + 1] - queries.offsets[query])
    return 4 * half_unit * (100 + 2 * num_peaks)


def _divided(
    totals: np.ndarray, columns: np.ndarray, num_matched: int, depth: int, margin: float
) -> tuple[np.ndarray, np.ndarray]:
    sums = totals[columns]
    if num_matched <= depth:
        # Of all others the score is 0, and so it may be of those with terms that are rounding error.
        is_in = sums > margin
        return columns[is_in], columns[~is_in]
    last = np.partition(sums, len(sums) - depth - 1)[len(sums) - depth - 1]
    is_in = sums > last + margin
    return columns[is_in], columns[~is_in & (sums >= last - margin)]


def _near(queries: PeakLists, query: int, tolerance: float) -> np.ndarray:
    """Return a map of the m/z axis, uint8: 1 where a peak of the query may be within reach."""
    mz = queries.mz[queries.offsets[query] : queries.offsets[query + 1]].astype(np.float64)
    begins = ((mz - tolerance - MARGIN_DA).clip(0, MAP_DA) * BINS_PER_DA).astype(np.int64)
    ends = ((mz + tolerance + MARGIN_DA).clip(0, MAP_DA) * BINS_PER_DA).astype(np.int64)
    near = np.zeros(int(ends.max(initial=-1)) + 1, np.uint8)
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        near[begin : end + 1] = 1
    return near


@compiled
def _has_match(own: PeakLists, begin: int, end: int, mz: float, tolerance: float) -> bool:
    """Return whether a peak of a spectrum matches a fragment."""
    place = begin + np.searchsorted(own.mz[begin:end], mz)
    if place < end and _is_match(own.mz[place], mz, 0.0, tolerance):
        return True
    return bool(place > begin and _is_match(own.mz[place - 1], mz, 0.0, tolerance))


@compiled
def _add_up(
    own: PeakLists, query: int, fragments: Fragments, losses: Losses, precursor_mz: np.ndarray, near: np.ndarray,
    tolerance: float, totals: np.ndarray, matched_by: np.ndarray,
) -> None:  # fmt: skip
    """Add up the terms of the matches of a query with all spectra, twice the score, in single precision."""
    begin, end = own.offsets[query], own.offsets[query + 1]
    own_precursor = own.precursor_mz[query]
    for i in range(begin, end):
        mz = np.float64(own.mz[i])
        weight, self_term = np.float32(own.weight[i]), np.float32(own.self_term[i])
        place = np.searchsorted(fragments.mz, mz - tolerance - MARGIN_DA)
        while place < len(fragments.mz) and fragments.mz[place] <= mz + tolerance + MARGIN_DA:
            if _is_match(own.mz[i], fragments.mz[place], 0.0, tolerance):
                spectrum = fragments.spectrum[place]
                both = weight + fragments.weight[place]
                term = both * np.log2(both) - self_term - fragments.self_term[place]
                totals[spectrum] += max(term, SMALLEST_TERM)
                matched_by[spectrum] = i
            place += 1
        loss = own_precursor - mz
        place = np.searchsorted(losses.loss, loss - tolerance - MARGIN_DA)
        while place < len(losses.loss) and losses.loss[place] <= loss + tolerance + MARGIN_DA:
            spectrum = losses.spectrum[place]
            if matched_by[spectrum] != i:
                other_mz = losses.mz[place]
                # Only near the edge of the tolerance does the rounding of the loss leave a doubt.
                is_match = abs(loss - losses.loss[place]) < tolerance - MARGIN_DA
                if not is_match:
                    is_match = _is_match(own.mz[i], other_mz, own_precursor - precursor_mz[spectrum], tolerance)
                if is_match:
                    bin = int(min(other_mz, MAP_DA) * BINS_PER_DA)
                    if bin >= len(near) or near[bin] == 0 or not _has_match(own, begin, end, other_mz, tolerance):
                        both = weight + losses.weight[place]
                        term = both * np.log2(both) - self_term - losses.self_term[place]
                        totals[spectrum] += max(term, SMALLEST_TERM)
            place += 1


@compiled
def _at_the_top(
    totals: np.ndarray, eligible: np.ndarray, depth: int, margin: float, columns: np.ndarray
) -> tuple[int, int]:
    """Write the spectra with the highest sums to ``columns``: ``depth`` + 1 and what is near the last, or all matched.

    Returns
    -------
    num_matched : int
        Eligible spectra with a matching peak.
    num_found : int
    """
    counts = np.zeros(SCORE_BINS + 1, np.int64)
    num_matched = 0
    for column in range(len(totals)):
        if totals[column] > 0 and eligible[column]:
            num_matched += 1
            counts[min(SCORE_BINS, int(totals[column] * (SCORE_BINS / 2)))] += 1
    least = 0.0
    if num_matched > depth:
        bin, above = SCORE_BINS, counts[SCORE_BINS]
        while above <= depth:
            bin -= 1
            above += counts[bin]
        least = bin * (2 / SCORE_BINS) - margin
    num_found = 0
    for column in range(len(totals)):
        if totals[column] > 0 and totals[column] >= least and eligible[column]:
            columns[num_found] = column
            num_found += 1
    return num_matched, num_found

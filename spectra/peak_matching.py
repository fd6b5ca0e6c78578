"""Compiled loops that match the peaks of two spectra and score the matches, for listed pairs and for whole libraries.

Two peaks of one spectrum lie more than twice the tolerance apart, so a peak has at most one match among the fragments
of another spectrum, and at most one among its fragments shifted by the difference of the precursors. Every function
releases Python's lock; none shares what it writes with another call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compiling import compiled

MARGIN_DA = 1e-3
"""An index is searched this far beyond the tolerance, and what is found is then tested exactly: more than the
rounding of an m/z in float32, or of a neutral loss of up to 32,768 Da."""


class PeakLists(NamedTuple):
    """Cleaned and weighted peaks of ``n`` spectra, concatenated.

    Attributes
    ----------
    offsets : int64 array of shape (n + 1,)
        Spectrum i owns peaks ``offsets[i]:offsets[i + 1]``.
    mz : float32 array of shape (n_peaks,)
        Ascending within a spectrum.
    weight : float64 array of shape (n_peaks,)
        Cosine: intensity to a power. Entropy: intensity weighted by the spectrum's entropy, of sum 1.
    self_term : float64 array of shape (n_peaks,)
        Entropy: w log2 w of the weight. Not read for a cosine.
    norm : float64 array of shape (n,)
        Cosine: root of the sum of squared weights; above 0. Not read for an entropy.
    precursor_mz : float64 array of shape (n,)
    """

    offsets: np.ndarray
    mz: np.ndarray
    weight: np.ndarray
    self_term: np.ndarray
    norm: np.ndarray
    precursor_mz: np.ndarray


class PeakIndex(NamedTuple):
    """All peaks of a library by m/z: what Li and Fiehn (Nat. Methods 20 (2023) 1475-1478) call a flash index.

    Attributes
    ----------
    mz : float array of shape (n_peaks,)
        Ascending: the fragments' m/z, or the neutral losses (precursor m/z minus fragment m/z).
    spectrum : int64 array of shape (n_peaks,)
        Place of its spectrum in the library.
    peak : int64 array of shape (n_peaks,)
        Its place in the `PeakLists`.
    """

    mz: np.ndarray
    spectrum: np.ndarray
    peak: np.ndarray


def build_index(peaks: PeakLists, library: np.ndarray, *, losses: bool) -> PeakIndex:
    """Return the index of the ``library`` (int64 array of spectra), by fragment m/z or by neutral loss."""
    counts = np.diff(peaks.offsets)[library]
    spectrum = np.repeat(np.arange(len(library)), counts)
    starts = np.cumsum(counts) - counts
    peak = np.arange(len(spectrum)) + np.repeat(peaks.offsets[library] - starts, counts)
    mz = peaks.mz[peak]
    if losses:
        mz = peaks.precursor_mz[library][spectrum] - mz
    order = np.argsort(mz, kind="stable")
    return PeakIndex(mz[order], spectrum[order], peak[order])


@compiled
def _is_match(mz_a: float, mz_b: float, shift: float, tolerance: float) -> bool:
    # In the arithmetic of matchms: at the very edge of the tolerance, the rounding decides.
    moved = np.float64(mz_b) + shift
    return bool(np.float64(mz_a) - tolerance <= moved and moved <= np.float64(mz_a) + tolerance)


@compiled
def _term(is_entropy: bool, own: PeakLists, other: PeakLists, a: int, b: int) -> float:
    """Return what a match of the peaks ``a`` of ``own`` and ``b`` of ``other`` adds to the score, not normalised."""
    if not is_entropy:
        return own.weight[a] * other.weight[b]
    both = own.weight[a] + other.weight[b]
    return both * np.log2(both) - own.self_term[a] - other.self_term[b]


@compiled
def _normalised(is_entropy: bool, own: PeakLists, other: PeakLists, a: int, b: int, total: float) -> float:
    return total / 2.0 if is_entropy else total / (own.norm[a] * other.norm[b])


@compiled
def _matches(
    own: PeakLists, other: PeakLists, a: int, b: int, shift: float, tolerance: float, own_match: np.ndarray,
    other_match: np.ndarray, begin: int,
) -> int:  # fmt: skip
    """Write the matching peaks of ``a`` and ``b`` to the two arrays from ``begin`` on; return the end."""
    i, j = own.offsets[a], other.offsets[b]
    while i < own.offsets[a + 1] and j < other.offsets[b + 1]:
        if _is_match(own.mz[i], other.mz[j], shift, tolerance):
            own_match[begin], other_match[begin] = i, j
            begin += 1
            i += 1
            j += 1
        elif own.mz[i] < np.float64(other.mz[j]) + shift:
            i += 1
        else:
            j += 1
    return begin


@compiled
def _fragment_total(is_entropy: bool, own: PeakLists, other: PeakLists, a: int, b: int, tolerance: float) -> float:
    i, j = own.offsets[a], other.offsets[b]
    total = 0.0
    while i < own.offsets[a + 1] and j < other.offsets[b + 1]:
        if _is_match(own.mz[i], other.mz[j], 0.0, tolerance):
            total += _term(is_entropy, own, other, i, j)
            i += 1
            j += 1
        elif own.mz[i] < other.mz[j]:
            i += 1
        else:
            j += 1
    return total


@compiled
def _descending(products: np.ndarray, count: int, order: np.ndarray) -> None:
    """Write the places of the first ``count`` products, the largest first and of equals the last, to ``order``.

    As ``np.argsort(products[:count], kind="mergesort")[::-1]``, which is slower for the few that there are.
    """
    if count > 64:
        order[:count] = np.argsort(products[:count], kind="mergesort")[::-1]
        return
    for place in range(count):
        hole = place
        while hole > 0 and products[order[hole - 1]] <= products[place]:
            order[hole] = order[hole - 1]
            hole -= 1
        order[hole] = place


@compiled
def _greedy_total(
    own: PeakLists, other: PeakLists, begin_a: int, begin_b: int, own_match: np.ndarray, other_match: np.ndarray,
    count: int, products: np.ndarray, order: np.ndarray, is_used_own: np.ndarray, is_used_other: np.ndarray,
) -> float:  # fmt: skip
    """Return the sum of products of matches, the largest first, each peak in one of them; the last four are room."""
    for match in range(count):
        products[match] = own.weight[own_match[match]] * other.weight[other_match[match]]
    _descending(products, count, order)
    total = 0.0
    for match in order[:count]:
        i, j = own_match[match] - begin_a, other_match[match] - begin_b
        if not is_used_own[i] and not is_used_other[j]:
            is_used_own[i] = True
            is_used_other[j] = True
            total += products[match]
    for match in range(count):
        is_used_own[own_match[match] - begin_a] = False
        is_used_other[other_match[match] - begin_b] = False
    return total


@compiled
def _modified_cosine_total(own: PeakLists, other: PeakLists, a: int, b: int, tolerance: float) -> float:
    """Match fragments and shifted fragments greedily, the largest product first, as matchms' ModifiedCosineGreedy."""
    shift = own.precursor_mz[a] - other.precursor_mz[b]
    if abs(shift) <= tolerance:
        return _fragment_total(False, own, other, a, b, tolerance)
    num_a, num_b = own.offsets[a + 1] - own.offsets[a], other.offsets[b + 1] - other.offsets[b]
    room = 2 * min(num_a, num_b)
    own_match, other_match = np.empty(room, np.int64), np.empty(room, np.int64)
    count = _matches(own, other, a, b, 0.0, tolerance, own_match, other_match, 0)
    count = _matches(own, other, a, b, shift, tolerance, own_match, other_match, count)
    products, order = np.empty(count), np.empty(count, np.int64)
    is_used_own, is_used_other = np.zeros(num_a, np.bool_), np.zeros(num_b, np.bool_)
    return _greedy_total(own, other, own.offsets[a], other.offsets[b], own_match, other_match, count, products, order,
                         is_used_own, is_used_other)  # fmt: skip


@compiled
def _hybrid_entropy_total(own: PeakLists, other: PeakLists, a: int, b: int, tolerance: float) -> float:
    """Match fragments first, and of what is left the neutral losses (Li and Fiehn 2023, hybrid search)."""
    num_a, num_b = own.offsets[a + 1] - own.offsets[a], other.offsets[b + 1] - other.offsets[b]
    room = min(num_a, num_b)
    own_match, other_match = np.empty(room, np.int64), np.empty(room, np.int64)
    is_used_own, is_used_other = np.zeros(num_a, np.bool_), np.zeros(num_b, np.bool_)
    total = 0.0
    for match in range(_matches(own, other, a, b, 0.0, tolerance, own_match, other_match, 0)):
        is_used_own[own_match[match] - own.offsets[a]] = True
        is_used_other[other_match[match] - other.offsets[b]] = True
        total += _term(True, own, other, own_match[match], other_match[match])
    shift = own.precursor_mz[a] - other.precursor_mz[b]
    for match in range(_matches(own, other, a, b, shift, tolerance, own_match, other_match, 0)):
        i, j = own_match[match], other_match[match]
        if not is_used_own[i - own.offsets[a]] and not is_used_other[j - other.offsets[b]]:
            total += _term(True, own, other, i, j)
    return total


@compiled
def score_listed(
    is_entropy: bool, is_shifted: bool, own: PeakLists, other: PeakLists, first: np.ndarray, second: np.ndarray,
    tolerance: float, scores: np.ndarray,
) -> None:  # fmt: skip
    """Score listed pairs of spectra without any index.

    Parameters
    ----------
    is_entropy : bool
        Spectral entropy similarity (Li et al., Nat. Methods 18 (2021) 1524-1531), else the greedy cosine.
    is_shifted : bool
        Whether fragments may match shifted by the difference of the precursors: hybrid entropy, modified cosine.
    own, other : PeakLists
        May be the same.
    first, second : int64 arrays of shape (n_pairs,)
        Spectra of ``own`` and of ``other``.
    tolerance : float
        In Da.
    scores : float32 array of shape (n_pairs,)
        Written to; 0 where one of the spectra has no peak.
    """
    for pair in range(len(first)):
        a, b = first[pair], second[pair]
        if own.offsets[a] == own.offsets[a + 1] or other.offsets[b] == other.offsets[b + 1]:
            scores[pair] = 0.0
            continue
        if not is_shifted:
            total = _fragment_total(is_entropy, own, other, a, b, tolerance)
        elif is_entropy:
            total = _hybrid_entropy_total(own, other, a, b, tolerance)
        else:
            total = _modified_cosine_total(own, other, a, b, tolerance)
        scores[pair] = _normalised(is_entropy, own, other, a, b, total)


@compiled
def compare_listed(
    own: PeakLists, other: PeakLists, own_cosine: PeakLists, other_cosine: PeakLists, first: np.ndarray,
    second: np.ndarray, begin: int, end: int, tolerance: float, with_shifted: bool, scores: np.ndarray,
    counts: np.ndarray,
) -> None:  # fmt: skip
    """Compare listed pairs of spectra in every way at once: the matches, which take the time, are looked for once.

    Parameters
    ----------
    own, other : PeakLists
        Weighted for the entropy.
    own_cosine, other_cosine : PeakLists
        The same peaks, weighted for the cosine.
    first, second : int64 arrays of shape (n_pairs,)
        Spectra of ``own`` and of ``other``.
    begin, end : int
        Of the pairs to compare. Not as slices: the code would be compiled once more for arrays that have gaps.
    tolerance : float
        In Da.
    with_shifted : bool
        Whether to match fragments shifted by the difference of the precursors as well.
    scores : float32 array of shape (4, n_pairs)
        Written to, as `score_listed` scores: spectral entropy, hybrid entropy, cosine, modified cosine. The second and
        the fourth are left as they are where nothing is shifted.
    counts : float64 array of shape (6, n_pairs)
        Written to: number of matching fragments, their weight (of the entropy) in the first and in the second
        spectrum, and the same three for shifted fragments, left as they are where nothing is shifted.
    """
    most_own = most_other = 0
    for pair in range(begin, end):
        most_own = max(most_own, own.offsets[first[pair] + 1] - own.offsets[first[pair]])
        most_other = max(most_other, other.offsets[second[pair] + 1] - other.offsets[second[pair]])
    room = 2 * min(most_own, most_other)
    own_match, other_match, order = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    products = np.empty(room)
    is_used_own, is_used_other = np.zeros(most_own, np.bool_), np.zeros(most_other, np.bool_)
    for pair in range(begin, end):
        a, b = first[pair], second[pair]
        begin_a, begin_b = own.offsets[a], other.offsets[b]
        is_empty = begin_a == own.offsets[a + 1] or begin_b == other.offsets[b + 1]
        num_plain = _matches(own, other, a, b, 0.0, tolerance, own_match, other_match, 0)
        entropy = cosine = weight_own = weight_other = 0.0
        for match in range(num_plain):
            i, j = own_match[match], other_match[match]
            entropy += _term(True, own, other, i, j)
            cosine += _term(False, own_cosine, other_cosine, i, j)
            weight_own += own.weight[i]
            weight_other += other.weight[j]
        scores[0, pair] = 0.0 if is_empty else _normalised(True, own, other, a, b, entropy)
        scores[2, pair] = 0.0 if is_empty else _normalised(False, own_cosine, other_cosine, a, b, cosine)
        counts[0, pair], counts[1, pair], counts[2, pair] = num_plain, weight_own, weight_other
        if not with_shifted:
            continue
        shift = own.precursor_mz[a] - other.precursor_mz[b]
        num_matches = _matches(own, other, a, b, shift, tolerance, own_match, other_match, num_plain)
        for match in range(num_plain):
            is_used_own[own_match[match] - begin_a] = True
            is_used_other[other_match[match] - begin_b] = True
        weight_own = weight_other = 0.0
        for match in range(num_plain, num_matches):
            i, j = own_match[match], other_match[match]
            # Of what is matched as a fragment no neutral loss counts (Li and Fiehn 2023, hybrid search).
            if not is_used_own[i - begin_a] and not is_used_other[j - begin_b]:
                entropy += _term(True, own, other, i, j)
            weight_own += own.weight[i]
            weight_other += other.weight[j]
        for match in range(num_plain):
            is_used_own[own_match[match] - begin_a] = False
            is_used_other[other_match[match] - begin_b] = False
        counts[3, pair], counts[4, pair], counts[5, pair] = num_matches - num_plain, weight_own, weight_other
        if abs(shift) > tolerance:
            cosine = _greedy_total(own_cosine, other_cosine, begin_a, begin_b, own_match, other_match, num_matches,
                                   products, order, is_used_own, is_used_other)  # fmt: skip
        scores[1, pair] = 0.0 if is_empty else _normalised(True, own, other, a, b, entropy)
        scores[3, pair] = 0.0 if is_empty else _normalised(False, own_cosine, other_cosine, a, b, cosine)


@compiled
def score_library(
    is_entropy: bool, own: PeakLists, other: PeakLists, index: PeakIndex, queries: np.ndarray, library: np.ndarray,
    tolerance: float, scores: np.ndarray,
) -> None:  # fmt: skip
    """Score queries against a whole library by fragments: only the library peaks within reach are touched.

    Parameters are those of `score_listed`, and: ``index``, the library's by fragment m/z; ``queries`` and ``library``,
    int64 arrays of spectra of ``own`` and ``other``; ``scores``, float32 of shape (n_queries, n_library), written to.
    """
    totals = np.empty(len(library))
    for row in range(len(queries)):
        totals[:] = 0.0
        query = queries[row]
        for i in range(own.offsets[query], own.offsets[query + 1]):
            mz = np.float64(own.mz[i])
            place = np.searchsorted(index.mz, mz - tolerance - MARGIN_DA)
            while place < len(index.mz) and index.mz[place] <= mz + tolerance + MARGIN_DA:
                if _is_match(own.mz[i], index.mz[place], 0.0, tolerance):
                    totals[index.spectrum[place]] += _term(is_entropy, own, other, i, index.peak[place])
                place += 1
        for column in range(len(library)):
            total = totals[column]
            if total != 0:
                total = _normalised(is_entropy, own, other, query, library[column], total)
            scores[row, column] = total


@compiled
def score_library_shifted(
    is_entropy: bool, own: PeakLists, other: PeakLists, fragments: PeakIndex, losses: PeakIndex, queries: np.ndarray,
    library: np.ndarray, tolerance: float, scores: np.ndarray,
) -> None:  # fmt: skip
    """Score queries against a whole library by fragments and neutral losses: hybrid entropy or modified cosine.

    Where no peak is wanted twice, the score is a plain sum. Where one is, the entropy drops the loss, and the cosine
    of those two spectra is worked out by itself. Parameters are those of `score_library`, with both indexes.
    """
    totals = np.empty(len(library))
    contested_in = np.zeros(len(library), np.int64)  # the last row in which a peak of this spectrum was wanted twice
    matched_in = np.zeros(len(other.mz), np.int64)  # the last row in which this peak matched as a fragment
    matched_by = np.zeros(len(library), np.int64)  # the last query peak that matched a fragment of this spectrum
    step = 0
    for row in range(len(queries)):
        totals[:] = 0.0
        query = queries[row]
        begin, end = own.offsets[query], own.offsets[query + 1]
        for i in range(begin, end):
            mz = np.float64(own.mz[i])
            place = np.searchsorted(fragments.mz, mz - tolerance - MARGIN_DA)
            while place < len(fragments.mz) and fragments.mz[place] <= mz + tolerance + MARGIN_DA:
                if _is_match(own.mz[i], fragments.mz[place], 0.0, tolerance):
                    totals[fragments.spectrum[place]] += _term(is_entropy, own, other, i, fragments.peak[place])
                    matched_in[fragments.peak[place]] = row + 1
                place += 1
        for i in range(begin, end):
            step += 1
            mz = np.float64(own.mz[i])
            place = np.searchsorted(fragments.mz, mz - tolerance - MARGIN_DA)
            while place < len(fragments.mz) and fragments.mz[place] <= mz + tolerance + MARGIN_DA:
                if _is_match(own.mz[i], fragments.mz[place], 0.0, tolerance):
                    matched_by[fragments.spectrum[place]] = step
                place += 1
            loss = own.precursor_mz[query] - mz
            place = np.searchsorted(losses.mz, loss - tolerance - MARGIN_DA)
            while place < len(losses.mz) and losses.mz[place] <= loss + tolerance + MARGIN_DA:
                spectrum, peak = losses.spectrum[place], losses.peak[place]
                place += 1
                shift = own.precursor_mz[query] - other.precursor_mz[library[spectrum]]
                if not is_entropy and abs(shift) <= tolerance:
                    continue
                if not _is_match(own.mz[i], other.mz[peak], shift, tolerance):
                    continue
                if matched_in[peak] != row + 1 and matched_by[spectrum] != step:
                    totals[spectrum] += _term(is_entropy, own, other, i, peak)
                elif not is_entropy:
                    contested_in[spectrum] = row + 1
        for column in range(len(library)):
            total = totals[column]
            if contested_in[column] == row + 1:
                total = _modified_cosine_total(own, other, query, library[column], tolerance)
            if total != 0:
                total = _normalised(is_entropy, own, other, query, library[column], total)
            scores[row, column] = total

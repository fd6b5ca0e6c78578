"""Near-duplicates: spectra of one ion under one set of conditions that are so alike that a few of them say it all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .columns import SpectrumColumns
from .spectrum import Spectrum

BIN_WIDTH = 1.0
"""Da. Width of the bins of which the hash is made: wide, so that what moves within the fragment tolerance stays."""

NUM_BINS = 512
"""Bins from m/z 0; peaks above wrap around and share bins with lighter ones, which a random projection forgives."""

MOST_COMPARED = 2048
"""A spectrum is compared with so many of the kept ones of its bucket, besides those of its own block of the bucket."""

_WEIGHT_SCALE = 255  # weights are whole numbers up to this, so that their sums are exact in any order
_ENERGY_STEP = 0.5  # eV; energies from NCE vary with the measured precursor m/z in the last digits
_BLOCK_SPECTRA = 512
_BLOCK_MATCHES = 4_000_000  # bounds the memory of one comparison: some 100 MB
_ROUNDING = 1e-6  # equal spectra have a similarity of 1 within this
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)?")


@dataclass(frozen=True)
class NearDuplicateOptions:
    """Which spectra count as alike, how many of them stay, and how they are found.

    Attributes
    ----------
    keep : int or None
        Of spectra that are alike, this many stay. None keeps all and does not look for them.
    similarity : float
        Two spectra are alike from this cosine on, of the square roots of their intensities.
    fragment_tolerance : float
        In Da. Two peaks match within it. Peaks of one spectrum within twice this span count as one.
    precursor_ppm : float
        Two spectra are alike only if their precursor m/z differ by no more.
    tables : int
        Hash tables. Each is one more chance that two alike spectra meet, and one more round of grouping.
    bits : int
        Bits of each table's hash: more make smaller buckets, and meetings rarer.
    """

    keep: int | None = 10
    similarity: float = 0.95
    fragment_tolerance: float = 0.01
    precursor_ppm: float = 10.0
    tables: int = 4
    bits: int = 6

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep is {self.keep}; it must be 1 or more, or null to keep all")
        if not 0.0 < self.similarity <= 1.0:
            raise ValueError(f"similarity is {self.similarity}; it must be above 0 and at most 1")
        if not 0.0 < self.fragment_tolerance <= 0.5:
            raise ValueError(f"fragment_tolerance is {self.fragment_tolerance}; it must be above 0 and at most 0.5 Da")
        if not 0.0 < self.precursor_ppm <= 1000.0:
            raise ValueError(f"precursor_ppm is {self.precursor_ppm}; it must be above 0 and at most 1000 ppm")
        if not 1 <= self.tables <= 64:
            raise ValueError(f"tables is {self.tables}; it must lie between 1 and 64")
        if not 1 <= self.bits <= 32:
            raise ValueError(f"bits is {self.bits}; it must lie between 1 and 32")


def conditions_of(spectrum: Spectrum) -> bytes:
    """Return what two spectra must share to be near-duplicates, besides peaks and precursor m/z.

    Polarity, charge, adduct, MS level, collision energy (to half an eV; whether it is one energy or several; the text
    itself where it gives no eV), instrument type, whether the spectrum is predicted, and the molecule: by the first
    block of its InChIKey, else by formula and name. Where the molecule is known, the laboratory too: what one
    laboratory measured may not crowd out another's, between which retrieval is tested.
    """
    raw = (spectrum.collision_energy_raw or "").strip().lower()
    energy: object = raw
    if spectrum.collision_energy is not None:
        energy = (round(spectrum.collision_energy / _ENERGY_STEP), max(1, len(_NUMBERS.findall(raw))))
    molecule: object = spectrum.inchikey_block or (spectrum.formula, spectrum.name)
    labelled = molecule != (None, None)
    conditions = (
        spectrum.polarity, spectrum.charge, spectrum.adduct, spectrum.ms_level, energy, spectrum.instrument_type,
        spectrum.predicted, molecule, spectrum.laboratory if labelled else None,
    )  # fmt: skip
    return repr(conditions).encode("utf-8", "surrogatepass")


def bucket_keys(
    columns: SpectrumColumns, conditions: Sequence[bytes], options: NearDuplicateOptions = NearDuplicateOptions()
) -> np.ndarray:
    """Return the bucket of each spectrum in each table; in one bucket lie spectra that may be alike.

    A key is a hash of the conditions, of a cell of precursor m/z, and of the signs of the peaks' projections on random
    directions (Charikar, 2002, doi:10.1145/509907.509965): spectra at an angle a agree in one sign with the probability
    1 - a/pi. What is projected are the square roots of the intensities in bins of `BIN_WIDTH`, each peak shared between
    the two nearest bins in proportion, so that no border of a bin tells neighbours apart. The cells of precursor m/z
    are two to four times as wide as the tolerance, and every table has its own borders.

    Keys depend on nothing but the spectrum, its conditions and the options: not on the other spectra, the machine, or
    the run. All sums are of whole numbers, exact in any order.

    Parameters
    ----------
    columns : SpectrumColumns
    conditions : sequence of bytes, one for each spectrum
        From `conditions_of`.

    Returns
    -------
    uint64 array of shape (n_spectra, tables)
    """
    if len(conditions) != len(columns):
        raise ValueError(f"there are {len(conditions)} conditions for {len(columns)} spectra")
    digests = {text: hashlib.blake2b(text, digest_size=8).digest() for text in set(conditions)}
    hashed = np.frombuffer(b"".join([digests[text] for text in conditions]), "<u8")
    tables = np.arange(options.tables)
    keys = _mix(hashed[:, None] + _GOLDEN * (tables + 1).astype(np.uint64))
    keys = _mix(keys ^ _precursor_cells(columns.precursor_mz, options).astype(np.uint64))
    for start in range(0, len(columns), _BLOCK_SPECTRA):
        block = slice(start, start + _BLOCK_SPECTRA)
        keys[block] = _mix(keys[block] ^ _signatures(columns, block, options))
    return keys


def keep_in_bucket(columns: SpectrumColumns, options: NearDuplicateOptions = NearDuplicateOptions()) -> np.ndarray:
    """Return which spectra of one bucket stay, the best coming first.

    Taken in order, a spectrum goes if at least ``options.keep`` of those that stay are alike to it: precursor m/z
    within the tolerance, and `similarities` of at least ``options.similarity``. Each is compared with at most
    `MOST_COMPARED` of those that stay, those first to which most were alike so far, so that the time grows with the
    number of spectra and not with its square.

    Parameters
    ----------
    columns : SpectrumColumns
        The members, the best first.

    Returns
    -------
    bool array of shape (n_spectra,)
    """
    stays = np.ones(len(columns), bool)
    if options.keep is None or len(columns) <= options.keep:
        return stays
    stays[:] = False
    times_met = np.zeros(len(columns), np.int64)
    vectors = unit_vectors(columns, options.fragment_tolerance)
    for start in range(0, len(columns), _BLOCK_SPECTRA):
        open_rows = np.arange(start, min(start + _BLOCK_SPECTRA, len(columns)))
        kept = np.flatnonzero(stays[:start])
        kept = kept[np.argsort(-times_met[kept], kind="stable")[:MOST_COMPARED]]
        num_alike = np.zeros(len(open_rows), np.int64)
        for part in _parts(kept, vectors, len(open_rows)) if len(kept) else []:
            alike = _alike(vectors.take(open_rows), vectors.take(part), options)
            num_alike += alike.sum(axis=1)
            times_met[part] += alike.sum(axis=0)
            open_rows, num_alike = open_rows[num_alike < options.keep], num_alike[num_alike < options.keep]
        block = vectors if len(open_rows) == len(vectors) else vectors.take(open_rows)
        stays[open_rows] = _stay_within_block(block, num_alike, options)
    return stays


def _stay_within_block(vectors: SpectrumColumns, num_alike: np.ndarray, options: NearDuplicateOptions) -> np.ndarray:
    """Return which spectra of a block stay that each have ``num_alike`` alike among those kept before it."""
    assert options.keep is not None
    rows = np.arange(len(vectors))
    stays = np.zeros(len(vectors), bool)
    parts = _parts(rows, vectors, len(rows))
    others = [vectors] if len(parts) == 1 else [vectors.take(part) for part in parts]
    alike = np.concatenate([np.zeros((len(rows), 0), bool), *(_alike(vectors, o, options) for o in others)], axis=1)
    for row in rows:
        stays[row] = num_alike[row] + np.count_nonzero(alike[row, :row] & stays[:row]) < options.keep
    return stays


def unit_vectors(columns: SpectrumColumns, fragment_tolerance: float) -> SpectrumColumns:
    """Return the spectra as `similarities` takes them.

    Peaks in a chain of gaps up to twice the tolerance (Da) become one, at their mean m/z weighted by intensity, so that
    no peak can match two; the intensities become square roots, scaled to a Euclidean norm of 1.
    """
    mz, spectrum = columns.mz.astype(np.float64), np.repeat(np.arange(len(columns)), columns.num_peaks)
    first = np.ones(len(mz), bool)
    first[1:] = (np.diff(spectrum) != 0) | (np.diff(mz) > 2 * fragment_tolerance)
    starts = np.flatnonzero(first)
    if not len(starts):
        return columns
    total = np.add.reduceat(columns.intensity.astype(np.float64), starts)
    centre = np.add.reduceat(mz * columns.intensity, starts) / total
    spectrum = spectrum[starts]
    squared_norm = np.bincount(spectrum, total, len(columns))
    return replace(
        columns,
        offsets=np.concatenate([[0], np.cumsum(np.bincount(spectrum, minlength=len(columns)))]).astype(np.int64),
        mz=centre.astype(np.float32),
        intensity=np.sqrt(total / squared_norm[spectrum]).astype(np.float32),
    )


def similarities(a: SpectrumColumns, b: SpectrumColumns, fragment_tolerance: float) -> np.ndarray:
    """Return the cosine of each spectrum of ``a`` with each of ``b``, both from `unit_vectors`.

    Peaks match within the tolerance (Da); memory grows with the number of matches.

    Returns
    -------
    float64 array of shape (n_a, n_b)
    """
    order = np.argsort(b.mz, kind="stable")
    b_mz, b_spectrum = b.mz[order].astype(np.float64), np.repeat(np.arange(len(b)), b.num_peaks)[order]
    a_mz = a.mz.astype(np.float64)
    low = np.searchsorted(b_mz, a_mz - fragment_tolerance, "left")
    counts = np.searchsorted(b_mz, a_mz + fragment_tolerance, "right") - low
    b_peak = np.arange(counts.sum()) + np.repeat(low - np.cumsum(counts) + counts, counts)
    pair = np.repeat(np.repeat(np.arange(len(a)), a.num_peaks) * len(b), counts) + b_spectrum[b_peak]
    product = np.repeat(a.intensity.astype(np.float64), counts) * b.intensity[order][b_peak]
    return np.bincount(pair, product, len(a) * len(b)).reshape(len(a), len(b))


def similarities_of_pairs(a: SpectrumColumns, b: SpectrumColumns, fragment_tolerance: float) -> np.ndarray:
    """Return the cosine of each spectrum of ``a`` with the one at its place in ``b``, both from `unit_vectors`.

    Peaks match within the tolerance (Da), as in `similarities`.

    Returns
    -------
    float64 array of shape (n,)
    """
    if len(a) != len(b):
        raise ValueError(f"there are {len(a)} spectra to compare with {len(b)}")
    spacing = 2.0 * (1.0 + max(a.mz.max(initial=0.0), b.mz.max(initial=0.0)))  # so that pairs lie apart on one axis
    a_pair, b_pair = (np.repeat(np.arange(len(a)), columns.num_peaks) for columns in (a, b))
    a_mz, b_mz = (c.mz.astype(np.float64) + spacing * pair for c, pair in ((a, a_pair), (b, b_pair)))
    low = np.searchsorted(b_mz, a_mz - fragment_tolerance, "left")
    counts = np.searchsorted(b_mz, a_mz + fragment_tolerance, "right") - low
    b_peak = np.arange(counts.sum()) + np.repeat(low - np.cumsum(counts) + counts, counts)
    product = np.repeat(a.intensity.astype(np.float64), counts) * b.intensity[b_peak]
    return np.bincount(np.repeat(a_pair, counts), product, len(a))


def _alike(a: SpectrumColumns, b: SpectrumColumns, options: NearDuplicateOptions) -> np.ndarray:
    """Return whether each spectrum of ``a`` is alike to each of ``b``, of shape (n_a, n_b)."""
    a_mz, b_mz = a.precursor_mz[:, None], b.precursor_mz[None]
    near = np.abs(a_mz - b_mz) <= np.maximum(a_mz, b_mz) * (options.precursor_ppm * 1e-6)
    return near & (similarities(a, b, options.fragment_tolerance) >= options.similarity - _ROUNDING)


def _parts(rows: np.ndarray, vectors: SpectrumColumns, num_others: int) -> list[np.ndarray]:
    """Cut rows so that each part, compared with ``num_others`` spectra, has a bounded number of matching peaks."""
    matches = np.cumsum(vectors.num_peaks[rows]) * num_others  # a peak matches one of each other spectrum at most
    return np.split(rows, np.flatnonzero(np.diff(matches // _BLOCK_MATCHES)) + 1)


def _precursor_cells(precursor_mz: np.ndarray, options: NearDuplicateOptions) -> np.ndarray:
    """Return the cell of each precursor m/z in each table, int64 of shape (n_spectra, tables)."""
    mantissa, exponent = np.frexp(precursor_mz)
    # a logarithm to base 2 of straight pieces: unlike a true one, it is the same number on every machine
    logarithm = 2.0 * mantissa + exponent
    width = 4.0 * options.precursor_ppm * 1e-6
    return np.floor(logarithm[:, None] / width + np.arange(options.tables) / options.tables).astype(np.int64)


def _signatures(columns: SpectrumColumns, block: slice, options: NearDuplicateOptions) -> np.ndarray:
    """Return the signs of the projections of a block of spectra, as bits of a uint64, of shape (n_block, tables)."""
    first, last = columns.offsets[block][0], columns.offsets[block.start : block.stop + 1][-1]
    counts = columns.num_peaks[block]
    place = columns.mz[first:last].astype(np.float64) / BIN_WIDTH
    left = np.floor(place)
    weight = np.sqrt(columns.intensity[first:last].astype(np.float64)) * _WEIGHT_SCALE
    right_weight = np.rint(weight * (place - left))
    left_weight = np.rint(weight) - right_weight
    row = np.repeat(np.arange(len(counts)) * NUM_BINS, counts)
    left_bin = left.astype(np.int64) % NUM_BINS
    binned = np.bincount(row + left_bin, left_weight, len(counts) * NUM_BINS)
    binned += np.bincount(row + (left_bin + 1) % NUM_BINS, right_weight, len(counts) * NUM_BINS)
    binned = binned.reshape(len(counts), NUM_BINS)
    directions = _directions(options.tables * options.bits)
    largest = binned.sum(axis=1).max(initial=0.0) * np.abs(directions).max()
    exact = np.float32 if largest < 2**24 else np.float64
    signs = binned.astype(exact) @ directions.astype(exact) > 0
    powers = np.left_shift(np.uint64(1), np.arange(options.bits, dtype=np.uint64))
    return (signs.reshape(len(counts), options.tables, options.bits) * powers).sum(axis=2, dtype=np.uint64)


@lru_cache(maxsize=4)
def _directions(count: int) -> np.ndarray:
    """Return random directions as whole numbers, float32 of shape (NUM_BINS, count).

    Each is the number of ones among 64 hashed bits, less 32: near enough to normal with a standard deviation of 4.
    """
    bins, directions = np.arange(NUM_BINS, dtype=np.uint64), np.arange(count, dtype=np.uint64)
    hashed = _mix(_mix(_GOLDEN * (directions + np.uint64(1))) + _GOLDEN * (bins[:, None] + np.uint64(1)))
    return np.bitwise_count(hashed).astype(np.float32) - 32.0


def _mix(values: np.ndarray) -> np.ndarray:
    """Return hashes of 64-bit numbers: the finaliser of SplitMix64 (Steele et al., doi:10.1145/2660193.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))

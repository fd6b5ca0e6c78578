"""How well hashing finds the near-duplicates of real spectra: recall and precision against every pair compared.

    python benchmarks/near_duplicates.py --store STORE          # a store from 'ionbed prepare'
    python benchmarks/near_duplicates.py run.mzML library.mgf   # or files
    python benchmarks/near_duplicates.py                        # or made-up ones, which say little of real data

Exact: every two spectra of equal conditions within the precursor tolerance, compared peak by peak. For each number of
tables and bits, the first table says

  recall      of the pairs that are alike, the share that meet in a bucket of any table (also by how alike they are),
  meetings    of the pairs that meet within the precursor tolerance, the share that are alike; the others are told apart
              when the bucket is looked at, so that what is found is alike by construction,
  us          time of the keys per spectrum,

and the second one what the selection leaves: kept when taken greedily from the exact pairs, kept by the tables round by
round, the share of what went that at least 'keep' (and at least one) of the kept are alike to in the end (a spectrum
that another one went for can go itself in a later round), and the largest number of kept ones alike to one that stays.

With --unlabelled the conditions are polarity and charge only, as if the spectra came from a repository.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import ionbed
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.near_duplicates import (
    NearDuplicateOptions,
    bucket_keys,
    conditions_of,
    keep_in_bucket,
    similarities,
    unit_vectors,
)
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import Store

BANDS = ((0.95, 0.97), (0.97, 0.99), (0.99, 1.01))
GRID = ((1, 6), (2, 6), (4, 4), (4, 6), (4, 8), (6, 6), (8, 8), (16, 12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", help="files of spectra, instead of a store")
    parser.add_argument("--store", type=Path, default=os.environ.get("IONBED_STORE"), help="from 'ionbed prepare'")
    parser.add_argument("--unlabelled", action="store_true", help="conditions are polarity and charge only")
    parser.add_argument("--spectra", type=int, default=20_000, help="at most so many, of neighbouring precursor m/z")
    parser.add_argument("--keep", type=int, default=NearDuplicateOptions().keep)
    arguments = parser.parse_args()
    if arguments.files:
        spectra = [spectrum for path in arguments.files for spectrum in ionbed.read(path)]
    elif arguments.store:
        spectra = some_of_store(Store(arguments.store), arguments.spectra)
    else:
        spectra = made_up_spectra(arguments.spectra)
    conditions = [repr((s.polarity, s.charge)).encode() if arguments.unlabelled else conditions_of(s) for s in spectra]
    measure(SpectrumColumns.from_spectra(spectra), conditions, arguments.keep)


def some_of_store(store: Store, count: int) -> list[Spectrum]:
    """Return spectra from ten stretches of precursor m/z, in the order of the store."""
    precursor_mz = store.table(["precursor_mz"])["precursor_mz"].to_numpy()
    stretches = np.array_split(np.argsort(precursor_mz, kind="stable"), 10)
    rows = np.concatenate([stretch[: max(1, count // 10)] for stretch in stretches])
    return store.spectra(np.sort(rows))


def made_up_spectra(count: int, copies: int = 20) -> list[Spectrum]:
    """Return noisy copies of random spectra: m/z off by 1 mDa, the precursor by 2 ppm, intensities by some 30%."""
    rng = np.random.default_rng(0)
    spectra = []
    for _ in range(count // copies):
        precursor_mz, num_peaks = rng.uniform(150, 900), int(np.clip(rng.lognormal(np.log(11), 1.0), 1, 200))
        fragments, intensity = np.sort(rng.uniform(50, 900, num_peaks)), rng.lognormal(sigma=1.5, size=num_peaks)
        for _ in range(copies):
            mz = np.sort(fragments + rng.normal(0, 0.001, num_peaks)).astype(np.float32)
            noisy = intensity * np.exp(rng.normal(0, 0.3, num_peaks))
            of_copy = precursor_mz * (1 + 2e-6 * rng.normal())
            spectra.append(Spectrum("made up", of_copy, mz, (noisy / noisy.max()).astype(np.float32), polarity=1))
    return spectra


def measure(columns: SpectrumColumns, conditions: list[bytes], keep: int) -> None:
    """Print the two tables."""
    options = NearDuplicateOptions(keep=keep)
    start = time.perf_counter()
    pairs, similarity = comparable_pairs(columns, conditions, options)
    alike = similarity >= options.similarity
    print(f"{len(columns):,} spectra; {len(pairs):,} pairs compared in {time.perf_counter() - start:.1f} s; ", end="")
    print(f"{alike.sum():,} alike (similarity {options.similarity} or more)")
    in_bands = [(similarity >= low) & (similarity < high) for low, high in BANDS]
    print(
        "\ntables bits  recall  " + "  ".join(f"{low:.2f}-{min(high, 1):.2f}" for low, high in BANDS), " meetings   us"
    )
    keys = {}
    for tables, bits in GRID:
        setting = replace(options, tables=tables, bits=bits)
        start = time.perf_counter()
        keys[tables, bits] = bucket_keys(columns, conditions, setting)
        microseconds = (time.perf_counter() - start) / len(columns) * 1e6
        meets = (keys[tables, bits][pairs[:, 0]] == keys[tables, bits][pairs[:, 1]]).any(axis=1)
        recalls = "  ".join(f"{share(meets, band):9.4f}" for band in in_bands)
        print(
            f"{tables:6} {bits:4} {share(meets, alike):7.4f}  {recalls} {share(alike, meets):9.4f} {microseconds:4.1f}"
        )

    partners = Partners(pairs[alike], len(columns))
    exact = greedy(partners, keep)
    print(f"\nexact selection, keep {keep}: {exact.sum():,} stay, {len(columns) - exact.sum():,} go")
    print(f"tables bits    stay     go  of those that go: {keep}+ alike stay  1+ alike stay  most alike to a kept one")
    for (tables, bits), table_keys in keys.items():
        stays = by_tables(columns, table_keys, replace(options, tables=tables, bits=bits))
        counts = partners.count(stays)
        went = ~stays
        print(
            f"{tables:6} {bits:4} {stays.sum():7,} {went.sum():6,} {share(counts >= keep, went):36.4f} "
            f"{share(counts >= 1, went):14.4f} {counts[stays].max(initial=0):15,}"
        )


def comparable_pairs(
    columns: SpectrumColumns, conditions: list[bytes], options: NearDuplicateOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of equal conditions within the precursor tolerance, and how alike the two are."""
    vectors = unit_vectors(columns, options.fragment_tolerance)
    of_conditions: dict[bytes, list[int]] = {}
    for row, condition in enumerate(conditions):
        of_conditions.setdefault(condition, []).append(row)
    pairs, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for members in of_conditions.values():
        rows = np.array(members)
        rows = rows[np.argsort(columns.precursor_mz[rows], kind="stable")]
        for i, j in blocks_within(columns.precursor_mz[rows], options.precursor_ppm):
            left, right = rows[i], rows[j]
            found = similarities(vectors.take(left), vectors.take(right), options.fragment_tolerance)
            a, b = np.meshgrid(np.arange(len(left)) + i.start, np.arange(len(right)) + j.start, indexing="ij")
            a_mz, b_mz = columns.precursor_mz[rows[a]], columns.precursor_mz[rows[b]]
            near = (a < b) & (np.abs(a_mz - b_mz) <= np.maximum(a_mz, b_mz) * options.precursor_ppm * 1e-6)
            pairs.append(np.column_stack([rows[a[near]], rows[b[near]]]))
            values.append(found[near])
    return np.concatenate(pairs), np.concatenate(values)


def blocks_within(precursor_mz: np.ndarray, ppm: float, size: int = 256) -> Iterator[tuple[slice, slice]]:
    """Cut ascending precursor m/z into blocks; yield each with each later one that comes within the tolerance."""
    for i in range(0, len(precursor_mz), size):
        reach = precursor_mz[min(i + size, len(precursor_mz)) - 1] * (1 + 1.01e-6 * ppm)
        stop = int(np.searchsorted(precursor_mz, reach, "right"))
        for j in range(i, stop, size):
            yield slice(i, min(i + size, len(precursor_mz))), slice(j, min(j + size, len(precursor_mz)))


class Partners:
    """Who is alike to whom."""

    def __init__(self, pairs: np.ndarray, num_spectra: int) -> None:
        both = np.concatenate([pairs, pairs[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        self.partner = both[:, 1]
        self.spectrum = both[:, 0]
        self.offsets = np.searchsorted(both[:, 0], np.arange(num_spectra + 1))

    def count(self, stays: np.ndarray) -> np.ndarray:
        """Return for each spectrum how many of those that stay are alike to it."""
        return np.bincount(self.spectrum, stays[self.partner], len(self.offsets) - 1).astype(np.int64)


def greedy(partners: Partners, keep: int) -> np.ndarray:
    """Return what stays when every pair that is alike is known."""
    stays = np.zeros(len(partners.offsets) - 1, bool)
    for row in range(len(stays)):
        others = partners.partner[partners.offsets[row] : partners.offsets[row + 1]]
        stays[row] = np.count_nonzero(stays[others[others < row]]) < keep
    return stays


def by_tables(columns: SpectrumColumns, keys: np.ndarray, options: NearDuplicateOptions) -> np.ndarray:
    """Return what stays after one round per table."""
    assert options.keep is not None
    stays = np.ones(len(columns), bool)
    for table in keys.T:
        rows = np.flatnonzero(stays)
        rows = rows[np.argsort(table[rows], kind="stable")]
        for bucket in np.split(rows, np.flatnonzero(np.diff(table[rows])) + 1):
            if len(bucket) > options.keep:
                stays[bucket] = keep_in_bucket(columns.take(bucket), options)
    return stays


def share(of: np.ndarray, among: np.ndarray) -> float:
    """Return the share of ``among`` that is in ``of`` too; NaN where there is none."""
    return float(of[among].mean()) if among.any() else float("nan")


if __name__ == "__main__":
    main()

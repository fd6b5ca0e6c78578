"""One segment: vectors and table of rows in precursor order, in a folder that is written once and never changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .damage import changed, checksum
from .numbers import ROWS_PER_BLOCK, MappedVectors, NpyWriter, map_npy
from .table import CHECKSUMS, MappedTable, TableWriter

VECTORS, TABLE = "vectors.npy", "library.arrow"
PRECURSOR_MZ, POLARITY = "precursor_mz.npy", "polarity.npy"
CHECKSUMS_FILE = "checksums.npy"


class Segment:
    """A segment of an index, mapped into memory; all its files are open from the beginning.

    They can be read as long as the segment is held, also when a later commit has removed them from the folder.

    Parameters
    ----------
    folder : Path
    entry : mapping
        What the manifest tells of it, as `write_segment` returned it.

    Attributes
    ----------
    vectors : MappedVectors of shape (n, dim)
    table : MappedTable of n rows
    precursor_mz : float64 array of shape (n,)
        Ascending.
    polarity : int8 array of shape (n,)
        +1, -1, or 0 where unknown.

    Raises
    ------
    InputError
        A file is damaged. What is compared at the opening are the small files, and what is read of the others when it
        is read.
    """

    def __init__(self, folder: Path, entry: Mapping[str, Any]) -> None:
        num_rows, dim, sums = entry["rows"], entry["dim"], entry["xxh3"]
        self.folder, self.entry = folder, entry
        num_blocks = -(-num_rows // ROWS_PER_BLOCK)
        checksums = self._whole(CHECKSUMS_FILE, (num_blocks,), CHECKSUMS)
        self.precursor_mz = self._whole(PRECURSOR_MZ, (num_rows,), np.float64)
        self.polarity = self._whole(POLARITY, (num_rows,), np.int8)
        self.vectors = MappedVectors(folder / VECTORS, (num_rows, dim), np.array(checksums["vectors"]))
        self.table = MappedTable(folder / TABLE, num_rows, checksums, int(sums["head_and_foot"], 16))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.table)

    def _whole(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = map_npy(self.folder / name, shape, dtype)
        if checksum(array.view(np.uint8)) != int(self.entry["xxh3"][name], 16):
            raise changed(self.folder / name)
        return array


def write_segment(folder: Path, blocks: Iterable[tuple[pa.Table, np.ndarray]], num_rows: int) -> dict[str, Any]:
    """Write a segment into a folder and return what the manifest is to tell of it.

    Parameters
    ----------
    folder : Path
    blocks : iterable of (table, vectors), one at least
        `ROWS_PER_BLOCK` rows each, the last fewer, of `SCHEMA`, by precursor m/z and then by id; float32 of shape
        (n, dim).
    num_rows : int
        Of all blocks.
    """
    remaining = iter(blocks)
    first = next(remaining)
    dim = first[1].shape[1]
    vectors = NpyWriter(folder / VECTORS, (num_rows, dim), np.float32)
    precursor_mz = NpyWriter(folder / PRECURSOR_MZ, (num_rows,), np.float64)
    polarity = NpyWriter(folder / POLARITY, (num_rows,), np.int8)
    table = TableWriter(folder / TABLE)
    of_vectors = []
    try:
        for rows, embedded in itertools.chain([first], remaining):
            table.write(rows)
            vectors.write(embedded)
            precursor_mz.write(rows["precursor_mz"].to_numpy())
            polarity.write(rows["polarity"].fill_null(0).to_numpy())
            of_vectors.append(checksum(np.ascontiguousarray(embedded, np.float32)))
    finally:
        for writer in (vectors, precursor_mz, polarity, table):
            writer.close()
    checksums, head_and_foot = table.checksums()
    checksums["vectors"] = of_vectors
    of_blocks = NpyWriter(folder / CHECKSUMS_FILE, checksums.shape, CHECKSUMS)
    of_blocks.write(checksums)
    of_blocks.close()
    sums = {
        PRECURSOR_MZ: checksum(map_npy(folder / PRECURSOR_MZ, (num_rows,), np.float64)),
        POLARITY: checksum(map_npy(folder / POLARITY, (num_rows,), np.int8)),
        CHECKSUMS_FILE: checksum(checksums.view(np.uint8)),
        "head_and_foot": head_and_foot,
    }
    return {"rows": num_rows, "dim": dim, "xxh3": {name: f"{value:016x}" for name, value in sums.items()}}

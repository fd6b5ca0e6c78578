"""Arrays of numbers as ``.npy`` files that are mapped into memory, whole or compared block by block when touched."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .damage import changed, checksum, rows_named

ROWS_PER_BLOCK = 8192
"""Rows whose checksum is compared together, of the vectors and of the table alike."""


class VectorRows(Protocol):
    """Vectors that are taken by row: an array of shape (n, dim), or what gives parts of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, and of numbers in each."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return vectors by a slice, or by an integer array."""


class MappedVectors:
    """Vectors in a file, float32 of shape (n, dim); a block is compared with its checksum when it is first read.

    Parameters
    ----------
    path : Path
        As `write_npy` writes it.
    shape : (int, int)
    checksums : uint64 array, one for each block of `ROWS_PER_BLOCK` rows

    Raises
    ------
    InputError
        The file is damaged; of a block, when it is read.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path, shape: tuple[int, int], checksums: np.ndarray) -> None:
        self._path, self._checksums = path, checksums
        self._array = map_npy(path, shape, np.float32)
        self._is_checked = np.zeros(len(checksums), bool)
        self._are_all_checked = False

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of numbers in each."""
        rows, dim = self._array.shape
        return rows, dim

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._array)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return vectors by whatever indexes the rows of an array; read-only where it is a view."""
        if not self._are_all_checked:
            self._check(rows)
        return self._array[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all of them."""
        whole = self[:]
        return np.array(whole, dtype, copy=bool(copy)) if copy or dtype not in (None, self.dtype) else whole

    def _check(self, rows: Any) -> None:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            blocks = np.arange(start // ROWS_PER_BLOCK, -(-stop // ROWS_PER_BLOCK))
        else:
            # Also of negative numbers and of bools.
            touched = np.asarray(rows)
            touched = np.flatnonzero(touched) if touched.dtype == bool else touched % max(len(self), 1)
            if self._is_checked[touched // ROWS_PER_BLOCK].all():
                return
            blocks = np.unique(touched // ROWS_PER_BLOCK)
        for block in blocks[~self._is_checked[blocks]].tolist():
            part = self._array[block * ROWS_PER_BLOCK : (block + 1) * ROWS_PER_BLOCK]
            if checksum(part) != int(self._checksums[block]):
                raise changed(self._path, rows_named(block * ROWS_PER_BLOCK, len(part)))
            self._is_checked[block] = True
        self._are_all_checked = bool(self._is_checked.all())


class JoinedVectors:
    """The vectors of several segments as if they were one array, float32 of shape (n, dim).

    Parameters
    ----------
    parts : vectors of each segment, in order, one at least
    """

    dtype = np.dtype(np.float32)

    def __init__(self, parts: list[MappedVectors]) -> None:
        self._parts = parts
        self._bounds = np.cumsum([0, *map(len, parts)])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of numbers in each."""
        return int(self._bounds[-1]), self._parts[0].shape[1]

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._bounds[-1])

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return vectors by whatever indexes the rows of an array; a view where they are of one segment."""
        if len(self._parts) == 1:
            return self._parts[0][rows]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            first = int(np.searchsorted(self._bounds, start, "right")) - 1
            if 0 <= start < stop <= self._bounds[first + 1] and step > 0:
                return self._parts[first][start - self._bounds[first] : stop - self._bounds[first] : step]
            wanted = np.arange(start, stop, step)
        else:
            wanted = np.asarray(rows)
            if wanted.dtype == bool:
                wanted = np.flatnonzero(wanted)
            if wanted.size and not -len(self) <= wanted.min() <= wanted.max() < len(self):
                raise IndexError(f"rows must lie between 0 and {len(self) - 1}")
            wanted = wanted % len(self)
        result = np.empty((*wanted.shape, self.shape[1]), np.float32)
        of_part = np.searchsorted(self._bounds, wanted, "right") - 1
        for number in np.unique(of_part).tolist():
            here = of_part == number
            result[here] = self._parts[number][wanted[here] - self._bounds[number]]
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all of them, copied where there are several segments."""
        return np.array(self[:], dtype) if copy or dtype is not None else self[:]


class NpyWriter:
    """Writes an array of known shape to a file, some rows after the other."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self._dtype = np.dtype(dtype)
        self._file = open(path, "wb")  # noqa: SIM115  # closed by close()
        self._file.write(_header(shape, self._dtype))

    def write(self, rows: np.ndarray) -> None:
        """Write further rows."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def close(self) -> None:
        """End the file."""
        self._file.close()


def write_npy(path: Path, parts: Iterable[np.ndarray], shape: tuple[int, ...], dtype: Any) -> None:
    """Write an array of known shape of its parts."""
    writer = NpyWriter(path, shape, dtype)
    try:
        for part in parts:
            writer.write(part)
    finally:
        writer.close()


def map_npy(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Map an array of known shape and type, read-only; the header is compared byte by byte and never interpreted.

    Raises
    ------
    InputError
        The file is damaged.
    """
    header = _header(shape, np.dtype(dtype))
    with open(path, "rb") as file:
        if file.read(len(header)) != header:
            raise changed(path, "its header")
    mapped = np.memmap(path, dtype, mode="r", offset=len(header), shape=shape)
    return np.asarray(mapped)  # as a plain array: each slice of a memmap costs more


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    text = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(text, described)
    return text.getvalue()

"""What is said of a file of a segment whose bytes are not those that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xxhash

from ...errors import InputError

MEND = "build the index again, or take it from a copy"


class DamagedError(InputError):
    """What was saved of an index is not as it was written: the fault of nobody who searches it."""


def checksum(*parts: np.ndarray | memoryview) -> int:
    """Return the 64-bit XXH3 of the bytes of the parts, each in one piece, one after the other."""
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part.data if isinstance(part, np.ndarray) else part)
    return digest.intdigest()


def changed(path: Path, what: str = "") -> DamagedError:
    """Return the error that says a file was changed after it was written, and where in it."""
    return DamagedError(f"{path}: is damaged ({what + ': ' if what else ''}not as written, by checksum); {MEND}")


def rows_named(first: int, count: int) -> str:
    """Return in words which rows of a segment are meant."""
    return f"rows {first:,} to {first + count - 1:,}"

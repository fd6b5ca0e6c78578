"""Vectors kept on disk under a hash of what they were made of: what a model embeds once, it need not embed again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..artifacts import atomic_file
from ..errors import InputError

logger = logging.getLogger("ionbed")


def cached_vectors(
    cache: Path | None, made_of: Iterable[str], num_rows: int, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """Return what ``make`` gives, from the cache where it is there.

    Parameters
    ----------
    cache : Path or None
        Folder of ``embeddings-HASH.npy``; None keeps nothing.
    made_of : iterable of str
        All that the vectors depend on: hashes of a model and of its inputs, or the inputs themselves.
    num_rows : int
        How many vectors there must be.
    make : function without parameters
        Gives float32 of shape (num_rows, D); may raise `InputError`.

    Raises
    ------
    InputError
        The cache cannot be written.
    """
    path = None
    if cache is not None:
        path = Path(cache) / f"embeddings-{_hash_of(made_of)}.npy"
        if path.is_file() and (known := _read(path, num_rows)) is not None:
            return known
    vectors = np.asarray(make(), np.float32)
    if path is not None:
        try:
            with atomic_file(path) as partial, open(partial, "wb") as file:
                np.save(file, vectors)
        except OSError as error:
            raise InputError(
                f"{path.parent}: cannot be used as a cache ({error.strerror}); name another folder"
            ) from None
    return vectors


def _hash_of(made_of: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for number, text in enumerate(made_of):
        digest.update((" " if number else "").encode() + text.encode())
    return digest.hexdigest()[:32]


def _read(path: Path, num_rows: int) -> np.ndarray | None:
    try:
        vectors: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s: is damaged (%s); it is made anew", path, str(error).splitlines()[0])
        return None
    if vectors.ndim != 2 or len(vectors) != num_rows or vectors.dtype != np.float32:
        logger.warning("%s: is not what was written there; it is made anew", path)
        return None
    return vectors

"""Answers about pairs of molecules that take long: kept in a file, and found by several processes."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from ..errors import InputError

Pairs = Sequence[tuple[str, str]]

_PAIRS_PER_TASK = 8


class KeptAnswers:
    """Whole numbers by unordered pair of texts, in an SQLite file.

    Parameters
    ----------
    folder : Path or None
        Where the file is; answers are kept in memory only where it is None.
    name : str
        Of the file: what is asked of the pairs, so that another question has another file.

    Raises
    ------
    InputError
        The file cannot be used.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self.known: dict[bytes, int] = {}
        self.file: sqlite3.Connection | None = None
        if folder is None:
            return
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = sqlite3.connect(path, timeout=60)
            self.file.execute("CREATE TABLE IF NOT EXISTS pairs (pair BLOB PRIMARY KEY, answer INTEGER) WITHOUT ROWID")
            self.known = dict(self.file.execute("SELECT pair, answer FROM pairs"))
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{path}: cannot be used as a cache ({error}); name another folder with --cache") from None

    def complete(self, pairs: Pairs, ask: Callable[[Pairs], Sequence[int]]) -> list[int]:
        """Return the answers for ``pairs``; those that are not known are asked for, and kept."""
        keys = [hashlib.blake2b("\n".join(sorted(pair)).encode(), digest_size=12).digest() for pair in pairs]
        missing = [place for place, key in enumerate(keys) if key not in self.known]
        new = {keys[p]: answer for p, answer in zip(missing, ask([pairs[p] for p in missing]), strict=True)}
        self.known.update(new)
        if self.file is not None and new:
            self.file.executemany("INSERT OR REPLACE INTO pairs VALUES (?, ?)", new.items())
            self.file.commit()
        return [self.known[key] for key in keys]

    def close(self) -> None:
        """Close the file; what was asked is in it."""
        if self.file is not None:
            self.file.close()


class Workers:
    """Several processes, which start when the first pairs come; in this process where ``workers`` is 1."""

    def __init__(self, workers: int | None) -> None:
        self.pool = None if workers == 1 else ProcessPoolExecutor(workers, mp_context=get_context("spawn"))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[..., list[int]], pairs: Pairs, *arguments: float) -> list[int]:
        """Return ``function(pairs, *arguments)``, computed in parts; it is a function of a module."""
        tasks = [pairs[begin : begin + _PAIRS_PER_TASK] for begin in range(0, len(pairs), _PAIRS_PER_TASK)]
        repeated = [[argument] * len(tasks) for argument in arguments]
        run = map if self.pool is None else self.pool.map
        answers: Iterator[list[int]] = run(function, tasks, *repeated)
        return [answer for part in answers for answer in part]

"""Cut the inputs of `prepare` into units: what one task reads, and what is not read again when a run is resumed."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...progress import counted
from ..readers import blocks_of_files
from ..readers.blocks import Block
from ..readers.sniffing import files_of

logger = logging.getLogger("ionbed")

SMALLEST_UNIT_BYTES = 4 << 20
FILES_PER_UNIT = 2000
LARGEST_SHARE = 1 / 16
"""A file that is more of the input than this is cut where the run is steered, so that many workers share it."""


@dataclass(frozen=True)
class InputFile:
    """A file of an input.

    Attributes
    ----------
    name : str
        As its user would recognise it: the name of the file, or ``folder/sub/file.mgf`` in a folder.
    path : Path
    num_bytes, modified_ns : int
    """

    name: str
    path: Path
    num_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Unit:
    """A block that is already read, or files that the worker reads; ``number`` counts from 0 in input order."""

    number: int
    block: Block | None = None
    files: tuple[tuple[str, Path], ...] = ()


def input_files(inputs: Sequence[Path]) -> list[InputFile]:
    """Return the files of all inputs, a folder's sorted by path; hidden files are left out.

    Names are unique: where two files would have one, each is called by as much of its path as tells them apart. A file
    that is given twice is read once.

    Raises
    ------
    InputError
        A file cannot be read, or a store is damaged.
    """
    given_as: dict[str, tuple[str, Path]] = {}
    num_given = 0
    for given in inputs:
        for name, path in files_of(given):
            given_as.setdefault(os.path.abspath(path), (name, path))
            num_given += 1
    if again := num_given - len(given_as):
        are = "is" if again == 1 else "are"
        logger.warning("%s %s given more than once; each is read once", counted(again, "files"), are)
    files = []
    for name, path in _distinct(list(given_as.values())):
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: cannot be read; check that it is there, and its permissions")
        status = path.stat()
        files.append(InputFile(name, path, status.st_size, status.st_mtime_ns))
    return files


def _distinct(named: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return the files under names of which no two are equal, fit for a table (UTF-8) whatever the file system says."""
    shared = {name for name, count in Counter(name for name, _ in named).items() if count > 1}
    tails = [(name.count("/") + 1, Path(os.path.abspath(path)).parts) for name, path in named]
    longer = 0
    names = [name for name, _ in named]
    while len(set(names)) < len(names):
        longer += 1
        names = [
            "/".join(parts[-length - longer :]).replace("//", "/") if name in shared else name
            for (name, _), (length, parts) in zip(named, tails, strict=True)
        ]
    encoded = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    return [(name, path) for name, (_, path) in zip(encoded, named, strict=True)]


def resume_key(files: Sequence[InputFile], options: dict[str, Any], version: str) -> str:
    """Return what must be equal for the parts of a stopped run to be used: the files, the options, the program."""
    seen = [[file.name, str(file.path.resolve()), file.num_bytes, file.modified_ns] for file in files]
    return json.dumps({"version": version, "options": options, "files": seen}, indent=0) + "\n"


def cut_into_units(files: Sequence[InputFile], skipped: list[str]) -> Iterator[Unit]:
    """Yield the units, lazily; they depend on the files only, not on who works.

    Small files share a unit; a file that is a large share of the whole becomes many units, one for each block. Of what
    is cut here, the names of files that are not spectra are appended to ``skipped``.
    """
    total = sum(file.num_bytes for file in files)
    number = 0
    waiting: list[tuple[str, Path]] = []
    waiting_bytes = 0
    for file in files:
        is_large = file.num_bytes > max(SMALLEST_UNIT_BYTES // 4, total * LARGEST_SHARE)
        if waiting and (is_large or waiting_bytes >= SMALLEST_UNIT_BYTES or len(waiting) >= FILES_PER_UNIT):
            yield Unit(number, files=tuple(waiting))
            number, waiting, waiting_bytes = number + 1, [], 0
        if not is_large:
            waiting.append((file.name, file.path))
            waiting_bytes += file.num_bytes
            continue
        for block in blocks_of_files([(file.name, file.path)], skipped):
            yield Unit(number, block=block)
            number += 1
    if waiting:
        yield Unit(number, files=tuple(waiting))
